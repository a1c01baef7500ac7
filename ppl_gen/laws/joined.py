"""A law of parts that are independent, one beside the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence, register_kl


class Joined(TorchDistribution):
    r"""Independent parts of a vector.

    .. math:: p(z) = \prod_i p_i(z_i), \quad z = (z_1, z_2, \dots)

    Args:
        parts: Laws of one batch shape ``(*)``, event shapes ``(D_i,)``.
    """

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore

    def __init__(
        self, parts: Sequence[TorchDistribution], validate_args: bool | None = None
    ) -> None:
        self.parts = tuple(parts)
        self.lengths = [part.event_shape[0] for part in parts]
        super().__init__(
            parts[0].batch_shape, torch.Size([sum(self.lengths)]), validate_args=validate_args
        )

    @property
    def has_rsample(self) -> bool:  # pyright: ignore
        return all(part.has_rsample for part in self.parts)

    @property
    def support(self) -> Any:  # pyright: ignore
        return constraints.cat([part.support for part in self.parts], -1, self.lengths)

    @property
    def mean(self) -> Tensor:
        return torch.cat([part.mean for part in self.parts], -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return torch.cat([part.sample(torch.Size(sample_shape)) for part in self.parts], -1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return torch.cat([part.rsample(torch.Size(sample_shape)) for part in self.parts], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        values = value.split(self.lengths, -1)
        return sum(
            (part.log_prob(z) for part, z in zip(self.parts, values, strict=True)),
            value.new_zeros(()),
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Joined:
        shape = torch.Size(batch_shape)
        return Joined([part.expand(shape) for part in self.parts], self._validate_args)


@register_kl(Joined, Joined)
def _part_by_part(law: Joined, other: Joined) -> Tensor:
    if law.lengths != other.lengths:
        raise NotImplementedError
    pairs = zip(law.parts, other.parts, strict=True)
    return sum((kl_divergence(q, p) for q, p in pairs), torch.zeros(()))
