"""Data that the story itself has drawn, with the latents they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.batches import some_rows
from ppl_gen.inference.layout import counted_mask
from ppl_gen.inference.memory import MEMORY, Bytes
from ppl_gen.inference.mismatch import base_of
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.tracing import Batch, Fix, Nodes, blame, sample_sites

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

EXAMPLE_ROWS = 64  # on which is looked which column an observed site is


def simulate(
    run: Run,
    batch: Batch,
    seed: int = 0,
    *,
    fixed: Mapping[str, Tensor] | None = None,
    memory: int = MEMORY,
) -> tuple[dict[str, Tensor], Batch]:
    """Draw latents and observations from the model, as many rows as the batch has.

    Each row keeps what it is conditioned on: columns that are bound to no observed site, elements
    that a mask leaves unobserved, and NaN where a value is missing. The latents that all rows share
    are one draw of the guide, unless ``fixed`` says otherwise; those of each row are drawn from
    their prior, which need not have a density.

    Args:
        run: The fitted story.
        batch: Rows in the form that its programs take.
        seed: Of the draws.
        fixed: Values of global sites to keep, ``(1, *plates, *event)`` each, as
            :meth:`Sampler.draw_globals` gives them. Those that are not named are drawn from their
            prior, once for all rows: ``{}`` draws all of them so.
        memory: Bytes that a pass may take.

    Returns:
        Latents by site, ``(N, *event)``, of global ones ``(*plates, *event)``; and the batch in
        which the columns that are bound to observed sites hold what was drawn. A column keeps its
        dtype, unless that cannot hold the draws.

    Raises:
        StoryError: If the model cannot be drawn from, holds its data itself, observes something
            that is no column as it is, or reads data that it is to draw.
    """
    with (
        run.pair.active(),
        seeded(seed),
        torch.no_grad(),
        pyro.validation_enabled(False),
    ):
        simulator = _Simulator(Sampler(run.pair, run.structure, run.kwargs, at_once=False))
        columns = simulator.columns(batch)
        simulator.must_not_read(batch, columns)
        window, sites = simulator.sampler.window, run.structure.sites
        if fixed is None:
            first = next(window.slices(batch, EXAMPLE_ROWS))
            with window.showing(batch, first) as shown:
                fixed = simulator.sampler.draw_globals(shown, 1)
        held, parts = dict(fixed), list[dict[str, Tensor]]()
        for part in window.slices(batch, simulator.rows_within(memory, batch)):
            given = some_rows(batch, part)
            with window.showing(batch, part) as shown:
                drawn = simulator.draw(shown, held)
                parts.append({name: site.value for name, site in drawn.items()})
                for name, site in drawn.items():
                    if sites[name].observed:
                        parts[-1][name] = site.within(given[columns[name]])
                    elif not sites[name].local:
                        held.setdefault(name, site.value[None])
    whole = {
        name: torch.cat([part[name] for part in parts]) if sites[name].local else value
        for name, value in parts[0].items()
    }
    replaced = list(batch)
    for name, number in columns.items():
        if not whole[name].isnan().equal(_numbers(batch[number]).isnan()):
            raise StoryError(
                f"draws of {name!r} from the model must be numbers, got NaN: look at the scales "
                "of the priors"
            )
        replaced[number] = _as_in(batch[number], whole[name])
    latents = {name: value for name, value in whole.items() if not sites[name].observed}
    return latents, tuple(replaced)


def must_not_read(sampler: Sampler, batch: Batch) -> None:
    """See that a model draws its observations without those that it is shown.

    One that tells each element by those before it, and looks these up in its arguments, makes what
    follows the data; it draws nothing from scratch. Where what is observed is no column as it is,
    that is not known.

    Raises:
        StoryError: If the model reads what it is to draw.
    """
    simulator = _Simulator(sampler)
    with torch.no_grad(), pyro.validation_enabled(False), suppress(_NoColumn):
        simulator.must_not_read(batch, simulator.columns(batch))


class _NoColumn(StoryError):
    """An observed site is no column of the data."""


@dataclass
class _Drawn:
    """A site of the model that was drawn anew, rows first.

    Attributes:
        value: What was drawn, ``(N, *plates, *event)``; without rows where the site is global.
        given: What the data had there; None of latents.
        counts: Which elements are observed; None for all.
    """

    value: Tensor
    given: Tensor | None = None
    counts: Tensor | None = None

    def within(self, column: Tensor) -> Tensor:
        """These rows of a column as they were drawn, where they are observed and not missing."""
        kept = _numbers(column).isnan()
        if self.counts is not None:
            kept = kept | ~self.counts.reshape(column.shape)
        value = self.value.reshape(column.shape)
        return torch.where(kept, column.to(value), value)

    def was(self, column: Any) -> bool:
        """Whether the site was given these rows of a column, where it looks at them."""
        if not isinstance(column, Tensor) or self.given is None:
            return False
        if self.given.numel() != column.numel():
            return False
        given = self.given.reshape(column.shape)
        column = column.to(given)
        same = (given == column) | (_numbers(given).isnan() & _numbers(column).isnan())
        if self.counts is not None:
            same = same | ~self.counts.reshape(same.shape)
        return bool(same.all())


class _Simulator:
    """Draws every site of a model, and knows which column of the data is bound to which."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def draw(self, batch: Batch, fixed: Mapping[str, Tensor]) -> dict[str, _Drawn]:
        """Latent and observed sites, without what is computed from them."""
        sampler, sites = self.sampler, self.sampler.structure.sites
        model = Fix(fixed, at_once=False)(poutine.uncondition(sampler.pair.model))
        with blame("model"):
            nodes = sample_sites(poutine.trace(model).get_trace(*batch, **sampler.kwargs))
        factor = next((n for n, node in nodes.items() if isinstance(base_of(node["fn"]), Unit)), "")
        if factor:
            raise StoryError(
                f"the model weighs its draws by a factor, {factor!r}, so that nothing can be drawn "
                "from it: say what it stands for by pyro.sample"
            )
        sampler._complete(nodes)
        return {
            name: self._drawn(name, nodes)
            for name, site in sites.items()
            if not site.derived and name in nodes
        }

    def columns(self, batch: Batch) -> dict[str, int]:
        """Which column is bound to each observed site.

        Found by running the model on some rows, and again with the numbers of one column in another
        order: the site that is the column both times is bound to it.
        """
        if not batch:
            raise _NoColumn(
                "the programs must take their data as arguments, so that others can be put in "
                "their place, but hold them themselves: let model and guide take them"
            )
        found: dict[str, int] = {}
        window, sites = self.sampler.window, self.sampler.structure.sites
        part = next(window.slices(batch, EXAMPLE_ROWS))
        with window.showing(batch, part) as shown:
            plain = {n: s for n, s in self.draw(shown, {}).items() if sites[n].observed}
            for number, column in enumerate(shown):
                rows = some_rows(batch, part)[number]
                names = [n for n, site in plain.items() if site.was(rows)]
                for marked in _reordered(column) if names else ():
                    try:
                        again = self.draw((*shown[:number], marked, *shown[number + 1 :]), {})
                    except StoryError:  # an order that the program does not take
                        continue
                    rows = some_rows((marked,), part)[0]  # all that is shown, or some of it
                    names = [n for n in names if again[n].was(rows)]
                    break
                found.update((name, number) for name in names)
        for name in plain:
            if name not in found:
                raise _NoColumn(
                    f"the observed site {name!r} must be a column of the data as it is, so that "
                    "drawn data can be put in its place, got something else: give the model the "
                    "data in the form in which it observes them"
                )
        return found

    def must_not_read(self, batch: Batch, columns: Mapping[str, int]) -> None:
        """See that draws stay the same when the data that are to be drawn change places."""
        window = self.sampler.window
        part = next(window.slices(batch, EXAMPLE_ROWS))
        for bound, number in columns.items():
            with window.showing(batch, part) as shown:
                with seeded(0):
                    plain = self.draw(shown, {})
                column = _shuffled(shown[number], plain[bound].counts)
                try:
                    with seeded(0):
                        again = self.draw((*shown[:number], column, *shown[number + 1 :]), {})
                except StoryError:  # an order that the program does not take
                    continue
            for name, site in plain.items():
                drawn = again[name].value.nan_to_num()
                if name in columns and not site.value.nan_to_num().equal(drawn):
                    raise StoryError(
                        f"the model must make {name!r} of its latents and of what it has drawn, "
                        f"but reads the data's own values for it: write each part of {name!r} as a "
                        "site whose value the later ones take"
                    )

    def rows_within(self, memory: int, batch: Batch) -> int:
        """How many rows to draw at a time."""
        window = self.sampler.window
        few = min(4, window.size(batch))
        with window.showing(batch, next(window.slices(batch, few))) as shown, Bytes() as counted:
            self.draw(shown, {})
        return max(1, few * memory // max(1, counted.peak))

    def _drawn(self, name: str, nodes: Nodes) -> _Drawn:
        node = nodes[name]
        value, given = node["value"], node["infer"].get("obs")
        if not self.sampler.structure.sites[name].observed or given is None:
            return _Drawn(self._rows_first(name, node, value))
        counts = counted_mask(node)
        return _Drawn(
            self._rows_first(name, node, value),
            self._rows_first(name, node, torch.as_tensor(given).expand_as(value)),
            None if counts is None else self._rows_first(name, node, counts),
        )

    def _rows_first(self, name: str, node: Mapping[str, Any], value: Tensor) -> Tensor:
        arranged = self.sampler.layout.value({**node, "value": value}, 1)
        if not self.sampler.structure.sites[name].local:
            return arranged[0]
        window = self.sampler.window
        return window.cut(name, arranged)[0].movedim(window.row_axis(name) - 1, 0)


def _reordered(column: Tensor) -> Iterator[Tensor]:
    """The same numbers elsewhere: anywhere, or in whole rows for programs that mind."""
    order = torch.randperm(column.numel(), device=column.device)
    yield column.flatten()[order].reshape(column.shape)
    yield column.roll(1, 0)


def _shuffled(column: Tensor, counts: Tensor | None) -> Tensor:
    """The same numbers elsewhere, but what is missing or not observed where it was."""
    flat = column.flatten()
    moves = ~_numbers(flat).isnan()
    if counts is not None:
        moves = moves & counts.flatten()
    at = moves.nonzero().flatten()
    order = at[torch.randperm(len(at), device=column.device)]
    return flat.index_copy(0, at, flat[order]).reshape(column.shape)


def _numbers(column: Tensor) -> Tensor:
    return column if column.is_floating_point() else column.double()


def _as_in(column: Tensor, drawn: Tensor) -> Tensor:
    """Draws in the dtype of the column, unless that cannot hold them."""
    drawn = drawn.reshape(column.shape)
    if column.is_floating_point():
        return drawn.to(column)
    whole = drawn.to(column.dtype)
    return whole if torch.equal(whole.to(drawn), drawn) else drawn
