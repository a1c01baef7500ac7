"""Priors: laws of the latent code."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from ppl_gen.component import Component, built, whole


class Prior(Component, ABC):
    """A law of the latent code: a module whose ``forward`` returns a distribution.

    Args:
        features: Size of the code ``z``.

    Raises:
        ValueError: If ``features`` is below 1.
    """

    features: int

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = whole("features", features)

    @abstractmethod
    def forward(self) -> TorchDistribution:
        """The law of one code: batch shape ``()``, event shape ``(features,)``."""


class StandardNormal(Prior):
    r"""The normal law with mean 0 and covariance 1: nothing to learn.

    .. math:: p(z) = \mathcal{N}(z \mid 0, I)

    Its divergence from a :class:`~ppl_gen.posteriors.DiagonalNormal` has a closed form.

    Args:
        features: Size of ``z``.

    Raises:
        ValueError: If ``features`` is below 1.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.register_buffer("loc", torch.zeros(features), persistent=False)
        self.register_buffer("scale", torch.ones(features), persistent=False)

    def forward(self) -> TorchDistribution:
        return dist.Normal(self.loc, self.scale).to_event(1)


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


PRIORS: dict[str, type[Prior]] = {"standard-normal": StandardNormal, "mixture": MixturePrior}


def prior(spec: str | Prior, features: int) -> Prior:
    """The prior that a specification names, or the given one if it has the right size.

    Args:
        spec: A name from ``PRIORS``, with arguments if any, such as
            ``"mixture(components=50)"``, or a prior.
        features: Size of the code.

    Raises:
        ValueError: If the specification cannot be read, or the prior has other ``features``.
        TypeError: If ``spec`` is neither a string nor a prior.
    """
    if not isinstance(spec, Prior):
        return built(spec, PRIORS, "prior", features)
    if spec.features != features:
        raise ValueError(
            f"prior must have as many features as the code, {features}, got {spec.features}"
        )
    return spec
