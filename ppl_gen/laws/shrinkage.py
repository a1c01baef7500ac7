"""Laws that draw most features near zero and leave a few alone."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor

from ppl_gen.laws.base import Law


class Horseshoe(Law):
    r"""A normal law whose scale is half-Cauchy, integrated out.

    .. math:: p(x) = \int_0^\infty \mathcal{N}(x \mid 0, \lambda^2 \tau^2)
        \frac{2}{\pi (1 + \lambda^2)} d\lambda
        = \frac{e^{x^2 / 2 \tau^2} E_1(x^2 / 2 \tau^2)}{\tau \sqrt{2 \pi^3}}

    infinite at 0, with tails as heavy as Cauchy's. :math:`E_1` is by Abramowitz and Stegun's
    5.1.53 and 5.1.56, with errors below 3e-7 of it.

    Args:
        scale: :math:`\tau`.

    Reference:
        Carvalho et al. (2010), section 2, https://doi.org/10.1093/biomet/asq017
    """

    batched: ClassVar[dict[str, int]] = {"scale": 0}
    arg_constraints: ClassVar[dict] = {"scale": constraints.positive}  # pyright: ignore
    support: Any = constraints.real  # pyright: ignore
    has_rsample = True

    def __init__(self, scale: Tensor, validate_args: bool | None = None) -> None:
        self.scale = scale
        super().__init__(scale.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        first, second, third = torch.randn((3, *shape), dtype=self.scale.dtype).to(self.scale)
        # The quotient of two normal numbers is Cauchy.
        return self.scale * first * (second / third).abs()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        square = (value / self.scale).square() / 2
        # At 0 itself, where it is infinite, as just beside it.
        square = square.clamp(min=torch.finfo(value.dtype).tiny)
        return _log_scaled_e1(square) - self.scale.log() - 1.5 * math.log(math.pi) - math.log(2) / 2


SMALL = (-0.57721566, 0.99999193, -0.24991055, 0.05519968, -0.00976004, 0.00107857)
LARGE = (0.2677737343, 8.6347608925, 18.0590169730, 8.5733287401, 1.0)
LARGE_BELOW = (3.9584969228, 21.0996530827, 25.6329561486, 9.5733223454, 1.0)


def _log_scaled_e1(x: Tensor) -> Tensor:
    """The logarithm of ``exp(x) E1(x)``, for ``x`` above 0."""
    # Each formula is given numbers of its own range, lest the other's spoil the gradient.
    small, large = x.clamp(max=1), x.clamp(min=1)
    below = (_polynomial(SMALL, small) - small.log()).log() + small
    above = (_polynomial(LARGE, 1 / large, True) / _polynomial(LARGE_BELOW, 1 / large, True)).log()
    return torch.where(x < 1, below, above - large.log())


def _polynomial(coefficients: tuple[float, ...], x: Tensor, falling: bool = False) -> Tensor:
    """Its value by Horner's rule; of ``falling`` powers the constant comes last."""
    total = torch.zeros_like(x)
    for coefficient in coefficients if falling else reversed(coefficients):
        total = total * x + coefficient
    return total
