"""Stories of users' own, under ppl-gen and under stock ``SVI.step``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.contender import Effort, Peer
from benchmarks.speed.harness import contest
from benchmarks.speed.lines import Line
from benchmarks.speed.ours import Ours
from benchmarks.speed.stock import Stock
from benchmarks.speed.stories import USERS, Told

BAR = 0.50
STEPS = 80


@dataclass(frozen=True)
class ForOurs:
    """A story and its data as ``ppl_gen.fit`` takes them."""

    make: Callable[[], Told]

    def __call__(self) -> tuple[Any, Any]:
        told = self.make()
        return (told.model, told.guide), told.data


def against_stock(
    work: str, make: Callable[[], Told], steps: int, bar: float, effort: Effort
) -> list[Line]:
    """The line of one story, in a fit of default length, with the rows a step that it asks for."""
    told = make()
    settings = {"batch_size": told.batch_size, "learning_rate": told.rate, "epochs": None}
    stock = Stock(make, told.batch_size)
    elbo = type(told.elbo).__name__
    peers = [Peer(f"the same under SVI.step, {elbo}", stock, bar)]
    return contest(work, Ours(ForOurs(make), settings), peers, steps, effort)


def rows(effort: Effort) -> list[Line]:
    """A line of every story."""
    lines = []
    for name, make in USERS.items():
        lines += against_stock(f"own story: {name}", make, STEPS, BAR, effort)
    return lines
