"""``ppl-gen redraw`` and ``ppl-gen complete``."""

import io
from pathlib import Path

import numpy as np
import pytest
from cli_support import SMALL, Command
from PIL import Image

FIT = ("fit", "cvae", "--data", "digits", *SMALL, "--quiet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this module are."""
    return tmp_path_factory.mktemp("conditional")


@pytest.fixture
def labelled(command: Command, folder: Path) -> Path:
    """A run that is conditioned on a label."""
    if not (folder / "label").exists():
        assert command(*FIT, "--binarise", "redraw", "--out", folder / "label").status == 0
    return folder / "label"


@pytest.fixture
def masked(command: Command, folder: Path) -> Path:
    """A run that is conditioned on a quarter of the image."""
    if not (folder / "seen").exists():
        mask = ("--mask", "quadrants(seen=1)", "--likelihood", "bernoulli(grey=True)")
        said = command(*FIT, *mask, "--out", folder / "seen")
        assert said.status == 0, said.err
    return folder / "seen"


def test_the_condition_follows_from_the_data(command: Command, tmp_path: Path) -> None:
    said = command(*FIT[:-1], "--binarise", "fixed", "--out", "a")
    assert "condition: label(classes=10), as labels go up to 9\n" in said.err
    said = command(*FIT[:-1], "--mask", "half(side='top')", "--out", "b")
    assert "condition: seen, as a part of each observation is masked\n" in said.err


def test_rows_are_redrawn_under_every_class(
    command: Command, labelled: Path, tmp_path: Path
) -> None:
    said = command("redraw", labelled, "--rows", "12", "--out", "r.npz")
    assert said.out == "r.npz: 12 rows, the original and then 10 classes each\n"
    with np.load(tmp_path / "r.npz") as found:
        assert found["redrawn"].shape == (12, 10, 1, 8, 8)
        assert sorted(found["y"])[:10] == [0, 0, 1, 1, 2, 3, 4, 5, 6, 7]


def test_a_picture_of_redrawn_rows_has_a_column_more_than_classes(
    command: Command, labelled: Path
) -> None:
    assert command("redraw", labelled, "--rows", "3").status == 0
    with Image.open(io.BytesIO((labelled / "redrawn.png").read_bytes())) as picture:
        assert picture.width == (11 * 9 - 1) * 8
        assert picture.height == (3 * 9 - 1) * 8


def test_an_own_image_is_redrawn_from_its_label(
    command: Command, labelled: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.eye(30, dtype=np.uint8) * 255).save(tmp_path / "own.png")
    said = command("redraw", labelled, "--image", "own.png", "--out", "r.png")
    assert said.complaint == "an image needs its class to be redrawn under others: give --label"
    said = command("redraw", labelled, "--image", "own.png", "--label", "ten", "--out", "r.png")
    assert said.complaint.startswith("label must be one of 0, 1, 2")
    said = command("redraw", labelled, "--image", "own.png", "--label", "7", "--out", "r.png")
    assert said.out == "r.png: 1 rows, the original and then 10 classes each\n"


def test_seen_parts_are_completed(command: Command, masked: Path, tmp_path: Path) -> None:
    said = command("complete", masked, "--rows", "4", "--draws", "3", "--out", "c.npz")
    assert said.out == "c.npz: 4 rows: truth, seen, mean completion, 3 draws\n"
    with np.load(tmp_path / "c.npz") as found:
        assert found["draws"].shape == (3, 4, 1, 8, 8)
        seen = found["seen"]
        assert (found["draws"][:, seen] == found["x"][seen]).all()
        assert (found["spread"][seen] == 0).all()
    assert command("complete", masked, "--rows", "4", "--draws", "3").status == 0
    with Image.open(masked / "completed.png") as picture:
        assert picture.width == (6 * 9 - 1) * 8


def test_what_a_story_cannot_do_is_said(command: Command, labelled: Path, masked: Path) -> None:
    said = command("complete", labelled)
    assert said.status == 2
    assert "conditioned on the seen part" in said.complaint
    said = command("redraw", masked)
    assert said.status == 2
    assert "must have class labels" in said.complaint
