"""A user's own arrays: what is inferred, and what each bad file is answered."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ppl_gen import data as pgd
from ppl_gen.data import Support
from ppl_gen.errors import DataError

ROWS = np.linspace(-3, 5, 60).reshape(20, 3)


def save_npy(path: Path, x: np.ndarray) -> None:
    np.save(path, x)


def save_npz(path: Path, x: np.ndarray) -> None:
    np.savez(path, x=x)


def save_pt(path: Path, x: np.ndarray) -> None:
    torch.save(torch.from_numpy(x), path)


def save_pt_dictionary(path: Path, x: np.ndarray) -> None:
    torch.save({"x": torch.from_numpy(x).requires_grad_()}, path)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.npy", save_npy),
        ("a.npz", save_npz),
        ("a.pt", save_pt),
        ("A.PT", save_pt_dictionary),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(
    name: str, save: Callable[[Path, np.ndarray], None], tmp_path: Path
) -> None:
    save(tmp_path / name, ROWS)
    data = pgd.load(str(tmp_path / name))
    whole = pgd.concat(*data.parts).x
    assert [len(part) for part in data.parts] == [14, 3, 3]
    assert data.support is Support.REAL
    assert data.name == name
    assert not whole.requires_grad
    assert_close(whole.sort(0).values, torch.from_numpy(ROWS).float())
    assert pgd.load(**data.source).fingerprint == data.fingerprint


@pytest.mark.parametrize(
    ("x", "support"),
    [
        (np.eye(6), "binary"),
        (np.eye(6, dtype=bool), "binary"),
        (np.arange(12, dtype=np.uint16).reshape(6, 2), "counts"),
        (np.arange(12.0).reshape(6, 2), "counts"),
        (np.arange(-6, 6).reshape(6, 2), "real"),
        (np.linspace(0, 1, 12).reshape(6, 2), "real"),
        (np.linspace(0, 1, 24, dtype=np.float16).reshape(6, 2, 2), "unit interval"),
        (np.linspace(0, 1.1, 24).reshape(6, 2, 2), "real"),
        (np.arange(24, dtype=np.uint8).reshape(6, 2, 2), "unit interval"),
        (np.arange(12, dtype=np.uint8).reshape(6, 2), "counts"),
        (np.ones((6, 2, 2), dtype=np.uint8), "binary"),
        (np.arange(6.0), "counts"),
    ],
)
def test_the_support_follows_from_the_values(x: np.ndarray, support: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)
    data = pgd.load(tmp_path / "x.npy")
    assert data.support == support
    assert data.train.x.dtype is torch.float32
    assert data.shape == (x.shape[1:] or (1,))


def test_bytes_of_a_picture_are_scaled_unless_counts_are_asked_for(tmp_path: Path) -> None:
    x = np.arange(250, 256, dtype=np.uint8).reshape(6, 1, 1)
    np.save(tmp_path / "x.npy", x)
    scaled = pgd.concat(*pgd.load(tmp_path / "x.npy").parts).x
    counts = pgd.concat(*pgd.load(tmp_path / "x.npy", support="counts").parts).x
    assert_close(scaled * 255, counts)
    assert counts.flatten().sort().values.tolist() == [250, 251, 252, 253, 254, 255]


def test_a_support_asked_for_is_checked_against_the_values(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[0.5], [0.25], [1.5], [2.0]]))
    with pytest.raises(DataError, match=r"'unit interval' does not fit 'x.npy': 2 of 4 values"):
        pgd.load(tmp_path / "x.npy", support="unit interval")
    assert pgd.load(tmp_path / "x.npy", support="real").support is Support.REAL


@pytest.mark.parametrize(
    ("y", "expected", "names"),
    [
        (np.array(["b", "a", "b"] * 4), [1, 0, 1] * 4, ("a", "b")),
        (np.array([3, 1, 2] * 4, dtype=np.uint8), [3, 1, 2] * 4, None),
        (np.array([True, False, True] * 4), [1, 0, 1] * 4, None),
        (np.array([0.5, -1.0, 2.0] * 4)[:, None], [0.5, -1.0, 2.0] * 4, None),
    ],
)
def test_labels_stay_with_their_rows(
    y: np.ndarray, expected: list, names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(12.0), y=y)
    data = pgd.load(tmp_path / "a.npz")
    whole = pgd.concat(*data.parts)
    assert whole.y is not None
    assert whole.y[whole.x.flatten().argsort()].tolist() == expected
    assert data.label_names == names
    assert whole.y.dtype is (torch.float32 if y.dtype == float else torch.long)


def test_parts_that_a_file_names_are_kept(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train=ROWS, valid=ROWS[:4], test=ROWS[4:9])
    data = pgd.load(tmp_path / "a.npz")
    assert_close(data.train.x, torch.from_numpy(ROWS).float())
    assert_close(data.test.x, torch.from_numpy(ROWS[4:9]).float())


def test_labels_of_different_parts_share_one_code(tmp_path: Path) -> None:
    """The last sixth of train becomes valid when the file has none."""
    np.savez(
        tmp_path / "a.npz",
        x_train=np.arange(12.0),
        x_test=np.arange(3.0),
        y_train=np.array(["b", "c"] * 6),
        y_test=np.array(["a", "c", "b"]),
    )
    data = pgd.load(tmp_path / "a.npz")
    labels = [part.y.tolist() for part in data.parts if part.y is not None]
    assert data.label_names == ("a", "b", "c")
    assert labels == [[1, 2] * 5, [1, 2], [0, 2, 1]]


def test_a_single_array_is_taken_under_any_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", measurements=ROWS)
    assert pgd.load(tmp_path / "a.npz").shape == (3,)


def with_hole(value: float) -> np.ndarray:
    x = ROWS.copy()
    x[4, 1] = x[7, 0] = value
    return x


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "nan": ("a.npy", lambda p: np.save(p, with_hole(np.nan)), r"2 values .* first at \[4, 1\]"),
    "infinite": ("a.npz", lambda p: np.savez(p, x=with_hole(np.inf)), r"2 values .* \[4, 1\]"),
    "too big": ("a.npy", lambda p: np.save(p, with_hole(1e300)), "2 values that are NaN or inf"),
    "complex": ("a.npy", lambda p: np.save(p, ROWS + 1j), "'a.npy' must hold real .* complex128"),
    "complex pt": ("a.pt", lambda p: torch.save(torch.ones(3, 2) * 1j, p), "got torch.complex64"),
    "text": ("a.npy", lambda p: np.save(p, np.array(["a", "b"])), "real numbers, got .* <U1"),
    "date": ("a.npy", lambda p: np.save(p, np.array(["2020"], "M8[D]")), r"datetime64\[D\]"),
    "objects": (
        "a.npy",
        lambda p: np.save(p, np.array([{}, []], dtype=object), allow_pickle=True),
        "'a.npy' holds an array of Python objects",
    ),
    "objects in npz": (
        "a.npz",
        lambda p: np.savez(p, x=np.array([{}, []], dtype=object)),
        "'a.npz' holds an array of Python objects",
    ),
    "no rows": ("a.npy", lambda p: np.save(p, np.zeros((0, 3))), r"no observations.*\(0, 3\)"),
    "no columns": ("a.npy", lambda p: np.save(p, np.zeros((5, 0))), r"observations.*\(5, 0\)"),
    "scalar": ("a.npy", lambda p: np.save(p, np.array(1.0)), r"no observations.*\(\)"),
    "two rows": ("a.npy", lambda p: np.save(p, ROWS[:2]), "'a.npy' needs at least 3 rows .* got 2"),
    "empty npy": ("a.npy", lambda p: p.write_bytes(b""), "'a.npy' is empty"),
    "junk npy": ("a.npy", lambda p: p.write_bytes(b"\x01junk" * 9), "no readable NumPy file"),
    "junk npz": ("a.npz", lambda p: p.write_bytes(b"PK\x03\x04junk"), "no readable NumPy file"),
    "cut npy": (
        "a.npy",
        lambda p: (np.save(p, ROWS), p.write_bytes(p.read_bytes()[:200])),
        "no readable NumPy file",
    ),
    "cut npz": (
        "a.npz",
        lambda p: (np.savez(p, x=ROWS), p.write_bytes(p.read_bytes()[:300])),
        "no readable NumPy file",
    ),
    "keys": ("a.npz", lambda p: np.savez(p, u=ROWS, v=ROWS), "an array 'x', but holds 'u', 'v'"),
    "no keys": ("a.npz", lambda p: np.savez(p), "an array 'x', but holds nothing"),
    "half labelled": (
        "a.npz",
        lambda p: np.savez(p, x_train=ROWS, x_test=ROWS, y_test=np.arange(20)),
        "labels for test only",
    ),
    "label shape": ("a.npz", lambda p: np.savez(p, x=ROWS, y=ROWS), r"shape \(N,\), got \(20, 3\)"),
    "label length": (
        "a.npz",
        lambda p: np.savez(p, x=ROWS, y=np.ones(7)),
        "has 20 rows but 7 labels",
    ),
    "label nan": ("a.npz", lambda p: np.savez(p, x=ROWS, y=with_hole(np.nan)[:, 1]), "labels of"),
    "shapes": (
        "a.npz",
        lambda p: np.savez(p, train=ROWS, test=ROWS[:, :2]),
        r"one shape, got \(3,\) in train, .* \(2,\) in test",
    ),
    "module": ("a.pt", lambda p: torch.save(nn.Linear(2, 2), p), "'a.pt' .* more than tensors"),
    "list": ("a.pt", lambda p: torch.save([torch.ones(3)], p), "a dictionary of tensors, got list"),
    "non-tensor": ("a.pt", lambda p: torch.save({"x": 1}, p), "tensors only, got int under 'x'"),
    "weights": ("a.pt", lambda p: torch.save(nn.Linear(2, 2).state_dict(), p), "'weight', 'bias'"),
    "junk pt": ("a.pt", lambda p: p.write_bytes(b"\x01junk" * 9), "'a.pt' "),
    "empty pt": ("a.pt", lambda p: p.write_bytes(b""), "'a.pt' is empty"),
    "cut pt": (
        "a.pt",
        lambda p: (torch.save(torch.ones(500), p), p.write_bytes(p.read_bytes()[:900])),
        "'a.pt' ",
    ),
    "unknown": (
        "a.xlsx",
        lambda p: p.write_bytes(b"x"),
        r"no known kind; .* \.npy, .*\.parquet, or",
    ),
    "no suffix": ("a", lambda p: p.write_bytes(b"x"), "'a' is of no known kind"),
    "missing": ("a.npy", lambda p: None, "there is no file or folder"),
    "folder": ("a.npy", lambda p: p.mkdir(), "folder 'a.npy' holds no images"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_answered_by_one_sentence_that_names_it(case: str, tmp_path: Path) -> None:
    name, write, sentence = BAD[case]
    write(tmp_path / name)
    with pytest.raises(DataError, match=sentence) as caught:
        pgd.load(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_target_is_for_tables_only(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    with pytest.raises(DataError, match=r"column of \.csv and \.parquet files, which 'x\.npy'"):
        pgd.load(tmp_path / "x.npy", target="y")


def test_a_file_that_shares_a_name_is_reached_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "iris").mkdir()
    assert pgd.load("iris").shape == (4,)
    with pytest.raises(DataError, match="folder 'iris' holds no images"):
        pgd.load("./iris")


def test_loading_writes_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    (tmp_path / "x.csv").write_text("1,2\n3,4\n5,6\n")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.iterdir())
    pgd.load(tmp_path / "x.npy")
    pgd.load(tmp_path / "x.csv")
    assert sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.iterdir()) == before
