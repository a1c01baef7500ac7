"""Values that are missing: refused unless asked for, then kept as NaN; and names of columns."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from ppl_gen.data import load
from ppl_gen.data.standardise import standardised
from ppl_gen.errors import DataError

CSV = "length,width\n" + "\n".join(f"{i},{'' if i % 4 == 0 else 2 * i + 0.5}" for i in range(40))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of 40 rows, of which every fourth has no width."""
    path = tmp_path / "leaves.csv"
    path.write_text(CSV)
    return path


def test_missing_cells_are_refused_with_the_way_to_keep_them(table: Path) -> None:
    with pytest.raises(DataError, match=r"'width' holds 10 cells missing.*missing='keep'"):
        load(table)


def test_missing_cells_are_kept_as_nan_when_asked_for(table: Path) -> None:
    data = load(table, missing="keep")
    every = torch.cat([part.x for part in data.parts])
    assert_close(every.isnan().sum(0), torch.tensor([0, 10]))
    assert data.support == "real"
    assert data.source["missing"] == "keep"
    again = load(**data.source)
    assert again.fingerprint == data.fingerprint


def test_arrays_may_have_missing_values_too(tmp_path: Path) -> None:
    x = np.arange(24.0).reshape(12, 2)
    x[3, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="NaN or infinite"):
        load(tmp_path / "x.npy")
    data = load(tmp_path / "x.npy", missing="keep")
    assert sum(int(part.x.isnan().sum()) for part in data.parts) == 1


def test_infinite_values_are_refused_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3,inf\n5,\n7,8\n")
    with pytest.raises(DataError, match="'b' holds 1 cell infinite"):
        load(tmp_path / "x.csv", missing="keep")


def test_standardising_leaves_missing_values_out_of_mean_and_deviation(table: Path) -> None:
    data = load(table, missing="keep")
    x = standardised(data).train.x
    seen = ~x.isnan()
    for column, given in zip(x.T, seen.T, strict=True):
        assert_close(column[given].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
        assert_close(column[given].std(correction=0), torch.tensor(1.0))


def test_a_column_without_any_value_cannot_be_standardised(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n" + "\n".join(f"{i}.5," for i in range(9)))
    with pytest.raises(DataError, match="column 1 has none"):
        load(tmp_path / "x.csv", missing="keep", standardise=True)


def test_another_word_for_missing_is_named(table: Path) -> None:
    with pytest.raises(DataError, match="missing must be 'refuse' or 'keep', got 'drop'"):
        load(table, missing="drop")


def test_columns_keep_their_names(table: Path, tmp_path: Path) -> None:
    assert load(table, missing="keep").column_names == ("length", "width")
    frame = pd.DataFrame({"kind": list("ab" * 6), "size": np.arange(12.0) + 0.5})
    frame.to_parquet(tmp_path / "t.parquet")
    assert load(tmp_path / "t.parquet", target="kind").column_names == ("size",)
    assert load("wine").column_names is not None
    assert load("digits").column_names is None


def test_some_labels_are_kept_equally_many_of_each_class() -> None:
    whole, data = load("digits"), load("digits", labelled=30)
    assert whole.train.y is not None
    assert data.train.y is not None
    kept = data.train.y != -1
    assert_close(data.train.y[kept].bincount(), torch.full((10,), 3))
    assert_close(data.train.y[kept], whole.train.y[kept])
    assert_close(data.train.x, whole.train.x)
    assert_close(data.test.y, whole.test.y)
    assert load(**data.source).fingerprint == data.fingerprint


@pytest.mark.parametrize("labelled", [9, 1258])
def test_fewer_labels_than_classes_or_more_than_rows_are_refused(labelled: int) -> None:
    with pytest.raises(DataError, match=f"labelled must be from 10, .* to 1257, .*{labelled}"):
        load("digits", labelled=labelled)


def test_data_without_classes_have_no_labels_to_forget() -> None:
    with pytest.raises(DataError, match="class labels, which 'moon-phases' does not have"):
        load("moon-phases", labelled=5)


@pytest.mark.parametrize(
    ("cells", "names"), [(["b", "", "a", ""] * 3, ("a", "b")), (["1", "", "0", ""] * 3, None)]
)
def test_a_class_that_is_missing_is_minus_one(
    tmp_path: Path, cells: list[str], names: tuple[str, ...] | None
) -> None:
    rows = "\n".join(f"{i}.5,{cell}" for i, cell in enumerate(cells))
    (tmp_path / "t.csv").write_text(f"size,kind\n{rows}\n")
    with pytest.raises(DataError, match="6 cells without a label"):
        load(tmp_path / "t.csv", target="kind")
    data = load(tmp_path / "t.csv", target="kind", missing="keep")
    labels = torch.cat([part.columns[1] for part in data.parts])
    assert data.label_names == names
    assert labels.dtype == torch.long
    assert_close((labels + 1).bincount(), torch.tensor([6, 3, 3]))
