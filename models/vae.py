"""The variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from ppl_gen import likelihoods, networks, posteriors, priors
from ppl_gen.component import whole, whole_sizes
from ppl_gen.likelihoods import Likelihood
from ppl_gen.priors import Prior
from ppl_gen.story import Story, observations


class VAE(Story):
    """A variational autoencoder: an observation is a latent code, decoded, seen through noise.

    The story, for each observation::

        z ~ prior()                 # code         (latent,)
        x ~ likelihood(decoder(z))  # observation  shape

    The guide, which shares one encoder among all observations::

        z ~ posterior(encoder(x))

    A weight of the KL term, its warm-up and free bits belong to no story: they are options of
    :func:`ppl_gen.fit`, and serve every story.

    Args:
        shape: Shape of one observation, such as (64,) or (1, 28, 28).
        latent: Size of the latent code.
        prior: Law of the code: standard-normal, vamp, flow, flower, mixture(components=50) and many
            more, see ppl-gen list priors; or a prior.
        likelihood: Law of an observation given its code: bernoulli, bernoulli(grey=True),
            gaussian, gaussian(scale='per-pixel'), categorical(categories=16) or poisson.
        posterior: Law that the guide gives to a code: auto (the one for the support of the
            prior), diagonal, full, flow, point, and others: see ppl-gen list.
        network: Kind of encoder and decoder: mlp, or conv for images.
        hidden: Units (mlp) or channels (conv) of each layer, from the observation inwards; by
            default 200 200 (mlp) or 32 64 (conv).
        activation: Nonlinearity: tanh, relu, elu, gelu, silu, softplus or leaky-relu; by default
            tanh (mlp) or relu (conv).

    Raises:
        ValueError: If a size is below 1, a name is unknown, or a given prior or likelihood has
            another size than the code or the observation.
        TypeError: If ``shape`` is not a sequence of whole numbers.

    Reference:
        Kingma and Welling (2014), https://arxiv.org/abs/1312.6114
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int = 8,
        *,
        prior: str | Prior = "standard-normal",
        likelihood: str | Likelihood = "gaussian",
        posterior: str = "auto",
        network: str = "mlp",
        hidden: tuple[int, ...] | None = None,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self.shape = whole_sizes("shape", shape)
        self.latent = whole("latent", latent)
        self.prior = priors.prior(prior, latent)
        self.likelihood = likelihoods.likelihood(likelihood, shape)
        self.encoder = networks.encoder(network, shape, hidden, activation)
        self.posterior = posteriors.posterior(
            posterior, self.encoder.width, latent, self.prior.support, self.prior.posterior
        )
        self.prior.follow(self._code, self.shape)
        self.decoder = networks.decoder(
            network, latent, self.likelihood.outputs, shape, hidden, activation
        )

    def start(self, x: Tensor) -> None:
        """Begin with a decoder that gives the mean of the data, and moves with its code.

        Args:
            x: Observations, shape ``(N, *shape)``.
        """
        x = observations(x, self.shape)
        self.decoder.shift(self.likelihood.start(x))
        self.prior.start(x)
        self.decoder.receive(self.prior())

    def model(self, x: Tensor) -> None:
        """The story.

        Args:
            x: Observations, shape ``(N, *shape)``.

        Raises:
            StoryError: If the observations have another shape.
        """
        x = observations(x, self.shape)
        with pyro.plate("observations", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)

    def guide(self, x: Tensor) -> None:
        """The story read backwards.

        Args:
            x: Observations, shape ``(N, *shape)``.

        Raises:
            StoryError: If the observations have another shape.
        """
        x = observations(x, self.shape)
        with pyro.plate("observations", len(x)):
            pyro.sample("z", self._code(x), infer=self.posterior.infer)

    def _code(self, x: Tensor) -> TorchDistribution:
        return self.posterior(self.encoder(x))
