"""A folder of images: sizes, colours, classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ppl_gen import data as pgd
from ppl_gen.errors import DataError


def grey(value: int, width: int = 4, height: int = 3) -> Image.Image:
    return Image.new("L", (width, height), value)


def fill(folder: Path, image: Image.Image, count: int = 4, suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image.save(folder / f"{i}.{suffix}")


def whole(path: Path, support: str | None = None) -> pgd.Part:
    return pgd.concat(*pgd.load(path, support=support).parts)


def test_grey_images_have_one_channel_in_the_unit_interval(tmp_path: Path) -> None:
    fill(tmp_path, grey(51))
    data = pgd.load(tmp_path)
    assert data.shape == (1, 3, 4)
    assert data.support == "unit interval"
    assert data.train.y is None
    assert torch.equal(data.train.x, torch.full((2, 1, 3, 4), 51 / 255))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_coloured_images_have_three_channels_first(mode: str, tmp_path: Path) -> None:
    fill(tmp_path, Image.new("RGB", (4, 3), (255, 0, 51)).convert(mode))
    x = whole(tmp_path).x
    assert x.shape == (4, 3, 3, 4)
    assert torch.equal(x[0, :, 2, 3], torch.tensor([1.0, 0.0, 0.2]))


def test_a_palette_with_transparency_gives_no_warning(tmp_path: Path) -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 255, 0, 51])
    tmp_path.joinpath("x").mkdir()
    for i in range(3):
        image.save(tmp_path / "x" / f"{i}.png", transparency=b"\x00\xff")
    assert torch.equal(whole(tmp_path / "x").x[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.2]))


def test_black_and_white_images_are_binary(tmp_path: Path) -> None:
    for i in range(4):
        Image.fromarray(np.eye(3, dtype=np.uint8) * 255).convert("1").save(tmp_path / f"{i}.png")
    assert pgd.load(tmp_path).support == "binary"


def test_sixteen_bits_keep_their_depth(tmp_path: Path) -> None:
    fill(tmp_path, Image.fromarray(np.full((3, 4), 257, dtype=np.uint16)))
    assert torch.equal(whole(tmp_path).x.unique(), torch.tensor([257 / 65535]))


def test_subfolders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path / "dog", grey(20), 3)
    fill(tmp_path / "cat", grey(10), 2)
    fill(tmp_path / ".cache", grey(30), 2)
    (tmp_path / "notes").mkdir()
    part = whole(tmp_path)
    assert pgd.load(tmp_path).label_names == ("cat", "dog")
    assert part.y is not None
    assert ((part.x[:, 0, 0, 0] * 255 / 10).round().long() - 1).tolist() == part.y.tolist()
    assert part.y.bincount().tolist() == [2, 3]


def test_levels_of_grey_can_be_taken_as_counts(tmp_path: Path) -> None:
    fill(tmp_path, grey(51))
    assert whole(tmp_path, support="counts").x.unique().tolist() == [51.0]


def test_images_of_different_sizes_are_named(tmp_path: Path) -> None:
    fill(tmp_path, grey(1), 3)
    grey(1, 5, 3).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match=r"'0\.png' is 4 x 3 grey and 'wide\.png' is 5 x 3 grey"):
        pgd.load(tmp_path)


def test_grey_beside_coloured_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "a", grey(1), 3)
    fill(tmp_path / "b", grey(1).convert("RGB"), 3)
    with pytest.raises(DataError, match=r"'a/0\.png' is 4 x 3 grey and 'b/0\.png' is 4 x 3 RGB"):
        pgd.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk", b"\x89PNG\r\n\x1a\nthen nothing"])
def test_an_unreadable_image_is_named(content: bytes, tmp_path: Path) -> None:
    fill(tmp_path, grey(1), 3)
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(DataError, match=r"image 'broken\.png' cannot be read") as caught:
        pgd.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cut_image_is_named(tmp_path: Path) -> None:
    fill(tmp_path, Image.effect_noise((64, 64), 50), 3)
    path = tmp_path / "1.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"image '1\.png' cannot be read"):
        pgd.load(tmp_path)


def test_images_of_floats_have_no_known_range(tmp_path: Path) -> None:
    fill(tmp_path, Image.new("F", (4, 3), 0.5), suffix="tiff")
    with pytest.raises(DataError, match=r"image '0\.tiff' .* floats of unknown range"):
        pgd.load(tmp_path)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "readme.txt").write_text("none")
    with pytest.raises(DataError, match=r"folder 'pictures' holds no images.*\.png"):
        pgd.load(tmp_path / "pictures")


def test_images_beside_classes_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, grey(1), 1)
    fill(tmp_path / "cat", grey(1), 3)
    with pytest.raises(
        DataError, match=r"both beside and in subfolders, such as '0\.png' and 'cat'"
    ):
        pgd.load(tmp_path)


def test_too_few_images_are_counted(tmp_path: Path) -> None:
    fill(tmp_path / "two", grey(1), 2)
    with pytest.raises(DataError, match=r"'two' needs at least 3 rows .* got 2"):
        pgd.load(tmp_path / "two")
