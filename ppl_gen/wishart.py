"""The Wishart law, in a form that guides of unconstrained values can take."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Transform, biject_to, transform_to


class _Precision(type(constraints.positive_definite)):
    """Positive definite matrices, told apart so as to have a bijection of their own."""


precision = _Precision()


class Wishart(dist.Wishart):
    """The Wishart law of torch; its support is mapped to all vectors, one to one.

    Torch maps matrices to positive definite ones, which is not one to one.

    Reference:
        Smith and Hocking (1972), https://doi.org/10.2307/2346290, for how it is drawn from
    """

    support = precision

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  as torch has it
        """Draw by Bartlett's decomposition; torch's own warns of draws that are nearly singular."""
        shape = self._extended_shape(torch.Size(sample_shape))
        features = shape[-1]
        df = self.df.unsqueeze(-1) - torch.arange(features).to(self.df)
        diagonal = torch.distributions.Chi2(df.expand(shape[:-1])).rsample().sqrt()
        noise = torch.randn(shape).to(diagonal).tril(-1) + torch.diag_embed(diagonal)
        factor = self._unbroadcasted_scale_tril @ noise
        return factor @ factor.mT


class LogCholesky(Transform):
    r"""From vectors to positive definite matrices, by a Cholesky factor with a positive diagonal.

    .. math:: P = L L^\top, \quad \log |\partial P / \partial v|
        = D \log 2 + \sum_{i=1}^{D} (D - i + 2) \log L_{ii}

    Reference:
        Pinheiro and Bates (1996), https://doi.org/10.1007/BF00140873
    """

    domain = constraints.real_vector
    codomain = precision
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogCholesky)

    def __hash__(self) -> int:
        return hash(type(self))

    def forward_shape(self, shape: Any) -> torch.Size:
        features = (math.isqrt(8 * shape[-1] + 1) - 1) // 2
        return torch.Size((*shape[:-1], features, features))

    def inverse_shape(self, shape: Any) -> torch.Size:
        return torch.Size((*shape[:-2], shape[-1] * (shape[-1] + 1) // 2))

    def _call(self, x: Tensor) -> Tensor:
        features = self.forward_shape(x.shape)[-1]
        row, column = torch.tril_indices(features, features, device=x.device)
        factor = x.new_zeros(*x.shape[:-1], features, features)
        diagonal = torch.where(row == column, x, 0.0).exp()
        factor[..., row, column] = torch.where(row == column, diagonal, x)
        return factor @ factor.mT

    def _inverse(self, y: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(y)
        row, column = torch.tril_indices(y.shape[-1], y.shape[-1], device=y.device)
        entries = factor[..., row, column]
        # The off-diagonal entries may be negative: no logarithm of theirs, nor its gradient.
        positive = torch.where(row == column, entries, 1.0)
        return torch.where(row == column, positive.log(), entries)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        features = y.shape[-1]
        row, column = torch.tril_indices(features, features, device=x.device)
        times = torch.where(row == column, features + 1 - row, 0).to(x)
        return (times * x).sum(-1) + features * math.log(2)


@biject_to.register(_Precision)
@transform_to.register(_Precision)
def _to_precision(_: Any) -> LogCholesky:
    return LogCholesky()
