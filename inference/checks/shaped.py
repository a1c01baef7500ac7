"""Whether what is left of the observations has the shape that its law has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.inference.checks.statistic import LEADS, Limits, Statistic
from ppl_gen.inference.estimators.replicates import beyond_chance, shape, typical_distance

SKEW: Limits = (0.07, 0.2)
TAILS: Limits = (0.04, 0.15)


@dataclass(frozen=True)
class Shaped:
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
