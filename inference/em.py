"""Expectation and maximisation: the likelihood of a story climbed in whole steps.

Every iteration finds the expected sufficient statistics of all rows (the E-step) and sets the
parameters to those of highest likelihood given them (the M-step). What both are is the story's own
affair, :class:`ppl_gen.story.Maximisable`; that the likelihood never falls is checked here.

References:
    Dempster, Laird and Rubin (1977), https://doi.org/10.1111/j.2517-6161.1977.tb01600.x; in
    mini-batches, Cappe and Moulines (2009), https://arxiv.org/abs/0712.4273.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import pyro
import torch
from torch import Tensor, nn

from ppl_gen.errors import FitError, StoryError
from ppl_gen.inference.batches import Batches, rows_of, some_rows
from ppl_gen.inference.history import Epoch, epochs_of, table_of
from ppl_gen.inference.memory import MEMORY, Bytes
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.progress import Reporter
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.tracing import Batch, blame
from ppl_gen.inference.training import UNKNOWN, Figures, Training, check_batch_size
from ppl_gen.story import Maximisable, OpenEnded

# Starts: k-means finds the best maximum of three normals on iris from 7 seeds of 8, on wine from 2.
STARTS = 5
# What a likelihood may fall by in rounding, as a share of itself, or in nats per datum.
ROUNDING = 1e-8
# Mini-batches whose statistics are averaged before the first M-step, and how fast later ones fade:
# the t-th counts by (t + 2) ** -FADING (Liang and Klein 2009, https://aclanthology.org/N09-1069).
WARM_UP = 10
FADING = 0.6
# While the number of components is sought: most iterations a size, and the change of the score, in
# nats per datum, that ends them. Scores of different sizes differ by far more.
MOST = 200
COARSE = 1e-5


class Expectation:
    """The E-step over all rows, as many at a time as memory allows.

    A story whose ``statistics`` hold no more memory for many rows than for few says so with an
    attribute ``in_chunks`` that is true, and is given all rows at once.

    Args:
        columns: All rows.
        memory: Bytes that a pass may take.
    """

    def __init__(self, columns: Batch, memory: int = MEMORY) -> None:
        self.columns = columns
        self.memory = memory
        self.rows: int | None = None

    def __call__(self, story: Maximisable) -> dict[str, Tensor]:
        """Sums over all rows of what the story's ``statistics`` gives.

        Raises:
            StoryError: If the story raises, or a sum it has to give is missing.
            FitError: If a sum is not finite.
        """
        size = rows_of(self.columns)
        self.rows = self.rows or self._rows_at_once(story)
        total: dict[str, Tensor] = {}
        for start in range(0, size, self.rows):
            part = slice(start, start + self.rows)
            for name, value in statistics(story, some_rows(self.columns, part)).items():
                total[name] = total[name] + value if name in total else value
        return total

    def _rows_at_once(self, story: Maximisable) -> int:
        if getattr(story, "in_chunks", False):
            return rows_of(self.columns)
        few = min(64, rows_of(self.columns))
        with Bytes() as counted:
            statistics(story, some_rows(self.columns, slice(0, few)))
        return max(1, self.memory // max(1, counted.total // few))


def statistics(story: Maximisable, batch: Batch) -> dict[str, Tensor]:
    """The story's E-step on a batch, looked through.

    Raises:
        StoryError: If it raises, or lacks the number of rows or the log-likelihood.
        FitError: If a sum is not finite.
    """
    with torch.no_grad(), blame("E-step of the story"):
        table = story.statistics(*batch)
    for name in ("rows", "log_likelihood"):
        if not isinstance(table.get(name), Tensor):
            raise StoryError(
                f"what statistics() gives must hold the tensor {name!r}, a sum over the rows of "
                f"the batch, got {', '.join(map(repr, table)) or 'nothing'}: add it"
            )
    for name, value in table.items():
        if not value.isfinite().all():
            bad = value[~value.isfinite()].flatten()[0].item()
            raise FitError(
                f"the statistic {name!r} of the E-step must be finite, got {bad}: give the scales "
                "of the story a floor, and look for values in the data that it cannot score"
            )
    return table


def maximise(story: Maximisable, table: Mapping[str, Tensor]) -> None:
    """The story's M-step.

    Raises:
        StoryError: If it raises.
    """
    with torch.no_grad(), blame("M-step of the story"):
        story.maximise(table)


def likelihood(table: Mapping[str, Tensor]) -> float:
    """Mean log-likelihood, in nats per datum."""
    return float(table["log_likelihood"]) / float(table["rows"])


def fixed_rows(batches: Batches, seed: int) -> Batch:
    """All rows, drawn once where visits would draw them anew: a likelihood is of given data."""
    assert batches.part is not None
    return batches.part.fixed(seed).columns[: batches.arguments]


class ExpectationMaximisation(Training):
    """A fit by EM: of all rows at once, or stepwise of mini-batches.

    Of several starts the one that ends at the highest likelihood is kept, with its history. The
    weights of its last epoch are kept, which are those of highest likelihood; validation data are
    only watched.

    Raises:
        StoryError: If the story has no E-step and M-step, or takes what these cannot.
    """

    def __init__(self, pair: Pair, data: Any, *arguments: Any) -> None:
        kwargs = arguments[1]
        if not isinstance(pair.story, Maximisable):
            raise StoryError(
                "method='em' needs a story with start(), statistics() and maximise(), got "
                f"{type(pair.story).__name__}: fit it with method='svi', or write the three (see "
                "ppl_gen.story.Maximisable)"
            )
        if data is None or kwargs:
            raise StoryError(
                "method='em' gives statistics() rows of data and nothing else, got "
                f"{'no data' if data is None else 'kwargs ' + ', '.join(map(repr, kwargs))}: "
                "hand over data alone, or fit with method='svi'"
            )
        super().__init__(pair, data, *arguments)
        if not self.processes.alone:
            raise StoryError(
                "method='em' is for one process: take method='svi' with several, or one device"
            )
        self.expectation = Expectation(fixed_rows(self.batches, self.settings.seed))
        self.held_out: Expectation | None = None
        if self.valid is not None:
            self.held_out = Expectation(fixed_rows(self.valid, self.settings.seed))
        self.table: dict[str, Tensor] = {}
        self.seen = self.starts = 0
        self.climbing = self.settled = False
        self.best: list[Epoch] = []
        self.best_kept = self.kept

    @property
    def whole(self) -> bool:
        """Whether every step is of all rows."""
        return self.batches.count == 1

    def rows_a_step(self) -> int:
        size = self.batches.size
        check_batch_size(self.structure, self.settings.batch_size, size)
        return self.settings.batch_size or size

    def run(self, report: Reporter) -> None:
        once = self.warm_start
        if is_open_ended(self.pair.story):
            once = True
            self.become(settle(self.pair.story, self.batches, self.settings, self.warm_start))
        starts = 1 if once or self.settled else self.settings.restarts or STARTS
        self.settled = once or self.settled
        while self.starts < starts:
            if not self.climbing:
                self.epochs_done = []
                if not self.settled:
                    self.pair.story.start(*self.batches.columns)
                self._begin_climb()
            try:
                self.climb(report)
            finally:
                # An interrupted start counts by the epochs it has finished.
                if self.best and not _higher(self.epochs_done, self.best):
                    self.epochs_done, self.kept = self.best, self.best_kept
            self.best, self.best_kept = self.epochs_done, self.kept
            self.climbing, self.starts = False, self.starts + 1

    def state(self) -> dict[str, Any]:
        best = table_of(self.best)
        return {
            **super().state(),
            "settled": self.settled,
            "starts": self.starts,
            "seen": self.seen,
            "table": self.table,
            "best": best,
            "best_kept": self.best_kept,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        device = self.batches.device
        self.settled, self.climbing = state["settled"], True
        self.starts, self.seen = state["starts"], state["seen"]
        self.table = {name: value.to(device) for name, value in state["table"].items()}
        self.best, self.best_kept = epochs_of(state["best"]), state["best_kept"]

    def train(self, epoch: int) -> Figures:
        if self.whole:
            self._step(self.table)
            self.table = self.expectation(self.pair.story)
            found = likelihood(self.table)
            self._check_risen(epoch, found)
        else:
            found = self._stepwise()
        return Figures(found)

    def watch(self) -> Figures:
        if self.held_out is None:
            return UNKNOWN
        return Figures(likelihood(self.held_out(self.pair.story)))

    def rates(self, epoch: int) -> tuple[float, float]:
        return (math.nan if self.whole else _weight(self.seen - 1)), math.nan

    def keep(self, epoch: Epoch) -> bool:
        self.kept = self.pair.snapshot()
        if len(self.epochs_done) < 2:
            return False
        rise = epoch.elbo - self.epochs_done[-2].elbo
        return abs(rise) <= self.settings.tolerance

    def _begin_climb(self) -> None:
        self.epoch = self.steps = self.seen = 0
        self.over, self.climbing = False, True
        self.table = self.expectation(self.pair.story) if self.whole else {}
        self.restart_clock()
        self.save(self)

    def _step(self, table: Mapping[str, Tensor]) -> None:
        maximise(self.pair.story, table)
        self.steps += 1

    def _stepwise(self) -> float:
        """A pass in mini-batches, an M-step after each; the likelihood as they were visited."""
        size, visit = self.batches.size, self.begin_visit()
        for chosen in self.visits(visit):
            table = statistics(self.pair.story, self.batches.at(*chosen))
            rows = float(table["rows"])
            visit.sums = [sum(visit.sums) + float(table["log_likelihood"])]
            weight = _weight(self.seen) * rows / self.batches.batch_size
            for name, value in table.items():
                mean = value / rows
                self.table[name] = mean + (1 - weight) * (self.table.get(name, mean) - mean)
            self.seen += 1
            if self.seen >= min(WARM_UP, self.batches.count):
                self._step({name: size * mean for name, mean in self.table.items()})
        self.visit = None
        return visit.sums[0] / size

    def _check_risen(self, epoch: int, found: float) -> None:
        # The first M-step may have to bring parameters back that came from elsewhere.
        if not self.epochs_done:
            return
        before = self.epochs_done[-1].elbo
        if found < before - ROUNDING * (1 + abs(before)):
            raise FitError(
                f"the log-likelihood must not fall, got {found:.10g} nats per datum after "
                f"{before:.10g} in epoch {epoch}: maximise() does not find the maximum that "
                "statistics() calls for, or keeps its parameters in single precision; the weights "
                "before are kept"
            )


def is_open_ended(story: Any) -> TypeGuard[OpenEnded]:
    """Whether a story has yet to find out how many components it needs."""
    return isinstance(story, OpenEnded) and story.open_ended


def settle(
    story: OpenEnded, batches: Batches, settings: Settings, warm_start: bool = False
) -> OpenEnded:
    """Find out how many components a story needs: the number of the lowest score.

    From the most down to one, the story is climbed until its score rests, then made smaller. Of
    equal scores the one of fewer components is taken, so that none stays that has no rows.

    Args:
        story: The story with the most components it may have; its parameters are changed.
        batches: The data.
        settings: How to fit: ``restarts`` is how often it all is done, each time from another
            start; once by default.
        warm_start: Whether to begin from the parameters the story has, once.

    Returns:
        The story with its number of components fixed, at the parameters that were found.

    Raises:
        FitError: If a score is not finite.

    Reference:
        Figueiredo and Jain (2002), https://doi.org/10.1109/34.990138
    """
    assert batches.part is not None
    expectation = Expectation(fixed_rows(batches, settings.seed))
    best, least = story, math.inf
    for _ in range(1 if warm_start else settings.restarts or 1):
        if not warm_start:
            story.start(*batches.columns)
        candidate: OpenEnded | None = story
        while candidate is not None:
            with pyro.validation_enabled(False):
                score = _climbed_score(candidate, expectation)
            if score <= least + COARSE * batches.size:
                best, least = candidate.settled(), min(score, least)
            candidate = _placed(candidate.smaller(), settings.torch_device())
    return best


def _climbed_score(story: OpenEnded, expectation: Expectation) -> float:
    table = expectation(story)
    score = math.inf
    for _ in range(MOST):
        maximise(story, table)
        table = expectation(story)
        rows = round(float(table["rows"]))
        before, score = score, story.score(float(table["log_likelihood"]), rows)
        if not math.isfinite(score):
            raise FitError(
                f"the score of a story with an open number of components must be finite, got "
                f"{score}: leave out of it what has no weight"
            )
        if abs(before - score) <= COARSE * rows:
            break
    return score


def _placed(story: OpenEnded | None, device: torch.device) -> OpenEnded | None:
    return story.to(device).train(False) if isinstance(story, nn.Module) else story


def _weight(visit: int) -> float:
    """How much a mini-batch counts, by its number from 0, against the mean of those before."""
    return 1 / (visit + 1) if visit < WARM_UP else (visit + 2) ** -FADING


def _higher(epochs: list[Epoch], than: list[Epoch]) -> bool:
    return bool(epochs) and epochs[-1].elbo > than[-1].elbo
