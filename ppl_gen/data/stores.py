"""Rows that stay where they are stored, and are read when they are needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ppl_gen.errors import DataError

# How often rows are read ahead, and how many rows at a time: reading in another thread takes turns
# with Python, so that it is to be done in few calls.
AHEAD, CHUNK = 2, 2048
# Bytes of a column that are read at a time where all of it is gone through.
PIECE = 1 << 24

Rows = tuple[Tensor, ...]


class Store(ABC):
    """Rows of several columns, which are read together, some at a time.

    Attributes:
        name: What it is called in sentences.
        columns: Shape and type of a row of each column, as it is read.
        known_by: Of how many rows the fingerprint of all is made.
    """

    name: str
    columns: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    known_by: int = 10_000

    @abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def read(self, rows: Tensor) -> Rows:
        """Some rows, as new tensors ``(B, *shape)``, one a column.

        Args:
            rows: Their numbers, ``(B,)``, in any order.

        Raises:
            DataError: If they cannot be read.
        """

    def order(self, rows: Tensor) -> Tensor:
        """In which order to visit these rows, as places among them, from torch's generator."""
        return torch.randperm(len(rows))

    def ahead(self, batches: Sequence[Tensor], begin: int) -> Iterator[Rows]:
        """One batch after the other, the next ones read in the meantime.

        Args:
            batches: Numbers of the rows of each.
            begin: Which is the first.
        """
        chunks = _chunks(batches[begin:])
        with ThreadPoolExecutor(1, "ppl-gen reads") as reader:
            coming: deque[tuple[list[int], Future[Rows]]] = deque()
            try:
                while chunks or coming:
                    while chunks and len(coming) < AHEAD:
                        chunk = chunks.popleft()
                        sizes = [len(rows) for rows in chunk]
                        coming.append((sizes, reader.submit(self.read, torch.cat(chunk))))
                    sizes, read = coming.popleft()
                    yield from zip(*(column.split(sizes) for column in read.result()), strict=True)
            finally:
                for _, one in coming:
                    one.cancel()


def _chunks(batches: Sequence[Tensor]) -> deque[list[Tensor]]:
    """Batches in groups of some thousand rows."""
    found: deque[list[Tensor]] = deque()
    for rows in batches:
        if not found or sum(map(len, found[-1])) + len(rows) > CHUNK:
            found.append([])
        found[-1].append(rows)
    return found


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a store, or some of its rows, in the place of a tensor of it.

    To take rows of it reads them.

    Args:
        store: Where it is.
        place: Which of its columns it is.
        rows: Which of its rows it has, ``(N,)``.
        changes: What is done to rows that were read, in turn.
        device: Where rows are put.
    """

    store: Store
    place: int
    rows: Tensor
    changes: tuple[Callable[[Tensor], Tensor], ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def shape(self) -> torch.Size:
        """Shape, ``(N, *shape)``."""
        return torch.Size((len(self.rows), *self._one.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the rows once they are read."""
        return self._one.dtype

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    def dim(self) -> int:
        """How many axes it has."""
        return self.ndim

    def numel(self) -> int:
        """How many numbers it has."""
        return self.shape.numel()

    def is_floating_point(self) -> bool:
        """Whether its numbers are floats."""
        return self.dtype.is_floating_point

    def detach(self) -> Column:
        """Itself: nothing hangs on it."""
        return self

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        return together((self,), index)[0]

    def chosen(self, index: slice | Tensor) -> Column:
        """Some of its rows, unread."""
        if isinstance(index, Tensor):
            index = index.to(self.rows.device)
        return replace(self, rows=self.rows[index])

    def then(self, change: Callable[[Tensor], Tensor]) -> Column:
        """The same rows, changed after they are read."""
        return replace(self, changes=(*self.changes, change))

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Column:
        """The same rows, put on a device and of a type once they are read."""
        moved = self if device is None else replace(self, device=torch.device(device))
        return moved if dtype in (None, moved.dtype) else moved.then(lambda x: x.to(dtype))

    def split(self, rows: int) -> Iterator[Tensor]:
        """All rows, so many at a time."""
        for start in range(0, len(self), rows):
            yield self[start : start + rows]

    def changed(self, read: Tensor) -> Tensor:
        """Rows as they are, of rows as they were read."""
        read = read.to(self.device, non_blocking=True)
        for change in self.changes:
            read = change(read)
        return read

    @property
    def _one(self) -> Tensor:
        """An empty row, as it would be read."""
        shape, dtype = self.store.columns[self.place]
        return self.changed(torch.zeros((1, *shape), dtype=dtype))


def together(columns: Sequence[Tensor | Column], index: slice | Tensor) -> Rows:
    """The same rows of several columns, of which those of one store are read once."""
    read: dict[int, tuple[Tensor, Rows]] = {}
    found = []
    for column in columns:
        if isinstance(column, Tensor):
            found.append(column[index])
            continue
        known = read.get(id(column.store))
        if known is None or known[0] is not column.rows:
            rows = column.rows[index.to(column.rows.device) if isinstance(index, Tensor) else index]
            known = read[id(column.store)] = column.rows, column.store.read(rows)
        found.append(column.changed(known[1][column.place]))
    return tuple(found)


def in_passing(
    columns: Sequence[Tensor | Column], batches: Sequence[Tensor], begin: int
) -> Iterator[Rows]:
    """Batches of columns of one store, one after the other, read ahead.

    Args:
        columns: Of one store, and of the same rows of it.
        batches: Places of the rows of each batch.
        begin: Which is the first.
    """
    stored = [column for column in columns if isinstance(column, Column)]
    numbers = [stored[0].rows[places] for places in batches]
    reading = stored[0].store.ahead(numbers, begin)
    for places, read in zip(batches[begin:], reading, strict=True):
        yield tuple(
            column.changed(read[column.place]) if isinstance(column, Column) else column[places]
            for column in columns
        )


def joined(columns: Sequence[Column]) -> Column:
    """Columns of one store, row after row.

    Raises:
        DataError: If they lie in different ones.
    """
    first = columns[0]
    if any(one.store is not first.store or one.place != first.place for one in columns):
        raise DataError("parts that are read from disk can be joined only if they lie in one place")
    return replace(first, rows=torch.cat([column.rows for column in columns]))


def of_store(store: Store) -> tuple[Column, ...]:
    """All columns of a store."""
    rows = torch.arange(len(store))
    return tuple(Column(store, place, rows) for place in range(len(store.columns)))


def runs(rows: Tensor) -> Iterable[tuple[int, int, int]]:
    """Rows that follow each other: where each run begins among them, its first row, its length."""
    if not len(rows):
        return []
    breaks = (rows[1:] != rows[:-1] + 1).nonzero().flatten() + 1
    starts = [0, *breaks.tolist()]
    ends = [*starts[1:], len(rows)]
    firsts = rows[starts].tolist()
    return [(s, f, e - s) for s, f, e in zip(starts, firsts, ends, strict=True)]


def narrow(dtype: Any) -> torch.dtype:
    """The type that numbers of a NumPy type are read as: wide floats as float32."""
    import numpy as np

    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return torch.float32
    return torch.uint8 if dtype == np.uint8 else torch.int64
