"""Pure functions of draws: how far a posterior would move were a part of its density stronger."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

ALPHAS = 0.99, 1.01  # powers between which the slope is taken, as in ArviZ


def power_scaling(x: Tensor, log_density: Tensor) -> Tensor:
    r"""Sensitivity of each marginal to the power of a factor of the density, ``(D,)``.

    The posterior under :math:`p(\theta)^\alpha p(x \mid \theta)`, or under the power of the
    likelihood, is had from the draws by smoothed importance weights. The figure is the slope of its
    distance (the root of the cumulative Jensen-Shannon divergence) from the posterior, per doubling
    of :math:`\alpha`: 0.05 is about that of a mean that moves by 0.3 standard deviations.

    Args:
        x: Draws, ``(S, D)``.
        log_density: The logarithm of the factor at each draw, ``(S,)``, up to a constant.

    Raises:
        ValueError: If shapes disagree.

    Reference:
        Kallioinen et al. (2024), section 2.2, https://doi.org/10.1007/s11222-023-10366-5; computed
        by ArviZ, as for its ``psense``
    """
    if x.dim() != 2 or log_density.shape != x.shape[:1]:
        raise ValueError(
            f"x and log_density must have shapes (S, D) and (S,), got {tuple(x.shape)} and "
            f"{tuple(log_density.shape)}"
        )
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    terms = log_density.double().numpy()
    if not np.ptp(terms) > 0:  # whatever its power, it makes no difference
        return torch.zeros(x.shape[1], dtype=torch.float64)
    lower, upper = ALPHAS
    weights = []
    for alpha in ALPHAS:
        scaled = array_stats.power_scale_lw(terms, alpha=alpha)  # pyright: ignore[reportArgumentType]
        weight = np.exp(scaled)
        weights.append((weight / weight.sum())[None])
    found: list[Any] = [
        array_stats.power_scale_sense(column[None], weights[0], weights[1], lower, upper)
        for column in x.double().T.numpy()
    ]
    return torch.tensor([float(sense) for sense in found], dtype=torch.float64)
