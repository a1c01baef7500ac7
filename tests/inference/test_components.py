"""Of mixtures: what is empty, what is there twice, and what EM would have found."""

import math

import pytest
import torch
from torch import Tensor

import ppl_gen as pg
from ppl_gen.inference.checks import Subject
from ppl_gen.inference.checks.components import against_em, components, in_use
from ppl_gen.models import GMM, PPCA


def blobs(rows: int = 300) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[5.0, 0.0], [-5.0, -4.0], [-4.0, 5.0]])
    return centres[torch.arange(rows) % 3] + torch.randn(rows, 2, generator=generator)


def shares(count: int = 3, rows: int = 300) -> Tensor:
    """Responsibilities of rows that each belong to one component."""
    return torch.nn.functional.one_hot(torch.arange(rows) % count, count).float()


def test_components_that_all_have_their_rows_pass() -> None:
    found = in_use(torch.ones(3) / 3, shares(), 300, 0.0)
    assert found.status == "pass"
    assert found.figure == pytest.approx(3.0)


def test_a_component_without_a_row_is_named() -> None:
    found = in_use(torch.tensor([0.5, 0.499, 0.001]), shares(2).repeat(1, 2)[:, :3], 300, 0.0)
    assert found.status == "warn"
    assert "components 2 are empty" in found.meaning


def test_one_component_twice_is_named() -> None:
    """Rows that two components share half and half are of one."""
    half = torch.cat([shares(2)[:, :1], shares(2)[:, 1:] / 2, shares(2)[:, 1:] / 2], 1)
    found = in_use(torch.tensor([0.5, 0.25, 0.25]), half, 300, 0.0)
    assert found.status == "warn"
    assert "components 1 and 2 are one component twice" in found.meaning


def test_most_of_the_components_empty_is_a_failure() -> None:
    weights = torch.tensor([1.0, *[1e-6] * 7])
    found = in_use(weights / weights.sum(), torch.eye(8)[[0] * 300], 300, 0.0)
    assert found.status == "fail"


def test_labels_that_change_places_are_told() -> None:
    found = in_use(torch.ones(3) / 3, shares(), 300, 0.3)
    assert found.status == "warn"
    assert "align_labels" in found.remedy


@pytest.mark.parametrize(
    ("climbed", "restarted", "status", "words"),
    [
        (-4.0, -4.0, "pass", ""),
        (-3.95, -4.2, "warn", "Fit for longer"),
        (-4.0, -3.5, "fail", "Begin from there"),
    ],
)
def test_what_em_wins_is_graded(climbed: float, restarted: float, status: str, words: str) -> None:
    found = against_em(-4.0, climbed, restarted, 0.001)
    assert found.figure == pytest.approx(max(climbed, restarted) + 4.0)
    assert found.status == status
    assert words in found.remedy


def test_a_fitted_mixture_agrees_with_em() -> None:
    x = blobs()
    run = pg.fit(
        GMM((2,), 3, posterior="normal"), x, epochs=200, learning_rate=0.02, progress=False
    )

    used, agreed = components(Subject(run, x))

    assert (used.status, agreed.status) == ("pass", "pass")
    assert agreed.figure < 0.01
    assert math.isfinite(used.details["switched"][0])


def test_of_other_stories_there_is_nothing_to_say() -> None:
    x = torch.randn(30, 4)
    run = pg.fit(PPCA((4,), 2), x, epochs=1, progress=False)
    assert {f.status for f in components(Subject(run, x))} == {"not applicable"}
