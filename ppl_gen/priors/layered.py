"""Priors whose features depend on each other through networks."""

from __future__ import annotations

from typing import ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.nn import AutoRegressiveNN
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import softplus

from ppl_gen import laws
from ppl_gen.component import whole
from ppl_gen.priors.base import Prior


class AutoregressivePrior(Prior):
    r"""Each feature given those before it: a mixture of normals that a network chooses.

    .. math:: p(z) = \prod_d \sum_k w_{dk} \, \mathcal{N}(z_d \mid \mu_{dk}, \sigma_{dk}^2), \qquad
        (w_d, \mu_d, \sigma_d) = f_d(z_1, \dots, z_{d - 1})

    Its guide is a flow, unless another is named.

    Args:
        features: Size of ``z``.
        components: Normals of each feature.
        hidden: Units of the network.

    Raises:
        ValueError: If a size is below 1.

    Reference:
        Germain et al. (2015), https://arxiv.org/abs/1502.03509; as a prior, Chen et al. (2017),
        https://arxiv.org/abs/1611.02731
    """

    posterior: ClassVar[str] = "flow"
    like: Tensor

    def __init__(self, features: int, components: int = 5, hidden: int = 64) -> None:
        super().__init__(features)
        self.components = whole("components", components)
        self.register_buffer("like", torch.zeros(self.features), persistent=False)
        # One feature alone has none before it: its law is this and nothing else.
        self.first = nn.Parameter(torch.zeros(3, self.components, self.features))
        with torch.no_grad():  # components that are apart before anything is learned
            self.first[1] = torch.linspace(-1, 1, self.components).unsqueeze(-1)
        whole("hidden", hidden)
        self.net = None
        if self.features > 1:
            self.net = AutoRegressiveNN(
                self.features,
                [max(hidden, self.features)],
                param_dims=[3 * self.components],
                permutation=torch.arange(self.features),  # pyright: ignore[reportArgumentType]
            )

    def forward(self) -> TorchDistribution:
        return laws.Autoregressive(self._parts, self.like)

    def _parts(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.first
        if self.net is not None:
            parts = parts + self.net(value).unflatten(-2, (3, self.components))
        logits, loc, raw_scale = parts.expand(*value.shape[:-1], -1, -1, -1).unbind(-3)
        return logits, loc, softplus(raw_scale) + 1e-3

    @property
    def support(self) -> Constraint:
        return constraints.real_vector


class Hierarchical(Prior):
    r"""Two layers: the upper one says where the lower one lies. A decoder reads both.

    .. math:: t \sim \mathcal{N}(0, I), \quad
        b \sim \mathcal{N}(\mu(t), \mathrm{diag}(\sigma(t)^2)), \quad z = (b, t)

    Its guide is a normal law with all correlations, within a layer and between the two, unless
    another is named.

    Args:
        features: Size of ``z``, both layers together.
        top: Size of the upper layer; by default a quarter of the features.
        hidden: Units of the network between the layers.

    Raises:
        ValueError: If ``features`` is below 2, a size is below 1, or ``top`` leaves nothing below.

    Reference:
        Sonderby et al. (2016), https://arxiv.org/abs/1602.02282
    """

    posterior: ClassVar[str] = "full"
    like: Tensor

    def __init__(self, features: int, top: int | None = None, hidden: int = 64) -> None:
        super().__init__(whole("features", features, least=2))
        self.top = max(1, features // 4) if top is None else whole("top", top)
        if self.top >= features:
            raise ValueError(
                f"top must be below the number of features, {features}, got {top}: the lower layer "
                "has the others"
            )
        self.net = nn.Sequential(
            nn.Linear(self.top, whole("hidden", hidden)),
            nn.Tanh(),
            nn.Linear(hidden, 2 * (self.features - self.top)),
        )
        self.register_buffer("like", torch.zeros(self.features), persistent=False)

    def forward(self) -> TorchDistribution:
        return laws.Layered(self._below, self.like, self.top)

    def _below(self, top: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale = self.net(top).chunk(2, -1)
        return loc, log_scale.exp()

    @property
    def support(self) -> Constraint:
        return constraints.real_vector
