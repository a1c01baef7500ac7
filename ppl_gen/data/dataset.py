"""A data set and its parts, as tensors in memory or as rows that are read when needed."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Generator, Tensor

from ppl_gen.data.levels import WHOLE, Levels
from ppl_gen.data.stores import Column, Rows, in_passing, joined, together
from ppl_gen.data.support import Support
from ppl_gen.errors import DataError

CHUNK_BYTES = 1 << 24
# Rows on disk by which is told what values they have.
LOOKED_AT = 10_000


def seeded(seed: int) -> Generator:
    """Make a generator of its own, so that torch's global one is left alone.

    Raises:
        DataError: If ``seed`` is not a whole number from 0 to 2^63 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise DataError(f"seed must be a whole number from 0 to 2^63 - 1, got {seed!r}")
    return Generator().manual_seed(seed)


@dataclass(frozen=True, eq=False, repr=False)
class Part:
    """Observations, with or without labels and further columns, all equally long.

    Observations may be kept as bytes. Then ``x`` and ``columns`` are computed at every call, and
    what is written into them is lost; ``batch`` and ``pieces`` make numbers of some rows only.

    Rows may stay where they are stored, when they are more than memory holds: see ``on_disk``.
    ``x``, ``y`` and ``columns`` are then read when rows of them are taken.

    Args:
        stored: Tensors of shape ``(N, *)``, or columns of a store: the observations, then the
            labels if there are any.
        redraw: Whether the observations are probabilities from which every ``batch`` draws 0 or 1
            anew, as Salakhutdinov and Murray (2008) binarise MNIST.
        levels: The numbers for which bytes stand, where the observations are kept as uint8; None
            where they are kept as they are.

    Raises:
        DataError: If there is no column, a column is no tensor or has no rows, two columns differ
            in length, observations to be redrawn are not in floating point, or those with levels
            are no bytes.
    """

    stored: tuple[Any, ...]
    redraw: bool = False
    levels: Levels | None = None

    def __post_init__(self) -> None:
        if not self.stored:
            raise DataError("data must have at least one column, got none")
        for column in self.stored:
            if not isinstance(column, Tensor | Column):
                raise DataError(f"a column must be a tensor, got {type(column).__name__}")
            if column.ndim == 0:
                raise DataError("a column must have one row for each observation, got a scalar")
            if len(column) != len(self.stored[0]):
                lengths = f"{len(self.stored[0])} and {len(column)}"
                raise DataError(f"columns must have equally many rows, got {lengths}")
        if len(self) == 0:
            raise DataError("data must have at least one row, got none")
        kept = self.stored[0].dtype
        if self.levels is not None and kept is not torch.uint8:
            raise DataError(f"observations with levels must be kept as uint8, got {kept}")
        if self.redraw and self.levels is None and not kept.is_floating_point:
            raise DataError(
                f"observations to be redrawn must be probabilities in floating point, got {kept}; "
                "convert them, or say with levels= what bytes stand for"
            )

    @property
    def on_disk(self) -> bool:
        """Whether rows stay where they are stored, and are read when they are needed."""
        return any(isinstance(column, Column) for column in self.stored)

    @property
    def columns(self) -> tuple[Any, ...]:
        """The observations, then all else, shape ``(N, *)`` each."""
        return (self.x, *self.stored[1:])

    @property
    def x(self) -> Any:
        """The observations, shape ``(N, *shape)``."""
        kept = self.stored[0]
        if self.levels is None:
            return kept
        return kept.then(self.levels) if isinstance(kept, Column) else self.levels(kept)

    @property
    def y(self) -> Any:
        """The labels, shape ``(N,)``: long for classes, float32 for a continuous truth."""
        return self.stored[1] if len(self.stored) > 1 else None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one observation."""
        return tuple(self.stored[0].shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the observations are kept."""
        return self.stored[0].device

    def __len__(self) -> int:
        return len(self.stored[0])

    def __getitem__(self, index: slice | Tensor) -> "Part":
        if not isinstance(index, slice | Tensor) or (isinstance(index, Tensor) and index.ndim != 1):
            raise TypeError(
                f"a part is indexed by a slice or a tensor of shape (B,), got {index!r}"
            )
        return replace(self, stored=tuple(_chosen(column, index) for column in self.stored))

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(column.shape)) for column in self.stored)
        return f"Part({shapes}{', redraw=True' if self.redraw else ''})"

    def batch(self, index: Tensor) -> tuple[Tensor, ...]:
        """Take some rows.

        Args:
            index: Row numbers, shape ``(B,)``.

        Returns:
            The columns, shape ``(B, *)`` each. Where ``redraw`` holds, the first is drawn with
            torch's global generator.
        """
        return self.rows(self.stored, index)

    def rows(self, stored: tuple[Tensor, ...], index: Tensor) -> tuple[Tensor, ...]:
        """Take some rows of tensors like those of this part.

        No value decides what is computed, and no tensor of the part is used, so that the stored
        tensors can be inputs of a graph.

        Args:
            stored: Tensors of the number and types of ``stored``, with any number of rows.
            index: Row numbers, shape ``(B,)``.

        Returns:
            As of ``batch``.
        """
        return self.shown(together(stored, index))

    def shown(self, taken: Rows) -> Rows:
        """Rows as a batch has them, of rows as they are stored."""
        x, *rest = taken
        x = self._numbers(x)
        return (torch.bernoulli(x) if self.redraw else x, *rest)

    def in_passing(self, batches: Sequence[Tensor], begin: int, columns: int) -> Iterator[Rows]:
        """Batches of rows as they are stored, one after the other, where they are on disk.

        Args:
            batches: Places of the rows of each.
            begin: Which is the first.
            columns: How many columns are needed.
        """
        return in_passing(self.stored[:columns], batches, begin)

    def order(self) -> Tensor:
        """Places of all rows in a random order, from torch's generator; a stream has its own."""
        stored = next((column for column in self.stored if isinstance(column, Column)), None)
        if stored is None:
            return torch.randperm(len(self), device=self.device)
        return stored.store.order(stored.rows)

    def spread(self, rows: int) -> Tensor:
        """Places of at most so many rows, evenly spread over all."""
        places = torch.linspace(0, len(self) - 1, min(rows, len(self)), dtype=torch.float64)
        return places.round().long()

    def some(self, rows: int) -> "Part":
        """At most so many rows, evenly spread over all, in memory."""
        return replace(self, stored=together(self.stored, self.spread(rows)))

    def then(self, change: Callable[[Tensor], Tensor], where: torch.Size | None = None) -> "Part":
        """Every row changed: of the observations, or of each column whose rows have a shape."""

        def changed(place: int, column: Any) -> Any:
            if (place > 0) if where is None else (column.shape[1:] != where):
                return column
            return column.then(change) if isinstance(column, Column) else change(column)

        return replace(self, stored=tuple(changed(*item) for item in enumerate(self.stored)))

    def sample(self) -> "Part":
        """Itself; where rows are on disk up to 10,000, evenly spread over all, in memory."""
        return self.some(LOOKED_AT) if self.on_disk else self

    def in_memory(self) -> "Part":
        """All rows, read where they are on disk."""
        return replace(self, stored=together(self.stored, slice(None))) if self.on_disk else self

    def pieces(self) -> Iterator[Tensor]:
        """The observations from first to last, some rows at a time, shape ``(B, *shape)`` each.

        All of them together never exist as floats.
        """
        return map(self._numbers, _split(self.stored[0].detach()))

    def _numbers(self, kept: Tensor) -> Tensor:
        return kept if self.levels is None else self.levels(kept)

    def to(self, device: torch.device | str) -> "Part":
        """The same rows on another device."""
        return replace(self, stored=tuple(column.to(device) for column in self.stored))

    def fixed(self, seed: int = 0) -> "Part":
        """Draw the observations once and for all; a part that is not redrawn is returned as is."""
        return self.drawn(seeded(seed)) if self.redraw else self

    def drawn(self, generator: Generator) -> "Part":
        """Draw 0 or 1 once from observations that are probabilities.

        Args:
            generator: A generator on the CPU, so that every device gives the same draws.
        """
        return self.binary(
            lambda rows: torch.bernoulli(rows.cpu(), generator=generator).to(rows.device)
        )

    def binary(self, way: Callable[[Tensor], Tensor]) -> "Part":
        """The same rows with 0 or 1 in place of every number, kept as bytes where float32 was.

        Args:
            way: Gives 0 and 1 for some observations, shape ``(B, *shape)``, first rows first.
        """
        if self.on_disk:
            raise DataError(
                "observations that are read from disk cannot be binarised: store them as 0 and 1, "
                "or read them into memory with in_memory=True"
            )
        if self.levels is None and self.stored[0].dtype is not torch.float32:
            x, levels = torch.cat([way(rows) for rows in self.pieces()]), None
        else:
            # In its own levels a part can be joined with the one that it was drawn from.
            levels = WHOLE if self.levels is None or self.levels.ends is None else self.levels
            zero, one = torch.tensor(levels.ends, dtype=torch.uint8, device=self.device)
            x = torch.cat([torch.where(way(rows) > 0, one, zero) for rows in self.pieces()])
        return Part((x, *self.stored[1:]), levels=levels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the shapes, types and bytes of the columns and over ``redraw``, in hex.

        Observations kept as bytes count as the numbers that they stand for. Of rows on disk it is
        that of their number and of some, evenly spread: up to 10,000.
        """
        if self.on_disk:
            known_by = min(c.store.known_by for c in self.stored if isinstance(c, Column))
            told = f"{len(self)} rows, of them {self.some(known_by).fingerprint}"
            return hashlib.sha256(told.encode()).hexdigest()
        digest = hashlib.sha256(f"redraw={self.redraw}".encode())
        columns = (self.pieces(), *(_split(column.detach()) for column in self.stored[1:]))
        for pieces, first in zip(columns, self[:1].columns, strict=True):
            digest.update(f"{(len(self), *first.shape[1:])} {first.dtype}".encode())
            for rows in pieces:
                digest.update(rows.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _chosen(column: Any, index: slice | Tensor) -> Any:
    return column.chosen(index) if isinstance(column, Column) else column[index]


def _split(column: Any) -> Iterable[Tensor]:
    """A column in pieces that take ``CHUNK_BYTES`` at most as float32, or one row each."""
    row_bytes = max(1, 4 * column.shape[1:].numel(), column[:1].nbytes)
    return column.split(max(1, CHUNK_BYTES // row_bytes))


def concat(*parts: Part) -> Part:
    """Join parts row after row, for instance train and valid.

    A redrawn part can be joined with one that was drawn already: drawing from the probabilities 0
    and 1 gives the same 0 and 1 every time. The whole is then redrawn. Observations stay bytes
    where all parts keep them as bytes of the same levels.

    Raises:
        DataError: If there is no part, the columns differ in number, shape or type, or a redrawn
            part meets one with values other than 0 and 1.
    """
    if not parts:
        raise DataError("concat needs at least one part, got none")
    layouts = {tuple((tuple(c.shape[1:]), c.dtype) for c in p[:1].columns) for p in parts}
    if len(layouts) > 1:
        described = " and ".join(repr(part) for part in parts)
        raise DataError(f"parts must have columns of equal shapes and types, got {described}")
    redraw = any(part.redraw for part in parts)
    for part in parts:
        if redraw and not part.redraw and not all(map(_is_binary, part.pieces())):
            raise DataError("a redrawn part can be joined only with parts that hold 0 and 1")
    alike = len({part.levels for part in parts}) == 1
    columns = zip(*(part.stored if alike else part.columns for part in parts), strict=True)
    whole = tuple(joined(c) if isinstance(c[0], Column) else torch.cat(c) for c in columns)
    return Part(whole, redraw, parts[0].levels if alike else None)


def _is_binary(x: Tensor) -> bool:
    return bool(Support.BINARY.contains(x).all())


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Observations in three parts, with what is known of them.

    Args:
        name: What the data are called.
        support: The set in which every entry of an observation lies.
        train: What a story is fitted to.
        valid: What choices are made on.
        test: What is reported on.
        categories: How many categories there are, for ``Support.CATEGORIES`` only.
        label_names: What the classes are called, class 0 first.
        column_names: What the columns of a table are called.
        rows: Which row of the source each row of train, valid and test is, from 0, where they were
            divided at random.
        source: JSON-able arguments with which ``load`` gives the same data again.

    Raises:
        DataError: If the parts hold observations of different shapes.
    """

    name: str
    support: Support
    train: Part
    valid: Part
    test: Part
    categories: int | None = None
    label_names: tuple[str, ...] | None = None
    column_names: tuple[str, ...] | None = None
    rows: tuple[Tensor, Tensor, Tensor] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = [part.shape for part in self.parts]
        if len(set(shapes)) > 1:
            raise DataError(
                f"observations of {self.name!r} must have one shape, got {shapes[0]} in train, "
                f"{shapes[1]} in valid and {shapes[2]} in test"
            )

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """Train, valid and test."""
        return self.train, self.valid, self.test

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one observation."""
        return self.train.shape

    def pieces(self) -> Iterator[Tensor]:
        """All observations, some rows of train, valid and test at a time."""
        for part in self.parts:
            yield from part.pieces()

    @property
    def on_disk(self) -> bool:
        """Whether rows stay where they are stored."""
        return any(part.on_disk for part in self.parts)

    def looked_at(self) -> Iterator[Tensor]:
        """As :meth:`pieces`; where rows are on disk, up to 10,000 of each part."""
        for part in self.parts:
            yield from part.sample().pieces()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of the three parts, in hex."""
        joined = " ".join(part.fingerprint for part in self.parts)
        return hashlib.sha256(joined.encode()).hexdigest()

    def __repr__(self) -> str:
        rows = " + ".join(str(len(part)) for part in self.parts)
        return f"Dataset({self.name!r}, {rows} rows of shape {self.shape}, {self.support.value})"


def divided(
    name: str, support: Support, whole: Part, generator: Generator, **known: Any
) -> Dataset:
    """Divide rows at random: 15 % each for valid and test, the rest for train.

    Args:
        name: What the data are called.
        support: The set in which every entry of an observation lies.
        whole: All rows.
        generator: What the permutation is drawn with.
        **known: Further fields of the data set.

    Raises:
        DataError: If there are fewer than 3 rows.
    """
    rows = len(whole)
    if rows < 3:
        raise DataError(
            f"{name!r} needs at least 3 rows to be divided into train, valid and test, got {rows}"
        )
    held_out = max(1, round(0.15 * rows))
    order = torch.randperm(rows, generator=generator)
    train, valid, test = order.split([rows - 2 * held_out, held_out, held_out])
    parts = whole[train], whole[valid], whole[test]
    return Dataset(name, support, *parts, rows=(train, valid, test), **known)


def last_sixth(whole: Part, name: str) -> tuple[Part, Part]:
    """Hold out the last sixth of a training part, which for MNIST is the usual 50,000 and 10,000.

    Raises:
        DataError: If there are fewer than 2 rows.
    """
    if len(whole) < 2:
        raise DataError(f"{name!r} needs at least 2 training rows to hold one out for valid, got 1")
    held_out = max(1, len(whole) // 6)
    return whole[:-held_out], whole[-held_out:]
