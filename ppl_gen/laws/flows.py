"""Flows: laws that carry one that is known through learned maps."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution


class Flow(TorchDistribution):
    r"""A flow of zuko's as a law of Pyro's.

    .. math:: z = T^{-1}(u), \quad u \sim p(u), \qquad
        p(z) = p(T(z)) \left\lvert \det \frac{\partial T}{\partial z} \right\rvert

    What it drew last is scored with the point it was carried from, without finding that again.

    Args:
        flow: A :class:`zuko.distributions.NormalizingFlow`, event shape ``(D,)``.
    """

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore
    support: Any = constraints.real_vector  # pyright: ignore
    has_rsample = True

    def __init__(self, flow: Any, validate_args: bool | None = None) -> None:
        self.flow = flow
        self._last: tuple[Tensor, Tensor] | None = None
        super().__init__(flow.batch_shape, flow.event_shape, validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        value, log_prob = self.flow.rsample_and_log_prob(torch.Size(sample_shape))
        self._last = (value, log_prob)
        return value

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.flow.sample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._last is not None and value is self._last[0]:
            return self._last[1]
        if self._validate_args:
            self._validate_sample(value)
        return self.flow.log_prob(value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Flow:
        return Flow(self.flow.expand(torch.Size(batch_shape)), self._validate_args)


def zuko_flows() -> Any:
    """``zuko.flows``, whose import would switch off the validation of all laws of torch."""
    validated = Distribution._validate_args
    try:
        import zuko.flows
    finally:
        Distribution.set_default_validate_args(validated)
    return zuko.flows
