"""Every data set by its name, and every file by its path."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ppl_gen.data import embedded, synthetic, vision
from ppl_gen.data.binarise import binarised
from ppl_gen.data.dataset import Dataset, Part, seeded
from ppl_gen.data.files import load_file
from ppl_gen.data.labels import partly_labelled
from ppl_gen.data.masks import masked
from ppl_gen.data.standardise import standardised
from ppl_gen.data.support import Support, check_support
from ppl_gen.errors import DataError

CATALOGUE: Mapping[str, str] = MappingProxyType(
    {**embedded.LINES, **synthetic.LINES, **vision.LINES}
)
"""Each known data set, described in one line."""


def names() -> tuple[str, ...]:
    """The name of every known data set."""
    return tuple(CATALOGUE)


def load(
    name_or_path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    binarise: str | None = None,
    standardise: bool = False,
    target: str | None = None,
    download: bool = False,
    seed: int = 0,
    size: int | None = None,
    support: str | None = None,
    missing: str = "refuse",
    labelled: int | None = None,
    mask: str | None = None,
    in_memory: bool | None = None,
) -> Dataset:
    """Load a data set by its name, or a file or folder by its path.

    Sources that have a test part keep it. All others are divided at random: 70 % train, 15 %
    valid, 15 % test. Torch's global generator is not touched, and nothing is written to disk
    unless ``download`` is given.

    Args:
        name_or_path: A name from ``names()``, in any case and with ``_`` or ``-``; or the path of
            a .npy, .npz, .pt, .csv or .parquet file or of a folder of images or of .npy files. A
            file that is called like a data set is reached with a path such as ``./mnist``.
        root: The folder of the image data sets, in torchvision's layout; the environment variable
            PPL_GEN_DATA unless told. Only the image data sets use it.
        binarise: How intensities become 0 and 1: "threshold", "fixed" or "redraw"
            (see ``ppl_gen.data.binarise.binarised``).
        standardise: Whether to bring every entry of real observations to mean 0 and standard
            deviation 1 over the train part: for tables whose columns have different units.
        target: The column of a table that holds labels; it is taken out of the observations.
        download: Whether torchvision may fetch an image data set that is missing under ``root``.
        seed: The seed of synthetic draws, of the division at random and of fixed binarisation.
        size: How many observations to draw of a synthetic data set, 2000 unless told.
        support: What the values are: "binary", "unit interval", "real", "counts" or "categories".
            It is inferred from a user's values unless told
            (see ``ppl_gen.data.support.inferred_support``), and checked against them.
        missing: What to do where a file has no value: "refuse" it, or "keep" it as NaN, for a
            story that takes NaN, such as ``GMM(..., missing="integrate")``; class labels are then
            -1.
        labelled: How many labels of the train part to keep, equally many of each class; the others
            become -1, for a story that takes labels for some data only, such as ``M2``.
        mask: Which elements are seen, for a story that is conditioned on them: "quadrants(seen=1)",
            "half(side='left')", "box(top=4, left=4, height=8, width=8)" or "random(seen=0.3)" (see
            ``ppl_gen.data.mask``). The masks are the second column, labels the third.
        in_memory: Whether to read all rows now, or to leave them where they are and read them when
            they are needed, of .npy and .parquet files and folders; by default they are read if
            they take no more than 1 GiB. What their values are is then told by 10,000 rows of each
            part.

    Returns:
        The data set. Observations are float32, or long where the support is "categories".

    Raises:
        DataError: If there is no such data set or file, its content cannot be used, or an option
            does not apply to it.
    """
    seeded(seed)
    wanted = None if support is None else Support.parse(support)
    name = _known_name(name_or_path)
    if size is not None and name not in synthetic.LINES:
        drawn = ", ".join(synthetic.LINES)
        raise DataError(f"size applies to drawn data only ({drawn}), not to {str(name_or_path)!r}")
    if missing not in ("refuse", "keep"):
        raise DataError(f"missing must be 'refuse' or 'keep', got {missing!r}")
    if target is not None and name is not None:
        raise DataError(f"target names a column of a table, which {name!r} is not")
    if name in embedded.LINES:
        data = embedded.load_embedded(name, seed)
    elif name in synthetic.LINES:
        data = synthetic.load_synthetic(name, seed, size)
    elif name in vision.LINES:
        data = vision.load_vision(name, root, download)
    else:
        keep = missing == "keep"
        data = load_file(_path(name_or_path), target, wanted, seed, keep, in_memory)
    if data.on_disk:
        changes = {"binarise": binarise, "labelled": labelled, "mask": mask}
        changes["standardise"] = "True" if standardise else None
        asked = [name for name, value in changes.items() if value is not None]
        if asked or wanted is Support.CATEGORIES:
            raise DataError(
                f"{', '.join(asked) or 'support categories'} is for data in memory, but "
                f"{data.name!r} is read from disk: store it changed, or read it into memory with "
                "in_memory=True (--read at-once)"
            )
    if wanted is not None:
        data = _supported(data, wanted)
    if binarise is not None:
        data = binarised(data, binarise, seed)
    if standardise:
        data = standardised(data)
    if labelled is not None:
        data = partly_labelled(data, labelled, seed)
    if mask is not None:
        data = masked(data, mask, seed)
    source = {
        "name_or_path": name or str(_path(name_or_path).resolve()),
        "root": None if root is None else str(_path(root).resolve()),
        "binarise": binarise,
        "standardise": standardise,
        "target": target,
        "download": download,
        "seed": seed,
        "size": size,
        "support": support,
        "missing": missing,
        "labelled": labelled,
        "mask": mask,
        "in_memory": in_memory,
    }
    return replace(data, source=source)


def _known_name(name_or_path: Any) -> str | None:
    """The data set that is meant, or None where a path is."""
    if isinstance(name_or_path, os.PathLike):
        return None
    if not isinstance(name_or_path, str):
        raise DataError(
            "load takes the name of a data set or a path, got "
            f"{type(name_or_path).__name__}; give data in memory to as_part or fit directly"
        )
    if name_or_path in CATALOGUE:
        return name_or_path
    if name_or_path and os.path.exists(_path(name_or_path)):
        return None
    name = name_or_path.lower().replace("_", "-")
    if name in CATALOGUE:
        return name
    if not name or ("/" not in name and os.sep not in name and not Path(name).suffix):
        near = difflib.get_close_matches(name, CATALOGUE, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}, " if near else ""
        raise DataError(
            f"there is no data set {name_or_path!r} and no such file; "
            f"{hint}see all of them with pg.data.names() or `ppl-gen list`"
        )
    return None


def _path(name_or_path: str | os.PathLike[str]) -> Path:
    # Unlike Path.expanduser, this leaves "~nobody" alone.
    return Path(os.path.expanduser(name_or_path))


def _supported(data: Dataset, support: Support) -> Dataset:
    check_support(data.looked_at(), support, data.name)
    if support is not Support.CATEGORIES:
        return replace(data, support=support)
    train, valid, test = (
        Part((torch.cat([rows.long() for rows in part.pieces()]), *part.stored[1:]))
        for part in data.parts
    )
    categories = 1 + max(int(part.x.max()) for part in (train, valid, test))
    return replace(
        data, support=support, train=train, valid=valid, test=test, categories=categories
    )
