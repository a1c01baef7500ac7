"""Which of the data the programs have before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.batches import rows_of, some_rows
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.structure import Structure
from ppl_gen.inference.tracing import Batch, Indices, PlateSizes, blame


class Window:
    """Shows the programs some of the data at a time, until every datum had its turn.

    Most programs are given some rows of the batch. One that picks its own mini-batch is given all
    of it, and one block of indices after the other.

    Args:
        pair: The programs.
        structure: Their sites and plates.
        kwargs: Further arguments of both.
    """

    def __init__(self, pair: Pair, structure: Structure, kwargs: Mapping[str, Any]) -> None:
        self.pair = pair
        self.structure = structure
        self.kwargs = kwargs
        self._plate: tuple[str, int, int] | None = None
        self._taken: int | None = None
        self.kept: slice | None = None

    def size(self, batch: Batch) -> int:
        """How many data there are: rows of the batch, or what the program draws indices from."""
        if self.structure.subsamples:
            return self._subsampled(batch)[1]
        return rows_of(batch)

    def step(self, batch: Batch, rows: int) -> int:
        """How many data to show at a time, if ``rows`` would be best."""
        return self._subsampled(batch)[2] if self.structure.subsamples else rows

    def slices(self, batch: Batch, rows: int) -> Iterator[slice]:
        """Slices of about ``rows`` data, or one of everything where the programs need all."""
        if not self.structure.splits_rows:
            yield slice(None)
            return
        size, rows = self.size(batch), self.step(batch, rows)
        for start in range(0, size, rows):
            yield slice(start, min(start + rows, size))

    @contextmanager
    def showing(self, batch: Batch, part: slice) -> Iterator[Batch]:
        """Show the programs some of the data: a part of the batch, or all with chosen indices."""
        if not self.structure.subsamples:
            yield some_rows(batch, part)
            return
        plate, size, taken = self._subsampled(batch)
        start, stop, _ = part.indices(size)
        # A plate takes as many indices as it asks for: the last block reaches back.
        first = min(start, size - taken)
        self._taken, self.kept = taken, slice(start - first, stop - first)
        try:
            with Indices({plate: torch.arange(first, first + taken, device=_device(batch))}):
                yield batch
        finally:
            self._taken = self.kept = None

    def row_axis(self, name: str) -> int:
        """The axis of a local site's draws ``(S, *plates, *event)`` along which the data lie."""
        plates = self.structure.sites[name].plates
        return 1 + next(i for i, p in enumerate(plates) if p in self.structure.data_plates)

    def cut(self, name: str, value: Tensor) -> Tensor:
        """Of a site's draws those of the rows that are shown."""
        site = self.structure.sites.get(name)
        if self.kept is None or site is None or not site.local:
            return value
        return value.narrow(self.row_axis(name), self.kept.start, self.kept.stop - self.kept.start)

    def count(self, batch: Batch) -> int:
        """How many data the programs have before them."""
        if self._taken is not None:
            return self._taken
        return rows_of(batch) if self.structure.data_plates else 1

    def _subsampled(self, batch: Batch) -> tuple[str, int, int]:
        """The plate by which the program picks a mini-batch, its size, and how many it takes."""
        if self._plate is None:
            sizes = PlateSizes()
            with torch.no_grad(), torch.random.fork_rng(), blame("story"), sizes:
                self.pair.guide(*batch, **self.kwargs)
                self.pair.model(*batch, **self.kwargs)
            plates = sorted(sizes.drawn)
            if len(plates) != 1 or plates[0] not in self.structure.data_plates:
                raise StoryError(
                    "to show a program every datum, the plate that picks its mini-batch must be "
                    f"one and vectorised, got {', '.join(map(repr, plates))}, several or a loop: "
                    "leave out subsample_size to draw from the posterior"
                )
            size, taken = sizes.seen[plates[0]]
            assert taken is not None
            self._plate = (plates[0], size, taken)
        return self._plate


def _device(batch: Batch) -> torch.device | None:
    return next((column.device for column in batch if isinstance(column, Tensor)), None)
