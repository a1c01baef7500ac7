"""What a pair of programs is made of, found by running it: sites and plates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_factor
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.mismatch import base_of, check_values, compare_sites, plates_of
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.settings import OF_CODES, OF_SHARED, Way
from ppl_gen.inference.tracing import (
    Batch,
    Nodes,
    PlateSizes,
    blame,
    guide_of,
    sample_sites,
    trace_nodes,
)
from ppl_gen.laws import Drawn


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
        implicit: Whether its law in the model can be drawn from and has no density.
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
    implicit: bool = False


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
    def observation(self) -> Site | None:
        """The observed site that a datum is known by: of those inside a data plate the largest."""
        local = [site for site in self.observed if site.local]
        return max(local, key=lambda site: math.prod(site.event_shape), default=None)

    @property
    def takes_new_rows(self) -> bool:
        """Whether what is known of the latents serves other rows than those of the fit.

        It does where each datum has its own, or where all are single values, as parameters are.
        """
        return any(s.local for s in self.latents) or all(s.point for s in self.latents)

    @property
    def unscored(self) -> str:
        """Why latents and data have no joint density; empty if they have."""
        site = next((site for site in self.latents if site.implicit), None)
        if site is None:
            return ""
        return f"the prior of {site.name!r} can be drawn from and has no density"

    @property
    def has_codes(self) -> bool:
        """Whether each datum has latents of its own that are not summed out."""
        return any(site.local and not site.summed for site in self.latents)

    @property
    def has_globals(self) -> bool:
        """Whether some latent stands outside the data plate."""
        return any(not site.local for site in self.latents)

    @property
    def way(self) -> Way:
        """How far a fit goes unless told."""
        return OF_SHARED if self.has_globals and not self.has_codes else OF_CODES

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
        check_values(program, nodes)
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


@dataclass
class _Plate:
    """How a plate's size answers to two sizes of the data, the larger first."""

    size: int
    follows: bool = False
    external: bool = False
    subsamples: bool = False


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


def _check_sites(pair: Pair, batch: Batch, kwargs: Mapping[str, Any]) -> None:
    """Hold each program's sites against the other's before one is run on the other's draws."""
    handlers = isinstance(poutine.unwrap(pair.guide), Messenger)
    with pair.scratch():
        guide = poutine.Trace()
        if not handlers:
            with blame(guide_of(pair)):
                guide = poutine.trace(pair.guide).get_trace(*batch, **kwargs)
        with blame("model"):
            model = poutine.trace(pair.model).get_trace(*batch, **kwargs)
        with suppress(Exception):  # which sites there are may depend on what is drawn
            replayed = poutine.replay(pair.model, trace=guide)
            model = poutine.trace(replayed).get_trace(*batch, **kwargs)
    if not handlers:
        compare_sites(sample_sites(model), sample_sites(guide))


def _points(pair: Pair, batch: Batch, kwargs: Mapping[str, Any], guide: Nodes) -> set[str]:
    """Sites with a ``Delta`` that is the same whenever the guide is run."""
    deltas = {n: node["value"] for n, node in guide.items() if type(base_of(node["fn"])) is Delta}
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
            law=_name_of(base_of(node["fn"])),
            observed=node["is_observed"] and not _is_derived(node),
            plates=plates_of(node, vectorized=True),
            event_shape=tuple(node["fn"].event_shape),
            summed=not node["is_observed"] and name not in guide,
            local=bool(data_plates & set(plates_of(node))),
            point=name in points,
            derived=_is_derived(node),
            implicit=not node["is_observed"] and _is_implicit(node),
        )
        for name, node in model.items()
        if not site_is_factor(node)  # type: ignore[arg-type]
    }


def _name_of(law: Any) -> str:
    """Name of its class; of a law that is known by its draws alone, of what draws."""
    return law.name if isinstance(law, Drawn) else type(law).__name__


def _is_implicit(node: dict[str, Any]) -> bool:
    try:
        with torch.no_grad():
            node["fn"].log_prob(node["value"])
    except NotImplementedError:
        return True
    except (ValueError, RuntimeError):  # a value that its law does not take, which is told later
        pass
    return False


def _is_derived(node: dict[str, Any]) -> bool:
    """What ``pyro.deterministic`` and reparametrised sites leave: a value observed for sure."""
    return bool(node["is_observed"]) and type(base_of(node["fn"])) is Delta


def _elements(model: Nodes, data_plates: frozenset[str], rows: int) -> float:
    """Observed numbers per datum."""
    observed = sum(
        int((~node["value"].isnan()).sum())
        for node in model.values()
        if node["is_observed"] and isinstance(node["value"], Tensor) and not _is_derived(node)
    )
    frames = [f for node in model.values() for f in node["cond_indep_stack"]]
    sizes = [f.size for f in frames if f.name in data_plates and f.size > 0]
    return observed / max(sizes, default=rows)
