"""Data as batches: whole columns on the device, rows taken by an index permutation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ppl_gen.data import Dataset, Part, as_part
from ppl_gen.errors import DataError
from ppl_gen.inference.tracing import Batch


class Batches:
    """The rows of a data set, in a new random order at every pass.

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
        """All rows as they are kept: probabilities where visits draw."""
        return () if self.part is None else self.part.columns[: self.arguments]

    def whole(self) -> Batch:
        """All rows as one batch."""
        if self.part is None:
            return ()
        if not self.part.redraw:
            return self.columns
        return self.part.batch(torch.arange(self.size, device=self.part.device))[: self.arguments]

    def example(self, rows: int) -> Batch:
        """The first rows, as a visit would show them."""
        if self.part is None:
            return ()
        index = torch.arange(min(rows, self.size), device=self.part.device)
        return self.part.batch(index)[: self.arguments]

    def at(self, rows: Tensor) -> Batch:
        """The batch of these rows, ``(B,)``; drawn, where a visit draws."""
        if self.part is None or self.count == 1:
            return self.whole()
        return self.part.batch(rows)[: self.arguments]

    def orders(self) -> Iterator[Tensor]:
        """Numbers of every row once, ``(B,)`` each, in an order drawn from torch's generator."""
        if self.count == 1:
            yield torch.arange(self.size, device=self.device)
            return
        yield from torch.randperm(self.size, device=self.device).split(self.batch_size)

    def shuffled(self) -> Iterator[Batch]:
        """Every row once, in an order drawn from torch's generator."""
        return map(self.at, self.orders())

    def in_order(self) -> Iterator[Tensor]:
        """Numbers of every row once, ``(B,)`` each, first to last."""
        yield from torch.arange(self.size, device=self.device).split(self.batch_size)


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
    return len(batch[0]) if batch and isinstance(batch[0], Tensor) and batch[0].dim() else 1


def some_rows(batch: Batch, part: slice | Tensor) -> Batch:
    """Some rows of every tensor that has as many rows as the first."""
    rows = rows_of(batch)
    return tuple(
        column[part]
        if isinstance(column, Tensor) and column.dim() and len(column) == rows
        else column
        for column in batch
    )
