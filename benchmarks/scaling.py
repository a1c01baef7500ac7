"""What several processes gain: measured with two, and foretold for 64 to 1,024.

    python -m benchmarks.scaling [--rounds 5] [--hidden 1024 1024] [--batch 1024]

Measured: seconds a step of a VAE by one process, and by two that share each batch, in turns, one
core each; efficiency is the first over twice the second. Wanted: at least 0.8.

Foretold: a step of W processes takes the gradient of its share of the batch, the noise of the whole
batch, which every process draws, and one sum of all gradients::

    step(W) = fixed + rows / W * each + rows * noise + 2 (W - 1) (latency + bytes / W / bandwidth)

the last being that of a ring (Patarasuk and Yuan, 2009). ``fixed``, ``each`` and ``noise`` are
measured here, on one core; latency and bandwidth are those of the sums measured between two
processes of this machine, and besides those of a network of 10 Gbit/s, with 50 microseconds
(assumed). ``strong`` shares out one batch, ``weak`` gives every process a batch of that size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

WIDTH, LATENT, ROWS = 784, 20, 8192
SIZES = (2**10, 2**22)  # numbers in a sum, to tell latency from bandwidth
NETWORK = (50e-6, 10e9 / 8)  # seconds, bytes a second
WORLDS = (2, 64, 128, 256, 512, 1024)


def work(options: argparse.Namespace) -> dict[str, float]:
    """What one process of a fit measures: seconds a step, and of sums of some sizes."""
    import ppl_gen as pg
    from ppl_gen.models import VAE

    torch.set_num_threads(1)
    x = torch.rand(ROWS, WIDTH, generator=torch.Generator().manual_seed(0)).round()
    story = VAE((WIDTH,), LATENT, likelihood="bernoulli", hidden=tuple(options.hidden))
    batch = options.batch
    run = pg.fit(story, x, epochs=1 + options.epochs, batch_size=batch, progress=False, seed=1)
    seconds, steps = run.history["seconds"], run.history["steps"]
    found = {
        "step": (seconds[-1] - seconds[0]) / (steps[-1] - steps[0]),
        "bytes": 4.0 * sum(p.numel() for p in run.pair.parameters().values()),
        "elbo": run.history[-1].elbo,
    }
    if torch.distributed.is_initialized():
        found |= {f"sum {size}": _summed(size) for size in SIZES}
    return found


def _summed(size: int) -> float:
    values, took = torch.zeros(size), []
    for _ in range(12):
        torch.distributed.barrier()
        begun = time.perf_counter()
        torch.distributed.all_reduce(values)
        took.append(time.perf_counter() - begun)
    return statistics.median(took[2:])


def started(processes: int, options: argparse.Namespace, **other: Any) -> dict[str, float]:
    """What so many processes measure."""
    words = {"batch": options.batch, "epochs": options.epochs, **other}
    given = [f"--{name}={value}" for name, value in words.items()]
    command = [sys.executable, "-W", "ignore"]
    if processes > 1:
        command += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
        command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    hidden = ["--hidden", *map(str, options.hidden)]
    done = subprocess.run(
        [*command, "-m", "benchmarks.scaling", "--worker", *given, *hidden],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(lines[-1])


def noise_of(rows: int) -> float:
    """Seconds for the noise of so many rows."""
    torch.set_num_threads(1)
    took = []
    for _ in range(20):
        begun = time.perf_counter()
        torch.randn(rows, LATENT)
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, nargs="+", default=[1024, 1024])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    if options.worker:
        found = work(options)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(found), flush=True)
        return
    rounds = [
        (started(1, options), started(2, options), started(1, options, batch=options.batch // 4))
        for _ in range(options.rounds)
    ]
    ratios = [one["step"] / (2 * two["step"]) for one, two, _ in rounds]
    one, two, few = (
        {name: statistics.median(r[i][name] for r in rounds) for name in rounds[0][i]}
        for i in range(3)
    )
    print(f"{options.hidden} units, batches of {options.batch}, {one['bytes'] / 4:,.0f} weights")
    print(f"ELBO after as many steps: {one['elbo']:.4f} by one process, {two['elbo']:.4f} by two")
    print(
        f"step: {1e3 * one['step']:.1f} ms by one process, {1e3 * two['step']:.1f} ms by two; "
        f"efficiency {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f} over "
        f"{len(ratios)} rounds)"
    )
    each = (one["step"] - few["step"]) / (options.batch - options.batch // 4)
    fixed = max(0.0, one["step"] - each * options.batch)
    noise = noise_of(options.batch) / options.batch
    small, large = (two[f"sum {size}"] for size in SIZES)
    here = small / 2, 4 * (SIZES[1] - SIZES[0]) / max(large - small, 1e-9)
    print(
        f"fixed {1e3 * fixed:.1f} ms, each row {1e6 * each:.1f} us, its noise {1e9 * noise:.0f} "
        f"ns; sums here: {1e6 * here[0]:.0f} us and {here[1] / 1e9:.2f} GB/s"
    )
    print("\n| processes | strong, here | strong, network | weak, here | weak, network |")
    print("|---|---|---|---|---|")
    for world in WORLDS:
        cells = []
        for kind in ("strong", "weak"):
            for latency, bandwidth in (here, NETWORK):
                rows = options.batch * (world if kind == "weak" else 1)
                alone = fixed + rows * each + rows * noise
                ring = 2 * (world - 1) * (latency + one["bytes"] / world / bandwidth)
                step = fixed + rows / world * each + rows * noise + ring
                cells.append(f"{alone / world / step:.2f}")
        print(f"| {world:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
