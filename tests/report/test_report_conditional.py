"""What a report says of a story with a condition."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from PIL import Image
from torch import Tensor

import ppl_gen as pg
from ppl_gen.data import Part
from ppl_gen.inference.passes import Completion
from ppl_gen.models import M2, VAE
from ppl_gen.models.cvae import CVAE
from ppl_gen.report import conditional, facts, pictures, write_report
from ppl_gen.report.conditional import Completed, can_complete, can_redraw, shares
from ppl_gen.report.images import UNSEEN, Greys, heads, picture, places
from ppl_gen.report.view import NotShown, View, data_to_show

EVIL = """<script>alert("1")</script>'&$\\frac{$ 数字"""
SHIFT = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [-5.0, 0.0, 5.0]])
WEIGHT = torch.tensor([[1.0, -1.0, 2.0]])


class Given(pg.Story):
    """x = weight z + (what the condition adds) + noise, and the exact posterior of z.

    Args:
        adds: What a condition adds; by default nothing.
    """

    def __init__(self, adds: Callable[[Tensor], Tensor] = lambda _: torch.zeros(3)) -> None:
        super().__init__()
        self.adds = adds
        self.raw = torch.nn.Parameter(torch.zeros(()))

    def model(self, x: Tensor, condition: Tensor) -> None:
        """The story."""
        with pyro.plate("observations", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            loc = z @ WEIGHT + self.adds(condition)
            pyro.sample("x", dist.Normal(loc, self.raw.exp()).to_event(1), obs=x)

    def guide(self, x: Tensor, condition: Tensor) -> None:
        """Its posterior: the noise has deviation 1, and the weight squared length 6."""
        loc = (x - self.adds(condition)) @ WEIGHT.T / 7
        with pyro.plate("observations", len(x)):
            pyro.sample("z", dist.Normal(loc, 7**-0.5).to_event(1))


def by_label(label: Tensor) -> Tensor:
    return SHIFT[label.long().reshape(-1)]


def run_of(story: Any, data: Any) -> pg.Run:
    options = {"epochs": 1, "learning_rate": 1e-12, "progress": False}
    return pg.fit(story, data, warm_start=True, **options)


def view_of(story: Any, data: Any, **options: Any) -> View:
    run = run_of(story, data)
    return View(run, data_to_show(run, data), **options)


def rows(*shape: int, count: int = 24) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def labels(count: int = 24) -> Tensor:
    return torch.arange(count) % 3


def half(*shape: int, count: int = 24) -> Tensor:
    mask = torch.zeros(count, *shape, dtype=torch.bool)
    mask[..., : shape[-1] // 2] = True
    return mask


def seen_story(*shape: int, **options: Any) -> CVAE:
    torch.manual_seed(0)
    return CVAE(shape, "seen", 2, hidden=(4,), **options)


# Story, data, and which of the sections of conditions are made for it.
KINDS: dict[str, tuple[Callable[[], Any], Any, tuple[bool, bool]]] = {
    "a mask": (lambda: seen_story(4, 4), (rows(4, 4), half(4, 4)), (True, False)),
    "a mask of numbers": (lambda: seen_story(4), (rows(4), half(4).float()), (True, False)),
    "a label": (lambda: Given(by_label), (rows(3), labels()), (False, True)),
    "a label in a column": (lambda: Given(by_label), (rows(3), labels()[:, None]), (False, True)),
    "labels of some": (
        lambda: M2((3,), 3, 2, hidden=(4,)),
        (rows(3), labels() - (torch.arange(24) < 9).long() * (labels() + 1)),
        (False, True),
    ),
    "a number": (
        lambda: Given(lambda c: c[:, None] * torch.ones(3)),
        (rows(3), torch.rand(24)),
        (False, False),
    ),
    "a vector of the observation's shape": (
        lambda: Given(lambda c: c.float()),
        (rows(3), half(3)),
        (False, False),
    ),
    "a label that the story does not take": (
        lambda: VAE((3,), 2, hidden=(4,)),
        Part((rows(3), labels())),
        (False, False),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_sections_of_conditions_are_for_stories_that_have_one(name: str) -> None:
    make, data, expected = KINDS[name]
    view = view_of(make(), data)
    assert (can_complete(view), can_redraw(view)) == expected


def test_a_row_redrawn_under_its_own_label_is_its_reconstruction() -> None:
    """And under others it keeps what the code adds, so that label and row are all there is."""
    x, y = 3 * rows(3), labels()
    view = view_of(Given(by_label), (x, y))
    drawn = view.run.redraw(view.part, torch.arange(3))
    own = drawn[torch.arange(len(x)), view.given]
    torch.testing.assert_close(own, view.reconstructed)
    assert sum(shares(drawn)) == pytest.approx(1)


def test_the_variance_of_what_is_redrawn_is_divided_exactly() -> None:
    """The shares of label, row and both together are those of an analysis of variance."""
    label, row = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-2.0, 2.0])
    assert shares((label + row[:, None])[..., None]) == pytest.approx((1 / 7, 6 / 7))
    assert shares((label * row[:, None])[..., None]) == pytest.approx((0, 0))


def test_a_condition_that_changes_nothing_is_told() -> None:
    with pytest.raises(NotShown, match="the same under every label"):
        conditional.redrawn(view_of(Given(), (rows(3), labels())))


def test_ways_between_codes_stay_within_a_label_that_is_given() -> None:
    view = view_of(Given(by_label), (rows(3), labels()))
    starts, ends = pictures._pairs(view)
    assert torch.equal(view.given[starts], view.given[ends])
    assert (starts != ends).all()
    assert view.given[starts].tolist() == [0, 1, 2]


def test_labels_beside_a_mask_are_found() -> None:
    view = view_of(seen_story(4), Part((rows(4), half(4), labels())))
    assert view.labels is not None
    assert torch.equal(view.labels.values.long(), view.part.columns[2])


def test_the_error_of_completions_counts_what_was_hidden() -> None:
    """Draws 3 above and 1 below the truth: 1 off in the mean, sqrt(5) each; the baseline 2 off."""
    x, seen = torch.randn(6, 4), half(4, count=6)
    draws = torch.stack([x + 3, x - 1])
    draws[:, seen] = 99.0  # not looked at
    said = conditional._errors(Completed(x, Completion(draws, seen), x - 2))
    always = x[:, 2:].var(0, correction=0).mean().sqrt().item()
    words = ["1 of the mean", "2 of the baseline", "2.24 of a single", f"{always:.3g} if always"]
    assert all(word in said for word in words), said


def pixels(markup: str) -> list[Tensor]:
    """Pictures behind the inline images, ``(height, width, 4)`` each."""
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', markup)
    images = [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]
    return [torch.as_tensor(np.array(image.convert("RGBA"))) for image in images]


def test_what_is_unseen_is_blue_and_what_is_seen_is_as_it_was() -> None:
    levels = torch.randint(256, (2, 4, 4))
    unseen = torch.zeros(2, 4, 4)
    unseen[1, :, 2:] = 1
    (found,) = pixels(picture(levels / 255, 2, "two", Greys(0, 1), unseen=unseen))
    first, second = found[:, :4, :3].long(), found[:, 5:, :3].long()
    assert torch.equal(first, levels[0, ..., None].expand(4, 4, 3))
    assert torch.equal(second[:, :2], levels[1, :, :2, None].expand(4, 2, 3))
    blues = {tuple(round(255 * level) for level in blue) for blue in UNSEEN}
    assert {tuple(pixel) for pixel in second[:, 2:].reshape(-1, 3).tolist()} == blues


def test_words_stand_above_their_images() -> None:
    images, apart = torch.rand(5, 28, 28), (1, 4)
    lefts = places(5, 28, apart)[1]
    (shown,) = pixels(picture(images, 5, "five", Greys(0, 1), apart))
    style = r"left:([\d.]+)%;width:([\d.]+)%"
    found = torch.tensor(
        [[float(v) for v in pair] for pair in re.findall(style, heads("abcde", images, apart))]
    )
    torch.testing.assert_close(
        found[:, 0] * shown.shape[1] / 100, torch.tensor(lefts).float(), atol=1e-2, rtol=0
    )
    torch.testing.assert_close(found.sum(1)[-1], torch.tensor(100.0), atol=1e-2, rtol=0)
    opaque = shown[0, :, 3] > 0
    assert all(opaque[left] and (left == 0 or not opaque[left - 1]) for left in lefts)


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("shape", [(4, 4), (5,)])
def test_the_baseline_is_shown_where_there_is_one(shape: tuple[int, ...], baseline: bool) -> None:
    view = view_of(seen_story(*shape, baseline=baseline), (rows(*shape), half(*shape)))
    shown = conditional.completions(view)
    assert ("baseline" in shown) == baseline
    assert conditional.completions(replace(view)) == shown


@pytest.mark.parametrize("options", [{}, {"baseline": True, "gsnn": 0.5}])
def test_what_only_training_counts_is_said_beside_its_curve(options: dict[str, Any]) -> None:
    view = view_of(seen_story(4, **options), (rows(4), half(4)))
    before = view.run.story.training, view.run.parameters()
    said = facts.curves(view)
    assert ("the story counts x_gsnn, x_baseline as well" in said) == bool(options)
    torch.testing.assert_close((view.run.story.training, view.run.parameters()), before)


def test_a_mask_that_hides_nothing_leaves_nothing_to_complete() -> None:
    view = view_of(seen_story(4), (rows(4), torch.ones(24, 4, dtype=torch.bool)))
    with pytest.raises(NotShown, match="nothing to complete"):
        conditional.completions(view)


@pytest.mark.parametrize(
    ("story", "data", "own", "words"),
    [
        (
            lambda: CVAE((4, 4), "label(classes=3)", 2, hidden=(4,)),
            Part((rows(4, 4), labels())),
            "Redrawn",
            "given the condition of the datum at the same place",
        ),
        (
            lambda: seen_story(4, 4),
            Part((rows(4, 4), half(4, 4), labels())),
            "Completions",
            "given what is seen of the datum at the same place",
        ),
        (
            lambda: Given(by_label),
            Part((rows(3), labels())),
            "Redrawn",
            "given the condition of the datum at the same place",
        ),
    ],
)
def test_every_section_has_its_picture_whatever_labels_are_called(
    story: Callable[[], Any], data: Part, own: str, words: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    run = pg.fit(story(), data, epochs=1, progress=False)
    text = write_report(run, tmp_path / "a.html", data, label_names=(EVIL, "b", "c")).read_text()
    found = [unescape(heading) for heading in re.findall("<h2>(.*?)</h2>", text)]
    assert own in found
    assert ("Redrawn" in found) + ("Completions" in found) == 1
    assert words in text
    assert text.count('class="note"') == 1  # there is no verdict
    assert "<script" not in text
    assert unescape(text).count(EVIL) >= 2
