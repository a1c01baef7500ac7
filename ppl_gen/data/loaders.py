"""Rows that torch's ``DataLoader`` reads: of a data set of one's own, or of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ppl_gen.data.observations import tensor_of
from ppl_gen.data.stores import Rows, Store
from ppl_gen.errors import DataError

# Rows of a stream that are kept to look at it.
HEAD = 1000


class LoadedRows(Store):
    """Items of a map-style data set, read through a loader's workers.

    Batches and their order are those of the fit; the loader tells how they are read: by how many
    workers, how far ahead, pinned or not, and how items become a batch.

    Args:
        loader: The loader.

    Raises:
        DataError: If its data set is empty, or its items are no tuples of tensors.
    """

    known_by = 100

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.name = type(loader.dataset).__name__
        self.data: Any = loader.dataset
        if not hasattr(self.data, "__len__") or not len(self.data):
            raise DataError(f"data must have at least one row, but {self.name} is empty")
        self.columns = _columns(self.read(torch.zeros(1, dtype=torch.long)))

    def __len__(self) -> int:
        return len(self.data)

    def read(self, rows: Tensor) -> Rows:
        """Some rows; see :meth:`Store.read`."""
        collate = self.loader.collate_fn
        return _rows(collate([self.data[row] for row in rows.tolist()]), self.name)

    def ahead(self, batches: Sequence[Tensor], begin: int) -> Iterator[Rows]:
        """Batches that the workers read."""
        theirs = self.loader
        # Noise of the workers is the same however often a fit was interrupted.
        seed = int(batches[0].double().sum()) + len(batches)
        loader = DataLoader(
            self.data,
            batch_sampler=[rows.tolist() for rows in batches[begin:]],
            num_workers=theirs.num_workers,
            collate_fn=theirs.collate_fn,
            pin_memory=theirs.pin_memory and torch.cuda.is_available(),
            timeout=theirs.timeout,
            worker_init_fn=theirs.worker_init_fn,
            multiprocessing_context=theirs.multiprocessing_context,
            prefetch_factor=theirs.prefetch_factor if theirs.num_workers else None,
            generator=torch.Generator().manual_seed(seed),
        )
        for batch in loader:
            yield _rows(batch, self.name)


class Stream(Store):
    """Rows that come one after the other, of a data set that cannot be indexed.

    Each pass visits as many rows as are stated, in the order in which they come; the stream begins
    anew where it ends. The first ones are kept to look at.

    Args:
        loader: Reads it. Its batches may have any size.
        rows: How many rows there are, which weighs the bound. What an endless stream draws from may
            be said to be of any size: as many as a pass is to have.

    Raises:
        DataError: If there are no rows, or they are no tuples of tensors.
    """

    def __init__(self, loader: DataLoader[Any], rows: int) -> None:
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise DataError(f"rows of a stream must be a whole number from 1 on, got {rows!r}")
        self.loader, self._rows = loader, rows
        self.name = type(loader.dataset).__name__
        head: list[Rows] = []
        for batch in _seeded(loader):
            head.append(_rows(batch, self.name))
            if sum(len(part[0]) for part in head) >= min(rows, HEAD):
                break
        if not head:
            raise DataError(f"data must have at least one row, but {self.name} gives none")
        self._head = tuple(map(torch.cat, zip(*head, strict=True)))
        self.columns = _columns(self._head)
        self.known_by = min(rows, len(self._head[0]))

    def __len__(self) -> int:
        return self._rows

    def read(self, rows: Tensor) -> Rows:
        """Some of the first rows; those that were asked for, as far as they are among them."""
        return tuple(column[rows % len(self._head[0])] for column in self._head)

    def order(self, rows: Tensor) -> Tensor:
        """As they come."""
        return torch.arange(len(rows))

    def ahead(self, batches: Sequence[Tensor], begin: int) -> Iterator[Rows]:
        """Batches as they come, cut to the sizes that are asked for."""
        sizes = [len(rows) for rows in batches]
        skipped, held = sum(sizes[:begin]), []
        source = self._endless()
        count = 0
        for size in sizes[begin:]:
            while count < skipped + size:
                held.append(next(source))
                count += len(held[-1][0])
            whole = tuple(map(torch.cat, zip(*held, strict=True)))
            yield tuple(column[skipped : skipped + size] for column in whole)
            held = [tuple(column[skipped + size :] for column in whole)]
            count -= skipped + size
            skipped = 0

    def _endless(self) -> Iterator[Rows]:
        while True:
            for batch in _seeded(self.loader):
                yield _rows(batch, self.name)


def _seeded(loader: DataLoader[Any]) -> Iterator[Any]:
    """One pass of a loader, which takes its seed from no generator that others draw from."""
    before = loader.generator
    if before is None:
        loader.generator = torch.Generator().manual_seed(0)
    try:
        yield from loader
    finally:
        loader.generator = before


def _rows(batch: Any, name: str) -> Rows:
    parts = batch if isinstance(batch, tuple | list) else (batch,)
    found = []
    for part in parts:
        if not isinstance(part, Tensor) and not hasattr(part, "dtype"):
            raise DataError(
                f"items of {name} must be tensors, or tuples of them, got {type(part).__name__}: "
                "give the loader a collate_fn that makes them"
            )
        tensor = tensor_of(part, f"items of {name}")
        wide = tensor.is_floating_point() and tensor.element_size() > 4
        found.append(tensor.float() if wide else tensor)
    return tuple(found)


def _columns(rows: Rows) -> tuple[tuple[tuple[int, ...], torch.dtype], ...]:
    return tuple((tuple(column.shape[1:]), column.dtype) for column in rows)
