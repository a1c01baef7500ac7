"""Drawn data: the truth is known, so the draws are held against it."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ppl_gen import data as pgd
from ppl_gen.data import moon_phase
from ppl_gen.data.synthetic import LINES, eight_gaussians, moons, pinwheel
from ppl_gen.errors import DataError

PHASES = torch.linspace(0, 1, 41, dtype=torch.float64)


@pytest.mark.parametrize("side", [1, 5, 16, 28])
def test_the_lit_share_of_the_disc_is_exact(side: int) -> None:
    full = moon_phase(torch.tensor([0.5], dtype=torch.float64), side).sum()
    lit = moon_phase(PHASES, side).sum((1, 2, 3))
    assert_close(lit / full, (1 - (2 * math.pi * PHASES).cos()) / 2)


def test_the_full_moon_is_a_disc_of_radius_085() -> None:
    """Its area differs from that of the circle by the rule of midpoints over 1,024 lines."""
    full = moon_phase(torch.tensor([0.5], dtype=torch.float64), 128)
    assert_close(full.mean().item(), math.pi * 0.85**2 / 4, rtol=1e-4, atol=0)


def test_the_waning_moon_mirrors_the_waxing_one() -> None:
    assert_close(moon_phase(1 - PHASES), moon_phase(PHASES).flip(-1))


def test_every_picture_is_the_same_upside_down() -> None:
    assert_close(moon_phase(PHASES), moon_phase(PHASES).flip(-2))


def test_the_moon_waxes_from_the_right() -> None:
    quarter = moon_phase(torch.tensor([0.25], dtype=torch.float64))[0, 0]
    assert quarter[:, :8].abs().max() < 1e-12
    assert_close(quarter.sum(), moon_phase(torch.tensor([0.5], dtype=torch.float64)).sum() / 2)


def test_no_pixel_darkens_while_the_moon_waxes() -> None:
    pictures = moon_phase(PHASES[PHASES <= 0.5])
    assert (pictures.diff(dim=0) >= -1e-12).all()
    assert (pictures.sum((1, 2, 3)).diff() > 0).all()


def test_pictures_are_intensities_from_dark_to_full() -> None:
    pictures = moon_phase(PHASES.float())
    assert pictures.shape == (41, 1, 16, 16)
    assert pictures.dtype is torch.float32
    assert pictures.min() == 0
    assert pictures.max() == 1
    assert pictures[0].max() == 0


def test_a_picture_is_continuous_in_its_phase() -> None:
    """The terminator moves by at most 2 pi 0.85 a unit of phase, and a pixel is 1 / 8 wide."""
    step = 1e-6
    phase = torch.linspace(0.05, 0.95, 500, dtype=torch.float64)
    change = (moon_phase(phase + step) - moon_phase(phase)).abs().max()
    assert 0 < change <= step * 2 * math.pi * 0.85 * 8


@pytest.mark.parametrize(
    ("phase", "sentence"),
    [
        (torch.tensor([1.5]), "from 0 to 1"),
        (torch.tensor([float("nan")]), "from 0 to 1"),
        (torch.tensor([1]), "floating-point"),
        (torch.tensor(0.5), r"shape \(N,\)"),
    ],
)
def test_what_is_no_phase_is_refused(phase: Tensor, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        moon_phase(phase)


def test_moon_phases_are_labelled_with_the_phase_that_was_drawn() -> None:
    data = pgd.load("moon-phases", size=400)
    whole = pgd.concat(*data.parts)
    assert data.shape == (1, 16, 16)
    assert data.support is pgd.Support.UNIT_INTERVAL
    assert whole.y is not None
    assert whole.y.dtype is torch.float32
    assert_close(whole.x, moon_phase(whole.y))
    assert 0.05 <= whole.y.min() < 0.07
    assert 0.93 < whole.y.max() <= 0.95


def test_each_of_the_eight_gaussians_is_the_normal_it_says() -> None:
    x, y = eight_gaussians(40_000, torch.Generator().manual_seed(0))
    angle = math.pi * y / 4
    loc = math.sqrt(8) * torch.stack([angle.cos(), angle.sin()], -1)
    _assert_standard_normal((x - loc) / math.sqrt(1 / 8))
    _assert_equally_likely(y, 8)


def test_the_arms_of_the_pinwheel_unbend_to_normals() -> None:
    """The radius survives the bend, so each point can be turned back by its own angle."""
    x, y = pinwheel(40_000, torch.Generator().manual_seed(0))
    bent = torch.complex(*(x.double() / 2).unbind(-1))
    generator = torch.Generator().manual_seed(0)
    torch.randint(5, (40_000,), generator=generator)
    radial = 1 + 0.3 * torch.randn(2, 40_000, generator=generator)[0].double()
    turn = 2 * math.pi * y / 5 + radial.exp() / 4
    straight = bent * torch.polar(torch.ones_like(turn), -turn)
    assert_close(straight.real, radial, rtol=0, atol=1e-5)
    standard = torch.stack([(straight.real - 1) / 0.3, straight.imag / 0.1], -1)
    _assert_standard_normal(standard)
    _assert_equally_likely(y, 5)


def test_the_moons_are_noise_of_a_tenth_around_half_circles() -> None:
    """Around its centre, E|x|^2 = 1 + 2 / 100, and the mean height of a half circle is 2 / pi."""
    n = 40_000
    x, y = moons(n, torch.Generator().manual_seed(0))
    centre = torch.where(y[:, None] == 0, torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.5]))
    across, height = (torch.where(y == 0, 1.0, -1.0)[:, None] * (x - centre)).unbind(-1)
    square = across.square() + height.square()
    assert abs(square.mean() - 1.02) < 5 * math.sqrt((4 * 0.01 + 4 * 0.01**2) / n)
    assert abs(across.mean()) < 5 * math.sqrt(0.51 / n)
    assert abs(height.mean() - 2 / math.pi) < 5 * math.sqrt((0.51 - 4 / math.pi**2) / n)
    assert abs(across.square().mean() - 0.51) < 5 * math.sqrt(0.18 / n)
    _assert_equally_likely(y, 2)


def _assert_standard_normal(values: Tensor) -> None:
    n = len(values)
    assert (values.mean(0).abs() < 5 / math.sqrt(n)).all()
    assert ((values.var(0) - 1).abs() < 5 * math.sqrt(2 / n)).all()
    assert values.prod(1).mean().abs() < 5 / math.sqrt(n)


def _assert_equally_likely(y: Tensor, classes: int) -> None:
    share = y.bincount(minlength=classes) / len(y)
    error = math.sqrt((1 - 1 / classes) / classes / len(y))
    assert len(share) == classes
    assert ((share - 1 / classes).abs() < 5 * error).all()


@pytest.mark.parametrize("name", LINES)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    first, again, other = (pgd.load(name, seed=seed, size=100) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert [len(part) for part in first.parts] == [70, 15, 15]


@pytest.mark.parametrize("size", [2, 0, -5, 2.5, True])
def test_a_size_that_cannot_be_divided_is_refused(size: int) -> None:
    with pytest.raises(DataError, match=f"size must be .* at least 3, got {size}"):
        pgd.load("moons", size=size)
