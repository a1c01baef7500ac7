"""Pure functions of the iterates of a fit: have they come to rest, and how far are they to go?

A learning rate that does not fall leads to iterates that scatter about the optimum like draws of a
Markov chain, and what is used on chains serves here: R-hat, effective size, Monte Carlo error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Fewest iterates of a window: its halves are compared by their variances.
LEAST = 16
# R-hat up to which iterates are at rest: Dhaka et al. 2020; Welandawe et al. 2022.
AT_REST = 1.1
# How far windows reach back from the end, as shares of all iterates.
REACH = (0.95, 0.75, 0.5, 0.35, 0.2)
# Parts that a window is cut into: their means have little noise left, and are many enough to have
# a spread.
PARTS = 32


def rhat(iterates: Tensor) -> Tensor:
    r"""Split R-hat: by how much the two halves of some iterates differ, against their own spread.

    .. math:: \hat R = \sqrt{\frac{\frac{n - 1}{n} W + \frac{1}{n} B}{W}}

    of the two halves as chains of length :math:`n`, with :math:`W` the mean of their variances and
    :math:`B / n` the variance of their means. It has no unit; 1 if both halves scatter about the
    same value, up to 1.1 if the iterates are at rest, above while they drift. Iterates that do not
    change at all have 1.

    Args:
        iterates: In order, ``(T, C)``, one column a parameter or a figure; at least 4.

    Returns:
        One figure a column, ``(C,)``.

    Raises:
        ValueError: If there are fewer than 4 iterates, or the shape is another.

    References:
        Gelman and Rubin (1992), https://doi.org/10.1214/ss/1177011136; of iterates, Dhaka et al.
        (2020), section 3, https://arxiv.org/abs/2009.00666
    """
    _check(iterates)
    half = len(iterates) // 2
    halves = torch.stack([iterates[-2 * half : -half], iterates[-half:]])
    found = _arviz("rhat", halves.permute(2, 0, 1), method="identity")
    still = iterates.double().std(0) <= 1e-12 * iterates.double().abs().amax(0)
    return torch.where(
        still, torch.ones_like(found), found.nan_to_num(nan=math.inf, posinf=math.inf)
    )


def effective_size(iterates: Tensor) -> Tensor:
    """How many independent ones say as much about their mean as these iterates, ``(C,)``.

    Args:
        iterates: In order, ``(T, C)``; at least 4.

    Raises:
        ValueError: If there are fewer than 4 iterates, or the shape is another.

    Reference:
        Vehtari et al. (2021), section 3, https://arxiv.org/abs/1903.08008
    """
    _check(iterates)
    return _arviz("ess", iterates.T[:, None], method="mean")


def mcse(iterates: Tensor) -> Tensor:
    """Standard error of the mean of some iterates, in their own unit, ``(C,)``.

    This is what averaging them leaves of their scatter, if they are at rest.

    Args:
        iterates: In order, ``(T, C)``; at least 4.

    Raises:
        ValueError: If there are fewer than 4 iterates, or the shape is another.

    References:
        Vehtari et al. (2021), section 3, https://arxiv.org/abs/1903.08008; of iterates, Dhaka et
        al. (2020), section 3.1, https://arxiv.org/abs/2009.00666
    """
    _check(iterates)
    return _arviz("mcse", iterates.T[:, None], method="mean")


class Window(NamedTuple):
    """Iterates from ``start`` to the end, and the largest R-hat of their columns."""

    start: int
    rhat: float


def best_window(iterates: Tensor, reach: Sequence[float] = REACH) -> Window:
    """The window, of several that reach back from the end, of smallest R-hat.

    A long window holds the way to the optimum, a short one little to tell a drift by.

    Args:
        iterates: In order, ``(T, C)``; at least 16.
        reach: Lengths of the windows, as shares of all iterates; those of fewer than 16 are left
            out.

    Raises:
        ValueError: If there are fewer than 16 iterates, or the shape is another.

    Reference:
        Welandawe et al. (2022), section 3.2, https://arxiv.org/abs/2203.15945
    """
    _check(iterates, LEAST)
    count = len(iterates)
    starts = sorted({count - max(LEAST, int(share * count)) for share in reach})
    found = [Window(start, rhat(iterates[start:]).max().item()) for start in starts]
    return min(found, key=lambda window: window.rhat)


class Rise(NamedTuple):
    """What another doubling of the way brings, and its standard error, in nats per datum."""

    nats: float
    error: float


def rise(climbed: Tensor, way: Tensor, rate: Tensor) -> Rise:
    r"""How much what is climbed would gain if the fit went as far again, at its present slope.

    The way is counted in learning rates, :math:`\tau = \sum_t \gamma_t`, so that the slow end of a
    schedule counts for the little that it moves. Gains are commonly alike from one doubling of
    the way to the next, or shrink, so that the figure errs upwards. Of the figures before the rate
    has fallen by half, the mean from 0.7 to 0.85 of the way is taken from that of the rest. The
    rate may have begun to fall there, which raises what is climbed without any progress, as the
    iterates scatter less; what that can have brought at most, by what the rest of the fall has
    brought, is taken off.

    Args:
        climbed: Means over blocks of steps, in nats per datum, ``(B,)``.
        way: Sum of the learning rates by the end of each block, ``(B,)``.
        rate: Learning rate of each block, ``(B,)``.

    Returns:
        Nats per datum; NaN with fewer than 4 blocks in one of the two parts.
    """
    kept = before_the_fall(rate)
    share = way[:kept] / way[kept - 1]
    parts = [(share > 0.7) & (share <= 0.85), share > 0.85]
    if min(int(part.sum()) for part in parts) < 4:
        return Rise(math.nan, math.nan)
    ways, rates = [[of[:kept][part].mean() for part in parts] for of in (way, rate / rate.max())]
    early, late = (_parts(climbed[:kept][part]) for part in parts)
    gained = late.mean() - early.mean()
    end = slice(-max(1, len(climbed) // 16), None)
    fallen = rates[1] - rate[end].mean() / rate.max()
    if fallen > 0.2:
        by_the_fall = (climbed[end].mean() - late.mean()).clamp_min(0) / fallen
        gained = gained - by_the_fall * (rates[0] - rates[1]).clamp_min(0)
    doubling = math.log(2) / (ways[1] / ways[0]).log().item()
    error = math.hypot(*(mcse(part[:, None]).item() for part in (early, late)))
    return Rise(gained.item() * doubling, error * doubling)


def relapse(climbed: Tensor, way: Tensor) -> float:
    """How far what is climbed fell back below what it had reached before, beyond its noise.

    Steps that are too long throw a fit back again and again. The last two thirds of the way are cut
    into 32 parts; the figure is the largest distance of a part's median below that of an earlier
    one, less 4.5 standard errors of one, which so many parts hardly ever reach by chance. A single
    bad draw does not move a median.

    Args:
        climbed: Means over blocks of steps, in nats per datum, ``(B,)``.
        way: Sum of the learning rates by the end of each block, ``(B,)``.

    Returns:
        Nats per datum, at least 0.
    """
    climbed = climbed[way > 0.3 * way[-1]]
    if len(climbed) < 4:
        return 0.0
    parts = climbed.tensor_split(min(PARTS, len(climbed)))
    medians = torch.stack([part.median() for part in parts])
    # Of normal noise the median of |difference| is 0.954 standard deviations.
    scatter = climbed.diff().abs().median() / 0.954
    error = 1.25 * scatter / math.sqrt(len(climbed) / len(parts))
    return max(0.0, ((medians.cummax(0).values - medians).max() - 4.5 * error).item())


def heading(iterates: Tensor) -> float:
    """Whether iterates still travel one way: the cosine between one stretch of it and the next.

    The last quarter of them, at least 24, is cut into 8 stretches. 1 is a straight line, about 0 a
    walk at random, as along directions in which nothing changes, -0.5 scatter about one value. Each
    column counts by its own spread, so that units have no say; columns that do not move are left
    out.

    Args:
        iterates: In order, ``(T, C)``.

    Returns:
        From -1 to 1; NaN with fewer than 24 iterates.

    Reference:
        That steps which agree with those before them tell of the way to the optimum, and such as
        do not of rest: Pflug (1990), https://doi.org/10.1137/0328026
    """
    if len(iterates) < 24:
        return math.nan
    last = iterates[-max(24, len(iterates) // 4) :].double()
    spread = last.std(0)
    means = torch.stack([part.mean(0) for part in last.tensor_split(8)])
    stretches = (means.diff(dim=0) / spread)[:, spread > 1e-9 * last.abs().amax(0)]
    if not stretches.numel():
        return math.nan
    together = (stretches[1:] * stretches[:-1]).sum() / (len(stretches) - 1)
    return (together / (stretches.square().sum() / len(stretches))).item()


def before_the_fall(rate: Tensor) -> int:
    """How many of the blocks came before the learning rate had fallen by half for good.

    A falling rate brings anything to rest.
    """
    return int((rate >= rate.max() / 2).nonzero().max()) + 1


def _parts(figures: Tensor) -> Tensor:
    return torch.stack([part.mean() for part in figures.tensor_split(min(PARTS, len(figures)))])


def _arviz(name: str, columns: Tensor, method: str) -> Tensor:
    """A statistic of ArviZ, of ``(C, chains, draws)``."""
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    statistic: Callable[..., np.ndarray] = getattr(array_stats, name)
    with np.errstate(all="ignore"):
        found = statistic(columns.detach().double().cpu().numpy(), method=method)
    return torch.as_tensor(np.asarray(found), dtype=torch.float64)


def _check(iterates: Tensor, least: int = 4) -> None:
    if iterates.dim() != 2 or len(iterates) < least:
        raise ValueError(
            f"iterates must have shape (T, C) with T at least {least}, got "
            f"{tuple(iterates.shape)}: fit for longer, or look more often"
        )
