"""Complete MNIST digits of which one, two or three quarters are seen, and print the figures.

The task and its baseline are those of Sohn et al. (2015), section 5.1,
https://papers.nips.cc/paper/5775-learning-structured-output-representation-using-deep-conditional-generative-models,
in the form of Pyro's ``examples/cvae``: grey values are scored by the Bernoulli cross-entropy of
the unseen pixels, summed over them, in nats. The negative ELBO has 10 draws an image.

    python benchmarks/cvae_quadrants.py --root DATA       # three fits, under an hour on two cores
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

import ppl_gen as pg
from ppl_gen.data import Part, masked
from ppl_gen.models.cvae import CVAE

ROWS = 1000  # images that the baseline answers at once


@dataclass
class Options:
    """What to fit and how long.

    Attributes:
        root: Directory with MNIST in torchvision's layout; PPL_GEN_DATA by default.
        quadrants: How many quarters are seen: 1, 2 and 3, a fit each.
        epochs: Passes over the 50,000 training images; the weights that are best on the 10,000
            for validation are kept.
        latent: Size of the code.
        hidden: Units of the layers of every network.
        activation: Of every network.
        batch_size: Images a step.
        learning_rate: At the start; it falls to 1 % of that along a cosine.
        gsnn: Weight of the log-likelihood under the prior.
        draws: Importance draws of each of the 10,000 test images.
        threads: Of torch.
        seed: Of everything.
        out: Directory the runs are saved in, one for each number of quarters.
    """

    root: Path | None = None
    quadrants: tuple[int, ...] = (1, 2, 3)
    epochs: int = 30
    latent: int = 50
    hidden: tuple[int, ...] = (400, 400)
    activation: str = "elu"
    batch_size: int = 128
    learning_rate: float = 2e-3
    gsnn: float = 0.0
    draws: int = 100
    threads: int = 1
    seed: int = 0
    out: Path = Path("runs/cvae-quadrants")


def main(options: Options) -> None:
    """Fit, measure, print a row of markdown each."""
    torch.set_num_threads(options.threads)
    images = pg.data.load("mnist", options.root)
    rows = ["| quarters seen | -ELBO | baseline | -log p | minutes |", "|---|---|---|---|---|"]
    for seen in options.quadrants:
        rows.append(_row(options, masked(images, f"quadrants(seen={seen})"), seen))
        print("\n".join(rows), flush=True)


def _row(options: Options, data: Any, seen: int) -> str:
    story = CVAE(
        data.shape,
        "seen",
        options.latent,
        likelihood="bernoulli(grey=True)",
        hidden=options.hidden,
        activation=options.activation,
        baseline=True,
        gsnn=options.gsnn,
    )
    begun = time.perf_counter()
    run = pg.fit(
        story,
        data,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        schedule="cosine",
        seed=options.seed,
        out=options.out / str(seen),
        overwrite=True,
    )
    # The ELBO is of 10 draws an image, whatever the evidence takes.
    bound = run.evidence(data.test, draws=10, khat=False)
    evidence = run.evidence(data.test, draws=options.draws, khat=False)
    minutes = (time.perf_counter() - begun) / 60
    return (
        f"| {seen} | {-bound.elbo.mean():.2f} | {_baseline(run.story, data.test):.2f} "
        f"| {-evidence.mean:.2f} (+- {evidence.mean_error:.2f}) | {minutes:.1f} |"
    )


def _baseline(story: CVAE, part: Part) -> float:
    """Mean negative log-likelihood of the baseline, in nats."""
    nats = [
        story.baseline_log_likelihood(x, given)
        for x, given in zip(part.columns[0].split(ROWS), part.columns[1].split(ROWS), strict=True)
    ]
    return -torch.cat(nats).mean().item()


if __name__ == "__main__":
    main(tyro.cli(Options))
