"""A variational autoencoder with labels for some of the data only: M2 of Kingma et al. (2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from ppl_gen import likelihoods, networks, posteriors, priors
from ppl_gen.component import whole, whole_sizes
from ppl_gen.conditions import JointEncoder
from ppl_gen.errors import StoryError, refuse_if
from ppl_gen.likelihoods import Likelihood
from ppl_gen.priors import Prior
from ppl_gen.story import Story, observations

UNKNOWN = -1
CERTAIN = 1e4  # logits so far apart that the smaller's probability is 0, while its log is finite
CHUNK = 4096  # rows that are classified together, to bound the memory that takes


class M2(Story):
    r"""A label and a style make an observation; the label is seen for some of the data only.

    The story, for each observation::

        y_seen ~ Categorical(proportions)            # where the label is seen
        y ~ y_seen, or Categorical(proportions)      # label        0 to classes - 1
        z ~ prior()                                  # style        (latent,)
        x ~ likelihood(decoder(z, y))                # observation  shape

    The guide, which shares its networks among all observations::

        y ~ y_seen, or Categorical(classifier(x))    # enumerated
        z ~ posterior(encoder(x, y))

    The second column of the data holds the labels, -1 where one is not known. There the ELBO is a
    sum over all classes, without draws of ``y``, so that each observation also teaches the
    classifier; the networks are run once for each class. Where a label is seen, the ELBO is of
    :math:`\log p(x, y)`. A term of its own lets the classifier learn from seen labels as well. It
    is there while the story is trained: the ELBO of the training curve then shows the sum, that of
    validation and checks the plain bound. Where labels are so few that most batches hold none, give
    the labelled rows several times over.

    Args:
        shape: Shape of one observation, such as (64,) or (1, 28, 28).
        classes: Number of classes; labels go from 0 to ``classes - 1``.
        latent: Size of the style.
        prior: Law of the style: standard-normal, mixture(components=50) and more, see ppl-gen list
            priors; or a prior.
        likelihood: Law of an observation given label and style: bernoulli, bernoulli(grey=True),
            gaussian, gaussian(scale='per-pixel'), categorical(categories=16) or poisson.
        posterior: Law that the guide gives to a style: auto (the one for the support of the
            prior), diagonal, full, flow, point, and others: see ppl-gen list.
        network: Kind of the networks: mlp, or conv for images.
        hidden: Units (mlp) or channels (conv) of each layer, from the observation inwards; by
            default 200 200 (mlp) or 32 64 (conv).
        activation: Nonlinearity: tanh, relu, elu, gelu, silu, softplus or leaky-relu; by default
            tanh (mlp) or relu (conv).
        weight: Weight of the classifier's mean log-likelihood of the seen labels, against the mean
            ELBO of all data. The paper's alpha is this times the number of data, and its choice
            0.1; for small images more is better. 0 leaves the term out.
        proportions: Shares of the classes: uniform, or learned.

    Raises:
        ValueError: If a size is below 1, there are fewer than 2 classes, a name is unknown,
            ``weight`` is negative, or a given prior or likelihood has another size than the style
            or the observation.
        TypeError: If ``shape`` is not a sequence of whole numbers.

    Reference:
        Kingma et al. (2014), sections 2.2 and 3.1.2, equations 6 to 9,
        https://arxiv.org/abs/1406.5298
    """

    log_shares: Tensor
    label_share: Tensor
    numbers: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        latent: int = 8,
        *,
        prior: str | Prior = "standard-normal",
        likelihood: str | Likelihood = "gaussian",
        posterior: str = "auto",
        network: str = "mlp",
        hidden: tuple[int, ...] | None = None,
        activation: str | None = None,
        weight: float = 1.0,
        proportions: str = "uniform",
    ) -> None:
        super().__init__()
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight must be 0 or a positive number, got {weight}")
        if proportions not in ("uniform", "learned"):
            raise ValueError(f"proportions must be uniform or learned, got {proportions!r}")
        self.shape = whole_sizes("shape", shape)
        self.classes = whole("classes", classes, least=2)
        self.latent = whole("latent", latent)
        self.weight = weight
        self.prior = priors.prior(prior, latent)
        self.likelihood = likelihoods.likelihood(likelihood, shape)
        layers = (hidden, activation)
        self.classifier = _Classifier(network, self.shape, classes, *layers)
        self.encoder = JointEncoder(network, [self.shape, (classes,)], *layers)
        self.posterior = posteriors.posterior(
            posterior, self.encoder.width, latent, self.prior.support, self.prior.posterior
        )
        self.decoder = networks.decoder(
            network, latent + classes, self.likelihood.outputs, shape, *layers
        )
        logits = torch.zeros(classes)
        if proportions == "learned":
            self.log_shares = nn.Parameter(logits)
        else:
            self.register_buffer("log_shares", logits, persistent=False)
        self.register_buffer("label_share", torch.ones(()))
        self.register_buffer("numbers", torch.arange(classes), persistent=False)

    def start(self, x: Tensor, y: Tensor) -> None:
        """Begin with a decoder that gives the mean of the data, and count the labels.

        Args:
            x: Observations, shape ``(N, *shape)``.
            y: Labels, shape ``(N,)``, -1 where unknown.

        Raises:
            StoryError: If labels have another shape, or are out of range.
        """
        x = observations(x, self.shape)
        self._check(x, y)
        self.decoder.shift(self.likelihood.start(x))
        self.label_share.copy_((y != UNKNOWN).float().mean())

    def model(self, x: Tensor, y: Tensor) -> None:
        """The story.

        Args:
            x: Observations, shape ``(N, *shape)``.
            y: Labels, shape ``(N,)``, -1 where unknown.

        Raises:
            StoryError: If observations or labels have another shape, or labels are out of range.
        """
        x, y, seen = self._read(x, y)
        with pyro.plate("observations", len(x)):
            shares = dist.Categorical(logits=self.log_shares.expand(len(x), -1))
            y_seen = pyro.sample("y_seen", shares.mask(seen), obs=y)
            label = pyro.sample("y", self._known_or(self.log_shares, y_seen, seen))
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(self._decoded(z, label)), obs=x)
            if self.training and self.weight:
                law = dist.Categorical(logits=self.classifier(x)).mask(seen)
                with poutine.scale(scale=self.weight / self.label_share.clamp(min=1e-12)):
                    pyro.sample("y_classified", law, obs=y)

    def guide(self, x: Tensor, y: Tensor) -> None:
        """The story read backwards.

        Args:
            x: Observations, shape ``(N, *shape)``.
            y: Labels, shape ``(N,)``, -1 where unknown.

        Raises:
            StoryError: As :meth:`model` does.
        """
        x, y, seen = self._read(x, y)
        with pyro.plate("observations", len(x)):
            law = self._known_or(self.classifier(x), y, seen)
            label = pyro.sample("y", law, infer={"enumerate": "parallel"})
            code = self.posterior(self._encoded(x, label))
            pyro.sample("z", code, infer=self.posterior.infer)

    def predict_proba(self, x: Any) -> Tensor:
        """The classifier's probability of each class.

        Args:
            x: Observations, a tensor or an array, shape ``(N, *shape)``.

        Returns:
            Shape ``(N, classes)``.

        Raises:
            StoryError: If the observations have another shape.
        """
        x = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
        x = observations(x, self.shape).to(self.log_shares)
        with torch.no_grad():
            return torch.cat([self.classifier(rows).softmax(-1) for rows in x.split(CHUNK)])

    def predict(self, x: Any) -> Tensor:
        """The class that the classifier finds most probable.

        Args:
            x: Observations, a tensor or an array, shape ``(N, *shape)``.

        Returns:
            Whole numbers from 0, shape ``(N,)``.

        Raises:
            StoryError: If the observations have another shape.
        """
        return self.predict_proba(x).argmax(-1)

    def _read(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Observations, labels with 0 where there is none, and where there is one."""
        x = observations(x, self.shape)
        if not self.training:  # all rows were looked at before the first step
            self._check(x, y)
        y = y.reshape(-1)
        return x, y.clamp(min=0).long(), y != UNKNOWN

    def _check(self, x: Tensor, y: Tensor) -> None:
        if y.shape not in ((len(x),), (len(x), 1)):
            raise StoryError(
                f"labels must be one number for each row, shape {(len(x),)}, got "
                f"{tuple(y.shape)}: give them as the second column of the data"
            )
        y = y.reshape(-1)
        outside = (y[:, None] != self.numbers).all(1) & (y != UNKNOWN)
        refuse_if(
            outside,
            lambda: StoryError(
                f"labels must be whole numbers from 0 to {self.classes - 1}, or -1 where unknown, "
                f"got {y[outside][0].item():g} (in {int(outside.sum())} of {len(y)} rows): number "
                "the classes from 0, or build the story with more classes"
            ),
        )

    def _known_or(self, logits: Tensor, y: Tensor, seen: Tensor) -> TorchDistribution:
        """The law of a label: certain where it is seen, the same in both programs."""
        certain = CERTAIN * self._one_hot(y, logits)
        return dist.Categorical(logits=torch.where(seen[:, None], certain, logits))

    def _one_hot(self, y: Tensor, like: Tensor) -> Tensor:
        return (y[..., None] == self.numbers).to(like)

    def _decoded(self, z: Tensor, label: Tensor) -> Tensor:
        """The decoder's numbers for styles ``(*, latent)`` and labels ``(*)`` that broadcast."""
        leading = torch.broadcast_shapes(z.shape[:-1], label.shape)
        chosen = self._one_hot(label, z)
        return self.decoder(
            torch.cat([z.expand(*leading, -1), chosen.expand(*leading, -1)], dim=-1)
        )

    def _encoded(self, x: Tensor, label: Tensor) -> Tensor:
        """Features ``(*, width)`` of observations ``(N, *shape)`` with labels ``(*, N or 1)``."""
        leading = torch.broadcast_shapes(label.shape, x.shape[:1])
        rows = x.expand(*leading, *self.shape).reshape(-1, *self.shape)
        chosen = self._one_hot(label, x).expand(*leading, -1).reshape(-1, self.classes)
        return self.encoder(rows, chosen).reshape(*leading, -1)


class _Classifier(nn.Module):
    """Features of an observation, then one linear layer: every class as probable at the start."""

    def __init__(
        self,
        network: str,
        shape: Sequence[int],
        classes: int,
        hidden: Sequence[int] | None,
        activation: str | None,
    ) -> None:
        super().__init__()
        self.encoder = networks.encoder(network, shape, hidden, activation)
        self.last = nn.Linear(self.encoder.width, classes)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities of the classes, shape ``(N, classes)``."""
        return log_softmax(self.last(self.encoder(x)), dim=-1)
