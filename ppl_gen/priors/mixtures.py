"""Priors that are mixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from ppl_gen import laws
from ppl_gen.component import choice, whole
from ppl_gen.errors import StoryError
from ppl_gen.priors.base import Prior

Pseudo = Literal["learned", "data"]


class MixturePrior(Prior):
    r"""A mixture of diagonal normals, every part of it learned.

    .. math:: p(z) = \sum_{k=1}^{K} w_k \, \mathcal{N}(z \mid \mu_k, \mathrm{diag}(\sigma_k^2))

    Args:
        features: Size of ``z``.
        components: Number of normals, :math:`K`.

    Raises:
        ValueError: If ``features`` or ``components`` is below 1.

    Reference:
        Tomczak and Welling (2018), the "MoG" prior, https://arxiv.org/abs/1705.07120
    """

    def __init__(self, features: int, components: int = 10) -> None:
        super().__init__(features)
        components = whole("components", components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, features))
        self.log_scale = nn.Parameter(torch.zeros(components, features))

    def forward(self) -> TorchDistribution:
        return laws.NormalMixture(self.logits, self.loc, self.log_scale.exp())


class VampPrior(Prior):
    r"""A mixture of what the guide says of pseudo-inputs: the aggregate posterior, in small.

    .. math:: p(z) = \frac{1}{K} \sum_{k=1}^{K} q(z \mid u_k)

    The pseudo-inputs :math:`u_k` have the form of observations. They begin as rows of the data. It
    belongs to a story whose guide reads observations alone, such as VAE.

    Args:
        features: Size of ``z``.
        components: Number of pseudo-inputs, :math:`K`.
        pseudo: Whether pseudo-inputs are learned, or stay the rows of the data that they begin as.
        inputs: Pseudo-inputs to begin with in place of rows, ``(components, *shape)``, a tensor.

    Raises:
        ValueError: If ``features`` or ``components`` is below 1, ``pseudo`` is neither, or
            ``inputs`` are not so many of them, or have another shape than the data.

    Reference:
        Tomczak and Welling (2018), https://arxiv.org/abs/1705.07120
    """

    inputs: Tensor

    def __init__(
        self,
        features: int,
        components: int = 50,
        pseudo: Pseudo = "learned",
        inputs: Tensor | None = None,
    ) -> None:
        super().__init__(features)
        self.components = whole("components", components)
        self.learned = choice("pseudo", pseudo, Pseudo) == "learned"
        self.given = inputs
        if inputs is not None and len(inputs) != self.components:
            raise ValueError(
                f"inputs must be as many as components, {self.components}, got {len(inputs)}"
            )
        self._guide: tuple[Callable[[Tensor], Any], ...] = ()

    def follow(self, guide: Callable[[Tensor], TorchDistribution], shape: tuple[int, ...]) -> None:
        # In a tuple it is no submodule: its parameters belong to the story.
        self._guide = (guide,)
        value = torch.rand(self.components, *shape)
        if self.given is not None:
            if self.given.shape[1:] != shape:
                raise ValueError(
                    "pseudo-inputs must have the shape of an observation, "
                    f"{shape}, got {tuple(self.given.shape[1:])}"
                )
            value = self.given.detach().clone().to(value)
        if self.learned:
            self.inputs = nn.Parameter(value)
        else:
            self.register_buffer("inputs", value)

    def start(self, x: Tensor) -> None:
        if self.given is None:
            chosen = torch.randperm(len(x))[: self.components]
            if len(chosen) < self.components:  # fewer rows than components: some serve again
                chosen = torch.randint(len(x), (self.components,))
            with torch.no_grad():
                self.inputs.copy_(x[chosen.to(x.device)])

    def forward(self) -> TorchDistribution:
        if not self._guide:
            raise StoryError(
                "VampPrior must be part of a story whose guide reads observations alone, as that "
                "of VAE does: there is no guide that it could be made of"
            )
        law = self._guide[0](self.inputs)
        if isinstance(law, dist.Delta):
            raise StoryError(
                "VampPrior must be made of laws that have a density, but the guide gives a single "
                "code: take another posterior than 'point', or another prior"
            )
        logits = self.inputs.new_zeros(self.components)
        if isinstance(law, dist.Independent) and isinstance(law.base_dist, dist.Normal):
            return laws.NormalMixture(logits, law.base_dist.loc, law.base_dist.scale)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), law)

    @property
    def support(self) -> Constraint:
        return constraints.real_vector

    @property
    def configuration(self) -> dict[str, Any]:
        plain = super().configuration
        # They are among the weights.
        plain["arguments"]["inputs"] = None
        return plain
