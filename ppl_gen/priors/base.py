"""What every prior is: a law of the latent code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from ppl_gen import laws
from ppl_gen.component import Component, whole


class Prior(Component, ABC):
    """A law of the latent code: a module whose ``forward`` returns a distribution.

    Args:
        features: Size of the code ``z``.

    Raises:
        ValueError: If ``features`` is below 1.

    Attributes:
        scored: Whether the law has a density. One that can only be drawn from is *implicit*.
        posterior: What the guide gives to a code unless it is told; auto leaves it to the support.
    """

    features: int
    scored: ClassVar[bool] = True
    posterior: ClassVar[str] = "auto"

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = whole("features", features)

    @abstractmethod
    def forward(self) -> TorchDistribution:
        """The law of one code: batch shape ``()``, event shape ``(features,)``."""

    @property
    def support(self) -> Constraint:
        """The values that a code can take."""
        support = self().support
        assert isinstance(support, Constraint)
        return support

    def follow(self, guide: Callable[[Tensor], TorchDistribution], shape: tuple[int, ...]) -> None:
        """Learn of the guide, which some priors are made of; most do nothing.

        Args:
            guide: The law of codes that the guide gives to observations ``(N, *shape)``.
            shape: Shape of an observation.
        """

    def start(self, x: Tensor) -> None:
        """Take first values from the data; most priors do nothing.

        Args:
            x: Observations, ``(N, *shape)``.
        """


class ImplicitPrior(Prior):
    """A law of the code that can be drawn from, and has no density.

    One of one's own is a method::

        class Ring(ImplicitPrior):
            def sample(self, n):
                return torch.nn.functional.normalize(torch.randn(n, self.features), dim=1)

    Args:
        features: Size of the code ``z``.

    Raises:
        ValueError: If ``features`` is below 1.
    """

    scored: ClassVar[bool] = False

    @abstractmethod
    def sample(self, n: int) -> Tensor:
        """So many draws, from torch's generator, ``(n, features)``."""

    def forward(self) -> TorchDistribution:
        return laws.Drawn(self.sample, self.features, type(self).__name__)

    @property
    def support(self) -> Constraint:
        return constraints.real_vector
