"""Mixtures of many normal laws."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Categorical

from ppl_gen.laws.base import Law


class NormalMixture(Law):
    r"""A mixture of diagonal normals, scored by products of matrices.

    .. math:: p(z) = \sum_{k=1}^{K} w_k \, \mathcal{N}(z \mid \mu_k, \mathrm{diag}(\sigma_k^2))

    The squared distances are linear in :math:`(1, z, z^2)`, so that no array of draws by components
    by features is made. They are differences of larger numbers, and are taken in double precision.

    Args:
        logits: Of the weights, ``(K,)``.
        loc: Means, ``(K, D)``.
        scale: Standard deviations, ``(K, D)``.
    """

    batched: ClassVar[dict[str, int]] = {}
    arg_constraints: ClassVar[dict] = {  # pyright: ignore
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support: Any = constraints.real_vector  # pyright: ignore

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.scale = logits, loc, scale
        super().__init__(torch.Size(), loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return (self.logits.softmax(0) @ self.loc).expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        second = self.logits.softmax(0) @ (self.scale.square() + self.loc.square())
        return second.expand(self.batch_shape + self.event_shape) - self.mean.square()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            chosen = Categorical(logits=self.logits, validate_args=False).sample(shape[:-1])
            noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
            return self.loc[chosen] + self.scale[chosen] * noise

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        precision = self.scale.double().square().reciprocal()
        pulled = precision * self.loc
        weights = self.logits.log_softmax(0).double() - self.scale.double().log().sum(1)
        constant = weights - (pulled * self.loc).sum(1) / 2
        constant = constant - self.event_shape[0] / 2 * math.log(2 * math.pi)
        z = value.double()
        log_joint = constant + z @ pulled.mT - z.square() @ precision.mT / 2
        return log_joint.logsumexp(-1).to(value.dtype)
