"""What every reader of a user's data hands over, and the checks that all of them share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_gen.errors import DataError


class Observations(NamedTuple):
    """Rows as they were read, before scaling and division.

    Args:
        x: Finite numbers: uint8, int64 or float32, shape ``(N, *shape)`` with at least two axes;
            NaN where a value is missing, if that was allowed.
        y: Labels, shape ``(N,)``: long for classes, float32 for a continuous truth.
        label_names: What the classes are called, class 0 first.
        column_names: What the columns of a table are called.
    """

    x: Tensor
    y: Tensor | None = None
    label_names: tuple[str, ...] | None = None
    column_names: tuple[str, ...] | None = None


def cause(error: BaseException) -> str:
    """The first line of another library's complaint, fit for the inside of a sentence."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def tensor_of(values: Any, what: str) -> Tensor:
    """Make a tensor of a NumPy array, or pass a tensor on.

    Wide floats become float32 and wide unsigned integers int64. Memory is shared where the type
    and layout allow it, so that a memory-mapped array stays on disk.

    Args:
        values: A NumPy array, shape ``(*)``, or a tensor, which is returned as it is.
        what: The values, as the sentence should call them.

    Raises:
        DataError: If the values are no real numbers.
    """
    if isinstance(values, Tensor):
        return values
    import warnings

    import numpy as np

    kind, width = values.dtype.kind, values.dtype.itemsize
    if kind not in "biuf":
        raise DataError(
            f"{what} must hold real numbers, got the NumPy type {values.dtype}; "
            "convert it to float32 or an integer type"
        )
    wanted = values.dtype.newbyteorder("=")
    if kind == "f" and width > 4:
        wanted = np.dtype(np.float32)
    elif kind == "u" and width > 1:
        wanted = np.dtype(np.int64)
    with np.errstate(over="ignore"), warnings.catch_warnings():
        # A read-only memory map is shared as it is: nothing in ppl-gen writes to its data.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(values, dtype=wanted, order="C"))


def checked_observations(values: Any, what: str, missing: bool = False) -> Tensor:
    """Bring observations to one of three types and refuse what no story can take.

    Args:
        values: A NumPy array or a tensor, shape ``(N, *shape)``; ``(N,)`` becomes ``(N, 1)``.
        what: The values, as the sentence should call them.
        missing: Whether NaN is allowed, for a value that is missing.

    Returns:
        uint8, int64 or float32, shape ``(N, *shape)``.

    Raises:
        DataError: If the values are no real numbers, there are none, or one is NaN (unless that is
            allowed) or, as float32, infinite.
    """
    x = tensor_of(values, what).detach().to_dense()
    if x.is_complex():
        raise DataError(f"{what} must hold real numbers, got {x.dtype}; give its parts as columns")
    if x.ndim == 0 or x.numel() == 0:
        raise DataError(f"{what} holds no observations: its shape is {tuple(x.shape)}")
    if x.ndim == 1:
        x = x[:, None]
    if x.is_floating_point() or x.dtype is torch.bool:
        x = x.float()
    elif x.dtype is not torch.uint8:
        x = x.long()
    wrong = x.isinf() if missing else ~x.isfinite()
    if wrong.any():
        first = wrong.nonzero()[0].tolist()
        how = "infinite" if missing else "NaN or infinite"
        raise DataError(
            f"{what} holds {int(wrong.sum())} values that are {how}, the first at "
            f"{first}; remove or replace them"
        )
    return x


def checked_labels(labels: Sequence[Any], what: str) -> tuple[list[Tensor], tuple[str, ...] | None]:
    """Bring the labels of all parts to one type; texts are coded in sorted order.

    Args:
        labels: A NumPy array or a tensor for each part, shape ``(N,)`` or ``(N, 1)``.
        what: The labels, as the sentence should call them.

    Returns:
        Labels, shape ``(N,)`` each: long from integers, booleans and texts, float32 from floats.
        The texts, if they were texts.

    Raises:
        DataError: If the labels have another shape, are neither numbers nor texts, or one is NaN
            or infinite.
    """
    import numpy as np

    for values in labels:
        if values.ndim not in (1, 2) or values.shape[1:] not in ((), (1,)):
            raise DataError(
                f"{what} must be one label for each row, shape (N,), got {tuple(values.shape)}"
            )
    if labels and all(_is_text(values) for values in labels):
        texts = [values.reshape(-1).astype(str) for values in labels]
        names = np.unique(np.concatenate(texts))
        codes = [torch.from_numpy(np.searchsorted(names, text)).long() for text in texts]
        return codes, tuple(str(name) for name in names)
    columns = [checked_observations(values, what).reshape(-1) for values in labels]
    real = any(column.is_floating_point() for column in columns)
    real = real and not all(values.dtype in (bool, torch.bool) for values in labels)
    return [column.float() if real else column.long() for column in columns], None


def _is_text(values: Any) -> bool:
    return not isinstance(values, Tensor) and values.dtype.kind in "US"
