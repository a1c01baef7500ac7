"""Laws of one feature after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from ppl_gen.laws.base import Law


class Autoregressive(Law):
    r"""Each feature is a mixture of normals that the features before it decide.

    .. math:: p(z) = \prod_d \sum_k w_{dk} \, \mathcal{N}(z_d \mid \mu_{dk}, \sigma_{dk}^2), \qquad
        (w_d, \mu_d, \sigma_d) = f_d(z_1, \dots, z_{d - 1})

    Args:
        net: From ``(*, D)`` to three of ``(*, K, D)``: logits of the weights, means, scales. What
            stands at ``d`` must not depend on features from ``d`` on.
        like: A tensor of the shape ``(*, D)`` of a draw.
    """

    batched: ClassVar[dict[str, int]] = {"like": 1}
    support: Any = constraints.real_vector  # pyright: ignore

    def __init__(
        self,
        net: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
        like: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        self.net, self.like = net, like
        super().__init__(like.shape[:-1], like.shape[-1:], validate_args=validate_args)

    def _laws(self, value: Tensor) -> MixtureSameFamily:
        """The law of every feature given those before it, batch shape ``(*, D)``."""
        logits, loc, scale = (part.mT for part in self.net(value))
        normals = Normal(loc, scale, validate_args=False)
        weights = Categorical(logits=logits, validate_args=False)
        return MixtureSameFamily(weights, normals, validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            value = self.like.new_zeros(self._extended_shape(torch.Size(sample_shape)))
            for d in range(self.event_shape[0]):
                drawn = self._laws(value).sample()
                value = torch.cat([value[..., :d], drawn[..., d : d + 1], value[..., d + 1 :]], -1)
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._laws(value).log_prob(value).sum(-1)


class Layered(Law):
    r"""A lower layer whose mean and scales the upper one decides.

    .. math:: t \sim \mathcal{N}(0, I), \quad
        b \sim \mathcal{N}(\mu(t), \mathrm{diag}(\sigma(t)^2)), \quad z = (b, t)

    Args:
        below: From upper layers ``(*, T)`` to means and scales of lower ones, ``(*, D - T)`` each.
        like: A tensor of the shape ``(*, D)`` of a draw.
        top: Size of the upper layer, T.
    """

    batched: ClassVar[dict[str, int]] = {"like": 1}
    support: Any = constraints.real_vector  # pyright: ignore
    has_rsample = True

    def __init__(
        self,
        below: Callable[[Tensor], tuple[Tensor, Tensor]],
        like: Tensor,
        top: int,
        validate_args: bool | None = None,
    ) -> None:
        self.below, self.like, self.top = below, like, top
        super().__init__(like.shape[:-1], like.shape[-1:], validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.like.dtype, device=self.like.device)
        lower, upper = noise.tensor_split([shape[-1] - self.top], -1)
        loc, scale = self.below(upper)
        return torch.cat([loc + scale * lower, upper], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        lower, upper = value.tensor_split([value.shape[-1] - self.top], -1)
        loc, scale = self.below(upper)
        of_lower = Normal(loc, scale, validate_args=False).log_prob(lower).sum(-1)
        standard = Normal(torch.zeros_like(upper), torch.ones_like(upper), validate_args=False)
        return of_lower + standard.log_prob(upper).sum(-1)
