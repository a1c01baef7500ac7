"""One image of a user's own, in the form that a story was fitted to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from ppl_gen.data import image
from ppl_gen.errors import DataError


def saved(path: Path, pixels: Tensor) -> Path:
    """A picture of intensities in [0, 1], (H, W) or (3, H, W)."""
    values = (pixels * 255).round().byte().numpy()
    Image.fromarray(values if values.ndim == 2 else np.moveaxis(values, 0, -1)).save(path)
    return path


def stroke(size: int = 80) -> Tensor:
    """A bright bar on a dark ground, in the upper left."""
    picture = torch.zeros(size, size)
    picture[8:48, 16:24] = 1.0
    return picture


@pytest.mark.parametrize("shape", [(20, 20), (1, 20, 20), (3, 20, 20)])
def test_an_image_gets_the_shape_of_an_observation(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = image(saved(tmp_path / "a.png", stroke()), shape)
    assert x.shape == (1, *shape)
    assert_close(
        x[0].reshape(-1, 20, 20)[0], stroke().reshape(20, 4, 20, 4).mean((1, 3)), atol=0.25, rtol=0
    )


def test_ink_on_paper_becomes_light_on_dark_unless_told(tmp_path: Path) -> None:
    light = image(saved(tmp_path / "light.png", stroke()), (1, 80, 80))
    dark = saved(tmp_path / "dark.png", 1 - stroke())
    assert_close(image(dark, (1, 80, 80)), light)
    assert_close(image(dark, (1, 80, 80), invert=False), 1 - light)


def test_centring_puts_the_mass_in_the_middle_and_the_longer_side_to_20_of_28(
    tmp_path: Path,
) -> None:
    x = image(saved(tmp_path / "a.png", stroke()), (28, 28), centre=True)[0]
    rows = (x > 0.5).any(1).nonzero()[:, 0]
    assert len(rows) == 20
    places = torch.arange(28.0)
    for axis in (0, 1):
        middle = (x.sum(1 - axis) * places).sum() / x.sum()
        assert middle.item() == pytest.approx(13.5, abs=0.51)


def test_a_coloured_image_is_read_as_grey_by_its_luma(tmp_path: Path) -> None:
    green = torch.zeros(3, 8, 8)
    green[1] = 1.0
    x = image(saved(tmp_path / "green.png", green), (1, 8, 8), invert=False)
    assert_close(x, torch.full((1, 1, 8, 8), 0.587), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "text"), [("none.png", "no image"), ("text.png", "cannot be read")]
)
def test_what_is_no_image_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match=text):
        image(tmp_path / name, (1, 8, 8))


def test_an_observation_that_is_no_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shape must be that of an image"):
        image(saved(tmp_path / "a.png", stroke()), (64,))


def test_an_image_on_which_nothing_stands_out_cannot_be_centred(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing stands out"):
        image(saved(tmp_path / "a.png", torch.zeros(9, 9)), (8, 8), centre=True)
