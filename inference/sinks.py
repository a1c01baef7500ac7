"""Where posterior draws go, piece by piece: memory, NetCDF or zarr."""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_gen.errors import DataError, RunError

if TYPE_CHECKING:
    from xarray import DataTree

Attributes = Mapping[str, str | int | float]


class Sink(ABC):
    """Takes arrays piece by piece and gives them back as one tree of groups."""

    @abstractmethod
    def create(
        self, group: str, name: str, dims: Sequence[str], shape: Sequence[int], dtype: Any,
        chunks: Sequence[int],
    ) -> None:  # fmt: skip
        """Make room for an array."""

    @abstractmethod
    def write(self, group: str, name: str, where: tuple[slice, ...], values: np.ndarray) -> None:
        """Fill in a piece."""

    @abstractmethod
    def finish(self, attributes: Attributes) -> DataTree:
        """Give the tree; arrays on disk are read when they are used."""

    @abstractmethod
    def discard(self) -> None:
        """Forget what was written, after a failure."""


def sink_for(path: str | Path | None) -> Sink:
    """The sink that a path calls for.

    Raises:
        DataError: If it ends in neither ``.nc`` nor ``.zarr``.
        RunError: If its directory cannot be written, or zarr is not installed.
    """
    if path is None:
        return MemorySink()
    path = Path(path)
    kinds: dict[str, type[_FileSink]] = {".nc": NetCDFSink, ".zarr": ZarrSink}
    if path.suffix not in kinds:
        raise DataError(f"a posterior is saved as .nc or .zarr, got {path.name!r}")
    try:
        return kinds[path.suffix](path)
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be written: {error.strerror}") from error


class MemorySink(Sink):
    """Arrays in memory."""

    def __init__(self) -> None:
        self.arrays: dict[str, dict[str, tuple[list[str], np.ndarray]]] = {}

    def create(
        self, group: str, name: str, dims: Sequence[str], shape: Sequence[int], dtype: Any,
        chunks: Sequence[int],
    ) -> None:  # fmt: skip
        """Make room for an array."""
        array = np.empty(tuple(shape), dtype)
        self.arrays.setdefault(group, {})[name] = (list(dims), array)

    def write(self, group: str, name: str, where: tuple[slice, ...], values: np.ndarray) -> None:
        """Fill in a piece."""
        self.arrays[group][name][1][where] = values

    def finish(self, attributes: Attributes) -> DataTree:
        """Give the tree."""
        import xarray

        groups = {}
        for group, arrays in self.arrays.items():
            variables = {n: (d, a) for n, (d, a) in arrays.items() if d != [n]}
            coords = {n: a for n, (d, a) in arrays.items() if d == [n]}
            groups[group] = xarray.Dataset(variables, coords, dict(attributes))
        return xarray.DataTree.from_dict(groups)

    def discard(self) -> None:
        """Forget the arrays."""
        self.arrays.clear()


class _FileSink(Sink):
    """Writes under a temporary name beside the target, and renames at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        self.temporary = self.folder / path.name

    def _put_in_place(self) -> None:
        if self.path.is_dir():  # a directory cannot be renamed over another that holds something
            os.replace(self.path, self.folder / "replaced")
        os.replace(self.temporary, self.path)
        shutil.rmtree(self.folder)

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.folder, ignore_errors=True)


class NetCDFSink(_FileSink):
    """One NetCDF file, written through h5netcdf."""

    def __init__(self, path: Path) -> None:
        import h5netcdf

        super().__init__(path)
        self.file = h5netcdf.File(self.temporary, "w")

    def create(
        self, group: str, name: str, dims: Sequence[str], shape: Sequence[int], dtype: Any,
        chunks: Sequence[int],
    ) -> None:  # fmt: skip
        """Make room for an array."""
        place = self.file.groups.get(group) or self.file.create_group(group)
        for dim, size in zip(dims, shape, strict=True):
            if dim not in place.dimensions:
                place.dimensions[dim] = size
        options = {"chunks": tuple(chunks)} if dims else {}
        if np.dtype(dtype).kind == "U":
            import h5py

            dtype = h5py.string_dtype()
        place.create_variable(name, tuple(dims), dtype, **options)

    def write(self, group: str, name: str, where: tuple[slice, ...], values: np.ndarray) -> None:
        """Fill in a piece."""
        text = values.dtype.kind == "U"
        self.file.groups[group].variables[name][where] = values.astype(object) if text else values

    def finish(self, attributes: Attributes) -> DataTree:
        """Close the file, put it in place, and open it as a tree."""
        import xarray

        for group in self.file.groups.values():
            group.attrs.update(dict(attributes))
        self.file.close()
        self._put_in_place()
        return xarray.open_datatree(self.path, engine="h5netcdf")

    def discard(self) -> None:
        """Remove what was written."""
        self.file.close()
        super().discard()


class ZarrSink(_FileSink):
    """A zarr directory."""

    def __init__(self, path: Path) -> None:
        try:
            import zarr
        except ImportError as error:
            raise RunError(
                "zarr is not installed: pip install 'ppl-gen[zarr]', or save as .nc"
            ) from error
        super().__init__(path)
        self.root = zarr.open_group(self.temporary, mode="w")

    def create(
        self, group: str, name: str, dims: Sequence[str], shape: Sequence[int], dtype: Any,
        chunks: Sequence[int],
    ) -> None:  # fmt: skip
        """Make room for an array."""
        self.root.require_group(group).create_array(
            name,
            shape=tuple(shape),
            dtype=str if np.dtype(dtype).kind == "U" else dtype,
            dimension_names=list(dims),
            chunks=tuple(chunks) or "auto",
        )

    def write(self, group: str, name: str, where: tuple[slice, ...], values: np.ndarray) -> None:
        """Fill in a piece."""
        self.root[group][name][where] = values  # type: ignore[index]

    def finish(self, attributes: Attributes) -> DataTree:
        """Put the directory in place, and open it as a tree."""
        import xarray

        for _, group in self.root.groups():
            group.attrs.update(dict(attributes))
        self._put_in_place()
        return xarray.open_datatree(self.path, engine="zarr", consolidated=False)
