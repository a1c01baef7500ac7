"""A fit of ten hours, made short: memory and open files must stay as they are.

    python -m benchmarks.hours [--steps 1200000]

Ten hours of steps of 30 ms are 1.2 million; those of a tiny story take a few minutes. Checkpoints
are written every second, and a logger is told of every epoch. Resident memory and open files are
looked at after every epoch. Wanted: over the last nine tenths, memory flat within 1 %, and as many
files open at the end as at the beginning.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import ppl_gen as pg
from ppl_gen.inference.history import Epoch
from ppl_gen.models import PPCA

ROWS, BATCH = 25_600, 128


class Nothing:
    """A logger that is told and forgets."""

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Forget it."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Forget it."""

    def finalize(self, status: str) -> None:
        """Forget it."""


def resident() -> float:
    """Megabytes of memory that the process has at hand."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    """Fit, look, and say."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1_200_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    x = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(0))
    memory: list[float] = []
    files: list[int] = []

    def look(epoch: Epoch) -> None:
        memory.append(resident())
        files.append(len(os.listdir("/proc/self/fd")))

    with tempfile.TemporaryDirectory() as folder:
        run = pg.fit(
            PPCA((4,), 2),
            x,
            epochs=options.steps // (ROWS // BATCH),
            batch_size=BATCH,
            out=Path(folder) / "run",
            checkpoint_seconds=1.0,
            callback=look,
            loggers=Nothing(),
            progress=False,
        )
    tenth = max(1, len(memory) // 10)
    parts = [statistics.median(memory[i : i + tenth]) for i in range(0, len(memory), tenth)]
    growth = parts[-1] / parts[1] - 1
    opened = statistics.median(files[tenth : 2 * tenth]), statistics.median(files[-tenth:])
    print(f"{run.history[-1].steps:,} steps in {run.history[-1].seconds:.0f} s")
    print(f"memory by tenths, MB: {', '.join(f'{part:.1f}' for part in parts)}: {growth:+.2%}")
    print(f"open files: {opened[0]:.0f} in the second tenth, {opened[1]:.0f} in the last")
    return int(growth > 0.01 or opened[1] > opened[0])


if __name__ == "__main__":
    sys.exit(main())
