"""Mixtures of normals by EM: a maximum that is known, and numbers of components that are found."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.models import GMM

QUIET = {"method": "em", "progress": False}


def test_three_normals_on_iris_reach_the_likelihood_that_is_known() -> None:
    """That of scikit-learn's GaussianMixture, best of 10 starts: -180.185 nats in all."""
    from sklearn.datasets import load_iris

    x = load_iris().data

    run = pg.fit(GMM((4,), components=3), x, **QUIET)

    assert run.history[-1].elbo * 150 == pytest.approx(-180.185, abs=0.01)
    assert run.story.score_samples(x).sum().item() == pytest.approx(-180.185, abs=0.01)


def blobs(centres: int, rows: int = 100) -> Tensor:
    """Round clusters in the plane, six deviations from each other, equal in rows."""
    generator = torch.Generator().manual_seed(0)
    means = 6 * torch.tensor([[k % 2, k // 2] for k in range(centres)]).float()
    return (means + torch.randn(rows, centres, 2, generator=generator)).flatten(0, 1)


@pytest.mark.parametrize("centres", [1, 2, 4])
def test_a_mixture_of_normals_finds_how_many_clusters_there_are(
    centres: int, tmp_path: Path
) -> None:
    x = blobs(centres)
    run = pg.fit(GMM((2,), "auto", most=6), x, out=tmp_path / "run", **QUIET)

    assert run.story.components == centres
    assert run.configuration()["arguments"]["components"] == centres
    loaded = pg.load(tmp_path / "run")
    assert_close(loaded.story.score_samples(x), run.story.score_samples(x))


def test_a_posterior_is_found_from_the_number_that_em_settled() -> None:
    x = blobs(2)
    options = {"epochs": 2, "learning_rate": 1e-9, "progress": False}

    run = pg.fit(GMM((2,), "auto", most=4, posterior="normal"), x, **options)

    assert run.story.components == 2
    means = run.story.means
    assert_close(
        means[means[:, 0].argsort()].float(), x.reshape(-1, 2, 2).mean(0), rtol=0, atol=0.2
    )
    tree = run.posterior(x[:5], draws=10)
    assert tree["posterior"]["loc"].shape[-2:] == (2, 2)
