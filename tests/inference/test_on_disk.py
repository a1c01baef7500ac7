"""A fit of rows on disk is the fit of the same rows in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import ppl_gen as pg
from ppl_gen.models import GMM, PPCA, VAE

SHARED = np.random.default_rng(0).normal(size=(400, 2)) @ np.array(
    [[2.0, 0.0, 1.0, -1.0], [0.0, 1.0, 1.0, 1.0]]
)
X = (SHARED + 0.3 * np.random.default_rng(1).normal(size=(400, 4))).astype(np.float32)


def both(folder: Path) -> tuple[pg.data.Dataset, pg.data.Dataset]:
    """The rows in a file, and the same in memory."""
    np.save(folder / "x.npy", X)
    here, there = (pg.data.load(folder / "x.npy", in_memory=m) for m in (True, False))
    return here, there


@pytest.mark.parametrize("compile", ["eager", "graph"])
def test_weights_are_the_same_to_the_last_bit(tmp_path: Path, compile: Any) -> None:
    options = {"epochs": 8, "batch_size": 32, "progress": False, "compile": compile}
    here, there = (
        pg.fit(VAE((4,), latent=2, hidden=(8,)), data, **options) for data in both(tmp_path)
    )

    assert here.history["valid_elbo"] == there.history["valid_elbo"]
    for name, value in here.parameters().items():
        assert torch.equal(value, there.parameters()[name]), name
    # What rows are is told by some of them, and so otherwise.
    assert here.data.fingerprint != there.data.fingerprint


def test_a_saved_run_finds_its_rows_again(tmp_path: Path) -> None:
    _, data = both(tmp_path)
    run = pg.fit(PPCA((4,), 2), data, epochs=2, progress=False)
    run.save(tmp_path / "run")

    loaded = pg.load(tmp_path / "run")

    assert pg.data.load(**loaded.data.source).on_disk
    verdict = pg.check(loaded, draws=100, progress=False)
    assert verdict.data == 60
    assert verdict.status in ("pass", "warn", "fail")


def test_em_goes_over_all_rows_some_at_a_time(tmp_path: Path) -> None:
    here, there = (
        pg.fit(GMM((4,), 2), data, method="em", restarts=1, progress=False)
        for data in both(tmp_path)
    )
    torch.testing.assert_close(here.story.means, there.story.means)
    here, there = (
        pg.fit(GMM((4,), 2), data, method="em", restarts=1, batch_size=64, progress=False)
        for data in both(tmp_path)
    )
    torch.testing.assert_close(here.story.means, there.story.means)


def mean_model(x: Tensor) -> None:
    """One mean for all; no plate has the size of the batch, so that all rows are needed."""
    loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
    pyro.sample("x", dist.Normal(loc, 1.0).expand([400, 4]).to_event(2), obs=x)


def test_a_story_that_needs_all_rows_is_given_them(tmp_path: Path) -> None:
    here, there = (
        pg.fit((mean_model, "AutoNormal"), pg.data.concat(*d.parts), epochs=5, progress=False)
        for d in both(tmp_path)
    )
    assert here.history["elbo"] == there.history["elbo"]


def test_passes_read_some_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = both(tmp_path)
    run = pg.fit(PPCA((4,), 2), here, epochs=3, progress=False)
    wanted = run.posterior(here.train, draws=5, seed=2)
    evidence = run.evidence(here.train, 50)
    codes = run.encode(here.train)["z"]
    monkeypatch.setattr("ppl_gen.inference.passes.READ", 100)
    monkeypatch.setattr("ppl_gen.inference.arviz.OBSERVED", 100)
    monkeypatch.setattr(pg.data.Part, "in_memory", lambda part: pytest.fail("reads all rows"))

    tree = run.posterior(there.train, draws=5, seed=2, out=tmp_path / "p.zarr")

    assert (tree["posterior"]["z"].values == wanted["posterior"]["z"].values).all()
    assert (tree["observed_data"]["x"].values == wanted["observed_data"]["x"].values).all()
    assert torch.equal(run.evidence(there.train, 50).nats, evidence.nats)
    torch.testing.assert_close(run.encode(there.train)["z"], codes)


def test_a_loader_is_fitted_in_the_size_that_it_has() -> None:
    """The bound is that of the same rows in memory: the plate is weighed by their number."""
    x = torch.from_numpy(X)
    here, there = (
        pg.fit(PPCA((4,), 2), data, epochs=3, batch_size=50, progress=False)
        for data in (x, DataLoader(TensorDataset(x), batch_size=9, num_workers=1))
    )
    assert here.history["elbo"] == there.history["elbo"]
    assert there.data.rows == 400


def test_a_report_of_rows_on_disk_shows_them(tmp_path: Path) -> None:
    _, data = both(tmp_path)
    run = pg.fit(PPCA((4,), 2), data, epochs=2, progress=False)

    pg.write_report(run, tmp_path / "r.html", data)

    assert "test part" in (tmp_path / "r.html").read_text()


def test_the_doctor_looks_at_some_rows(tmp_path: Path) -> None:
    _, data = both(tmp_path)

    verdict = pg.doctor(PPCA((4,), 2), data)

    assert verdict.status != "fail"
