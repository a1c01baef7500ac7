"""What checkpoints cost: the same fit with and without them, taken in turns.

    python benchmarks/checkpoints.py

A VAE of MNIST's size on random images. Wanted: at most 3 % of the time at the default interval, a
minute. So that a fit of half a minute shows it, a checkpoint is written every two seconds here; the
figure at the default interval follows from the seconds that one takes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

import ppl_gen as pg
from ppl_gen.inference import checkpoint
from ppl_gen.models import VAE

ROUNDS, EVERY = 5, 2.0


def main() -> None:
    """Fit in turns, and print the ratio."""
    x = (torch.rand(20_000, 784) < 0.3).float()
    story = VAE((784,), 50, likelihood="bernoulli", hidden=(400, 400))
    write, took = checkpoint.write, list[float]()

    def timed(*arguments: object) -> Path:
        begun = time.perf_counter()
        path = write(*arguments)  # type: ignore[arg-type]
        took.append(time.perf_counter() - begun)
        return path

    checkpoint.write = timed  # type: ignore[assignment]
    checkpoint.SHARE = 1.0  # else the interval would grow with what a write takes
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            seconds = []
            for out in (None, Path(folder, str(number))):
                begun = time.perf_counter()
                options = {} if out is None else {"out": out, "checkpoint_seconds": EVERY}
                pg.fit(story, x, epochs=4, batch_size=128, progress=False, **options)
                seconds.append(time.perf_counter() - begun)
            ratios.append(seconds[1] / seconds[0])
    one = statistics.median(took)
    weights = sum(p.numel() for p in story.parameters())
    print(
        f"{weights:,} parameters: a checkpoint takes {one:.3f} s; one every {EVERY:g} s makes a "
        f"fit {statistics.median(ratios):.3f} times as long (median of {ROUNDS} rounds, "
        f"{min(ratios):.3f} to {max(ratios):.3f}); one a minute takes {one / 60:.2%} of the time"
    )


if __name__ == "__main__":
    main()
