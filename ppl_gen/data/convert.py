"""What is in memory already, as a part."""

import sys
from collections.abc import Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from ppl_gen.data.dataset import Dataset, Part
from ppl_gen.data.loaders import LoadedRows, Stream
from ppl_gen.data.observations import tensor_of
from ppl_gen.data.stores import of_store
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
            tuple or list of such columns with ``N`` rows each; a map-style torch data set, whose
            items are stacked; or a ``DataLoader`` of one, through which rows are read when they
            are needed (of a stream see :func:`stream`).

    Raises:
        DataError: If the data are none of these, have no rows, or have columns of unequal lengths.
    """
    if isinstance(data, Part):
        return data
    if isinstance(data, Dataset):
        return data.train
    if isinstance(data, DataLoader):
        return _loaded(data)
    if isinstance(data, TensorDataset):
        return Part(data.tensors)
    if isinstance(data, TorchDataset):
        return Part(_stacked(data))
    if isinstance(data, list | tuple):
        return Part(tuple(_column(column, f"column {i}") for i, column in enumerate(data)))
    return Part((_column(data, "the data"),))


def stream(loader: Any, rows: int) -> Part:
    """Rows of a data set that cannot be indexed, read as they come.

    A pass visits ``rows`` of them, and the bound is weighed for as many; the stream begins anew
    where it ends. Its order is its own.

    Args:
        loader: A torch ``IterableDataset``, or a ``DataLoader`` of one, which tells by how many
            workers it is read.
        rows: How many rows it has.

    Raises:
        DataError: If it is none of these, gives nothing, or ``rows`` is no number of rows.
    """
    if isinstance(loader, IterableDataset):
        loader = DataLoader(loader, batch_size=128)
    if not isinstance(loader, DataLoader):
        raise DataError(
            f"a stream must be a torch IterableDataset or a DataLoader, got {type(loader).__name__}"
        )
    return Part(of_store(Stream(loader, rows)))


def _loaded(loader: "DataLoader[Any]") -> Part:
    if not isinstance(loader.dataset, IterableDataset):
        return Part(of_store(LoadedRows(loader)))
    if not isinstance(loader.dataset, Sized):
        raise DataError(
            f"how many rows {type(loader.dataset).__name__} has must be known, since it weighs the "
            "bound: pg.data.stream(loader, rows=...)"
        )
    return stream(loader, len(loader.dataset))


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
            f"a torch data set must have a length, but {type(data).__name__} has none: "
            "pg.data.stream(data, rows=...) reads it as it comes"
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
