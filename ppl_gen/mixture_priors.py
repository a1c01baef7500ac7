"""Priors of a mixture's parameters, in units of the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from ppl_gen.component import Component, built, positive


class LocPrior(Component, ABC):
    """A law of a component's centre."""

    @abstractmethod
    def forward(self, center: Tensor, spread: Tensor) -> TorchDistribution:
        """Of real numbers.

        Args:
            center: Means of the data, ``(D,)``.
            spread: Standard deviations of the data, ``(D,)``.

        Returns:
            A distribution of batch shape ``(D,)``.
        """


class NormalLoc(LocPrior):
    """A centre is normal about the mean of the data.

    By default wide enough for a component at any of the data to be no surprise.

    Args:
        scale: Standard deviation, in units of the data's spread.

    Raises:
        ValueError: If it is not positive.
    """

    def __init__(self, scale: float = 3.0) -> None:
        super().__init__()
        self.scale = positive("scale", scale)

    def forward(self, center: Tensor, spread: Tensor) -> TorchDistribution:
        return dist.Normal(center, self.scale * spread)


class ScalePrior(Component, ABC):
    """A law of a component's standard deviations."""

    @abstractmethod
    def forward(self, spread: Tensor) -> TorchDistribution:
        """Of positive numbers.

        Args:
            spread: Standard deviations of the data, any shape.

        Returns:
            A distribution whose batch shape is that of ``spread``.
        """


class LogNormalScale(ScalePrior):
    r"""The logarithm of a scale is normal; no scale of 0 is a maximum of the posterior.

    .. math:: \log \sigma \sim \mathcal{N}(\log (m s), \tau^2)

    By default a component is half as wide as the data, give or take a factor of 7 (95 %).

    Args:
        median: The median :math:`m`, in units of the data's spread :math:`s`.
        scale: The standard deviation :math:`\tau` of the logarithm.

    Raises:
        ValueError: If one is not positive.
    """

    def __init__(self, median: float = 0.5, scale: float = 1.0) -> None:
        super().__init__()
        self.median = positive("median", median)
        self.scale = positive("scale", scale)

    def forward(self, spread: Tensor) -> TorchDistribution:
        return dist.LogNormal((self.median * spread).log(), self.scale)


class HalfNormalScale(ScalePrior):
    """A scale is the size of a normal number.

    Its density does not vanish at 0: with ``posterior="map"`` a component may collapse on a point.

    Args:
        scale: That of the normal, in units of the data's spread.

    Raises:
        ValueError: If it is not positive.

    Reference:
        Gelman (2006), https://doi.org/10.1214/06-BA117A
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = positive("scale", scale)

    def forward(self, spread: Tensor) -> TorchDistribution:
        return dist.HalfNormal(self.scale * spread)


class HalfCauchyScale(ScalePrior):
    """A scale is the size of a Cauchy number, which may be far larger than the rest.

    Its density does not vanish at 0: with ``posterior="map"`` a component may collapse on a point.

    Args:
        scale: Its median, in units of the data's spread.

    Raises:
        ValueError: If it is not positive.

    Reference:
        Gelman (2006), https://doi.org/10.1214/06-BA117A
    """

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = positive("scale", scale)

    def forward(self, spread: Tensor) -> TorchDistribution:
        return dist.HalfCauchy(self.scale * spread)


class DfPrior(Component, ABC):
    """A law of the degrees of freedom of a Student-t component."""

    @abstractmethod
    def forward(self, like: Tensor) -> TorchDistribution:
        """Of one positive number, in the precision of ``like`` and where that is."""


class GammaDf(DfPrior):
    """Degrees of freedom follow a gamma law.

    By default its mode is 10 and its mean 20: from heavy tails to nearly normal ones, and little
    weight on values below 1, where a component has no mean.

    Args:
        shape: Shape of the gamma law.
        rate: Its rate.

    Raises:
        ValueError: If one is not positive.

    Reference:
        Juarez and Steel (2010), https://doi.org/10.1198/jbes.2009.07145
    """

    def __init__(self, shape: float = 2.0, rate: float = 0.1) -> None:
        super().__init__()
        self.shape = positive("shape", shape)
        self.rate = positive("rate", rate)

    def forward(self, like: Tensor) -> TorchDistribution:
        return dist.Gamma(like.new_tensor(self.shape), like.new_tensor(self.rate))


LOC_PRIORS: dict[str, type[LocPrior]] = {"normal": NormalLoc}
SCALE_PRIORS: dict[str, type[ScalePrior]] = {
    "log-normal": LogNormalScale,
    "half-normal": HalfNormalScale,
    "half-cauchy": HalfCauchyScale,
}
DF_PRIORS: dict[str, type[DfPrior]] = {"gamma": GammaDf}


def part(spec: Any, table: dict[str, Any], noun: str) -> Any:
    """The prior that a specification names, or the given one.

    Args:
        spec: A name from the table, with arguments if any, or a module.
        table: Constructors by name.
        noun: What the prior is called, for the message.

    Raises:
        ValueError: If the specification cannot be read.
        TypeError: If ``spec`` is neither a string nor a module.
    """
    return spec if isinstance(spec, nn.Module) else built(spec, table, noun)
