"""Ways in which what a story leaves of the observations may be other than noise is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ppl_gen.inference.checks.statistic import Limits, Statistic

LIMITS: Limits = (0.15, 0.4)
AGAINST, LEFT, MEANT = "drawn against ", "left of ", "marked rows: "
BEFORE = " of the row before"
EXPECTED = "what is expected"

# A name, its value for each row, which rows are meant, ``(N,)`` each, and what these are called.
Drawn = tuple[str, Tensor, Tensor, str]


class Look(Protocol):
    """A way in which what is left of the observations may be other than noise is."""

    def of(self, x: Tensor) -> Tensor:
        """What it shows in replicates less what is expected, ``(S, N, E)``: ``(S, *)``."""
        ...

    def compared(self, site: str, own: Tensor, drawn: Tensor) -> list[Statistic]:
        """That of the data, ``(1, *)``, beside that of replicates, ``(S, *)``."""
        ...

    def against(self, own: Tensor, drawn: Tensor, left: Tensor) -> Drawn | None:
        """What to draw against what is left of the data, ``(N,)``, for an eye to see it."""
        ...
