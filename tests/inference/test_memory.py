"""A story that knows its training rows by heart is found; one that has learned their law is not."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.inference.checks.memory import copied, memory, new
from ppl_gen.inference.checks.subject import Subject
from ppl_gen.inference.estimators.copies import CopyTest, NoveltyTest, copy_test, novelty_test


def points(count: int, seed: int, features: int = 3) -> Tensor:
    """Standard normal points."""
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


TRAIN, HELD = points(300, 0), points(300, 1)


def test_distances_to_the_training_points_are_compared_pair_by_pair() -> None:
    train = torch.zeros(1, 1)
    drawn, held = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [3.0], [-4.0]])

    test = copy_test(drawn, held, train)

    assert test.nearer == pytest.approx((3 + 1.5) / 6)
    assert_close(test.distances, torch.tensor([1.0, 3.0], dtype=torch.float64))
    assert test.nearest.tolist() == [0, 0]


def test_points_of_the_same_law_are_as_near_as_held_out_ones() -> None:
    """In 60 repetitions the p-values are no smaller than chance allows."""
    found = [
        copy_test(points(200, 3 * i), points(200, 3 * i + 1), points(200, 3 * i + 2))
        for i in range(60)
    ]
    nearer = torch.tensor([test.nearer for test in found])
    assert abs(nearer.mean().item() - 0.5) < 4 * nearer.std().item() / 60**0.5
    assert sum(test.p_value < 0.05 for test in found) <= 9
    assert sum(copied(test).status == "fail" for test in found) == 0


@pytest.mark.parametrize(("share", "status"), [(0.0, "pass"), (0.15, "warn"), (1.0, "fail")])
def test_the_share_of_copies_is_estimated(share: float, status: str) -> None:
    count = int(share * 300)
    near = TRAIN[:count] + 1e-3 * points(count, 3)
    test = copy_test(torch.cat([near, points(300 - count, 2)]), HELD, TRAIN)

    assert test.copies == pytest.approx(share, abs=0.05)
    assert (test.p_value < 1e-9) == (share == 1.0)
    assert copied(test).status == status


def test_rows_unlike_all_training_rows_are_counted() -> None:
    """A tenth of the held-out points lies elsewhere."""
    moved = HELD.clone()
    moved[:30] += 10.0

    fair, apart = novelty_test(HELD, TRAIN), novelty_test(moved, TRAIN)

    assert fair.share < 0.03
    assert new(fair).status == "pass"
    assert apart.share == pytest.approx(0.1, abs=0.03)
    assert set(apart.farthest) <= set(range(30))
    assert new(apart).status == "fail"


def test_training_points_are_measured_by_the_next_one_without_themselves() -> None:
    """They come in pairs, a tenth apart: what lies between two pairs is as far as none of them."""
    pairs = torch.arange(100.0).repeat_interleave(2) + torch.tensor([0.0, 0.1]).repeat(100)
    between, inside = torch.arange(99.0) + 0.55, torch.arange(99.0) + 0.05

    assert novelty_test(between[:, None], pairs[:, None]).share == 1.0
    assert novelty_test(inside[:, None], pairs[:, None]).share == 0.0


def test_sets_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"drawn must have shape \(points, 3\)"):
        copy_test(points(5, 0, 2), HELD, TRAIN)
    with pytest.raises(ValueError, match="held_out must be finite"):
        copy_test(HELD, HELD * torch.nan, TRAIN)
    with pytest.raises(ValueError, match="at least 3 points"):
        novelty_test(HELD, TRAIN[:2])


class Database(nn.Module):
    """A decoder that looks a training row up, and adds noise."""

    def __init__(self, rows: Tensor, noise: float) -> None:
        super().__init__()
        self.rows, self.noise = rows, noise
        self.unused = nn.Parameter(torch.zeros(()))

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Uniform(0.0, 1.0))
            row = self.rows[(z * len(self.rows)).long().clamp(max=len(self.rows) - 1)]
            pyro.sample("x", dist.Normal(row, self.noise).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Uniform(0.0 * self.unused, 1.0))


@pytest.mark.parametrize(("noise", "status"), [(0.05, "fail"), (0.5, "pass")])
def test_a_decoder_that_imitates_its_database_is_found(noise: float, status: str) -> None:
    """With as much noise as rows are apart it is a smooth of their law, and no copy."""
    options = {"epochs": 1, "learning_rate": 1e-12, "warm_start": True, "progress": False}
    run = pg.fit(Database(TRAIN, noise), TRAIN, **options)

    found, rows = memory(Subject(run, HELD, train=TRAIN))

    assert found.status == status, found
    assert rows.status == "pass", rows


def test_without_rows_of_the_fit_or_others_nothing_is_claimed() -> None:
    run = pg.fit(
        Database(TRAIN, 0.5), TRAIN, epochs=1, learning_rate=1e-12, warm_start=True, progress=False
    )
    for subject, reason in (
        (Subject(run, HELD), "not at hand"),
        (Subject(run, TRAIN, train=TRAIN), "has not seen"),
        (Subject(run, HELD[:20], train=TRAIN), "at least 30 data"),
        (Subject(run, HELD, train=TRAIN[:50]), "at least 100 rows of the fit"),
    ):
        for finding in memory(subject):
            assert finding.status == "skipped"
            assert reason in finding.meaning


def test_findings_name_what_was_copied_and_what_is_new() -> None:
    test = CopyTest(0.9, 1e-9, 0.5, 1e-9, torch.tensor([7, 8]), torch.tensor([0.2, 0.1]))
    assert copied(test).details["copied rows of the fit"] == [8.0, 7.0]
    assert new(NoveltyTest(0.2, 1e-9, [3, 4])).details["farthest rows"] == [3.0, 4.0]


def mean_of_all(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def test_of_globals_the_rows_held_out_are_told_apart_from_those_of_the_fit() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=generator)
    train, test = x[:300], x[300:]
    run = pg.fit((mean_of_all, "AutoNormal"), train, epochs=50, progress=False)
    alone = pg.check(run, train, train=train, level="full", budget=0, progress=False)
    assert "test=" in alone["memory"].meaning
    both = pg.check(run, train, train=train, test=test, level="full", budget=0, progress=False)
    assert both["memory"].status == "pass"
    assert both["longer fit"].status == "not applicable"
