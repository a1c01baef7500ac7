"""Rows on disk are those in memory, read when they are taken."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

import ppl_gen as pg
from ppl_gen.data.stored_files import ArrayFiles, ParquetRows
from ppl_gen.data.stores import of_store, runs

X = np.random.default_rng(0).normal(size=(300, 2, 3)).astype(np.float32)
Y = np.arange(300) % 4


def rows_of(part: pg.data.Part, index: list[int]) -> tuple[Tensor, ...]:
    """Some rows of all columns."""
    return part.batch(torch.tensor(index))


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", ">f4", "int32", "uint8", "bool"]
)
def test_arrays_of_any_type_are_read_as_in_memory(tmp_path: Path, dtype: str) -> None:
    values = (10 * X).astype(dtype)
    np.save(tmp_path / "x.npy", values)

    there, here = (pg.data.load(tmp_path / "x.npy", in_memory=m) for m in (False, True))

    assert there.on_disk
    assert not here.on_disk
    assert there.support is here.support
    for name in ("train", "valid", "test"):
        disk, memory = getattr(there, name), getattr(here, name)
        assert disk.on_disk
        assert len(disk) == len(memory)
        index = torch.tensor([5, 0, 7, 8, 9, 5])
        for one, other in zip(disk.batch(index), memory.batch(index), strict=True):
            assert torch.equal(one, other.to(one.dtype))
        assert torch.equal(disk.in_memory().x, memory.x.to(disk.x.dtype))
        assert disk.fingerprint == getattr(there, name).fingerprint
    assert there.train.fingerprint != there.test.fingerprint


def test_files_of_a_folder_follow_each_other(tmp_path: Path) -> None:
    for i, part in enumerate(np.split(X, [10, 150])):
        np.save(tmp_path / f"part{i}.npy", part)

    store = ArrayFiles(sorted(tmp_path.glob("*.npy")))

    assert len(store) == 300
    for index in ([0, 9, 10, 149, 150, 299], [299, 3, 3], list(range(5, 200)), [151]):
        assert torch.equal(store.read(torch.tensor(index))[0], torch.from_numpy(X[index]))
    whole = pg.data.load(tmp_path)
    assert not whole.on_disk  # it is small
    assert whole.shape == (2, 3)
    np.save(tmp_path / "part9.npy", X[:, 0])
    with pytest.raises(pg.DataError, match="must hold rows of one shape and type"):
        pg.data.load(tmp_path, in_memory=False)


def test_rows_of_one_number_are_columns(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X[:, 0, 0])

    assert pg.data.load(tmp_path / "x.npy", in_memory=False).shape == (1,)


def test_runs_of_rows_are_read_at_once() -> None:
    assert list(runs(torch.tensor([3, 4, 5, 9, 2, 3]))) == [(0, 3, 3), (3, 9, 1), (4, 2, 2)]
    assert list(runs(torch.tensor([], dtype=torch.long))) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: p.write_bytes(b"no array at all"), "no readable NumPy file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-8]), "is cut short"),
        (lambda p: np.save(p, np.array([object()])), "Python objects"),
        (lambda p: np.save(p, np.asfortranarray(X[:, 0])), "stored column by column"),
        (lambda p: np.save(p, np.zeros((0, 3))), "holds no observations"),
        (lambda p: np.save(p, np.array(["a", "b"])), "must hold real numbers"),
        (lambda p: np.save(p, np.where(X > 2, np.nan, X)), "NaN"),
        (lambda p: np.save(p, np.where(X > 2, np.inf, X)), "NaN|infinite"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, spoil: Any, said: str) -> None:
    path = tmp_path / "x.npy"
    np.save(path, X)
    spoil(path)

    with pytest.raises(pg.DataError, match=said):
        pg.data.load(path, in_memory=False)


def test_a_file_that_becomes_shorter_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    data = pg.data.load(tmp_path / "x.npy", in_memory=False)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:500])

    with pytest.raises(pg.DataError, match="ends before its last row"):
        data.train.in_memory()


def test_what_is_for_data_in_memory_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    for options in ({"standardise": True}, {"binarise": "redraw"}, {"mask": "random(seen=0.5)"}):
        with pytest.raises(pg.DataError, match="is for data in memory"):
            pg.data.load(tmp_path / "x.npy", in_memory=False, **options)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    with pytest.raises(pg.DataError, match="cannot be read row by row"):
        pg.data.load(tmp_path / "x.csv", in_memory=False)


def test_parts_of_one_file_can_be_joined(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    data = pg.data.load(tmp_path / "x.npy", in_memory=False)

    whole = pg.data.concat(*data.parts)

    assert whole.on_disk
    assert torch.equal(whole.x[torch.tensor([0])], data.train.x[torch.tensor([0])])
    assert len(whole) == 300


def parquet(path: Path, rows: int = 300, group: int = 50) -> None:
    """A table of five columns and a class."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = X.reshape(300, 6)[:rows]
    columns = {f"c{i}": flat[:, i] for i in range(5)} | {"kind": Y[:rows]}
    pq.write_table(pa.table(columns), path, row_group_size=group)


def test_row_groups_are_read_as_the_table_in_memory(tmp_path: Path) -> None:
    parquet(tmp_path / "x.parquet")

    there, here = (
        pg.data.load(tmp_path / "x.parquet", target="kind", in_memory=m) for m in (False, True)
    )

    assert there.column_names == here.column_names == ("c0", "c1", "c2", "c3", "c4")
    index = torch.tensor([4, 100, 2, 2])
    for one, other in zip(there.train.batch(index), here.train.batch(index), strict=True):
        assert torch.equal(one, other)


def test_groups_are_visited_in_random_order_and_rows_mixed_among_those_kept(tmp_path: Path) -> None:
    parquet(tmp_path / "x.parquet")
    store = ParquetRows(tmp_path / "x.parquet", "kind")
    store._kept = 2
    torch.manual_seed(0)

    order = store.order(torch.arange(300))

    assert torch.equal(order.sort().values, torch.arange(300))
    groups = order // 50
    for window in groups.split(100):
        assert len(window.unique()) == 2
        assert len((window[1:] != window[:-1]).nonzero()) > 20  # rows of both in turns
    for _ in store.ahead(list(order.split(32)), 0):
        assert len(store._groups) <= 2
    torch.manual_seed(0)
    assert torch.equal(store.order(torch.arange(300)), order)


def test_a_table_with_text_is_not_read_from_disk(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "z"]}), tmp_path / "x.parquet")

    with pytest.raises(pg.DataError, match=r"column 'b' .* must hold numbers to be read from disk"):
        pg.data.load(tmp_path / "x.parquet", in_memory=False)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(pg.DataError, match="no readable Parquet file"):
        pg.data.load(tmp_path / "x.parquet", in_memory=False)


def test_images_are_decoded_when_they_are_needed(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(1).integers(0, 256, (12, 5, 4), dtype=np.uint8)
    for i, image in enumerate(pixels):
        folder = tmp_path / ("even" if i % 2 == 0 else "odd")
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02d}.png")

    there, here = (pg.data.load(tmp_path, in_memory=m) for m in (False, True))

    assert there.on_disk
    assert there.label_names == here.label_names == ("even", "odd")
    index = torch.tensor([3, 0, 3])
    for one, other in zip(there.train.batch(index), here.train.batch(index), strict=True):
        assert torch.equal(one, other)


class Squares(TorchDataset[Any]):
    """Items that are computed."""

    def __len__(self) -> int:
        return 90

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor([index, index**2], dtype=torch.float64), index % 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_rows_that_are_asked_for(workers: int) -> None:
    part = pg.data.as_part(DataLoader(Squares(), batch_size=7, num_workers=workers))

    assert part.on_disk
    assert part.shape == (2,)
    x, y = rows_of(part, [4, 2, 80])
    assert x.tolist() == [[4, 16], [2, 4], [80, 6400]]
    assert y.tolist() == [1, 2, 2]
    order = torch.arange(90).flip(0)
    before = torch.get_rng_state()
    passed = list(part.in_passing(order.split(40), 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert [len(x) for x, _ in passed] == [40, 10]
    assert torch.equal(passed[0][0][:, 0], order[40:80].float())


class Counting(IterableDataset[Any]):
    """Numbers, one after the other."""

    def __init__(self, most: int | None) -> None:
        self.most = most

    def __iter__(self) -> Any:
        number = 0
        while self.most is None or number < self.most:
            yield torch.tensor([float(number)])
            number += 1


def test_a_stream_is_cut_into_batches_and_begins_anew() -> None:
    part = pg.data.stream(DataLoader(Counting(50), batch_size=8), rows=60)
    places = list(part.order().split(25))

    passed = [x[:, 0].tolist() for (x,) in part.in_passing(places, 0, 1)]

    assert [len(batch) for batch in passed] == [25, 25, 10]
    assert passed[2] == [float(i) for i in range(10)]
    assert [x[:, 0].tolist() for (x,) in part.in_passing(places, 1, 1)] == passed[1:]


def test_how_long_a_stream_is_must_be_known() -> None:
    with pytest.raises(pg.DataError, match="how many rows Counting has must be known"):
        pg.data.as_part(DataLoader(Counting(None)))
    with pytest.raises(pg.DataError, match=r"pg.data.stream\(data, rows=...\)"):
        pg.data.as_part(Counting(9))
    with pytest.raises(pg.DataError, match="must be a whole number from 1 on, got 0"):
        pg.data.stream(Counting(9), rows=0)
    with pytest.raises(pg.DataError, match="gives none"):
        pg.data.stream(Counting(0), rows=5)
    with pytest.raises(pg.DataError, match="must be a torch IterableDataset or a DataLoader"):
        pg.data.stream([1, 2], rows=2)
    words = DataLoader(TensorDataset(torch.zeros(3, 1)), collate_fn=lambda items: ["a"])
    with pytest.raises(pg.DataError, match="give the loader a collate_fn"):
        pg.data.as_part(words)


def test_columns_behave_as_the_tensors_they_stand_for(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    (column,) = of_store(ArrayFiles([tmp_path / "x.npy"]))

    assert (column.shape, column.ndim, column.dim(), len(column)) == ((300, 2, 3), 3, 3, 300)
    assert column.numel() == X.size
    assert column.is_floating_point()
    half = column.chosen(slice(0, 150)).then(lambda x: x / 2).to(dtype=torch.float64)
    assert half.dtype is torch.float64
    assert torch.equal(half[3:5], torch.from_numpy(X[3:5] / 2).double())
    assert torch.equal(torch.cat(list(half.split(40))), torch.from_numpy(X[:150] / 2).double())
