"""The image data sets: torchvision's files as they stand, without a network."""

import os
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from ppl_gen import data as pgd
from ppl_gen.errors import DataError

IDX_FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}


def write_idx(path: Path, values: np.ndarray) -> None:
    """The format of the MNIST files: big-endian sizes, then bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.tobytes())


def write_mnist_like(folder: Path, prefix: str = "", test: str = "t10k") -> np.ndarray:
    """12 training images and 5 test images of 28 x 28, all different; labels 0 to 9 and on."""
    pixels = np.random.default_rng(0).integers(0, 256, (17, 28, 28), dtype=np.uint8)
    labels = (np.arange(17) % 10).astype(np.uint8)
    for name, rows in (("train", slice(0, 12)), (test, slice(12, 17))):
        write_idx(folder / f"{prefix}{name}-images-idx3-ubyte", pixels[rows])
        write_idx(folder / f"{prefix}{name}-labels-idx1-ubyte", labels[rows])
    return pixels


@pytest.fixture
def root() -> str:
    given = os.environ.get("PPL_GEN_DATA")
    needed = ("MNIST/raw", "binarized_mnist")
    if not given or not all(Path(given, folder).is_dir() for folder in needed):
        pytest.skip(f"needs real data: set PPL_GEN_DATA to a folder with {' and '.join(needed)}")
    return given


@pytest.mark.parametrize("name", IDX_FOLDERS)
def test_valid_is_the_last_sixth_of_train_and_test_is_the_sources_own(
    name: str, tmp_path: Path
) -> None:
    pixels = write_mnist_like(tmp_path / IDX_FOLDERS[name] / "raw")
    data = pgd.load(name, tmp_path)
    expected = torch.from_numpy(pixels).float()[:, None] / 255
    assert data.support == "unit interval"
    assert data.label_names is not None
    assert len(data.label_names) == 10
    for part, rows in zip(data.parts, (slice(0, 10), slice(10, 12), slice(12, 17)), strict=True):
        assert_close(part.x, expected[rows], rtol=0, atol=0)
        assert part.y is not None
        assert part.y.tolist() == [i % 10 for i in range(17)][rows]


def test_emnist_is_turned_upright(tmp_path: Path) -> None:
    pixels = write_mnist_like(tmp_path / "EMNIST" / "raw", "emnist-balanced-", "test")
    data = pgd.load("emnist", tmp_path)
    assert_close(data.test.x[:, 0] * 255, torch.from_numpy(pixels[12:]).float().mT)
    assert data.label_names is not None
    assert len(data.label_names) == 47


def fake_sets(monkeypatch: pytest.MonkeyPatch, class_name: str, make: object) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets, class_name, make)


def test_cifar10_has_its_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    held = SimpleNamespace(data=pixels, targets=[*range(10), 0, 1], classes=list("abcdefghij"))
    fake_sets(monkeypatch, "CIFAR10", lambda root, train, download: held)
    data = pgd.load("cifar10", tmp_path)
    assert data.shape == (3, 32, 32)
    assert_close(data.test.x[5, 2] * 255, torch.from_numpy(pixels[5, :, :, 2]).float())
    assert data.label_names == tuple("abcdefghij")


def test_svhn_and_usps_are_read_with_their_own_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured = np.zeros((12, 3, 32, 32), dtype=np.uint8)
    svhn = SimpleNamespace(data=coloured, labels=np.arange(12) % 10)
    usps = SimpleNamespace(data=coloured[:, 0, :16, :16], targets=list(range(12)))
    fake_sets(monkeypatch, "SVHN", lambda root, split, download: svhn)
    fake_sets(monkeypatch, "USPS", lambda root, train, download: usps)
    assert pgd.load("svhn", tmp_path).shape == (3, 32, 32)
    assert pgd.load("usps", tmp_path).shape == (1, 16, 16)


def test_omniglot_is_ink_on_28_pixels_with_new_characters_in_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = np.full((105, 105), 255, dtype=np.uint8)
    paper[:, :15] = 0
    items = [(Image.fromarray(paper), i // 4) for i in range(12)]
    fake_sets(monkeypatch, "Omniglot", lambda root, background, download: items)
    data = pgd.load("omniglot", tmp_path)
    assert data.shape == (1, 28, 28)
    assert data.train.x[0, 0, :, :4].min() == 1
    assert data.train.x[0, 0, :, 4:].max() == 0
    assert data.train.y is not None
    assert data.test.y is not None
    assert set(data.train.y.tolist()) == {0, 1, 2}
    assert set(data.test.y.tolist()) == {3, 4, 5}


def write_binarised(root: Path, values: int = 2, width: int = 784) -> None:
    (root / "binarized_mnist").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, count in (("train", 5), ("valid", 3), ("test", 4)):
        x = generator.integers(0, values, (count, width), dtype=np.uint8)
        np.savez(root / "binarized_mnist" / f"{part}.npz", x=x)


def test_binarised_mnist_keeps_its_three_parts(tmp_path: Path) -> None:
    write_binarised(tmp_path)
    data = pgd.load("binarized-mnist", tmp_path)
    assert [len(part) for part in data.parts] == [5, 3, 4]
    assert data.shape == (1, 28, 28)
    assert data.support == "binary"
    assert data.train.y is None


def test_binarised_mnist_is_checked(tmp_path: Path) -> None:
    write_binarised(tmp_path / "grey", values=4)
    write_binarised(tmp_path / "small", width=64)
    with pytest.raises(DataError, match=r"'binary' does not fit 'binarized-mnist': [0-9]+ of 9408"):
        pgd.load("binarized-mnist", tmp_path / "grey")
    with pytest.raises(DataError, match=r"must hold shape \(N, 784\), got \(5, 64\)"):
        pgd.load("binarized-mnist", tmp_path / "small")
    with pytest.raises(DataError, match=r"needs the file '.*train\.npz'"):
        pgd.load("binarized-mnist", tmp_path)


def test_the_root_is_the_argument_and_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_binarised(tmp_path / "here")
    monkeypatch.setenv("PPL_GEN_DATA", str(tmp_path / "here"))
    data = pgd.load("binarized-mnist")
    assert data.source["root"] is None
    with pytest.raises(DataError, match="needs the file"):
        pgd.load("binarized-mnist", tmp_path / "nowhere")
    monkeypatch.delenv("PPL_GEN_DATA")
    with pytest.raises(DataError, match=r"'mnist' is read .* root=, --data-root, .* PPL_GEN_DATA"):
        pgd.load("mnist")


@pytest.mark.parametrize("name", [*IDX_FOLDERS, "emnist", "omniglot", "usps", "cifar10", "svhn"])
def test_data_that_are_missing_are_named_and_not_downloaded(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"'{name}' could not be read .* download=True") as caught:
        pgd.load(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match=r"data root '.*gone' is no folder"):
        pgd.load(name, tmp_path / "gone")


def test_a_damaged_file_is_answered_by_one_sentence(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_mnist_like(raw)
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:500])
    with pytest.raises(DataError, match="'mnist' could not be read under"):
        pgd.load("mnist", tmp_path)


def test_a_download_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: str, train: bool, download: bool) -> None:
        assert download
        raise OSError("no network")

    fake_sets(monkeypatch, "MNIST", refuse)
    with pytest.raises(DataError, match=r"'mnist' could not be downloaded to .* \(no network\)"):
        pgd.load("mnist", tmp_path, download=True)


@pytest.mark.parametrize(
    "raised",
    ["RuntimeError('operator torchvision::nms does not exist')", "ImportError('no such file')"],
)
def test_a_torchvision_that_does_not_match_torch_is_named(
    raised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise {raised}\n")
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"cannot be imported .* pip install torch torchvision"):
        pgd.load("mnist", tmp_path)


def test_real_mnist_is_divided_as_in_the_literature(root: str) -> None:
    data = pgd.load("mnist", root, binarise="redraw")
    assert [len(part) for part in data.parts] == [50_000, 10_000, 10_000]
    assert data.shape == (1, 28, 28)
    assert data.train.y is not None
    assert data.test.y is not None
    assert data.train.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.test.y[:5].tolist() == [7, 2, 1, 0, 4]
    # The mean intensity of the 60,000 training images is 0.1307.
    assert abs(data.train.x.mean() - 0.1307) < 0.0005
    assert data.train.redraw
    assert pgd.Support.BINARY.contains(data.test.x).all()


def test_real_binarised_mnist_is_a_draw_of_real_mnist(root: str) -> None:
    """Each pixel is a draw of its intensity, so the totals agree within 5 standard errors."""
    binary, grey = pgd.load("binarized-mnist", root).test.x, pgd.load("mnist", root).test.x
    assert [len(binary), len(grey)] == [10_000, 10_000]
    assert (binary.sum() - grey.sum()).abs() < 5 * (grey * (1 - grey)).sum().sqrt()
