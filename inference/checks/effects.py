"""What the observations owe to what a story is given: does it make that as it is in the data?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.inference.checks.statistic import Limits, Statistic
from ppl_gen.inference.estimators.contrasts import (
    Contrast,
    centred,
    contrasts_of,
    effects,
    explained,
)
from ppl_gen.inference.estimators.replicates import FEW_ELEMENTS, neighbours

LIMITS: Limits = (0.15, 0.4)
# Rows may be sorted, and alike for that: it never fails.
LEAST_IN_A_ROW = 50
NEIGHBOURS: Limits = (0.15, math.inf)


@dataclass
class Effects:
    """How an observed site goes with each number that the story is given, and with two of them.

    They may do so in the ways of :func:`ppl_gen.inference.estimators.contrasts.contrasts_of`: their
    mean, and by one number their scatter about it. A distance is a root mean square over rows, in
    deviations of what the numbers leave open: what an effect that the story lacks would explain.

    Attributes:
        site: The name of the site.
        data: Rows of numbers, ``(N, E)``, NaN where nothing counts; of more than 20 their means.
        contrasts: The ways in which they may differ.
        scatters: Whether scatter is looked at, which of zeros and ones follows from the mean.
        follows: Whether latents of each row follow the data: what is expected of a row is then no
            measure of what is left open, and is not taken away first.
        drawn: Effects of replicates, and of their scatter, by contrast.
        expected: What replicates are on average, ``(N, E)``, or zero.
        alike: How much rows of replicates that follow each other are alike, ``(S,)`` each, where
            rows have nothing of their own to be alike by.
    """

    site: str
    data: Tensor
    contrasts: list[Contrast]
    scatters: bool
    follows: bool
    drawn: list[list[tuple[Tensor, Tensor]]]
    expected: Tensor | None = None
    alike: list[Tensor] | None = None

    @classmethod
    def of(
        cls,
        site: str,
        data: Tensor,
        columns: Mapping[str, Tensor],
        follows: bool,
        ordered: bool = False,
    ) -> Effects:
        """Of rows ``(N, E)`` of a site, by the columns that the story is given.

        Args:
            site: Its name.
            data: The rows.
            columns: What the story is given of them, by name.
            follows: See the attribute.
            ordered: Whether rows that follow each other are to be compared.
        """
        rows = _condensed(data)
        known = rows[~rows.isnan()]
        scatters = not bool(((known == 0) | (known == 1)).all())
        found = contrasts_of(columns)
        alike: list[Tensor] | None = [] if ordered and len(rows) > LEAST_IN_A_ROW else None
        return cls(site, rows, found, scatters, follows, [[] for _ in found], alike=alike)

    def take(self, drawn: Tensor) -> None:
        """Add replicates, ``(S, N, E)``."""
        if not self.contrasts and self.alike is None:
            return
        rows = torch.where(self.data.isnan(), torch.nan, _condensed(drawn)).double()
        expected = self.expected
        if expected is None:
            self.expected = expected = self._first_expected(rows)
            if not self.follows and len(rows) > 1:  # each is held against the others alone
                expected = (len(rows) * expected - rows) / (len(rows) - 1)
        rows = centred(rows - expected)
        for contrast, found in zip(self.contrasts, self.drawn, strict=True):
            found.append(effects(rows, contrast))
        if self.alike is not None:
            self.alike.append(neighbours(rows))

    def _first_expected(self, rows: Tensor) -> Tensor:
        if self.follows or len(rows) == 1:
            return torch.zeros_like(rows[0])
        return rows.mean(0)

    def statistics(self) -> list[Statistic]:
        """All of them, in words that say where the data lie farthest from what the story makes."""
        if self.expected is None:
            return []
        own, found = centred((self.data - self.expected)[None]), []
        for contrast, drawn in zip(self.contrasts, self.drawn, strict=True):
            both = self.scatters and len(contrast.names) == 1
            observed = effects(own, contrast)
            for i, name in enumerate(("mean", "scatter") if both else ("mean",)):
                replicated = torch.cat([each[i] for each in drawn])
                value, chance, away = explained(observed[i][0], replicated)
                beyond = (value.square() - chance.square().mean()).clamp_min(0).sqrt().item()
                found.append(
                    Statistic(
                        f"{name} of {self.site} {contrast.name}",
                        "of what is left open",
                        LIMITS,
                        value.item(),
                        chance,
                        distance=beyond,
                        where=_farthest(away, contrast, name),
                        mend=_lacking(name, self.site, contrast),
                        site=self.site,
                    )
                )
        if self.alike:
            seen, made = neighbours(own).item(), torch.cat(self.alike)
            found.append(
                Statistic(
                    f"correlation of rows of {self.site} that follow each other",
                    "of correlation",
                    NEIGHBOURS,
                    seen,
                    made,
                    where=f"of the data {seen:.2f}, made {made.mean():.2f}",
                    mend="If rows have an order, as time gives them, let the story know of it; if "
                    "they were sorted, this says nothing.",
                    site=self.site,
                )
            )
        return found


def _condensed(rows: Tensor) -> Tensor:
    """Rows of numbers, or where there are more than 20 the mean of each."""
    return rows if rows.shape[-1] <= FEW_ELEMENTS else rows.nanmean(-1, keepdim=True)


def _farthest(away: Tensor, contrast: Contrast, name: str) -> str:
    """Where the data lie farthest from what the story makes."""
    function, element = divmod(int(away.abs().argmax()), away.shape[1])
    size = away[function, element].item() / contrast.shares[function].item() ** 0.5
    words = {
        "scatter": ("more", "less"),
        "slopes": ("steeper", "less steep"),
        "product": ("more", "less"),
    }.get(contrast.kind if name == "mean" else name, ("higher", "lower"))
    return f"{contrast.labels[function]}: the data {abs(size):.2g} {words[size < 0]}"


def _lacking(name: str, site: str, contrast: Contrast) -> str:
    """What a story lacks whose data go otherwise with what it is given."""
    one, *others = contrast.names
    if name == "scatter":
        return f"Let the scale of {site} depend on {one}."
    if contrast.kind == "slopes":
        return f"Let each {one} have a slope of its own, by which {site} follows {others[0]}."
    if contrast.kind == "product":
        return f"Let {one} and {others[0]} work on {site} together, as by their product."
    if contrast.kind == "groups":
        return f"Let each {one} have a level of {site} of its own."
    return f"Let {site} follow {one} in another way, as on a curve, if it does at all."
