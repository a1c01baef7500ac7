"""Priors of codes that are not any real numbers: in a box, positive, or shares of a whole."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from ppl_gen import laws
from ppl_gen.component import positive, whole
from ppl_gen.priors.base import Prior


class Uniform(Prior):
    r"""Every code in a box is as likely as any other.

    .. math:: p(z) = (b - a)^{-D}, \quad a \le z_d \le b

    Args:
        features: Size of ``z``.
        low: Least value of every feature, :math:`a`.
        high: Greatest value of every feature, :math:`b`.

    Raises:
        ValueError: If ``features`` is below 1, or ``low`` is not below ``high``.
    """

    bounds: Tensor

    def __init__(self, features: int, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(features)
        if not -float("inf") < low < high < float("inf"):
            raise ValueError(f"low must be below high, both finite, got {low} and {high}")
        self.low, self.high = float(low), float(high)
        bounds = torch.tensor([self.low, self.high]).unsqueeze(-1).repeat(1, features)
        self.register_buffer("bounds", bounds, persistent=False)

    def forward(self) -> TorchDistribution:
        low, high = self.bounds
        return dist.Uniform(low, high).to_event(1)

    @property
    def support(self) -> Constraint:
        # Of numbers, which are on no device.
        return constraints.independent(constraints.interval(self.low, self.high), 1)


class Beta(Prior):
    r"""Beta laws of features between 0 and 1.

    .. math:: p(z) \propto \prod_d z_d^{\alpha - 1} (1 - z_d)^{\beta - 1}

    Args:
        features: Size of ``z``.
        alpha: :math:`\alpha`; below 1 with ``beta``, codes near 0 and 1 are the likeliest.
        beta: :math:`\beta`.

    Raises:
        ValueError: If ``features`` is below 1, or another number is not positive.
    """

    shapes: Tensor

    def __init__(self, features: int, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__(features)
        shapes = torch.tensor([positive("alpha", alpha), positive("beta", beta)])
        shapes = shapes.unsqueeze(-1).repeat(1, features)
        self.register_buffer("shapes", shapes, persistent=False)

    def forward(self) -> TorchDistribution:
        alpha, beta = self.shapes
        return dist.Beta(alpha, beta).to_event(1)


class Gamma(Prior):
    r"""Gamma laws of positive features.

    .. math:: p(z) \propto \prod_d z_d^{k - 1} e^{-\lambda z_d}

    Args:
        features: Size of ``z``.
        shape: :math:`k`; below 1, features near 0 are the likeliest.
        rate: :math:`\lambda`; the mean is :math:`k / \lambda`.

    Raises:
        ValueError: If ``features`` is below 1, or another number is not positive.
    """

    numbers: Tensor

    def __init__(self, features: int, shape: float = 2.0, rate: float = 2.0) -> None:
        super().__init__(features)
        numbers = torch.tensor([positive("shape", shape), positive("rate", rate)])
        self.register_buffer("numbers", numbers.unsqueeze(-1).repeat(1, features), persistent=False)

    def forward(self) -> TorchDistribution:
        shape, rate = self.numbers
        return dist.Gamma(shape, rate).to_event(1)


class Shares(Prior):
    """Features that are positive and add up to 1.

    Args:
        features: Size of ``z``.

    Raises:
        ValueError: If ``features`` is below 2.
    """

    def __init__(self, features: int) -> None:
        super().__init__(whole("features", features, least=2))


class Dirichlet(Shares):
    r"""Shares of a whole, none preferred.

    .. math:: p(z) \propto \prod_d z_d^{\alpha - 1}, \quad \textstyle\sum_d z_d = 1

    Args:
        features: Size of ``z``.
        concentration: :math:`\alpha`; below 1 a few large shares are likelier than many small ones.

    Raises:
        ValueError: If ``features`` is below 2, or ``concentration`` is not positive.
    """

    concentration: Tensor

    def __init__(self, features: int, concentration: float = 1.0) -> None:
        super().__init__(features)
        value = torch.full((features,), positive("concentration", concentration))
        self.register_buffer("concentration", value, persistent=False)

    def forward(self) -> TorchDistribution:
        return dist.Dirichlet(self.concentration)


class LogisticNormal(Shares):
    r"""Shares whose logarithms, less that of the last, are normal; mean and scale are learned.

    .. math:: \log z_d - \log z_D \sim \mathcal{N}(\mu_d, \sigma_d^2), \quad d < D

    Args:
        features: Size of ``z``.

    Raises:
        ValueError: If ``features`` is below 2.

    Reference:
        Aitchison and Shen (1980), https://doi.org/10.1093/biomet/67.2.261
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.loc = nn.Parameter(torch.zeros(features - 1))
        self.log_scale = nn.Parameter(torch.zeros(features - 1))

    def forward(self) -> TorchDistribution:
        normal = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return dist.TransformedDistribution(normal, [laws.LogRatios()])


class StickBreaking(Shares):
    r"""Shares broken off a stick, one after the other: the first ones tend to be the largest.

    .. math:: v_d \sim \mathrm{Beta}(1, \alpha), \quad z_d = v_d \prod_{e < d} (1 - v_e)

    and the last share is what is left.

    Args:
        features: Size of ``z``.
        concentration: :math:`\alpha`; the smaller, the fewer shares of any size.

    Raises:
        ValueError: If ``features`` is below 2, or ``concentration`` is not positive.

    Reference:
        Sethuraman (1994); for codes, Nalisnick and Smyth (2017), https://arxiv.org/abs/1605.06197
    """

    shapes: Tensor

    def __init__(self, features: int, concentration: float = 1.0) -> None:
        super().__init__(features)
        shapes = torch.tensor([1.0, positive("concentration", concentration)])
        self.register_buffer(
            "shapes", shapes.unsqueeze(-1).repeat(1, features - 1), persistent=False
        )

    def forward(self) -> TorchDistribution:
        first, second = self.shapes
        sticks = dist.Beta(first, second).to_event(1)
        return dist.TransformedDistribution(sticks, [laws.Sticks()])
