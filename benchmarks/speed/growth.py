"""How a fit grows: with the rows, with the epochs, and around the graph of a step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
from torch import Tensor
from torch.distributions import constraints

from benchmarks.speed.contender import Contender, Effort
from benchmarks.speed.harness import alone, interleave, shortened
from benchmarks.speed.lines import Line, figure_line, ratio_line
from benchmarks.speed.ours import Ours, graph_alone
from benchmarks.speed.stories import normal_rows

BATCH = 1000
# A step may take so much beside its graph.
OVERHEAD = 60.0


def columns_model(x: Tensor) -> None:
    """Four columns, each normal."""
    loc = pyro.param("loc", x.new_zeros(4))
    scale = pyro.param("scale", x.new_ones(4), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)


def columns_guide(x: Tensor) -> None:
    """Nothing is hidden."""


def columns(rows: int) -> tuple[Any, Tensor]:
    """A small story and simulated rows of four columns."""
    return (columns_model, columns_guide), normal_rows(rows, 4)


def with_rows(effort: Effort) -> list[Line]:
    """Lines of the seconds a row, at every size against the smallest that fills its time."""
    sizes = (10**4, 10**5, 10**6) if effort.quick else (10**4, 10**5, 10**6, 10**7)
    ours: dict[str, Contender] = {
        f"{n:,}": Ours(partial(columns, n), {"batch_size": BATCH}) for n in sizes
    }
    steps = {f"{n:,}": max(n // BATCH, 200) for n in sizes}
    rounds = interleave(ours, steps, shortened(effort, 3))
    base = f"{10**5:,}"
    lines = []
    for name in ours:
        if name == base:
            continue
        work, against = f"time of {BATCH:,} rows in a fit to {name}", f"to {base}"
        failed = rounds.failed.get(name) or rounds.failed.get(base)
        if failed:
            lines.append(Line(work, against, note=failed))
            continue
        lines.append(ratio_line(work, against, rounds.seconds[name], rounds.seconds[base]))
    return lines


def seconds_of_epochs(epochs: int) -> list[float]:
    """Seconds of each epoch of a fit to 10,000 rows."""
    import ppl_gen as pg

    story, x = columns(10**4)
    run = pg.fit(story, x, batch_size=BATCH, epochs=epochs, progress=False)
    return np.diff([epoch.seconds for epoch in run.history.epochs]).tolist()


def with_epochs(effort: Effort) -> list[Line]:
    """The line of late epochs against early ones."""
    epochs = 200 if effort.quick else 1000
    late, early = [], []
    for _ in range(1 if effort.quick else 3):
        seconds = seconds_of_part = alone(seconds_of_epochs, epochs)
        fifth = len(seconds_of_part) // 5
        # Medians, since single epochs meet whatever else the machine does.
        early.append(float(np.median(seconds[5:fifth])))
        late.append(float(np.median(seconds[-fifth:])))
    work = f"time an epoch, the last fifth of {epochs:,}"
    return [ratio_line(work, "the first fifth", late, early)]


@dataclass(frozen=True)
class Around:
    """What a step of a tiny story takes beside its graph."""

    steps: int = 100
    rounds: int = 50

    def microseconds(self) -> float | None:
        """Microseconds a step; None where there is no graph that runs alone."""
        ours = Ours(partial(columns, 100 * 64), {"batch_size": 64})
        ours.prepare()
        graph = graph_alone(ours)
        if graph is None:
            return None
        differences = []
        for _ in range(self.rounds):
            begun = time.perf_counter()
            ours.run(self.steps)
            middle = time.perf_counter()
            for _ in range(self.steps):
                graph()
            differences.append(2 * middle - begun - time.perf_counter())
        return float(np.median(differences)) / self.steps * 1e6


def around_graph(effort: Effort) -> list[Line]:
    """The line of the overhead of a step outside its graph."""
    work, against = "a step of a tiny story", "its graphs alone, subtracted"
    count = 1 if effort.quick else 3
    found = [alone(Around().microseconds) for _ in range(count)]
    if None in found:
        return [Line(work, against, bar=OVERHEAD, unit="µs", note="not measured: no graph")]
    return [figure_line(work, against, found, "µs", bar=OVERHEAD)]


def rows(effort: Effort) -> list[Line]:
    """Lines of all three."""
    return [*with_rows(effort), *with_epochs(effort), *around_graph(effort)]
