"""What the laws here share."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor


class Law(TorchDistribution):
    """A law that is expanded by expanding what it is made of.

    Attributes:
        batched: What has the batch shape, by the number of dimensions an event of it has: tensors,
            or other laws, whose number is not read.
    """

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore
    batched: ClassVar[dict[str, int]]

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        batch_shape = torch.Size(batch_shape)
        new: Any = self._get_checked_instance(type(self), _instance)
        new.__dict__.update(self.__dict__)
        for name, event_dim in self.batched.items():
            value = getattr(self, name)
            if isinstance(value, Tensor):
                value = value.expand(batch_shape + value.shape[value.dim() - event_dim :])
            else:
                value = value.expand(batch_shape)
            new.__dict__[name] = value
        new._batch_shape = batch_shape
        return new
