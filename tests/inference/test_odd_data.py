"""Odd data and odd settings end in a result, or in a sentence of our own; `benchmarks/odd.py`."""

from pathlib import Path
from typing import Any

import pytest
import torch

import ppl_gen as pg
from ppl_gen.models import CVAE, GMM, PPCA, VAE

hypothesis = pytest.importorskip("hypothesis")

from benchmarks.odd import cases, tried  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_case_ends_in_a_result_or_in_an_error_of_ours(tmp_path: Path) -> None:
    @hypothesis.settings(
        max_examples=60,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate,),
    )
    @hypothesis.given(cases())
    def every(case: dict[str, Any]) -> None:
        ends.append(tried(case, tmp_path))

    ends: list[str] = []
    every()
    assert ends.count("done") >= 5
    assert len(set(ends)) >= 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named_with_their_rows(value: float) -> None:
    x = torch.randn(8, 5)
    x[[3, 6], 2] = value
    labels = torch.arange(8) % 3
    for story, data in (
        (VAE((5,), 2), x),
        (PPCA((5,), 2), x),
        (CVAE((5,), "label(classes=3)", latent=2, hidden=(4,)), (x, labels)),
    ):
        with pytest.raises(pg.DataError, match=r"must be finite for this story.* rows 3, 6: leave"):
            pg.fit(story, data, epochs=1, progress=False)


def test_covariances_that_no_memory_holds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"100,000 features.*would take 80 GB a component"):
        GMM((100_000,), 2)
    GMM((100_000,), 2, covariance="diagonal")
