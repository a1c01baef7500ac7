"""Pure functions of importance weights: evidence, its error, and whether to trust it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Evidence:
    """Importance-sampling estimates, one a datum, all of shape ``(N,)``.

    Attributes:
        nats: Log evidence :math:`\\log \\hat p(x_n)`, in nats.
        error: Its standard error, in nats, from the spread of the weights.
        ess: Effective sample size of the draws, from 1 to ``draws``.
        elbo: The ELBO from the same draws, in nats; never above ``nats``.
        khat: Pareto shape of the weights' tail; NaN where there are too few draws.
        draws: How many draws were taken.
    """

    nats: Tensor
    error: Tensor
    ess: Tensor
    elbo: Tensor
    khat: Tensor
    draws: int

    @property
    def gap(self) -> Tensor:
        """How far the ELBO lies below: an estimate of KL(q(z|x) || p(z|x)), in nats, (N,)."""
        return self.nats - self.elbo

    @property
    def mean(self) -> float:
        """Mean log evidence per datum, in nats."""
        return self.nats.mean().item()

    @property
    def mean_error(self) -> float:
        """Standard error of :attr:`mean` that the draws cause, in nats; the data are held fixed."""
        return self.error.square().sum().sqrt().item() / len(self.nats)


def log_evidence(log_weights: Tensor, khat: bool = True) -> Evidence:
    r"""Estimate the log evidence of each observation by importance sampling.

    .. math:: \log \hat p(x_n) = \log \frac{1}{S} \sum_{s=1}^{S} w_{sn}

    In expectation it lies below the truth, and rises to it as :math:`S` grows. An ``ess`` near 1
    says that one draw carries the estimate: distrust it. The error is that of the delta method,
    :math:`\sqrt{1 / \mathrm{ess} - 1 / S}`; it understates where ``khat`` is above 0.7.

    Args:
        log_weights: :math:`\log p(x_n, z_{sn}) - \log q(z_{sn} \mid x_n)`, in nats, shape
            ``(S, N)``.
        khat: Whether to fit the Pareto tail as well.

    Raises:
        ValueError: If the shape is not ``(S, N)`` or a weight is NaN.

    Reference:
        Burda et al. (2016), section 3, https://arxiv.org/abs/1509.00519
    """
    if log_weights.dim() != 2 or not log_weights.numel():
        raise ValueError(f"log_weights must have shape (S, N), got {tuple(log_weights.shape)}")
    if log_weights.isnan().any():
        raise ValueError(f"log_weights must not be NaN, got {int(log_weights.isnan().sum())} NaN")
    log_weights = log_weights.double()
    draws = len(log_weights)
    nats = log_weights.logsumexp(0) - math.log(draws)
    normalised = (log_weights - log_weights.logsumexp(0)).exp()
    ess = 1 / normalised.square().sum(0)
    return Evidence(
        nats=nats,
        error=(1 / ess - 1 / draws).clamp_min(0).sqrt(),
        ess=ess,
        elbo=log_weights.mean(0),
        khat=pareto_khat(log_weights) if khat else torch.full_like(nats, torch.nan),
        draws=draws,
    )


def pareto_khat(log_weights: Tensor) -> Tensor:
    """Fit a generalised Pareto law to the largest weights of each observation.

    Below 0.5 importance sampling with this guide works well; up to :func:`khat_threshold` it is
    usable; above, the weights have no finite variance to speak of and neither the evidence nor the
    guide should be believed for that datum.

    Args:
        log_weights: In nats, shape ``(S, N)``; at least 25 draws.

    Returns:
        Shape parameters, ``(N,)``; NaN with fewer draws. Minus infinity where the largest weights
        are equal, as all are for an exact guide.

    Reference:
        Vehtari et al. (2024), https://arxiv.org/abs/1507.02646; as a check of variational
        posteriors, Yao et al. (2018), https://arxiv.org/abs/1802.02538
    """
    draws, data = log_weights.shape
    if draws < 25:
        return torch.full((data,), torch.nan, dtype=torch.float64)
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    weights = log_weights.double().cpu()
    # Spreads below single precision's noise have no tail to fit: all weights are equal for an exact
    # guide, and the largest of them where a discrete guide draws one value again and again.
    length = math.ceil(min(draws / 5, 3 * math.sqrt(draws)))
    largest = weights.topk(length + 1, dim=0).values
    tail = torch.where(largest > largest[-1], largest, math.inf)
    varied = largest[0] - tail.amin(0) > 1e-3
    khat = torch.full((data,), -math.inf, dtype=torch.float64)
    if varied.any():
        # ArviZ takes log-likelihoods, whose negatives are the log-weights of leave-one-out.
        with np.errstate(all="ignore"):
            _, fitted = array_stats.psislw(-weights[:, varied].T.contiguous().numpy(), axis=-1)
        khat[varied] = torch.as_tensor(fitted, dtype=torch.float64)
    return khat


def khat_threshold(draws: int) -> float:
    r"""Largest Pareto shape at which so many draws still give a usable estimate.

    .. math:: \min(1 - 1 / \log_{10} S, \; 0.7)

    Reference:
        Vehtari et al. (2024), section 3.2.4, https://arxiv.org/abs/1507.02646
    """
    return min(1 - 1 / math.log10(max(draws, 11)), 0.7)
