"""The conditional variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions.constraints import real_vector

from ppl_gen import conditions, likelihoods, networks, posteriors, priors
from ppl_gen.component import by_name, whole, whole_sizes
from ppl_gen.conditions import Condition, JointEncoder
from ppl_gen.errors import StoryError
from ppl_gen.likelihoods import Likelihood
from ppl_gen.priors import Prior
from ppl_gen.story import Story, observations


class CVAE(Story):
    r"""A conditional variational autoencoder: what a code becomes depends on a condition.

    The story, for each observation with its condition ``c``, of which a network makes features,
    ``h = reader(c)``::

        z ~ prior(h)                   # code         (latent,)
        x ~ likelihood(decoder(z, h))  # observation  shape

    The guide, which shares one encoder among all observations::

        z ~ posterior(encoder(x, c))

    The condition is the second column of the data: a label, a vector, or a mask of what is seen of
    ``x`` itself. Under a mask the likelihood counts unseen elements only, so that the evidence is
    log p(unseen | seen), and draws of ``x`` keep what is seen.

    A baseline is a network that answers ``x`` from the condition alone, without a code. It is
    fitted beside, by its own likelihood, and what it answers is read together with the condition
    and added to what the decoder gives: the code is left to tell what the baseline cannot. Its
    term, and the hybrid that ``gsnn`` asks for, are there while the story is trained: the ELBO of
    the training curve then shows their sum, that of validation and checks the plain bound.

    Args:
        shape: Shape of one observation, such as (64,) or (1, 28, 28).
        condition: What is given: label(classes=10), vector(features=3) or seen.
        latent: Size of the latent code.
        prior: Law of the code: conditional, a diagonal normal whose mean and scale a network reads
            off the condition; or, the same for every condition, standard-normal,
            mixture(components=50) and more, see ppl-gen list priors; or a prior.
        likelihood: Law of an observation given its code: bernoulli, bernoulli(grey=True),
            gaussian, gaussian(scale='per-pixel'), categorical(categories=16) or poisson.
        posterior: Law that the guide gives to a code: auto (the one for the support of the
            prior), diagonal, full, flow, point, and others: see ppl-gen list.
        network: Kind of the networks: mlp, or conv for images.
        hidden: Units (mlp) or channels (conv) of each layer, from the observation inwards; by
            default 200 200 (mlp) or 32 64 (conv).
        activation: Nonlinearity: tanh, relu, elu, gelu, silu, softplus or leaky-relu; by default
            tanh (mlp) or relu (conv).
        baseline: Whether there is a baseline.
        gsnn: Weight, from 0 to below 1, of the log-likelihood under draws of the prior, as for a
            Gaussian stochastic neural network; 1 less it weights the ELBO. It narrows the gap
            between codes met in training and codes drawn from the prior. A prior that cannot be
            reparametrised, such as a mixture, is not trained by that term.

    Raises:
        ValueError: If a size is below 1, a name is unknown, ``gsnn`` is out of range, or a given
            part has another size than the code or the observation.
        TypeError: If ``shape`` is not a sequence of whole numbers.

    Reference:
        Sohn et al. (2015), sections 4.1 to 4.3,
        https://papers.nips.cc/paper/5775-learning-structured-output-representation-using-deep-conditional-generative-models
    """

    def __init__(
        self,
        shape: Sequence[int],
        condition: str | Condition,
        latent: int = 8,
        *,
        prior: str | Prior = "conditional",
        likelihood: str | Likelihood = "gaussian",
        posterior: str = "auto",
        network: str = "mlp",
        hidden: tuple[int, ...] | None = None,
        activation: str | None = None,
        baseline: bool = False,
        gsnn: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(gsnn, bool) or not isinstance(gsnn, int | float) or not 0 <= gsnn < 1:
            raise ValueError(f"gsnn must be a number from 0 to below 1, got {gsnn!r}")
        self.shape = whole_sizes("shape", shape)
        self.latent = whole("latent", latent)
        self.gsnn = gsnn
        self.condition = conditions.condition(condition, shape)
        self.likelihood = likelihoods.likelihood(likelihood, shape)
        size, layers = self.condition.shape, (hidden, activation)
        self.baseline = _Baseline(size, self.likelihood, network, *layers) if baseline else None
        known = [size, self.shape] if baseline else [size]
        self.reader = JointEncoder(network, known, *layers)
        width = self.reader.width
        if isinstance(prior, str):
            by_name(prior, {"conditional": posteriors.DiagonalNormal, **priors.PRIORS}, "prior")
        self.prior = (
            posteriors.DiagonalNormal(width, latent)
            if prior == "conditional"
            else priors.prior(prior, latent)
        )
        self.encoder = JointEncoder(network, [self.shape, size], *layers)
        support, head = real_vector, "auto"
        if isinstance(self.prior, Prior):
            support, head = self.prior.support, self.prior.posterior
        self.posterior = posteriors.posterior(posterior, self.encoder.width, latent, support, head)
        self.decoder = networks.decoder(
            network, latent + width, self.likelihood.outputs, shape, *layers
        )

    def start(self, x: Tensor, condition: Tensor) -> None:
        """Begin with a decoder that gives the mean of the data, whatever the condition.

        Args:
            x: Observations, shape ``(N, *shape)``.
            condition: Their conditions, ``N`` rows.

        Raises:
            StoryError: If a condition cannot be used.
        """
        x = observations(x, self.shape)
        for rows, given in zip(x.split(CHUNK), condition.split(CHUNK), strict=False):
            self.condition(rows, given)
        offset = self.likelihood.start(x)
        if self.baseline is not None:
            self.baseline.decoder.shift(self.baseline.likelihood.start(x))
            offset = torch.zeros_like(offset)
        self.decoder.shift(offset)

    def model(self, x: Tensor, condition: Tensor) -> None:
        """The story.

        Args:
            x: Observations, shape ``(N, *shape)``.
            condition: Their conditions, ``N`` rows.

        Raises:
            StoryError: If observations or conditions have another shape, or a condition is one
                that the story cannot take.
        """
        x = observations(x, self.shape)
        given = self._read(x, condition)
        gsnn = self.gsnn if self.training else 0.0
        with pyro.plate("observations", len(x)):
            prior = self._prior(given)
            with poutine.scale(scale=1 - gsnn):
                z = pyro.sample("z", prior)
                pyro.sample("x", self._law(z, given), obs=x)
            if gsnn:
                each = prior.expand(torch.Size([len(x)]))
                drawn = each.rsample() if each.has_rsample else each.sample()
                with poutine.scale(scale=gsnn):
                    pyro.sample("x_gsnn", self._law(drawn, given), obs=x)
            if self.baseline is not None and self.training:
                pyro.sample("x_baseline", self._baseline_law(given), obs=x)

    def guide(self, x: Tensor, condition: Tensor) -> None:
        """The story read backwards.

        Args:
            x: Observations, shape ``(N, *shape)``.
            condition: Their conditions, ``N`` rows.

        Raises:
            StoryError: As :meth:`model` does.
        """
        x = observations(x, self.shape)
        seen = self._seen(x, condition)
        gsnn = self.gsnn if self.training else 0.0
        with pyro.plate("observations", len(x)), poutine.scale(scale=1 - gsnn):
            code = self.posterior(self.encoder(x, seen))
            pyro.sample("z", code, infer=self.posterior.infer)

    def predict_baseline(self, x: Tensor, condition: Tensor) -> Tensor:
        """The single answer of the baseline: the expected observation given its condition.

        Args:
            x: Observations, shape ``(N, *shape)``; looked at where a mask shows them only.
            condition: Their conditions, ``N`` rows.

        Returns:
            Shape ``(N, *shape)``; seen elements are as they are.

        Raises:
            StoryError: If the story has no baseline, or as :meth:`model` does.
        """
        x = observations(x, self.shape)
        with torch.no_grad():
            given = self._read(x, condition)
            baseline, numbers = self._baseline(given)
            mean = baseline.likelihood.mean(numbers)
        return mean if given.unseen is None else torch.where(given.unseen, mean, x)

    def baseline_log_likelihood(self, x: Tensor, condition: Tensor) -> Tensor:
        """The log-likelihood of each observation under the baseline, given its condition.

        Args:
            x: Observations, shape ``(N, *shape)``.
            condition: Their conditions, ``N`` rows.

        Returns:
            Nats, shape ``(N,)``; of unseen elements only, under a mask.

        Raises:
            StoryError: If the story has no baseline, or as :meth:`model` does.
        """
        x = observations(x, self.shape)
        with torch.no_grad():
            return self._baseline_law(self._read(x, condition)).log_prob(x)

    def _seen(self, x: Tensor, condition: Tensor) -> Tensor:
        """The conditions as numbers, ``(N, *condition.shape)``."""
        if len(condition) != len(x):
            raise StoryError(
                f"there must be one condition for each of the {len(x)} observations, got "
                f"{len(condition)}: give columns of the same length"
            )
        return self.condition(x, condition)

    def _read(self, x: Tensor, condition: Tensor) -> _Given:
        """What the networks make of the conditions, and which elements are unseen."""
        seen = self._seen(x, condition)
        unseen = self.condition.unseen(x, condition)
        if self.baseline is None:
            return _Given(self.reader(seen), None, unseen, x)
        numbers = self.baseline(seen)
        answer = self.baseline.likelihood.mean(numbers.detach())
        if unseen is not None:
            answer = torch.where(unseen, answer, x)
        return _Given(self.reader(seen, answer), numbers, unseen, x)

    def _prior(self, given: _Given) -> TorchDistribution:
        if isinstance(self.prior, Prior):
            return self.prior()
        return self.prior(given.features)

    def _law(self, z: Tensor, given: _Given) -> TorchDistribution:
        rows = torch.broadcast_shapes(z.shape[:-1], given.features.shape[:-1])
        both = z.expand(*rows, -1), given.features.expand(*rows, -1)
        numbers = self.decoder(torch.cat(both, dim=-1))
        if given.numbers is not None:
            numbers = numbers + given.numbers.detach()
        return given.completed(self.likelihood(numbers))

    def _baseline_law(self, given: _Given) -> TorchDistribution:
        baseline, numbers = self._baseline(given)
        return given.completed(baseline.likelihood(numbers))

    def _baseline(self, given: _Given) -> tuple[_Baseline, Tensor]:
        if self.baseline is None or given.numbers is None:
            raise StoryError("the story has no baseline: build it with baseline=True")
        return self.baseline, given.numbers


class _Given(NamedTuple):
    """What is made of the conditions of a batch.

    Args:
        features: What the reader gives, ``(N, width)``.
        numbers: What the baseline gives, ``(N, outputs, *shape)``, if there is one.
        unseen: Which elements are to be explained, ``(N, *shape)``; None for all.
        x: Observations, ``(N, *shape)``.
    """

    features: Tensor
    numbers: Tensor | None
    unseen: Tensor | None
    x: Tensor

    def completed(self, law: TorchDistribution) -> TorchDistribution:
        """The law of the whole observation, of which the seen part is known."""
        if self.unseen is None:
            return law
        try:
            return likelihoods.completed(law, self.unseen, self.x)
        except ValueError as error:
            raise StoryError(str(error)) from error


class _Baseline(nn.Module):
    """A network from the condition to the numbers of a likelihood of its own."""

    def __init__(
        self,
        seen: tuple[int, ...],
        likelihood: Likelihood,
        network: str,
        hidden: Sequence[int] | None,
        activation: str | None,
    ) -> None:
        super().__init__()
        self.likelihood = likelihood.rebuild()
        self.reader = JointEncoder(network, [seen], hidden, activation)
        self.decoder = networks.decoder(
            network, self.reader.width, likelihood.outputs, likelihood.shape, hidden, activation
        )

    def forward(self, seen: Tensor) -> Tensor:
        return self.decoder(self.reader(seen))


CHUNK = 4096  # rows whose conditions are looked at together, to bound the memory that takes
