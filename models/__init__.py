"""The stories: one generative story a file."""

from ppl_gen.models.autoencoder import AutoEncoder
from ppl_gen.models.cvae import CVAE
from ppl_gen.models.gmm import GMM
from ppl_gen.models.m2 import M2
from ppl_gen.models.ppca import PPCA
from ppl_gen.models.vae import VAE
from ppl_gen.story import Story

STORIES: dict[str, type[Story]] = {
    "gmm": GMM,
    "vae": VAE,
    "cvae": CVAE,
    "m2": M2,
    "autoencoder": AutoEncoder,
    "ppca": PPCA,
}

__all__ = ["CVAE", "GMM", "M2", "PPCA", "STORIES", "VAE", "AutoEncoder"]
