"""Tables on disk or in memory: .csv, .parquet and pandas frames."""

import csv
import difflib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_gen.data.labels import UNKNOWN
from ppl_gen.data.observations import Observations, cause
from ppl_gen.errors import DataError


def read_csv(path: Path, target: str | None, missing: bool = False) -> Observations:
    """Read comma-separated UTF-8 text.

    A first line made of numbers only is data; the columns are then called "0", "1" and so on. Any
    other first line names the columns.

    Args:
        path: The file.
        target: The column of labels, if there is one.
        missing: Whether cells may be missing.

    Raises:
        DataError: If the file is no such text, its lines have unequal numbers of cells, or its
            cells do not suit (see ``observations_of``).
    """
    import pandas as pd

    try:
        header = 0 if _first_line_names_columns(path) else None
        with warnings.catch_warnings():
            # pandas only warns when lines are longer than the header, and drops the rest.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path, header=header, index_col=False, encoding="utf-8-sig", low_memory=False
            )
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name!r} is not UTF-8 text; save the table as CSV again") from error
    except (OSError, ValueError, csv.Error, pd.errors.ParserWarning) as error:
        raise DataError(
            f"{path.name!r} cannot be read as a table: {cause(error)}; "
            "every line must have equally many cells, divided by commas"
        ) from error
    return observations_of(frame, target, repr(path.name), missing)


def _first_line_names_columns(path: Path) -> bool:
    with path.open("rb") as binary:
        if b"\0" in binary.read(1 << 16):
            raise ValueError("it is not text")
    with path.open(encoding="utf-8-sig", newline="") as text:
        first = next((line for line in csv.reader(text) if any(line)), [])
    return not all(_is_number(cell) for cell in first if cell.strip())


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_parquet(path: Path, target: str | None, missing: bool = False) -> Observations:
    """Read a Parquet file.

    Args:
        path: The file.
        target: The column of labels, if there is one.
        missing: Whether cells may be missing.

    Raises:
        DataError: If the file is damaged, or its cells do not suit (see ``observations_of``).
    """
    import pandas as pd

    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except Exception as error:  # of a damaged file pandas raises whatever came of its parsing
        raise DataError(f"{path.name!r} is no readable Parquet file: {cause(error)}") from error
    return observations_of(frame, target, repr(path.name), missing)


def observations_of(
    frame: Any, target: str | None, what: str, missing: bool = False
) -> Observations:
    """Take the numbers of a pandas frame.

    Args:
        frame: The frame, ``N`` rows.
        target: The column of labels, if there is one. Text is coded in sorted order; integers and
            booleans become long, floats float32.
        what: The frame, as the sentence should call it.
        missing: Whether cells may be missing, which are then NaN, and class labels, which are
            then -1.

    Returns:
        Float32, shape ``(N, C)``, with labels, shape ``(N,)``, if there is a target.

    Raises:
        DataError: If there are no rows or columns, no such target, or a cell is text, missing or
            NaN (unless that is allowed), or infinite as float32; every column at fault is named.
    """
    import numpy as np

    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    y, label_names = None, None
    if target is not None:
        y, label_names = _labels(frame, target, what, missing)
        frame = frame.drop(columns=target)
    if 0 in frame.shape:
        raise DataError(
            f"{what} must have at least one row and one column of observations, "
            f"got {frame.shape[0]} rows and {frame.shape[1]} columns"
        )
    columns, texts, faults = [], [], []
    for i, name in enumerate(frame.columns):
        numbers, text_cells = _numbers(frame.iloc[:, i])
        if missing:
            other_cells = int(np.isinf(numbers).sum())
        else:
            other_cells = int((~np.isfinite(numbers)).sum()) - text_cells
        if text_cells:
            texts.append(name)
            faults.append(f"{name!r} holds {_cells(text_cells)} of text")
        if other_cells:
            how = "infinite" if missing else "missing or infinite"
            faults.append(f"{name!r} holds {_cells(other_cells)} {how}")
        columns.append(numbers)
    if faults:
        raise DataError(
            f"every column of {what} must hold finite numbers, but {', '.join(faults)}; "
            f"{_remedy(texts, target, missing)}"
        )
    rows = torch.from_numpy(np.stack(columns, axis=1))
    return Observations(rows, y, label_names, tuple(frame.columns))


def _remedy(texts: list[str], target: str | None, missing: bool) -> str:
    """What to do about columns of text, or else about cells without a number."""
    if texts and target is not None:
        return "remove columns of text from the table"
    if texts:
        return (
            f"take a column of text as labels with target={texts[0]!r} (--target {texts[0]}), or "
            "remove it from the table"
        )
    fill = "fill them or drop their rows"
    if missing:
        return fill
    return f"{fill}, or keep them with missing='keep' (--missing keep) for a story that takes them"


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count > 1 else ''}"


def _numbers(column: Any) -> tuple[Any, int]:
    """The column as float32 with NaN where there is no number, and how many cells are text."""
    import numpy as np
    import pandas as pd
    from pandas.api import types

    if types.is_complex_dtype(column.dtype) or not types.is_numeric_dtype(column.dtype):
        texts = column.astype(object)
        if types.is_object_dtype(column.dtype) or types.is_string_dtype(column.dtype):
            texts = texts.map(str, na_action="ignore")
            column = pd.to_numeric(texts, errors="coerce")
        else:
            column = pd.Series(np.nan, index=column.index)
        text_cells = int((column.isna() & texts.notna()).sum())
    else:
        text_cells = 0
    with np.errstate(over="ignore"):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan).astype(np.float32)
    return numbers, text_cells


def _labels(
    frame: Any, target: str, what: str, missing: bool
) -> tuple[Tensor, tuple[str, ...] | None]:
    """The labels, and their names if they were text; -1 for a class that is missing."""
    import numpy as np
    import pandas as pd
    from pandas.api import types

    if target not in frame.columns:
        near = difflib.get_close_matches(target, frame.columns, n=1)
        hint = f"did you mean {near[0]!r}" if near else f"it has {', '.join(frame.columns)}"
        raise DataError(f"{what} has no column {target!r}; {hint}")
    column = frame.loc[:, target]
    if column.ndim > 1:
        raise DataError(f"{what} has more than one column {target!r}; rename one")
    unknown = int(column.isna().sum())
    if unknown and not missing:
        raise DataError(
            f"target {target!r} of {what} has {_cells(unknown)} without a label; "
            "fill them or drop their rows, or keep them with missing='keep' (--missing keep) for a "
            "story that takes them, such as M2"
        )
    if unknown and types.is_numeric_dtype(column.dtype):
        # A column of whole numbers in which some are missing is read as one of floats.
        column = column.astype("Float64").fillna(UNKNOWN)
        if (column % 1 != 0).any():
            raise DataError(
                f"target {target!r} of {what} has {_cells(unknown)} without a label, which only "
                "classes may have, but holds numbers that are not whole: drop those rows"
            )
        column = column.astype("int64")
    if types.is_integer_dtype(column.dtype) or types.is_bool_dtype(column.dtype):
        return torch.from_numpy(column.to_numpy(dtype=np.int64, copy=True)), None
    if types.is_float_dtype(column.dtype):
        with np.errstate(over="ignore"):
            values = column.to_numpy(dtype=np.float64).astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError(f"target {target!r} of {what} has infinite values; replace them")
        return torch.from_numpy(values), None
    texts = column.astype(str).where(column.notna(), None)
    codes, names = pd.factorize(texts.to_numpy(dtype=object), sort=True)
    return torch.from_numpy(codes).long(), tuple(str(name) for name in names)
