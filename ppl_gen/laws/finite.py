"""Laws of finitely many values, to sum over or to draw with a gradient."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_gen.laws.base import Law


class Features(Law):
    """Independent features of finitely many values each, all combinations of which can be named.

    Args:
        each: Law of a feature, batch shape ``(*, D)``, of a number each.
    """

    batched: ClassVar[dict[str, int]] = {}
    has_enumerate_support = True

    def __init__(self, each: Any, validate_args: bool | None = None) -> None:
        self.each = each
        super().__init__(each.batch_shape[:-1], each.batch_shape[-1:], validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore
        return self.each.has_rsample

    @property
    def support(self) -> Any:  # pyright: ignore
        return dist.constraints.independent(self.each.support, 1)

    @property
    def mean(self) -> Tensor:
        return self.each.mean

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.each.sample(torch.Size(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.each.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.each.log_prob(value).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every combination of values once, ``(V, *, D)``, or ``(V, 1, ..., D)``."""
        features = self.event_shape[0]
        of_one = self.each.enumerate_support(expand=False).flatten()
        combined = torch.cartesian_prod(*([of_one] * features)).reshape(-1, features)
        values = combined.reshape(-1, *(1 for _ in self.batch_shape), features)
        return values.expand(-1, *self.batch_shape, -1) if expand else values

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        shape = torch.Size(batch_shape)
        new: Any = super().expand(shape, _instance)
        new.each = self.each.expand(shape + self.event_shape)
        return new


class StraightThroughBernoulli(dist.Bernoulli):
    """Draws of 0 and 1, with the gradient that their probabilities have.

    Reference:
        Bengio et al. (2013), section 4, https://arxiv.org/abs/1308.3432
    """

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        drawn = self.sample(torch.Size(sample_shape))
        return drawn + (self.probs - self.probs.detach())


class StraightThroughOneHot(dist.OneHotCategorical):
    """Draws of one of several values, with the gradient that their probabilities have.

    Reference:
        Bengio et al. (2013), section 4, https://arxiv.org/abs/1308.3432
    """

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        probs = self.probs
        drawn = self._categorical.sample(torch.Size(sample_shape)).unsqueeze(-1)
        # By comparison, where torch's own one_hot looks at values.
        places = torch.arange(probs.shape[-1], device=probs.device)
        return (drawn == places).to(probs) + (probs - probs.detach())


class Numbers(dist.Categorical):
    """Whole numbers from 0, as the floating-point numbers that a network reads."""

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return super().sample(torch.Size(sample_shape)).to(self.logits)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return super().enumerate_support(expand).to(self.logits)

    @property
    def mean(self) -> Tensor:
        numbers = torch.arange(self.logits.shape[-1], device=self.logits.device)
        return (self.probs * numbers).sum(-1)
