"""The state of a fit, however it climbs: data, structure, history, and the weights to keep."""

from __future__ import annotations

import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import is_validation_enabled
from torch import Tensor

from ppl_gen.errors import DataError, PplGenError, RunError, StoryError
from ppl_gen.inference.batches import Batches, on_disk, prepare
from ppl_gen.inference.checkpoint import Checkpoint, Interrupts
from ppl_gen.inference.disk import plain_kwargs, take_over
from ppl_gen.inference.doctor import before_a_fit
from ppl_gen.inference.history import Epoch, History, epochs_of, table_of
from ppl_gen.inference.iterates import Iterates
from ppl_gen.inference.logs import Logs
from ppl_gen.inference.looks import not_finite
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.processes import Processes
from ppl_gen.inference.progress import Reporter
from ppl_gen.inference.run import Run, configuration_of, record_of, versions
from ppl_gen.inference.seeds import generators, noise_to_come, set_generators, set_noise
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.structure import Structure, examine
from ppl_gen.inference.tracing import ProgramRaised, argument_names

DEFAULT_BATCH = 128


class Figures(NamedTuple):
    """Means of some rows, in nats per datum; NaN for what has no meaning."""

    elbo: float = math.nan
    reconstruction: float = math.nan
    kl: float = math.nan
    divergence: float = math.nan
    critic_accuracy: float = math.nan


UNKNOWN = Figures()


@dataclass
class Visit:
    """How far a pass over the data has come.

    Attributes:
        noise: The random numbers to come before the order was drawn, by which it is drawn again.
        order: Numbers of all rows, in the order in which they are visited, ``(N,)``.
        position: How many steps were taken.
        rows: How many rows were added up.
        sums: What is added up over the rows.
        draws: What was drawn for the whole pass, if anything.
    """

    noise: list[Tensor]
    order: Tensor
    position: int = 0
    rows: float = 0.0
    sums: list[float] = field(default_factory=list)
    draws: Tensor | None = None


class Training(ABC):
    """What goes on from epoch to epoch.

    Args:
        pair: The programs to train.
        data: Rows to learn from, of any form that ``fit`` takes; None for programs that hold them.
        validation: Rows to watch, of the same form, or None.
        kwargs: Further arguments of both programs.
        settings: How to fit.
        warm_start: Whether to go on from the parameters the story has.
        processes: Those that fit it together.

    Raises:
        StoryError: If model, guide and data do not fit each other.
        DataError: If the data cannot be used.
    """

    def __init__(
        self,
        pair: Pair,
        data: Any,
        validation: Any,
        kwargs: dict[str, Any],
        settings: Settings,
        warm_start: bool,
        processes: Processes | None = None,
    ) -> None:
        self.processes = processes or Processes()
        self.interrupts: Interrupts | None = None
        self.pair, self.kwargs, self.settings = pair, kwargs, settings
        self.warm_start = warm_start
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
        with self.blaming_data():
            self.structure = self._examined()
        if not self.structure.takes_batches:
            self.batches.read()
        self.batches.batch_size = self.rows_a_step()
        if self.batches.count == 1:
            self.batches.read()
        self.epochs = settings.epochs_of(self.batches.count, self.structure.way)
        if settings.learning_rate is None and settings.method == "svi":
            self.settings = replace(settings, learning_rate=self.structure.way.rate)
        self.valid = None
        if validation is not None:
            rows_valid, count = prepare(validation, pair.model, kwargs)
            self.valid = Batches(rows_valid, count, 1, device)
            self.valid.batch_size = min(
                self.valid.size,
                max(1000, rows) if self.structure.takes_batches else self.valid.size,
            )
        for batches in (self.batches, self.valid):
            if batches is not None:
                batches.processes = self.processes
        if not self.processes.alone and not self.structure.takes_batches:
            raise StoryError(
                f"the story must take some rows at a time to be fitted by several processes, but "
                f"{self.structure.needs_all}: fit it with one"
            )
        self.record = record_of(data, part, arguments)
        self.epochs_done: list[Epoch] = []
        self.epoch = self.steps = 0
        self.over = self.resumed = self.looked_over = False
        self.seconds = 0.0
        self.kept = pair.snapshot()
        self.visit: Visit | None = None
        self.save: Callable[..., None] = lambda training, epoch=None: None
        self.callback: Callable[[Epoch], object] | None = None
        self.logs = Logs((), None)

    @abstractmethod
    def rows_a_step(self) -> int:
        """How many rows a step takes, given what the programs can be given."""

    @abstractmethod
    def run(self, report: Reporter) -> None:
        """Find first weights, and climb from them."""

    @abstractmethod
    def train(self, epoch: int) -> Figures:
        """Change the weights by one pass over the data; figures of the training data."""

    @abstractmethod
    def watch(self) -> Figures:
        """Figures of the validation data; NaN without."""

    @abstractmethod
    def rates(self, epoch: int) -> tuple[float, float]:
        """Learning rate and factor on the KL term at the end of an epoch."""

    @abstractmethod
    def keep(self, epoch: Epoch) -> bool:
        """Keep the weights if they are the ones to keep; say whether to stop."""

    @property
    def objective(self) -> Any:
        """What is climbed, as a setting."""
        return self.settings.objective

    def units(self, epoch: int) -> float:
        """How many dimensions of the code are in use; NaN where that is not asked."""
        return math.nan

    def recorded(self) -> Iterates | None:
        """What was recorded of the steps, if they are of a kind that is."""
        return None

    @contextmanager
    def blaming_data(self) -> Iterator[None]:
        """Where a program does not bear the data, say what is wrong with these.

        Raises:
            DataError: If numbers in them are not finite.
        """
        try:
            yield
        except ProgramRaised as error:
            spoilt = {} if on_disk(self.batches.columns) else not_finite(self.batches.columns)
            for place, rows in spoilt.items():
                name = argument_names(self.pair.model, self.batches.arguments)[place]
                some = ", ".join(map(str, sorted(rows)[:5])) + (", ..." if len(rows) > 5 else "")
                raise DataError(
                    f"the data must be finite for this story, got NaN or infinite numbers in "
                    f"{name}, rows {some}: leave them out, or let the story take missing values"
                ) from error
            raise

    def facts(self) -> dict[str, Any]:
        """What is fitted to what and how, for those who compare fits."""
        told = self.told()
        settings = {**told["settings"], "batch_size": self.batches.batch_size}
        return {
            "story": told["story"],
            "settings": {**settings, "epochs": self.epochs},
            "rows": self.batches.size,
        }

    def told(self) -> dict[str, Any]:
        """What the fit is of, as plain values."""
        return {
            "story": configuration_of(self.pair),
            "kwargs": plain_kwargs(self.kwargs),
            "settings": asdict(self.settings),
            "data": asdict(self.record),
            "validation": {"fingerprint": self._validation},
            "versions": versions(),
        }

    def resume(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            RunError: If it is of another story.
            DataError: If it is of other data.
        """
        present = self.told()
        for name, what in (("data", "data"), ("validation", "validation data")):
            if saved.record[name]["fingerprint"] != present[name]["fingerprint"]:
                raise DataError(
                    f"the {what} must be those that the fit was begun with, got others: to go on "
                    "with other data, fit(run.story, x, warm_start=True)"
                )
        if saved.record.get("elbo") != present.get("elbo"):
            raise RunError(
                f"the fit must go on with the elbo that it was begun with, "
                f"{saved.record.get('elbo')}, got {present.get('elbo')}: give fit the same"
            )
        try:
            self.load_state(saved.state)
        except PplGenError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                f"checkpoint {str(saved.path)!r} does not fit this story: {error!r}"
            ) from error

    def state(self) -> dict[str, Any]:
        """All that decides how the fit goes on between two steps, as plain values and tensors."""
        return {
            "epoch": self.epoch,
            "epochs": table_of(self.epochs_done),
            "steps": self.steps,
            "over": self.over,
            "seconds": self._clock(),
            "visit": None if self.visit is None else {**vars(self.visit), "order": None},
            "weights": self.pair.state(),
            "baselines": self.pair.baselines(),
            "kept": self.kept,
            "generators": generators(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave.

        Raises:
            RunError: If it is of another story.
        """
        self.resumed = self.looked_over = True
        self.take_weights(state["weights"])
        self.pair.load_baselines(state["baselines"])
        self.epoch, self.steps, self.over = state["epoch"], state["steps"], state["over"]
        self.epochs_done = epochs_of(state["epochs"])
        self.seconds = state["seconds"]
        self.kept = state["kept"]
        if state["visit"] is not None:
            placed = {k: _on(self.batches.device, v) for k, v in state["visit"].items()}
            set_noise(tuple(state["visit"]["noise"]))
            self.visit = Visit(**{**placed, "order": self.batches.order()})
        set_generators(state["generators"])

    def take_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights that programs of this kind had."""
        rows = self.batches.example(self.batches.batch_size)
        take_over(self.pair, weights, rows, self.kwargs)

    def begin_visit(self) -> Visit:
        """A pass over the data in an order drawn from torch's generator; or the one at hand."""
        if self.visit is None:
            noise = list(noise_to_come())
            self.visit = Visit(noise, self.batches.order())
        return self.visit

    def visits(self, visit: Visit) -> Iterator[tuple[Tensor, ...]]:
        """What each step of a pass is given that is yet to come, see :class:`Batches`.

        After each step the fit may be saved: a step is to be whole when the next is asked for.
        """
        with closing(self.batches.passing(visit.order, visit.position)) as passing:
            for given in passing:
                yield given
                self.processes.agree(self.interrupts)
                visit.position += 1
                self.save(self)
        self.visit = None

    def climb(self, report: Reporter) -> None:
        """Take every epoch, until the last or until one says to stop."""
        if not self.looked_over:
            self.looked_over = True  # once, of however many starts
            seed = self.settings.seed
            before_a_fit(self.pair, self.structure, self.batches, self.kwargs, seed)
        validate = is_validation_enabled()
        self._begun = time.perf_counter() - self.seconds
        while self.epoch < self.epochs and not self.over:
            number = self.epoch + 1
            # What torch and Pyro check at every site is checked once on every row, then trusted.
            with pyro.validation_enabled(validate and number == 1), quiet():
                figures = self.train(number)
                valid = self.watch()
            epoch = self._record(number, self._clock(), figures, valid)
            self.epochs_done.append(epoch)
            report(epoch)
            self.logs(epoch)
            enough = self.callback is not None and bool(self.callback(epoch))
            self.over = self.keep(epoch)
            self.over |= self.processes.any(enough)
            self.epoch = number
            self.save(self, number)

    def result(self) -> Run:
        """The run so far, with the weights that were kept."""
        self.pair.load_state(self.kept)
        self.pair.train(False)
        return Run(
            pair=self.pair,
            structure=self.structure,
            settings=replace(
                self.settings,
                batch_size=self.batches.batch_size,
                epochs=self.epochs,
                objective=self.objective,
            ),
            history=History(tuple(self.epochs_done)),
            data=self.record,
            kwargs=self.kwargs,
            iterates=self.recorded(),
        )

    def become(self, story: Any) -> None:
        """Train another story from here on, of the same kind, from the weights that it has."""
        # What the story before put into Pyro's store is not the new one's.
        pyro.get_param_store().clear()
        self.pair.story, self.pair.model, self.pair.guide = story, story.model, story.guide
        self.pair.to(self.settings.torch_device())
        self.pair.train(False)
        self.structure = self._examined()
        self.kept = self.pair.snapshot()

    @cached_property
    def _validation(self) -> str | None:
        """The fingerprint of the validation data, of which each checkpoint tells."""
        part = None if self.valid is None else self.valid.part
        return None if part is None else part.fingerprint

    def _clock(self) -> float:
        """Seconds that the climb has taken, before it was interrupted too."""
        return self.seconds if self._begun is None else time.perf_counter() - self._begun

    def restart_clock(self) -> None:
        """Count the seconds of a climb from now on."""
        self.seconds, self._begun = 0.0, None

    _begun: float | None = None

    def _examined(self) -> Structure:
        """The structure of the programs, traced with as many rows as a step has."""
        batches = self.batches
        return examine(self.pair, batches.example, batches.size, batches.batch_size, self.kwargs)

    def _record(self, number: int, seconds: float, figures: Figures, valid: Figures) -> Epoch:
        elements = self.structure.elements if self.batches.part is not None else 0
        bits = -figures[0] / (elements * math.log(2)) if elements else math.nan
        return Epoch(
            number,
            self.steps,
            seconds,
            *self.rates(number),
            *figures[:3],
            bits,
            *valid[:3],
            *figures[3:],
            valid.divergence,
            self.units(number),
        )


def _on(device: torch.device, value: Any) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def check_batch_size(structure: Structure, asked: int | None, size: int) -> None:
    """Refuse mini-batches of programs that need all the data.

    Raises:
        StoryError: If they do, and fewer rows are asked for.
    """
    if structure.needs_all and asked is not None and asked < size:
        raise StoryError(
            f"batch_size must be left out or {size}, got {asked}: {structure.needs_all}, so "
            "every step needs all the data"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Pyro warns of when a loss is not finite: the fit says it itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered ")
        yield
