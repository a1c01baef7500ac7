"""Priors whose shape is learned by a flow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from ppl_gen import laws
from ppl_gen.component import choice, whole, whole_sizes
from ppl_gen.priors.base import Prior

Kind = Literal["maf", "nsf", "realnvp", "gf", "cnf"]


class FlowPrior(Prior):
    r"""A normal law carried through learned maps, by zuko.

    .. math:: p(z) = \mathcal{N}(T(z) \mid 0, I)
        \left\lvert \det \frac{\partial T}{\partial z} \right\rvert

    Args:
        features: Size of ``z``.
        kind: Of the maps: maf (masked autoregressive; Papamakarios et al. 2017), nsf (neural
            splines; Durkan et al. 2019), realnvp (coupling; Dinh et al. 2017), gf (Gaussianisation;
            Meng et al. 2020) or cnf (continuous; Chen et al. 2018), which is slow.
        transforms: How many maps, one after the other; cnf has a single one.
        hidden: Units of each hidden layer of a map.

    Raises:
        ValueError: If a size is below 1, ``kind`` is none of these, or realnvp has one feature,
            which leaves nothing to couple.

    Reference:
        Chen et al. (2017), https://arxiv.org/abs/1611.02731
    """

    def __init__(
        self,
        features: int,
        kind: Kind = "nsf",
        transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__(features)
        options: dict[str, Any] = {"hidden_features": whole_sizes("hidden", hidden)}
        if choice("kind", kind, Kind) == "realnvp" and self.features < 2:
            raise ValueError("features must be at least 2 for realnvp, got 1: take maf or nsf")
        transforms = whole("transforms", transforms)
        if kind == "gf":  # its maps are of one feature each, between rotations: without networks
            options = {"transforms": transforms}
        elif kind != "cnf":
            options["transforms"] = transforms
        if kind == "realnvp":  # a masked map that is undone in two passes is a coupling
            options["passes"] = 2
        flows = laws.zuko_flows()
        makers = {"nsf": flows.NSF, "gf": flows.GF, "cnf": flows.CNF}
        self.flow = makers.get(kind, flows.MAF)(self.features, **options)
        if kind == "gf":
            _start_near_normal(self.flow)

    def forward(self) -> TorchDistribution:
        return laws.Flow(self.flow())

    @property
    def support(self) -> Constraint:
        return constraints.real_vector


def _start_near_normal(flow: Any) -> None:
    """Let a Gaussianisation begin as hardly any change, and keep its tails."""
    from zuko.flows import ElementWiseTransform
    from zuko.transforms import GaussianizationTransform

    class FarReaching(GaussianizationTransform):
        """zuko's gives at most 4.9, beyond which the next one, or the base, still has mass."""

        def f(self, x: Tensor) -> Tensor:
            place = x.unsqueeze(-1) * self.scale + self.shift
            lower, upper = (
                torch.special.log_ndtr(side).logsumexp(-1) - math.log(place.shape[-1])
                for side in (place, -place)
            )
            # Of the smaller tail, which has all its digits.
            smaller = torch.minimum(lower, upper).exp().clamp(min=torch.finfo(x.dtype).tiny)
            side = torch.where(lower < upper, 1.0, -1.0).to(x)
            return side * torch.special.ndtri(smaller)

    for module in flow.modules():
        if isinstance(module, ElementWiseTransform):
            module.univariate = partial(FarReaching, bound=100.0)
            with torch.no_grad():
                for value in module.phi:
                    value.mul_(0.1)
