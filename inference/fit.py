"""Fitting a story: from a model, a guide and data to a run."""

from __future__ import annotations

import difflib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, is_validation_enabled

from ppl_gen.data import Dataset
from ppl_gen.errors import DataError, FitError, StoryError
from ppl_gen.inference import disk
from ppl_gen.inference.batches import Batches, prepare, rows_of
from ppl_gen.inference.history import Epoch, History
from ppl_gen.inference.objective import Objective, Terms, choose_elbo, culprit
from ppl_gen.inference.pair import Pair, as_pair
from ppl_gen.inference.progress import Reporter, reporter
from ppl_gen.inference.run import Run, record_of
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.step import Gradient, Step
from ppl_gen.inference.structure import Structure, examine
from ppl_gen.inference.tracing import Batch, blame, trace_nodes
from ppl_gen.story import Story

DEFAULT_BATCH = 128


def fit(
    story: Any,
    data: Any = None,
    *,
    validation: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    elbo: ELBO | None = None,
    warm_start: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Fit a story to data by stochastic variational inference.

    What is given stays as it was: a story of ppl-gen is built anew with first weights drawn from
    the seed, modules of one's own are copied, functions get a parameter store of their own. The
    fitted story is ``run.story``. On a CPU, two calls with the same arguments give the same bits.

    Args:
        story: An object with ``.model`` and ``.guide``; or a pair of callables or modules; or a
            model with one of Pyro's autoguides, ``(model, "AutoNormal")``.
        data: A data set, one of its parts, a tensor, an array, a table, or a tuple of columns with
            as many rows each. None for programs that hold their data themselves.
        validation: Rows to watch, of the same form; a data set brings its own. The weights with
            the best ELBO on them are kept.
        kwargs: Further arguments of both programs, the same at every step.
        elbo: A bound of Pyro's to climb in place of the one chosen from the traced sites.
        warm_start: Go on from the weights the story has, instead of drawing new ones.
        out: A directory to save the run to; the last good state goes there if the fit must stop.
        overwrite: Whether a run that is there already may be replaced.
        progress: Whether to show how far it is.
        **settings: The fields of :class:`Settings`: ``epochs``, ``seed``, ``batch_size``,
            ``learning_rate``, ``optimizer``, ``schedule``, ``clip``, ``particles``, ``kl_weight``,
            ``kl_warmup``, ``free_bits``, ``patience``, ``device``.

    Raises:
        StoryError: If model, guide and data do not fit each other.
        DataError: If the data cannot be used.
        FitError: If the loss becomes NaN or infinite; its ``run`` holds the last good state.
        ValueError: If a setting is out of its range.

    Reference:
        Kingma and Welling (2014), https://arxiv.org/abs/1312.6114; Ranganath et al. (2014),
        https://arxiv.org/abs/1401.0118, where a site cannot be reparametrised.
    """
    chosen = read_settings(settings)
    if out is not None:
        disk.check_target(Path(out), overwrite)
    device = chosen.torch_device()
    with seeded(chosen.seed):
        pair = as_pair(story).fresh(warm_start)
        pair.to(device)
        if isinstance(data, Dataset) and validation is None:
            validation = data.valid
        with pair.active():
            training = _Training(
                pair, data, validation, dict(kwargs or {}), elbo, chosen, warm_start
            )
            try:
                with reporter(training.epochs, progress) as report:
                    training.run(report)
            except FitError as error:
                error.run = training.result()
                raise
            finally:
                run = training.result()
                if out is not None and len(run.history):
                    disk.save(run, Path(out), overwrite)
    return run


def read_settings(settings: Mapping[str, Any]) -> Settings:
    """Check names and values of settings.

    Raises:
        TypeError: If a name is unknown; it gives the nearest.
        ValueError: If a value is out of its range.
    """
    known = [f.name for f in fields(Settings)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]}?" if near else f": there are {', '.join(known)}"
            raise TypeError(f"fit has no setting {name!r}{hint}")
    return Settings(**settings)


@dataclass
class _Mean:
    """Running means of an epoch's terms over the rows of its batches."""

    rows: int = 0
    elbo: float = 0.0
    reconstruction: float = 0.0

    def add(self, terms: Any, rows: int) -> None:
        self.rows += rows
        self.elbo += rows * float(terms.elbo)
        self.reconstruction += rows * float(terms.reconstruction)

    def figures(self) -> tuple[float, float, float]:
        elbo, reconstruction = self.elbo / self.rows, self.reconstruction / self.rows
        return elbo, reconstruction, reconstruction - elbo


class _Training:
    """The state of a fit: what goes on from epoch to epoch."""

    def __init__(
        self,
        pair: Pair,
        data: Any,
        validation: Any,
        kwargs: dict[str, Any],
        elbo: ELBO | None,
        settings: Settings,
        warm_start: bool,
    ) -> None:
        self.pair, self.kwargs, self.settings = pair, kwargs, settings
        device = settings.torch_device()
        part, arguments = prepare(data, pair.model, kwargs)
        size = 1 if part is None else len(part)
        if settings.batch_size is not None and settings.batch_size > size:
            raise DataError(
                f"batch_size must be at most the number of data, {size}, got "
                f"{settings.batch_size}: lower it, or leave it out"
            )
        rows = min(settings.batch_size or DEFAULT_BATCH, size)
        self.batches = Batches(part, arguments, rows, device)
        pair.train(False)
        self.structure = examine(pair, self.batches.example, size, rows, kwargs)
        if isinstance(pair.story, Story) and not warm_start and part is not None:
            pair.story.start(*self.batches.columns)
        self.batches.batch_size = _batch_size(self.structure, settings, size)
        self.epochs = settings.epochs_of(self.batches.count)
        self.valid = None
        if validation is not None:
            rows_valid, count = prepare(validation, pair.model, kwargs)
            self.valid = Batches(rows_valid, count, 1, device)
            self.valid.batch_size = min(
                self.valid.size,
                max(1000, rows) if self.structure.takes_batches else self.valid.size,
            )
        example = self.batches.example(self.batches.batch_size)
        plain = choose_elbo(pair, self.structure, example, kwargs)
        chosen = elbo or choose_elbo(
            pair, self.structure, example, kwargs, settings.particles, bool(settings.free_bits)
        )
        self.objective = Objective(pair, self.structure, chosen, size, settings.free_bits)
        self.bound = Objective(pair, self.structure, plain, size)
        self.step = Step(Gradient(self.objective, kwargs), settings.make_optimizer, settings.clip)
        self.record = record_of(data, part, arguments)
        self.epochs_done: list[Epoch] = []
        self.steps = 0
        self.kept = self.earlier = pair.snapshot()
        self.best = -math.inf
        self.waited = 0

    def run(self, report: Reporter) -> None:
        """Take every epoch, until the last or until the validation ELBO stops rising."""
        validate = is_validation_enabled()
        begun = time.perf_counter()
        for number in range(1, self.epochs + 1):
            # What torch and Pyro check at every site is checked once on every row, then trusted.
            with pyro.validation_enabled(validate and number == 1), _quiet():
                figures = self._epoch(number)
                valid = self._validation()
            epoch = self._record(number, time.perf_counter() - begun, figures, valid)
            self.epochs_done.append(epoch)
            report(epoch)
            if self._keep(number, epoch.valid_elbo):
                break

    def result(self) -> Run:
        """The run so far, with the weights that were kept."""
        self.pair.load_state(self.kept)
        self.pair.train(False)
        return Run(
            pair=self.pair,
            structure=self.structure,
            settings=replace(self.settings, batch_size=self.batches.batch_size, epochs=self.epochs),
            history=History(tuple(self.epochs_done)),
            data=self.record,
            kwargs=self.kwargs,
        )

    def _epoch(self, number: int) -> tuple[float, float, float]:
        self.pair.train(True)
        mean = _Mean()
        total = self.epochs * self.batches.count
        for position, batch in enumerate(self.batches.shuffled()):
            terms, update = self._finite_step(number, position, batch)
            rate = self.settings.learning_rate * self.settings.rate_at(self.steps / total)
            for group in self.step.prepare().param_groups:
                group["lr"] = rate
            update()
            self.steps += 1
            mean.add(terms, rows_of(batch))
        self.pair.train(False)
        return mean.figures()

    def _finite_step(
        self, number: int, position: int, batch: Batch
    ) -> tuple[Terms, Callable[[], None]]:
        """Evaluate a batch, and stop the fit if its loss or a parameter is not finite."""
        noise = torch.get_rng_state()
        try:
            with blame("story"):
                terms, update = self.step(batch, self.settings.kl_weight_at(number))
            loss = float(terms.loss.detach())
            if math.isfinite(loss):
                return terms, update
        except StoryError:
            if not self._broken():
                raise
            loss = math.nan
        self.pair.train(False)
        torch.set_rng_state(noise)
        if position == 0 and self.valid is None:
            # The last epoch's weights are the ones that gave this loss.
            self.kept = self.earlier
        raise self._diverged(number, loss, batch)

    def _broken(self) -> list[str]:
        """Names of the parameters that are not finite any more."""
        return [n for n, p in self.pair.parameters().items() if not p.isfinite().all()]

    def _validation(self) -> tuple[float, float, float]:
        if self.valid is None:
            return math.nan, math.nan, math.nan
        mean = _Mean()
        # The same noise at every epoch, so that epochs differ by their weights alone.
        # A sum over enumerated sites has no value in Pyro unless it has a gradient.
        graded = torch.set_grad_enabled(self.structure.enumerated)
        with seeded(self.settings.seed), graded:
            for batch in self.valid.in_order():
                mean.add(self.bound(batch, self.kwargs), rows_of(batch))
        return mean.figures()

    def _record(
        self,
        number: int,
        seconds: float,
        figures: tuple[float, float, float],
        valid: tuple[float, float, float],
    ) -> Epoch:
        elements = self.structure.elements if self.batches.part is not None else 0
        bits = -figures[0] / (elements * math.log(2)) if elements else math.nan
        rate = self.step.prepare().param_groups[0]["lr"]
        weight = self.settings.kl_weight_at(number)
        return Epoch(number, self.steps, seconds, rate, weight, *figures, bits, *valid)

    def _keep(self, number: int, valid_elbo: float) -> bool:
        """Keep the weights if they are the ones to keep; say whether to stop."""
        if self.valid is None or number <= self.settings.kl_warmup:
            self.earlier, self.kept = self.kept, self.pair.snapshot()
            return False
        if valid_elbo > self.best:
            self.best, self.waited = valid_elbo, 0
            self.kept = self.pair.snapshot()
        else:
            self.waited += 1
        return self.settings.patience is not None and self.waited >= self.settings.patience

    def _diverged(self, number: int, loss: float, batch: Batch) -> FitError:
        where = None
        with pyro.validation_enabled(False), _quiet():
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


def _batch_size(structure: Structure, settings: Settings, size: int) -> int:
    """How many rows a step takes, given what the programs can be given."""
    asked = settings.batch_size
    if structure.enumerated and settings.kl_weight_at(1) != 1.0:
        raise StoryError(
            "kl_weight must be 1 and kl_warmup 0 where a site is enumerated: the sum over its "
            "values has no separate KL term to weight"
        )
    if structure.needs_all:
        if asked is not None and asked < size:
            raise StoryError(
                f"batch_size must be left out or {size}, got {asked}: {structure.needs_all}, so "
                "every step needs all the data"
            )
        return size
    return min(asked or DEFAULT_BATCH, size)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Pyro warns of when a loss is not finite: the fit says it itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered ")
        yield
