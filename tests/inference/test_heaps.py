"""Numbers that many rows have are no draws of a density: rounded ones, and states of their own."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from test_effects import HOURS, LEVEL, NOISE, SCHOOL, drawn, replicated
from torch import Tensor

import ppl_gen as pg
from ppl_gen.inference.checks.heaps import Heaps
from ppl_gen.inference.estimators.heaps import (
    Grid,
    far_from_all,
    favoured,
    favourite,
    grid_of,
    heaped,
)

SCORE = LEVEL[SCHOOL] + 0.5 * HOURS + NOISE
CHANCE = torch.rand(400, generator=torch.Generator().manual_seed(5))
TENTHS = (10 * SCORE).round() / 10


def test_a_heap_is_an_outermost_value_of_many_rows() -> None:
    x = drawn(100)
    assert heaped(x).tolist() == []
    assert heaped(x.clamp(-1, 0.5)).tolist() == [-1.0, 0.5]
    assert heaped(x.round()).tolist() == []
    assert heaped(torch.cat([x, torch.full((5,), math.nan)])).tolist() == []


@pytest.mark.parametrize(
    ("score", "named", "remedy"),
    [
        (
            torch.where(CHANCE < 0.4, SCORE.round(), TENTHS),
            "share of multiples of 1 in score (of the data 3",
            "Many numbers of score were rounded",
        ),
        (
            (torch.where(CHANCE < 0.4, (2 * SCORE).round() / 2, TENTHS) - 0.123) * 0.987,
            "share of every 5th number from ",
            "let the story round as well",
        ),
        (
            torch.where(CHANCE < 0.15, 0.0, SCORE),
            "share of 0 in score beyond its neighbours (of the data 1",
            "if it is a state of its own, let the story mix it with the rest",
        ),
    ],
)
def test_numbers_that_many_rows_have_are_told_first(score: Tensor, named: str, remedy: str) -> None:
    finding = replicated(score)

    assert finding.status == "warn"
    assert finding.meaning.startswith(f"Data replicated from the posterior are off in {named}")
    assert remedy in finding.remedy
    assert finding.of_story


@pytest.mark.parametrize("score", [SCORE, TENTHS, (4 * SCORE).round() / 4])
def test_numbers_that_all_are_rounded_alike_are_none_of_a_heap(score: Tensor) -> None:
    assert replicated(score).status == "pass"


def test_replicates_that_are_rounded_as_the_data_are_have_the_same_heaps() -> None:
    def rounded(x: Tensor, seed: int) -> Tensor:
        coarse = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
        return torch.where(coarse, x.round(), (10 * x).round() / 10)

    heaps = Heaps.of("y", "y", rounded(drawn(300, seed=101), 1001))
    assert heaps is not None
    assert heaps.statistics() == []  # nothing to compare them with
    heaps.take(torch.stack([rounded(drawn(300, seed=2 + i), 1002 + i) for i in range(40)]))

    for statistic in heaps.statistics():
        low, high = statistic.replicated.min(), statistic.replicated.max()
        assert low < statistic.observed < high
        assert statistic.distance is None or statistic.distance < 0.1


@pytest.mark.parametrize(("step", "origin"), [(0.1, 0.0), (0.25, 0.0), (1.0, 0.0), (0.37, 1.234)])
def test_the_steps_of_a_grid_are_found(step: float, origin: float) -> None:
    whole = torch.randint(-100, 100, (500,), generator=torch.Generator().manual_seed(0))

    grid = grid_of((origin + step * whole).float())

    assert grid is not None
    assert grid.step == pytest.approx(step, rel=1e-5)
    turns = (grid.origin - origin) / step
    assert turns == pytest.approx(round(turns), abs=1e-3)
    assert (grid.origin == 0) == (origin == 0)
    assert grid.places(origin + step * whole).diff().tolist() == whole.diff().tolist()


def test_numbers_of_a_density_and_few_ones_have_no_grid() -> None:
    assert grid_of(drawn(500)) is None
    assert grid_of(drawn(500).round()) is None
    assert grid_of(torch.where(CHANCE < 0.2, 0.0, SCORE)) is None


def test_the_favourite_exceeds_both_of_its_neighbours() -> None:
    x = torch.tensor([0.0] * 9 + [1, 1, 2, 2, 2, 2, 2, 3, 4])

    assert favourite(x) == (2.0, (5 - 2) / len(x))
    assert favourite(x[:9]) == (0.0, 0.0)


def test_steps_that_are_favoured_are_counted_exactly() -> None:
    places = torch.cat([torch.arange(100.0), 5 + 10 * torch.arange(10.0).repeat(10)])  # 11 each

    found = favoured(places)

    assert found is not None
    assert (found.every, found.rest, found.share) == (10, 5, (110 - 11) / (200 - 11))
    assert found.beyond == pytest.approx((99 / 189 - 0.1) / (0.1 * 0.9 / 189) ** 0.5)
    assert favoured(torch.arange(7.0)) is None


def test_a_grid_rounds_to_its_steps() -> None:
    assert Grid(0.5, 0.25).places(torch.tensor([0.25, 0.6, 1.3])).tolist() == [0, 1, 2]


def test_few_numbers_far_from_all_others_are_told() -> None:
    x = 15 + 3 * drawn(150)
    assert far_from_all(x).tolist() == []
    x[[3, 50, 90, 120]] *= 10

    assert far_from_all(x).tolist() == x[[3, 50, 90, 120]].sort().values.tolist()
    assert far_from_all(-x).tolist() == (-x[[3, 50, 90, 120]]).sort().values.tolist()
    assert far_from_all(torch.cat([x, torch.tensor([math.nan])])).numel() == 4
    assert far_from_all(x[:60]).numel() == 2
    assert far_from_all(x[:20]).numel() == 0, "one alone may be what it is"
    assert far_from_all((drawn(200) > 2).float()).numel() == 0, "two values are no range"


def seen(x: Tensor, y: Tensor) -> None:
    weight = pyro.sample("weight", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, 1.0), obs=y)


def test_the_doctor_names_numbers_in_another_unit_and_rows_entered_twice() -> None:
    x, y = drawn(150, 2, seed=1), drawn(150, seed=2)
    assert pg.doctor((seen, "AutoNormal"), (x, y)).status == "pass"
    coded = x.clone()
    coded[[3, 50, 90, 120], 1] += 100

    finding = pg.doctor((seen, "AutoNormal"), (coded, y))["stand-ins"]
    assert finding.status == "warn"
    assert finding.meaning.startswith("4 rows have from 98.39 to 100.9 in column 1")
    assert "in another unit" in finding.remedy

    both = torch.cat([x, x[:30]]), torch.cat([y, y[:30]])
    finding = pg.doctor((seen, "AutoNormal"), both)["copies"]
    assert finding.status == "warn"
    assert finding.meaning == "30 of 180 rows are copies of others, number for number."
    others = torch.cat([x, x[:30]]), torch.cat([y, y[:30] + 1e-3])
    assert pg.doctor((seen, "AutoNormal"), others)["copies"].status == "pass"
    one_far = torch.cat([x, torch.full((1, 2), 1e20)]), torch.cat([y, torch.tensor([1e20])])
    assert pg.doctor((seen, "AutoNormal"), one_far)["copies"].status == "pass"
    counts = (x > 0).float(), (y > 0).float()
    assert pg.doctor((seen, "AutoNormal"), counts)["copies"].status == "pass"
    coarse = (2 * x).round(), (2 * y).round()
    assert pg.doctor((seen, "AutoNormal"), coarse)["copies"].status == "pass"
