"""Kill fits at random moments, resume them, and hold them against fits that nobody disturbed.

    python benchmarks/kills.py --kills 200

Each fit is a process of its own that is sent SIGKILL after a random time, and again after it was
resumed, until it comes to its end. Most of the time of a fit is spent writing checkpoints, so that
many of the kills fall within a write. Wanted: every one resumes, with the history and the weights
of the undisturbed fit to the last bit, and none loses more than the interval between checkpoints.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppl_gen as pg
from ppl_gen.inference import checkpoint, files
from ppl_gen.models import CVAE, GMM, M2, PPCA, VAE, AutoEncoder

G = torch.Generator().manual_seed(0)
X = torch.randn(600, 5, generator=G) @ torch.randn(5, 5, generator=G)
LABELS = torch.arange(600) % 3
SMALL: dict[str, Any] = {"latent": 2, "hidden": (16,)}
INTERVAL, WRITING = 0.05, 0.1  # seconds between checkpoints, and that each takes


def mean(x: Tensor) -> None:
    """A story of plain functions, whose latents all rows share."""
    loc = pyro.sample("loc", dist.Normal(torch.zeros(5), 3.0).to_event(1))
    scale = pyro.param("scale", torch.ones(5), constraint=dist.constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)


Fit = tuple[Any, Any, dict[str, Any]]
FITS: dict[str, Callable[[], Fit]] = {
    "ppca": lambda: (PPCA((5,), 2), X, {"epochs": 250}),
    "vae": lambda: (VAE((5,), **SMALL), X, {"epochs": 250, "compile": "graph"}),
    "vae, eager": lambda: (VAE((5,), **SMALL), X, {"epochs": 80, "compile": "eager"}),
    "vae, compiled": lambda: (VAE((5,), **SMALL), X, {"epochs": 3000, "compile": "auto"}),
    "vae, validated": lambda: (
        VAE((4,), **SMALL),
        pg.data.load("iris"),
        {"epochs": 300, "patience": 250},
    ),
    "autoencoder": lambda: (AutoEncoder((5,), **SMALL), X, {"epochs": 250}),
    "implicit prior": lambda: (VAE((5,), prior="flower-sampler", **SMALL), X, {"epochs": 100}),
    "cvae": lambda: (CVAE((5,), "label(classes=3)", **SMALL), (X, LABELS), {"epochs": 200}),
    "m2": lambda: (M2((5,), 3, **SMALL), (X, LABELS), {"epochs": 100}),
    "gmm": lambda: (GMM((5,), 3, posterior="normal"), X, {"epochs": 100}),
    "gmm by em": lambda: (GMM((5,), 6), X, {"method": "em", "epochs": 400, "tolerance": 0.0}),
    "gmm by em in batches": lambda: (
        GMM((5,), 6),
        X,
        {"method": "em", "epochs": 40, "batch_size": 50, "tolerance": 0.0},
    ),
    "functions": lambda: ((mean, "AutoNormal"), X, {"epochs": 1500, "batch_size": 600}),
    "settled": lambda: (
        (mean, "AutoNormal"),
        X,
        {"epochs": 4000, "batch_size": 600, "stop": "settled"},
    ),
}


def outcome(run: pg.Run) -> dict[str, Tensor]:
    """All that a fit left, but for its seconds."""
    history = torch.tensor([astuple(epoch) for epoch in run.history], dtype=torch.float64)
    history[:, 2] = 0
    iterates = {} if run.iterates is None else run.iterates.to_tensors()
    return {"history": history, **run.pair.snapshot(), **iterates}


def child(work: Callable[[], None]) -> int:
    """Start a process that works and ends."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def fitted(name: str, out: Path, told: Path, slow: bool) -> None:
    """Fit, or go on, and leave the outcome in a file."""
    if slow:
        checkpoint.SHARE = 1.0
        flush = os.fsync

        def slowly(handle: int) -> None:
            time.sleep(WRITING / 2)
            flush(handle)

        files.os.fsync = slowly  # type: ignore[assignment]
    story, data, options = FITS[name]()
    if slow and checkpoint.there(out):
        options = {"resume": out}
    elif slow:
        options = {**options, "out": out, "overwrite": True}
    run = pg.fit(story, data, checkpoint_seconds=INTERVAL, progress=False, **options)
    torch.save(outcome(run), told)


def wait(pid: int) -> int:
    """The exit status of a process."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> int:
    """Kill, resume, compare, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="fits whose names hold this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(options.seed)
    kills = resumed = within = fits = differ = failed = 0
    lost = 0.0
    with tempfile.TemporaryDirectory() as folder:
        wanted, seconds = {}, {}
        names = [name for name in FITS if options.only in name]
        for name in names:
            told = Path(folder, f"{len(wanted)}.pt")
            begun = time.monotonic()
            if wait(child(lambda name=name, told=told: fitted(name, Path(), told, False))):
                raise SystemExit(f"{name} cannot be fitted")
            seconds[name] = time.monotonic() - begun
            wanted[name] = torch.load(told)
        while kills < options.kills:
            name = names[fits % len(names)]
            fits += 1
            out, told = Path(folder, "runs", str(fits)), Path(folder, "found.pt")
            again = 0
            while True:
                pid = child(lambda name=name, out=out, told=told: fitted(name, out, told, True))
                patience = chance.uniform(0.1, 1.2 * seconds[name] + 1.0) if again < 4 else 1e9
                begun, before = time.time(), checkpoint.there(out)
                ended, status = 0, 0
                while not ended and time.time() - begun < patience:
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    time.sleep(0.002)
                if ended:
                    failed += os.waitstatus_to_exitcode(status) != 0
                    break
                os.kill(pid, signal.SIGKILL)
                ended_at = time.time()
                wait(pid)
                kills, again = kills + 1, again + 1
                resumed += before
                kept = out / checkpoint.FOLDER
                within += any(files.PARTIAL in path.name for path in kept.glob(".*"))
                times = [path.stat().st_mtime for path in kept.glob("*-*")]
                if times and max(times) > begun:  # this process has come to saving
                    lost = max(lost, ended_at - max(times))
            found = torch.load(told)
            same = found.keys() == wanted[name].keys() and all(
                torch.equal(v.nan_to_num(), found[n].nan_to_num()) for n, v in wanted[name].items()
            )
            differ += not same
            print(f"{name}: {again} kills, {'the same' if same else 'DIFFERS'}", flush=True)
    print(
        f"{kills} kills of {fits} fits ({within} within a write, {resumed} of fits that had been "
        f"resumed): {failed} could not go on, {differ} differ from the undisturbed fit; the most "
        f"that was lost: {lost:.2f} s, of an interval of {INTERVAL} s and {WRITING} s to write"
    )
    return int(failed + differ > 0)


if __name__ == "__main__":
    sys.exit(main())
