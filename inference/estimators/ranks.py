"""Pure functions of truths and of a posterior's draws: whether the one looks like the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

POINTS = 50  # at which the distribution of ranks is held against its band
SIMULATIONS = 1000  # of uniform ranks, for the band
LEVELS = (0.5, 0.8, 0.9, 0.95)
_NORMAL_QUARTILE = 0.6745


def ranks(truth: Tensor, draws: Tensor, generator: torch.Generator | None = None) -> Tensor:
    r"""Where each truth lies among the draws of its posterior, from 0 to 1.

    .. math:: u = \frac{\#\{s : z_s < z\} + v \, (1 + \#\{s : z_s = z\})}{S + 1},
        \qquad v \sim \mathrm{Uniform}(0, 1)

    If a truth and its data come from the model, and the draws from the exact posterior of the data,
    truth and draws can change places, and :math:`u` is uniform whatever :math:`S` is, for discrete
    latents as well.

    Args:
        truth: Shape ``(R, D)``: so many truths of so many scalars.
        draws: Shape ``(S, R, D)``.
        generator: Of the chance that decides where draws equal the truth.

    Returns:
        Ranks, shape ``(R, D)``, in double precision.

    Raises:
        ValueError: If the shapes do not fit, there are no draws, or a value is NaN.

    Reference:
        Talts et al. (2018), theorem 1, https://arxiv.org/abs/1804.06788
    """
    _check(truth, draws, least=1)
    below = (draws < truth).sum(0).double()
    equal = (draws == truth).sum(0).double()
    chance = torch.rand(truth.shape, generator=generator, dtype=torch.float64).to(below.device)
    return (below + chance * (1 + equal)) / (len(draws) + 1)


def scores(truth: Tensor, draws: Tensor) -> Tensor:
    r"""How far each truth lies from the mean of its draws, in their standard deviations.

    .. math:: \frac{z - \bar z}{s \, \sqrt{1 + 1/S}}

    The root makes up for a mean of :math:`S` draws. Of an exact, normal posterior it follows a t
    law of :math:`S - 1` degrees of freedom.

    Args:
        truth: Shape ``(R, D)``.
        draws: Shape ``(S, R, D)``, at least 2 draws.

    Returns:
        Shape ``(R, D)``; NaN where all draws are equal.

    Raises:
        ValueError: If the shapes do not fit, there are too few draws, or a value is NaN.
    """
    _check(truth, draws, least=2)
    deviation, mean = torch.std_mean(draws.double(), 0)
    few = (1 + 1 / len(draws)) ** 0.5
    return torch.where(deviation > 0, (truth - mean) / (deviation * few), torch.nan)


@dataclass(frozen=True)
class Uniformity:
    """How far the distribution of ranks is from the uniform one.

    Attributes:
        distance: Largest difference of the two distribution functions, ``(D,)``.
        p_value: How often uniform ranks are as far from their law, ``(D,)``.
        grid: Where the functions are drawn, ``(G,)``.
        ecdf: The share of ranks up to there, ``(G, D)``.
        lower: The simultaneous band of uniform ranks, ``(G,)``.
        upper: The same from above.
    """

    distance: Tensor
    p_value: Tensor
    grid: Tensor
    ecdf: Tensor
    lower: Tensor
    upper: Tensor


def from_uniform(ranks: Tensor) -> Tensor:
    r"""Largest difference of the distribution function of ranks from the uniform one.

    A wrong scale, by a factor :math:`f`, of a normal posterior gives about
    :math:`0.24 \, |\log f|` (0.055 for 0.8), a shift by :math:`b` standard deviations
    :math:`2 \Phi(b / 2) - 1` (0.10 for 0.25).

    Args:
        ranks: From 0 to 1, shape ``(R, D)``.

    Returns:
        Shape ``(D,)``, from 0 to 1: an effect that does not grow with the number of ranks.
    """
    ordered = ranks.double().cpu().sort(0).values
    steps = torch.arange(len(ranks) + 1, dtype=torch.float64)[:, None] / len(ranks)
    return torch.maximum(steps[1:] - ordered, ordered - steps[:-1]).amax(0)


def uniformity(ranks: Tensor, *, level: float = 0.95, seed: int = 0) -> Uniformity:
    r"""Hold the distribution of ranks against the uniform one.

    The p-value of the distance, :func:`from_uniform`, is exact; the band is that within which the
    ECDF of uniform ranks stays everywhere, in a share ``level`` of cases.

    Args:
        ranks: From 0 to 1, shape ``(R, D)``.
        level: Probability that uniform ranks keep within the band.
        seed: Of the simulations that the band is found by.

    Raises:
        ValueError: If there are no ranks, or some are outside 0 to 1.

    References:
        The p-value: Kolmogorov's, by ``scipy.stats.kstwo``. The band: Säilynoja et al. (2022),
        section 2, https://arxiv.org/abs/2103.10522, by ArviZ.
    """
    from arviz_stats.ecdf_utils import get_pointwise_confidence_band, simulate_confidence_bands
    from scipy.stats import kstwo

    if ranks.ndim != 2 or not ranks.numel() or not ((ranks >= 0) & (ranks <= 1)).all():
        raise ValueError(
            f"ranks must be numbers from 0 to 1 of shape (R, D), got {tuple(ranks.shape)} with "
            "others, or none"
        )
    count, scalars = ranks.shape
    ordered = ranks.double().cpu().T.contiguous().sort(1).values
    grid = torch.arange(1, POINTS + 1, dtype=torch.float64) / (POINTS + 1)
    below = torch.searchsorted(ordered, grid.repeat(scalars, 1), right=True)
    given = grid.numpy()
    random = np.random.default_rng(seed)
    inside = simulate_confidence_bands(count, 1, given, level, SIMULATIONS, random)
    lower, upper = get_pointwise_confidence_band(inside, count, given)
    distance = from_uniform(ranks)
    return Uniformity(
        distance,
        torch.as_tensor(kstwo.sf(distance, count)),
        grid,
        below.T.double() / count,
        torch.as_tensor(lower),
        torch.as_tensor(upper),
    )


def asymmetry(ranks: Tensor) -> tuple[Tensor, Tensor]:
    r"""How far ranks :math:`u` lie to one side: the distance of their law from that of 1 - u.

    Where a posterior is found by a family too narrow or too wide for it, but without bias, ranks
    are not uniform and yet symmetric; asymmetric ones say that the draws lie to one side. The
    p-value is not that of two independent samples, which these are not and which would cry wolf:
    of symmetric ranks the signs of :math:`u - 1/2` are tosses of a coin, and the distance is the
    farthest that their sum gets from 0. It errs upwards where it is large.

    Args:
        ranks: From 0 to 1, shape ``(R, D)``.

    Returns:
        Largest difference of the two distribution functions, and its p-value, ``(D,)`` each.

    References:
        Yao et al. (2018), section 4.2, https://arxiv.org/abs/1802.02538; the p-value: Butler
        (1969), https://doi.org/10.1214/aoms/1177697302, by the reflection principle
    """
    from scipy.stats import binom

    away = ranks.double().cpu() - 0.5
    outermost = away.abs().argsort(0, descending=True)
    farthest = away.sign().gather(0, outermost).cumsum(0).abs().amax(0)
    count, heads = len(ranks), (len(ranks) + farthest) / 2
    ends = binom.sf(heads.ceil() - 1, count, 0.5) + binom.sf(heads.floor(), count, 0.5)
    return farthest / count, torch.as_tensor(2 * ends).clamp(max=1.0)


def coverage(ranks: Tensor, levels: Sequence[float] = LEVELS) -> tuple[Tensor, Tensor]:
    r"""How many truths the central intervals of the draws hold, and the error of that by chance.

    An interval of level :math:`c` holds a truth if :math:`|u - 1/2| \le c/2` of its rank
    :math:`u`: so no interval has to be estimated from few draws.

    Args:
        ranks: From 0 to 1, shape ``(R, D)``.
        levels: Of the intervals, between 0 and 1.

    Returns:
        Shares, shape ``(L, D)``, and the standard error of each, shape ``(L,)``, if the level
        were kept: :math:`\sqrt{c (1 - c) / R}`.

    Raises:
        ValueError: If a level is not between 0 and 1.
    """
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels must be between 0 and 1, got {tuple(levels)}")
    asked = torch.as_tensor(levels, dtype=torch.float64)
    held = (2 * ranks.double().cpu() - 1).abs() <= asked[:, None, None]
    return held.double().mean(1), (asked * (1 - asked) / len(ranks)).sqrt()


def bias(scores: Tensor) -> Tensor:
    """How far the truths lie from the draws in the middle: the median score, ``(R, D)`` to ``(D,)``

    In standard deviations of the posterior: above 0, the draws are too low. Medians are not moved
    by the few rows whose draws are far too narrow. NaN where no row has a score.
    """
    return scores.nanmedian(0).values


def width(scores: Tensor) -> Tensor:
    """Scale of the draws beside the right one, by the median score, ``(R, D)`` to ``(D,)``.

    1 for an exact, normal posterior; 0.5 where the draws are too narrow by half, 2 where they are
    twice too wide. NaN where no row has a score.
    """
    return _NORMAL_QUARTILE / (scores - bias(scores)).abs().nanmedian(0).values


def _check(truth: Tensor, draws: Tensor, least: int) -> None:
    if truth.ndim != 2 or draws.shape[1:] != truth.shape or len(draws) < least:
        raise ValueError(
            f"truth must have shape (R, D) and draws (S, R, D) with S at least {least}, got "
            f"{tuple(truth.shape)} and {tuple(draws.shape)}"
        )
    if truth.isnan().any() or draws.isnan().any():
        raise ValueError("truth and draws must be numbers, got NaN")
