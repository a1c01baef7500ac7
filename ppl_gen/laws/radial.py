"""Laws about a point: with heavy tails, or the same in all directions."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints, transforms
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.nn.functional import softplus

from ppl_gen.laws.base import Law


def stretched(law: TorchDistribution, scale: Tensor) -> TorchDistribution:
    """A law ``(D,)`` about 0 with another scale for each feature, ``(D,)``."""
    return dist.TransformedDistribution(
        law, [transforms.AffineTransform(torch.zeros_like(scale), scale, event_dim=1)]
    )


class Logistic(Law):
    r"""The logistic law, whose distribution function is the sigmoid.

    .. math:: p(x) = \frac{1}{4 s} \operatorname{sech}^2 \frac{x - \mu}{2 s}

    Args:
        loc: Mean, :math:`\mu`.
        scale: :math:`s`; the standard deviation is :math:`\pi s / \sqrt 3`.
    """

    batched: ClassVar[dict[str, int]] = {"loc": 0, "scale": 0}
    arg_constraints: ClassVar[dict] = {"loc": constraints.real, "scale": constraints.positive}  # pyright: ignore
    support: Any = constraints.real  # pyright: ignore
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (math.pi * self.scale).square() / 3

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        # Never 0, whose logit is infinite.
        tiny = torch.finfo(self.loc.dtype).tiny
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(min=tiny)
        return self.loc + self.scale * (uniform.log() - torch.log1p(-uniform))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        away = ((value - self.loc) / self.scale).abs()
        return -away - 2 * softplus(-away) - self.scale.log()


class LogisticRadius(Law):
    r"""The length of a vector whose density falls with it as a logistic law's.

    .. math::

        p(r) = \frac{r^{D - 1}}{\Gamma(D) \, \eta(D - 1)} \frac{e^{-r}}{(1 + e^{-r})^2}, \qquad
        \eta(s) = (1 - 2^{1 - s}) \, \zeta(s)

    since :math:`e^{-r} / (1 + e^{-r})^2 = \sum_k (-1)^{k - 1} k e^{-k r}`. Drawn by rejection from
    a gamma law: three draws in four, at worst, are drawn again.

    Args:
        scale: Of the vector's features.
        features: How many they are, :math:`D`.
    """

    batched: ClassVar[dict[str, int]] = {"scale": 0}
    arg_constraints: ClassVar[dict] = {"scale": constraints.positive}  # pyright: ignore
    support: Any = constraints.positive  # pyright: ignore

    def __init__(self, scale: Tensor, features: int, validate_args: bool | None = None) -> None:
        self.scale, self.features = scale, features
        super().__init__(scale.shape, validate_args=validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        proposal = torch.distributions.Gamma(torch.full_like(self.scale, self.features), 1.0)
        with torch.no_grad():
            drawn = self.scale.new_zeros(shape)
            again = torch.ones_like(drawn, dtype=torch.bool)
            while again.any():
                proposed = proposal.sample(torch.Size(sample_shape))
                drawn = torch.where(again, proposed, drawn)
                again = again & (torch.rand_like(drawn) > proposed.sigmoid().square())
        return drawn * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        radius = value / self.scale
        # Dirichlet's eta, where its formula has a value.
        eta = {1: 0.5, 2: math.log(2)}.get(self.features)
        if eta is None:
            order = torch.tensor(self.features - 1.0, dtype=torch.double)
            eta = (1 - 2.0 ** (2 - self.features)) * torch.special.zeta(order, 1).item()
        constant = math.lgamma(self.features) + math.log(eta)
        power = (self.features - 1) * radius.log()
        return power - radius - 2 * softplus(-radius) - constant - self.scale.log()


class Radial(Law):
    r"""A law that is the same in all directions, made of that of its radius.

    .. math::

        p(z) = \frac{p_r(\lVert z \rVert)}{S_D \lVert z \rVert^{D - 1}}, \qquad
        S_D = \frac{2 \pi^{D / 2}}{\Gamma(D / 2)}

    Args:
        radius: Law of the length, batch shape ``(*)``.
        features: Size of ``z``, :math:`D`.
    """

    batched: ClassVar[dict[str, int]] = {"radius": 0}
    support: Any = constraints.real_vector  # pyright: ignore

    def __init__(
        self, radius: TorchDistribution, features: int, validate_args: bool | None = None
    ) -> None:
        self.radius, self.features = radius, features
        super().__init__(radius.batch_shape, torch.Size([features]), validate_args=validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            radius = self.radius.sample(torch.Size(sample_shape)).unsqueeze(-1)
            return radius * directions(radius.expand(*radius.shape[:-1], self.features))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # At 0 itself, where the two terms would be infinite, as just beside it.
        radius = value.norm(dim=-1).clamp(min=torch.finfo(value.dtype).tiny ** 0.25)
        around = log_area(self.features) + (self.features - 1) * radius.log()
        return self.radius.log_prob(radius) - around


def directions(like: Tensor) -> Tensor:
    """Vectors of length 1 in directions at random, as many and as long as ``like``, ``(*, D)``."""
    return torch.nn.functional.normalize(torch.randn_like(like), dim=-1)


def log_area(features: int) -> float:
    """The logarithm of the area of the unit sphere among vectors of so many features."""
    return math.log(2) + features / 2 * math.log(math.pi) - math.lgamma(features / 2)
