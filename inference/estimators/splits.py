"""Pure functions of rows along a number: whether they jump where it passes some value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MOST_SPLITS = 199
LEAST_PART, LEAST_SIDE = 0.05, 10  # of the rows, and rows, that a side of a split has
PARTS = 5  # of a curve that a step is held against


@dataclass(frozen=True)
class Splits:
    """Where rows may jump, in the order of a number.

    Attributes:
        order: Rows in that order, those where the number is missing left out, ``(n,)``.
        below: How many rows lie below each split, ``(C,)``.
        values: The least number above it, ``(C,)``.
    """

    order: Tensor
    below: Tensor
    values: Tensor

    def steps(self, x: Tensor) -> Tensor:
        """Correlation of rows with a step at each split, up where positive, ``(S, C, E)``.

        Args:
            x: Replicates, ``(S, N, E)``.
        """
        away, size = self._away(x)
        count = len(self.order)
        sums = away.cumsum(1)[:, self.below - 1]
        sides = (self.below * (count - self.below) / count).double().sqrt()
        return -sums / sides[:, None] / size

    def curve(self, x: Tensor) -> Tensor:
        """The root of what levels of five equal parts of the rows explain of them, ``(S, E)``."""
        away, size = self._away(x)
        ends = torch.linspace(0, len(self.order), PARTS + 1).round().long()[1:]
        sums = away.cumsum(1)[:, ends - 1].diff(dim=1, prepend=torch.zeros_like(away[:, :1]))
        counts = ends.diff(prepend=ends.new_zeros(1))
        return (sums.square() / counts[:, None]).sum(1).sqrt() / size[:, 0]

    def _away(self, x: Tensor) -> tuple[Tensor, Tensor]:
        known = x[:, self.order]
        away = known - known.mean(1, keepdim=True)
        return away, away.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)


def splits_along(values: Tensor) -> Splits | None:
    """Up to 199 splits of a number that leave 5 % of the rows, and ten, on either side.

    Args:
        values: Of each row, ``(N,)``, NaN where it is missing.

    Returns:
        None if there is no such split.
    """
    values = values.double()
    count = int((~values.isnan()).sum())
    order = values.argsort(stable=True)[:count]  # what is missing stands last
    ordered = values[order]
    below = 1 + (ordered.diff() > 0).nonzero().flatten()
    least = max(LEAST_SIDE, round(LEAST_PART * count))
    below = below[(below >= least) & (below <= count - least)]
    if not len(below):
        return None
    some = torch.linspace(0, len(below) - 1, min(MOST_SPLITS, len(below))).round().long()
    return Splits(order, below[some], ordered[below[some]])
