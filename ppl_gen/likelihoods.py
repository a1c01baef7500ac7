"""Likelihoods: laws of an observation, given what the decoder made of the code."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_gen.component import Component, built, whole, whole_sizes


class Likelihood(Component, ABC):
    """A law of one observation: a module that turns a decoded tensor into a distribution.

    Args:
        shape: Shape of one observation.
        outputs: Numbers the decoder gives for each element of the observation.

    Raises:
        ValueError: If ``shape`` is empty or holds a size below 1.
        TypeError: If ``shape`` is not a sequence of whole numbers.
    """

    shape: tuple[int, ...]
    outputs: int

    def __init__(self, shape: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.shape = whole_sizes("shape", shape)
        self.outputs = outputs

    @abstractmethod
    def forward(self, decoded: Tensor) -> TorchDistribution:
        """The law of the observation.

        Args:
            decoded: Shape ``(*, outputs, *shape)``.

        Returns:
            A distribution of batch shape ``(*)`` and event shape ``shape``.

        Raises:
            ValueError: If ``decoded`` does not end in ``(outputs, *shape)``.
        """

    @abstractmethod
    def start(self, x: Tensor) -> Tensor:
        """What a decoder should give at first: the best law that is the same for all data.

        A learned scale of the likelihood's own begins there as well. Without it a code spends its
        first steps on the mean of the data, and dimensions of it that are not needed for that die:
        of 50 on MNIST, 12 stayed active instead of 22 (benchmarks/RESULTS.md).

        Args:
            x: Observations, shape ``(N, *shape)``.

        Returns:
            Shape ``(outputs, *shape)``.
        """

    def mean(self, decoded: Tensor) -> Tensor:
        """The expected observation, shape ``(*, *shape)``, for ``(*, outputs, *shape)``."""
        return self(decoded).mean

    def numbers(self, decoded: Tensor) -> tuple[Tensor, ...]:
        """Split ``(*, outputs, *shape)`` into ``outputs`` tensors of shape ``(*, *shape)``."""
        expected = (self.outputs, *self.shape)
        if decoded.shape[-len(expected) :] != expected:
            raise ValueError(
                f"decoded must end in the shape {expected}, got {tuple(decoded.shape)}"
            )
        return decoded.unbind(-len(expected))


class Bernoulli(Likelihood):
    r"""Every element is 0 or 1, independently given the code.

    .. math:: p(x \mid z) = \prod_d \mathrm{Bernoulli}(x_d \mid \mathrm{sigmoid}(\ell_d(z)))

    Args:
        shape: Shape of one observation.
        grey: Whether values between 0 and 1 are scored as well, each as the mean log-likelihood
            over its binarisations, :math:`x_d \log p_d + (1 - x_d) \log(1 - p_d)`. That is no
            density of grey values: compare it with the same formula only.

    Raises:
        ValueError: If ``shape`` is empty or holds a size below 1.
        TypeError: If ``grey`` is not a truth value.
    """

    def __init__(self, shape: Sequence[int], grey: bool = False) -> None:
        super().__init__(shape, outputs=1)
        if not isinstance(grey, bool):
            raise TypeError(f"grey must be True or False, got {grey!r}")
        self.grey = grey

    def forward(self, decoded: Tensor) -> TorchDistribution:
        (logits,) = self.numbers(decoded)
        validate = False if self.grey else None
        return dist.Bernoulli(logits=logits, validate_args=validate).to_event(len(self.shape))

    def start(self, x: Tensor) -> Tensor:
        return x.float().mean(0).clamp(1e-3, 1 - 1e-3).logit()[None]


class Gaussian(Likelihood):
    r"""Every element is a real number, seen through normal noise.

    .. math:: p(x \mid z) = \prod_d \mathcal{N}(x_d \mid \mu_d(z), \sigma^2)

    A learned :math:`\sigma` is ``floor + softplus(.)``. Without the floor, one element that is
    constant in the data, such as a black corner pixel, would be decoded without error, its
    :math:`\sigma` would go to 0 and the likelihood to infinity.

    Args:
        shape: Shape of one observation.
        scale: The standard deviation, in units of the data: a positive number keeps it fixed,
            ``"learned"`` learns one for all elements, ``"per-pixel"`` lets the decoder give
            :math:`\sigma_d(z)` beside :math:`\mu_d(z)`.
        floor: Lower bound of a learned standard deviation, in units of the data.

    Raises:
        ValueError: If ``scale`` is none of these, ``floor`` is not positive, or ``shape`` is
            empty or holds a size below 1.

    Reference:
        Rybkin et al. (2021), the learned common scale, https://arxiv.org/abs/2006.13202
    """

    def __init__(
        self, shape: Sequence[int], scale: float | str = "learned", floor: float = 0.01
    ) -> None:
        fixed = not isinstance(scale, str) and 0 < scale < math.inf
        if not (fixed or scale in ("learned", "per-pixel")):
            raise ValueError(
                f"scale must be a positive number, 'learned' or 'per-pixel', got {scale!r}"
            )
        if not 0 < floor < math.inf:
            raise ValueError(f"floor must be positive, got {floor}")
        super().__init__(shape, outputs=2 if scale == "per-pixel" else 1)
        self.floor = floor
        self.scale = float(scale) if fixed else scale
        if scale == "learned":
            self.raw_scale = nn.Parameter(torch.zeros(()))

    def forward(self, decoded: Tensor) -> TorchDistribution:
        loc, *per_pixel = self.numbers(decoded)
        if isinstance(self.scale, str):
            raw_scale = per_pixel[0] if per_pixel else self.raw_scale
            scale = self.floor + softplus(raw_scale)
        else:
            scale = self.scale
        return dist.Normal(loc, scale).to_event(len(self.shape))

    def start(self, x: Tensor) -> Tensor:
        loc = x.float().mean(0)
        raw_scale = _inverse_softplus((x - loc).square().mean().sqrt() - self.floor)
        if self.scale == "learned":
            with torch.no_grad():
                self.raw_scale.copy_(raw_scale)
        return torch.stack([loc, raw_scale.expand_as(loc)][: self.outputs])


class Categorical(Likelihood):
    r"""Every element is one of ``categories`` values, 0 to ``categories - 1``.

    .. math:: p(x \mid z) = \prod_d \mathrm{softmax}(\ell_d(z))_{x_d}

    Args:
        shape: Shape of one observation.
        categories: Number of values an element can take.

    Raises:
        ValueError: If ``categories`` is below 2, or ``shape`` is empty or holds a size below 1.
    """

    def __init__(self, shape: Sequence[int], categories: int) -> None:
        super().__init__(shape, outputs=whole("categories", categories, least=2))

    def forward(self, decoded: Tensor) -> TorchDistribution:
        logits = torch.stack(self.numbers(decoded), dim=-1)
        return dist.Categorical(logits=logits).to_event(len(self.shape))

    def mean(self, decoded: Tensor) -> Tensor:
        weights = torch.stack(self.numbers(decoded), dim=-1).softmax(-1)
        return weights @ torch.arange(self.outputs).to(weights)

    def start(self, x: Tensor) -> Tensor:
        counts = torch.stack([(x == value).float().sum(0) for value in range(self.outputs)])
        return ((counts + 1) / (len(x) + self.outputs)).log()


class Poisson(Likelihood):
    r"""Every element is a count: 0, 1, 2 and so on.

    .. math:: p(x \mid z) = \prod_d \mathrm{Poisson}(x_d \mid \mathrm{softplus}(\ell_d(z)))

    Args:
        shape: Shape of one observation.

    Raises:
        ValueError: If ``shape`` is empty or holds a size below 1.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, outputs=1)

    def forward(self, decoded: Tensor) -> TorchDistribution:
        (raw_rate,) = self.numbers(decoded)
        # softplus underflows to 0, where the log likelihood of any count but 0 is minus infinity.
        rate = softplus(raw_rate) + torch.finfo(raw_rate.dtype).eps
        return dist.Poisson(rate).to_event(len(self.shape))

    def start(self, x: Tensor) -> Tensor:
        return _inverse_softplus(x.float().mean(0))[None]


class Completed(dist.MaskedDistribution):
    """A law of elements of which some are known: these are as they are, and cost nothing.

    Args:
        law: The law of every element by itself, batch shape ``(*)``.
        unknown: Which elements are to be drawn and scored, of a shape that broadcasts with it.
        known: Values of the others, of a shape that broadcasts with it.
    """

    arg_constraints: ClassVar[dict] = {}

    def __init__(self, law: TorchDistribution, unknown: Tensor, known: Tensor) -> None:
        super().__init__(law, unknown)
        self.unknown = unknown.expand(self.batch_shape)
        self.known = known.expand(self.batch_shape)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Completed:
        """The same law, once for each entry of a larger batch."""
        shape = torch.Size(batch_shape)
        law = self.base_dist.expand(shape)
        return Completed(law, self.unknown.expand(shape), self.known.expand(shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw what is unknown, beside what is known."""
        return self._filled(self.base_dist.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """As :meth:`sample`, with a gradient."""
        return self._filled(self.base_dist.rsample(torch.Size(sample_shape)))

    @property
    def mean(self) -> Tensor:
        """What is expected: of known elements their value."""
        return self._filled(self.base_dist.mean)

    @property
    def variance(self) -> Tensor:
        """That of unknown elements; 0 of known ones."""
        return torch.where(self.unknown, self.base_dist.variance, 0)

    def _filled(self, values: Tensor) -> Tensor:
        return torch.where(self.unknown, values, self.known.to(values.dtype))


def completed(law: TorchDistribution, unknown: Tensor, known: Tensor) -> TorchDistribution:
    """The law of an observation of which some elements are known.

    Args:
        law: Of batch shape ``(*)`` and event shape ``shape``, independent among elements.
        unknown: Which elements are not known, ``(*, *shape)``, True or False.
        known: Their values, ``(*, *shape)``; those of unknown elements are not looked at.

    Returns:
        A law of the same shapes that scores unknown elements only, and draws only them.

    Raises:
        ValueError: If the law is not one of independent elements.
    """
    if not isinstance(law, dist.Independent) or law.base_dist.event_shape:
        raise ValueError(
            "the seen part of an observation can be told apart only if the likelihood is of "
            f"independent elements, got {type(law).__name__}: take another likelihood"
        )
    events = law.reinterpreted_batch_ndims
    return Completed(law.base_dist, unknown, known).to_event(events)


def _inverse_softplus(value: Tensor) -> Tensor:
    """Where softplus gives ``value``, or a little if that is not positive."""
    value = value.clamp(min=1e-3)
    return value + torch.log(-torch.expm1(-value))


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "categorical": Categorical,
    "poisson": Poisson,
}


def likelihood(spec: str | Likelihood, shape: Sequence[int]) -> Likelihood:
    """The likelihood that a specification names, or the given one if it has the right shape.

    Args:
        spec: A name from ``LIKELIHOODS``, with arguments if any, such as
            ``"gaussian(scale='per-pixel')"``, or a likelihood.
        shape: Shape of one observation.

    Raises:
        ValueError: If the specification cannot be read, or the likelihood has another shape.
        TypeError: If ``spec`` is neither a string nor a likelihood.
    """
    if not isinstance(spec, Likelihood):
        return built(spec, LIKELIHOODS, "likelihood", shape)
    if spec.shape != tuple(shape):
        raise ValueError(
            f"likelihood must have the shape of an observation, {tuple(shape)}, got {spec.shape}"
        )
    return spec


def for_support(support: str, categories: int | None = None) -> str:
    """The likelihood to take for data with this support, as a specification.

    Args:
        support: ``"binary"``, ``"unit interval"``, ``"real"``, ``"counts"`` or ``"categories"``.
        categories: Number of values an element can take, for ``"categories"``.

    Raises:
        ValueError: If the support is unknown, or is ``"categories"`` without their number.
    """
    if support == "categories":
        if categories is None:
            raise ValueError("categories must be given for the support 'categories', got None")
        return f"categorical(categories={categories})"
    specs = {
        "binary": "bernoulli",
        "unit interval": "gaussian",
        "real": "gaussian",
        "counts": "poisson",
    }
    if support not in specs:
        raise ValueError(f"support must be one of {', '.join(specs)}, categories, got {support!r}")
    return specs[support]
