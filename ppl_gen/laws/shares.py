"""Shares of a whole, of real numbers or of a stick that is broken."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import constraints, transforms
from torch import Tensor

from ppl_gen.laws.base import Law


class LogRatios(transforms.Transform):
    r"""From logarithms of shares, less that of the last one, to the shares.

    .. math:: z_d = e^{u_d} / (1 + \textstyle\sum_e e^{u_e})
    """

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogRatios)

    def _call(self, x: Tensor) -> Tensor:
        return torch.softmax(_with_zero(x), -1)

    def _inverse(self, y: Tensor) -> Tensor:
        log = y.clamp(min=torch.finfo(y.dtype).tiny).log()
        return log[..., :-1] - log[..., -1:]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.log_softmax(_with_zero(x), -1).sum(-1)

    def forward_shape(self, shape: Any) -> torch.Size:
        return torch.Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> torch.Size:
        return torch.Size((*shape[:-1], shape[-1] - 1))


class Sticks(transforms.Transform):
    r"""From the parts that are broken off what is left of a stick to their lengths.

    .. math:: z_d = v_d \prod_{e < d} (1 - v_e)

    and the last length is what is left.
    """

    domain = constraints.independent(constraints.unit_interval, 1)
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sticks)

    def _call(self, x: Tensor) -> Tensor:
        left = torch.cumprod(1 - x, -1)
        before = torch.cat([torch.ones_like(left[..., :1]), left[..., :-1]], -1)
        return torch.cat([x * before, left[..., -1:]], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        # What is left is added up from the end, where a difference from 1 would keep no digits.
        left = y.flip(-1).cumsum(-1).flip(-1)[..., :-1]
        eps = torch.finfo(y.dtype)
        return (y[..., :-1] / left.clamp(min=eps.tiny)).clamp(eps.tiny, 1 - eps.eps)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        count = x.shape[-1]
        powers = torch.arange(count - 1, -1, -1, dtype=x.dtype, device=x.device)
        return (powers * torch.log1p(-x)).sum(-1)

    def forward_shape(self, shape: Any) -> torch.Size:
        return torch.Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> torch.Size:
        return torch.Size((*shape[:-1], shape[-1] - 1))


class KumaraswamySticks(Law):
    r"""Shares broken off a stick by parts of Kumaraswamy's law.

    .. math:: p(v_d) = a_d b_d v_d^{a_d - 1} (1 - v_d^{a_d})^{b_d - 1}

    Args:
        first: :math:`a`, ``(*, D - 1)``.
        second: :math:`b`, of the same shape.
    """

    batched: ClassVar[dict[str, int]] = {"first": 1, "second": 1}
    support: Any = constraints.simplex  # pyright: ignore
    has_rsample = True

    def __init__(self, first: Tensor, second: Tensor, validate_args: bool | None = None) -> None:
        self.first, self.second = first, second
        shape = torch.Size([first.shape[-1] + 1])
        super().__init__(first.shape[:-1], shape, validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.first.shape
        finfo = torch.finfo(self.first.dtype)
        # 1 - v^a is u^(1/b), of u between 0 and 1: its logarithm has digits at both ends.
        uniform = torch.rand(shape, dtype=self.first.dtype, device=self.first.device)
        log_rest = uniform.clamp(min=finfo.tiny).log() / self.second
        power = (-torch.expm1(log_rest)).clamp(min=finfo.tiny)
        part = (power.log() / self.first).exp().clamp(finfo.tiny, 1 - finfo.eps)
        return Sticks()._call(part)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        sticks = Sticks()
        part = sticks._inverse(value)
        a, b = self.first, self.second
        rest = torch.log1p(-(part**a))
        each = a.log() + b.log() + (a - 1) * part.log() + (b - 1) * rest
        return each.sum(-1) - sticks.log_abs_det_jacobian(part, value)


def _with_zero(x: Tensor) -> Tensor:
    return torch.cat([x, torch.zeros_like(x[..., :1])], -1)
