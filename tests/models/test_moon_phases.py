"""What lies between two codes: the crescent and the full moon have a half moon between them."""

import pytest
import torch

import ppl_gen as pg
from ppl_gen.data import moon_phase
from ppl_gen.models import VAE, AutoEncoder


def halfway_error(story: pg.Story, data: pg.data.Dataset, seed: int) -> float:
    """Mean squared distance of the image halfway between two codes to the true halfway phase."""
    run = pg.fit(
        story,
        data,
        epochs=60,
        seed=seed,
        learning_rate=2e-3,
        schedule="cosine",
        progress=False,
    )
    code = run.encode(data.test)["z"]
    phase = data.test.y
    assert phase is not None
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(len(phase), (2, 500), generator=generator)
    halfway = run.decode({"z": (code[first] + code[second]) / 2})["x"]
    truth = moon_phase((phase[first] + phase[second]) / 2)
    return (halfway - truth).square().flatten(1).sum(1).mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_halfway_between_two_codes_the_vae_is_nearer_to_the_truth(seed: int) -> None:
    """The same networks, noise and budget; only the prior's pull on the code differs."""
    data = pg.data.load("moon-phases", seed=seed)
    sizes = {"latent": 8, "likelihood": "gaussian(scale=0.6)"}

    vae = halfway_error(VAE(data.shape, **sizes), data, seed)
    autoencoder = halfway_error(AutoEncoder(data.shape, **sizes), data, seed)

    assert vae < 0.95 * autoencoder
