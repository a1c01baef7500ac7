"""The figures of a report, by what they show of the numbers given."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import ppl_gen as pg
from ppl_gen.data import Part
from ppl_gen.models import PPCA
from ppl_gen.report.codes import plane_of
from ppl_gen.report.facts import _kept
from ppl_gen.report.figures import late_limits
from ppl_gen.report.html import Markup, linked, tag
from ppl_gen.report.images import Greys, picture
from ppl_gen.report.view import View, data_to_show, kind_of, labels_of


def pixels(markup: str) -> Tensor:
    """The picture behind an inline image, ``(height, width, 4)``."""
    found = re.search(r'src="data:image/png;base64,([^"]*)"', markup)
    assert found is not None
    image = Image.open(io.BytesIO(base64.b64decode(found[1])))
    return torch.as_tensor(np.array(image.convert("RGBA")))


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 4, 5)])
def test_a_picture_holds_every_pixel_of_every_image(shape: tuple[int, ...]) -> None:
    levels = torch.randint(256, (6, *shape))
    found = pixels(picture(levels / 255, 3, "six images", Greys(0, 1)))
    for i, image in enumerate(levels):
        top, left = i // 3 * 5, i % 3 * 6  # a gap of one pixel
        tile = found[top : top + 4, left : left + 5]
        colours = image.reshape(-1, 4, 5).expand(3, -1, -1).permute(1, 2, 0)
        assert torch.equal(tile[..., :3].long(), colours)
        assert (tile[..., 3] == 255).all()
    assert (found[4, :, 3] == 0).all()


def test_data_in_the_unit_interval_keep_their_greys_and_others_are_stretched() -> None:
    assert Greys.of(torch.tensor([0.2, 0.4])) == Greys(0, 1)
    assert Greys.of(torch.tensor([-2.0, 6.0, torch.nan])) == Greys(-2, 6)


def test_a_wider_gap_moves_what_comes_after_it() -> None:
    plain = pixels(picture(torch.ones(4, 2, 2), 4, "four", Greys(0, 1)))
    parted = pixels(picture(torch.ones(4, 2, 2), 4, "four", Greys(0, 1), apart=(1, 3)))
    assert parted.shape[1] == plain.shape[1] + 6
    assert parted[..., 3].sum() == plain[..., 3].sum()


def test_the_end_of_a_curve_fills_the_axes_whatever_the_beginning() -> None:
    curve = np.concatenate([[-1e9, -1e5], np.linspace(-30, -20, 30)])
    low, high = late_limits([curve, np.full(32, np.nan)]) or (0, 0)
    assert low > -60
    assert low < curve[16:].min() < curve.max() < high


def test_short_curves_are_shown_whole() -> None:
    curve = np.array([-9.0, -3.0, -1.0])
    low, high = late_limits([curve]) or (0, 0)
    assert low < -9 < -1 < high
    assert late_limits([np.full(3, np.nan)]) is None


@pytest.mark.parametrize(("warmup", "kept"), [(0, 2), (2, 4)])
def test_the_epoch_whose_weights_were_kept_is_the_best_after_the_warm_up(
    warmup: int, kept: int
) -> None:
    assert _kept(np.array([-5.0, -1.0, -3.0, -2.0, np.nan]), warmup) == kept
    assert _kept(np.full(3, np.nan), warmup) is None


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((1, 8, 8), "image"),
        ((3, 8, 8), "image"),
        ((8, 9), "image"),
        ((2, 8, 8), "vector"),
        ((1, 8), "vector"),
        ((2,), "plane"),
        ((1,), "vector"),
        ((13,), "vector"),
    ],
)
def test_what_can_be_seen_as_an_image_is(shape: tuple[int, ...], kind: str) -> None:
    assert kind_of(torch.zeros(3, *shape)) == kind


def test_labels_are_classes_if_whole_and_few() -> None:
    x = torch.zeros(30, 1)
    classes = labels_of(Part((x, torch.arange(30) % 3 + 1)), ("zero", "one"))
    assert classes is not None
    assert classes.names == {1: "one", 2: "2", 3: "3"}
    many = labels_of(Part((x, torch.arange(30))), None)
    assert many is not None
    assert many.names is None
    assert labels_of(Part((x,)), None) is None
    assert labels_of(Part((x, torch.zeros(30, 2))), None) is None
    assert labels_of(Part((x, torch.full((30,), torch.nan))), None) is None


def view_of(latent: int) -> View:
    x = torch.randn(50, 6) @ torch.randn(6, 6)
    run = pg.fit(PPCA((6,), latent), x, epochs=5, learning_rate=0.05, progress=False)
    return View(run, data_to_show(run, x))


def test_two_dimensions_of_code_are_the_plane_and_more_are_projected() -> None:
    two, four = view_of(2), view_of(4)
    assert np.array_equal(plane_of(two).points, two.codes.numpy())
    plane = plane_of(four)
    share = plane.points.var(0).sum() / four.codes.numpy().var(0).sum()
    assert f"{share:.0%} of the variance" in plane.how


def test_codes_and_reconstructions_are_those_of_the_run() -> None:
    view = view_of(2)
    codes = view.run.encode(view.part)
    assert torch.equal(view.codes, codes["z"].double())
    assert torch.equal(view.reconstructed, view.run.decode(codes)["x"])
    assert torch.equal(view.x, view.part.x)


def test_only_markup_is_trusted() -> None:
    assert tag("b", "<i>", Markup("<i>"), title='"') == '<b title="&quot;">&lt;i&gt;<i></b>'
    assert linked("a<b, see https://a.org/x?y=1&z.") == (
        'a&lt;b, see <a href="https://a.org/x?y=1&amp;z" rel="noreferrer">'
        "https://a.org/x?y=1&amp;z</a>."
    )
    assert "<a" not in linked("javascript:alert(1)")
