"""Laws with elliptical contours, normal or Student-t, singly and mixed; values may be missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Chi2

from ppl_gen.quadratics import Quadratics


class _RealOrMissing(constraints.Constraint):
    """Real numbers, and NaN for a value that is missing."""

    is_discrete = False
    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        return ~value.isinf()


real_or_missing = _RealOrMissing()


@dataclass(frozen=True)
class Moments:
    """What the values of a row that are there say of it, under each component.

    Attributes:
        distance: Squared Mahalanobis distance of the values that are there, ``(*, K)``.
        log_det: Half the log-determinant of their scale matrix, ``(*, K)``.
        filled: The row less ``loc``, missing values at their conditional mean, ``(*, K, D)``.
        patterns: Which of the patterns of missing values a row has, ``(N,)``; None if none misses.
        spread: Conditional scale matrix of the values that are missing, zero elsewhere: of each
            pattern ``(P, K, D, D)``, or of each row its diagonal ``(N, 1, D)``.
    """

    distance: Tensor
    log_det: Tensor
    filled: Tensor
    patterns: Tensor | None = None
    spread: Tensor | None = None


class Axes:
    """Scale matrices with axes along the features.

    Args:
        scale: Their roots, ``(*, K, D)``, or ``(*, 1, D)`` if one serves all components.
    """

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale

    @property
    def covariance(self) -> Tensor:
        """The scale matrices, ``(*, K, D, D)``."""
        return torch.diag_embed(self.scale.square())

    def stretched(self, noise: Tensor, component: int) -> Tensor:
        """Standard noise ``(*, D)`` with the scale of one component."""
        return noise * self.scale[..., component % self.scale.shape[-2], :].to(noise)

    def whitening(self) -> tuple[Tensor, Tensor]:
        """Reciprocal scales, ``(*, K, D)``, and half the log-determinants, ``(*, K)``."""
        return 1 / self.scale, self.scale.log().sum(-1)

    def moments(self, difference: Tensor, seen: Tensor | None) -> Moments:
        """Of rows less ``loc``, ``(*, K, D)``, zero where not ``seen``, ``(*, D)``."""
        scale = self.scale.to(difference)
        distance = (difference / scale).square().sum(-1)
        log_scale = scale.log()
        if seen is None:
            return Moments(distance, log_scale.sum(-1), difference)
        log_det = (log_scale * seen.unsqueeze(-2)).sum(-1)
        missing = (~seen).unsqueeze(-2)
        return Moments(distance, log_det, difference, None, scale.square() * missing)


class Dense:
    """Scale matrices of any direction.

    Args:
        scale_tril: Their Cholesky factors, ``(*, K, D, D)``, or ``(*, 1, D, D)`` if one serves all
            components.
    """

    def __init__(self, scale_tril: Tensor) -> None:
        self.scale_tril = scale_tril

    @property
    def covariance(self) -> Tensor:
        """The scale matrices, ``(*, K, D, D)``."""
        return self.scale_tril @ self.scale_tril.mT

    def stretched(self, noise: Tensor, component: int) -> Tensor:
        """Standard noise ``(*, D)`` with the scale of one component."""
        scale_tril = self.scale_tril[..., component % self.scale_tril.shape[-3], :, :]
        return _times(scale_tril.to(noise), noise)

    def whitening(self) -> tuple[Tensor, Tensor]:
        """Inverse factors, ``(*, K, D, D)``, and half the log-determinants, ``(*, K)``."""
        return _inverse(self.scale_tril)

    def distances(self, x: Tensor, loc: Tensor) -> tuple[Tensor, Tensor]:
        """Squared Mahalanobis distances of complete rows in one product, without the differences.

        Args:
            x: Rows, ``(N, D)``.
            loc: Centres, ``(K, D)``; the factors must have no further dimensions either.

        Returns:
            The distances, ``(N, K)``, and half the log-determinants, ``(K,)``.
        """
        inverse, log_det = self.whitening()
        white = inverse.to(x).flatten(0, -3).expand(len(loc), -1, -1)
        # Near the centres, so that what is subtracted is not much larger than what is left.
        origin = loc.detach().mean(0)
        # What is subtracted is one more column of the product, beside a feature that is always 1.
        maps = torch.cat([white, -_times(white, loc - origin).unsqueeze(-1)], -1)
        # Rows come last, one beside the other: what follows is done to many of them at once.
        rows = torch.cat([(x - origin).mT, x.new_ones(1, len(x))])
        rest = (maps.flatten(0, 1) @ rows).unflatten(0, loc.shape)
        return rest.square().sum(1).mT, log_det.to(x).flatten()

    def moments(self, difference: Tensor, seen: Tensor | None) -> Moments:
        """Of rows less ``loc``, ``(*, K, D)``, zero where not ``seen``, ``(*, D)``."""
        if seen is None:
            inverse, log_det = self.whitening()
            white = _times(inverse.to(difference), difference)
            return Moments(white.square().sum(-1), log_det.to(difference), difference)
        # With rows and columns of a missing value those of the identity, and its difference 0,
        # the formulas of the whole row give those of the values that are there.
        patterns, which = (
            seen.unique(dim=0, return_inverse=True) if seen.dim() == 2 else (seen, None)
        )
        there = patterns[..., None, :, None] & patterns[..., None, None, :]
        covariance = self.covariance
        identity = torch.eye(covariance.shape[-1]).to(covariance)
        inverse, log_det = _inverse(torch.linalg.cholesky(torch.where(there, covariance, identity)))
        of_rows = inverse if which is None else inverse[..., which, :, :, :]
        white = _times(of_rows.to(difference), difference)
        log_det = log_det if which is None else log_det[..., which, :]
        precision = torch.where(there, inverse.mT @ inverse, 0.0)
        slope = covariance @ precision
        of_rows = slope if which is None else slope[..., which, :, :, :]
        filled = _times(of_rows.to(difference), difference)
        distance = white.square().sum(-1)
        spread = covariance - slope @ covariance
        return Moments(distance, log_det.to(difference), filled, which, spread)


class Ellipses:
    """The components of a mixture: K laws, normal or, with ``df``, Student-t.

    Args:
        loc: Their centres, ``(*, K, D)``.
        root: Their scale matrices.
        df: Degrees of freedom, ``(*, K)``; None for normal laws.
        missing: Whether NaN stands for a value that is missing, which is integrated out.

    Reference:
        Little and Rubin (2019), chapter 11, for what is left when values are missing; Kotz and
        Nadarajah (2004), section 1.10, for the Student-t law of some of the values.
    """

    def __init__(
        self, loc: Tensor, root: Axes | Dense, df: Tensor | None = None, missing: bool = False
    ) -> None:
        self.loc = loc
        self.root = root
        self.df = df
        self.missing = missing

    def moments(self, x: Tensor) -> tuple[Moments, Tensor]:
        """:class:`Moments` of rows ``(*, D)``, and how many values each has, ``(*, 1)``."""
        loc = self.loc.to(x)
        if not self.missing:
            return self.root.moments(x.unsqueeze(-2) - loc, None), x.new_tensor([x.shape[-1]])
        seen = ~x.isnan()
        rows = torch.where(seen, x, 0.0).unsqueeze(-2)
        difference = torch.where(seen.unsqueeze(-2), rows - loc, 0.0)
        return self.root.moments(difference, seen), seen.sum(-1, keepdim=True).to(x)

    @cached_property
    def complete(self) -> tuple[Quadratics, Tensor]:
        """Distances to the components, of complete rows, and half their log-determinants, ``(K,)``.

        For components without further dimensions to the left, in double precision.
        """
        white, log_det = self.root.whitening()
        loc, event = self.loc.flatten(0, -2), white.shape[log_det.dim() :]
        white = white.expand(*self.loc.shape[:-1], *event).reshape(len(loc), *event)
        return Quadratics(loc, white), log_det.expand(self.loc.shape[:-1]).flatten()

    def log_density(self, distance: Tensor, log_det: Tensor, values: Tensor) -> Tensor:
        """Of each component, in nats, ``(*, K)``.

        Args:
            distance: Squared Mahalanobis distances, ``(*, K)``.
            log_det: Half the log-determinants of the scale matrices, ``(*, K)``; less the
                logarithms of weights, if the density is to be joint with the component.
            values: How many values a row has, ``(*, 1)``.
        """
        if self.df is None:
            constant = -log_det - values * (math.log(2 * math.pi) / 2)
            return torch.add(constant, distance, alpha=-0.5)
        df = self.df.to(values)
        constant = (
            torch.lgamma((df + values) / 2)
            - torch.lgamma(df / 2)
            - values / 2 * (df * math.pi).log()
            - log_det
        )
        return constant - (df + values) / 2 * torch.log1p(distance / df)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-densities of rows ``(*, D)`` under each component, in nats, ``(*, K)``."""
        alone = self.loc.shape[:-2].numel() == 1 and x.dim() == 2
        if alone and isinstance(self.root, Dense) and not self.missing:
            loc = self.loc.to(x).flatten(0, -2)
            return self.log_density(*self.root.distances(x, loc), x.new_tensor([x.shape[-1]]))
        moments, values = self.moments(x)
        return self.log_density(moments.distance, moments.log_det, values)

    def draw(self, index: Tensor) -> Tensor:
        """One value of the component that each entry of ``index`` names, ``(*, D)``."""
        noise = torch.randn(*index.shape, self.loc.shape[-1]).to(self.loc)
        drawn = torch.zeros_like(noise)
        for k in range(self.loc.shape[-2]):
            each = self.root.stretched(noise, k)
            if self.df is not None:
                df = self.df[..., k].expand(index.shape)
                each = each * (df / Chi2(df).sample()).sqrt()[..., None].to(each)
            drawn = torch.where((index == k)[..., None], self.loc[..., k, :] + each, drawn)
        return drawn

    def means(self) -> Tensor:
        """The mean of each component, NaN where it has none, ``(*, K, D)``."""
        if self.df is None:
            return self.loc
        return torch.where(self.df[..., None] > 1, self.loc, torch.nan)


class _OfEllipses(TorchDistribution):
    """What a law of one component and a mixture of all have in common."""

    arg_constraints: Any = {}  # noqa: RUF012  # pyright: ignore[reportIncompatibleMethodOverride]
    components: Ellipses

    @constraints.dependent_property
    def support(self) -> Any:
        base = real_or_missing if self.components.missing else constraints.real
        return constraints.independent(base, 1)

    def _begin(self, batch_shape: Size) -> None:
        features = self.components.loc.shape[-1:]
        TorchDistribution.__init__(self, batch_shape, features)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        # The parameters stay small: a density of N rows needs no N copies of a matrix.
        new: Any = self._get_checked_instance(type(self), _instance)
        new.__dict__.update(self.__dict__)
        new._batch_shape = Size(batch_shape)
        return new

    def _checked(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return value

    def _of_batch(self, value: Tensor, terms: Tensor) -> Tensor:
        return terms.expand(torch.broadcast_shapes(self.batch_shape, value.shape[:-1], terms.shape))


class Mixture(_OfEllipses):
    r"""A mixture of elliptical laws, which component it was summed out.

    .. math:: p(x) = \sum_{k=1}^{K} w_k \, p_k(x)

    Args:
        weights: Probabilities of the components, ``(*, K)``.
        components: The components.
    """

    def __init__(self, weights: Tensor, components: Ellipses) -> None:
        self.weights = weights
        self.components = components
        self._begin(torch.broadcast_shapes(weights.shape[:-1], components.loc.shape[:-2]))

    def log_prob(self, value: Tensor) -> Tensor:
        log_density = self.components.log_prob(self._checked(value))
        return self._of_batch(value, (self.weights.log().to(value) + log_density).logsumexp(-1))

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  as torch has it
        with torch.no_grad():
            shape = self._extended_shape(Size(sample_shape))[:-1]
            probabilities = self.weights.expand(*shape, -1)
            index = torch.distributions.Categorical(probabilities).sample()
            return self.components.draw(index)

    @property
    def mean(self) -> Tensor:
        mean = (self.weights.unsqueeze(-1) * self.components.means()).sum(-2)
        return mean.expand(*self.batch_shape, -1)


class Assigned(_OfEllipses):
    """The law of one component among several.

    Args:
        index: Which component, ``(*)``.
        components: The components.
    """

    def __init__(self, index: Tensor, components: Ellipses) -> None:
        self.index = index
        self.components = components
        self._begin(torch.broadcast_shapes(index.shape, components.loc.shape[:-2]))

    def log_prob(self, value: Tensor) -> Tensor:
        each = self.components.log_prob(self._checked(value))
        shape = torch.broadcast_shapes(self.index.shape, each.shape[:-1])
        index = self.index.expand(shape).unsqueeze(-1)
        return self._of_batch(value, each.expand(*shape, -1).gather(-1, index).squeeze(-1))

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  as torch has it
        with torch.no_grad():
            shape = self._extended_shape(Size(sample_shape))[:-1]
            return self.components.draw(self.index.expand(shape))

    @property
    def mean(self) -> Tensor:
        means = self.components.means()
        index = self.index.expand(self.batch_shape)[..., None, None]
        means = means.expand(*self.batch_shape, *means.shape[-2:])
        return means.gather(-2, index.expand(*self.batch_shape, 1, means.shape[-1])).squeeze(-2)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    # Where the matrices are the same for all rows this is one product per component.
    return torch.einsum("...ij,...j->...i", matrix, vector)


def _inverse(scale_tril: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse Cholesky factors, and half the log-determinants of what they are factors of."""
    identity = torch.eye(scale_tril.shape[-1]).to(scale_tril).expand_as(scale_tril)
    inverse = torch.linalg.solve_triangular(scale_tril, identity, upper=False)
    return inverse, scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
