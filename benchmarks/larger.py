"""Data that are larger than memory: what memory a fit of them takes, and at which rate it goes.

    python benchmarks/larger.py [--gigabytes 20] [--rounds 3]

Memory: a VAE is fitted for one epoch to a file of zeros with holes, which takes no place on a disk,
as a process of its own, and checkpoints are written. Wanted: less than 2 GB resident at its peak.
Rate: the same rows from memory and from a file whose pages are warm, in turns; wanted: at least 0.8
of the rate. As Parquet too, in row groups of 10,000 rows.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WIDTH, BATCH = 784, 128
ROWS = 60_000  # of those whose rate is measured


def sparse(path: Path, gigabytes: float) -> int:
    """Write a file of zeros with holes; how many rows it has."""
    rows = int(gigabytes * 1e9 / (4 * WIDTH))
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * WIDTH * rows)
    return rows


def fitted(path: Path, in_memory: bool | None, epochs: int = 1, batch: int = BATCH) -> float:
    """Fit a VAE to a file, and give the steps a second of the epochs after the first."""
    import ppl_gen as pg
    from ppl_gen.models import VAE

    data = pg.data.load(path, in_memory=in_memory, support="unit interval")
    story = VAE(data.shape, 20, likelihood="bernoulli(grey=True)", hidden=(200, 200))
    out = path.parent / f"run-{time.time_ns()}"
    run = pg.fit(
        story, data.train, epochs=epochs, batch_size=batch, progress=False, out=out, seed=1
    )
    seconds, steps = run.history["seconds"], run.history["steps"]
    if epochs == 1:
        return steps[0] / seconds[0]
    return (steps[-1] - steps[0]) / (seconds[-1] - seconds[0])


def memory(folder: Path, gigabytes: float) -> None:
    """Fit to a large file in a process of its own, and print its peak."""
    path = folder / "large.npy"
    rows = sparse(path, gigabytes)
    code = f"from benchmarks.larger import *; print(fitted(Path({str(path)!r}), None, batch=1024))"
    begun = time.perf_counter()
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    rate = 1024 * float(done.stdout.split()[-1])
    print(
        f"{path.stat().st_size / 1e9:.1f} GB, {rows:,} rows: peak {peak / 1e9:.2f} GB resident, "
        f"{rate:,.0f} rows a second, {time.perf_counter() - begun:.0f} s in all"
    )
    path.unlink()


def rates(folder: Path, rounds: int) -> None:
    """Fit the same rows from memory and from disk in turns, and print the ratios."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    x = np.random.default_rng(0).random((ROWS, WIDTH), dtype=np.float32)
    array, parquet = folder / "warm.npy", folder / "warm.parquet"
    np.save(array, x)
    pq.write_table(
        pa.table({f"c{i}": x[:, i] for i in range(WIDTH)}), parquet, row_group_size=10_000
    )
    found: dict[str, list[float]] = {".npy": [], ".parquet": []}
    for _ in range(rounds):
        kept = fitted(array, True, epochs=4)
        for path in (array, parquet):
            found[path.suffix].append(fitted(path, False, epochs=4) / kept)
    for kind, ratios in found.items():
        print(
            f"{kind}: {statistics.median(ratios):.2f} of the rate from memory (median of {rounds} "
            f"rounds, {min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.rounds:
            rates(Path(folder), asked.rounds)
        if asked.gigabytes:
            memory(Path(folder), asked.gigabytes)


if __name__ == "__main__":
    main()
