"""Stochastic variational inference: epochs of gradient steps that climb the ELBO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor

from ppl_gen.errors import FitError, StoryError
from ppl_gen.inference.batches import Batches
from ppl_gen.inference.capture import Captured
from ppl_gen.inference.codes import units_in_use
from ppl_gen.inference.em import is_open_ended, settle
from ppl_gen.inference.history import Epoch
from ppl_gen.inference.iterates import Iterates, Recorder
from ppl_gen.inference.matching import WON, Matched, matched_sites
from ppl_gen.inference.objective import Objective, choose_elbo, culprit
from ppl_gen.inference.progress import LINES, Reporter
from ppl_gen.inference.rounds import Rounds, Stretch
from ppl_gen.inference.seeds import seeded, set_noise
from ppl_gen.inference.shared import moved, shared_draws, shared_parameters
from ppl_gen.inference.step import Given, Gradient
from ppl_gen.inference.tracing import Batch, blame, trace_nodes
from ppl_gen.inference.training import (
    DEFAULT_BATCH,
    UNKNOWN,
    Figures,
    Training,
    Visit,
    check_batch_size,
    quiet,
)
from ppl_gen.inference.update import Update
from ppl_gen.story import Story

# Rows whose codes are watched while the fit goes on.
WATCHED = 256


class GradientAscent(Training):
    """A fit by gradient steps.

    Of the weights those with the best ELBO on the validation data are kept; without such data, or
    without an ELBO, those of the last epoch. Where the fit ends by itself, these are the means of
    the weights over the steps at hand.

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
        self.matched: Matched | None = None
        self.reason = ""
        self.recorder = Recorder()
        self.rounds: Rounds | None = None
        self.drawn: dict[str, Tensor] | None = None
        self.drawn_before: dict[str, Tensor] | None = None
        # Weights by which a critic's sizes and the prior's draws were chosen.
        self.first: dict[str, Tensor] | None = None

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
        if not self.resumed:
            self.begin()
            self.save(self)
        report.say(self.reason)
        self.climb(report)
        if self.rounds is not None and not self.over:
            report.say(
                f"it had not settled after {self.epochs} epochs: raise epochs, or see in a check "
                "whether it matters"
            )
        if self._critic_won():
            raise FitError(
                f"the critic tells codes from draws of the prior in {self._recent_accuracy():.0%} "
                "of cases: the codes do not follow the prior, and this is no fit: raise kl_weight "
                f"(now {self.settings.kl_weight:g}), lower learning_rate (now "
                f"{self.settings.rate:g}), or take objective='mmd'"
            )

    @property
    def objective(self) -> Any:
        return self.settings.objective if self.matched is None else self.matched.kind

    def begin(self) -> None:
        """Find first weights, and choose what is climbed."""
        story = self.pair.story
        if is_open_ended(story):
            self.become(settle(story, self.batches, self.settings, self.warm_start))
        elif isinstance(story, Story) and not self.warm_start and self.batches.part is not None:
            story.start(*self.batches.columns)
        self._choose_bound()
        self.kept = self.earlier = self.pair.snapshot()
        self.first = None if self.matched is None else self.kept
        with seeded(self.settings.seed):  # rows may be drawn, and nothing else is to be
            rows = self._first_rows()
        shared = shared_parameters(self.pair, self.structure, rows, self.kwargs)
        self.recorder = Recorder(shared, self.epochs * self.batches.count)
        if self.settings.stop == "settled":
            self.rounds = Rounds(shared)

    def told(self) -> dict[str, Any]:
        elbo = None if self.given is None else type(self.given).__name__
        return {**super().told(), "elbo": elbo}

    def state(self) -> dict[str, Any]:
        names = self._names()
        rounds, matched = self.rounds, self.matched
        return {
            **super().state(),
            "first": self.first,
            "earlier": self.earlier,
            "best": self.best,
            "waited": self.waited,
            "recorder": self.recorder.state(),
            "rounds": None if rounds is None else rounds.state(names),
            "drawn": [self.drawn, self.drawn_before],
            "matched": None if matched is None else matched.state(),
            "update": self.update.state(names),
            "graphs": [self.step.state(), self.watched.state()],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        device = self.batches.device
        if state["first"] is not None:
            self.take_weights(state["first"])
        self._choose_bound()
        self.first, self.earlier = state["first"], state["earlier"]
        self.best, self.waited = state["best"], state["waited"]
        self.take_weights(state["weights"])
        if self.matched is not None:
            self.matched.load_state(state["matched"])
        self.gradient.find_parameters()
        self.recorder.load_state(state["recorder"], device)
        names = self._names()
        if state["rounds"] is not None:
            self.rounds = Rounds(())
            self.rounds.load_state(state["rounds"], names, device)
        self.drawn, self.drawn_before = state["drawn"]
        if state["steps"]:
            self.update.load_state(state["update"], names, self.gradient.parameters)
        if self.rounds is not None:
            self.update.means = self.rounds.means
        for captured, kept in zip((self.step, self.watched), state["graphs"], strict=True):
            captured.load_state(kept)
        super().load_state(state)

    def _names(self) -> list[str]:
        """Of the parameters that are trained, those of a critic last."""
        own = list(self.pair.parameters())
        opponents = [] if self.matched is None else self.matched.opponents
        return [*own, *(f"opponent.{i}" for i, _ in enumerate(opponents))]

    def train(self, epoch: int) -> Figures:
        self.pair.train(True)
        total = self.epochs * self.batches.count
        weight = self.settings.kl_weight_at(epoch)
        weights = () if weight == 1.0 else (torch.tensor(weight, device=self.batches.device),)
        visit = self.begin_visit()
        mean = _Mean(visit)
        if self.matched is not None and visit.draws is None:
            visit.draws = self.matched.draw(self.batches.size)
        draws = self._parts(visit.draws, self.batches)
        for rows in self.visits(visit):
            given = (*rows, *weights, *draws[visit.position])
            figures, gradients, used = self._finite_step(epoch, visit.position, rows, given)
            rate = self.settings.rate * self._rate_at(self.steps / total)
            self.update.prepare(self.gradient.parameters)
            self.update.set_rate(rate)
            self.update(used, gradients)
            del gradients  # the next ones take their place in memory, and in the cache
            self.steps += 1
            self.recorder.step(-figures[0], figures[2], rate, weight)
            if self.recorder.due:
                self.recorder.look(self.pair.parameters())
            if self.rounds is not None and epoch > (self.settings.kl_warmup or 0):
                self.rounds.step(-figures[0], figures[2])
                if self.rounds.looks:
                    self.rounds.look(self.pair.parameters())
                self.rounds.average(self.gradient.parameters)
                self.update.means = self.rounds.means
            mean.add(figures, self.batches.rows_of(visit.position))
        self.visit = None
        self.pair.train(False)
        return mean.figures()

    def watch(self) -> Figures:
        if self.valid is None:
            return UNKNOWN
        mean = _Mean(Visit([], torch.empty(0)))
        # What is not captured is said once, of the steps.
        self.watched.reason = self.watched.reason or self.step.reason
        # The same noise at every epoch, so that epochs differ by their weights alone.
        # A sum over enumerated sites has no value in Pyro unless it has a gradient; and a critic
        # is held to its slope.
        needed = self.structure.enumerated or self.matched is not None
        graded = torch.set_grad_enabled(needed)
        with seeded(self.settings.seed), graded, self.update.averaged():
            drawn = None if self.matched is None else self.matched.draw(self.valid.size)
            draws = self._parts(drawn, self.valid)
            for i, (rows, given) in enumerate(zip(self.valid.passing(), draws, strict=True)):
                count = self.valid.rows_of(i)
                figures, _ = self.processes.mean(self.watched(*rows, *given)[0], (), count, ())
                mean.add(figures.tolist(), count)
                self.processes.agree(None)
        return mean.figures()

    def _watched(self, *inputs: Tensor) -> tuple[Tensor]:
        """Figures of some of the validation rows, as of the training rows."""
        assert self.valid is not None
        own = self.valid.inputs
        batch = self.valid.at(*inputs[:own])
        return (self.bound(batch, self.kwargs, 1.0, *inputs[own:]).figures,)

    def _parts(self, draws: Tensor | None, batches: Batches) -> list[tuple[Tensor, ...]]:
        """For each step of a pass what codes are matched to, if they are.

        All of a pass at once: drawn outside the step, they may be drawn by any means.
        """
        if draws is None:
            return [()] * batches.count
        return [(part,) for part in draws.split(batches.batch_size)]

    def units(self, epoch: int) -> float:
        due = epoch in (1, self.epochs) or epoch % max(1, self.epochs // LINES) == 0
        if not due or not self.structure.takes_batches or self.structure.unscored:
            return math.nan
        with seeded(self.settings.seed), suppress(StoryError):
            rows = self.valid or self.batches
            found = units_in_use(self.pair, self.structure, self.kwargs, rows.example(WATCHED))
            return math.nan if found is None else float(found)
        return math.nan

    def rates(self, epoch: int) -> tuple[float, float]:
        return self.update.rate, self.settings.kl_weight_at(epoch)

    def recorded(self) -> Iterates | None:
        return self.recorder.result()

    def keep(self, epoch: Epoch) -> bool:
        with self.update.averaged():
            over = self._kept(epoch)
        if self.rounds is None or not self.rounds.due:
            return over
        decision = self.rounds.end(self._stretch(self.rounds))
        if decision == "lower the rate":
            self.update.take_means()
            self.drawn_before = self.drawn
        self.update.means = []
        return decision == "stop"

    def _rate_at(self, progress: float) -> float:
        return self.settings.rate_at(progress) if self.rounds is None else self.rounds.factor

    def _stretch(self, rounds: Rounds) -> Stretch:
        """What is known of the means of the weights over the last steps."""
        drawn = None
        with self.update.averaged(), seeded(self.settings.seed):
            value = self._value(self.valid or self.batches)
            if rounds.shared:
                rows = self._first_rows()
                drawn = shared_draws(self.pair, self.structure, rows, self.kwargs, {})
        before, self.drawn = (self.drawn, self.drawn_before), drawn
        distances = (moved(drawn, other) if drawn and other else math.nan for other in before)
        return Stretch(value, rounds.rhat(), *distances)

    def _value(self, batches: Batches) -> float:
        """What is climbed, at the present weights; nats per datum."""
        total, weight = 0.0, self.settings.kl_weight
        graded = torch.set_grad_enabled(self.structure.enumerated)
        with graded, pyro.validation_enabled(False), quiet():
            for i, rows in enumerate(batches.passing()):
                count = batches.rows_of(i)
                loss = self.bound(batches.at(*rows), self.kwargs, weight).loss.detach()
                (mean,), _ = self.processes.mean(loss.reshape(1), (), count, ())
                total -= mean.item() * count
                self.processes.agree(None)
        return total / batches.size

    def _kept(self, epoch: Epoch) -> bool:
        # What is matched has no bound by which epochs could be told apart.
        chosen = self.settings.chooses_by_validation(self.structure.has_codes)
        untold = self.matched is not None or not chosen
        if self.valid is None or untold or epoch.epoch <= (self.settings.kl_warmup or 0):
            self.earlier, self.kept = self.kept, self.pair.snapshot()
            return False
        if epoch.valid_elbo > self.best:
            self.best, self.waited = epoch.valid_elbo, 0
            self.kept = self.pair.snapshot()
        else:
            self.waited += 1
        return self.settings.patience is not None and self.waited >= self.settings.patience

    def _first_rows(self) -> Batch:
        return self.batches.example(self.batches.batch_size)

    def _choose_bound(self) -> None:
        """Choose what is climbed, and the plain bound that the validation data are held against."""
        pair, structure, kwargs, settings = self.pair, self.structure, self.kwargs, self.settings
        size = self.batches.size
        example = self._first_rows()
        self.matched = self._chosen_match(example)
        if settings.kl_warmup is None:
            warmup = 0 if self.matched is None else self.epochs // 4
            self.settings = settings = replace(settings, kl_warmup=warmup)
        if self.matched is not None:
            objective = self.bound = self.matched
        else:
            plain = choose_elbo(pair, structure, example, kwargs)
            chosen = self.given or choose_elbo(
                pair, structure, example, kwargs, settings.particles, bool(settings.free_bits)
            )
            objective = Objective(pair, structure, chosen, size, settings.free_bits)
            self.bound = Objective(pair, structure, plain, size)
        if not self.processes.alone:
            self._shared_out(objective)
        self.reason = objective.reason
        self.gradient = Gradient(objective, self.batches, kwargs)
        programs = (pair.model, pair.guide)
        self.step = Captured(self.gradient, programs, settings.compile, self._uses)
        self.watched = Captured(self._watched, programs, settings.compile, lambda _: self.epochs)
        captured = settings.compile != "eager"
        self.update = Update(settings.make_optimizer, settings.clip, settings.ema, captured)

    def _shared_out(self, objective: Any) -> None:
        """Let every process climb the bound of whole batches, of which it has a share.

        Raises:
            StoryError: If the bound of a batch is no mean over its rows.
        """
        if self.matched is not None or self.settings.free_bits:
            what = "codes matched to a prior" if self.matched is not None else "free_bits"
            raise StoryError(
                f"{what} cannot be shared out among processes, as it takes all rows of a batch "
                "together: fit with one process"
            )
        objective.processes = self.bound.processes = self.processes

    def _chosen_match(self, example: Batch) -> Matched | None:
        """What is climbed in place of an ELBO, if a prior has no density or a match is asked for.

        Raises:
            StoryError: If that cannot be, or does not go with other settings.
        """
        settings, asked = self.settings, self.settings.objective
        sites = matched_sites(self.structure, asked)
        if not sites:
            return None
        name, law = sites[0].name, sites[0].law
        if self.given is not None:
            raise StoryError(
                f"elbo must be left out where codes are matched to a prior, got "
                f"{type(self.given).__name__}, which needs the density of {name!r} ({law})"
            )
        for option, at in (("free_bits", 0.0), ("patience", None), ("stop", "epochs")):
            if getattr(settings, option) != at:
                raise StoryError(
                    f"{option} must be left out where codes are matched to a prior, as that of "
                    f"{name!r} ({law}) is: there is no ELBO to read it off"
                )
        kind = "adversarial" if asked in ("auto", "elbo") else asked
        return Matched(
            self.pair,
            self.structure,
            sites,
            kind,  # pyright: ignore[reportArgumentType]
            example,
            self.kwargs,
            self.batches.size,
            settings.particles,
        )

    def _critic_won(self) -> bool:
        """Whether codes stay apart from the prior; one that sees the datum may well be right."""
        matched = self.matched
        return matched is not None and matched.kind != "avb" and self._recent_accuracy() > WON

    def _recent_accuracy(self) -> float:
        """How often the critic was right in the last tenth of the epochs; NaN without one."""
        recent = self.epochs_done[-max(1, len(self.epochs_done) // 10) :]
        return sum(epoch.critic_accuracy for epoch in recent) / len(recent)

    def _uses(self, rows: int) -> int:
        """How many steps of that many rows there will be at most."""
        full = self.batches.size // self.batches.batch_size
        share = round(self.batches.batch_size * self.processes.weight(self.batches.batch_size))
        # One that ends by itself seldom takes a tenth of what it may.
        epochs = self.epochs if self.rounds is None else -(-self.epochs // 10)
        return epochs * (full if rows == share else 1)

    def _finite_step(
        self, number: int, position: int, rows: tuple[Tensor, ...], given: Given
    ) -> tuple[list[float], tuple[Tensor, ...], list[bool]]:
        """Evaluate some rows, and stop the fit if their loss or a parameter is not finite."""
        try:
            with blame("story"):
                terms, *gradients = self.step(*given)
            used = self.gradient.used(*given)
            if not self.processes.alone:
                terms, gradients, used = self._joint(terms, gradients, used, position)
            figures = terms.tolist()
            if math.isfinite(figures[0]):
                return figures, tuple(gradients), used
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
        raise self._diverged(number, loss, self.batches.at(*rows))

    def _joint(
        self, terms: Tensor, gradients: list[Tensor], used: list[bool], position: int
    ) -> tuple[Tensor, list[Tensor], list[bool]]:
        """Figures and gradients of the whole batch, of those of its shares."""
        found, parameters = iter(gradients), self.gradient.parameters
        each = [next(found) if counts else None for counts in used]
        rows = self.batches.rows_of(position)
        terms, summed = self.processes.mean(terms, each, rows, parameters)
        return terms, [g for g in summed if g is not None], [g is not None for g in summed]

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
            f"not finite is {where}: lower learning_rate (now {self.settings.rate:g}), "
            f"set clip, or bound the scales of the story; {kept}"
        )


@dataclass
class _Mean:
    """Running means of the figures of a pass over the rows of its batches."""

    visit: Visit

    def add(self, figures: list[float], rows: int) -> None:
        """Add the figures of some rows: loss, ELBO, reconstruction, and those of a match."""
        visit = self.visit
        figures = figures + [math.nan] * (5 - len(figures))
        visit.rows += rows
        sums = visit.sums or [0.0] * 5
        visit.sums = [s + rows * f for s, f in zip(sums, figures, strict=True)]

    def figures(self) -> Figures:
        visit = self.visit
        _, elbo, reconstruction, divergence, accuracy = (s / visit.rows for s in visit.sums)
        return Figures(elbo, reconstruction, reconstruction - elbo, divergence, accuracy)
