"""Compare fits with what is known exactly: PPCA's evidence, and what lies between two moons.

python benchmarks/oracles.py                          # about two minutes on two cores
"""

from __future__ import annotations

import torch
from torch import Tensor

import ppl_gen as pg
from ppl_gen.data import moon_phase
from ppl_gen.models import PPCA, VAE, AutoEncoder


def ppca(seed: int, batch_size: int) -> None:
    """Print the evidence reached by SVI, the largest there is, and its importance estimate."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(10, 3, generator=generator)
    noise = 0.5 * torch.randn(1000, 10, generator=generator)
    x = torch.randn(1000, 3, generator=generator) @ weight.T + noise
    best = PPCA.maximum_likelihood(x, 3).log_evidence(x).mean().item()
    run = pg.fit(
        PPCA((10,), latent=3),
        x,
        epochs=100 if batch_size < 1000 else 1000,
        batch_size=batch_size,
        learning_rate=0.03,
        schedule="cosine",
        seed=seed,
        progress=False,
    )
    reached = run.story.log_evidence(x).mean().item()
    found = run.evidence(x, draws=1000)
    score = (found.mean - reached) / found.mean_error
    print(
        f"PPCA, seed {seed}, batches of {batch_size}: maximum {best:.5f} nats a datum, reached "
        f"{reached:.5f}, ELBO {found.elbo.mean():.5f}; importance-sampled {found.mean:.5f}, "
        f"{score:+.2f} standard errors from the closed form"
    )


def halfway_error(run: pg.Run, data: pg.data.Dataset, phase: Tensor, seed: int) -> float:
    """Squared distance of the image halfway between two codes to the true halfway phase."""
    code = run.encode(data.test)["z"]
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(len(phase), (2, 500), generator=generator)
    halfway = run.decode({"z": (code[first] + code[second]) / 2})["x"]
    truth = moon_phase((phase[first] + phase[second]) / 2)
    return (halfway - truth).square().flatten(1).sum(1).mean().item()


def moons(seed: int) -> None:
    """Print the halfway error of VAE and autoencoder."""
    data = pg.data.load("moon-phases", seed=seed)
    assert data.test.y is not None
    errors = []
    for story in (VAE, AutoEncoder):
        run = pg.fit(
            story(data.shape, latent=8, likelihood="gaussian(scale=0.6)"),
            data,
            epochs=60,
            learning_rate=2e-3,
            schedule="cosine",
            seed=seed,
            progress=False,
        )
        errors.append(halfway_error(run, data, data.test.y, seed))
    print(
        f"moon phases, seed {seed}: squared error halfway, VAE {errors[0]:.2f}, autoencoder "
        f"{errors[1]:.2f}, ratio {errors[0] / errors[1]:.2f}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed in range(3):
        for batch_size in (1000, 100):
            ppca(seed, batch_size)
    for seed in range(5):
        moons(seed)
