"""The stories: one generative story a file."""

from ppl_gen.models.autoencoder import AutoEncoder
from ppl_gen.models.ppca import PPCA
from ppl_gen.models.vae import VAE
from ppl_gen.story import Story

STORIES: dict[str, type[Story]] = {"vae": VAE, "autoencoder": AutoEncoder, "ppca": PPCA}

__all__ = ["PPCA", "STORIES", "VAE", "AutoEncoder"]
