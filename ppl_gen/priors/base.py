"""What every prior is: a law of the latent code."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pyro.distributions.torch_distribution import TorchDistribution
from torch.distributions.constraints import Constraint

from ppl_gen.component import Component, whole


class Prior(Component, ABC):
    """A law of the latent code: a module whose ``forward`` returns a distribution.

    Args:
        features: Size of the code ``z``.

    Raises:
        ValueError: If ``features`` is below 1.
    """

    features: int

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
