"""Priors of codes that have finitely many values."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from ppl_gen import laws
from ppl_gen.component import whole
from ppl_gen.priors.base import Prior


class OneHot(Prior):
    r"""One of several values, as a vector with a 1 in its place.

    .. math:: p(z = e_k) = \pi_k

    Args:
        features: How many values there are.
        learned: Whether their probabilities are learned; else all are as likely.

    Raises:
        ValueError: If ``features`` is below 2.
    """

    logits: Tensor

    def __init__(self, features: int, learned: bool = False) -> None:
        super().__init__(whole("features", features, least=2))
        _keep(self, torch.zeros(self.features), learned)

    def forward(self) -> TorchDistribution:
        return dist.OneHotCategorical(logits=self.logits)


class Categorical(Prior):
    r"""Whole numbers from 0, each feature one of several.

    .. math:: p(z) = \prod_d \pi_{d z_d}

    A network reads them as numbers, in order; for values without an order take a one-hot code.

    Args:
        features: Size of ``z``.
        categories: How many numbers each feature may be.
        learned: Whether their probabilities are learned; else all are as likely.

    Raises:
        ValueError: If ``features`` is below 1, or ``categories`` below 2.
    """

    logits: Tensor

    def __init__(self, features: int, categories: int = 10, learned: bool = False) -> None:
        super().__init__(features)
        categories = whole("categories", categories, least=2)
        _keep(self, torch.zeros(self.features, categories), learned)

    def forward(self) -> TorchDistribution:
        return laws.Numbers(logits=self.logits).to_event(1)


class Bernoulli(Prior):
    r"""Zeros and ones.

    .. math:: p(z) = \prod_d \pi_d^{z_d} (1 - \pi_d)^{1 - z_d}

    Args:
        features: Size of ``z``.
        learned: Whether the probabilities of 1 are learned; else each is a half.

    Raises:
        ValueError: If ``features`` is below 1.
    """

    logits: Tensor

    def __init__(self, features: int, learned: bool = False) -> None:
        super().__init__(features)
        _keep(self, torch.zeros(self.features), learned)

    def forward(self) -> TorchDistribution:
        return dist.Bernoulli(logits=self.logits).to_event(1)


def _keep(prior: Prior, logits: Tensor, learned: bool) -> None:
    if learned:
        prior.logits = nn.Parameter(logits)
    else:
        prior.register_buffer("logits", logits, persistent=False)
