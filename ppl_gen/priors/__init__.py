"""Priors: laws of the latent code."""

from __future__ import annotations

from ppl_gen.component import built
from ppl_gen.priors.base import Prior
from ppl_gen.priors.bounded import (
    Beta,
    Dirichlet,
    Gamma,
    LogisticNormal,
    StickBreaking,
    Uniform,
)
from ppl_gen.priors.mixtures import MixturePrior
from ppl_gen.priors.shapes import Flower
from ppl_gen.priors.symmetric import (
    Cauchy,
    Laplace,
    Logistic,
    Normal,
    StandardNormal,
    StudentT,
)

__all__ = [
    "PRIORS",
    "Beta",
    "Cauchy",
    "Dirichlet",
    "Flower",
    "Gamma",
    "Laplace",
    "Logistic",
    "LogisticNormal",
    "MixturePrior",
    "Normal",
    "Prior",
    "StandardNormal",
    "StickBreaking",
    "StudentT",
    "Uniform",
    "prior",
]

PRIORS: dict[str, type[Prior]] = {
    "standard-normal": StandardNormal,
    "normal": Normal,
    "laplace": Laplace,
    "student-t": StudentT,
    "cauchy": Cauchy,
    "logistic": Logistic,
    "mixture": MixturePrior,
    "uniform": Uniform,
    "beta": Beta,
    "gamma": Gamma,
    "dirichlet": Dirichlet,
    "logistic-normal": LogisticNormal,
    "stick-breaking": StickBreaking,
    "flower": Flower,
}


def prior(spec: str | Prior, features: int) -> Prior:
    """The prior that a specification names, or the given one if it has the right size.

    Args:
        spec: A name from ``PRIORS``, with arguments if any, such as
            ``"mixture(components=50)"``, or a prior.
        features: Size of the code.

    Raises:
        ValueError: If the specification cannot be read, or the prior has other ``features``.
        TypeError: If ``spec`` is neither a string nor a prior.
    """
    if not isinstance(spec, Prior):
        return built(spec, PRIORS, "prior", features)
    if spec.features != features:
        raise ValueError(
            f"prior must have as many features as the code, {features}, got {spec.features}"
        )
    return spec
