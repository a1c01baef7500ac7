"""Stochastic variational inference: epochs of gradient steps that climb the ELBO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor

from ppl_gen.errors import FitError, StoryError
from ppl_gen.inference.capture import Captured
from ppl_gen.inference.em import is_open_ended, settle
from ppl_gen.inference.history import Epoch
from ppl_gen.inference.objective import Objective, choose_elbo, culprit
from ppl_gen.inference.progress import Reporter
from ppl_gen.inference.seeds import seeded, set_noise
from ppl_gen.inference.step import Gradient, Weighted
from ppl_gen.inference.tracing import Batch, blame, trace_nodes
from ppl_gen.inference.training import (
    DEFAULT_BATCH,
    UNKNOWN,
    Figures,
    Training,
    check_batch_size,
    quiet,
)
from ppl_gen.inference.update import Update
from ppl_gen.story import Story


class GradientAscent(Training):
    """A fit by gradient steps.

    Of the weights those with the best ELBO on the validation data are kept; without such data
    those of the last epoch.

    Args:
        *arguments: As of :class:`Training`.
        elbo: A bound to climb in place of the one chosen from the traced sites, or None.
    """

    def __init__(self, *arguments: Any, elbo: ELBO | None) -> None:
        super().__init__(*arguments)
        self.given = elbo
        self.earlier = self.kept
        self.best = -math.inf
        self.waited = 0

    def rows_a_step(self) -> int:
        asked, size = self.settings.batch_size, self.batches.size
        if self.structure.enumerated and self.settings.kl_weight_at(1) != 1.0:
            raise StoryError(
                "kl_weight must be 1 and kl_warmup 0 where a site is enumerated: the sum over its "
                "values has no separate KL term to weight"
            )
        check_batch_size(self.structure, asked, size)
        return size if self.structure.needs_all else min(asked or DEFAULT_BATCH, size)

    def run(self, report: Reporter) -> None:
        self.begin()
        self.climb(report)

    def begin(self) -> None:
        """Find first weights, and choose what is climbed."""
        story = self.pair.story
        if is_open_ended(story):
            self.become(settle(story, self.batches, self.settings, self.warm_start))
        elif isinstance(story, Story) and not self.warm_start and self.batches.part is not None:
            story.start(*self.batches.columns)
        self._choose_bound()
        self.kept = self.earlier = self.pair.snapshot()

    def train(self, epoch: int) -> Figures:
        self.pair.train(True)
        mean = _Mean()
        total = self.epochs * self.batches.count
        weight = self.settings.kl_weight_at(epoch)
        weights = () if weight == 1.0 else (torch.tensor(weight, device=self.batches.device),)
        for position, rows in enumerate(self.batches.orders()):
            figures, gradients = self._finite_step(epoch, position, rows, weights)
            rate = self.settings.learning_rate * self.settings.rate_at(self.steps / total)
            self.update.prepare(self.gradient.parameters)
            self.update.set_rate(rate)
            self.update(self.gradient.used(rows, *weights), gradients)
            del gradients  # the next ones take their place in memory, and in the cache
            self.steps += 1
            mean.add(figures, len(rows))
        self.pair.train(False)
        return mean.figures()

    def watch(self) -> Figures:
        if self.valid is None:
            return UNKNOWN
        mean = _Mean()
        # What is not captured is said once, of the steps.
        self.watched.reason = self.watched.reason or self.step.reason
        # The same noise at every epoch, so that epochs differ by their weights alone.
        # A sum over enumerated sites has no value in Pyro unless it has a gradient.
        graded = torch.set_grad_enabled(self.structure.enumerated)
        with seeded(self.settings.seed), graded, self.update.averaged():
            for rows in self.valid.in_order():
                mean.add(self.watched(rows)[0].tolist(), len(rows))
        return mean.figures()

    def _watched(self, rows: Tensor) -> tuple[Tensor]:
        """Figures of some of the validation rows, as of the training rows."""
        assert self.valid is not None
        terms = self.bound(self.valid.at(rows), self.kwargs)
        return (torch.stack([t.detach() for t in (terms.loss, terms.elbo, terms.reconstruction)]),)

    def rates(self, epoch: int) -> tuple[float, float]:
        return self.update.rate, self.settings.kl_weight_at(epoch)

    def keep(self, epoch: Epoch) -> bool:
        with self.update.averaged():
            return self._kept(epoch)

    def _kept(self, epoch: Epoch) -> bool:
        if self.valid is None or epoch.epoch <= self.settings.kl_warmup:
            self.earlier, self.kept = self.kept, self.pair.snapshot()
            return False
        if epoch.valid_elbo > self.best:
            self.best, self.waited = epoch.valid_elbo, 0
            self.kept = self.pair.snapshot()
        else:
            self.waited += 1
        return self.settings.patience is not None and self.waited >= self.settings.patience

    def _choose_bound(self) -> None:
        """Choose what is climbed, and the plain bound that the validation data are held against."""
        pair, structure, kwargs, settings = self.pair, self.structure, self.kwargs, self.settings
        size = self.batches.size
        example = self.batches.example(self.batches.batch_size)
        plain = choose_elbo(pair, structure, example, kwargs)
        chosen = self.given or choose_elbo(
            pair, structure, example, kwargs, settings.particles, bool(settings.free_bits)
        )
        objective = Objective(pair, structure, chosen, size, settings.free_bits)
        self.bound = Objective(pair, structure, plain, size)
        self.gradient = Gradient(objective, self.batches, kwargs)
        programs = (pair.model, pair.guide)
        self.step = Captured(self.gradient, programs, settings.compile, self._uses)
        self.watched = Captured(self._watched, programs, settings.compile, lambda _: self.epochs)
        captured = settings.compile != "eager"
        self.update = Update(settings.make_optimizer, settings.clip, settings.ema, captured)

    def _uses(self, rows: int) -> int:
        """How many steps of that many rows there will be at most."""
        full = self.batches.size // self.batches.batch_size
        return self.epochs * (full if rows == self.batches.batch_size else 1)

    def _finite_step(
        self, number: int, position: int, rows: Tensor, weights: Weighted
    ) -> tuple[list[float], tuple[Tensor, ...]]:
        """Evaluate some rows, and stop the fit if their loss or a parameter is not finite."""
        try:
            with blame("story"):
                terms, *gradients = self.step(rows, *weights)
            figures = terms.tolist()
            if math.isfinite(figures[0]):
                return figures, tuple(gradients)
            loss = figures[0]
        except StoryError:
            if not self._broken():
                raise
            loss = math.nan
        self.pair.train(False)
        set_noise(self.step.noise)
        if position == 0 and self.valid is None:
            # The last epoch's weights are the ones that gave this loss.
            self.kept = self.earlier
        raise self._diverged(number, loss, self.batches.at(rows))

    def _broken(self) -> list[str]:
        """Names of the parameters that are not finite any more."""
        return [n for n, p in self.pair.parameters().items() if not p.isfinite().all()]

    def _diverged(self, number: int, loss: float, batch: Batch) -> FitError:
        where = None
        with pyro.validation_enabled(False), quiet():
            broken = self._broken()
            try:
                guide, model = trace_nodes(self.pair, batch, self.kwargs)
                where = culprit(model, guide)
            except StoryError as error:
                where = str(error)
        where = where or (f"parameter {broken[0]!r}" if broken else "a term of the loss")
        kept = (
            "the last good weights are kept" if len(self.epochs_done) else "nothing was learned yet"
        )
        return FitError(
            f"the loss became {loss} in epoch {number}, step {self.steps + 1}; the first that is "
            f"not finite is {where}: lower learning_rate (now {self.settings.learning_rate:g}), "
            f"set clip, or bound the scales of the story; {kept}"
        )


@dataclass
class _Mean:
    """Running means of an epoch's terms over the rows of its batches."""

    rows: int = 0
    elbo: float = 0.0
    reconstruction: float = 0.0

    def add(self, figures: list[float], rows: int) -> None:
        """Add loss, ELBO and reconstruction of some rows."""
        _, elbo, reconstruction = figures
        self.rows += rows
        self.elbo += rows * elbo
        self.reconstruction += rows * reconstruction

    def figures(self) -> Figures:
        elbo, reconstruction = self.elbo / self.rows, self.reconstruction / self.rows
        return elbo, reconstruction, reconstruction - elbo
