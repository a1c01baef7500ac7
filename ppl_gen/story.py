"""The base class of the stories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

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

    Attributes:
        dims: Names of a site's event dimensions, outermost first, for the tree of draws: ArviZ's
            ``dims``. Dimensions that are plates already have their names.
        exchangeable: The dimension, among plates and ``dims``, whose entries can change places
            without changing the story, as the components of a mixture can. Draws are then
            relabelled to agree with each other.
        indices: Discrete sites whose values number entries of that dimension.
        takes_units: Whether it measures the data in their own spread, so that columns may have any
            units.
    """

    dims: Mapping[str, tuple[str, ...]] = {}
    exchangeable: ClassVar[str | None] = None
    indices: ClassVar[tuple[str, ...]] = ()
    takes_units: ClassVar[bool] = False

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


@runtime_checkable
class Maximisable(Protocol):
    """A story whose likelihood is climbed by expectation and maximisation.

    What the E-step finds is a table of sums over rows, so that batches add up to the data set, and
    a running mean of batches' sums serves as well (Cappe and Moulines 2009,
    https://arxiv.org/abs/0712.4273).
    """

    def start(self, *batch: Any) -> None:
        """First parameters, drawn from torch's generator: another call, another start."""

    def statistics(self, *batch: Any) -> dict[str, Tensor]:
        """The E-step: expected sufficient statistics under the present parameters.

        Returns:
            Sums over the rows of the batch, in double precision; among them ``"rows"``, how many
            rows they are of, shape ``()``, and ``"log_likelihood"``, in nats, shape ``()``.
        """
        ...

    def maximise(self, statistics: Mapping[str, Tensor]) -> None:
        """The M-step: set the parameters to those of highest likelihood given the statistics."""


@runtime_checkable
class OpenEnded(Maximisable, Protocol):
    """A story that finds out how many components it needs.

    It begins with more than enough. Whenever its likelihood has been climbed, it is scored, and
    gives the same story with one component less; the one with the lowest score is kept.
    """

    @property
    def open_ended(self) -> bool:
        """Whether the number of components is still to be found."""
        ...

    def score(self, log_likelihood: float, rows: int) -> float:
        """The price of the data under this story, in nats: the lower the better."""
        ...

    def smaller(self) -> Self | None:
        """The same story without its weakest component; None if it has but one."""
        ...

    def settled(self) -> Self:
        """The same story, its number of components fixed at what it is."""
        ...


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
