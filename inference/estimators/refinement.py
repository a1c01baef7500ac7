"""How much better the draws of a guide would serve if they were moved, stretched or turned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.inference.estimators.hmc import Density

HELD_OUT = 0.5
PARTICLES = 16


@dataclass(frozen=True)
class Refinement:
    """What is won by an affine map of the guide's draws, found for each datum on its own.

    Attributes:
        gain: By how much the ELBO rises, in nats, ``(N,)``; measured on draws that did not take
            part in the search, so that it errs downwards.
        error: Its standard error, in nats, ``(N,)``.
        shift: How far the mean moves, in standard deviations of the guide, ``(N, D)``.
        stretch: By which factor each deviation grows, ``(N, D)``.
    """

    gain: Tensor
    error: Tensor
    shift: Tensor
    stretch: Tensor


def refined(
    density: Density,
    draws: Tensor,
    full: bool = False,
    *,
    steps: int = 150,
    tell: Callable[[float], None] = lambda share: None,
) -> Refinement:
    r"""Climb the ELBO of each datum over affine maps of the guide's draws.

    .. math:: \max_{a, B} \; \mathrm{E}_{q(u)} \left[\log p(x, a + B u) - \log q(u)\right]
        + \log \lvert \det B \rvert

    A diagonal :math:`B` leads from a diagonal normal to every other, a triangular one from a normal
    to every other: within such a family nothing better is left for this datum, and what is won is
    what the encoder that all data share has lost, the amortisation gap. Of other families it is a
    part of that.

    Args:
        density: Joint log-density of latents and data at free coordinates.
        draws: Of the guide, in the same coordinates, ``(S, N, D)``, at least 4.
        full: Whether ``B`` is triangular, else diagonal.
        steps: Of the search.
        tell: Is told what share is done.

    Reference:
        Cremer et al. (2018), https://arxiv.org/abs/1801.03558
    """
    count, rows, dimensions = draws.shape
    seen, held_out = draws[: int(count * HELD_OUT)], draws[int(count * HELD_OUT) :]
    loc, scale = seen.mean(0), seen.std(0).clamp_min(1e-6)
    shift = torch.zeros_like(loc, requires_grad=True)
    log_stretch = torch.zeros_like(loc, requires_grad=True)
    turn = torch.zeros(rows, dimensions, dimensions, dtype=loc.dtype, device=loc.device)
    turn.requires_grad_()

    def mapped(points: Tensor) -> Tensor:
        unit = (points - loc) / scale
        moved = shift + log_stretch.exp() * unit
        if full:
            moved = moved + torch.einsum("nde,sne->snd", turn.tril(-1), unit)
        return loc + scale * moved

    optimizer = torch.optim.Adam([shift, log_stretch, turn] if full else [shift, log_stretch])
    for step in range(steps):
        # From quick to fine, so that what is left of the noise is small at the end.
        rate = 0.1 * (1 - step / steps) + 1e-3
        optimizer.param_groups[0]["lr"] = rate
        chosen = seen[torch.randint(len(seen), (min(PARTICLES, len(seen)),))]
        points = mapped(chosen)
        slope = density(points.detach())[1].nan_to_num(0.0)
        # The chain rule by hand: the density gives its gradient at the points.
        climbed = (slope * points).sum(-1).mean(0) + log_stretch.sum(-1)
        optimizer.zero_grad()
        (-climbed.sum()).backward()
        optimizer.step()
        tell((step + 1) / steps)
    before = density(held_out)[0].double()
    after = density(mapped(held_out).detach())[0].double() + log_stretch.detach().sum(-1)
    gains = after - before
    matrix = torch.diag_embed(log_stretch.exp()) + (turn.tril(-1) if full else 0)
    return Refinement(
        gain=gains.mean(0),
        error=gains.std(0) / len(gains) ** 0.5,
        shift=shift.detach(),
        stretch=matrix.square().sum(-1).sqrt().detach(),
    )
