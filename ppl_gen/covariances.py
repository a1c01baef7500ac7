"""Covariances of a mixture's components: their sites and priors, and their best values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_gen.component import built, positive
from ppl_gen.ellipses import Axes, Dense
from ppl_gen.mixture_priors import SCALE_PRIORS, ScalePrior, part
from ppl_gen.wishart import Wishart

# Shift, factor and the logarithm of the change of volume, from units of the spread to the data's.
Unit = tuple[Tensor, Tensor, Tensor]


class Form(nn.Module, ABC):
    """What a covariance looks like, whichever component it belongs to.

    Attributes:
        events: Event dimensions of its sites, by name.
        free: How many numbers it takes.
        products: Whether its best value takes the products of features, not their squares alone.
        per_feature: Whether features may differ in scale.
    """

    events: ClassVar[Mapping[str, int]]
    free: int
    products: ClassVar[bool] = True
    per_feature: ClassVar[bool] = True

    @abstractmethod
    def sample(self, spread: Tensor) -> dict[str, Tensor]:
        """Sample its sites; ``spread``: standard deviations of the data, ``(D,)``."""

    @abstractmethod
    def root(self, values: Mapping[str, Tensor]) -> Axes | Dense:
        """The scale matrices that values of the sites make, ``(*, K, *event)`` each."""

    @abstractmethod
    def values(self, covariance: Tensor) -> dict[str, Tensor]:
        """The values of the sites that make these covariances, as :meth:`best` gives them."""

    @abstractmethod
    def best(self, scatter: Tensor, floor: float) -> Tensor:
        """The covariances of highest likelihood.

        Under the constraint that no eigenvalue is below ``floor ** 2``, raising those of the
        scatter that are is the exact maximum, so that a likelihood which EM climbs never falls.

        Args:
            scatter: Mean squares and products about the centre; ``(K, D, D)``, or ``(K, D)``
                where only the squares matter.
            floor: The least standard deviation in any direction.
        """

    @abstractmethod
    def units(self, spread: Tensor) -> dict[str, Unit]:
        """What leads from units of the spread to those of the data, by name of the site."""


class Round(Form):
    """One variance for all directions.

    Args:
        features: Size of an observation.
        prior: Law of the standard deviation.
    """

    events: ClassVar = {"scale": 0}
    products: ClassVar = False
    per_feature: ClassVar = False

    def __init__(self, features: int, prior: ScalePrior) -> None:
        super().__init__()
        self.features, self.prior, self.free = features, prior, 1

    def sample(self, spread: Tensor) -> dict[str, Tensor]:
        return {"scale": pyro.sample("scale", self.prior(spread[0]))}

    def root(self, values: Mapping[str, Tensor]) -> Axes:
        return Axes(values["scale"].unsqueeze(-1).expand(*values["scale"].shape, self.features))

    def values(self, covariance: Tensor) -> dict[str, Tensor]:
        return {"scale": covariance[..., 0].sqrt()}

    def best(self, scatter: Tensor, floor: float) -> Tensor:
        return scatter.mean(-1, keepdim=True).clamp(min=floor**2).expand_as(scatter)

    def units(self, spread: Tensor) -> dict[str, Unit]:
        return {"scale": _stretch(spread[0])}


class Diagonal(Form):
    """A variance for each feature, without correlations.

    Args:
        features: Size of an observation.
        prior: Law of the standard deviations.
    """

    events: ClassVar = {"scale": 1}
    products: ClassVar = False

    def __init__(self, features: int, prior: ScalePrior) -> None:
        super().__init__()
        self.prior, self.free = prior, features

    def sample(self, spread: Tensor) -> dict[str, Tensor]:
        return {"scale": pyro.sample("scale", self.prior(spread).to_event(1))}

    def root(self, values: Mapping[str, Tensor]) -> Axes | Dense:
        return Axes(values["scale"])

    def values(self, covariance: Tensor) -> dict[str, Tensor]:
        return {"scale": covariance.sqrt()}

    def best(self, scatter: Tensor, floor: float) -> Tensor:
        return scatter.clamp(min=floor**2)

    def units(self, spread: Tensor) -> dict[str, Unit]:
        return {"scale": _stretch(spread)}


class Correlated(Form):
    r"""Standard deviations and correlations, each with a law of its own.

    .. math:: \Sigma = \mathrm{diag}(\sigma)\, L L^\top \mathrm{diag}(\sigma), \quad
        p(L L^\top) \propto \det(L L^\top)^{\eta - 1}

    Args:
        features: Size of an observation, at least 2.
        prior: Law of the standard deviations.
        concentration: :math:`\eta`: at 1 every correlation matrix is as likely, above it those
            near the identity are likelier.

    Reference:
        Lewandowski, Kurowicka and Joe (2009), https://doi.org/10.1016/j.jmva.2009.04.008
    """

    events: ClassVar = {"scale": 1, "correlation": 2}

    def __init__(self, features: int, prior: ScalePrior, concentration: float = 1.0) -> None:
        super().__init__()
        self.features, self.prior = features, prior
        self.concentration = positive("concentration", concentration)
        self.free = features * (features + 1) // 2

    def sample(self, spread: Tensor) -> dict[str, Tensor]:
        concentration = spread.new_tensor(self.concentration)
        return {
            "scale": pyro.sample("scale", self.prior(spread).to_event(1)),
            "correlation": pyro.sample(
                "correlation", dist.LKJCholesky(self.features, concentration)
            ),
        }

    def root(self, values: Mapping[str, Tensor]) -> Dense:
        return Dense(values["scale"].unsqueeze(-1) * values["correlation"])

    def values(self, covariance: Tensor) -> dict[str, Tensor]:
        scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        return {
            "scale": scale,
            "correlation": torch.linalg.cholesky(covariance) / scale.unsqueeze(-1),
        }

    def best(self, scatter: Tensor, floor: float) -> Tensor:
        return raised(scatter, floor)

    def units(self, spread: Tensor) -> dict[str, Unit]:
        return {"scale": _stretch(spread)}


class InverseWishart(Form):
    r"""A covariance whose inverse, the precision, has a Wishart law.

    .. math:: \Sigma^{-1} \sim \mathcal{W}(\nu, \Psi^{-1}), \quad
        \mathbb{E}[\Sigma] = \Psi / (\nu - D - 1) = \mathrm{diag}(m s)^2

    Its scales and correlations are tied to each other, and small scales are held back:
    ``lkj`` says less. It is there because it is conjugate, and so often found.

    Args:
        features: Size of an observation, :math:`D`, at least 2.
        prior: Not used: the Wishart law is one of the scales as well.
        df: Degrees of freedom :math:`\nu`, above ``D + 1``; by default ``D + 2``.
        scale: Root of the expected variances, :math:`m`, in units of the data's spread.

    Raises:
        ValueError: If ``df`` is not above ``D + 1``, or ``scale`` not positive.

    Reference:
        Gelman et al. (2013), Bayesian Data Analysis, section 3.6
    """

    events: ClassVar = {"precision": 2}

    def __init__(
        self, features: int, prior: ScalePrior, df: float | None = None, scale: float = 0.5
    ) -> None:
        super().__init__()
        self.df = features + 2.0 if df is None else positive("df", df)
        if self.df <= features + 1:
            raise ValueError(
                f"df must be above the number of features + 1, {features + 1}, got {df}"
            )
        self.scale = positive("scale", scale)
        self.free = features * (features + 1) // 2

    def sample(self, spread: Tensor) -> dict[str, Tensor]:
        features = len(spread)
        root = 1 / (self.scale * spread * (self.df - features - 1) ** 0.5)
        law = Wishart(spread.new_tensor(self.df), scale_tril=root.diag())
        return {"precision": pyro.sample("precision", law)}

    def root(self, values: Mapping[str, Tensor]) -> Dense:
        factor = torch.linalg.cholesky(values["precision"])
        return Dense(torch.linalg.cholesky(torch.cholesky_inverse(factor)))

    def values(self, covariance: Tensor) -> dict[str, Tensor]:
        return {"precision": torch.cholesky_inverse(torch.linalg.cholesky(covariance))}

    def best(self, scatter: Tensor, floor: float) -> Tensor:
        return raised(scatter, floor)

    def units(self, spread: Tensor) -> dict[str, Unit]:
        factor = 1 / (spread.unsqueeze(-1) * spread)
        return {
            "precision": (torch.zeros_like(factor), factor, -(len(spread) + 1) * spread.log().sum())
        }


FORMS: dict[str, type[Form]] = {"lkj": Correlated, "inverse-wishart": InverseWishart}


def raised(scatter: Tensor, floor: float) -> Tensor:
    """Symmetric matrices ``(*, D, D)`` with no eigenvalue below ``floor ** 2``."""
    values, vectors = torch.linalg.eigh((scatter + scatter.mT) / 2)
    return (vectors * values.clamp(min=floor**2).unsqueeze(-2)) @ vectors.mT


def form(kind: str, features: int, scale_prior: str | ScalePrior, covariance_prior: str) -> Form:
    """The form that a kind of covariance has.

    Args:
        kind: full, tied, diagonal or spherical.
        features: Size of an observation.
        scale_prior: A name from ``SCALE_PRIORS``, with arguments if any, or a part.
        covariance_prior: A name from ``FORMS``, with arguments if any, for full and tied.

    Raises:
        ValueError: If a name is unknown.
        TypeError: If a prior is neither a string nor a part.
    """
    scales = part(scale_prior, SCALE_PRIORS, "scale_prior")
    correlated = built(covariance_prior, FORMS, "covariance_prior", features, scales)
    if kind == "spherical":
        return Round(features, scales)
    if kind == "diagonal" or features == 1:
        return Diagonal(features, scales)
    return correlated


def _stretch(spread: Tensor) -> Unit:
    return torch.zeros_like(spread), spread, spread.log().sum()
