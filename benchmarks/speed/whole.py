"""Whole fits, each in a process of its own: to the first step, to the end, and their memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.speed import vae
from benchmarks.speed.contender import Effort
from benchmarks.speed.harness import ContenderError, alone, cold_compiler
from benchmarks.speed.lines import Line, figure_line, ratio_line
from benchmarks.speed.machine import peak_bytes, torch_device
from benchmarks.speed.ours import seconds_to_settle

IMAGES = 60_000
BATCH = 256


def first_steps(effort: Effort) -> list[Line]:
    """Lines of the seconds from the call of a fit to its first compiled step."""
    lines = []
    for cold in (True, False):
        work = "VAE, from the call of fit to the first compiled step"
        against = f"compiler's cache {'empty' if cold else 'filled'}"
        make = partial(vae.story, BATCH)
        settings = {"batch_size": BATCH}
        try:
            seconds = []
            for _ in range(1 if effort.quick else 3):
                with cold_compiler() if cold else nullcontext():
                    seconds.append(alone(seconds_to_settle, make, settings))
            lines.append(figure_line(work, against, seconds, "s", bar=15.0))
        except ContenderError as error:
            lines.append(Line(work, against, bar=15.0, unit="s", note=f"failed: {error}"))
    return lines


def demo_seconds(how: str, epochs: int) -> float:
    """Seconds of the fit of ``make demo``, in one thread as there."""
    import ppl_gen as pg
    from ppl_gen.cli.demo import SETTINGS, STORY
    from ppl_gen.models import VAE

    torch.set_num_threads(1)
    data = pg.data.load("digits", binarise="redraw")
    story: Any = STORY
    begun = time.perf_counter()
    pg.fit(
        VAE(data.shape, **story),
        data,
        epochs=epochs,
        learning_rate=SETTINGS.learning_rate,
        schedule=SETTINGS.schedule,
        device=SETTINGS.device,
        progress=False,
        compile=how,
    )
    return time.perf_counter() - begun


def repaid(effort: Effort) -> list[Line]:
    """The line of a short fit with compilation in it against one without."""
    from ppl_gen.cli.demo import SETTINGS

    work, against = "fit of make demo, compile='auto'", "compile='eager'"
    assert SETTINGS.epochs is not None
    taken: dict[str, list[float]] = {"auto": [], "eager": []}
    for i in range(1 if effort.quick else 3):
        for how in sorted(taken, reverse=bool(i % 2)):
            with cold_compiler():
                taken[how].append(alone(demo_seconds, how, SETTINGS.epochs))
    return [ratio_line(work, against, taken["auto"], taken["eager"], bar=1.0)]


def our_peak(rows: int) -> float:
    """Bytes at most in a process that fits our VAE for an epoch."""
    import ppl_gen as pg

    pg.fit(vae.story(1)[0], _lit(rows), epochs=1, batch_size=BATCH, progress=False)
    return peak_bytes()


def peak_by_hand(rows: int) -> float:
    """Bytes at most in a process that trains the same by hand for an epoch."""
    contender = vae.ByHand(BATCH, rows=0)
    torch.manual_seed(0)
    contender.x, contender.rows = _lit(rows).to(torch_device()), rows
    module = vae.HandVAE().to(contender.x.device)
    contender.loss = module
    contender.optimizer = torch.optim.Adam(module.parameters(), vae.RATE, fused=True)
    contender.run(-(-rows // BATCH))
    return peak_bytes()


def _lit(rows: int) -> torch.Tensor:
    """Binary rows, made without a copy, so that making them does not set the mark."""
    generator = torch.Generator().manual_seed(0)
    return torch.empty(rows, vae.PIXELS).bernoulli_(0.13, generator=generator)


def memory(effort: Effort) -> list[Line]:
    """The line of the peak memory of a fit."""
    rows = 10_000 if effort.quick else IMAGES
    work = f"peak memory of a fit on {rows:,} images"
    peaks: dict[Callable[..., float], list[float]] = {our_peak: [], peak_by_hand: []}
    for _ in range(1 if effort.quick else 3):
        for function, found in peaks.items():
            found.append(alone(function, rows))
    ours, theirs = (f"{np.median(found) / 2**30:.2f} GiB" for found in peaks.values())
    against = "PyTorch by hand, the data in memory as float32"
    return [replace(ratio_line(work, against, *peaks.values(), bar=1.1), ours=ours, theirs=theirs)]


def rows(effort: Effort) -> list[Line]:
    """Lines of first steps and of a short fit."""
    return [*first_steps(effort), *repaid(effort)]
