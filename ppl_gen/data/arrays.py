"""Arrays on disk: .npy and .npz of NumPy, .pt of torch."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_gen.data.observations import Observations, cause, checked_labels, checked_observations
from ppl_gen.errors import DataError

PARTS = ("train", "valid", "test")
REMEDY = "store observations as 'x' and labels as 'y', or parts as 'x_train', 'x_valid', 'x_test'"


def read_arrays(path: Path, missing: bool = False) -> dict[str, Observations]:
    """Read the arrays of one file.

    An .npz file, or a dictionary in a .pt file, holds ``x`` and perhaps ``y``, or ``train``,
    ``test`` and perhaps ``valid``, also with ``x_`` before each and labels as ``y_train`` and so
    on, or one array under any name.

    Args:
        path: A file that ends in .npy, .npz or .pt.
        missing: Whether observations may be NaN, for a value that is missing.

    Returns:
        Observations under "train", "test" and perhaps "valid", or all of them under "all".

    Raises:
        DataError: If the file is damaged, holds Python objects, or has none of these layouts.
    """
    held = _tensors(path) if path.suffix.lower() == ".pt" else _numpy_arrays(path)
    layout = _layout(list(held), path)
    labelled = [part for part, (_, y) in layout.items() if y in held]
    if labelled and len(labelled) < len(layout):
        raise DataError(
            f"{path.name!r} has labels for {', '.join(labelled)} only; label every part or none"
        )
    labels, names = checked_labels(
        [held[layout[part][1]] for part in labelled], f"the labels of {path.name!r}"
    )
    coded = dict(zip(labelled, labels, strict=True))
    observations = {}
    for part, (x, _) in layout.items():
        what = repr(path.name) if len(held) == 1 else f"{x!r} of {path.name!r}"
        rows, y = checked_observations(held[x], what, missing), coded.get(part)
        if y is not None and len(y) != len(rows):
            raise DataError(f"{what} has {len(rows)} rows but {len(y)} labels")
        observations[part] = Observations(rows, y, names)
    return observations


def _layout(keys: list[str], path: Path) -> dict[str, tuple[str, str]]:
    if "x" in keys:
        return {"all": ("x", "y")}
    for prefix in ("", "x_"):
        present = [part for part in PARTS if prefix + part in keys]
        if "train" in present and "test" in present:
            return {part: (prefix + part, f"y_{part}") for part in present}
    if len(keys) == 1:
        return {"all": (keys[0], "")}
    found = ", ".join(repr(key) for key in keys) or "nothing"
    raise DataError(f"{path.name!r} must hold an array 'x', but holds {found}; {REMEDY}")


def _numpy_arrays(path: Path) -> Mapping[str, Any]:
    import numpy as np

    try:
        # NumPy leaves a damaged archive open when it is given the path.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"x": loaded}
            with loaded:
                return {key: loaded[key] for key in loaded.files}
    except Exception as error:  # of a damaged file NumPy raises whatever came of its parsing
        if "Object arrays" in str(error):
            raise DataError(
                f"{path.name!r} holds an array of Python objects, which is not read because it "
                "could run code; store it with a number type such as float32"
            ) from error
        raise DataError(f"{path.name!r} is no readable NumPy file: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    # NumPy takes what it does not recognise for a pickle, which would mislead here.
    return "its content is not an array" if "pickle" in str(error) else cause(error)


def _tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path.name!r} is damaged or holds more than tensors, which is not read because it "
            "could run code; save one tensor, or a dictionary of tensors, with torch.save"
        ) from error
    except Exception as error:  # of a damaged file torch raises whatever came of its parsing
        raise DataError(f"{path.name!r} is no readable torch file: {cause(error)}") from error
    if isinstance(loaded, Tensor):
        return {"x": loaded}
    if not isinstance(loaded, dict):
        raise DataError(
            f"{path.name!r} must hold a tensor or a dictionary of tensors, "
            f"got {type(loaded).__name__}"
        )
    for key, value in loaded.items():
        if not isinstance(value, Tensor):
            raise DataError(
                f"{path.name!r} must hold tensors only, got {type(value).__name__} under {key!r}"
            )
    return {str(key): value for key, value in loaded.items()}
