"""What the story leaves of the observations: does it still owe anything to what is known?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ppl_gen.inference.checks.differing import Differs
from ppl_gen.inference.checks.look import AGAINST, BEFORE, EXPECTED, LEFT, MEANT, Look
from ppl_gen.inference.checks.ordered import IN_FILE, along, later, new_before, row_before, taken
from ppl_gen.inference.checks.shaped import Shaped
from ppl_gen.inference.checks.statistic import Statistic
from ppl_gen.inference.estimators.contrasts import NORMAL, centred, contrasts_of
from ppl_gen.inference.estimators.replicates import FEW_ELEMENTS
from ppl_gen.inference.estimators.rhythms import LEAST_ROWS

SHOWN = 400  # rows in a picture
# What is left of a row has at least this share of the size that it has of all.
LEAST_SCALE = 0.1
# By which what is expected of rows must differ, in deviations of what is left, to be looked along.
LEAST_SPREAD = 0.3


@dataclass
class Effects:
    """What a story leaves of an observed site, and how that goes with what it was given.

    A row is looked at less its mean over replicates, and of real numbers in units of their
    deviation there, as Pearson's residuals are. What is left may go with each number that the story
    is given, or with two of them, in the ways of
    :func:`ppl_gen.inference.estimators.contrasts.contrasts_of`: in its mean, or by one number in
    its scatter; and with that of rows before. It may jump or come back along a number, or be alike
    where this is, and its law may have other tails than that of the replicates. Distances of
    effects are root mean squares over rows, in deviations of what the numbers leave open: what an
    effect that the story lacks would explain.

    Attributes:
        site: The name of the site.
        data: Rows of numbers, ``(N, E)``, NaN where nothing counts; of more than 20 their means.
        looks: The ways in which they may differ.
        follows: Whether latents of each row follow the data: what is expected of a row is then no
            measure of what is left open, and is not taken away first.
        scaled: Whether each row has a unit of its own.
        scatters: Whether rows have a scatter besides their mean, as 0 and 1 have not.
        drawn: What each look shows in replicates.
        shown_by: Which look each statistic is of, once they were asked for.
        begun: Whether there were replicates.
        expected: What the first replicates are on average, ``(N, E)``, or zero.
        scale: Their deviation, ``(N, E)``, or one.
    """

    site: str
    data: Tensor
    looks: list[Look]
    follows: bool
    scaled: bool
    scatters: bool
    drawn: list[list[Tensor]]
    shown_by: dict[str, int] = field(default_factory=dict)
    begun: bool = False
    expected: Tensor = field(default_factory=lambda: torch.zeros(()))
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
        before = {}
        if order is not None and not follows:  # what happened yesterday may be what acts today
            above = row_before(order, 1)
            both = ((n, v.double(), taken(v, above)) for n, v in columns.items())
            before = {f"{n}{BEFORE}": b for n, v, b in both if new_before(v, b) is not None}
        for name, values in before.items():
            contrasts += contrasts_of({name: values})
        given = {**columns, **before}
        looks: list[Look] = [Differs(c, scatters, given[c.names[-1]]) for c in contrasts]
        if not follows:
            orders = {f"along {name}": values for name, values in columns.items()}
            if order is not None:
                first = order.argsort()
                if not any(bool((v[first].diff() >= 0).all()) for v in columns.values()):
                    orders[IN_FILE] = order
            for name, values in orders.items():
                looks += along(name, values)
            looks += [] if order is None else later(columns, order)
        if not follows and not whole and rows is data and len(rows) >= LEAST_ROWS:
            looks.append(Shaped(names, rows.isnan()))
        scaled = not follows and not whole
        return cls(site, rows, looks, follows, scaled, scatters, [[] for _ in looks])

    def take(self, drawn: Tensor) -> None:
        """Add replicates, ``(S, N, E)``."""
        if self.follows and not self.looks:
            return
        rows = torch.where(self.data.isnan(), torch.nan, _condensed(drawn)).double()
        left = self._left(rows) if self.begun else self._first_left(rows)
        self.begun = True
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
        self._look_along_expected()
        if not self.scaled:
            return away
        far = NORMAL * away.abs()
        total = far.sum(0)
        # A law of several sizes, of which the smallest is next to nothing, has no unit there.
        least = LEAST_SCALE * (total / count).square().nanmean().sqrt().clamp_min(1e-12)
        self.scale = (total / count).clamp_min(least)
        return away / ((total - far) / (count - 1)).clamp_min(least)

    def _look_along_expected(self) -> None:
        """See whether what is left goes with what is expected, if that differs among the rows."""
        if self.data.shape[1] != 1:
            return
        away = (self.data - self.expected)[:, 0]
        if self.expected.std() < LEAST_SPREAD * away[~away.isnan()].std():
            return
        known = torch.where(away.isnan(), torch.nan, self.expected[:, 0])
        for contrast in contrasts_of({EXPECTED: known}):
            if contrast.kind == "stretches":
                self.looks.append(Differs(contrast, self.scatters, known))
                self.drawn.append([])

    def statistics(self) -> list[Statistic]:
        """All of them, in words that say where the data lie farthest from what the story makes."""
        if not self.begun:
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


def _condensed(rows: Tensor) -> Tensor:
    """Rows of numbers, or where there are more than 20 the mean of each."""
    return rows if rows.shape[-1] <= FEW_ELEMENTS else rows.nanmean(-1, keepdim=True)
