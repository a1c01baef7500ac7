"""A program that is written for one draw, run for many at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


def mapped(one: Callable[[dict[str, Tensor]], Any], draws: int, fixed: Mapping[str, Tensor]) -> Any:
    """What a function gives for each of many draws, by ``torch.vmap``.

    Each draw has noise of its own.

    Args:
        one: Given values of one draw, ``(1, ...)`` by name, tensors ``(1, ...)``, in any tree.
        draws: How many.
        fixed: What it is given, ``(S, ...)`` by name.

    Returns:
        The same tree, of tensors ``(S, ...)``.

    Raises:
        RuntimeError: If the function does what cannot be mapped, such as to choose by a value.
    """

    def alone(_: Tensor, held: dict[str, Tensor]) -> Any:
        found = one({name: value[None] for name, value in held.items()})
        return tree_map(lambda value: value[0], found)

    each = torch.vmap(alone, randomness="different")
    with warnings.catch_warnings(), _NoiseOutOfPlace():
        warnings.simplefilter("ignore")  # that some operation is mapped one by one
        return each(torch.zeros(draws), dict(fixed))


class _NoiseOutOfPlace(TorchFunctionMode):
    """Noise that is written into an empty tensor, made as a new one: the same for all draws else.

    ``torch.vmap`` refuses the former, by which torch draws from most laws.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        make = _NOISE.get(func)
        if make is None:
            return func(*args, **(kwargs or {}))
        return make(*args, **(kwargs or {}))


def _normal(like: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return mean + std * torch.randn(like.shape, dtype=like.dtype, device=like.device)


def _uniform(like: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(like.shape, dtype=like.dtype, device=like.device)


def _exponential(like: Tensor, lambd: float = 1.0) -> Tensor:
    return -torch.log1p(-_uniform(like)) / lambd


def _cauchy(like: Tensor, median: float = 0.0, sigma: float = 1.0) -> Tensor:
    return median + sigma * torch.tan(torch.pi * (_uniform(like) - 0.5))


_NOISE: dict[Any, Callable[..., Tensor]] = {
    Tensor.normal_: _normal,
    Tensor.uniform_: _uniform,
    Tensor.exponential_: _exponential,
    Tensor.cauchy_: _cauchy,
}
