"""A user's own file or folder as a data set."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ppl_gen.data.arrays import read_arrays
from ppl_gen.data.dataset import LOOKED_AT, Dataset, Part, divided, last_sixth, seeded
from ppl_gen.data.images import read_images
from ppl_gen.data.levels import PIXELS, WHOLE, Levels
from ppl_gen.data.observations import Observations, cause, checked_observations
from ppl_gen.data.stored_files import ArrayFiles, OnDisk, arrays_in, on_disk
from ppl_gen.data.stores import of_store
from ppl_gen.data.support import Support, inferred_support
from ppl_gen.data.tables import read_csv, read_parquet
from ppl_gen.errors import DataError

ARRAYS = (".npy", ".npz", ".pt")
TABLES = {".csv": read_csv, ".parquet": read_parquet}


def load_file(
    path: Path,
    target: str | None,
    support: Support | None,
    seed: int,
    missing: bool = False,
    in_memory: bool | None = None,
) -> Dataset:
    """Load a user's own data.

    A file that names its parts keeps them; without a valid part, the last sixth of train is held
    out. Everything else is divided 70/15/15 at random. Whole bytes of three or more axes, as
    images have, are divided by 255, unless they are all 0 and 1 or another support is asked for.

    Args:
        path: A file of a known kind, or a folder of images.
        target: The column of labels, for tables only.
        support: What the values are, inferred from them unless told.
        seed: The seed of the division.
        missing: Whether values may be missing, which are then NaN, and the support real.
        in_memory: Whether to read all of it now; by default if it is no larger than 1 GiB.

    Raises:
        DataError: If the path does not exist, or its content cannot be used.
    """
    try:
        if (kept := on_disk(path, target, in_memory)) is not None:
            return _described(path, kept, support, seed, missing)
        pieces = _read(path, target, missing)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {cause(error)}") from error
    levels = PIXELS if _is_picture(pieces, support) else WHOLE
    parts = {name: _part(piece, levels) for name, piece in pieces.items()}
    first = next(iter(pieces.values()))
    names: dict[str, Any] = {"label_names": first.label_names, "column_names": first.column_names}
    if "all" in parts:
        data = divided(path.name, Support.REAL, parts["all"], seeded(seed), **names)
    else:
        train, valid = (
            (parts["train"], parts["valid"])
            if "valid" in parts
            else last_sixth(parts["train"], path.name)
        )
        data = Dataset(path.name, Support.REAL, train, valid, parts["test"], **names)
    if any(bool(rows.isnan().any()) for rows in data.pieces()):
        return data
    return replace(data, support=support or inferred_support(data.pieces()))


def _read(path: Path, target: str | None, missing: bool) -> Mapping[str, Observations]:
    kind = path.suffix.lower()
    if not os.path.exists(path):
        raise DataError(f"there is no file or folder {str(path)!r}; check the path")
    if target is not None and kind not in TABLES:
        kinds = " and ".join(TABLES)
        raise DataError(f"target names a column of {kinds} files, which {path.name!r} is not")
    if path.is_dir():
        arrays = arrays_in(path)
        if arrays:
            store = ArrayFiles(arrays)
            (x,) = store.read(torch.arange(len(store)))
            return {"all": Observations(checked_observations(x, repr(path.name), missing))}
        return {"all": read_images(path)}
    if kind not in (*ARRAYS, *TABLES):
        known = ", ".join((*ARRAYS, *TABLES))
        raise DataError(
            f"{path.name!r} is of no known kind; give a file that ends in one of {known}, "
            "or a folder of images"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path.name!r} is empty; give a file with at least 3 rows")
    if kind in TABLES:
        return {"all": TABLES[kind](path, target, missing)}
    return read_arrays(path, missing)


def _described(
    path: Path, kept: OnDisk, support: Support | None, seed: int, missing: bool
) -> Dataset:
    """Rows on disk, divided, and what some of them say of their values."""
    whole = Part(of_store(kept.store))
    if whole.stored[0].dtype is torch.uint8:
        some = {"all": Observations(whole.some(LOOKED_AT).stored[0])}
        whole = replace(whole, levels=PIXELS if _is_picture(some, support) else WHOLE)
    elif not whole.stored[0].is_floating_point():
        whole = replace(whole, stored=(whole.stored[0].to(dtype=torch.float32), *whole.stored[1:]))
    names: dict[str, Any] = {"label_names": kept.label_names, "column_names": kept.column_names}
    data = divided(path.name, Support.REAL, whole, seeded(seed), **names)
    missed = any(bool(rows.isnan().any()) for rows in data.looked_at())
    if missed and not missing:
        raise DataError(
            f"{path.name!r} holds values that are NaN; remove or replace them, or keep them with "
            "missing='keep' (--missing keep) for a story that takes them"
        )
    if any(bool(rows.isinf().any()) for rows in data.looked_at()):
        raise DataError(f"{path.name!r} holds values that are infinite; remove or replace them")
    if missed:
        return data
    return replace(data, support=support or inferred_support(data.looked_at()))


def _is_picture(pieces: Mapping[str, Observations], support: Support | None) -> bool:
    xs = [piece.x for piece in pieces.values()]
    return (
        support in (None, Support.UNIT_INTERVAL)
        and all(x.dtype is torch.uint8 and x.ndim >= 3 for x in xs)
        and any(bool((x > 1).any()) for x in xs)
    )


def _part(piece: Observations, levels: Levels) -> Part:
    labels = () if piece.y is None else (piece.y,)
    if piece.x.dtype is torch.uint8:
        return Part((piece.x, *labels), levels=levels)
    return Part((piece.x.float(), *labels))
