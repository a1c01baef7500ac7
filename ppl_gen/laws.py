"""Laws that neither torch nor Pyro has."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.distributions import constraints, transforms
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.nn.functional import softplus


def stretched(law: TorchDistribution, scale: Tensor) -> TorchDistribution:
    """A law ``(D,)`` about 0 with another scale for each feature, ``(D,)``."""
    return dist.TransformedDistribution(
        law, [transforms.AffineTransform(torch.zeros_like(scale), scale, event_dim=1)]
    )


class Logistic(TorchDistribution):
    r"""The logistic law, whose distribution function is the sigmoid.

    .. math:: p(x) = \frac{1}{4 s} \operatorname{sech}^2 \frac{x - \mu}{2 s}

    Args:
        loc: Mean, :math:`\mu`.
        scale: :math:`s`; the standard deviation is :math:`\pi s / \sqrt 3`.
    """

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

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new: Any = self._get_checked_instance(type(self), _instance)
        new.loc, new.scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        super(Logistic, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new


class LogisticRadius(TorchDistribution):
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

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new: Any = self._get_checked_instance(type(self), _instance)
        new.scale, new.features = self.scale.expand(batch_shape), self.features
        super(LogisticRadius, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new


class Radial(TorchDistribution):
    r"""A law that is the same in all directions, made of that of its radius.

    .. math::

        p(z) = \frac{p_r(\lVert z \rVert)}{S_D \lVert z \rVert^{D - 1}}, \qquad
        S_D = \frac{2 \pi^{D / 2}}{\Gamma(D / 2)}

    Args:
        radius: Law of the length, batch shape ``(*)``.
        features: Size of ``z``, :math:`D`.
    """

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore
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

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new: Any = self._get_checked_instance(type(self), _instance)
        new.radius, new.features = self.radius.expand(torch.Size(batch_shape)), self.features
        super(Radial, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new


class Flower(TorchDistribution):
    r"""A law in the plane whose contours are flowers.

    .. math::

        p(z) = \frac{k}{\pi \, s^2 (1 + a^2 / 2) \, \Gamma(1 / k)}
        \exp \left( -\left( \frac{r}{R(\theta)} \right)^{2 k} \right), \qquad
        R(\theta) = s \, (1 + a \cos m \theta)

    with :math:`r, \theta` the polar coordinates of :math:`z`. It is exact, since
    :math:`\int R^2 \, d\theta = 2 \pi s^2 (1 + a^2 / 2)` and
    :math:`\int_0^\infty t \, e^{-t^{2 k}} dt = \Gamma(1 / k) / (2 k)`.

    Args:
        scale: Mean radius of the outline, :math:`s`, batch shape ``(*)``.
        petals: How many, :math:`m`.
        depth: How far the outline goes in between them, :math:`a`, from 0 to below 1.
        edge: :math:`k`; 1 is as soft as a normal law, more is sharper.
    """

    arg_constraints: ClassVar[dict] = {"scale": constraints.positive}  # pyright: ignore
    support: Any = constraints.real_vector  # pyright: ignore

    def __init__(
        self,
        scale: Tensor,
        petals: int,
        depth: float,
        edge: float,
        validate_args: bool | None = None,
    ) -> None:
        self.scale, self.petals, self.depth, self.edge = scale, petals, depth, edge
        super().__init__(scale.shape, torch.Size([2]), validate_args=validate_args)

    def _outline(self, angle: Tensor) -> Tensor:
        return self.scale * (1 + self.depth * torch.cos(self.petals * angle))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))[:-1]
        with torch.no_grad():
            angle = self.scale.new_zeros(shape)
            again = torch.ones_like(angle, dtype=torch.bool)
            while again.any():  # angles have density R squared: at most three in four are refused
                proposed = 2 * math.pi * torch.rand_like(angle)
                angle = torch.where(again, proposed, angle)
                kept = (self._outline(proposed) / (self.scale * (1 + self.depth))).square()
                again = again & (torch.rand_like(angle) > kept)
            shape_of_radius = torch.full_like(angle, 1 / self.edge)
            radius = torch.distributions.Gamma(shape_of_radius, 1.0).sample() ** (0.5 / self.edge)
            radius = radius * self._outline(angle)
            return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        x, y = value.unbind(-1)
        # At 0 itself an angle has no gradient; just beside it the density is the same.
        tiny = torch.finfo(value.dtype).tiny ** 0.25
        x = torch.where((x.abs() < tiny) & (y.abs() < tiny), tiny, x)
        ratio = (x.square() + y.square()) / self._outline(torch.atan2(y, x)).square()
        area = math.log(math.pi * (1 + self.depth**2 / 2)) + 2 * self.scale.log()
        return math.log(self.edge) - area - math.lgamma(1 / self.edge) - ratio**self.edge

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new: Any = self._get_checked_instance(type(self), _instance)
        new.scale = self.scale.expand(batch_shape)
        new.petals, new.depth, new.edge = self.petals, self.depth, self.edge
        super(Flower, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new


class LogRatios(transforms.Transform):
    r"""From logarithms of shares, less that of the last one, to the shares.

    .. math:: z_d = e^{u_d} / (1 + \textstyle\sum_e e^{u_e})
    """

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogRatios)

    def _call(self, x: Tensor) -> Tensor:
        return torch.softmax(_with_zero(x), -1)

    def _inverse(self, y: Tensor) -> Tensor:
        log = y.clamp(min=torch.finfo(y.dtype).tiny).log()
        return log[..., :-1] - log[..., -1:]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.log_softmax(_with_zero(x), -1).sum(-1)

    def forward_shape(self, shape: Any) -> torch.Size:
        return torch.Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> torch.Size:
        return torch.Size((*shape[:-1], shape[-1] - 1))


class Sticks(transforms.Transform):
    r"""From the parts that are broken off what is left of a stick to their lengths.

    .. math:: z_d = v_d \prod_{e < d} (1 - v_e)

    and the last length is what is left.
    """

    domain = constraints.independent(constraints.unit_interval, 1)
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sticks)

    def _call(self, x: Tensor) -> Tensor:
        left = torch.cumprod(1 - x, -1)
        before = torch.cat([torch.ones_like(left[..., :1]), left[..., :-1]], -1)
        return torch.cat([x * before, left[..., -1:]], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        # What is left is added up from the end, where a difference from 1 would keep no digits.
        left = y.flip(-1).cumsum(-1).flip(-1)[..., :-1]
        eps = torch.finfo(y.dtype)
        return (y[..., :-1] / left.clamp(min=eps.tiny)).clamp(eps.tiny, 1 - eps.eps)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        count = x.shape[-1]
        powers = torch.arange(count - 1, -1, -1, dtype=x.dtype, device=x.device)
        return (powers * torch.log1p(-x)).sum(-1)

    def forward_shape(self, shape: Any) -> torch.Size:
        return torch.Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> torch.Size:
        return torch.Size((*shape[:-1], shape[-1] - 1))


def _with_zero(x: Tensor) -> Tensor:
    return torch.cat([x, torch.zeros_like(x[..., :1])], -1)


def directions(like: Tensor) -> Tensor:
    """Vectors of length 1 in directions at random, as many and as long as ``like``, ``(*, D)``."""
    return torch.nn.functional.normalize(torch.randn_like(like), dim=-1)


def log_area(features: int) -> float:
    """The logarithm of the area of the unit sphere among vectors of so many features."""
    return math.log(2) + features / 2 * math.log(math.pi) - math.lgamma(features / 2)
