"""What takes part in a comparison."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal


class Contender(ABC):
    """Somebody's way to do a piece of work, in steps.

    It is made in one process, sent to another by pickle, and prepared there.
    """

    needs: tuple[str, ...] = ()

    @abstractmethod
    def prepare(self) -> None:
        """Do everything that is not measured: data, compilation, first steps."""

    @abstractmethod
    def run(self, steps: int) -> None:
        """Take so many steps, and return when they are done."""

    def facts(self) -> dict[str, float]:
        """What else it has to say after a run, by name."""
        return {}

    def missing(self) -> list[str]:
        """The modules it needs that are not installed."""
        return [name for name in self.needs if find_spec(name) is None]


@dataclass(frozen=True)
class Peer:
    """A contender that ours is compared with.

    Attributes:
        against: What it is, in words.
        contender: It.
        bar: What the ratio of ours to it should be at most; None where it is only shown.
    """

    against: str
    contender: Contender
    bar: float | None = None


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        quick: Whether to take a short form.
        rounds: How many interleaved rounds.
        seed: Of the order within the rounds.
        clock: wall, or cpu: seconds of all threads of the process, which other programs on the
            same cores disturb less.
    """

    quick: bool = False
    rounds: int = 9
    seed: int = 0
    clock: Literal["wall", "cpu"] = "wall"
