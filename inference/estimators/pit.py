"""Pure functions of draws and of what was seen: whether what was seen could be one more draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ppl_gen.inference.estimators.ranks import from_uniform


def transforms(
    observed: Tensor, drawn: Tensor, log_weights: Tensor | None = None, seed: int = 0
) -> Tensor:
    r"""Probability integral transforms: the share of the draws that lie below what was seen.

    .. math:: u_{ne} = \sum_s w_{sn} \, 1[\tilde x_{sne} \le x_{ne}]

    They are uniform if what was seen is drawn from the law of the draws. Draws that are equal to
    it, as of discrete laws, count below it in part, by chance, so that uniform they are there too.

    Args:
        observed: Shape ``(N, E)``, NaN where missing.
        drawn: Shape ``(S, N, E)``.
        log_weights: Of the draws for each row, in nats, ``(S, N)``; equal ones by default.
        seed: Of the chance.

    Returns:
        From 0 to 1, ``(N, E)``, NaN where missing.

    Raises:
        ValueError: If shapes disagree.

    Reference:
        Gelman et al. (2013), Bayesian Data Analysis, section 6.3; of discrete laws, Czado et al.
        (2009), https://doi.org/10.1111/j.1541-0420.2009.01191.x
    """
    if drawn.dim() != 3 or drawn.shape[1:] != observed.shape:
        raise ValueError(
            "observed and drawn must have shapes (N, E) and (S, N, E), got "
            f"{tuple(observed.shape)} and {tuple(drawn.shape)}"
        )
    weights = drawn.new_zeros(drawn.shape[:2]) if log_weights is None else log_weights
    if weights.shape != drawn.shape[:2]:
        raise ValueError(
            f"log_weights must have shape (S, N), {tuple(drawn.shape[:2])}, got "
            f"{tuple(weights.shape)}"
        )
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    found = array_stats.loo_pit(
        drawn.double().permute(1, 2, 0).contiguous().numpy(),
        observed.double().numpy(),
        weights.double().T[:, None].expand(-1, drawn.shape[2], -1).contiguous().numpy(),
        chain_axis=None,  # pyright: ignore[reportArgumentType]
        draw_axis=-1,
        random_state=seed,
    )
    return torch.where(observed.isnan(), torch.nan, torch.from_numpy(np.asarray(found)))


def leave_one_out(log_likelihood: Tensor) -> tuple[Tensor, Tensor]:
    """Weights that turn draws of a posterior into such of the posterior without one row.

    Args:
        log_likelihood: Of each row under each draw, in nats, ``(S, N)``.

    Returns:
        Smoothed log-weights, ``(S, N)``, and Pareto k-hat of each row, ``(N,)``: distrust a row
        above 0.7.

    Reference:
        Vehtari et al. (2017), https://arxiv.org/abs/1507.04544
    """
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    ratios = log_likelihood.double().T
    # Where all draws weigh the same there is no tail to fit.
    varied = ratios.amax(1) - ratios.amin(1) > 1e-6
    weights, khat = torch.zeros_like(ratios), torch.full(ratios.shape[:1], -torch.inf).double()
    if varied.any():
        with np.errstate(all="ignore"):
            smoothed, fitted = array_stats.psislw(ratios[varied].contiguous().numpy(), axis=-1)
        weights[varied] = torch.as_tensor(smoothed, dtype=torch.float64)
        khat[varied] = torch.as_tensor(fitted, dtype=torch.float64)
    return weights.T, khat


@dataclass(frozen=True)
class KolmogorovTest:
    """How far numbers from 0 to 1 are from uniform.

    Attributes:
        distance: The largest between their distribution function and the diagonal, from 0 to 1.
        p_value: How often uniform numbers lie as far from it.
        shift: By how much their mean exceeds a half, in deviations of a uniform number.
        spread: By how much their deviation exceeds that of uniform numbers, as a share of it.
    """

    distance: float
    p_value: float
    shift: float
    spread: float


def kolmogorov_test(numbers: Tensor, inflation: float = 1.0) -> KolmogorovTest:
    """Test whether numbers are uniform on the unit interval, by their distribution function.

    The distance does not grow with how many there are. Its critical value is half the width of a
    simultaneous band around the diagonal.

    Args:
        numbers: Shape ``(N,)``.
        inflation: By how much more than by chance they may lie from uniform, as of
            :func:`replicate_test`.

    Raises:
        ValueError: If there are none, or one is not from 0 to 1.

    Reference:
        Kolmogorov (1933), by ``scipy.stats.kstwo``
    """
    if not numbers.numel() or not ((numbers >= 0) & (numbers <= 1 + 1e-9)).all():
        raise ValueError(f"numbers must be from 0 to 1, and some, got {numbers.numel()}")
    from scipy.stats import kstwo

    distance = from_uniform(numbers.clamp(0, 1)[:, None]).item()
    p_value = float(kstwo.sf(distance / inflation, numbers.numel()))
    scale = 12**0.5
    shift = scale * (numbers.mean().item() - 0.5)
    return KolmogorovTest(distance, p_value, shift, scale * numbers.std(correction=0).item() - 1)
