"""What rows leave may jump along a number, or go with what was given rows before."""

import math

import pytest
import torch
from test_effects import HOURS, LEVEL, NOISE, SCHOOL, drawn, replicated
from torch import Tensor
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.inference.checks.advice import Advice
from ppl_gen.inference.checks.doctor import summary
from ppl_gen.inference.checks.look import AGAINST, MEANT
from ppl_gen.inference.checks.ordered import (
    LAGS,
    OfOne,
    _above,
    along,
    later,
    new_before,
    row_before,
    taken,
)
from ppl_gen.inference.checks.predictive import posterior_predictive
from ppl_gen.inference.checks.subject import Subject
from ppl_gen.inference.estimators.splits import splits_along
from ppl_gen.inference.looks.sentences import fault
from ppl_gen.models import GMM

WELL = LEVEL[SCHOOL] + 0.5 * HOURS + NOISE
PLACE = torch.arange(400)


def level(of: Tensor) -> Tensor:
    """Less its mean."""
    return of - of.mean()


@pytest.mark.parametrize(
    ("score", "named", "remedy"),
    [
        (
            WELL + 1.5 * level((HOURS > 0.4).float()),
            "step of score along hours (from hours 0.36 on: the data 1.4 higher",
            "Let score have another level from hours 0.36 on",
        ),
        (
            WELL - 1.5 * level((PLACE >= 250).float()),
            "step of score in the order of the data (from row 2",
            "If rows have an order, as time gives them, let score have another level from row 2",
        ),
        (
            WELL + 0.7 * HOURS.roll(4),
            "mean of score by what was given some rows before (hours of 4 rows before",
            "Let score depend on hours of 4 rows before, too.",
        ),
    ],
)
def test_steps_and_what_acts_later_are_named(score: Tensor, named: str, remedy: str) -> None:
    finding = replicated(score)

    assert finding.status in ("warn", "fail")
    assert named in finding.meaning
    assert finding.remedy.startswith(remedy)
    assert any(name.startswith(AGAINST) for name in finding.details)


def test_a_step_is_drawn_with_the_rows_beyond_it_marked() -> None:
    finding = replicated(WELL + 1.5 * level((HOURS > 0.4).float()))

    (meant,) = (name for name in finding.details if name.startswith(MEANT))
    assert meant.startswith(f"{MEANT}from hours 0.36 on")
    hours = torch.tensor(finding.details[f"{AGAINST}hours"])
    assert torch.equal(torch.tensor(finding.details[meant]) > 0, hours > 0.3595)


def test_a_step_in_the_order_of_the_rows_never_fails_alone() -> None:
    """Rows may have been sorted."""
    finding = replicated(WELL + 0.8 * level((PLACE >= 200).float()))

    name = next(name for name in finding.details if name.startswith("step of score in the order"))
    limits = finding.details[f"chance and limits of {name}"][2:]
    assert limits == [0.15, math.inf]


@pytest.mark.parametrize("curve", [HOURS, HOURS**2 / 2, HOURS.abs()])
def test_what_changes_bit_by_bit_is_no_step(curve: Tensor) -> None:
    finding = replicated(WELL + level(curve))

    assert "mean of score along hours" in finding.meaning
    assert "step" not in finding.meaning


def test_rows_of_one_patient_that_are_alike_are_told() -> None:
    patient = torch.arange(400.0).div(4, rounding_mode="floor")
    x = drawn(400, seed=3) + drawn(100, seed=4)[patient.long()]
    (look,) = (look for look in along("along patient", patient) if isinstance(look, OfOne))

    made = look.of(drawn(50, 400, 1, seed=5).double())
    (found,) = look.compared("pain", look.of(x[None, :, None].double()), made)

    assert found.name == "correlation of rows of pain of one patient"
    assert found.observed == pytest.approx(0.5, abs=0.1)
    assert float(made.abs().max()) < 0.2
    assert found.mend.startswith("Let each patient have a level of pain of its own")
    assert not any(isinstance(look, OfOne) for look in along("along hours", HOURS))


def test_what_follows_the_data_is_not_laid_to_them() -> None:
    assert _above(-0.3, torch.tensor([0.1, 0.3])) == pytest.approx(0.2)
    assert _above(0.4, torch.tensor([0.1, 0.3])) == 0.4
    assert _above(-0.3, torch.tensor([0.0, 0.01])) == -0.3


def test_steps_and_curves_explain_what_least_squares_do() -> None:
    x, values = drawn(3, 120, 2, seed=1).double(), drawn(120, seed=2)
    values[:7] = math.nan
    splits = splits_along(values)
    assert splits is not None
    known = ~values.isnan()
    assert len(splits.order) == 113
    assert int(splits.below.min()) >= 10
    assert int(splits.below.max()) <= 103

    steps, curve = splits.steps(x), splits.curve(x)

    for at in (0, 17, len(splits.values) - 1):
        above = (values >= splits.values[at])[known].double()
        for s in range(3):
            for e in range(2):
                both = torch.stack([above, x[s, known, e]])
                assert_close(steps[s, at, e], torch.corrcoef(both)[0, 1])
    parts = torch.cat([i * torch.ones(n) for i, n in enumerate((23, 22, 23, 22, 23))])
    means = (parts[:, None] == torch.arange(5)).double()
    for s in range(3):
        ordered = x[s, values.argsort()[:113]]
        ordered = ordered - ordered.mean(0)
        fitted = means @ torch.linalg.lstsq(means, ordered).solution
        assert_close(curve[s], fitted.norm(dim=0) / ordered.norm(dim=0))


def test_rows_before_are_those_of_their_numbers() -> None:
    order = torch.tensor([4, 0, 1, 7, 2])

    assert row_before(order, 1).tolist() == [-1, -1, 1, -1, 2]
    assert row_before(order, 2).tolist() == [4, -1, -1, -1, 1]
    assert row_before(order, 3).tolist() == [2, -1, -1, 0, -1]
    found = taken(torch.tensor([40.0, 0, 10, 70, 20]), row_before(order, 2)).tolist()
    assert found == pytest.approx([20.0, math.nan, math.nan, math.nan, 0.0], nan_ok=True)


def test_what_was_given_before_counts_for_what_was_not_known_since() -> None:
    day, order = torch.arange(200.0).double(), torch.arange(200)
    assert new_before(day, taken(day, row_before(order, 1))) is None
    x = drawn(200).double()
    before, since = (taken(x, row_before(order, lag)) for lag in (3, 1))

    new = new_before(x, before, [since])

    assert new is not None
    known = ~before.isnan()
    assert_close(new.norm(), torch.ones((), dtype=torch.float64))
    assert_close(new[~known], torch.zeros(3, dtype=torch.float64))
    for other in (x, since, torch.ones_like(x)):
        assert abs(float(new[known] @ other[known])) < 1e-9


def test_groups_of_rows_before_are_looked_at_one_by_one() -> None:
    group = torch.randint(0, 3, (200,), generator=torch.Generator().manual_seed(0)).float()

    (look,) = later({"shop": group}, torch.arange(200))

    assert look.of(drawn(2, 200, 1).double()).shape == (2, 3 * len(LAGS), 1)
    assert later({"shop": torch.ones(200)}, torch.arange(200)) == []
    assert later({"shop": group[:40]}, torch.arange(40)) == []


def test_the_picture_of_a_rhythm_turns_as_often_as_is_said() -> None:
    """Every 12.5 rows, of which 25 would be two turns."""
    finding = replicated(WELL + 1.2 * (2 * math.pi * PLACE / 12.5).sin())

    assert "every 12.5 of the rows" in finding.meaning
    assert f"{AGAINST}the order of the data modulo 12.5" in finding.details


def test_components_of_one_shape_are_told_that_they_may_have_their_own() -> None:
    labels = torch.randint(0, 2, (300,), generator=torch.Generator().manual_seed(6))
    x = drawn(300, 2) * torch.tensor([[3.0, 0.3], [0.3, 3.0]])[labels] + 8.0 * labels[:, None]
    tied = pg.fit(GMM((2,), 2, covariance="tied"), x, method="em", progress=False)
    full = pg.fit(GMM((2,), 2), x, method="em", progress=False)

    assert "covariance='full'" in posterior_predictive(Subject(tied, x, draws=100)).remedy
    assert posterior_predictive(Subject(full, x, draws=100)).status == "pass"
    assert Advice.of(full).covariance == ""


def test_an_unused_weight_is_no_fault_that_a_verdict_begins_with() -> None:
    found = fault("gradients", 1, "parameters", "One.", "", status="warn")
    assert not summary((found,)).of_story
    assert summary((found, fault("weights", 1, "sites", "Two.", "", status="warn"))).of_story
