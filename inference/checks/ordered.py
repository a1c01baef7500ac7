"""Whether what is left of the observations knows of an order of the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ppl_gen.inference.checks.look import LIMITS, Drawn, Look
from ppl_gen.inference.checks.statistic import LEADS, Limits, Statistic
from ppl_gen.inference.estimators.contrasts import LEVELS
from ppl_gen.inference.estimators.replicates import beyond_chance
from ppl_gen.inference.estimators.rhythms import LEAST_ROWS, Waves, neighbours, waves_along
from ppl_gen.inference.estimators.splits import Splits, splits_along

IN_FILE = "in the order of the data"
SORTED: Limits = (LIMITS[0], math.inf)  # of an order that says nothing if rows were sorted
AS_GOOD = 0.95  # what a step explains of what a curve does, for it to be a step
LAGS = range(2, 15)  # rows before; one is looked at as all that is given of a row
MOST_NUMBERS = 5_000_000  # that what was given before may take
SHARED = 0.02  # correlation of replicates that have something in common
LEAST_SAME = 0.2  # of the rows that have the number of the next, for it to be that of a group
NEW = 0.1  # share of what was given before that is not known from what is given since


def along(name: str, values: Tensor) -> list[Look]:
    """Looks along a number that puts the rows in an order."""
    known = values[~values.isnan()] if values.is_floating_point() else values
    if len(known) < LEAST_ROWS or len(known.unique()) <= LEVELS:
        return []
    waves = waves_along(values)
    looks: list[Look] = [] if waves is None else [ComesBack(name, waves, values)]
    splits = splits_along(values)
    looks += [] if splits is None else [Jumps(name, splits, values)]
    order = values.argsort(stable=True)[: len(known)]  # what is missing stands last
    same = values[order].diff() == 0
    if name != IN_FILE and same.double().mean() >= LEAST_SAME:
        return [*looks, OfOne(name.removeprefix("along "), order, same)]
    return [*looks, Follows(name, order)]


def row_before(order: Tensor, lag: int) -> Tensor:
    """Which row stands so many before each, ``(N,)``; -1 where it is not at hand.

    Args:
        order: Where each row stands in its source, ``(N,)``, no two at one place.
        lag: How many rows before.
    """
    places, numbers = order.sort()
    found = torch.searchsorted(places, order - lag).clamp(max=len(order) - 1)
    return torch.where(places[found] == order - lag, numbers[found], -1)


def taken(values: Tensor, rows: Tensor) -> Tensor:
    """The values of some rows, NaN of those whose number is -1."""
    return torch.where(rows < 0, math.nan, values.double()[rows])


def new_before(values: Tensor, before: Tensor, since: Sequence[Tensor] = ()) -> Tensor | None:
    """What a column of rows before has that it, and what was given since, has not, ``(N,)``.

    Of length 1, and 0 where it is not known. A day is as good as that of two rows before.

    Args:
        values: The column, ``(N,)``, NaN where missing.
        before: Of the row so many before.
        since: Of rows between.

    Returns:
        None if it is little: at most a tenth of its variance.
    """
    known = ~torch.stack([before, values, *since]).isnan().any(0)
    if int(known.sum()) < LEAST_ROWS:
        return None
    away = [(v - v[known].mean()).where(known, 0.0) for v in (before, values, *since)]
    size = away[0].norm()
    others = torch.stack(away[1:], 1)
    rest = (
        away[0]
        - others @ torch.linalg.lstsq(others, away[0][:, None], driver="gelsd").solution[:, 0]
    )
    return rest / rest.norm() if rest.norm() > NEW**0.5 * size else None


def later(columns: Mapping[str, Tensor], order: Tensor) -> list[Look]:
    """Whether what was given up to 14 rows before acts still; numbers by size, groups one by one.

    It is looked at less what it has in common with what is given now and was in the row before.

    Args:
        columns: What is given of each row, ``(N,)`` each, NaN where missing.
        order: Where each row stands in its source, ``(N,)``.
    """
    functions, labels = [], []
    most = MOST_NUMBERS // max(1, len(order))
    one_before, *before = (row_before(order, lag) for lag in (1, *LAGS))
    for name, values in columns.items():
        values = values.double()
        levels = values[~values.isnan()].unique()
        each = {name: values}
        if 2 < len(levels) <= LEVELS:
            known = ~values.isnan()
            each = {
                f"{name} {level:g}": (values == level).double().where(known, math.nan)
                for level in levels.tolist()
            }
        for label, value in each.items():
            for lag, rows in zip(LAGS, before, strict=True):
                found = new_before(value, taken(value, rows), [taken(value, one_before)])
                if found is not None and len(labels) < most:
                    functions.append(found)
                    labels.append((name, f"{label} of {lag} rows before", lag))
    return [ActsLater(torch.stack(functions, 1), labels)] if labels else []


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
        in_file, (period, times) = self.along == IN_FILE, self._period(own)
        length = f"{period:.0f}" if period.is_integer() else f"{period:.3g}"
        of = "the rows" if in_file else self.along.removeprefix("along ")
        swing = 2 * 2**0.5 * value.item()
        part = "" if times == 1 else f" of {length} / {times}"
        mend = f"Let {site} come back every {length} of {of}: by a sine and a cosine{part}"
        if self.waves.whole and not in_file and period.is_integer():
            mend += f", or with a level for each {of} modulo {length}"
        where = f"every {length} of {of}: the data rise and fall by {swing:.2g}"
        return [_explains(f"rhythm of {site} {self.along}", value, chance, where, f"{mend}.", site)]

    def against(self, own: Tensor, drawn: Tensor, left: Tensor) -> Drawn:
        period, _ = self._period(own)
        name = self.along.removeprefix("along ").removeprefix("in ")
        return (
            f"{name} modulo {period:.3g}",
            self.values.double() % period,
            torch.zeros_like(left),
            "none",
        )

    def _period(self, own: Tensor) -> tuple[float, int]:
        """That of the strongest wave; what it may be a part of has no name in the order of rows."""
        wave = int(own[0].argmax())
        period, times = self.waves.period(wave)
        if self.along == IN_FILE and times > 1:
            return float(self.waves.periods[wave]), 1
        return period, times


@dataclass(frozen=True)
class Jumps:
    """The mean may jump where a number passes some value, if it does not change bit by bit."""

    along: str
    splits: Splits
    values: Tensor

    def of(self, x: Tensor) -> Tensor:
        """The step at each split, and then the curve, ``(S, C + 1, E)``."""
        return torch.cat([self.splits.steps(x), self.splits.curve(x)[:, None]], 1)

    def compared(self, site: str, own: Tensor, drawn: Tensor) -> list[Statistic]:
        shares, chances = (found.square().mean(2) for found in (own, drawn))
        value, chance = (_odds(s[:, :-1].amax(1)).sqrt() for s in (shares, chances))
        curve, by_chance = (_odds(s[:, -1]).sqrt() for s in (shares, chances))
        if beyond_chance(value[0], chance) < AS_GOOD * beyond_chance(curve[0], by_chance):
            return []
        at = int(shares[0, :-1].argmax())
        part = self.splits.below[at].item() / len(self.splits.order)
        steps = own[0, at]
        up = steps[steps.abs().argmax()] > 0
        height = value.item() / (part * (1 - part)) ** 0.5
        in_file, where = self.along == IN_FILE, self._where(at)
        level = f"let {site} have another level {where}"
        where = f"{where}: the data {height:.2g} {'higher' if up else 'lower'}"
        mend = (
            f"If rows have an order, as time gives them, {level}; if they were sorted, this says "
            "nothing."
            if in_file
            else f"{level[0].upper()}{level[1:]}, or see what changed there."
        )
        found = _explains(f"step of {site} {self.along}", value, chance, where, mend, site, "step")
        return [replace(found, limits=SORTED) if in_file else found]

    def against(self, own: Tensor, drawn: Tensor, left: Tensor) -> Drawn:
        at = int(own[0].square().mean(1)[:-1].argmax())
        meant = (self.values >= self.splits.values[at]).double()
        name = self.along.removeprefix("along ").removeprefix("in ")
        return name, self.values.double(), meant, self._where(at)

    def _where(self, at: int) -> str:
        of = "row" if self.along == IN_FILE else self.along.removeprefix("along ")
        value = float(self.splits.values[at])
        return f"from {of} {f'{value:.0f}' if value.is_integer() else f'{value:.3g}'} on"


@dataclass(frozen=True)
class ActsLater:
    """The mean may go with what was given some rows before."""

    functions: Tensor
    labels: Sequence[tuple[str, str, int]]

    def of(self, x: Tensor) -> Tensor:
        """Correlation with each, ``(S, F, E)``."""
        size = x.square().sum(1)[:, None].sqrt().clamp_min(1e-12)
        return torch.einsum("nf,sne->sfe", self.functions, x) / size

    def compared(self, site: str, own: Tensor, drawn: Tensor) -> list[Statistic]:
        shares, chances = (found.square().mean(2) for found in (own, drawn))
        value, chance = (_odds(s.amax(1)).sqrt() for s in (shares, chances))
        at = int(shares[0].argmax())
        name, label, lag = self.labels[at]
        found = own[0, at]
        where = f"{label}: correlation {found[found.abs().argmax()].item():+.2f}"
        mend = f"Let {site} depend on {name} of {lag} rows before, too."
        told = f"mean of {site} by what was given some rows before"
        return [_explains(told, value, chance, where, mend, site)]

    def against(self, own: Tensor, drawn: Tensor, left: Tensor) -> Drawn:
        at = int(own[0].square().mean(1).argmax())
        function = self.functions[:, at]
        return self.labels[at][1], function, torch.zeros_like(left), "none"


@dataclass(frozen=True)
class Follows:
    """Rows that follow each other may be alike; sorted rows may be so without a fault."""

    along: str
    order: Tensor

    def of(self, x: Tensor) -> Tensor:
        return neighbours(x[:, self.order])

    def compared(self, site: str, own: Tensor, drawn: Tensor) -> list[Statistic]:
        in_file, name = self.along == IN_FILE, self.along.removeprefix("along ")
        mend = (
            "If rows have an order, as time gives them, let the story know of it; if they were "
            "sorted, this says nothing."
            if in_file
            else f"Let rows of {site} that lie near each other along {name} be alike, as by a "
            "curve or a random walk."
        )
        told = f"correlation of rows of {site} that follow each other"
        if in_file:
            return [replace(_correlates(told, own.item(), drawn, mend, site), limits=SORTED)]
        return [_correlates(f"{told} {self.along}", own.item(), drawn, mend, site)]

    def against(self, own: Tensor, drawn: Tensor, left: Tensor) -> Drawn:
        before = torch.full_like(left, math.nan)
        before[self.order[1:]] = left[self.order[:-1]]
        return "what is left of the row before", before, torch.zeros_like(left), "none"


@dataclass(frozen=True)
class OfOne:
    """Rows that have one number, as that of a patient, may be alike."""

    column: str
    order: Tensor
    same: Tensor

    def of(self, x: Tensor) -> Tensor:
        return neighbours(x[:, self.order], self.same)

    def compared(self, site: str, own: Tensor, drawn: Tensor) -> list[Statistic]:
        told = f"correlation of rows of {site} of one {self.column}"
        mend = (
            f"Let each {self.column} have a level of {site} of its own, of a law that all share; "
            "if it is no name but a number, let rows near each other along it be alike."
        )
        return [_correlates(told, own.item(), drawn, mend, site)]

    def against(self, own: Tensor, drawn: Tensor, left: Tensor) -> Drawn:
        before = torch.full_like(left, math.nan)
        before[self.order[1:]] = torch.where(self.same, left[self.order[:-1]], math.nan)
        name = f"what is left of another row of its {self.column}"
        return name, before, torch.zeros_like(left), "none"


def _explains(
    name: str, value: Tensor, chance: Tensor, where: str, mend: str, site: str, lead: str = "mean"
) -> Statistic:
    """What something explains of the data, ``(1,)``, and of replicates, ``(S,)``."""
    distance = beyond_chance(value[0], chance)
    return Statistic(
        name,
        "of what is left open",
        LIMITS,
        value.item(),
        chance,
        distance=distance,
        where=where,
        mend=mend,
        site=site,
        lead=LEADS.index(lead),
    )


def _correlates(name: str, seen: float, drawn: Tensor, mend: str, site: str) -> Statistic:
    """How alike rows of the data are, and of replicates, ``(S,)``."""
    return Statistic(
        name,
        "of correlation",
        LIMITS,
        _above(seen, drawn),
        drawn,
        where=f"of the data {seen:.2f}, made {drawn.mean():.2f}",
        mend=mend,
        site=site,
        lead=LEADS.index("mean"),
    )


def _above(seen: float, drawn: Tensor) -> float:
    """A correlation of the data; that of replicates if less, where these are alike themselves.

    What is shared by few rows, as the level of a patient, follows them, and what is left of them
    goes apart. Of their replicates what is left has in common what the posterior leaves open.
    """
    made = drawn.mean().item()
    return max(seen, made) if made > SHARED else seen


def _odds(share: Tensor) -> Tensor:
    """What is explained, in units of what is left."""
    return share / (1 - share).clamp_min(1e-12)
