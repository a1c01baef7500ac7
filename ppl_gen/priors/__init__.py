"""Priors: laws of the latent code."""

from __future__ import annotations

from ppl_gen.component import built
from ppl_gen.priors.base import ImplicitPrior, Prior
from ppl_gen.priors.bounded import (
    Beta,
    Dirichlet,
    Gamma,
    LogisticNormal,
    StickBreaking,
    Uniform,
)
from ppl_gen.priors.finite import Bernoulli, Categorical, OneHot
from ppl_gen.priors.flows import FlowPrior
from ppl_gen.priors.joined import Product
from ppl_gen.priors.layered import AutoregressivePrior, Hierarchical
from ppl_gen.priors.mixtures import MixturePrior, VampPrior
from ppl_gen.priors.samplers import (
    Checkerboard,
    EightGaussians,
    FlowerSampler,
    Image,
    Pinwheel,
    SwissRoll,
)
from ppl_gen.priors.shapes import Flower
from ppl_gen.priors.spheres import Sphere, VonMisesFisher
from ppl_gen.priors.symmetric import (
    Cauchy,
    Horseshoe,
    Laplace,
    Logistic,
    Normal,
    StandardNormal,
    StudentT,
)

__all__ = [
    "PRIORS",
    "AutoregressivePrior",
    "Bernoulli",
    "Beta",
    "Categorical",
    "Cauchy",
    "Checkerboard",
    "Dirichlet",
    "EightGaussians",
    "FlowPrior",
    "Flower",
    "FlowerSampler",
    "Gamma",
    "Hierarchical",
    "Horseshoe",
    "Image",
    "ImplicitPrior",
    "Laplace",
    "Logistic",
    "LogisticNormal",
    "MixturePrior",
    "Normal",
    "OneHot",
    "Pinwheel",
    "Prior",
    "Product",
    "Sphere",
    "StandardNormal",
    "StickBreaking",
    "StudentT",
    "SwissRoll",
    "Uniform",
    "VampPrior",
    "VonMisesFisher",
    "prior",
]

PRIORS: dict[str, type[Prior]] = {
    "standard-normal": StandardNormal,
    "normal": Normal,
    "laplace": Laplace,
    "student-t": StudentT,
    "cauchy": Cauchy,
    "logistic": Logistic,
    "horseshoe": Horseshoe,
    "mixture": MixturePrior,
    "vamp": VampPrior,
    "flow": FlowPrior,
    "autoregressive": AutoregressivePrior,
    "hierarchical": Hierarchical,
    "uniform": Uniform,
    "beta": Beta,
    "gamma": Gamma,
    "dirichlet": Dirichlet,
    "logistic-normal": LogisticNormal,
    "stick-breaking": StickBreaking,
    "sphere": Sphere,
    "von-mises-fisher": VonMisesFisher,
    "one-hot": OneHot,
    "categorical": Categorical,
    "bernoulli": Bernoulli,
    "product": Product,
    "flower": Flower,
    "flower-sampler": FlowerSampler,
    "swiss-roll": SwissRoll,
    "pinwheel": Pinwheel,
    "eight-gaussians": EightGaussians,
    "checkerboard": Checkerboard,
    "image": Image,
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
