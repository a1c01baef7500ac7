"""Loggers are told what is fitted, every epoch and the end; a callback ends a fit."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ppl_gen as pg
from ppl_gen.inference.history import Epoch
from ppl_gen.models import PPCA

OPTIONS: dict[str, Any] = {"epochs": 6, "batch_size": 50, "progress": False, "seed": 3}


def rows() -> Tensor:
    return torch.randn(100, 4, generator=torch.Generator().manual_seed(0))


class Notes:
    """What a logger of Lightning Fabric's interface is told."""

    def __init__(self, breaks_at: int = 10**9) -> None:
        self.settings: dict[str, Any] = {}
        self.told: list[tuple[int | None, dict[str, float]]] = []
        self.ended: list[str] = []
        self.breaks_at = breaks_at

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.settings = params

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        torch.rand(3)  # what a logger draws is no business of the fit
        if len(self.told) >= self.breaks_at:
            raise ConnectionError("the server is gone")
        self.told.append((step, metrics))

    def finalize(self, status: str) -> None:
        self.ended.append(status)


def test_a_logger_is_told_settings_every_epoch_and_the_end() -> None:
    notes = Notes()
    run = pg.fit(PPCA((4,), 2), rows(), loggers=notes, **OPTIONS)
    alone = pg.fit(PPCA((4,), 2), rows(), **OPTIONS)

    assert notes.settings["story.arguments.latent"] == 2
    assert notes.settings["settings.learning_rate"] == 3e-3
    assert notes.settings["settings.epochs"] == 6
    assert [step for step, _ in notes.told] == [2, 4, 6, 8, 10, 12]
    assert [figures["elbo"] for _, figures in notes.told] == run.history["elbo"]
    assert all(math.isfinite(v) for _, figures in notes.told for v in figures.values())
    assert notes.ended == ["success"]
    assert run.history["elbo"] == alone.history["elbo"]


def test_a_logger_that_breaks_costs_its_log_and_not_the_fit() -> None:
    broken, whole = Notes(breaks_at=2), Notes()
    with pytest.warns(UserWarning, match="Notes is told no more of the fit.*the server is gone"):
        run = pg.fit(PPCA((4,), 2), rows(), loggers=[broken, whole], **OPTIONS)
    assert len(run.history) == len(whole.told) == 6
    assert broken.ended == []


def test_a_callback_sees_every_epoch_and_may_end_the_fit() -> None:
    seen: list[Epoch] = []

    def enough(epoch: Epoch) -> bool:
        seen.append(epoch)
        return epoch.epoch == 3

    run = pg.fit(PPCA((4,), 2), rows(), callback=enough, **OPTIONS)
    assert seen == list(run.history)
    assert len(seen) == 3
    with pytest.raises(ZeroDivisionError):  # what it raises is its own
        pg.fit(PPCA((4,), 2), rows(), callback=lambda epoch: 1 / 0, **OPTIONS)


def test_tensorboard_has_every_epoch_once_although_the_fit_was_interrupted(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("lightning_fabric")

    def interrupt(epoch: Epoch) -> None:
        if epoch.epoch == 4:
            raise KeyboardInterrupt

    options = {**OPTIONS, "loggers": "tensorboard", "checkpoint_epochs": 2}
    with pytest.raises(KeyboardInterrupt):
        pg.fit(PPCA((4,), 2), rows(), out=tmp_path / "a", callback=interrupt, **options)
    run = pg.fit(
        PPCA((4,), 2), rows(), resume=tmp_path / "a", loggers="tensorboard", progress=False
    )

    events = accumulator.EventAccumulator(str(tmp_path / "a" / "logs" / "tensorboard"))
    events.Reload()
    told = events.Scalars("elbo")
    assert [event.step for event in told] == [2, 4, 6, 8, 10, 12]
    assert [event.value for event in told] == pytest.approx(run.history["elbo"], rel=1e-6)
    assert pg.load(tmp_path / "a").history["elbo"] == run.history["elbo"]


def test_mlflow_has_settings_and_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that MLflow is made of
        run = pg.fit(PPCA((4,), 2), rows(), out=tmp_path / "a", loggers="mlflow", **OPTIONS)
        client = tracking.MlflowClient(uri)
        (found,) = client.search_runs([client.get_experiment_by_name("ppl-gen").experiment_id])
        told = client.get_metric_history(found.info.run_id, "elbo")
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "a"
    assert found.data.params["settings.seed"] == "3"
    assert sorted((m.step, m.value) for m in told) == [
        (2 * (i + 1), pytest.approx(value)) for i, value in enumerate(run.history["elbo"])
    ]


def test_an_unknown_logger_is_named() -> None:
    with pytest.raises(pg.FitError, match="loggers must be tensorboard or mlflow, or have"):
        pg.fit(PPCA((4,), 2), rows(), loggers="wandb", **OPTIONS)
