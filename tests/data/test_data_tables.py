"""A user's own tables: headers, labels, and every cell that is no number."""

from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from ppl_gen import data as pgd
from ppl_gen.errors import DataError

FRAME = pd.DataFrame({"a": [0.5, -1.5, 2.0, 3.5], "b": [1, 2, 3, 4], "kind": ["v", "u", "v", "w"]})


def rows(data: pgd.Dataset) -> list[list[float]]:
    return sorted(pgd.concat(*data.parts).x.tolist())


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n0.5,1\n-1.5,2\n2,3\n",
        "\ufeffa,b\r\n0.5,1\r\n-1.5,2\r\n2,3\r\n",
        "0.5,1\n-1.5,2\n2,3\n",
        "\n0.5, 1\n\n-1.5, 2\n2e0, 3",
        '"first, in m","second"\n0.5,1\n-1.5,2\n2,3\n',
        "2020,b\n0.5,1\n-1.5,2\n2,3\n",
    ],
)
def test_a_first_line_of_numbers_is_data(text: str, tmp_path: Path) -> None:
    data = pgd.load(write(tmp_path / "t.csv", text))
    assert rows(data) == [[-1.5, 2.0], [0.5, 1.0], [2.0, 3.0]]
    assert data.support == "real"


def test_csv_and_parquet_give_the_same_data(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    FRAME.to_parquet(tmp_path / "t.parquet")
    csv, parquet = (pgd.load(tmp_path / f"t.{kind}", target="kind") for kind in ("csv", "parquet"))
    assert csv.fingerprint == parquet.fingerprint
    assert csv.label_names == parquet.label_names == ("u", "v", "w")


@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        (["v", "u", "v", "w"], [1, 0, 1, 2], ("u", "v", "w")),
        (pd.Categorical(["v", "u", "v", "w"]), [1, 0, 1, 2], ("u", "v", "w")),
        ([3, 1, 1, 2], [3, 1, 1, 2], None),
        ([True, False, True, True], [1, 0, 1, 1], None),
        ([0.5, 1.5, 2.5, 1.0], [0.5, 1.5, 2.5, 1.0], None),
        (pd.array([3, 1, 1, 2], dtype="Int64"), [3, 1, 1, 2], None),
    ],
)
def test_a_target_becomes_the_labels_of_its_rows(
    labels: list, expected: list, names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    FRAME.assign(kind=labels).to_parquet(tmp_path / "t.parquet")
    data = pgd.load(tmp_path / "t.parquet", target="kind")
    whole = pgd.concat(*data.parts)
    assert data.shape == (2,)
    assert whole.y is not None
    assert whole.y[whole.x[:, 1].argsort()].tolist() == expected
    assert whole.y.dtype is (torch.float32 if isinstance(expected[0], float) else torch.long)
    assert data.label_names == names


def test_a_column_without_a_header_is_called_by_its_number(tmp_path: Path) -> None:
    data = pgd.load(write(tmp_path / "t.csv", "0.5,7\n1.5,8\n2.5,9\n"), target="1")
    assert rows(data) == [[0.5], [1.5], [2.5]]


def test_numbers_are_read_whatever_type_holds_them(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "decimal": [Decimal("0.5"), Decimal("1.5"), Decimal("2.5")],
            "nullable": pd.array([1, 2, 3], dtype="Int16"),
            "flag": [True, False, True],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    assert rows(pgd.load(tmp_path / "t.parquet")) == [[0.5, 1, 1], [1.5, 2, 0], [2.5, 3, 1]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'t.csv' is empty"),
        ("\n\n", "'t.csv' cannot be read as a table: No columns"),
        ("a,b\n", "'t.csv' must have at least one row .* got 0 rows and 2 columns"),
        ("a,b\n1,2\n", "'t.csv' needs at least 3 rows .* got 1"),
        ("1,2\n3,4\n", "'t.csv' needs at least 3 rows .* got 2"),
        ("a,b\n1,2\n3,4,5\n6,7\n", "'t.csv' cannot be read as a table: .*line 3, saw 3"),
        ("1,2\n3,4,5\n6,7\n", "'t.csv' cannot be read as a table: .*line 2, saw 3"),
        ("a,b\n1,2,3\n4,5,6\n7,8,9\n", "'t.csv' cannot be read as a table: .*equally many"),
        ("a,b\n1,2\n3\n4,5\n", "'b' holds 1 cell missing or infinite; fill"),
        ("a,b\n1,inf\n3,\n4,nan\n", "'t.csv' .* but 'b' holds 3 cells missing or infinite"),
        ("a,b,c\n1,x,\n2,y,3\n4,5,1e99\n", "'b' holds 2 cells of text, 'c' holds 2 .*target='b'"),
        ("a;b\n1;2\n3;4\n5;6\n", "'a;b' holds 3 cells of text"),
        (b"\x00\x01\x02,\x00\n" * 20, "'t.csv' cannot be read as a table: it is not text"),
        (b"\xff\xfe\xfd,\x81\n" * 20, "'t.csv' is not UTF-8 text"),
    ],
)
def test_a_bad_csv_is_answered_by_one_sentence(
    text: str | bytes, sentence: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(DataError, match=sentence) as caught:
        pgd.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("knid", "'t.csv' has no column 'knid'; did you mean 'kind'"),
        ("zzz", "'t.csv' has no column 'zzz'; it has a, kind, hole, big"),
        ("hole", "'hole' of 't.csv' has 1 cell without a label"),
        ("big", "'big' of 't.csv' has infinite values"),
    ],
)
def test_a_bad_target_is_answered_by_one_sentence(
    target: str, sentence: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "t.csv", "a,kind,hole,big\n1,u,x,1e99\n2,v,,2.0\n3,v,y,3.0\n")
    with pytest.raises(DataError, match=sentence):
        pgd.load(path, target=target)


def test_a_target_leaves_something_to_observe(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "kind\nu\nv\nw\n")
    with pytest.raises(DataError, match="got 3 rows and 0 columns"):
        pgd.load(path, target="kind")


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (pd.to_datetime(["2020-01-01"] * 4), "'c' holds 4 cells of text"),
        ([[1.0], [2.0], [3.0], [4.0]], "'c' holds 4 cells of text"),
        (pd.Categorical(["1", "2", "1", "2"]), "'c' holds 4 cells of text"),
        ([None, 1.0, 2.0, 3.0], "'c' holds 1 cell missing"),
    ],
)
def test_cells_that_are_no_numbers_are_counted(column: list, sentence: str, tmp_path: Path) -> None:
    FRAME[["a", "b"]].assign(c=column).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=sentence):
        pgd.load(tmp_path / "t.parquet")


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", b"PAR1 and then nothing of use")
    with pytest.raises(DataError, match=r"'t\.parquet' is no readable Parquet file"):
        pgd.load(tmp_path / "t.parquet")


def test_one_column_is_one_feature(tmp_path: Path) -> None:
    data = pgd.load(write(tmp_path / "t.csv", "length\n0.1\n0.2\n0.3\n0.4\n"))
    assert data.shape == (1,)
    assert_close(pgd.concat(*data.parts).x.sum(), torch.tensor(1.0))
