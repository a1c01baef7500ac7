"""Whether a fit should have gone on is found by going on."""

import pytest
import torch
from torch import Tensor

import ppl_gen as pg
from ppl_gen.inference.checks import Subject
from ppl_gen.inference.checks.longer import longer, worth_it
from ppl_gen.models import PPCA


def linear_data(rows: int = 600) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = 2 * torch.randn(2, 4, generator=generator)
    code = torch.randn(rows, 2, generator=generator)
    return code @ weight + 0.5 * torch.randn(rows, 4, generator=generator)


def checked(**options: object) -> pg.inference.Finding:
    x = linear_data()
    train, test = x[:400], x[400:]
    run = pg.fit(PPCA((4,), 2), train, progress=False, **options)
    weights = {name: value.clone() for name, value in run.parameters().items()}
    (found,) = longer(Subject(run, test, train=train))
    assert all(torch.equal(value, weights[name]) for name, value in run.parameters().items())
    return found


def test_a_fit_that_was_stopped_early_would_have_won_by_going_on() -> None:
    found = checked(epochs=20, learning_rate=0.02)
    assert found.status == "fail"
    assert "epochs" in found.remedy


def test_a_fit_that_was_long_enough_wins_nothing() -> None:
    found = checked(epochs=150, learning_rate=0.02)
    assert found.status == "pass"
    assert abs(found.figure) < 0.05


def test_a_rate_that_was_too_high_is_told_from_a_fit_that_was_too_short() -> None:
    fast = worth_it({1.0: (0.0, 0.01), 0.1: (0.8, 0.01)}, 1.0)
    short = worth_it({1.0: (0.8, 0.01), 0.1: (0.3, 0.01)}, 1.0)
    assert (fast.status, short.status) == ("fail", "fail")
    assert "Lower the learning rate" in fast.remedy
    assert "epochs" in short.remedy


def test_what_chance_explains_is_let_pass() -> None:
    assert worth_it({1.0: (0.5, 0.3), 0.1: (0.0, 0.3)}, 1.0).status == "pass"


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ({"train": None}, "Needs the rows of the fit"),
        ({"budget": 1e-6}, "budget="),
    ],
)
def test_it_is_skipped_where_it_cannot_be_tried(subject: dict, words: str) -> None:
    x = linear_data(100)
    run = pg.fit(PPCA((4,), 2), x, epochs=2, progress=False)
    (found,) = longer(Subject(run, x, **{"train": x, **subject}))
    assert found.status == "skipped"
    assert words in found.meaning
