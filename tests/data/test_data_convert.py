"""What is in memory becomes a part, whatever holds it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, TensorDataset

from ppl_gen import data as pgd
from ppl_gen.data import as_part
from ppl_gen.errors import DataError

X = np.arange(12.0).reshape(6, 2) / 7
Y = np.array([0, 1, 0, 1, 1, 0])


class Items(TorchDataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __getitem__(self, index: int) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([])


HOLDERS: dict[str, Any] = {
    "part": pgd.Part((torch.from_numpy(X).float(), torch.from_numpy(Y))),
    "tensors": (torch.from_numpy(X).float(), torch.from_numpy(Y)),
    "arrays": [X, Y],
    "frame and series": (pd.DataFrame(X), pd.Series(Y)),
    "tensor data set": TensorDataset(torch.from_numpy(X).float(), torch.from_numpy(Y)),
    "items": Items([(torch.from_numpy(x).float(), int(y)) for x, y in zip(X, Y, strict=True)]),
    "array items": Items(list(zip(X, Y, strict=True))),
    "big-endian": (X.astype(">f8"), Y.astype(">i8")),
    "strided": (np.asfortranarray(X), np.stack([Y, Y], 1)[:, 0]),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_the_same_data_give_the_same_part_whatever_holds_them(holder: str) -> None:
    assert as_part(HOLDERS[holder]).fingerprint == HOLDERS["part"].fingerprint


def test_a_data_set_stands_for_its_train_part() -> None:
    data = pgd.load("iris")
    assert as_part(data) is data.train


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.uint8, torch.bool])
def test_tensors_keep_their_type_and_memory(dtype: torch.dtype) -> None:
    x = torch.ones(3, 2, dtype=dtype)
    assert as_part(x).x is x


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float64, torch.float32),
        (np.longdouble, torch.float32),
        (np.float32, torch.float32),
        (np.uint8, torch.uint8),
        (np.uint32, torch.int64),
        (np.int64, torch.int64),
        (np.bool_, torch.bool),
    ],
)
def test_arrays_become_the_tensor_type_that_holds_them(given: type, kept: torch.dtype) -> None:
    assert as_part(np.ones((3, 2), dtype=given)).x.dtype is kept


def test_a_memory_map_is_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.astype(np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    part = as_part(mapped)
    assert part.x.data_ptr() == mapped.ctypes.data


def test_further_columns_are_carried_along() -> None:
    part = as_part((torch.zeros(4, 2), torch.ones(4), torch.arange(4)))
    assert len(part.columns) == 3
    assert part.batch(torch.tensor([2]))[2].tolist() == [2]


def test_a_lone_column_keeps_its_shape() -> None:
    assert as_part(torch.arange(4.0)).x.shape == (4,)
    assert as_part(pd.Series([1.0, 2.0])).x.shape == (2,)


def test_missing_values_are_left_to_the_story() -> None:
    assert as_part(np.array([1.0, np.nan])).x.isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "the data must be a tensor, .* got NoneType"),
        ("digits", "got str"),
        ({"x": X}, "got dict"),
        ([[1.0, 2.0], [3.0, 4.0]], "column 0 must be .* got list"),
        ([], "at least one column"),
        (torch.zeros(0, 2), "at least one row"),
        (np.zeros((0, 2)), "at least one row"),
        (torch.tensor(1.0), "scalar"),
        ((X, Y[:4]), "equally many rows, got 6 and 4"),
        (np.array(["a"]), "must hold real numbers, got the NumPy type <U1"),
        (np.array([{}]), "must hold real numbers, got the NumPy type object"),
        (X + 1j, "must hold real numbers, got the NumPy type complex128"),
        (pd.DataFrame({"a": ["x", "y"]}), "column of the DataFrame .* 'a' holds 2 cells of text"),
        (pd.DataFrame({"a": [1.0, np.nan]}), "'a' holds 1 cell missing"),
        (pd.DataFrame(), "got 0 rows and 0 columns"),
        (pd.Series(["x"]), "must hold real numbers"),
        (Items([]), "Items is empty"),
        (Items([torch.ones(2), torch.ones(3)]), r"items of Items .* got \(2,\) and \(3,\)"),
        (Items([(torch.ones(2),), (torch.ones(2), 1)]), "equally many entries"),
        (Items([Image.new("L", (2, 2))]), "got Image; for images .*ToTensor"),
        (Stream(), "Stream has none: pg.data.stream"),
    ],
)
def test_what_holds_no_data_is_answered_by_one_sentence(data: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        as_part(data)
    assert "\n" not in str(caught.value)
