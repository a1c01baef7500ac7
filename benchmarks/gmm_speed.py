"""EM of mixtures of a million rows against scikit-learn's: time, and memory above the data.

python -m benchmarks.gmm_speed                            # about four minutes on two cores
"""

from __future__ import annotations

import logging
import resource
import sys
import warnings
from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.speed.contender import Contender, Effort
from benchmarks.speed.harness import alone, interleave
from benchmarks.speed.lines import Line, figure_line, ratio_line

ROWS, COMPONENTS = 1_000_000, 10
# Features, and what the ratio of the times should be at most.
TIME_BARS = {2: 0.10, 16: 0.08}
MEMORY_BAR = 0.5
ITERATIONS = 8
# Rows of the fit that brings in what is imported at first use, and rows that are scored.
FEW, SCORED = 1000, 100_000
logger = logging.getLogger("benchmarks.speed")
OURS, THEIRS = "ours", "scikit-learn's GaussianMixture"


@dataclass
class Climb(Contender):
    """So many iterations of EM from a start that is the same for all.

    Args:
        features: Size of a row.
        rows: How many there are.
    """

    features: int
    rows: int = ROWS

    def prepare(self) -> None:
        self.x = clusters(self.rows, self.features)
        few = self.x[:SCORED]
        self.loc, self.center, self.spread = self.x[:COMPONENTS], few.mean(0), few.std(0)
        self.climbed(self.x[:FEW], 2)

    def run(self, steps: int) -> None:
        self.fitted = self.climbed(self.x, steps)

    def facts(self) -> dict[str, float]:
        return {"nats a row": float(self.fitted.score_samples(self.x[:SCORED]).mean())}

    def held(self, steps: int) -> float:
        """The most bytes that a fit holds above the data and the libraries."""
        self.prepare()
        before = most_held()
        self.run(steps)
        return most_held() - before

    @abstractmethod
    def climbed(self, x: np.ndarray, steps: int) -> Any:
        """What so many iterations lead to."""


class Ours(Climb):
    """By ``ppl_gen.fit``."""

    def climbed(self, x: np.ndarray, steps: int) -> Any:
        import ppl_gen as pg
        from ppl_gen.models import GMM

        torch.manual_seed(0)
        story = GMM((self.features,), COMPONENTS, posterior="ml")
        story.center.copy_(torch.from_numpy(self.center))
        story.spread.copy_(torch.from_numpy(self.spread))
        values = {
            "weights": torch.full((COMPONENTS,), 1 / COMPONENTS).double(),
            "loc": (torch.from_numpy(self.loc) - story.center) / story.spread,
            "scale": torch.ones(COMPONENTS, self.features).double(),
            "correlation": torch.eye(self.features).double().repeat(COMPONENTS, 1, 1),
        }
        story.globals.move(values)
        run = pg.fit(
            story, torch.from_numpy(x), method="em", restarts=1, warm_start=True,
            epochs=steps, tolerance=0.0, progress=False,
        )  # fmt: skip
        return run.story


class ScikitLearn(Climb):
    """By scikit-learn."""

    needs = ("sklearn",)

    def climbed(self, x: np.ndarray, steps: int) -> Any:
        from sklearn.mixture import GaussianMixture

        options: Any = {"reg_covar": 0.0, "tol": 0.0, "max_iter": steps, "n_init": 1}
        found = GaussianMixture(
            COMPONENTS,
            weights_init=np.full(COMPONENTS, 1 / COMPONENTS),
            means_init=self.loc,
            precisions_init=np.stack([np.diag(1 / self.spread**2)] * COMPONENTS),
            **options,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a climb that is not at its end
            return found.fit(x)


def clusters(rows: int, features: int) -> np.ndarray:
    """Rows of clusters with covariances of their own, made without a large temporary."""
    random = np.random.default_rng(0)
    loc = 1.5 * random.standard_normal((COMPONENTS, features))
    root = 0.4 * random.standard_normal((COMPONENTS, features, features)) / features**0.5
    x = np.empty((rows, features))
    for start in range(0, rows, 10_000):
        part = x[start : start + 10_000]
        label = random.integers(COMPONENTS, size=len(part))
        noise = random.standard_normal(part.shape)
        for k in range(COMPONENTS):
            mine = label == k
            part[mine] = loc[k] + noise[mine] @ (root[k] + np.eye(features))
    return x


def most_held() -> float:
    """The most bytes that this process has had in memory so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def compare(effort: Effort | None = None, rows: int = ROWS) -> list[dict[str, Any]]:
    """Ratios of time, median and quartiles of interleaved rounds, and of memory.

    Args:
        effort: How many rounds; three by default.
        rows: How many rows.

    Returns:
        Of each figure ``work``, ``against``, ``ratio``, ``low``, ``high``, ``bar`` and more.

    Raises:
        RuntimeError: If the two do not reach the same likelihood.
    """
    effort = effort or Effort(rounds=3)
    lines: list[Line] = []
    for features, bar in TIME_BARS.items():
        work = f"{rows:,} rows of {features}, {COMPONENTS} full covariances, {ITERATIONS} steps"
        contenders = {OURS: Ours(features, rows), THEIRS: ScikitLearn(features, rows)}
        done = interleave(contenders, dict.fromkeys(contenders, ITERATIONS), effort)
        if done.failed:
            lines.append(Line(work, THEIRS, bar=bar, note="; ".join(done.failed.values())))
            continue
        check_same_climb([done.facts[name]["nats a row"] for name in contenders])
        lines.append(ratio_line(work, THEIRS, done.seconds[OURS], done.seconds[THEIRS], bar=bar))
        logger.info("%s: %s", work, lines[-1].told)
        held = [alone(contender.held, 1) for contender in contenders.values()]
        shown = {"ours": f"{held[0] / 2**20:.0f} MiB", "theirs": f"{held[1] / 2**20:.0f} MiB"}
        of_memory = figure_line(
            f"{work}: memory above the data", THEIRS, [held[0] / held[1]], "", bar=MEMORY_BAR
        )
        lines.append(Line(**{**asdict(of_memory), **shown}))
    return [asdict(line) for line in lines]


def check_same_climb(reached: list[float]) -> None:
    """Hold the likelihoods against each other, in nats a row."""
    if abs(reached[0] - reached[1]) > 1e-8 * abs(reached[1]):
        raise RuntimeError(
            f"both must reach the same likelihood, got {reached[0]:.10f} and {reached[1]:.10f}"
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for row in compare():
        print(
            f"{row['work']}: {row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f}) of "
            f"{row['against']}, {row['ours']} to {row['theirs']}; asked: at most {row['bar']}",
            flush=True,
        )
