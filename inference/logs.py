"""A fit's epochs told to loggers with Lightning Fabric's interface: TensorBoard, MLflow, others."""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from ppl_gen.errors import FitError
from ppl_gen.inference.history import Epoch
from ppl_gen.inference.seeds import seeded

FOLDER = "logs"


class Logger(Protocol):
    """What is asked of a logger: of Lightning Fabric's ``Logger``, three methods.

    Reference:
        https://lightning.ai/docs/fabric/stable/guide/logging.html
    """

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Take note of what is fitted and how, once."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take note of the figures of an epoch, which ended with this step."""

    def finalize(self, status: str) -> None:
        """Take note of the end: success, failed or interrupted."""


class MLflowLogger:
    """Tells MLflow's store: ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the present directory.

    Args:
        experiment: Its name; made if there is none.
        name: Of the run.
        note: A file that remembers which run it was, for a fit that is resumed.
    """

    def __init__(
        self, experiment: str = "ppl-gen", name: str = "", note: Path | None = None
    ) -> None:
        from mlflow.tracking import MlflowClient

        for known in ("mlflow", "alembic"):  # tell of every table they make
            logging.getLogger(known).setLevel(logging.WARNING)
        self.client = MlflowClient()
        found = self.client.get_experiment_by_name(experiment)
        self.experiment = (
            found.experiment_id if found else self.client.create_experiment(experiment)
        )
        self.name, self.note = name, note

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Begin a run, or go on with the one that was begun."""
        if self.note is not None and self.note.exists():
            self.run = json.loads(self.note.read_text())["run"]
            self.client.update_run(self.run, "RUNNING")
            return
        self.run = self.client.create_run(self.experiment, run_name=self.name or None).info.run_id
        if self.note is not None:
            self.note.parent.mkdir(parents=True, exist_ok=True)
            self.note.write_text(json.dumps({"run": self.run}))
        from mlflow.entities import Param

        told = [Param(name, str(value)[:500]) for name, value in params.items()]
        self.client.log_batch(self.run, params=told)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Figures of an epoch, all at once."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        told = [Metric(name, value, now, step or 0) for name, value in metrics.items()]
        self.client.log_batch(self.run, metrics=told)

    def finalize(self, status: str) -> None:
        """End the run, in MLflow's words."""
        ends = {"success": "FINISHED", "interrupted": "KILLED"}
        self.client.set_terminated(self.run, ends.get(status, "FAILED"))


def _tensorboard(out: Path | None, steps: int) -> Logger:
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    # What was told after the checkpoint that a fit goes on from is told again.
    again: dict[str, Any] = {"purge_step": steps + 1} if steps else {}
    place = (out or Path()) / FOLDER
    return TensorBoardLogger(place, "tensorboard", "", default_hp_metric=False, **again)


def _mlflow(out: Path | None, steps: int) -> Logger:
    if out is None:
        return MLflowLogger()
    note = out / FOLDER / "mlflow.json"
    if not steps:
        note.unlink(missing_ok=True)
    return MLflowLogger(name=out.name, note=note)


NAMED: dict[str, Callable[[Path | None, int], Logger]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
}


class Logs:
    """Several loggers as one. One that fails is told of once, and no more of the fit.

    Args:
        loggers: Their names, or what they are themselves.
        out: The directory of the run, if it has one.
        steps: How many steps the fit has behind it, where it goes on.

    Raises:
        FitError: If a name is unknown, or its library is not installed.
    """

    def __init__(self, loggers: Iterable[Logger | str], out: Path | None, steps: int = 0) -> None:
        self.loggers = [
            _named(logger, out, steps) if isinstance(logger, str) else logger for logger in loggers
        ]

    def __call__(self, epoch: Epoch) -> None:
        """Tell the figures of an epoch, those that it has."""
        figures = {k: float(v) for k, v in asdict(epoch).items() if math.isfinite(v)}
        step = int(figures.pop("steps"))
        self._each(lambda logger: logger.log_metrics(figures, step))

    @contextmanager
    def of(self, told: Mapping[str, Any]) -> Iterator[None]:
        """Tell what is fitted and how, and in the end how it ended.

        Args:
            told: Plain values, nested.
        """
        settings = dict(_flat(told))
        self._each(lambda logger: logger.log_hyperparams(settings))
        status = "failed"
        try:
            yield
            status = "success"
        except (KeyboardInterrupt, SystemExit):
            status = "interrupted"
            raise
        finally:
            self._each(lambda logger: logger.finalize(status))

    def _each(self, tell: Callable[[Logger], None]) -> None:
        for logger in list(self.loggers):
            try:
                with seeded(0):
                    tell(logger)
            except Exception as error:  # the fit is worth more than what is told of it
                self.loggers.remove(logger)
                warnings.warn(
                    f"{type(logger).__name__} is told no more of the fit, which goes on: "
                    f"{' '.join(str(error).split()) or type(error).__name__}",
                    stacklevel=2,
                )


def _named(name: str, out: Path | None, steps: int) -> Logger:
    if name not in NAMED:
        raise FitError(
            f"loggers must be {' or '.join(NAMED)}, or have the methods of Lightning Fabric's "
            f"Logger, got {name!r}"
        )
    try:
        with seeded(0):
            return NAMED[name](out, steps)
    except ImportError as error:
        raise FitError(f"{name} is not installed: pip install 'ppl-gen[{name}]'") from error


def _flat(told: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by names with dots; without what was left to its default."""
    for name, value in told.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None:
            plain = isinstance(value, bool | int | float | str)
            yield f"{before}{name}", value if plain else str(value)
