"""The autoencoder, as a story whose code has no law."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
from pyro import poutine
from torch import Tensor

from ppl_gen import likelihoods, networks
from ppl_gen.component import whole, whole_sizes
from ppl_gen.likelihoods import Likelihood
from ppl_gen.posteriors import Point
from ppl_gen.priors import StandardNormal
from ppl_gen.story import Story, observations


class AutoEncoder(Story):
    """An autoencoder: an observation is a code, decoded, seen through noise.

    The story, for each observation::

        z ~ Normal(0, I), its density not counted  # code         (latent,)
        x ~ likelihood(decoder(z))                 # observation  shape

    The guide, which shares one encoder among all observations::

        z = Linear(encoder(x))

    No term of ``z`` is counted, so the ELBO is the log likelihood of the reconstruction, in nats:
    with ``gaussian(scale=1.0)``, half the squared error and a constant. It is not a bound on the
    evidence. The normal law of ``z`` is there to draw from when there are no data; nothing pulls
    the codes towards it, so what is drawn need not look like the data.

    Args:
        shape: Shape of one observation, such as (64,) or (1, 28, 28).
        latent: Size of the code.
        likelihood: Law of an observation given its code: bernoulli, bernoulli(grey=True),
            gaussian, gaussian(scale='per-pixel'), categorical(categories=16) or poisson.
        network: Kind of encoder and decoder: mlp, or conv for images.
        hidden: Units (mlp) or channels (conv) of each layer, from the observation inwards; by
            default 200 200 (mlp) or 32 64 (conv).
        activation: Nonlinearity: tanh, relu, elu, gelu, silu, softplus or leaky-relu; by default
            tanh (mlp) or relu (conv).

    Raises:
        ValueError: If a size is below 1, a name is unknown, or a given likelihood has another
            shape than the observation.
        TypeError: If ``shape`` is not a sequence of whole numbers.

    Reference:
        Hinton and Salakhutdinov (2006), https://doi.org/10.1126/science.1127647
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int = 8,
        *,
        likelihood: str | Likelihood = "gaussian",
        network: str = "mlp",
        hidden: tuple[int, ...] | None = None,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self.shape = whole_sizes("shape", shape)
        self.latent = whole("latent", latent)
        self.prior = StandardNormal(latent)
        self.likelihood = likelihoods.likelihood(likelihood, shape)
        self.encoder = networks.encoder(network, shape, hidden, activation)
        self.posterior = Point(self.encoder.width, latent)
        self.decoder = networks.decoder(
            network, latent, self.likelihood.outputs, shape, hidden, activation
        )

    def start(self, x: Tensor) -> None:
        """Begin with a decoder that gives the mean of the data, and moves with its code.

        Args:
            x: Observations, shape ``(N, *shape)``.
        """
        self.decoder.shift(self.likelihood.start(observations(x, self.shape)))
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
            with poutine.mask(mask=False):
                z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)

    def guide(self, x: Tensor) -> None:
        """The code of each observation.

        Args:
            x: Observations, shape ``(N, *shape)``.

        Raises:
            StoryError: If the observations have another shape.
        """
        x = observations(x, self.shape)
        # An analytic KL takes the mask of the guide's site, so that one is masked too.
        with pyro.plate("observations", len(x)), poutine.mask(mask=False):
            pyro.sample("z", self.posterior(self.encoder(x)))
