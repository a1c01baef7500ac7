"""Where model, guide and data do not fit each other: the sentence for each."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import ExpandedDistribution, Independent, MaskedDistribution
from pyro.poutine.util import site_is_factor
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.tracing import Nodes

# What only says how a law is used; others with a base, such as a half-normal, are their own.
_WRAPPERS = (Independent, ExpandedDistribution, MaskedDistribution)


def compare_sites(model: Nodes, guide: Nodes) -> None:
    """Refuse latents that only one of the programs names, or that have two shapes."""
    latents = {n: node for n, node in model.items() if not node["is_observed"]}
    drawn = {
        n: node
        for n, node in guide.items()
        if not node["is_observed"] and not node["infer"].get("is_auxiliary")
    }
    for name, node in latents.items():
        if name not in drawn and node["infer"].get("enumerate") != "parallel":
            raise StoryError(
                f"the guide misses the latent site {name!r} of the model: sample it there too; or, "
                "if it is data, give it obs=; or, if it is discrete, mark it with "
                "infer={'enumerate': 'parallel'} to sum it out"
            )
    for name in drawn:
        if name not in latents:
            has = ", ".join(map(repr, latents)) or "none"
            what = "observes it" if name in model else f"has the latent sites {has}"
            raise StoryError(
                f"the guide adds the site {name!r}, but the model {what}: remove it, rename it, "
                "or mark it with infer={'is_auxiliary': True}"
            )
    for name, node in drawn.items():
        _compare_shapes(name, latents[name], node)


def _compare_shapes(name: str, model: dict[str, Any], guide: dict[str, Any]) -> None:
    expected, got = tuple(model["fn"].event_shape), tuple(guide["fn"].event_shape)
    if expected != got:
        raise StoryError(
            f"site {name!r} must have event shape {expected}, as in the model, got {got} from the "
            "guide: change the size in one of them, or .to_event(n) so that both agree"
        )
    outer, inner = plates_of(model), plates_of(guide)
    if set(outer) != set(inner):
        raise StoryError(
            f"site {name!r} must be in the plates {sorted(outer)}, as in the model, "
            f"got {sorted(inner)} in the guide: put it inside the same pyro.plate in both"
        )
    if tuple(model["fn"].batch_shape) != tuple(guide["fn"].batch_shape):
        raise StoryError(
            f"site {name!r} must have batch shape {tuple(model['fn'].batch_shape)}, as in the "
            f"model, got {tuple(guide['fn'].batch_shape)} from the guide: one of the two has a "
            "dimension too many, such as (N, 1) for (N,), or lacks its pyro.plate"
        )


def check_values(program: str, nodes: Nodes) -> None:
    """Refuse values outside a site's support, and dimensions that no plate declares."""
    for name, node in nodes.items():
        law, value = node["fn"], node["value"]
        if site_is_factor(node) or not isinstance(value, Tensor):  # type: ignore[arg-type]
            continue
        _check_value_shape(program, name, node)
        if node["is_observed"] and _takes_floats_alone(law, value):
            raise StoryError(
                f"site {name!r} is {type(base_of(law)).__name__} and takes numbers in floating "
                f"point, got {str(value.dtype).removeprefix('torch.')}: give it obs={name}.float()"
            )
        support = getattr(law, "support", None)
        if support is None or unchecked(law):
            continue
        try:
            inside = support.check(value)
        except (NotImplementedError, RuntimeError):
            continue
        if not inside.all():
            raise outside_support(name, law, value, inside, node["is_observed"])


def _takes_floats_alone(law: Any, value: Tensor) -> bool:
    """Whether a law cannot score whole numbers as they are stored, and can as floats."""
    if value.is_floating_point():
        return False
    try:
        law.log_prob(value)
    except (RuntimeError, ValueError, NotImplementedError):
        try:
            return bool(law.log_prob(value.float()).isfinite().any())
        except (RuntimeError, ValueError, NotImplementedError):
            return False
    return False


def unchecked(law: Any) -> bool:
    """Whether the program asked for no validation, as for grey values under a Bernoulli."""
    while law.__dict__.get("_validate_args") is not False:
        if not isinstance(law, _WRAPPERS):
            return False
        law = law.base_dist
    return True


def outside_support(name: str, law: Any, value: Tensor, inside: Tensor, data: bool) -> StoryError:
    """The sentence for values outside a distribution's support."""
    inside = inside.reshape(inside.shape + (1,) * (value.dim() - inside.dim())).expand_as(value)
    worst = value[~inside]
    kind = type(base_of(law)).__name__
    remedy = (
        "transform the data (data.load(..., binarise=...) makes 0 and 1 of an image), or take a "
        "likelihood whose support they are in; bernoulli(grey=True) scores grey values"
        if data
        else "let the guide draw from the prior's support"
    )
    return StoryError(
        f"site {name!r} is {kind} and takes {_support_words(law.support)}, but {worst.numel()} of "
        f"{value.numel()} values lie outside, the first is {worst.flatten()[0].item():g}: {remedy}"
    )


def _check_value_shape(program: str, name: str, node: dict[str, Any]) -> None:
    law, value = node["fn"], node["value"]
    events = len(law.event_shape)
    event = tuple(value.shape[value.dim() - events :])
    if event != tuple(law.event_shape):
        raise StoryError(
            f"site {name!r} of the {program} expects values of shape {tuple(law.event_shape)}, "
            f"got {event}: reshape the data or build the story with their shape"
        )
    try:
        batch = torch.broadcast_shapes(law.batch_shape, value.shape[: value.dim() - events])
    except RuntimeError:
        raise StoryError(
            f"site {name!r} of the {program} expects batch shape {tuple(law.batch_shape)}, got "
            f"values of shape {tuple(value.shape)}: one of the two has the wrong number of rows"
        ) from None
    declared = {f.dim: f for f in node["cond_indep_stack"] if f.vectorized}
    for frame in declared.values():
        absent = len(value.shape) - events < -frame.dim
        data = node["is_observed"] and not node["infer"].get("_deterministic")
        if data and absent and frame.size > 1 and frame.size in event:
            raise StoryError(
                f"site {name!r} takes the {frame.size} rows of plate {frame.name!r} for one value "
                f"of shape {event}, and would count it for every row: .to_event(n) of one less"
            )
    for dim in range(-len(batch), 0):
        frame = declared.get(dim)
        if batch[dim] != 1 and frame is None:
            raise StoryError(
                f"site {name!r} of the {program} has batch shape {tuple(batch)}, but no plate "
                f"declares dimension {dim}: use .to_event(n) for dimensions that belong to one "
                f"value, or pyro.plate(..., dim={dim})"
            )
        if frame is not None and frame.size > 0 and batch[dim] not in (1, frame.size):
            raise StoryError(
                f"site {name!r} of the {program} has batch shape {tuple(batch)}, but plate "
                f"{frame.name!r} at dimension {dim} has size {frame.size}: one was broadcast "
                "against another, such as (N,) against (N, 1)"
            )


def _support_words(support: Any) -> str:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    known = {"Boolean()": "0 or 1", "IntegerGreaterThan(lower_bound=0)": "whole numbers from 0"}
    return known.get(str(support), str(support))


def plates_of(node: dict[str, Any], vectorized: bool = False) -> tuple[str, ...]:
    """Names of the plates around a site, from the outermost batch dimension in."""
    frames = [f for f in node["cond_indep_stack"] if f.vectorized or not vectorized]
    return tuple(f.name for f in sorted(frames, key=lambda f: f.dim or 0))


def base_of(law: Any) -> Any:
    """A law without what only says how it is used: events, expansion, a mask."""
    while isinstance(law, _WRAPPERS):
        law = law.base_dist
    return law
