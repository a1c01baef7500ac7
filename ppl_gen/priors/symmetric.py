"""Priors with one hump about zero: normal, and with heavier tails."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from ppl_gen import laws
from ppl_gen.component import choice, positive
from ppl_gen.priors.base import Prior

Radius = Literal["own", "shared"]


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


class Symmetric(Prior):
    """A law about 0 with a scale for each feature.

    Args:
        features: Size of ``z``.
        scale: Of every feature, or where it begins if it is learned.
        learned: Whether every feature learns a scale of its own.

    Raises:
        ValueError: If ``features`` is below 1, or ``scale`` is not positive.
    """

    loc: Tensor
    log_scale: Tensor

    def __init__(self, features: int, scale: float = 1.0, learned: bool = False) -> None:
        super().__init__(features)
        log_scale = torch.full((features,), math.log(positive("scale", scale)))
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)
        self.register_buffer("loc", torch.zeros(features), persistent=False)


class Normal(Symmetric):
    r"""Normal laws about 0, with scales that are learned.

    .. math:: p(z) = \prod_d \mathcal{N}(z_d \mid 0, \sigma_d^2)

    The only law whose features are independent and which, where the scales are equal, is the same
    in all directions.

    Args:
        features: Size of ``z``.
        scale: Standard deviation of every feature, or where it begins if it is learned.
        learned: Whether every feature learns a scale of its own.

    Raises:
        ValueError: If ``features`` is below 1, or ``scale`` is not positive.
    """

    def __init__(self, features: int, scale: float = 1.0, learned: bool = True) -> None:
        super().__init__(features, scale, learned)

    def forward(self) -> TorchDistribution:
        return dist.Normal(self.loc, self.log_scale.exp()).to_event(1)


class HeavyTailed(Symmetric):
    """A law whose features are independent, or share one radius.

    Independent features of a heavy-tailed law are seldom large together: its contours are no
    spheres, and its features have directions of their own. With a shared radius the law is the
    same in all directions, but for the scales.

    Args:
        features: Size of ``z``.
        scale: Of every feature, or where it begins if it is learned.
        learned: Whether every feature learns a scale of its own.
        radius: Own (independent features) or shared.

    Raises:
        ValueError: If ``features`` is below 1, ``scale`` is not positive, or ``radius`` is neither.
    """

    def __init__(
        self, features: int, scale: float = 1.0, learned: bool = False, radius: Radius = "own"
    ) -> None:
        super().__init__(features, scale, learned)
        self.shared = choice("radius", radius, Radius) == "shared"

    def forward(self) -> TorchDistribution:
        scale = self.log_scale.exp()
        return self._together(scale) if self.shared else self._each(scale).to_event(1)

    @abstractmethod
    def _each(self, scale: Tensor) -> TorchDistribution:
        """Of independent features, batch shape ``(features,)``."""

    @abstractmethod
    def _together(self, scale: Tensor) -> TorchDistribution:
        """Of features that share a radius, event shape ``(features,)``."""


class Laplace(HeavyTailed):
    r"""Laplace laws: of the absolute values, or of the length.

    .. math:: p(z) \propto e^{-\lVert z / b \rVert_1}
        \quad\text{or, with a shared radius,}\quad
        p(z) \propto e^{-\lVert z / b \rVert_2}

    Args:
        features: Size of ``z``.
        scale: :math:`b`, of every feature, or where it begins if it is learned.
        learned: Whether every feature learns a scale of its own.
        radius: Own (independent features) or shared.

    Raises:
        ValueError: If ``features`` is below 1, ``scale`` is not positive, or ``radius`` is neither.
    """

    def _each(self, scale: Tensor) -> TorchDistribution:
        return dist.Laplace(self.loc, scale)

    def _together(self, scale: Tensor) -> TorchDistribution:
        one = torch.ones_like(scale[0])
        return laws.stretched(
            laws.Radial(dist.Gamma(self.features * one, one), self.features), scale
        )


class StudentT(HeavyTailed):
    r"""Student's t laws, each feature with a radius of its own or all with one.

    .. math:: p(z) \propto \prod_d \left(1 + \tfrac{z_d^2}{\nu \sigma_d^2}\right)^{-(\nu + 1) / 2}
        \quad\text{or}\quad
        p(z) \propto \left(1 + \tfrac{1}{\nu} \textstyle\sum_d z_d^2 / \sigma_d^2
        \right)^{-(\nu + D) / 2}

    Args:
        features: Size of ``z``.
        df: Degrees of freedom, :math:`\nu`: the smaller, the heavier the tails.
        scale: :math:`\sigma`, of every feature, or where it begins if it is learned.
        learned: Whether every feature learns a scale of its own.
        radius: Own (independent features) or shared (the multivariate t law).

    Raises:
        ValueError: If ``features`` is below 1, ``df`` or ``scale`` is not positive, or ``radius``
            is neither.
    """

    df: Tensor

    def __init__(
        self,
        features: int,
        df: float = 3.0,
        scale: float = 1.0,
        learned: bool = False,
        radius: Radius = "own",
    ) -> None:
        super().__init__(features, scale, learned, radius)
        self.register_buffer("df", torch.tensor(positive("df", df)), persistent=False)

    def _each(self, scale: Tensor) -> TorchDistribution:
        return dist.StudentT(self.df, self.loc, scale)

    def _together(self, scale: Tensor) -> TorchDistribution:
        return dist.MultivariateStudentT(self.df, self.loc, scale.diag_embed())


class Cauchy(HeavyTailed):
    r"""Cauchy laws: Student's t with one degree of freedom, without a mean.

    Args:
        features: Size of ``z``.
        scale: Half the width at half the height, of every feature, or where it begins if it is
            learned.
        learned: Whether every feature learns a scale of its own.
        radius: Own (independent features) or shared (the multivariate Cauchy law).

    Raises:
        ValueError: If ``features`` is below 1, ``scale`` is not positive, or ``radius`` is neither.
    """

    def _each(self, scale: Tensor) -> TorchDistribution:
        return dist.Cauchy(self.loc, scale)

    def _together(self, scale: Tensor) -> TorchDistribution:
        return dist.MultivariateStudentT(torch.ones_like(scale[0]), self.loc, scale.diag_embed())


class Logistic(HeavyTailed):
    r"""Logistic laws: normal in the middle, with the tails of a Laplace law.

    .. math:: p(z) \propto \prod_d \operatorname{sech}^2 \tfrac{z_d}{2 s_d}
        \quad\text{or, with a shared radius,}\quad
        p(z) \propto \operatorname{sech}^2 \tfrac{\lVert z / s \rVert_2}{2}

    Args:
        features: Size of ``z``.
        scale: :math:`s`, of every feature, or where it begins if it is learned.
        learned: Whether every feature learns a scale of its own.
        radius: Own (independent features) or shared.

    Raises:
        ValueError: If ``features`` is below 1, ``scale`` is not positive, or ``radius`` is neither.
    """

    def _each(self, scale: Tensor) -> TorchDistribution:
        return laws.Logistic(self.loc, scale)

    def _together(self, scale: Tensor) -> TorchDistribution:
        radius = laws.LogisticRadius(torch.ones_like(scale[0]), self.features)
        return laws.stretched(laws.Radial(radius, self.features), scale)


class Horseshoe(Symmetric):
    r"""Most features near zero, a few far from it.

    .. math:: z_d \sim \mathcal{N}(0, \lambda_d^2 s_d^2), \quad \lambda_d \sim \mathrm{C}^+(0, 1)

    with the scales :math:`\lambda` integrated out.

    Args:
        features: Size of ``z``.
        scale: :math:`s`, of every feature, or where it begins if it is learned.
        learned: Whether every feature learns a scale of its own.

    Raises:
        ValueError: If ``features`` is below 1, or ``scale`` is not positive.

    Reference:
        Carvalho et al. (2010), https://doi.org/10.1093/biomet/asq017
    """

    def forward(self) -> TorchDistribution:
        return laws.Horseshoe(self.log_scale.exp()).to_event(1)
