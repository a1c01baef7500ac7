"""Files that are larger than memory, read row by row: arrays, Parquet, images."""

from __future__ import annotations

import bisect
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_gen.data.images import images_of, pixels_of
from ppl_gen.data.observations import cause
from ppl_gen.data.stores import Rows, Store, narrow, runs
from ppl_gen.errors import DataError

# Bytes of row groups that are kept once they were read, and among which rows change places.
GROUPS = 1 << 28
# From how many seconds a row on reads are slow, and how many batches before it a system is told.
SLOW, HINTED = 2e-5, 8
# What is larger stays on disk unless it is asked for.
LARGE = 1 << 30


@dataclass(frozen=True)
class OnDisk:
    """Rows that are left where they are, and what is known of them.

    Attributes:
        store: The rows.
        label_names: What the classes are called, class 0 first.
        column_names: What the columns of a table are called.
    """

    store: Store
    label_names: tuple[str, ...] | None = None
    column_names: tuple[str, ...] | None = None


def on_disk(path: Path, target: str | None, in_memory: bool | None) -> OnDisk | None:
    """What is read row by row of a path; None if it is to be read into memory.

    Args:
        path: An ``.npy`` or Parquet file, a folder of ``.npy`` files of equal rows or of images.
        target: The column of labels, of a table.
        in_memory: Whether to read all of it now; by default if it is no larger than 1 GiB.

    Raises:
        DataError: If it is to stay on disk and is of another kind, or cannot be read.
    """
    if in_memory or not path.exists():
        return None
    kind = path.suffix.lower()
    if path.is_dir():
        arrays = arrays_in(path)
        found = OnDisk(ArrayFiles(arrays)) if arrays else _images(path)
    elif kind == ".npy" and target is None:
        if in_memory is None and path.stat().st_size <= LARGE:
            return None
        found = OnDisk(ArrayFiles([path]))
    elif kind == ".parquet":
        if in_memory is None and 4 * path.stat().st_size <= LARGE:
            return None
        rows = ParquetRows(path, target)
        found = OnDisk(rows, column_names=rows.names)
    elif in_memory is False:
        raise DataError(
            f"{path.name!r} cannot be read row by row: give an .npy or .parquet file, a folder of "
            "either .npy files or images, or leave in_memory out"
        )
    else:
        return None
    shape, dtype = found.store.columns[0]
    small = len(found.store) * torch.Size(shape).numel() * dtype.itemsize <= LARGE
    return None if in_memory is None and small else found


def arrays_in(folder: Path) -> list[Path]:
    """The ``.npy`` files of a folder, in the order of their names."""
    return sorted(path for path in folder.glob("*.npy") if not path.name.startswith("."))


def _images(folder: Path) -> OnDisk:
    files, codes, names = images_of(folder)
    return OnDisk(ImageFiles(files, partial(pixels_of, folder=folder), codes, folder.name), names)


class ArrayFiles(Store):
    """Rows of ``.npy`` files, one file after the other, read where they stand.

    Nothing is mapped into memory: a system counts what is mapped as the process's own, and maps far
    more around a row than the row.

    Args:
        paths: Files in C order, of rows of one shape and type.

    Raises:
        DataError: If a file is damaged, holds no numbers, or differs from the first.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.name = paths[0].name if len(paths) == 1 else paths[0].parent.name
        self.paths = list(paths)
        self._offsets, self._first = [], [0]
        kinds = []
        for path in self.paths:
            shape, dtype, offset = _header(path)
            kinds.append((shape[1:], dtype))
            self._offsets.append(offset)
            self._first.append(self._first[-1] + shape[0])
            if kinds[-1] != kinds[0]:
                raise DataError(
                    f"all files must hold rows of one shape and type, but {self.paths[0].name!r} "
                    f"has {kinds[0][0]} of {kinds[0][1]} and {path.name!r} {kinds[-1][0]} of "
                    f"{kinds[-1][1]}"
                )
        shape, self._dtype = kinds[0]
        self._shape = shape
        self._bytes = self._dtype.itemsize * max(1, torch.Size(shape).numel())
        self.columns = (((shape or (1,)), narrow(self._dtype)),)
        self._files = [_opened(path) for path in self.paths]
        for file in self._files:
            weakref.finalize(self, os.close, file)

    def __len__(self) -> int:
        return self._first[-1]

    def read(self, rows: Tensor) -> Rows:
        """Some rows; see :meth:`Store.read`."""
        import numpy as np

        held = np.empty((len(rows), self._bytes), dtype=np.uint8)
        flat, begin = held.reshape(-1).data, 0
        for place, offset, size in self._stretches(rows):
            self._fill(place, flat[begin : begin + size], offset)
            begin += size
        numbers = held.view(self._dtype).reshape(len(rows), *(self._shape or (1,)))
        native = numbers.astype(self._dtype.newbyteorder("="), copy=False)
        return (torch.from_numpy(native).to(self.columns[0][1]),)

    def ahead(self, batches: Sequence[Tensor], begin: int) -> Iterator[Rows]:
        """One batch after the other, read when its turn comes.

        What a system holds of a file is read faster than another thread could hand it over. Where
        reads are slow, as from a disk, it is told beforehand of the rows to come.
        """
        slow = False
        for number in range(begin, len(batches)):
            if slow and number + HINTED < len(batches):
                self._hint(batches[number + HINTED])
            begun = time.perf_counter()
            rows = self.read(batches[number])
            slow = slow or time.perf_counter() - begun > SLOW * len(rows[0])
            yield rows

    def _stretches(self, rows: Tensor) -> Iterator[tuple[int, int, int]]:
        """File, offset and bytes of each stretch of rows that stands together."""
        size = self._bytes
        if (rows[1:] != rows[:-1] + 1).all():  # as in a random order
            for row in rows.tolist():
                place = bisect.bisect_right(self._first, row) - 1
                yield place, self._offsets[place] + (row - self._first[place]) * size, size
            return
        for _, first, count in runs(rows):
            while count:
                place = bisect.bisect_right(self._first, first) - 1
                some = min(count, self._first[place + 1] - first)
                yield place, self._offsets[place] + (first - self._first[place]) * size, some * size
                first, count = first + some, count - some

    def _hint(self, rows: Tensor) -> None:
        if hasattr(os, "posix_fadvise"):
            for place, offset, size in self._stretches(rows):
                os.posix_fadvise(self._files[place], offset, size, os.POSIX_FADV_WILLNEED)

    def _fill(self, place: int, target: memoryview, offset: int) -> None:
        while target:
            try:
                read = os.preadv(self._files[place], [target], offset)
            except OSError as error:
                raise DataError(f"{self.paths[place].name!r} cannot be read: {error}") from error
            if not read:
                raise DataError(f"{self.paths[place].name!r} ends before its last row")
            target, offset = target[read:], offset + read


def _header(path: Path) -> tuple[tuple[int, ...], Any, int]:
    """Shape, type, and where the numbers begin."""
    from numpy.lib import format as npy

    try:
        with path.open("rb") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
            begin = file.tell()
        size = path.stat().st_size
    except Exception as error:  # of a damaged file NumPy raises whatever came of its parsing
        raise DataError(f"{path.name!r} is no readable NumPy file: {cause(error)}") from error
    if dtype.hasobject:
        raise DataError(
            f"{path.name!r} holds an array of Python objects, which is not read because it could "
            "run code; store it with a number type such as float32"
        )
    if dtype.kind not in "biuf":
        raise DataError(f"{path.name!r} must hold real numbers, got the NumPy type {dtype}")
    if fortran and len(shape) > 1:
        raise DataError(
            f"{path.name!r} is stored column by column, in which no row stands together: store it "
            "with numpy.ascontiguousarray, or read it into memory with in_memory=True"
        )
    if not shape or 0 in shape:
        raise DataError(f"{path.name!r} holds no observations: its shape is {shape}")
    if begin + dtype.itemsize * torch.Size(shape).numel() > size:
        raise DataError(f"{path.name!r} is cut short: it has fewer bytes than its {shape[0]} rows")
    return shape, dtype, begin


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{path.name!r} cannot be read: {error.strerror}") from error


class ParquetRows(Store):
    """Rows of a Parquet file, read by its row groups, of which the last ones are kept.

    A row cannot be read without its group. So the groups are visited in random order, and rows
    change places among those that are kept together.

    Args:
        path: The file.
        target: The column of labels, if there is one: numbers.

    Raises:
        DataError: If the file is damaged, or a column holds no numbers.
    """

    def __init__(self, path: Path, target: str | None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.name, self.path = path.name, path
        try:
            self._file = pq.ParquetFile(path)
        except Exception as error:  # of a damaged file pyarrow raises whatever came of its parsing
            raise DataError(f"{path.name!r} is no readable Parquet file: {cause(error)}") from error
        schema = self._file.schema_arrow
        names = list(schema.names)
        if target is not None and target not in names:
            raise DataError(f"{path.name!r} has no column {target!r}; it has {', '.join(names)}")
        kinds = {n: schema.field(n).type for n in names}
        for name, kind in kinds.items():
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)
                    or pa.types.is_boolean(kind)):  # fmt: skip
                raise DataError(
                    f"column {name!r} of {path.name!r} must hold numbers to be read from disk, got "
                    f"{kind}: leave it out of the file, or read it with in_memory=True"
                )
        self.names = tuple(name for name in names if name != target)
        self.target = target
        if not self.names or not self._file.metadata.num_rows:
            raise DataError(f"{path.name!r} must have at least one row and one column")
        self.columns = (((len(self.names),), torch.float32),)
        if target is not None:
            real = pa.types.is_floating(kinds[target])
            self.columns += (((), torch.float32 if real else torch.int64),)
        sizes = [
            self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)
        ]
        self._first = torch.tensor([0, *sizes]).cumsum(0)
        row = 4 * len(self.names) + 8
        self._kept = max(1, GROUPS // (row * max(sizes)))
        self._groups: OrderedDict[int, list[Any]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._first[-1])

    def order(self, rows: Tensor) -> Tensor:
        """Groups in random order, and rows in random order among as many groups as are kept."""
        group = torch.searchsorted(self._first, rows, right=True) - 1
        turn = torch.randperm(len(self._first) - 1)[group] // self._kept
        chance = torch.rand(len(rows), dtype=torch.float64)
        return (turn + chance).argsort()

    def read(self, rows: Tensor) -> Rows:
        """Some rows; see :meth:`Store.read`."""
        import numpy as np

        # By NumPy: torch would bring as many threads as the step has, for whom there is no room.
        numbers, first = rows.numpy(), self._first.numpy()
        group = np.searchsorted(first, numbers, side="right") - 1
        found = [
            np.empty((len(numbers), *shape), "float32" if dtype.is_floating_point else "int64")
            for shape, dtype in self.columns
        ]
        for number in np.unique(group).tolist():
            inside = np.flatnonzero(group == number)
            for column, held in zip(found, self._group(number), strict=True):
                column[inside] = held[numbers[inside] - first[number]]
        return tuple(map(torch.from_numpy, found))

    def _group(self, number: int) -> list[Any]:
        import numpy as np

        if number not in self._groups:
            try:
                table = self._file.read_row_group(number)
                numbers = [
                    table.column(n).to_numpy().astype(np.float32, copy=False) for n in self.names
                ]
                held = [np.stack(numbers, 1)]
                if self.target is not None:
                    real = self.columns[1][1].is_floating_point
                    labels = table.column(self.target).to_numpy()
                    held.append(labels.astype("float32" if real else "int64"))
            except Exception as error:  # of a damaged file pyarrow raises whatever came of parsing
                raise DataError(f"{self.name!r} cannot be read: {cause(error)}") from error
            self._groups[number] = held
            while len(self._groups) > self._kept:
                self._groups.popitem(last=False)
        self._groups.move_to_end(number)
        return self._groups[number]


class ImageFiles(Store):
    """Images of a folder, decoded when they are needed, several at a time.

    Args:
        files: The images, all of one size.
        read: Decodes one, ``(channels, height, width)``.
        labels: Their classes, ``(N,)``, if they have some.
        name: Of the folder.
    """

    known_by = 200

    def __init__(self, files: Sequence[Path], read: Any, labels: Tensor | None, name: str) -> None:
        self.files, self.decode, self.labels, self.name = list(files), read, labels, name
        first = read(self.files[0])
        self.columns = ((tuple(first.shape), first.dtype),)
        if labels is not None:
            self.columns += (((), torch.int64),)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, rows: Tensor) -> Rows:
        """Some rows; see :meth:`Store.read`."""
        import numpy as np

        paths = [self.files[row] for row in rows.tolist()]
        with ThreadPoolExecutor(4) as readers:
            images = list(readers.map(self.decode, paths))
        shape = self.columns[0][0]
        for path, image in zip(paths, images, strict=True):
            if tuple(image.shape) != shape or image.dtype is not self.columns[0][1]:
                raise DataError(
                    f"images of {self.name!r} must have one size and kind, {shape} as "
                    f"{self.files[0].name!r}, got {tuple(image.shape)} of {path.name!r}"
                )
        found: Rows = (torch.from_numpy(np.stack([image.numpy() for image in images])),)
        return found if self.labels is None else (*found, self.labels[rows])
