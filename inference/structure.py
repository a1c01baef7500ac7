"""What a pair of programs is made of, found by running it: sites, plates, and how they fit."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor

from ppl_gen.errors import PplGenError, StoryError
from ppl_gen.inference.pair import Pair, Program

Batch = tuple[Any, ...]
Nodes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Site:
    """One ``pyro.sample`` statement.

    Attributes:
        name: Its name.
        law: Name of its distribution's class in the model.
        observed: Whether the data are bound to it.
        plates: Names of the plates around it, from the outermost batch dimension in.
        event_shape: Shape of one value.
        summed: Whether it is enumerated in the model and absent from the guide.
        local: Whether one of its plates is a data plate.
        point: Whether the guide puts all its mass on one value, as a maximum does.
    """

    name: str
    law: str
    observed: bool
    plates: tuple[str, ...]
    event_shape: tuple[int, ...]
    summed: bool
    local: bool
    point: bool


@dataclass(frozen=True)
class Structure:
    """The sites and plates of a pair, and how it takes its data.

    Attributes:
        sites: Sites of the model in order, without those that plates draw their indices from.
        batch_plates: Plates as large as the batch. Their terms have to be weighted.
        data_plates: All plates over observations; ``batch_plates`` and those which already have
            the size of the data set, by ``plate(..., subsample=)``.
        subsamples: Whether the program picks its own mini-batch and has to be given all the data.
        nesting: How many batch dimensions, from the right, belong to plates.
        enumerated: Whether a site of model or guide is marked for enumeration.
        same_order: Whether model and guide name their common sites in the same order.
        elements: Observed numbers per datum (or in all where there is no data plate).
    """

    sites: dict[str, Site]
    batch_plates: frozenset[str]
    data_plates: frozenset[str]
    subsamples: bool
    nesting: int
    enumerated: bool
    same_order: bool
    elements: float

    @property
    def latents(self) -> list[Site]:
        """The sites that are not observed."""
        return [site for site in self.sites.values() if not site.observed]

    @property
    def observed(self) -> list[Site]:
        """The sites that the data are bound to."""
        return [site for site in self.sites.values() if site.observed]

    @property
    def has_globals(self) -> bool:
        """Whether some latent stands outside the data plate."""
        return any(not site.local for site in self.latents)

    @property
    def takes_batches(self) -> bool:
        """Whether the program can be given some rows of the data at a time."""
        return bool(self.data_plates) and not self.subsamples


class Weights(Messenger):
    """Multiply the terms of data plates by one factor and those of latents by another."""

    def __init__(self, plates: frozenset[str], factor: float = 1.0, latent: float = 1.0) -> None:
        super().__init__()
        self.plates = plates
        self.factor = factor
        self.latent = latent

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if site_is_subsample(msg):  # type: ignore[arg-type]
            return
        if self.factor != 1.0 and any(f.name in self.plates for f in msg["cond_indep_stack"]):
            msg["scale"] = msg["scale"] * self.factor
        if self.latent != 1.0 and not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.latent


def examine(
    pair: Pair, example: Callable[[int], Batch], size: int, rows: int, kwargs: Mapping[str, Any]
) -> Structure:
    """Run both programs and describe them; refuse a pair that does not fit together.

    Args:
        pair: The programs.
        example: Gives the first so many rows of the data.
        size: How many rows there are.
        rows: How many rows to trace with, if the programs take batches.
        kwargs: Further arguments of both programs.

    Raises:
        StoryError: If a program raises, a site is missing or too many, shapes disagree, a datum is
            outside its likelihood's support, or a plate has another size than the data.
    """
    plates = _probe_plates(pair, example, size, kwargs)
    batch_plates = frozenset(n for n, p in plates.items() if p.follows)
    fixed = {n: p for n, p in plates.items() if p.external}
    for name, plate in fixed.items():
        if plate.size != size:
            raise StoryError(
                f"plate {name!r} must have the size of the data, {size}, got {plate.size}: "
                f"give it size={size}, or size=len(x) and let the batch be weighted"
            )
    data_plates = batch_plates | frozenset(fixed)
    subsamples = any(p.subsamples for p in plates.values())
    batch = example(rows if data_plates and not subsamples else size)
    if not data_plates:
        data_plates = frozenset(n for n, p in plates.items() if p.subsamples)
    _check_sites(pair, batch, kwargs)
    guide, model = trace_nodes(pair, batch, kwargs)
    for program, nodes in (("guide", guide), ("model", model)):
        _check_values(program, nodes)
    points = _points(pair, batch, kwargs, guide)
    return _describe(model, guide, points, batch_plates, data_plates, subsamples)


@contextmanager
def blame(program: str) -> Iterator[None]:
    """Turn what a user's program raises into one sentence that names the line in it."""
    try:
        yield
    except PplGenError:
        raise
    except Exception as error:
        where = ""
        for frame in traceback.extract_tb(error.__traceback__):
            if not _is_library(frame.filename):
                where = f" ({Path(frame.filename).name}, line {frame.lineno})"
        text = str(error).strip().split("\n")[0] or type(error).__name__
        raise StoryError(f"the {program} raised {type(error).__name__}{where}: {text}") from error


def _is_library(filename: str) -> bool:
    parts = Path(filename).parts
    own = Path(__file__).resolve().parent
    inside = own in Path(filename).resolve().parents
    return inside or "torch" in parts or "pyro" in parts or "contextlib.py" in parts


@dataclass
class _Plate:
    """How a plate's size answers to two sizes of the data, the larger first."""

    size: int
    follows: bool = False
    external: bool = False
    subsamples: bool = False


class _PlateSizes(Messenger):
    """Collect what plates are asked for, even by a program that fails later."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, tuple[int, int | None]] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if site_is_subsample(msg):  # type: ignore[arg-type]
            law, given = msg["fn"], msg["value"]
            taken = len(given) if given is not None else law.subsample_size
            self.seen[msg["name"]] = (law.size, taken)


def _probe_plates(
    pair: Pair, example: Callable[[int], Batch], size: int, kwargs: Mapping[str, Any]
) -> dict[str, _Plate]:
    """Run the model on three rows and on two, and see which plates change."""
    if size < 3:
        return {}
    seen = []
    for rows in (3, 2):
        sizes = _PlateSizes()
        with pair.scratch(), pyro.validation_enabled(False), sizes, torch.random.fork_rng():
            try:
                poutine.trace(pair.model).get_trace(*example(rows), **kwargs)
            except Exception:  # noqa: S110  # what plates were met before says enough
                pass
        seen.append(sizes.seen)
    plates = {}
    for name, (three, taken) in seen[0].items():
        two, other_taken = seen[1].get(name, (three, taken))
        plate = plates[name] = _Plate(three)
        if taken is None:
            plate.follows = (three, two) == (3, 2)
        elif (taken, other_taken) == (3, 2):
            plate.follows = (three, two) == (3, 2)
            plate.external = three == two
        else:
            plate.subsamples = True
    return plates


def trace_nodes(pair: Pair, batch: Batch, kwargs: Mapping[str, Any]) -> tuple[Nodes, Nodes]:
    """The sample sites of the guide, and of the model replayed on its draws.

    Raises:
        StoryError: If one of the programs raises; it names the line.
    """
    with torch.no_grad():
        unwrapped = poutine.unwrap(pair.guide)
        with blame("guide"):
            if isinstance(unwrapped, Messenger):  # a guide written as handlers around the model
                pair.guide(*batch, **kwargs)
                model, guide = unwrapped.get_traces()  # type: ignore[attr-defined]
                return _sites(guide), _sites(model)
            guide = poutine.trace(pair.guide).get_trace(*batch, **kwargs)
        with blame("model, given the guide's draws,"):
            model = poutine.trace(poutine.replay(pair.model, trace=guide)).get_trace(
                *batch, **kwargs
            )
    return _sites(guide), _sites(model)


def _check_sites(pair: Pair, batch: Batch, kwargs: Mapping[str, Any]) -> None:
    """Hold each program's sites against the other's before one is run on the other's draws."""
    with pair.scratch():
        with blame("model"):
            alone = poutine.trace(pair.model).get_trace(*batch, **kwargs)
        if isinstance(poutine.unwrap(pair.guide), Messenger):
            return
        with blame("guide"):
            guide = poutine.trace(pair.guide).get_trace(*batch, **kwargs)
    _compare(_sites(alone), _sites(guide))


def _sites(trace: Any) -> Nodes:
    return {
        name: node
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not site_is_subsample(node)
    }


def _compare(model: Nodes, guide: Nodes) -> None:
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
                f"the guide misses the latent site {name!r} of the model: sample it there too, "
                "or, if it is discrete, mark it with infer={'enumerate': 'parallel'} to sum it out"
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
    outer, inner = _plates_of(model), _plates_of(guide)
    if set(outer) != set(inner):
        raise StoryError(
            f"site {name!r} must be in the plates {sorted(outer)}, as in the model, "
            f"got {sorted(inner)} in the guide: put it inside the same pyro.plate in both"
        )
    if tuple(model["fn"].batch_shape) != tuple(guide["fn"].batch_shape):
        raise StoryError(
            f"site {name!r} must have batch shape {tuple(model['fn'].batch_shape)}, as in the "
            f"model, got {tuple(guide['fn'].batch_shape)} from the guide: one of the two has a "
            "dimension too many, such as (N, 1) for (N,)"
        )


def _check_values(program: str, nodes: Nodes) -> None:
    """Refuse values outside a site's support, and dimensions that no plate declares."""
    for name, node in nodes.items():
        law, value = node["fn"], node["value"]
        if site_is_factor(node) or not isinstance(value, Tensor):  # type: ignore[arg-type]
            continue
        _check_value_shape(program, name, node)
        support = getattr(law, "support", None)
        if support is None or law.__dict__.get("_validate_args") is False:
            continue
        try:
            inside = support.check(value)
        except (NotImplementedError, RuntimeError):
            continue
        if not inside.all():
            raise outside_support(name, law, value, inside, node["is_observed"])


def outside_support(name: str, law: Any, value: Tensor, inside: Tensor, data: bool) -> StoryError:
    """The sentence for values outside a distribution's support."""
    inside = inside.reshape(inside.shape + (1,) * (value.dim() - inside.dim())).expand_as(value)
    worst = value[~inside]
    kind = type(_base(law)).__name__
    remedy = (
        "transform the data (data.load(..., binarise=...) makes 0 and 1 of an image), or take a "
        "likelihood whose support they are in"
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


def _points(pair: Pair, batch: Batch, kwargs: Mapping[str, Any], guide: Nodes) -> set[str]:
    """Sites with a ``Delta`` that is the same whenever the guide is run."""
    deltas = {n: node["value"] for n, node in guide.items() if type(_base(node["fn"])) is Delta}
    if not deltas:
        return set()
    again, _ = trace_nodes(pair, batch, kwargs)
    return {n for n, value in deltas.items() if torch.equal(value, again[n]["value"])}


def _describe(
    model: Nodes,
    guide: Nodes,
    points: set[str],
    batch_plates: frozenset[str],
    data_plates: frozenset[str],
    subsamples: bool,
) -> Structure:
    sites = {
        name: Site(
            name=name,
            law=type(_base(node["fn"])).__name__,
            observed=bool(node["is_observed"]),
            plates=_plates_of(node),
            event_shape=tuple(node["fn"].event_shape),
            summed=not node["is_observed"] and name not in guide,
            local=bool(data_plates & set(_plates_of(node))),
            point=name in points,
        )
        for name, node in model.items()
        if not (site_is_factor(node))  # type: ignore[arg-type]
    }
    both = [*model.values(), *guide.values()]
    dims = [f.dim for node in both for f in node["cond_indep_stack"] if f.vectorized]
    observed = sum(
        node["value"].numel()
        for node in model.values()
        if node["is_observed"] and isinstance(node["value"], Tensor)
    )
    rows = max(
        [f.size for n in model.values() for f in n["cond_indep_stack"] if f.name in data_plates],
        default=1,
    )
    common = [name for name in guide if name in model]
    return Structure(
        sites=sites,
        batch_plates=batch_plates,
        data_plates=data_plates,
        subsamples=subsamples,
        nesting=-min(dims, default=0),
        enumerated=any(
            node["infer"].get("enumerate") is not None
            for node in both
            if not node["is_observed"] and node["fn"].has_enumerate_support
        ),
        same_order=common == [name for name in model if name in guide],
        elements=observed / rows,
    )


def _plates_of(node: dict[str, Any]) -> tuple[str, ...]:
    frames = node["cond_indep_stack"]
    return tuple(f.name for f in sorted(frames, key=lambda f: f.dim or 0))


def _base(law: Any) -> Any:
    while hasattr(law, "base_dist"):
        law = law.base_dist
    return law


def _support_words(support: Any) -> str:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    known = {"Boolean()": "0 or 1", "IntegerGreaterThan(lower_bound=0)": "whole numbers from 0"}
    return known.get(str(support), str(support))
