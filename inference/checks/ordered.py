"""Whether what is left of the observations knows of an order of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.inference.checks.look import LIMITS, Drawn, Look
from ppl_gen.inference.checks.statistic import LEADS, Statistic
from ppl_gen.inference.estimators.contrasts import LEVELS
from ppl_gen.inference.estimators.replicates import beyond_chance
from ppl_gen.inference.estimators.rhythms import LEAST_ROWS, Waves, neighbours, waves_along

IN_FILE = "in the order of the data"


def along(name: str, values: Tensor) -> list[Look]:
    """Looks along a number that puts the rows in an order."""
    known = values[~values.isnan()] if values.is_floating_point() else values
    if len(known) < LEAST_ROWS or len(known.unique()) <= LEVELS:
        return []
    waves = waves_along(values)
    looks: list[Look] = [] if waves is None else [ComesBack(name, waves, values)]
    order = values.argsort(stable=True)[: len(known)]  # what is missing stands last
    return [*looks, Follows(name, order)]


@dataclass(frozen=True)
class ComesBack:
    """The mean may come back again and again along a number."""

    along: str
    waves: Waves
    values: Tensor

    def of(self, x: Tensor) -> Tensor:
        return self.waves.peaks(x)

    def compared(self, site: str, own: Tensor, drawn: Tensor) -> list[Statistic]:
        value, chance = (_odds(power.amax(1)).sqrt() for power in (own, drawn))
        wave = int(own[0].argmax())
        period, times = self.waves.period(wave)
        length = f"{period:.0f}" if period.is_integer() else f"{period:.3g}"
        in_file = self.along == IN_FILE
        of = "the rows" if in_file else self.along.removeprefix("along ")
        swing = 2 * 2**0.5 * value.item()
        part = "" if times == 1 else f" of {length} / {times}"
        mend = f"Let {site} come back every {length} of {of}: by a sine and a cosine{part}"
        if self.waves.whole and not in_file and period.is_integer():
            mend += f", or with a level for each {of} modulo {length}"
        return [
            Statistic(
                f"rhythm of {site} {self.along}",
                "of what is left open",
                LIMITS,
                value.item(),
                chance,
                distance=beyond_chance(value[0], chance),
                where=f"every {length} of {of}: the data rise and fall by {swing:.2g}",
                mend=f"{mend}.",
                site=site,
                lead=LEADS.index("mean"),
            )
        ]

    def against(self, own: Tensor, drawn: Tensor, left: Tensor) -> Drawn:
        period, _ = self.waves.period(int(own[0].argmax()))
        name = self.along.removeprefix("along ").removeprefix("in ")
        return (
            f"{name} modulo {period:.3g}",
            self.values.double() % period,
            torch.zeros_like(left),
            "none",
        )


@dataclass(frozen=True)
class Follows:
    """Rows that follow each other may be alike; sorted rows may be so without a fault."""

    along: str
    order: Tensor

    def of(self, x: Tensor) -> Tensor:
        return neighbours(x[:, self.order])

    def compared(self, site: str, own: Tensor, drawn: Tensor) -> list[Statistic]:
        in_file, name = self.along == IN_FILE, self.along.removeprefix("along ")
        seen = own.item()
        mend = (
            "If rows have an order, as time gives them, let the story know of it; if they were "
            "sorted, this says nothing."
            if in_file
            else f"Let rows of {site} that lie near each other along {name} be alike, as by a "
            "curve or a random walk."
        )
        return [
            Statistic(
                f"correlation of rows of {site} that follow each other"
                + ("" if in_file else f" {self.along}"),
                "of correlation",
                (LIMITS[0], math.inf) if in_file else LIMITS,
                seen,
                drawn,
                where=f"of the data {seen:.2f}, made {drawn.mean():.2f}",
                mend=mend,
                site=site,
                lead=LEADS.index("mean"),
            )
        ]

    def against(self, own: Tensor, drawn: Tensor, left: Tensor) -> Drawn:
        before = torch.full_like(left, math.nan)
        before[self.order[1:]] = left[self.order[:-1]]
        return "what is left of the row before", before, torch.zeros_like(left), "none"


def _odds(share: Tensor) -> Tensor:
    """What is explained, in units of what is left."""
    return share / (1 - share).clamp_min(1e-12)
