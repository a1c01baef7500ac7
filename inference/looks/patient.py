"""A copy of a pair that can be tried out: run, held to draws, stirred, compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_factor
from torch import Tensor

from ppl_gen.inference.batches import rows_of
from ppl_gen.inference.layout import Layout, log_prob
from ppl_gen.inference.mismatch import base_of, plates_of
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.structure import Structure
from ppl_gen.inference.tracing import Batch, Nodes, blame, sample_sites
from ppl_gen.inference.window import Window

# Rows that are compared with each other: as few as show a difference, since one among many of them
# moves a mean over rows by little.
ROWS = 12
# Share of a weight's usual size by which it is stirred.
STIRRED = 0.1


class Sites(NamedTuple):
    """What a run of both programs left, by name."""

    guide: Nodes
    model: Nodes

    def each(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Program, name and node of every site, in order."""
        for program, nodes in (("guide", self.guide), ("model", self.model)):
            for name, node in nodes.items():
                yield program, name, node


class Held(Messenger):
    """Give the latent sites of a program values that are known."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.values[msg["name"]]
            msg["done"] = True


@dataclass
class Patient:
    """A pair whose parameter store is in force, and the rows it is looked at with.

    Attributes:
        pair: The programs, which may be changed.
        structure: Their sites and plates.
        batch: Rows of data in the form that the programs take.
        kwargs: Further arguments of both.
        size: How many data the fit has, or had.
        rows_a_step: How many of them a step of the fit takes.
        seed: Of everything that is drawn.
        numbers: Which row of the data each row of the batch is.
        whole: All rows, where they are in memory; else those of the batch.
    """

    pair: Pair
    structure: Structure
    batch: Batch
    kwargs: dict[str, Any]
    size: int
    rows_a_step: int
    seed: int = 0
    numbers: Sequence[int] = field(default_factory=list)
    whole: Batch = ()

    def __post_init__(self) -> None:
        self.whole = self.whole or self.batch
        self.layout = Layout(self.structure)
        self.window = Window(self.pair, self.structure, self.kwargs)
        self.numbers = self.numbers or range(rows_of(self.batch))

    @property
    def without_rows(self) -> str:
        """Why rows cannot be told apart; empty if they can."""
        if not any(isinstance(column, Tensor) for column in self.batch):
            return "The programs hold their data themselves."
        if not self.structure.data_plates:
            return "No vectorised plate of the programs has the rows of the data."
        return ""

    def part(self, rows: int = ROWS) -> slice:
        """The first rows, or all that the programs must be given at once."""
        if not self.structure.splits_rows:
            return slice(None)
        return slice(0, min(self.window.step(self.batch, rows), self.window.size(self.batch)))

    def count(self, rows: int = ROWS) -> int:
        """How many rows :meth:`part` has."""
        part = self.part(rows)
        return rows_of(self.batch) if part.stop is None else part.stop

    def draw(self, batch: Batch | None = None, rows: int = ROWS, seed: int | None = None) -> Sites:
        """Run the guide, and the model on its draws.

        Args:
            batch: In place of the rows that there are.
            rows: How many of them to show.
            seed: In place of the patient's own.
        """
        batch = self.batch if batch is None else batch
        with self.window.showing(batch, self.part(rows)) as shown:
            return self.draw_shown(shown, seed)

    def draw_shown(self, shown: Batch, seed: int | None = None) -> Sites:
        """Run both on what the window shows."""
        with seeded(self.seed if seed is None else seed):
            guide = self._trace("guide", shown, {})
            return Sites(guide, self._trace("model", shown, _values(guide)))

    def guide(self, batch: Batch, rows: int = ROWS) -> Nodes:
        """Run the guide alone."""
        with seeded(self.seed), self.window.showing(batch, self.part(rows)) as shown:
            return self._trace("guide", shown, {})

    def held(self, sites: Sites, batch: Batch | None = None, seed: int | None = None) -> Sites:
        """Run both programs again, all latents held at their values, as on other rows."""
        values = _values(sites.guide) | _values(sites.model)
        batch = self.batch if batch is None else batch
        seed = self.seed if seed is None else seed
        with seeded(seed), self.window.showing(batch, self.part()) as shown:
            guide = self._trace("guide", shown, values)
            return Sites(guide, self._trace("model", shown, values))

    def model_at(
        self,
        values: Mapping[str, Tensor],
        batch: Batch | None = None,
        *,
        unconditioned: bool = False,
    ) -> Nodes:
        """Run the model with latents held at these values, and observations too if asked."""
        batch = self.batch if batch is None else batch
        with seeded(self.seed), self.window.showing(batch, self.part()) as shown:
            return self._trace("model", shown, values, unconditioned)

    def terms(self, node: Mapping[str, Any]) -> Tensor | None:
        """The log-density of a site by row, ``(N, *)``; of a point the point itself.

        None for a site outside the data plates, or one whose terms have no such form.
        """
        with suppress(ValueError, RuntimeError, IndexError, NotImplementedError):
            return self._by_row(node)
        return None

    def _by_row(self, node: Mapping[str, Any]) -> Tensor | None:
        names = plates_of(dict(node), vectorized=True)
        axes = [i for i, name in enumerate(names) if name in self.structure.data_plates]
        if len(axes) != 1:
            return None
        terms = self.layout.mean(node, 1) if is_derived(node) else self.layout.terms(node, 1)
        if terms is None:
            return None
        terms = terms.movedim(1 + axes[0], 0)
        return terms.reshape(len(terms), -1)

    def outside(self, node: Mapping[str, Any]) -> Tensor | None:
        """The log-density of a site that stands outside the data plates, summed; else None."""
        of_data = self.structure.batch_plates | self.structure.data_plates  # loops among them
        if is_derived(node) or any(f.name in of_data for f in node["cond_indep_stack"]):
            return None
        return log_prob(node).sum()

    def changed(
        self,
        before: Sites,
        after: Sites,
        rows: Tensor,
        tolerance: float,
        index: Tensor | None = None,
    ) -> list[tuple[str, str]]:
        """Programs and sites of which some rows have other terms than before.

        Args:
            before: Sites before.
            after: Sites after.
            rows: Which rows to compare, ``(N,)``, true or false.
            tolerance: Share of 1 and of a term by which it may differ in rounding.
            index: Where each row was before, if they changed places.
        """
        found = []
        for program, name, node in before.each():
            other = getattr(after, program).get(name)
            old = self.terms(node)
            new = None if other is None else self.terms(other)
            if old is None or new is None or len(old) != len(rows) or old.shape != new.shape:
                continue
            old = old if index is None else old[index.to(old.device)]
            same = torch.isclose(old, new.to(old), rtol=tolerance, atol=tolerance, equal_nan=True)
            if not same.all(1)[rows.to(old.device)].all():
                found.append((program, name))
        return found

    def every_row(self) -> Tensor:
        """The rows of the batch in order."""
        return torch.arange(len(self.numbers))

    def rolled(self) -> Tensor:
        """The rows that are shown, each one place on, and the rest as they are."""
        index, shown = self.every_row(), self.count()
        index[:shown] = index[:shown].roll(1)
        return index

    def moved(self, sites: Sites, index: Tensor) -> Sites:
        """The same draws with the rows in another order, or without some."""
        return Sites(*({n: self._moved(v, index) for n, v in nodes.items()} for nodes in sites))

    @contextmanager
    def training(self) -> Iterator[None]:
        """Training mode; what it counts or averages in buffers is forgotten afterwards."""
        with self.pair.scratch():
            self.pair.train(True)
            try:
                yield
            finally:
                self.pair.train(False)

    @contextmanager
    def stirred(self) -> Iterator[None]:
        """Move every parameter a little, so that a first weight of 0 hides nothing."""
        before = [(p, p.detach().clone()) for p in self.pair.parameters().values()]
        with seeded(self.seed), torch.no_grad():
            for parameter, value in before:
                inputs = value[0].numel() if value.dim() > 1 and len(value) else 1
                noise = torch.randn_like(value)
                parameter.add_(noise, alpha=STIRRED / math.sqrt(max(1, inputs)))
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in before:
                    parameter.copy_(value)

    def _trace(
        self,
        program: str,
        shown: Batch,
        values: Mapping[str, Tensor],
        unconditioned: bool = False,
    ) -> Nodes:
        run = getattr(self.pair, program)
        run = poutine.uncondition(run) if unconditioned else run
        with blame(program):
            trace = poutine.trace(Held(values)(run)).get_trace(*shown, **self.kwargs)
        return sample_sites(trace)

    def _moved(self, node: dict[str, Any], index: Tensor) -> dict[str, Any]:
        frames = [f for f in node["cond_indep_stack"] if f.name in self.structure.data_plates]
        value, events = node["value"], len(node["fn"].event_shape)
        if len(frames) != 1 or not isinstance(value, Tensor):
            return node
        axis = value.dim() - events + frames[0].dim
        if axis < 0 or value.shape[axis] <= 1:
            return node
        index = index[: value.shape[axis]].to(value.device)
        return {**node, "value": value.index_select(axis, index)}


@contextmanager
def copied(pair: Pair) -> Iterator[Pair]:
    """A copy of a pair in evaluation mode, its store in force, that may be tried out."""
    copy = pair.fresh(warm_start=True)
    with copy.active(), copy.scratch(), copy.evaluating(), pyro.validation_enabled(False):
        yield copy


def permuted(batch: Batch, index: Tensor) -> Batch:
    """The batch with rows chosen and put in order by an index."""
    return tuple(
        column[index.to(column.device)] if is_column(column, batch) else column for column in batch
    )


def is_column(column: Any, batch: Batch) -> bool:
    """Whether a part of the batch has a row for each datum."""
    return isinstance(column, Tensor) and column.dim() > 0 and len(column) == rows_of(batch)


def other_row(batch: Batch, rows: int) -> tuple[int, int]:
    """A row in the middle of the first so many, and the one that is most unlike it, if any is."""
    row = rows // 2
    apart = torch.zeros(rows, dtype=torch.double)
    for column in batch:
        if is_column(column, batch):
            values = column[:rows].reshape(rows, -1).double().nan_to_num(0.0, 0.0, 0.0).cpu()
            apart += (values - values[row]).abs().sum(1)
    return row, int(apart.argmax()) if apart.any() else row


def is_derived(node: Mapping[str, Any]) -> bool:
    """Whether a site is a point, or a function of others."""
    return type(base_of(node["fn"])) is Delta


def is_factor(node: Mapping[str, Any]) -> bool:
    """Whether a site is a term of the density alone, by ``pyro.factor``."""
    return site_is_factor(node)  # type: ignore[arg-type]


def _values(nodes: Nodes) -> dict[str, Tensor]:
    return {name: node["value"] for name, node in nodes.items() if not node["is_observed"]}
