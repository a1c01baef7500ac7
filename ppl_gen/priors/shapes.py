"""Priors in the shape of something."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, transforms
from torch.distributions.constraints import Constraint

from ppl_gen import laws
from ppl_gen.component import positive, whole
from ppl_gen.priors.base import Prior


class Flower(Prior):
    r"""A flower: its contours have petals.

    .. math::

        p(z) \propto \exp \left( -\left( \frac{r}{R(\theta)} \right)^{2 k} \right), \qquad
        R(\theta) = s \, (1 + a \cos m \theta)

    in polar coordinates, normalised exactly. Of more than two features, each pair is a flower.

    Args:
        features: Size of ``z``, an even number.
        petals: How many, :math:`m`.
        depth: How far the outline goes in between them, :math:`a`, from 0 to below 1.
        edge: :math:`k`; 1 is as soft as a normal law, more is sharper.
        scale: Mean radius of the outline, :math:`s`.

    Raises:
        ValueError: If ``features`` is not even, ``petals`` is below 1, ``depth`` is not from 0 to
            below 1, or another number is not positive.
    """

    scale: Tensor

    def __init__(
        self,
        features: int,
        petals: int = 6,
        depth: float = 0.6,
        edge: float = 2.0,
        scale: float = 2.0,
    ) -> None:
        super().__init__(features)
        if self.features % 2:
            raise ValueError(
                f"features must be even, two for each flower, got {features}: take one more or less"
            )
        if not 0 <= depth < 1:
            raise ValueError(f"depth must be at least 0 and below 1, got {depth}")
        self.petals, self.depth = whole("petals", petals), float(depth)
        self.edge = positive("edge", edge)
        value = torch.full((self.features // 2,), positive("scale", scale))
        self.register_buffer("scale", value, persistent=False)

    def forward(self) -> TorchDistribution:
        flowers = laws.Flower(self.scale, self.petals, self.depth, self.edge).to_event(1)
        pairs = torch.Size([self.features // 2, 2])
        beside = transforms.ReshapeTransform(pairs, torch.Size([self.features]))
        return dist.TransformedDistribution(flowers, [beside])

    @property
    def support(self) -> Constraint:
        return constraints.real_vector
