"""Pure functions of rows in an order: whether they come back, and are alike as they follow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.inference.estimators.contrasts import LEVELS

LEAST_ROWS = 50
LEAST_TURNS = 3  # what comes back less often is a curve
MOST_FREQUENCIES = 1000
MOST_NUMBERS = 5_000_000  # that the waves may take
HARMONICS = 4  # by so many times a wave's length whole periods are looked for


@dataclass(frozen=True)
class Waves:
    """Sines and cosines along a number, each pair without what is constant.

    Attributes:
        functions: Pairs of orthonormal functions of the rows, ``(N, 2, F)``; 0 where the number is
            missing.
        periods: The length of each wave, in the number's own unit, ``(F,)``.
        turns: How often each turns from one row to the next, on average, ``(F,)``.
        order: Rows in the order of the number, those where it is missing left out.
        whole: Whether the number is a whole one, such as a day.
    """

    functions: Tensor
    periods: Tensor
    turns: Tensor
    order: Tensor
    whole: bool

    def power(self, x: Tensor) -> Tensor:
        r"""Share of the variance of rows that each wave explains by least squares, ``(S, F)``.

        Args:
            x: Replicates, ``(S, N, E)``, with mean 0 over rows; the mean over elements is given.

        Reference:
            Lomb (1976), https://doi.org/10.1007/BF00648343; with a mean that is fitted too, as in
            Zechmeister and Kürster (2009), https://doi.org/10.1051/0004-6361:200811296
        """
        waves = self.functions.flatten(1)
        sizes = torch.einsum("nw,sne->swe", waves, x).square().unflatten(1, (2, -1)).sum(1)
        return (sizes / x.square().sum(1)[:, None].clamp_min(1e-24)).mean(2)

    def peaks(self, x: Tensor) -> Tensor:
        r"""The power of each wave, less by what rows that are like the last have there, ``(S, F)``.

        Such rows wander slowly, and slow waves follow them though nothing comes back. Their
        spectrum is :math:`(1 - r^2) / (1 + r^2 - 2 r \cos 2 \pi f)` of that of rows that know
        nothing of each other, where :math:`r` is the correlation of each row with the next, of what
        the strongest wave leaves. Power is divided by it where it is above 1.

        Args:
            x: As for :meth:`power`.

        Reference:
            Mann and Lees (1996), section 2, https://doi.org/10.1007/BF00142586
        """
        power = self.power(x)
        strongest = self.functions[:, :, power.argmax(1)]
        followed = torch.einsum("ncs,sne->sce", strongest, x)
        left = x - torch.einsum("ncs,sce->sne", strongest, followed)
        r = neighbours(left[:, self.order]).clamp(0, 0.99)[:, None]
        red = (1 - r**2) / (1 + r**2 - 2 * r * (2 * torch.pi * self.turns).cos())
        return power / red.clamp_min(1)

    def period(self, wave: int) -> tuple[float, int]:
        """What a wave is a part of: how long that is, and how often the wave turns within it.

        What comes back every seven days but is no sine is also followed by waves of 7/2 days. Of a
        whole number the period is a whole multiple of the wave's length, if one is near.
        """
        length = self.periods[wave].item()
        if self.whole:
            for times in range(1, HARMONICS + 1):
                near = round(times * length)
                # By how much lengths of neighbouring waves differ.
                apart = times * length / (2 * LEAST_TURNS + wave)
                if near > 1 and abs(times * length - near) <= apart:
                    return float(near), times
        return length, 1


def waves_along(values: Tensor) -> Waves | None:
    """Waves that turn three times along a number and more, at most half as often as it has values.

    Args:
        values: Of each row, ``(N,)``, NaN where it is missing.

    Returns:
        None if the number has no more than 20 values, or of fewer than 50 rows.
    """
    values = values.double()
    known = ~values.isnan()
    levels = values[known].unique()
    if len(levels) <= LEVELS or int(known.sum()) < LEAST_ROWS:
        return None
    most = min(MOST_FREQUENCIES, len(levels) // 2, MOST_NUMBERS // (4 * len(values)))
    # Whole turns alone would miss half the power of what turns half as often between them.
    turns = torch.arange(LEAST_TURNS, most + 1, 0.5, dtype=torch.float64)
    if not len(turns):
        return None
    length = (levels[-1] - levels[0]) * len(levels) / (len(levels) - 1)
    phase = 2 * torch.pi * (values.nan_to_num() - levels[0])[:, None] * turns / length
    cosine, sine = (_without_mean(of(phase), known) for of in (torch.cos, torch.sin))
    cosine = _unit(cosine)
    sine = _unit(sine - cosine * (cosine * sine).sum(0))
    whole = bool((levels == levels.round()).all())
    order = values.argsort(stable=True)[: int(known.sum())]  # what is missing stands last
    each = turns / len(order)
    return Waves(torch.stack([cosine, sine], 1), length / turns, each, order, whole)


def neighbours(x: Tensor, which: Tensor | None = None) -> Tensor:
    """Correlation of each row with the next, the mean over elements, ``(S,)``.

    Args:
        x: Replicates less what is expected of each row, ``(S, N, E)``; 0 where missing.
        which: Of which rows but the last, ``(N - 1,)``; by default of all.
    """
    away = x - x.mean(1, keepdim=True)
    products = away[:, 1:] * away[:, :-1]
    if which is not None:
        products = products[:, which] * ((x.shape[1] - 1) / which.sum())
    alike = products.sum(1) / away.square().sum(1).clamp_min(1e-24)
    return alike.mean(1)


def _without_mean(function: Tensor, known: Tensor) -> Tensor:
    weight = known.double()[:, None]
    return weight * (function - (weight * function).sum(0) / weight.sum())


def _unit(function: Tensor) -> Tensor:
    """Of length 1; 0 where nothing but rounding is left, as of a sine that is 0 in all rows."""
    length = function.norm(dim=0)
    return torch.where(length > 1e-6, function / length.clamp_min(1e-12), 0.0)
