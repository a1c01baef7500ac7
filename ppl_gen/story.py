"""The base class of the stories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from ppl_gen.component import Component
from ppl_gen.errors import StoryError


class Story(Component, ABC):
    """A generative story: two Pyro programs over the same latent sites.

    ``model`` tells how the data came to be; ``guide`` reads the story backwards, from the data to
    the latents. Both take the same batch. Nothing else is required: losses, devices and training
    belong to :func:`ppl_gen.fit`, which finds sites, plates and parameters by tracing. The class
    only saves typing: any object with these two methods serves as well.

    A story of one's own, with one local latent::

        class Coin(pg.Story):
            def __init__(self) -> None:
                super().__init__()
                self.encoder = nn.Linear(1, 2)

            def model(self, x):                          # x: shape (N, 1)
                with pyro.plate("observations", len(x)):
                    z = pyro.sample("z", dist.Normal(0.0, 1.0))
                    pyro.sample("x", dist.Normal(z, 0.5), obs=x.squeeze(-1))

            def guide(self, x):
                loc, log_scale = self.encoder(x).unbind(-1)
                with pyro.plate("observations", len(x)):
                    pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    The plate may have the size of the batch, as here: in mini-batches its terms are weighted up to
    the whole data set, so that global latents and parameters see the right balance.
    """

    def start(self, *batch: Any, **named: Any) -> None:
        """Take first weights from the data; :func:`ppl_gen.fit` calls it once, before it begins.

        Not called on a warm start. Does nothing unless a story says otherwise.

        Args:
            *batch: All rows of the training data; probabilities where they are redrawn.
        """

    @abstractmethod
    def model(self, *batch: Any, **named: Any) -> Any:
        """The story: sampling statements, the data among them with ``obs=``."""

    @abstractmethod
    def guide(self, *batch: Any, **named: Any) -> Any:
        """The same latent sites, drawn from the approximate posterior."""


def observations(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The batch in floating point, once its observations have the shape the story was built for.

    Args:
        x: A batch of observations of any dtype, expected of shape ``(N, *shape)``.
        shape: Shape of one observation.

    Raises:
        StoryError: If the shapes differ.
    """
    if x.ndim == 0 or x.shape[1:] != shape:
        raise StoryError(
            f"the story expects observations of shape {shape}, got {tuple(x.shape[1:])}: "
            "reshape the data, or build the story with the shape of one observation"
        )
    # Not every law of torch scores integers: Bernoulli does not.
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())
