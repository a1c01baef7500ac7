"""Whether numbers were rounded, or one of them stands for itself, otherwise than a story makes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ppl_gen.inference.checks.statistic import LEADS, Limits, Statistic
from ppl_gen.inference.estimators.heaps import (
    HEAP,
    Favoured,
    Grid,
    but_for_one,
    favoured,
    favourite,
    grid_of,
)

LEAST_ROWS = 50
SHARE: Limits = (0.05, float("inf"))


@dataclass
class Heaps:
    """Numbers of one element of a site that many rows have, in the data and in replicates.

    Replicates are rounded to the steps in which the data were written down, if they were.

    Attributes:
        site: The site to mend.
        name: What the numbers are called.
        known: Which rows have one, ``(N,)``.
        grid: The steps; None if there are none.
        own: The numbers of the data that are not missing, in steps if there are such.
        most: That which most rows have beyond its neighbours, and their share; None if few do.
        steps: Which steps are favoured; None if none much.
        alone: For each replicate, by which share one number exceeds its neighbours.
        often: By how many deviations some steps are favoured there.
        there: Which share of each stands on those that the data favour.
    """

    site: str
    name: str
    known: Tensor
    grid: Grid | None
    own: Tensor
    most: tuple[float, float] | None
    steps: Favoured | None
    alone: list[float] = field(default_factory=list)
    often: list[float] = field(default_factory=list)
    there: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, site: str, name: str, data: Tensor) -> Heaps | None:
        """Of the numbers of each row, ``(N,)``, NaN where missing; None if none has many rows."""
        known = ~data.isnan()
        values = data[known]
        if len(values) < LEAST_ROWS:
            return None
        grid = grid_of(values)
        own = values.double() if grid is None else grid.places(values)
        most = favourite(own)
        steps = None if grid is None else favoured(own)
        if most[1] <= max(SHARE[0], HEAP / len(own)):
            most = None
        if steps is not None and steps.share - 1 / steps.every <= SHARE[0]:
            steps = None
        if most is None and steps is None:
            return None
        return cls(site, name, known, grid, own, most, steps)

    def take(self, drawn: Tensor) -> None:
        """Add replicates, ``(S, N)``."""
        for row in drawn[:, self.known].double():
            places = row if self.grid is None else self.grid.places(row)
            if self.most is not None:
                self.alone.append(favourite(places)[1])
            if self.steps is not None:
                found = favoured(places)
                self.often.append(0.0 if found is None else found.beyond)
                here = but_for_one(places) % self.steps.every == self.steps.rest
                self.there.append(here.double().mean().item())

    def statistics(self) -> list[Statistic]:
        """Those that the data have; without replicates none."""
        found = []
        if self.steps is not None and self.grid is not None and self.often:
            steps, made = self.steps, sum(self.there) / len(self.there)
            which = self._multiples(steps, self.grid)
            found.append(
                Statistic(
                    f"share of {which} in {self.name}",
                    "of the rows",
                    SHARE,
                    steps.beyond,
                    torch.tensor(self.often, dtype=torch.float64),
                    distance=max(0.0, steps.share - made),
                    where=f"of the data {steps.share:.0%}, made {made:.0%}",
                    mend=f"Many numbers of {self.name} were rounded where they were written down. "
                    "If that is coarse beside their scatter, let the story round as well: by the "
                    "difference of its cumulative distribution function at the ends of each step.",
                    site=self.site,
                    lead=LEADS.index("heap"),
                )
            )
        if self.most is not None and self.alone:
            place, share = self.most
            value = self._number(place)
            found.append(
                Statistic(
                    f"share of {value} in {self.name} beyond its neighbours",
                    "of the rows",
                    SHARE,
                    share,
                    torch.tensor(self.alone, dtype=torch.float64),
                    where=f"of the data {share:.0%}",
                    mend=f"{value} is had by {share:.0%} of {self.name} more than numbers next to "
                    "it: if it means missing, say so by NaN; if it is a state of its own, let the "
                    "story mix it with the rest; else it is what many were rounded to.",
                    site=self.site,
                    lead=LEADS.index("heap"),
                )
            )
        return found

    def _number(self, place: float) -> str:
        grid = self.grid
        return f"{place if grid is None else grid.origin + place * grid.step:.6g}"

    def _multiples(self, steps: Favoured, grid: Grid) -> str:
        """The steps that are favoured, in words."""
        every, rest = steps.every, steps.rest
        if not grid.origin and not rest:
            return f"multiples of {every * grid.step:.6g}"
        first = self.own.min() + (rest - self.own.min()) % every
        return f"every {every}th number from {self._number(first.item())} on"
