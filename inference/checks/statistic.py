"""Statistics of data beside those of replicates, tested together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.inference.estimators.replicates import replicate_test
from ppl_gen.inference.verdict import Status, grade

CHANCE = 0.05

Limits = tuple[float, float]

# Kinds of statistics by how surely one tells what a story lacks: it shows in those after it, too.
LEADS = ("heap", "level", "step", "mean", "link", "scatter", "skewness", "tails", "zeros", "")


@dataclass(frozen=True)
class Statistic:
    """A statistic of the data and of replicates.

    Attributes:
        name: Which it is.
        unit: Of its distance, in words.
        limits: Up to which distance it passes, and warns.
        observed: Of the data.
        replicated: Of replicates, ``(S,)``.
        size: What a distance of 1 is.
        distance: Where it is another than that of ``observed`` from the mean of ``replicated``.
        where: Where the data lie farthest off, in words, of what tells no direction itself.
        mend: What a story lacks where it is far off, if that follows from the statistic alone.
        site: The observed site that it is of.
        lead: How many kinds tell more surely than it what a story lacks, see :data:`LEADS`.
    """

    name: str
    unit: str
    limits: Limits
    observed: float
    replicated: Tensor
    size: float = 1.0
    distance: float | None = None
    where: str = ""
    mend: str = ""
    site: str = ""
    lead: int = len(LEADS) - 1

    @property
    def is_finite(self) -> bool:
        """Whether it is known of the data and of all replicates."""
        return math.isfinite(self.observed) and bool(self.replicated.isfinite().all())


@dataclass(frozen=True)
class Compared:
    """How far a statistic of the data lies from that of replicates, and how often chance does.

    Attributes:
        chance: Within what distances from their mean 95 % of the replicates lie, from below and
            from above; NaN if that is not known.
    """

    name: str
    unit: str
    limits: Limits
    observed: float
    replicated: float
    distance: float
    p_value: float
    chance: tuple[float, float] = (math.nan, math.nan)
    where: str = ""
    mend: str = ""
    site: str = ""
    lead: int = len(LEADS) - 1

    @property
    def told(self) -> str:
        """It, in words that say how the data and what the story makes differ."""
        if self.where:
            return f"{self.name} ({self.where})"
        if self.unit == "nats":  # the logarithm of a ratio
            return f"{self.name} ({math.exp(self.replicated):.2g} times that of the data)"
        return f"{self.name} ({self.replicated:.3g}, of the data {self.observed:.3g})"

    @property
    def status(self) -> Status:
        """What its distance is worth, if it is not by chance."""
        return "pass" if self.p_value >= CHANCE else grade(self.distance, *self.limits)


def compared(families: list[list[Statistic]], inflation: float = 1.0) -> list[Compared]:
    """Test statistics so that their number is allowed for.

    Those of a family together; p-values are multiplied by the number of families.
    """
    found = []
    for family in families:
        test = replicate_test(
            torch.tensor([s.observed for s in family], dtype=torch.float64),
            torch.stack([s.replicated.double() for s in family], 1),
            torch.tensor([s.size for s in family], dtype=torch.float64),
            inflation,
        )
        p_values = (test.p_value * len(families)).clamp(max=1.0)
        found += [
            Compared(
                s.name,
                s.unit,
                s.limits,
                s.observed,
                s.replicated.double().mean().item(),
                distance if s.distance is None else s.distance,
                p_value,
                _chance(s, inflation),
                s.where,
                s.mend,
                s.site,
                s.lead,
            )
            for s, distance, p_value in zip(
                family, test.distance.tolist(), p_values.tolist(), strict=True
            )
        ]
    return found


def _chance(statistic: Statistic, inflation: float) -> tuple[float, float]:
    drawn = statistic.replicated.double()
    apart = inflation * (drawn - drawn.mean()) / statistic.size
    low, high = apart.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
