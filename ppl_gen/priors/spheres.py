"""Priors of directions."""

from __future__ import annotations

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from ppl_gen import laws
from ppl_gen.component import positive, whole
from ppl_gen.priors.base import Prior


class Sphere(Prior):
    r"""Vectors of length 1, every direction as likely as any other.

    .. math:: p(z) = \frac{\Gamma(D / 2)}{2 \pi^{D / 2}}, \quad \lVert z \rVert = 1

    Its divergence from a :class:`~ppl_gen.posteriors.PowerSpherical` has a closed form.

    Args:
        features: Size of ``z``; its vectors have one degree of freedom less.

    Raises:
        ValueError: If ``features`` is below 2.

    Reference:
        Davidson et al. (2018), https://arxiv.org/abs/1804.00891
    """

    like: Tensor

    def __init__(self, features: int) -> None:
        super().__init__(whole("features", features, least=2))
        self.register_buffer("like", torch.zeros(self.features), persistent=False)

    def forward(self) -> TorchDistribution:
        return laws.OnSphere(self.like)


class VonMisesFisher(Prior):
    r"""Vectors of length 1 about the first axis.

    .. math:: p(z) \propto e^{\kappa z_1}, \quad \lVert z \rVert = 1

    Args:
        features: Size of ``z``; its vectors have one degree of freedom less.
        concentration: :math:`\kappa`.

    Raises:
        ValueError: If ``features`` is below 2, or ``concentration`` is not positive.

    Reference:
        Fisher (1953), https://doi.org/10.1098/rspa.1953.0064; for codes, Davidson et al. (2018),
        https://arxiv.org/abs/1804.00891
    """

    loc: Tensor

    def __init__(self, features: int, concentration: float = 2.0) -> None:
        super().__init__(whole("features", features, least=2))
        self.concentration = positive("concentration", concentration)
        self.register_buffer("loc", torch.eye(self.features)[0], persistent=False)

    def forward(self) -> TorchDistribution:
        return laws.VonMisesFisher(self.loc, self.concentration)
