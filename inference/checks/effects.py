"""What the story leaves of the observations: does it still owe anything to what is known?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ppl_gen.inference.checks.statistic import LEADS, Limits, Statistic
from ppl_gen.inference.estimators.contrasts import (
    FIFTHS,
    LEVELS,
    NORMAL,
    Contrast,
    centred,
    contrasts_of,
    effects,
    explained,
)
from ppl_gen.inference.estimators.replicates import (
    FEW_ELEMENTS,
    beyond_chance,
    shape,
    typical_distance,
)
from ppl_gen.inference.estimators.rhythms import LEAST_ROWS, Waves, neighbours, waves_along

LIMITS: Limits = (0.15, 0.4)
SKEW: Limits = (0.07, 0.2)
TAILS: Limits = (0.04, 0.15)
SEVERAL, ALONE = 4, 0.75  # groups of which one may be told alone, and its share of what is off
SHOWN = 400  # rows in a picture
AGAINST, LEFT, MEANT = "drawn against ", "left of ", "marked rows: "
BEFORE = " of the row before"
IN_FILE = "in the order of the data"
# What is left of a row has at least this share of the size that it has of all.
LEAST_SCALE = 0.1


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


@dataclass
class Effects:
    """What a story leaves of an observed site, and how that goes with what it was given.

    A row is looked at less its mean over replicates, and of real numbers in units of their
    deviation there, as Pearson's residuals are. What is left may go with each number that the story
    is given, or with two of them, in the ways of
    :func:`ppl_gen.inference.estimators.contrasts.contrasts_of`: in its mean, or by one number in
    its scatter; and with that of the row before. It may come back along a number, or be alike where
    this is, and its law may have other tails than that of the replicates. Distances of effects are
    root mean squares over rows, in deviations of what the numbers leave open: what an effect that
    the story lacks would explain.

    Attributes:
        site: The name of the site.
        data: Rows of numbers, ``(N, E)``, NaN where nothing counts; of more than 20 their means.
        looks: The ways in which they may differ.
        follows: Whether latents of each row follow the data: what is expected of a row is then no
            measure of what is left open, and is not taken away first.
        scaled: Whether each row has a unit of its own.
        drawn: What each look shows in replicates.
        shown_by: Which look each statistic is of, once they were asked for.
        expected: What the first replicates are on average, ``(N, E)``, or zero.
        scale: Their deviation, ``(N, E)``, or one.
    """

    site: str
    data: Tensor
    looks: Sequence[Look]
    follows: bool
    scaled: bool
    drawn: list[list[Tensor]]
    shown_by: dict[str, int] = field(default_factory=dict)
    expected: Tensor | None = None
    scale: Tensor = field(default_factory=lambda: torch.ones(()))

    @classmethod
    def of(
        cls,
        site: str,
        data: Tensor,
        columns: Mapping[str, Tensor],
        follows: bool,
        order: Tensor | None = None,
        names: Sequence[str] = (),
    ) -> Effects:
        """Of rows ``(N, E)`` of a site, by the columns that the story is given.

        Args:
            site: Its name.
            data: The rows.
            columns: What the story is given of them, by name.
            follows: See the attribute.
            order: Where each row stands in its source, ``(N,)``, if that is to be looked at.
            names: What its numbers are called.
        """
        rows = _condensed(data)
        known = rows[~rows.isnan()]
        whole = bool((known == known.round()).all())
        scatters = not bool(((known == 0) | (known == 1)).all())
        contrasts = contrasts_of(columns)
        before = {} if follows else _of_the_row_before(columns, order)
        for name, values in before.items():
            contrasts += contrasts_of({name: values})
        given = {**columns, **before}
        looks: list[Look] = [_Differs(c, scatters, given[c.names[-1]]) for c in contrasts]
        if not follows:
            orders = {f"along {name}": values for name, values in columns.items()}
            if order is not None:
                first = order.argsort()
                if not any(bool((v[first].diff() >= 0).all()) for v in columns.values()):
                    orders[IN_FILE] = order
            for name, values in orders.items():
                looks += _along(name, values)
        if not follows and not whole and rows is data and len(rows) >= LEAST_ROWS:
            looks.append(_Shaped(names, rows.isnan()))
        scaled = not follows and not whole
        return cls(site, rows, looks, follows, scaled, [[] for _ in looks])

    def take(self, drawn: Tensor) -> None:
        """Add replicates, ``(S, N, E)``."""
        if not self.looks:
            return
        rows = torch.where(self.data.isnan(), torch.nan, _condensed(drawn)).double()
        left = self._first_left(rows) if self.expected is None else self._left(rows)
        for look, found in zip(self.looks, self.drawn, strict=True):
            found.append(look.of(centred(left)))

    def _left(self, rows: Tensor) -> Tensor:
        return (rows - self.expected) / self.scale

    def _first_left(self, rows: Tensor) -> Tensor:
        """What is left of the first replicates, each held against the others alone."""
        count = len(rows)
        if self.follows or count < 3:
            self.expected = torch.zeros_like(rows[0])
            return rows
        self.expected = rows.mean(0)
        away = (rows - self.expected) * (count / (count - 1))
        if not self.scaled:
            return away
        far = NORMAL * away.abs()
        total = far.sum(0)
        # A law of several sizes, of which the smallest is next to nothing, has no unit there.
        least = LEAST_SCALE * (total / count).square().nanmean().sqrt().clamp_min(1e-12)
        self.scale = (total / count).clamp_min(least)
        return away / ((total - far) / (count - 1)).clamp_min(least)

    def statistics(self) -> list[Statistic]:
        """All of them, in words that say where the data lie farthest from what the story makes."""
        if self.expected is None:
            return []
        own, found = centred(self._left(self.data.double())[None]), []
        for i, (look, drawn) in enumerate(zip(self.looks, self.drawn, strict=True)):
            statistics = look.compared(self.site, look.of(own), torch.cat(drawn))
            self.shown_by.update({statistic.name: i for statistic in statistics})
            found += statistics
        return found

    def picture(self, statistic: str) -> dict[str, list[float]]:
        """What is left of up to 400 rows, and what it goes with, where a statistic shows that.

        In standard deviations of what is left, and as details of a finding: the place of each row
        along what is named, what is left there, and whether the row is one that is meant.
        """
        if statistic not in self.shown_by:
            return {}
        place = self.shown_by[statistic]
        look, own = self.looks[place], centred(self._left(self.data.double())[None])
        left = own[0].mean(1)
        found = look.against(look.of(own), torch.cat(self.drawn[place]), left)
        if found is None:
            return {}
        name, x, meant, called = found
        seen = (~x.isnan() & ~self.data.isnan().all(1)).nonzero().flatten()
        some = seen[torch.linspace(0, len(seen) - 1, min(SHOWN, len(seen))).round().long()]
        left = left / left[seen].square().mean().sqrt().clamp_min(1e-12)
        values = {f"{AGAINST}{name}": x, f"{LEFT}{self.site}": left, f"{MEANT}{called}": meant}
        return {
            key: [float(f"{number:.5g}") for number in value[some].tolist()]
            for key, value in values.items()
        }


@dataclass(frozen=True)
class _Differs:
    """Mean and scatter may differ by what is given."""

    contrast: Contrast
    scatters: bool
    values: Tensor

    def of(self, x: Tensor) -> Tensor:
        return torch.stack(effects(x, self.contrast), 1)

    def compared(self, site: str, own: Tensor, drawn: Tensor) -> list[Statistic]:
        found = []
        both = self.scatters and len(self.contrast.names) == 1
        for i, name in enumerate(("mean", "scatter") if both else ("mean",)):
            value, chance, away = explained(own[0, i], drawn[:, i])
            found.append(
                Statistic(
                    f"{name} of {site} {self.contrast.name}",
                    "of what is left open",
                    LIMITS,
                    value.item(),
                    chance,
                    distance=beyond_chance(value, chance),
                    where=_farthest(away, self.contrast, name),
                    mend=_lacking(name, site, self.contrast) + _alone(away, self.contrast),
                    site=site,
                    lead=LEADS.index(name),
                )
            )
        return found

    def against(self, own: Tensor, drawn: Tensor, left: Tensor) -> Drawn:
        meant, called = torch.zeros_like(left), "none"
        if self.contrast.kind in ("groups", "slopes"):
            worst = int((own[0, 0] - drawn[:, 0].mean(0)).abs().amax(1).argmax())
            meant = (self.contrast.functions[:, worst] != 0).double()
            called = self.contrast.labels[worst]
        return self.contrast.names[-1], self.values, meant, called


@dataclass(frozen=True)
class _ComesBack:
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
class _Follows:
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


@dataclass(frozen=True)
class _Shaped:
    """The law of what is left may be skewed, or have other tails."""

    names: Sequence[str]
    missing: Tensor

    def of(self, x: Tensor) -> Tensor:
        return shape(torch.where(self.missing, torch.nan, x))

    def compared(self, site: str, own: Tensor, drawn: Tensor) -> list[Statistic]:
        found, units = [], torch.ones(own.shape[2])
        for i, (name, limits) in enumerate((("skewness", SKEW), ("tails", TAILS))):
            value, chance = typical_distance(own[0, i], drawn[:, i], units)
            away = own[0, i] - drawn[:, i].mean(0)
            worst = int(away.abs().argmax())
            whose = f"{self.names[worst]}: " if len(away) > 1 and self.names else ""
            seen, made = own[0, i, worst].item(), drawn[:, i, worst].mean().item()
            found.append(
                Statistic(
                    f"{name} of {site} about what is expected",
                    f"of L-{'kurtosis' if i else 'skewness'}",
                    limits,
                    value.item(),
                    chance,
                    distance=beyond_chance(value, chance),
                    where=f"{whose}of the data {seen:.2f}, made {made:.2f}",
                    mend=_other_law(name, site, seen > made),
                    site=site,
                    lead=LEADS.index(name),
                )
            )
        return found

    def against(self, own: Tensor, drawn: Tensor, left: Tensor) -> None:
        return None


def _of_the_row_before(columns: Mapping[str, Tensor], order: Tensor | None) -> dict[str, Tensor]:
    """Each column of the row that stands before, NaN where that is not at hand.

    What happened yesterday may be what acts today.
    """
    if order is None:
        return {}
    places = order.argsort()
    follows = order[places].diff() == 1
    found = {}
    for name, values in columns.items():
        before = torch.full_like(values, math.nan, dtype=torch.float64)
        ordered = values[places].double()
        before[places[1:]] = torch.where(follows, ordered[:-1], math.nan)
        found[f"{name}{BEFORE}"] = before
    return found


def _along(name: str, values: Tensor) -> list[Look]:
    """Looks along a number that puts the rows in an order."""
    known = values[~values.isnan()] if values.is_floating_point() else values
    if len(known) < LEAST_ROWS or len(known.unique()) <= LEVELS:
        return []
    waves = waves_along(values)
    looks: list[Look] = [] if waves is None else [_ComesBack(name, waves, values)]
    order = values.argsort(stable=True)[: len(known)]  # what is missing stands last
    return [*looks, _Follows(name, order)]


def _condensed(rows: Tensor) -> Tensor:
    """Rows of numbers, or where there are more than 20 the mean of each."""
    return rows if rows.shape[-1] <= FEW_ELEMENTS else rows.nanmean(-1, keepdim=True)


def _odds(share: Tensor) -> Tensor:
    """What is explained, in units of what is left."""
    return share / (1 - share).clamp_min(1e-12)


def _farthest(away: Tensor, contrast: Contrast, name: str) -> str:
    """Where the data lie farthest from what the story makes; of a curve, how it goes."""
    if contrast.kind == "stretches" and name == "mean" and len(away) == FIFTHS:
        sizes = away[:, away.abs().amax(0).argmax()] / contrast.shares.sqrt()
        told = ", ".join(f"{size:+.2g}" for size in sizes.tolist())
        return f"from the least to the greatest fifth the data lie off by {told}"
    function, element = divmod(int(away.abs().argmax()), away.shape[1])
    size = away[function, element].item() / contrast.shares[function].item() ** 0.5
    words = {
        "scatter": ("more", "less"),
        "slopes": ("higher in slope", "lower in slope"),
        "product": ("more", "less"),
    }.get(contrast.kind if name == "mean" else name, ("higher", "lower"))
    return f"{contrast.labels[function]}: the data {abs(size):.2g} {words[size < 0]}"


def _lacking(name: str, site: str, contrast: Contrast) -> str:
    """What a story lacks whose data go otherwise with what it is given."""
    one, *others = contrast.names
    if one.endswith(BEFORE):
        return f"Let {'the scale of ' * (name == 'scatter')}{site} depend on {one}, too."
    if name == "scatter":
        return f"Let the scale of {site} depend on {one}."
    if contrast.kind == "slopes":
        return f"Let each {one} have a slope of its own, by which {site} follows {others[0]}."
    if contrast.kind == "product":
        return f"Let {one} and {others[0]} work on {site} together, as by their product."
    if contrast.kind == "groups":
        return f"Let each {one} have a level of {site} of its own."
    return f"Let {site} follow {one} in another way, as on a curve that goes as told."


def _alone(away: Tensor, contrast: Contrast) -> str:
    """That a group is the only one to lie far off, if it is one of several."""
    sizes = away.square().sum(1)
    if contrast.kind not in ("groups", "slopes") or len(sizes) < SEVERAL:
        return ""
    worst = int(sizes.argmax())
    if sizes[worst] < ALONE * sizes.sum():
        return ""
    return f" Or see how {contrast.labels[worst]} was recorded: it alone is far off."


def _other_law(name: str, site: str, more: bool) -> str:
    """Which law has the shape that the data have."""
    if name == "skewness":
        way, such = ("above", "LogNormal or Gamma") if more else ("below", "a Gamma's of -x")
        return (
            f"Take a law for {site} with a longer tail {way}, such as {such}, or transform it, as "
            "by its logarithm."
        )
    if more:
        return (
            f"Take a law for {site} with heavier tails, such as StudentT, unless some rows are "
            "mistaken."
        )
    return (
        f"Let {site} hang on what parts its rows, as a group that the story does not know; or take "
        "a law with lighter tails."
    )
