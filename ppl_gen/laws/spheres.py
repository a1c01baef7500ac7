"""Laws on the unit sphere, of densities by its area."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Beta, register_kl

from ppl_gen.laws.base import Law
from ppl_gen.laws.radial import directions, log_area


class OnSphere(Law):
    r"""Every direction is as likely as any other.

    .. math:: p(z) = \frac{\Gamma(D / 2)}{2 \pi^{D / 2}}, \quad \lVert z \rVert = 1

    Args:
        like: A tensor of the shape ``(*, D)`` of a draw, on the device to draw on.
    """

    batched: ClassVar[dict[str, int]] = {"like": 1}
    support: Any = constraints.sphere  # pyright: ignore

    def __init__(self, like: Tensor, validate_args: bool | None = None) -> None:
        self.like = like
        super().__init__(like.shape[:-1], like.shape[-1:], validate_args=validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return directions(self.like.expand(self._extended_shape(torch.Size(sample_shape))))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return -log_area(self.event_shape[0]) * value.new_ones(shape)


class PowerSpherical(Law):
    r"""Directions about one, whose draws have a gradient.

    .. math:: q(z) \propto (1 + \mu^\top z)^\kappa, \quad \lVert z \rVert = 1

    .. math:: \log Z = (\alpha + \beta) \log 2 + \beta \log \pi + \log \Gamma(\alpha)
        - \log \Gamma(\alpha + \beta), \qquad
        \alpha = \tfrac{D - 1}{2} + \kappa, \quad \beta = \tfrac{D - 1}{2}

    The cosine :math:`\mu^\top z` is :math:`2 t - 1` with :math:`t \sim \mathrm{Beta}(\alpha,
    \beta)`; what is across it has no direction of its own; and a reflection takes the first axis
    to :math:`\mu`.

    Args:
        loc: Mean direction :math:`\mu`, of length 1, ``(*, D)``.
        concentration: :math:`\kappa`, ``(*)``.

    Reference:
        De Cao and Aziz (2020), https://arxiv.org/abs/2006.04437
    """

    batched: ClassVar[dict[str, int]] = {"loc": 1, "concentration": 0}
    arg_constraints: ClassVar[dict] = {  # pyright: ignore
        "loc": constraints.sphere,
        "concentration": constraints.positive,
    }
    support: Any = constraints.sphere  # pyright: ignore
    has_rsample = True

    def __init__(
        self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None
    ) -> None:
        self.loc, self.concentration = loc, concentration
        super().__init__(concentration.shape, loc.shape[-1:], validate_args=validate_args)

    @property
    def _cosine(self) -> Beta:
        """The law of half of 1 plus the cosine."""
        beta = torch.full_like(self.concentration, (self.event_shape[0] - 1) / 2)
        return Beta(beta + self.concentration, beta, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return (2 * self._cosine.mean - 1).unsqueeze(-1) * self.loc

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        cosine = 2 * self._cosine.rsample(torch.Size(sample_shape)).unsqueeze(-1) - 1
        sine = (1 - cosine.square()).clamp(min=torch.finfo(cosine.dtype).tiny).sqrt()
        across = directions(self.loc.new_empty(*shape[:-1], shape[-1] - 1))
        drawn = torch.cat([cosine, sine * across], -1)
        axis = torch.zeros_like(self.loc)
        axis[..., 0] = 1
        mirror = axis - self.loc
        mirror = mirror / mirror.norm(dim=-1, keepdim=True).clamp(min=1e-5)
        return drawn - 2 * (drawn * mirror).sum(-1, keepdim=True) * mirror

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        cosine = (self.loc * value).sum(-1)
        # Opposite to the mean direction the density is 0, whose logarithm has no slope.
        near = cosine.clamp(min=-1 + 1e-6)
        return self.concentration * torch.log1p(near) - self._log_normaliser()

    def _log_normaliser(self) -> Tensor:
        law = self._cosine
        alpha, beta = law.concentration1, law.concentration0
        gammas = torch.lgamma(alpha) - torch.lgamma(alpha + beta)
        return (alpha + beta) * math.log(2) + beta * math.log(math.pi) + gammas

    def entropy(self) -> Tensor:
        law = self._cosine
        alpha, beta = law.concentration1, law.concentration0
        expected = math.log(2) + torch.digamma(alpha) - torch.digamma(alpha + beta)
        return self._log_normaliser() - self.concentration * expected


@register_kl(PowerSpherical, OnSphere)
def _from_uniform(law: PowerSpherical, uniform: OnSphere) -> Tensor:
    return log_area(law.event_shape[0]) - law.entropy()


class VonMisesFisher(Law):
    r"""Directions about one, as a normal law would have them on the sphere.

    .. math:: p(z) = \frac{\kappa^{D / 2 - 1}}{(2 \pi)^{D / 2} I_{D / 2 - 1}(\kappa)}
        e^{\kappa \mu^\top z}, \quad \lVert z \rVert = 1

    Drawn by Wood's rejection of cosines, about one in three at worst.

    Args:
        loc: Mean direction :math:`\mu`, of length 1, ``(*, D)``.
        concentration: :math:`\kappa`, a number.

    Reference:
        Wood (1994), https://doi.org/10.1080/03610919408813161
    """

    batched: ClassVar[dict[str, int]] = {"loc": 1}
    arg_constraints: ClassVar[dict] = {"loc": constraints.sphere}  # pyright: ignore
    support: Any = constraints.sphere  # pyright: ignore

    def __init__(
        self, loc: Tensor, concentration: float, validate_args: bool | None = None
    ) -> None:
        self.loc, self.concentration = loc, concentration
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        around, kappa = shape[-1] - 1, self.concentration
        b = around / (2 * kappa + math.sqrt(4 * kappa**2 + around**2))
        x = (1 - b) / (1 + b)
        c = kappa * x + around * math.log(1 - x**2)
        with torch.no_grad():
            cosine = self.loc.new_zeros(shape[:-1])
            proposal = Beta(torch.full_like(cosine, around / 2), around / 2)
            again = torch.ones_like(cosine, dtype=torch.bool)
            while again.any():
                part = proposal.sample()
                proposed = (1 - (1 + b) * part) / (1 - (1 - b) * part)
                cosine = torch.where(again, proposed, cosine)
                gain = kappa * proposed + around * torch.log1p(-x * proposed) - c
                again = again & (gain < torch.rand_like(gain).log())
            # What is across the mean direction, of a direction drawn at random.
            across = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
            across = across - (across * self.loc).sum(-1, keepdim=True) * self.loc
            across = torch.nn.functional.normalize(across, dim=-1)
            cosine = cosine.unsqueeze(-1)
            return cosine * self.loc + (1 - cosine.square()).clamp(min=0).sqrt() * across

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.concentration * (self.loc * value).sum(-1) - self._log_normaliser()

    def _log_normaliser(self) -> float:
        from scipy.special import ive

        half, kappa = self.event_shape[0] / 2, self.concentration
        # Of the Bessel function without the exponential that it grows by.
        bessel = math.log(ive(half - 1, kappa)) + kappa
        return half * math.log(2 * math.pi) + bessel - (half - 1) * math.log(kappa)
