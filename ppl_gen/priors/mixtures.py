"""Priors that are mixtures."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from ppl_gen.component import whole
from ppl_gen.priors.base import Prior


class MixturePrior(Prior):
    r"""A mixture of diagonal normals, every part of it learned.

    .. math:: p(z) = \sum_{k=1}^{K} w_k \, \mathcal{N}(z \mid \mu_k, \mathrm{diag}(\sigma_k^2))

    Args:
        features: Size of ``z``.
        components: Number of normals, :math:`K`.

    Raises:
        ValueError: If ``features`` or ``components`` is below 1.

    Reference:
        Tomczak and Welling (2018), the "MoG" prior, https://arxiv.org/abs/1705.07120
    """

    def __init__(self, features: int, components: int = 10) -> None:
        super().__init__(features)
        components = whole("components", components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, features))
        self.log_scale = nn.Parameter(torch.zeros(components, features))

    def forward(self) -> TorchDistribution:
        weights = dist.Categorical(logits=self.logits)
        return dist.MixtureSameFamily(
            weights, dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        )

    @property
    def support(self) -> Constraint:
        return constraints.real_vector
