"""What a pair of programs is made of, found by running it: sites, plates, and how they fit."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta, ExpandedDistribution, Independent, MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor

from ppl_gen.errors import PplGenError, StoryError
from ppl_gen.inference.pair import Pair

Batch = tuple[Any, ...]
Nodes = dict[str, dict[str, Any]]

# What only says how a law is used; others with a base, such as a half-normal, are their own.
_WRAPPERS = (Independent, ExpandedDistribution, MaskedDistribution)


@dataclass(frozen=True)
class Site:
    """One ``pyro.sample`` statement.

    Attributes:
        name: Its name.
        law: Name of its distribution's class in the model.
        observed: Whether the data are bound to it.
        plates: Names of the vectorised plates around it, from the outermost batch dimension in.
        event_shape: Shape of one value.
        summed: Whether it is enumerated in the model and absent from the guide.
        local: Whether one of its plates is a data plate.
        point: Whether the guide puts all its mass on one value, as a maximum does.
        derived: Whether it is a function of the others, by ``pyro.deterministic``.
    """

    name: str
    law: str
    observed: bool
    plates: tuple[str, ...]
    event_shape: tuple[int, ...]
    summed: bool
    local: bool
    point: bool
    derived: bool = False


@dataclass(frozen=True)
class Structure:
    """The sites and plates of a pair, and how it takes its data.

    Attributes:
        sites: Sites of the model in order, without those that plates draw their indices from.
        batch_plates: Plates as large as the batch. Their terms have to be weighted.
        data_plates: The vectorised plates over observations: those of ``batch_plates``, those that
            already have the size of the data set, by ``plate(..., subsample=)``, and those by
            which a program picks its own mini-batch.
        subsamples: Whether the program picks its own mini-batch.
        keeps_rows: Whether the programs keep parameters for every datum, which may then be neither
            shuffled nor left out.
        nesting: How many batch dimensions, from the right, belong to plates.
        enumerated: Whether a site of model or guide is marked for enumeration.
        same_order: Whether model and guide name their common sites in the same order.
        elements: Observed numbers per datum (or in all where there is no data plate).
    """

    sites: dict[str, Site]
    batch_plates: frozenset[str]
    data_plates: frozenset[str]
    subsamples: bool
    keeps_rows: bool
    nesting: int
    enumerated: bool
    same_order: bool
    elements: float

    @property
    def latents(self) -> list[Site]:
        """The sites that are drawn and not observed."""
        return [s for s in self.sites.values() if not (s.observed or s.derived)]

    @property
    def observed(self) -> list[Site]:
        """The sites that the data are bound to."""
        return [site for site in self.sites.values() if site.observed]

    @property
    def has_globals(self) -> bool:
        """Whether some latent stands outside the data plate."""
        return any(not site.local for site in self.latents)

    @property
    def needs_all(self) -> str:
        """Why the programs have to be given all the data at once; empty if they need not."""
        if self.subsamples:
            return "the program picks its own mini-batch by plate(..., subsample_size=)"
        if self.keeps_rows:
            return "the programs keep parameters for every datum"
        if not self.batch_plates | self.data_plates:
            return "no plate of the model has the size of the batch"
        return ""

    @property
    def takes_batches(self) -> bool:
        """Whether the programs can be given some rows of the data at a time."""
        return not self.needs_all

    @property
    def splits_rows(self) -> bool:
        """Whether draws can be made for some rows at a time, given as a batch or by indices."""
        return bool(self.data_plates) and (self.takes_batches or self.subsamples)


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


class Indices(Messenger):
    """Choose the rows that plates with these names take."""

    def __init__(self, chosen: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.chosen = chosen

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if site_is_subsample(msg) and msg["name"] in self.chosen:  # type: ignore[arg-type]
            msg["value"] = self.chosen[msg["name"]]


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
    plates, keeps_rows = _probe(pair, example, size, kwargs)
    batch_plates = frozenset(n for n, p in plates.items() if p.follows)
    for name, plate in plates.items():
        if plate.external and plate.size != size:
            raise StoryError(
                f"plate {name!r} must have the size of the data, {size}, got {plate.size}: "
                f"give it size={size}, or size=len(x) and let the batch be weighted"
            )
    subsamples = any(p.subsamples for p in plates.values())
    over_data = {n for n, p in plates.items() if p.follows or p.external}
    batch = example(rows if over_data and not subsamples and not keeps_rows else size)
    over_data = over_data or {n for n, p in plates.items() if p.subsamples}
    _check_sites(pair, batch, kwargs)
    guide, model = trace_nodes(pair, batch, kwargs)
    for program, nodes in (("guide", guide), ("model", model)):
        _check_values(program, nodes)
    both = [*model.values(), *guide.values()]
    dims = [f.dim for node in both for f in node["cond_indep_stack"] if f.vectorized]
    loops = {f.name for node in both for f in node["cond_indep_stack"] if not f.vectorized}
    data_plates = frozenset(over_data - loops)
    common = [name for name in guide if name in model]
    return Structure(
        sites=_describe(model, guide, data_plates, _points(pair, batch, kwargs, guide)),
        batch_plates=batch_plates,
        data_plates=data_plates,
        subsamples=subsamples,
        keeps_rows=keeps_rows,
        nesting=-min(dims, default=0),
        enumerated=any(
            node["infer"].get("enumerate") is not None
            for node in both
            if not node["is_observed"] and node["fn"].has_enumerate_support
        ),
        same_order=common == [name for name in model if name in guide],
        elements=_elements(model, data_plates, len(batch[0]) if over_data and batch else 1),
    )


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
        text = _first_line(error)
        if text.endswith(":") and error.__cause__ is not None:
            text = f"{text} {_first_line(error.__cause__)}"
        raise StoryError(f"the {program} raised {type(error).__name__}{where}: {text}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


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


class PlateSizes(Messenger):
    """Collect the size of every plate and how many indices it takes, None for all of them.

    Attributes:
        seen: Both, by the plate's name.
        drawn: Plates that draw their indices, rather than taking all or those they are given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, tuple[int, int | None]] = {}
        self.drawn: set[str] = set()

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if site_is_subsample(msg):  # type: ignore[arg-type]
            law, given = msg["fn"], msg["value"]
            taken = len(given) if given is not None else law.subsample_size
            if msg["name"] not in self.seen or taken is not None:
                self.seen[msg["name"]] = (law.size, taken)
            if given is None and taken not in (None, law.size):
                self.drawn.add(msg["name"])

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        """A plate without a size has that of what is in it."""
        for frame in msg["cond_indep_stack"]:
            if frame.vectorized and frame.size < 0:
                law = msg["fn"].batch_shape
                size = law[frame.dim] if len(law) >= -frame.dim else 1
                known, _ = self.seen.get(frame.name, (1, None))
                self.seen[frame.name] = (max(size, known), None)


def _probe(
    pair: Pair, example: Callable[[int], Batch], size: int, kwargs: Mapping[str, Any]
) -> tuple[dict[str, _Plate], bool]:
    """Run copies of the programs on three rows and on two: which plates, which parameters change?

    Parameters that change with the rows, or programs that bear all rows but not some, say that
    something is kept for every datum.
    """
    seen, kept = [], []
    with torch.random.fork_rng():
        for rows in (3, 2) if size >= 3 else (size, size):
            sizes = PlateSizes()
            kept.append(_try_out(pair, sizes, example(rows), kwargs))
            seen.append(sizes)
        keeps_rows = kept[0] != kept[1]
        if not keeps_rows and kept[0] is None:
            keeps_rows = _try_out(pair, PlateSizes(), example(size), kwargs) is not None
    plates = {}
    for name, (three, taken) in seen[0].seen.items():
        two, other_taken = seen[1].seen.get(name, (three, taken))
        plate = plates[name] = _Plate(three)
        plate.follows = (three, two) == (3, 2) and (taken or 3, other_taken or 2) == (3, 2)
        plate.external = three == two and (taken, other_taken) == (3, 2)
        plate.subsamples = name in seen[0].drawn
    return plates, keeps_rows


def _try_out(
    pair: Pair, sizes: PlateSizes, batch: Batch, kwargs: Mapping[str, Any]
) -> dict[str, torch.Size] | None:
    """Shapes of the parameters after a run of a copy; None if a program raises."""
    copy = pair.fresh(warm_start=True)
    with copy.scratch(), pyro.validation_enabled(False), sizes:
        shapes: dict[str, torch.Size] | None = {}
        for program in (copy.guide, copy.model):
            try:
                program(*batch, **kwargs)
            except Exception:
                shapes = None
        if shapes is None:
            return None
        return {name: value.shape for name, value in copy.parameters().items()}


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
    handlers = isinstance(poutine.unwrap(pair.guide), Messenger)
    with pair.scratch():
        guide = poutine.Trace()
        if not handlers:
            with blame("guide"):
                guide = poutine.trace(pair.guide).get_trace(*batch, **kwargs)
        with blame("model"):
            model = poutine.trace(pair.model).get_trace(*batch, **kwargs)
        with suppress(Exception):  # which sites there are may depend on what is drawn
            replayed = poutine.replay(pair.model, trace=guide)
            model = poutine.trace(replayed).get_trace(*batch, **kwargs)
    if not handlers:
        _compare(_sites(model), _sites(guide))


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
        if support is None or _unchecked(law):
            continue
        try:
            inside = support.check(value)
        except (NotImplementedError, RuntimeError):
            continue
        if not inside.all():
            raise outside_support(name, law, value, inside, node["is_observed"])


def _unchecked(law: Any) -> bool:
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
    model: Nodes, guide: Nodes, data_plates: frozenset[str], points: set[str]
) -> dict[str, Site]:
    return {
        name: Site(
            name=name,
            law=type(_base(node["fn"])).__name__,
            observed=node["is_observed"] and not _is_derived(node),
            plates=_plates_of(node, vectorized=True),
            event_shape=tuple(node["fn"].event_shape),
            summed=not node["is_observed"] and name not in guide,
            local=bool(data_plates & set(_plates_of(node))),
            point=name in points,
            derived=_is_derived(node),
        )
        for name, node in model.items()
        if not site_is_factor(node)  # type: ignore[arg-type]
    }


def _is_derived(node: dict[str, Any]) -> bool:
    """What ``pyro.deterministic`` and reparametrised sites leave: a value observed for sure."""
    return bool(node["is_observed"]) and type(_base(node["fn"])) is Delta


def _elements(model: Nodes, data_plates: frozenset[str], rows: int) -> float:
    """Observed numbers per datum."""
    observed = sum(
        node["value"].numel()
        for node in model.values()
        if node["is_observed"] and isinstance(node["value"], Tensor) and not _is_derived(node)
    )
    frames = [f for node in model.values() for f in node["cond_indep_stack"]]
    sizes = [f.size for f in frames if f.name in data_plates and f.size > 0]
    return observed / max(sizes, default=rows)


def _plates_of(node: dict[str, Any], vectorized: bool = False) -> tuple[str, ...]:
    frames = [f for f in node["cond_indep_stack"] if f.vectorized or not vectorized]
    return tuple(f.name for f in sorted(frames, key=lambda f: f.dim or 0))


def _base(law: Any) -> Any:
    while isinstance(law, _WRAPPERS):
        law = law.base_dist
    return law


def _support_words(support: Any) -> str:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    known = {"Boolean()": "0 or 1", "IntegerGreaterThan(lower_bound=0)": "whole numbers from 0"}
    return known.get(str(support), str(support))
