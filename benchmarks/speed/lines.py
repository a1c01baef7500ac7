"""The lines of the table: a figure, its spread over rounds, and the bar it is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Line:
    """One comparison.

    Attributes:
        work: What was done.
        against: By whom else.
        ratio: Median over the rounds; None where nothing could be measured.
        low: Lower quartile.
        high: Upper quartile.
        bar: What ``ratio`` should be at most; None where it is only shown.
        unit: Unit of the three, empty for a ratio.
        ours: What ours took, in words.
        theirs: What the other took, in words.
        note: Why there is no figure, or what has to be known with it.
    """

    work: str
    against: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    bar: float | None = None
    unit: str = ""
    ours: str = ""
    theirs: str = ""
    note: str = ""

    @property
    def short(self) -> bool:
        """Whether it was measured, and not met."""
        return self.ratio is not None and self.bar is not None and self.ratio > self.bar

    @property
    def verdict(self) -> str:
        """Whether the bar is met, in words."""
        if self.ratio is None:
            return self.note
        if self.bar is None:
            return f"shown; {self.note}" if self.note else "shown"
        met = "**not met**" if self.short else "met"
        return f"{met}; {self.note}" if self.note else met

    @property
    def told(self) -> str:
        """Figure, quartiles and verdict in words."""
        if self.ratio is None:
            return self.note
        spread = f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f}) {self.unit}".rstrip()
        return f"{spread}, {self.verdict}"


def ratio_line(
    work: str, against: str, ours: Sequence[float], theirs: Sequence[float], **given: Any
) -> Line:
    """The line of two contenders' seconds a step, round by round.

    Args:
        work: What was done.
        against: By whom else.
        ours: Seconds of ours, one a round.
        theirs: Seconds of the other in the same rounds.
        **given: Further fields of :class:`Line`.

    Raises:
        ValueError: If the numbers of rounds differ, or there are none.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(
            f"ours and theirs must have as many rounds, and one at least, got {len(ours)} and "
            f"{len(theirs)}"
        )
    ratios = np.divide(ours, theirs)
    shown = {"ours": duration(float(np.median(ours))), "theirs": duration(float(np.median(theirs)))}
    return Line(work, against, **_quartiles(ratios), **{**shown, **given})


def figure_line(work: str, against: str, values: Sequence[float], unit: str, **given: Any) -> Line:
    """The line of a figure that is no ratio, measured some times."""
    return Line(work, against, **_quartiles(np.asarray(values, float)), unit=unit, **given)


def foreign_line(row: Mapping[str, Any]) -> Line:
    """A line measured elsewhere, given as a mapping of some of the fields of :class:`Line`."""
    known = {field.name for field in fields(Line)}
    return Line(**{name: value for name, value in row.items() if name in known})


def duration(seconds: float) -> str:
    """Seconds in the unit that shows three digits best."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _quartiles(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return {"ratio": float(median), "low": float(low), "high": float(high)}
