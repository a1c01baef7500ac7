"""Data as batches: rows taken by an index permutation, of columns on the device or on disk."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ppl_gen.data import Dataset, Part, as_part
from ppl_gen.data.stores import Column, together
from ppl_gen.errors import DataError
from ppl_gen.inference.memory import MEMORY
from ppl_gen.inference.processes import Processes
from ppl_gen.inference.tracing import Batch

# Rows on disk by which a story finds its first weights, at most.
MOST_ROWS = 100_000


class Batches:
    """The rows of a data set, in a new random order at every pass.

    What a step is given are the numbers of its rows, which it takes itself of the columns on the
    device. Where rows are on disk it is given the rows, which were read ahead: see ``passing``.

    Args:
        part: The rows.
        arguments: How many of its columns the programs take.
        batch_size: Rows a batch; the last one may be smaller.
        device: Where the batches are made.
    """

    def __init__(
        self, part: Part | None, arguments: int, batch_size: int, device: torch.device
    ) -> None:
        self.part = None if part is None else part.to(device)
        self.arguments = arguments
        self.batch_size = batch_size
        self.device = device
        self.processes = Processes()

    @property
    def on_disk(self) -> bool:
        """Whether rows are read when they are needed."""
        return self.part is not None and self.part.on_disk

    @property
    def inputs(self) -> int:
        """How many tensors a step is given of a batch."""
        return self.arguments if self.on_disk else 1

    def read(self) -> None:
        """Take all rows into memory, if they are not."""
        if self.part is not None:
            self.part = self.part.in_memory()

    @property
    def size(self) -> int:
        """How many rows there are; 1 for a program that holds its data itself."""
        return 1 if self.part is None else len(self.part)

    @property
    def count(self) -> int:
        """How many batches a pass has."""
        return -(-self.size // self.batch_size)

    @property
    def columns(self) -> Batch:
        """All rows as they are kept: probabilities where visits draw; some of those on disk."""
        if self.part is None:
            return ()
        part = self.part
        if part.on_disk:
            numbers = sum(column.shape[1:].numel() for column in part.stored)
            part = part.some(max(self.batch_size, min(MOST_ROWS, MEMORY // (4 * max(1, numbers)))))
        return part.columns[: self.arguments]

    def whole(self) -> Batch:
        """All rows as one batch."""
        if self.part is None:
            return ()
        if not self.part.redraw:
            return self.part.in_memory().columns[: self.arguments]
        return self.part.batch(torch.arange(self.size, device=self.part.device))[: self.arguments]

    def example(self, rows: int) -> Batch:
        """The first rows, as a visit would show them."""
        if self.part is None:
            return ()
        index = torch.arange(min(rows, self.size), device=self.part.device)
        return self.part.batch(index)[: self.arguments]

    def at(self, *given: Tensor) -> Batch:
        """The batch of what a step is given: rows, ``(B,)``, or rows as they are stored.

        It is drawn, where a visit draws.
        """
        if self.part is None:
            return ()
        if self.on_disk:
            return self.part.shown(given)
        if self.count == 1 and self.processes.alone:
            return self.whole()
        return self.part.batch(given[0])[: self.arguments]

    def order(self) -> Tensor:
        """Numbers of all rows, ``(N,)``, in an order drawn from torch's generator."""
        if self.count == 1 or self.part is None:
            return torch.arange(self.size, device=self.device)
        return self.part.order()

    def rows_of(self, position: int) -> int:
        """How many rows a step of a pass has, those of other processes included."""
        return min(self.batch_size, self.size - position * self.batch_size)

    def passing(
        self, order: Tensor | None = None, begin: int = 0
    ) -> Generator[tuple[Tensor, ...], None, None]:
        """What the steps of a pass are given, one after the other: of each the process's share.

        Args:
            order: Numbers of all rows, ``(N,)``; by default from the first to the last.
            begin: Which step is the first.
        """
        if order is None:
            order = torch.arange(self.size, device=self.device)
        batches = [self.processes.share(rows) for rows in order.split(self.batch_size)]
        if self.part is None or not self.on_disk:
            yield from ((rows,) for rows in batches[begin:])
        else:
            yield from self.part.in_passing(batches, begin, self.arguments)


def prepare(
    data: Any, model: Callable[..., Any], kwargs: Mapping[str, Any]
) -> tuple[Part | None, int]:
    """The data as columns, and how many of them the model is called with.

    A data set's labels are handed to programs that require a second argument; columns that were
    given as a tuple are all handed over.

    Raises:
        DataError: If the data cannot be read, or the model takes another number of columns.
    """
    if data is None:
        return None, 0
    part = as_part(data)
    required, most = _positional(model, kwargs)
    arguments = max(1, required) if isinstance(data, Part | Dataset) else len(part.stored)
    if arguments > len(part.stored) or arguments < required:
        raise DataError(
            f"the model requires {required} arguments, the data have {len(part.stored)} "
            "column(s): give all of them as a tuple of columns, or the others by name with "
            "kwargs={...}"
        )
    if arguments > most:
        raise DataError(
            f"the data have {arguments} columns, the model takes {most} argument(s): "
            "leave some out or let the model take them"
        )
    return part, arguments


def _positional(model: Callable[..., Any], kwargs: Mapping[str, Any]) -> tuple[int, float]:
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError):
        return 1, float("inf")
    parameters = list(signature.parameters.values())
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 0, float("inf")
    positional = [
        p
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in kwargs
    ]
    return sum(p.default is p.empty for p in positional), len(positional)


def rows_of(batch: Batch) -> int:
    """How many rows a batch has; 1 if it has no columns."""
    if not batch or not isinstance(batch[0], Tensor | Column) or not batch[0].dim():
        return 1
    return len(batch[0])


def on_disk(batch: Batch) -> bool:
    """Whether rows of a batch are read when some are taken."""
    return any(isinstance(column, Column) for column in batch)


def some_rows(batch: Batch, part: slice | Tensor) -> Batch:
    """Some rows of every tensor that has as many rows as the first; read, of those on disk."""
    rows = rows_of(batch)
    if on_disk(batch):
        return together(batch, part)
    return tuple(
        column[part]
        if isinstance(column, Tensor) and column.dim() and len(column) == rows
        else column
        for column in batch
    )
