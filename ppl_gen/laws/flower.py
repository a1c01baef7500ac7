"""A law in the plane whose contours are flowers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor

from ppl_gen.laws.base import Law


class Flower(Law):
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

    batched: ClassVar[dict[str, int]] = {"scale": 0}
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
