"""What a program asks of the values of its tensors while it is traced, and what it is answered."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from ppl_gen.inference.tracing import place_of


class Uncapturable(Exception):
    """Why a program cannot be run as a graph: what it does, in words for its author."""


class Watch(TorchFunctionMode):
    """Stands between a program that is traced and the values of its tensors.

    A graph has no values to look at. What torch's and Pyro's own code asks has an answer that
    leaves the outcome as it is: that parameters and data are valid is taken for granted and noted,
    to be looked at whenever the graph is run; that something is NaN will show in the loss. What a
    user's program asks may decide how it goes on, and is refused.

    Attributes:
        assumed: Truth values that were taken for granted, one tensor of a single value each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.assumed: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS and _is_read(func, name, args):
            frame = _asker()
            asker = frame.f_globals.get("__name__", ""), frame.f_code.co_name
            answer = ANSWERS.get((*asker, name)) or ANSWERS.get((asker[0], "*", name))
            if answer is not None:
                return answer(self, frame, *args, **(kwargs or {}))
            if READS[name] is not None:
                raise Uncapturable(f"{READS[name]}{place_of(frame)}")
        return func(*args, **(kwargs or {}))

    def holds(self, frame: FrameType, value: Tensor) -> bool:
        """Take for granted that it is so."""
        self.assumed.append(value)
        return True

    def never(self, frame: FrameType, value: Tensor) -> bool:
        """Take for granted that it is not so."""
        self.assumed.append(~value)
        return False


# What reads the values of tensors, in words; None for what is only answered, never refused.
_VALUE = "reads the value of a tensor"
_SHAPE = "makes a tensor whose shape depends on the data"
READS: dict[str, str | None] = {
    "__bool__": "decides by the value of a tensor",
    "__contains__": "decides by the value of a tensor",
    "equal": "decides by the values of tensors",
    "allclose": "decides by the values of tensors",
    "is_nonzero": "decides by the value of a tensor",
    **dict.fromkeys(("item", "tolist", "numpy", "__array__", "__format__", "__repr__"), _VALUE),
    **dict.fromkeys(("__float__", "__int__", "__index__", "__complex__"), _VALUE),
    **dict.fromkeys(("masked_select", "nonzero", "argwhere", "unique", "bincount"), _SHAPE),
    **dict.fromkeys(("__getitem__", "repeat_interleave"), _SHAPE),
    "register_hook": None,
}


def _is_read(func: Callable[..., Any], name: str, args: Any) -> bool:
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in index)
    if name == "repeat_interleave":
        return any(isinstance(a, Tensor) for a in args[1:])
    return func in (getattr(Tensor, name, None), getattr(torch, name, None))


def _asker() -> FrameType:
    """The frame that asked, past those by which torch hands a question on."""
    frame: Any = sys._getframe(2)
    while frame.f_globals.get("__name__", "") in ("torch._tensor", "torch.overrides"):
        frame = frame.f_back
    return frame


def _detached(watch: Watch, frame: FrameType, value: Tensor) -> Tensor:
    return value.detach()


def _chosen(watch: Watch, frame: FrameType, value: Tensor, mask: Tensor) -> Tensor:
    """What Dice selects by mask, it sums: zeros where it is not selected give the same."""
    return torch.where(mask, value, torch.zeros_like(value))


def _no(watch: Watch, frame: FrameType, value: Tensor) -> bool:
    """Whether Dice may leave out its mask, or Pyro should warn of a NaN: not without a value.

    With the mask the result is the same, and what is NaN shows in the loss of every step.
    """
    return False


def _unhooked(watch: Watch, frame: FrameType, value: Tensor, hook: Any) -> None:
    """Warnings on gradients, like :func:`_no`."""


def _index(watch: Watch, frame: FrameType, value: Tensor) -> Any:
    """The next index of a plate in a loop, which is known where the plate takes them all."""
    plate = frame.f_locals["self"]
    if plate.subsample_size != plate.size:
        raise Uncapturable(f"takes random turns in {plate.name!r}{place_of(frame)}")
    with _disable_current_modes():
        return value.item()


def _of_triangle(watch: Watch, frame: FrameType, value: Tensor, index: tuple[Any, ...]) -> Tensor:
    """The entries of triangular matrices, which are the same whatever the data."""
    with _disable_current_modes():
        row, column = index[-1].nonzero(as_tuple=True)
    return value[..., row, column]


# By module, function ("*" for any) and what is asked.
ANSWERS: dict[tuple[str, str, str], Callable[..., Any]] = {
    ("torch.distributions.distribution", "__init__", "__bool__"): Watch.holds,
    ("torch.distributions.distribution", "_validate_sample", "__bool__"): Watch.holds,
    ("torch.distributions.constraints", "check", "__bool__"): Watch.holds,
    ("torch.distributions.utils", "tril_matrix_to_vec", "__getitem__"): _of_triangle,
    ("ppl_gen.errors", "refuse_if", "__bool__"): Watch.never,
    ("pyro.poutine.scale_messenger", "__init__", "__bool__"): Watch.holds,
    ("pyro.util", "warn_if_nan", "__bool__"): _no,
    ("pyro.util", "warn_if_inf", "__bool__"): _no,
    ("pyro.util", "warn_if_nan", "register_hook"): _unhooked,
    ("pyro.util", "warn_if_inf", "register_hook"): _unhooked,
    ("pyro.infer.util", "torch_item", "item"): _detached,
    ("pyro.infer.util", "compute_expectation", "__bool__"): _no,
    ("pyro.infer.util", "compute_expectation", "masked_select"): _chosen,
    ("pyro.infer.renyi_elbo", "*", "item"): _detached,
    ("pyro.infer.rws", "*", "item"): _detached,
    ("pyro.infer.traceenum_elbo", "*", "item"): _detached,
    ("pyro.infer.tracegraph_elbo", "*", "item"): _detached,
    ("pyro.infer.tracetmc_elbo", "*", "item"): _detached,
    ("pyro.poutine.indep_messenger", "__iter__", "item"): _index,
}
