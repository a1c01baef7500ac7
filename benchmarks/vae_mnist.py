"""Fit a VAE to MNIST binarised at every visit, and print its test evidence.

One stochastic layer of 50, two hidden layers of 200 tanh units on either side, as in table 1 of
Burda et al. (2016), https://arxiv.org/abs/1509.00519, where the one-sample ELBO reaches 86.76 nats.
The test images are binarised once, by seed 0; the evidence is importance-sampled.

    python benchmarks/vae_mnist.py --root DATA            # about half an hour on two cores
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tyro

import ppl_gen as pg
from ppl_gen.data import concat
from ppl_gen.models import VAE


@dataclass
class Options:
    """What to fit and how long.

    Attributes:
        root: Directory with MNIST in torchvision's layout; PPL_GEN_DATA by default.
        epochs: Passes over the 60,000 training images.
        batch_size: Images a step.
        learning_rate: At the start; it falls to 1 % of that along a cosine.
        draws: Importance draws of each of the 10,000 test images.
        seed: Of everything.
        out: Where the run is saved.
    """

    root: Path | None = None
    epochs: int = 380
    batch_size: int = 100
    learning_rate: float = 3e-3
    draws: int = 5000
    seed: int = 0
    out: Path = Path("runs/vae-mnist")


def main(options: Options) -> None:
    """Fit, measure, print."""
    data = pg.data.load("mnist", options.root, binarise="redraw")
    train = concat(data.train, data.valid)
    story = VAE(data.shape, latent=50, likelihood="bernoulli", hidden=(200, 200), activation="tanh")
    begun = time.perf_counter()
    run = pg.fit(
        story,
        train,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        optimizer="adam(eps=1e-4)",
        schedule="cosine",
        seed=options.seed,
        out=options.out,
        overwrite=True,
    )
    minutes = (time.perf_counter() - begun) / 60
    begun = time.perf_counter()
    evidence = run.evidence(data.test, draws=options.draws, khat=False)
    print(f"fit of {options.epochs} epochs: {minutes:.1f} minutes")
    print(f"training ELBO per datum at the end: {run.history.epochs[-1].elbo:.3f} nats")
    print(
        f"test evidence with {options.draws} draws: {evidence.mean:.3f} nats "
        f"(+- {evidence.mean_error:.3f} from the draws), ELBO {evidence.elbo.mean():.3f}, "
        f"{(time.perf_counter() - begun) / 60:.1f} minutes"
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
