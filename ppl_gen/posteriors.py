"""Posteriors: the last layer of a guide, from features of the data to a law of the code."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint
from torch.nn.functional import normalize, softplus

from ppl_gen import laws, supports
from ppl_gen.component import Component, built, whole, whole_sizes

# Far below any posterior met in practice; in float32 a smaller scale would lose the draw in loc.
SCALE_FLOOR = 1e-4
RAW_SCALE_OF_ONE = math.log(math.e - 1)
# So many values of a code are summed over at most: the decoder is run once for each.
SUMMED = 256


class Posterior(Component, ABC):
    """A law of the code given features of the data, through one linear layer.

    At the start every scale is 1 whatever the data, so that no draw is extreme.

    Args:
        inputs: Size of the hidden features.
        features: Size of the code ``z``.

    Raises:
        ValueError: If a size is below 1.

    Attributes:
        support: Where its draws lie.
        enumerated: Whether all of its values are to be summed over.
    """

    inputs: int
    features: int
    support: Constraint = constraints.real_vector
    enumerated: ClassVar[bool] = False

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.inputs = whole("inputs", inputs)
        self.features = whole("features", features)

    @property
    def infer(self) -> Any:
        """What the guide's site says to Pyro."""
        return {"enumerate": "parallel"} if self.enumerated else {}

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


class Flow(Posterior):
    r"""A normal law carried through learned maps that the data choose: any shape.

    .. math:: z = T_h(u), \quad u \sim \mathcal{N}(\mu(h), \mathrm{diag}(\sigma(h)^2))

    The maps are autoregressive, and quick in the direction of drawing.

    Args:
        inputs: Size of the hidden features.
        features: Size of ``z``.
        transforms: How many maps, one after the other.
        hidden: Units of each hidden layer of a map.

    Raises:
        ValueError: If a size is below 1.

    Reference:
        Kingma et al. (2016), https://arxiv.org/abs/1606.04934
    """

    def __init__(
        self, inputs: int, features: int, transforms: int = 2, hidden: Sequence[int] = (64,)
    ) -> None:
        super().__init__(inputs, features)
        zuko = laws.zuko_flows()
        hidden = whole_sizes("hidden", hidden)
        maps = []
        for number in range(whole("transforms", transforms)):
            order = torch.arange(features) if number % 2 == 0 else torch.arange(features).flip(0)
            one = zuko.MaskedAutoregressiveTransform(
                features, context=inputs, order=order, hidden_features=hidden
            )
            maps.append(one.inv)
        self.flow = zuko.Flow(maps, DiagonalNormal(inputs, features))

    def forward(self, hidden: Tensor) -> TorchDistribution:
        return laws.Flow(self.flow(hidden))


class PowerSpherical(Posterior):
    r"""Directions about one.

    .. math:: q(z \mid h) \propto (1 + \mu(h)^\top z)^{\kappa(h)}, \quad \lVert z \rVert = 1

    Args:
        inputs: Size of the hidden features.
        features: Size of ``z``.

    Raises:
        ValueError: If a size is below 1, or there are fewer than 2 features.

    Reference:
        De Cao and Aziz (2020), https://arxiv.org/abs/2006.04437
    """

    support = constraints.sphere

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(inputs, whole("features", features, least=2))
        self.loc = nn.Linear(inputs, features)
        self.log_concentration = _constant_at_start(inputs, torch.tensor([math.log(features)]))

    def forward(self, hidden: Tensor) -> TorchDistribution:
        # From hardly any, where nothing tells a mean direction, to what single precision resolves.
        concentration = self.log_concentration(hidden).squeeze(-1).clamp(-4, 12).exp()
        return laws.PowerSpherical(normalize(self.loc(hidden), dim=-1), concentration)


class Kumaraswamy(Posterior):
    r"""Shares broken off a stick, the parts by laws like Beta's whose draws have a gradient.

    .. math:: v_d \sim \mathrm{Kumaraswamy}(a_d(h), b_d(h)), \quad
        z_d = v_d \prod_{e < d} (1 - v_e)

    Args:
        inputs: Size of the hidden features.
        features: Size of ``z``.

    Raises:
        ValueError: If a size is below 1, or there are fewer than 2 features.

    Reference:
        Nalisnick and Smyth (2017), https://arxiv.org/abs/1605.06197
    """

    support = constraints.simplex

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(inputs, whole("features", features, least=2))
        start = torch.full((features - 1,), RAW_SCALE_OF_ONE)
        self.raw_first = _constant_at_start(inputs, start)
        self.raw_second = _constant_at_start(inputs, start)

    def forward(self, hidden: Tensor) -> TorchDistribution:
        first, second = (softplus(raw(hidden)) + 1e-2 for raw in (self.raw_first, self.raw_second))
        return laws.KumaraswamySticks(first, second)


class OneOf(Posterior):
    r"""Probabilities of several values; the bound is summed over all of them.

    .. math:: q(z = e_k \mid h) = \pi_k(h)

    Args:
        inputs: Size of the hidden features.
        features: How many values there are, as one-hot vectors.

    Raises:
        ValueError: If a size is below 1.
    """

    support = constraints.one_hot
    enumerated: ClassVar[bool] = True

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(inputs, features)
        self.logits = nn.Linear(inputs, features)

    def forward(self, hidden: Tensor) -> TorchDistribution:
        return dist.OneHotCategorical(logits=self.logits(hidden))


class OneOfDrawn(OneOf):
    """Probabilities of several values, of which one is drawn, with their gradient.

    The gradient is not exact, as that of a sum over the values is, but one run of the decoder
    serves however many they are.

    Args:
        inputs: Size of the hidden features.
        features: How many values there are, as one-hot vectors.

    Raises:
        ValueError: If a size is below 1.

    Reference:
        Bengio et al. (2013), https://arxiv.org/abs/1308.3432
    """

    enumerated: ClassVar[bool] = False

    def forward(self, hidden: Tensor) -> TorchDistribution:
        return laws.StraightThroughOneHot(logits=self.logits(hidden))


class Bits(Posterior):
    r"""Probabilities of zeros and ones; the bound is summed over all combinations.

    .. math:: q(z \mid h) = \prod_d \pi_d(h)^{z_d} (1 - \pi_d(h))^{1 - z_d}

    Args:
        inputs: Size of the hidden features.
        features: Size of ``z``.

    Raises:
        ValueError: If a size is below 1, or there are more than 256 combinations.
    """

    support = constraints.independent(constraints.boolean, 1)
    enumerated: ClassVar[bool] = True

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(inputs, features)
        _check_values("bernoulli", 2, features)
        self.logits = nn.Linear(inputs, features)

    def forward(self, hidden: Tensor) -> TorchDistribution:
        return laws.Features(dist.Bernoulli(logits=self.logits(hidden)))


class BitsDrawn(Posterior):
    """Probabilities of zeros and ones, which are drawn, with their gradient.

    Args:
        inputs: Size of the hidden features.
        features: Size of ``z``.

    Raises:
        ValueError: If a size is below 1.

    Reference:
        Bengio et al. (2013), https://arxiv.org/abs/1308.3432
    """

    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(inputs, features)
        self.logits = nn.Linear(inputs, features)

    def forward(self, hidden: Tensor) -> TorchDistribution:
        return laws.StraightThroughBernoulli(logits=self.logits(hidden)).to_event(1)


class Counts(Posterior):
    r"""Probabilities of whole numbers from 0; the bound is summed over all combinations.

    .. math:: q(z \mid h) = \prod_d \pi_{d z_d}(h)

    Args:
        inputs: Size of the hidden features.
        features: Size of ``z``.
        categories: How many numbers each feature may be.

    Raises:
        ValueError: If a size is below 1, or there are more than 256 combinations.
    """

    enumerated: ClassVar[bool] = True

    def __init__(self, inputs: int, features: int, categories: int) -> None:
        super().__init__(inputs, features)
        self.categories = whole("categories", categories, least=2)
        _check_values("categorical", categories, features)
        self.support = constraints.independent(constraints.integer_interval(0, categories - 1), 1)
        self.logits = nn.Linear(inputs, features * categories)

    def forward(self, hidden: Tensor) -> TorchDistribution:
        logits = self.logits(hidden).unflatten(-1, (self.features, self.categories))
        return laws.Features(laws.Numbers(logits=logits))


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


class Joined(Posterior):
    """Laws of the parts of a code, one beside the other.

    Args:
        parts: The laws.

    Raises:
        ValueError: If there is no part.
    """

    def __init__(self, parts: Sequence[Posterior]) -> None:
        super().__init__(parts[0].inputs, sum(part.features for part in parts))
        self.parts = nn.ModuleList(parts)
        lengths = [part.features for part in parts]
        self.support = constraints.cat([part.support for part in parts], -1, lengths)

    def forward(self, hidden: Tensor) -> TorchDistribution:
        return laws.Joined([part(hidden) for part in self.parts])


POSTERIORS: dict[str, type[Posterior]] = {
    "diagonal": DiagonalNormal,
    "full": FullNormal,
    "flow": Flow,
    "point": Point,
    "power-spherical": PowerSpherical,
    "kumaraswamy": Kumaraswamy,
    "categorical": OneOf,
    "bernoulli": Bits,
    "straight-through": OneOfDrawn,
}
# What a normal law can be carried to.
CARRIED = ("diagonal", "full", "flow", "point")


def heads(support: Constraint) -> dict[str, type[Posterior]]:
    """The posteriors that a support can have, by name, the one that it has by default first."""
    if supports.is_sphere(support):
        return {"power-spherical": PowerSpherical}
    if supports.is_one_hot(support):
        return {"categorical": OneOf, "straight-through": OneOfDrawn}
    if supports.is_binary(support):
        return {"bernoulli": Bits, "straight-through": BitsDrawn}
    if supports.is_whole(support):
        return {"categorical": Counts}
    try:
        biject_to(support)
    except NotImplementedError:
        return {}
    found = {name: POSTERIORS[name] for name in CARRIED}
    return found | ({"kumaraswamy": Kumaraswamy} if supports.is_shares(support) else {})


def posterior(
    spec: str,
    inputs: int,
    features: int,
    support: Constraint = constraints.real_vector,
    otherwise: str = "auto",
) -> Posterior:
    """The posterior that a specification names, with the support of the prior.

    Args:
        spec: A name from ``POSTERIORS``, with arguments if any; or auto, for the one that the
            support has by default: diagonal for real numbers and what they can be carried to,
            power-spherical for directions, and for finitely many values a sum over all of them, or
            straight-through draws where they are too many.
        inputs: Size of the hidden features.
        features: Size of the code.
        support: Where the code lies.
        otherwise: What auto stands for; auto itself leaves it to the support.

    Raises:
        ValueError: If the specification cannot be read, a size is below 1, or the posterior has
            another support.
        TypeError: If ``spec`` is not a string.
    """
    if spec == "auto":
        spec = otherwise
    if supports.is_joined(support):
        return _joined(spec, inputs, support)
    allowed = heads(support)
    if not allowed:
        raise ValueError(
            "a posterior must have the support of the prior, but none has "
            f"{supports.in_words(support)}: give the story another prior, or a guide of your own"
        )
    if spec == "auto":
        spec = next(iter(allowed))
        if spec == "bernoulli" and 2**features > SUMMED:
            spec = "straight-through"
    elif isinstance(spec, str):
        _check_support(spec, support, allowed)
    if supports.is_whole(support):
        categories = int(supports.of_one(support).upper_bound) + 1
        return built(spec, allowed, "posterior", inputs, features, categories)
    if supports.is_real(support) or not isinstance(spec, str) or _name(spec) not in CARRIED:
        return built(spec, allowed, "posterior", inputs, features)
    (free,) = biject_to(support).inverse_shape(torch.Size([features]))
    return Constrained(built(spec, allowed, "posterior", inputs, free), support, features)


def _joined(spec: str, inputs: int, support: Any) -> Joined:
    """Of parts with supports of their own: a posterior that is named serves those that it fits."""
    support = supports.of_one(support)
    chosen, fits = [], spec == "auto"
    for part in support.cseq:
        allowed = heads(part)
        named = spec != "auto" and _name(spec) in allowed
        fits = fits or named
        # Values of one part among others are drawn: a sum would be over this part alone.
        default = "straight-through" if "straight-through" in allowed else "auto"
        chosen.append(spec if named else default)
    if not fits:
        _check_support(spec, support, {n: c for p in support.cseq for n, c in heads(p).items()})
    parts = zip(chosen, support.cseq, support.lengths, strict=True)
    laws_of_parts = [posterior(one, inputs, length, part) for one, part, length in parts]
    for law, part in zip(laws_of_parts, support.cseq, strict=True):
        if law.enumerated:
            raise ValueError(
                "a posterior of joined parts must be drawn with a gradient, but that of "
                f"{supports.in_words(part)} is a sum over values: make it the whole code, or take "
                "one-hot or bernoulli"
            )
    return Joined(laws_of_parts)


def _name(spec: str) -> str:
    return spec.partition("(")[0].strip()


def _check_support(spec: str, support: Constraint, allowed: dict[str, type[Posterior]]) -> None:
    """Refuse a posterior that is known and has another support, with both of them named."""
    name = _name(spec)
    if name in POSTERIORS and name not in allowed:
        own = POSTERIORS[name].support
        raise ValueError(
            f"posterior {name!r} gives {supports.in_words(own)}, but the prior has "
            f"{supports.in_words(support)}: take {', '.join(allowed)}, or another prior"
        )


def _check_values(name: str, of_one: int, features: int) -> None:
    if of_one**features > SUMMED:
        raise ValueError(
            f"posterior {name!r} sums over all values of a code, at most {SUMMED}, got "
            f"{of_one}**{features}: take fewer features, or posterior='straight-through' where "
            "there is one"
        )


def _constant_at_start(inputs: int, value: Tensor) -> nn.Linear:
    layer = nn.Linear(inputs, len(value))
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(value)
    return layer
