"""What is in memory already, as a part."""

import sys
from collections.abc import Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import TensorDataset

from ppl_gen.data.dataset import Dataset, Part
from ppl_gen.data.observations import tensor_of
from ppl_gen.errors import DataError

ACCEPTED = (
    "a tensor, a NumPy array, a pandas DataFrame, a tuple of such columns, "
    "a torch Dataset, or what pg.data.load returns"
)


def as_part(data: Any) -> Part:
    """Take data as a part, whatever holds them.

    Tensors keep their type, shape and memory. Arrays and frames of float64 become float32. Values
    are neither changed otherwise nor checked, apart from the cells of a frame: a story may have its
    own use for NaN.

    Args:
        data: A ``Part``, returned as it is; a ``Dataset``, of which train is taken; a tensor or
            array, shape ``(N, *)``; a DataFrame of ``C`` numeric columns, which gives ``(N, C)``; a
            tuple or list of such columns with ``N`` rows each; or a map-style torch data set,
            whose items are stacked.

    Raises:
        DataError: If the data are none of these, have no rows, or have columns of unequal lengths.
    """
    if isinstance(data, Part):
        return data
    if isinstance(data, Dataset):
        return data.train
    if isinstance(data, TensorDataset):
        return Part(data.tensors)
    if isinstance(data, TorchDataset):
        return Part(_stacked(data))
    if isinstance(data, list | tuple):
        return Part(tuple(_column(column, f"column {i}") for i, column in enumerate(data)))
    return Part((_column(data, "the data"),))


def _column(data: Any, what: str) -> Tensor:
    if isinstance(data, Tensor):
        return data
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        from ppl_gen.data.tables import observations_of

        return observations_of(data, None, "the DataFrame").x
    if pandas is not None and isinstance(data, pandas.Series):
        data = data.to_numpy()
    if not hasattr(data, "__array__") or not hasattr(data, "dtype"):
        raise DataError(f"{what} must be {ACCEPTED}, got {type(data).__name__}")
    return tensor_of(data, what)


def _stacked(data: TorchDataset[Any]) -> tuple[Tensor, ...]:
    if not isinstance(data, Sized):
        raise DataError(
            f"a torch data set must have a length, but {type(data).__name__} has none; "
            "collect its items into tensors first"
        )
    if len(data) == 0:
        raise DataError(f"data must have at least one row, but {type(data).__name__} is empty")
    items = [data[i] for i in range(len(data))]
    rows = [item if isinstance(item, tuple | list) else (item,) for item in items]
    if len({len(row) for row in rows}) > 1:
        raise DataError(f"every item of {type(data).__name__} must have equally many entries")
    return tuple(_stack(entries, type(data).__name__) for entries in zip(*rows, strict=True))


def _stack(entries: tuple[Any, ...], name: str) -> Tensor:
    for entry in entries:
        if not isinstance(entry, int | float | Tensor) and not hasattr(entry, "dtype"):
            raise DataError(
                f"items of {name} must be tensors, arrays or numbers, got {type(entry).__name__}; "
                "for images give the data set transform=ToTensor()"
            )
    tensors = [
        tensor_of(entry, f"an item of {name}")
        if hasattr(entry, "dtype")
        else torch.tensor(entry, dtype=torch.float32 if isinstance(entry, float) else torch.long)
        for entry in entries
    ]
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1:
        raise DataError(
            f"items of {name} must have one shape to be stacked, got {shapes[0]} and {shapes[1]}"
        )
    return torch.stack(tensors)
