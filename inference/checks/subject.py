"""What is checked: a run, the data it is held against, and what the checks share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from ppl_gen.data import as_part
from ppl_gen.data.dataset import LOOKED_AT
from ppl_gen.inference.batches import some_rows
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.tracing import Batch
from ppl_gen.inference.verdict import Finding, Status
from ppl_gen.inference.window import Window

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run
    from ppl_gen.inference.structure import Structure

Level = Literal["quick", "full"]
T = TypeVar("T")
# Rows that are looked at together.
TOGETHER = 1000


@dataclass
class Subject:
    """A run and the data it is checked on.

    Attributes:
        run: The fitted story.
        data: Rows to check it on, up to 10,000 of those on disk; None for programs that hold their
            data themselves.
        draws: Draws of the guide a row.
        memory: Bytes that a pass may take.
        seed: Of everything that is drawn.
        level: How much is asked for.
        train: Rows of the fit, if they are at hand.
        test: Rows that the fit has not seen, if ``data`` are its own.
        budget: Seconds that refits may take.
        statistics: The user's own, by name: of observations ``(N, *event)`` a number.
        places: Where each row stands in the source of the data, ``(N,)``; as they are given unless
            they were divided at random.
        tell: Is told what share of the present check is done, from 0 to 1.
    """

    run: Run
    data: Any
    draws: int = 1000
    memory: int = 128 * 2**20
    seed: int = 0
    level: Level = "full"
    train: Any = None
    test: Any = None
    budget: float = 60.0
    statistics: Mapping[str, Callable[[Tensor], Any]] = field(default_factory=dict)
    tell: Callable[[float], None] = field(default=lambda share: None)
    places: Tensor | None = None

    _found: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.numbers = torch.arange(0)
        if self.data is not None:
            part = as_part(self.data)
            self.numbers = torch.arange(len(part))
            if part.on_disk:
                self.fingerprint = part.fingerprint
                self.numbers = part.spread(LOOKED_AT)
                self.places = None if self.places is None else self.places[self.numbers]
                self.data = part.sample()
            if self.places is None:
                self.places = self.numbers
        if self.train is not None and as_part(self.train).on_disk:
            self.train = as_part(self.train).sample()
        self.batch: Batch = () if self.data is None else self.run.batch(self.data)

    @cached_property
    def rows(self) -> int:
        """How many data there are."""
        if not self.batch:
            return 0
        return Window(self.run.pair, self.run.structure, self.run.kwargs).size(self.batch)

    @cached_property
    def fingerprint(self) -> str | None:
        """That of the data, to compare with the run's."""
        return None if self.data is None else as_part(self.data).fingerprint

    @property
    def is_of_the_fit(self) -> bool:
        """Whether these rows are those that the story was fitted to."""
        return self.run.data.fingerprint == self.fingerprint

    @property
    def held_out(self) -> Subject | None:
        """The same of rows that the fit has not seen; None if there are none."""
        if not self.is_of_the_fit:
            return self
        if self.test is None or not len(as_part(self.test)):
            return None
        return replace(self, data=self.test, test=None, places=None, _found={})

    @cached_property
    def seconds_each(self) -> float:
        """Seconds that guide and model take to draw and weigh one draw of one row.

        Of as many draws as take a time that is not all overhead.
        """
        rows, seconds, draws = min(self.rows or 1, 256), 0.0, 4
        with self.run.pair.active(), seeded(self.seed):
            sampler = Sampler(self.run.pair, self.run.structure, self.run.kwargs)
            part = next(sampler.window.slices(self.batch, rows))
            with sampler.window.showing(self.batch, part) as shown:
                sampler.draw(shown, draws)
                while seconds < 0.02 and draws < 256:
                    draws *= 4
                    begun = time.perf_counter()
                    sampler.draw(shown, draws)
                    seconds = time.perf_counter() - begun
        return seconds / (rows * draws)

    def some(self, count: int) -> tuple[Tensor, Batch]:
        """Some of the rows, chosen by chance where there are more: numbers and batch."""
        if self.rows <= count or not self.run.structure.takes_batches:
            return self.numbers[: self.rows], self.batch
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(self.rows, generator=generator)[:count].sort().values
        return self.numbers[chosen], some_rows(self.batch, chosen)

    def sound(self) -> Subject:
        """The subject without the rows under which a likelihood is not finite.

        One such row would make every mean of all rows a NaN. What is wrong with it is the doctor's
        to say.
        """
        structure = self.run.structure
        if not structure.takes_batches or not structure.data_plates or not self.batch:
            return self
        with self.run.pair.active(), seeded(self.seed):
            sampler = Sampler(self.run.pair, structure, self.run.kwargs)
            parts = [
                _finite_rows(sampler, some_rows(self.batch, part))
                for part in sampler.window.slices(self.batch, TOGETHER)
            ]
        kept = torch.cat(parts).cpu()
        if kept.all() or not kept.any():
            return self
        known = self.fingerprint
        sound = replace(self, data=as_part(self.data)[kept.nonzero().flatten()], _found={})
        sound.numbers, sound.fingerprint = self.numbers[kept], known
        sound.places = None if self.places is None else self.places[kept]
        return sound

    def once(self, make: Callable[[Subject], T]) -> T:
        """What a function finds out about the subject, asked for by several checks."""
        if make not in self._found:
            self._found[make] = make(self)
        return self._found[make]

    def skipped(self, check: str, reason: str, status: Status = "skipped") -> Finding:
        """A finding for a check that cannot be made."""
        return Finding(check, math.nan, "", "", status, reason, "", "")


def _finite_rows(sampler: Sampler, batch: Batch) -> Tensor:
    """Which rows have a likelihood at a draw of their latents, ``(N,)``."""
    found = torch.ones(sampler.window.count(batch), dtype=torch.bool)
    for name, terms in sampler.draw(batch, 1).log_likelihood.items():
        site = sampler.structure.sites.get(name)
        if site is None or not site.local:
            continue
        rows = terms.movedim(sampler.window.row_axis(name), 0)
        found &= rows.reshape(len(rows), -1).isfinite().all(1).cpu()
    return found


@dataclass(frozen=True)
class Cost:
    """What a check is going to do.

    Attributes:
        work: In words, such as "1,000 draws of 360 rows".
        evaluations: How often guide and model are run for one draw of one row; a gradient counts
            for three. 0 for what takes no time to speak of.
    """

    work: str
    evaluations: float = 0.0


NOTHING = Cost("")


@dataclass(frozen=True)
class Check:
    """One question that is asked of a run.

    Attributes:
        question: In a few words.
        findings: The names of the rows of the verdict that answer it.
        look: Answers it.
        cost: Says beforehand what that takes.
        level: From which level on it is asked.
        concerns: Whether it is worth a step of its own for a story of some structure; where it is
            not, it is *not applicable* without a word.
    """

    question: str
    findings: Sequence[str]
    look: Callable[[Subject], Iterable[Finding]]
    cost: Callable[[Subject], Cost] = lambda subject: NOTHING
    level: Level = "quick"
    concerns: Callable[[Structure], bool] = lambda structure: True
