"""Posteriors: the last layer of a guide, from features of the data to a law of the code."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import softplus

from ppl_gen.component import Component, built, whole

# Far below any posterior met in practice; in float32 a smaller scale would lose the draw in loc.
SCALE_FLOOR = 1e-4
RAW_SCALE_OF_ONE = math.log(math.e - 1)


class Posterior(Component, ABC):
    """A law of the code given features of the data, through one linear layer.

    At the start every scale is 1 whatever the data, so that no draw is extreme.

    Args:
        inputs: Size of the hidden features.
        features: Size of the code ``z``.

    Raises:
        ValueError: If a size is below 1.
    """

    inputs: int
    features: int

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.inputs = whole("inputs", inputs)
        self.features = whole("features", features)

    @abstractmethod
    def forward(self, hidden: Tensor) -> TorchDistribution:
        """The law of the code.

        Args:
            hidden: Shape ``(*, inputs)``.

        Returns:
            A distribution of batch shape ``(*)`` and event shape ``(features,)``.
        """


class DiagonalNormal(Posterior):
    r"""A normal law without correlations.

    .. math:: q(z \mid h) = \mathcal{N}(z \mid \mu(h), \mathrm{diag}(\sigma(h)^2))

    Args:
        inputs: Size of the hidden features.
        features: Size of ``z``.

    Raises:
        ValueError: If a size is below 1.

    Reference:
        Kingma and Welling (2014), appendix C.2, https://arxiv.org/abs/1312.6114
    """

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(inputs, features)
        self.loc = nn.Linear(inputs, features)
        self.raw_scale = _constant_at_start(inputs, torch.full((features,), RAW_SCALE_OF_ONE))

    def forward(self, hidden: Tensor) -> TorchDistribution:
        scale = softplus(self.raw_scale(hidden)) + SCALE_FLOOR
        return dist.Normal(self.loc(hidden), scale).to_event(1)


class FullNormal(Posterior):
    r"""A normal law with all correlations.

    .. math:: q(z \mid h) = \mathcal{N}(z \mid \mu(h), L(h) L(h)^\top)

    :math:`L` is lower triangular with a positive diagonal.

    Args:
        inputs: Size of the hidden features.
        features: Size of ``z``.

    Raises:
        ValueError: If a size is below 1.

    Reference:
        Kingma and Welling (2019), section 2.5.1, https://arxiv.org/abs/1906.02691
    """

    row: Tensor
    column: Tensor

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(inputs, features)
        row, column = torch.tril_indices(features, features)
        self.register_buffer("row", row, persistent=False)
        self.register_buffer("column", column, persistent=False)
        self.loc = nn.Linear(inputs, features)
        self.raw_tril = _constant_at_start(inputs, (row == column) * RAW_SCALE_OF_ONE)

    def forward(self, hidden: Tensor) -> TorchDistribution:
        raw = self.raw_tril(hidden)
        entries = torch.where(self.row == self.column, softplus(raw) + SCALE_FLOOR, raw)
        scale_tril = entries.new_zeros(*raw.shape[:-1], self.features, self.features)
        scale_tril[..., self.row, self.column] = entries
        return dist.MultivariateNormal(self.loc(hidden), scale_tril=scale_tril)


class Point(Posterior):
    r"""All mass on one code: an estimate without uncertainty.

    .. math:: q(z \mid h) = \delta(z - \mu(h))

    Args:
        inputs: Size of the hidden features.
        features: Size of ``z``.

    Raises:
        ValueError: If a size is below 1.
    """

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(inputs, features)
        self.loc = nn.Linear(inputs, features)

    def forward(self, hidden: Tensor) -> TorchDistribution:
        return dist.Delta(self.loc(hidden), event_dim=1)


class Constrained(Posterior):
    r"""A law of another support than the real numbers: one of these, carried there.

    .. math:: z = T(u), \quad u \sim q(u \mid h)

    :math:`T` is what ``biject_to(support)`` gives: positive codes are log-normal, those between
    bounds logit-normal, and shares of a whole are broken off a stick by logit-normal parts.

    Args:
        law: The law of :math:`u`, of as many features as :math:`T` takes.
        support: Where the code lies.
        features: Size of ``z``.

    Raises:
        ValueError: If a size is below 1.
    """

    def __init__(self, law: Posterior, support: Constraint, features: int) -> None:
        super().__init__(law.inputs, features)
        self.law = law
        self.support = support

    def forward(self, hidden: Tensor) -> TorchDistribution:
        law = self.law(hidden)
        # It remembers the point it carried: found again from the code, it has fewer digits.
        transform = biject_to(self.support).with_cache(1)
        if isinstance(law, dist.Delta):
            return dist.Delta(transform(law.v), event_dim=1)
        return dist.TransformedDistribution(law, [transform])


POSTERIORS: dict[str, type[Posterior]] = {
    "diagonal": DiagonalNormal,
    "full": FullNormal,
    "point": Point,
}


def posterior(
    spec: str, inputs: int, features: int, support: Constraint = constraints.real_vector
) -> Posterior:
    """The posterior that a specification names, with the support of the prior.

    Args:
        spec: A name from ``POSTERIORS``.
        inputs: Size of the hidden features.
        features: Size of the code.
        support: Where the code lies.

    Raises:
        ValueError: If the specification cannot be read, a size is below 1, or no posterior has
            this support.
        TypeError: If ``spec`` is not a string.
    """
    if is_real(support):
        return built(spec, POSTERIORS, "posterior", inputs, features)
    try:
        (free,) = biject_to(support).inverse_shape(torch.Size([features]))
    except NotImplementedError as error:
        raise ValueError(
            f"a posterior must have the support of the prior, but none has {support}: give the "
            "story another prior, or a guide of your own"
        ) from error
    return Constrained(built(spec, POSTERIORS, "posterior", inputs, free), support, features)


def is_real(support: Constraint) -> bool:
    """Whether all real numbers, or vectors of them, are in a support."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


def _constant_at_start(inputs: int, value: Tensor) -> nn.Linear:
    layer = nn.Linear(inputs, len(value))
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(value)
    return layer
