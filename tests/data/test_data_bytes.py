"""Observations kept as bytes: the same numbers as in float32, to the last bit, in a quarter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_vision import write_idx
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from ppl_gen import data as pgd
from ppl_gen.data import Part, concat, masked
from ppl_gen.data.levels import INK, PIXELS, WHOLE, Levels
from ppl_gen.data.support import Support, check_support, inferred_support
from ppl_gen.errors import DataError
from ppl_gen.inference.batches import Batches, prepare
from ppl_gen.inference.run import record_of

BYTES = torch.arange(256, dtype=torch.uint8)
LEVELS = {"whole": WHOLE, "pixels": PIXELS, "ink": INK, "sixteenths": Levels(1 / 16)}
PIXELS_A_ROW = 28 * 28


def test_every_level_is_the_quotient_correctly_rounded() -> None:
    for divisor in range(1, 1025):
        numbers = Levels(1 / divisor)(BYTES)
        assert numbers.dtype is torch.float32
        assert torch.equal(numbers, (BYTES.double() / divisor).float())
        assert torch.equal(numbers, BYTES.float() / divisor)


def test_ink_is_what_is_missing_from_white() -> None:
    assert torch.equal(INK(BYTES), 1 - BYTES.float() / 255)


@pytest.mark.parametrize(
    ("levels", "ends"),
    [(WHOLE, (0, 1)), (PIXELS, (0, 255)), (INK, (255, 0)), (Levels(2.0), None)],
)
def test_the_ends_stand_for_0_and_1(levels: Levels, ends: tuple[int, int] | None) -> None:
    assert levels.ends == ends


def pair(levels: Levels, redraw: bool) -> tuple[Part, Part]:
    """The same 600 rows as bytes and as floats."""
    codes = torch.randint(256, (600, 1, 2, 3), generator=torch.Generator().manual_seed(2)).byte()
    if redraw:  # numbers above 1 are no probabilities
        codes = torch.where(levels(codes) > 1, 0, codes)
    y = torch.arange(600)
    return Part((codes, y), redraw, levels), Part((levels(codes), y), redraw)


SAME: dict[str, Callable[[Part], Any]] = {
    "x": lambda part: part.x,
    "columns": lambda part: part.columns,
    "y": lambda part: part.y,
    "shape": lambda part: part.shape,
    "device": lambda part: part.device,
    "repr": repr,
    "fingerprint": lambda part: part.fingerprint,
    "slice": lambda part: part[3:7].columns,
    "mask of rows": lambda part: part[torch.arange(600) % 3 == 0].columns,
    "batch": lambda part: part.batch(torch.tensor([599, 0, 0, 7])),
    "pieces": lambda part: torch.cat(list(part.pieces())),
    "to": lambda part: part.to(torch.device("cpu")).columns,
    "fixed": lambda part: part.fixed(4).columns,
    "fixed fingerprint": lambda part: part.fixed(4).fingerprint,
    "joined": lambda part: concat(part[:9], part[9:]).fingerprint,
    "joined with floats": lambda part: concat(part[:9], Part(part[9:].columns, part.redraw)).x,
    "masked": lambda part: masked(part, "quadrants(seen=1)").fingerprint,
}


@pytest.mark.parametrize("law", SAME)
@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("name", LEVELS)
def test_a_part_of_bytes_is_told_from_one_of_floats_by_its_size_alone(
    name: str, redraw: bool, law: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppl_gen.data.dataset.CHUNK_BYTES", 1000)
    found = []
    for part in pair(LEVELS[name], redraw):
        torch.manual_seed(1)
        found.append(SAME[law](part))
    kept, plain = found
    if isinstance(kept, tuple) and isinstance(kept[0], Tensor):
        assert all(a.dtype is b.dtype for a, b in zip(kept, plain, strict=True))
        assert all(map(torch.equal, kept, plain))
    else:
        assert torch.equal(kept, plain) if isinstance(kept, Tensor) else kept == plain


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_drawing_piece_by_piece_is_drawing_at_once(
    order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the layout in memory."""
    monkeypatch.setattr("ppl_gen.data.dataset.CHUNK_BYTES", 160)
    x = torch.rand(20, 20, 20, generator=torch.Generator().manual_seed(0)).permute(order)
    drawn = Part((x,), redraw=True).fixed(5)
    assert torch.equal(drawn.x, torch.bernoulli(x, generator=torch.Generator().manual_seed(5)))
    assert drawn.stored[0].dtype is torch.uint8


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_draws_from_other_floats_keep_their_type(dtype: torch.dtype) -> None:
    drawn = Part((torch.full((4, 2), 0.5, dtype=dtype),), redraw=True).fixed()
    assert drawn.x.dtype is dtype
    assert Support.BINARY.contains(drawn.x).all()


@pytest.mark.parametrize("name", LEVELS)
def test_a_drawn_part_joined_with_its_own_stays_bytes(name: str) -> None:
    part, _ = pair(LEVELS[name], redraw=True)
    joined = concat(part, part.fixed())
    assert joined.redraw
    assert joined.stored[0].dtype is torch.uint8
    assert torch.equal(joined.x, torch.cat([part.x, part.fixed().x]))


@pytest.mark.parametrize("redraw", [False, True])
def test_rows_are_a_pure_function_of_stored_tensors(redraw: bool) -> None:
    """A graph traced with the tensors of one part takes the rows of another."""
    part, _ = pair(PIXELS, redraw)
    other, _ = pair(PIXELS, redraw)
    other = other[torch.arange(599, -1, -1)]
    like = tuple(column.clone() for column in part.stored)
    graph = make_fx(lambda stored, index: part.rows(stored, index))(like, torch.tensor([1, 2, 3]))
    index = torch.tensor([5, 0, 5])
    torch.manual_seed(0)
    x, y = graph(other.stored, index)
    torch.manual_seed(0)
    expected = other.batch(index)

    assert not [node for node in graph.graph.nodes if node.op == "get_attr"]
    assert torch.equal(x, expected[0])
    assert y.tolist() == [594, 599, 594]


@pytest.mark.parametrize(
    ("stored", "options", "sentence"),
    [
        (torch.zeros(3), {"levels": PIXELS}, "must be kept as uint8, got torch.float32"),
        (BYTES, {"redraw": True}, "probabilities in floating point, got torch.uint8"),
    ],
)
def test_bytes_that_stand_for_nothing_are_refused(
    stored: Tensor, options: dict, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        Part((stored,), **options)


def test_the_support_is_that_of_all_pieces() -> None:
    zeros, half = torch.zeros(2, 1, 1), torch.full((1, 1, 1), 0.5)
    assert inferred_support([zeros, half]) is Support.UNIT_INTERVAL
    assert inferred_support([half, zeros + 2]) is Support.REAL
    assert inferred_support([zeros[0], half[0]]) is Support.REAL
    assert inferred_support([zeros, zeros + 2]) is Support.COUNTS
    with pytest.raises(DataError, match=r"2 of 5 values .* the first is 0\.5;"):
        check_support([zeros, half, half, zeros[:1]], Support.BINARY, "these")


class LargestFloat(TorchDispatchMode):
    """How many elements the largest tensor of floats has that torch makes meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else (made,):
            if isinstance(value, Tensor) and value.is_floating_point():
                self.elements = max(self.elements, value.numel())
        return made


def write_stand_in(root: Path, rows: int) -> None:
    raw = root / "MNIST" / "raw"
    pixels = np.random.default_rng(0).integers(0, 256, (rows, 28, 28), dtype=np.uint8)
    for name in ("train", "t10k"):
        write_idx(raw / f"{name}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{name}-labels-idx1-ubyte", (np.arange(rows) % 10).astype(np.uint8))


@pytest.mark.parametrize("binarise", [None, "threshold", "fixed", "redraw"])
def test_images_are_floats_only_for_the_rows_of_a_batch(
    binarise: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, few = 1200, 50
    write_stand_in(tmp_path, rows)
    monkeypatch.setattr("ppl_gen.data.dataset.CHUNK_BYTES", 4 * few * PIXELS_A_ROW)
    with LargestFloat() as largest:
        data = pgd.load("mnist", tmp_path, binarise=binarise)
        part, arguments = prepare(data, lambda x, y: None, {})
        record_of(data, part, arguments)
        batches = Batches(part, arguments, few, torch.device("cpu"))
        batches.example(few)
        order = batches.order()
        seen = sum(len(batches.at(*rows)[1]) for rows in batches.passing(order))
        concat(data.train, data.valid).fixed()
    assert seen == rows * 5 // 6
    assert 0 < largest.elements <= few * PIXELS_A_ROW
    with LargestFloat() as largest:
        assert len(data.train.x) == seen
    assert largest.elements == seen * PIXELS_A_ROW


def held(part: Part) -> int:
    return part.stored[0].untyped_storage().nbytes()


def test_an_image_is_held_in_a_byte_a_pixel(tmp_path: Path) -> None:
    write_stand_in(tmp_path, 12)
    data = pgd.load("mnist", tmp_path)
    assert held(data.train) == held(data.test) == 12 * PIXELS_A_ROW
    # Train and valid are views of one tensor.
    assert data.train.stored[0].data_ptr() == data.train.stored[0].untyped_storage().data_ptr()
    assert held(pgd.load("mnist", tmp_path, binarise="fixed").train) == 10 * PIXELS_A_ROW
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(4):
        Image.new("L", (4, 3), 60 * i).save(folder / f"{i}.png")
    assert held(pgd.load(folder).train) == 2 * 12


@pytest.mark.parametrize(
    ("support", "values"),
    [(None, "unit interval"), ("counts", "counts"), ("real", "real")],
)
def test_an_array_of_bytes_stays_one(support: str | None, values: str, tmp_path: Path) -> None:
    x = np.arange(240, dtype=np.uint8).reshape(60, 2, 2)
    np.save(tmp_path / "x.npy", x)
    data = pgd.load(tmp_path / "x.npy", support=support)
    assert data.support == values
    assert all(part.stored[0].dtype is torch.uint8 for part in data.parts)
    numbers = concat(*data.parts).x.flatten().sort().values
    assert torch.equal(numbers, torch.arange(240.0) / (255 if support is None else 1))
