"""Ranks of truths are uniform among draws of an exact posterior; else they say how it is wrong."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.testing import assert_close

from ppl_gen.inference.estimators.ranks import (
    asymmetry,
    bias,
    coverage,
    from_uniform,
    ranks,
    scores,
    uniformity,
    width,
)

COUNT = 10_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def compared(scale: float = 1.0, shift: float = 0.0, draws: int = 100) -> tuple[Tensor, Tensor]:
    """Truths of a standard normal among draws of one with another scale and mean."""
    g = generator()
    truth = torch.randn(COUNT, 1, generator=g)
    return truth, shift + scale * torch.randn(draws, COUNT, 1, generator=g)


@pytest.mark.parametrize("draws", [2, 7, 100])
def test_ranks_among_draws_of_the_same_law_are_uniform(draws: int) -> None:
    """However few draws there are; in 1 of 1,000 cases they would be as far off by chance."""
    found = uniformity(ranks(*compared(draws=draws), generator()))

    assert found.p_value.item() > 1e-3
    assert found.distance.item() < 1.95 / math.sqrt(COUNT)


def test_ranks_of_discrete_truths_are_uniform_too() -> None:
    g = generator()
    truth, draws = torch.rand(COUNT, 1, generator=g), torch.rand(20, COUNT, 1, generator=g)

    found = uniformity(ranks((truth < 0.3).long(), (draws < 0.3).long(), g))

    assert found.p_value.item() > 1e-3


def test_a_rank_counts_the_draws_below() -> None:
    draws = torch.arange(9.0)[:, None, None]

    (lowest,), (middle,), (highest,) = (
        ranks(torch.full((1, 1), value), draws)[0] for value in (-1.0, 3.5, 9.0)
    )

    assert 0 <= lowest < 0.1
    assert 0.4 <= middle < 0.5
    assert 0.9 <= highest <= 1


def wrong_scale(factor: float) -> float:
    """Largest distance of the law of ranks under a scale that is off by a factor."""
    u = torch.linspace(0, 1, 100_001, dtype=torch.float64)[1:-1]
    normal = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    return (normal.cdf(factor * normal.icdf(u)) - u).abs().max().item()


@pytest.mark.parametrize(
    ("scale", "shift", "distance"),
    [
        (0.5, 0.0, wrong_scale(0.5)),
        (0.8, 0.0, wrong_scale(0.8)),
        (1.25, 0.0, wrong_scale(1.25)),
        (1.0, 0.25, 2 * Normal(0.0, 1.0).cdf(torch.tensor(0.125)).item() - 1),
        (1.0, -0.5, 2 * Normal(0.0, 1.0).cdf(torch.tensor(0.25)).item() - 1),
    ],
)
def test_distance_shift_and_scale_are_those_of_the_formula(
    scale: float, shift: float, distance: float
) -> None:
    truth, draws = compared(scale, shift)
    found, z = ranks(truth, draws, generator()), scores(truth, draws)

    assert from_uniform(found).item() == pytest.approx(distance, abs=0.012)
    assert width(z).item() == pytest.approx(scale, rel=0.04)
    assert bias(z).item() == pytest.approx(-shift, abs=0.06)


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.25])
def test_intervals_hold_what_the_formula_says(scale: float) -> None:
    levels = (0.5, 0.9)
    normal = Normal(0.0, 1.0)
    half = scale * normal.icdf(0.5 + torch.tensor(levels) / 2)
    expected = (2 * normal.cdf(half) - 1).double()

    shares, errors = coverage(ranks(*compared(scale, draws=400), generator()), levels)

    assert_close(shares[:, 0], expected, atol=5 * errors.max().item(), rtol=0)
    assert_close(errors, torch.tensor([0.005, 0.003], dtype=torch.float64))


def test_the_band_holds_uniform_ranks_in_the_share_it_says() -> None:
    found = uniformity(torch.rand(300, 2000, generator=generator()), level=0.9)

    outside = (found.ecdf < found.lower[:, None]) | (found.ecdf > found.upper[:, None])
    assert outside.any(0).double().mean().item() == pytest.approx(0.1, abs=0.035)
    assert (found.p_value < 0.05).double().mean().item() == pytest.approx(0.05, abs=0.025)


def test_symmetric_ranks_are_found_asymmetric_as_often_as_the_p_value_says() -> None:
    """However far they are from uniform; a shift is found."""
    g = generator()
    ranks_of_many = torch.rand(60, 4000, generator=g)
    apart = (ranks_of_many - 0.5).abs().mul(2).sqrt() / 2
    distances, p_values = asymmetry(0.5 + (ranks_of_many - 0.5).sign() * apart)
    distance, (p_value,) = asymmetry(torch.rand(60, 1, generator=g).sqrt())

    for limit in (0.05, 0.1):
        nearest = (p_values - limit).abs().argmin()
        share = (distances >= distances[nearest]).double().mean().item()
        assert share == pytest.approx(p_values[nearest].item(), rel=0.2)
    assert p_value < 0.01
    assert 0.3 < distance.item() < 0.7


def test_asymmetry_is_the_distance_of_the_two_laws() -> None:
    from scipy.stats import ks_2samp

    found = torch.rand(41, 1, generator=generator(), dtype=torch.float64)

    assert asymmetry(found)[0].item() == pytest.approx(ks_2samp(*(found, 1 - found)).statistic[0])


def test_a_truth_among_equal_draws_has_no_score() -> None:
    assert scores(torch.zeros(3, 1), torch.zeros(5, 3, 1)).isnan().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ranks(torch.zeros(3, 1), torch.zeros(5, 3, 2)), r"draws \(S, R, D\)"),
        (lambda: ranks(torch.full((3, 1), math.nan), torch.zeros(5, 3, 1)), "got NaN"),
        (lambda: scores(torch.zeros(3, 1), torch.zeros(1, 3, 1)), "S at least 2"),
        (lambda: uniformity(torch.full((3, 1), 1.5)), "from 0 to 1"),
        (lambda: coverage(torch.rand(3, 1), (50.0,)), "between 0 and 1"),
    ],
)
def test_what_cannot_be_ranked_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
