"""How much memory a computation takes."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MEMORY = 128 * 2**20


class Bytes(TorchDispatchMode):
    """Count the bytes of what is computed.

    Attributes:
        total: Of everything.
        peak: The most that was held at one moment.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.peak = 0
        self._held = 0
        self._holders: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_storage(leaf)[0] for leaf in tree_leaves((args, kwargs)) if _is_dense(leaf)}
        for leaf in tree_leaves(result):
            if _is_dense(leaf):
                self.total += leaf.numel() * leaf.element_size()
                self._hold(leaf, given)
        return result

    def _hold(self, tensor: Tensor, given: set[int]) -> None:
        """Count a storage for as long as some tensor has it, unless it was there before."""
        key, size = _storage(tensor)
        if key not in self._holders and (key in given or not size):
            return
        if key not in self._holders:
            self._held += size
            self.peak = max(self.peak, self._held)
        self._holders[key] = self._holders.get(key, 0) + 1
        weakref.finalize(tensor, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self._held -= size


def _storage(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def _is_dense(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.layout is torch.strided
