"""Hamiltonian Monte Carlo, batched: many chains for each of many densities at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Log-densities (C, N) and their gradients (C, N, D) at points (C, N, D), and what else is worth
# keeping of the points, each beginning with (C, N).
Density = Callable[[Tensor], tuple[Tensor, ...]]

# The share of accepted proposals at which a step costs least (Beskos et al. 2013: 0.651).
ACCEPTANCE = 0.65


class State(NamedTuple):
    """Where chains stand.

    Attributes:
        position: ``(C, N, D)``.
        log_density: In nats, ``(C, N)``.
        gradient: ``(C, N, D)``.
        kept: What else the density says of its points.
    """

    position: Tensor
    log_density: Tensor
    gradient: Tensor
    kept: tuple[Tensor, ...] = ()


def begun(density: Density, position: Tensor) -> State:
    """The state of chains that begin at these points, ``(C, N, D)``."""
    log_density, gradient, *kept = density(position)
    return State(position, log_density, gradient, tuple(kept))


def moved(
    density: Density, state: State, size: Tensor, scale: Tensor, leapfrogs: int
) -> tuple[State, Tensor]:
    """Every chain moved once, so that draws of its density stay draws of it.

    A proposal whose density is not finite is refused.

    Args:
        density: Of all chains.
        state: Where they stand.
        size: Of a leapfrog step, without unit, ``(N,)``.
        scale: Units of the coordinates, about the deviations of the density, ``(N, D)``; or a
            factor of their covariance, ``(N, D, D)``.
        leapfrogs: Steps a proposal.

    Returns:
        The new state, and the probabilities with which the proposals were to be accepted,
        ``(C, N)``.

    Reference:
        Neal (2011), section 3.2, https://arxiv.org/abs/1206.1901
    """
    step = size.reshape(-1, *[1] * (scale.dim() - 1)) * scale
    momentum = torch.randn_like(state.position)
    new = state
    energy = state.log_density - momentum.square().sum(-1) / 2
    for _ in range(leapfrogs):
        momentum = momentum + _turned(step.mT if step.dim() == 3 else step, new.gradient) / 2
        new = begun(density, new.position + _turned(step, momentum))
        momentum = momentum + _turned(step.mT if step.dim() == 3 else step, new.gradient) / 2
    gain = new.log_density - momentum.square().sum(-1) / 2 - energy
    accepted = gain.nan_to_num(-torch.inf, posinf=-torch.inf).clamp(max=0).exp()
    taken = torch.rand_like(accepted) < accepted
    return _chosen(taken, new, state), accepted


def _turned(step: Tensor, vector: Tensor) -> Tensor:
    """Vectors ``(C, N, D)`` times a step, ``(N, D)`` or ``(N, D, D)``."""
    return step * vector if step.dim() == 2 else torch.einsum("nde,cne->cnd", step, vector)


def _factor(met: Tensor) -> Tensor:
    """What turns unit coordinates into those of points ``(M, N, D)``: deviations, or more.

    With many points a factor of their covariance, which shrinks a little towards the deviations.
    """
    deviations = met.std(0).clamp_min(1e-9)
    if met.shape[-1] == 1 or len(met) < 8 * met.shape[-1]:
        return deviations
    unit = (met - met.mean(0)) / deviations
    correlations = torch.einsum("mnd,mne->nde", unit, unit) / len(met)
    shrunk = 0.95 * correlations + 0.05 * torch.eye(met.shape[-1]).to(met)
    factor, failed = torch.linalg.cholesky_ex(shrunk)
    plain = torch.eye(met.shape[-1]).to(met)
    factor = torch.where(failed[:, None, None] > 0, plain, factor)
    return deviations[:, :, None] * factor


def _chosen(taken: Tensor, new: State, old: State) -> State:
    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(taken.reshape(taken.shape + (1,) * (a.dim() - 2)), a, b)

    return State(
        choose(new.position, old.position),
        choose(new.log_density, old.log_density),
        choose(new.gradient, old.gradient),
        tuple(map(choose, new.kept, old.kept)),
    )


def adapted(size: Tensor, accepted: Tensor, rate: float = 0.2) -> Tensor:
    """Step sizes, ``(N,)``, after so many of the proposals of each density were accepted, (C, N).

    Larger where more than :data:`ACCEPTANCE` were, smaller where fewer; never above 1.5, beyond
    which no step is stable along a coordinate of unit deviation (the limit is 2).
    """
    return (size * (rate * (accepted.mean(0) - ACCEPTANCE)).exp()).clamp(1e-4, 1.5)


def chains(
    density: Density,
    position: Tensor,
    scale: Tensor,
    draws: int,
    warmup: int,
    leapfrogs: int = 8,
    tell: Callable[[float], None] = lambda share: None,
) -> Iterator[Tensor]:
    """Positions of chains, after a warm-up in which they find their steps.

    In the middle of the warm-up the units of the coordinates become the deviations and correlations
    that the chains have met by then. The number of leapfrog steps varies from draw to draw, so that
    no orbit closes on itself.

    Args:
        density: Of all chains.
        position: Where they begin, ``(C, N, D)``.
        scale: Units of the coordinates to begin with, ``(N, D)``.
        draws: How many positions are given.
        warmup: How many go before, at least 8.
        leapfrogs: Steps a draw, at most.
        tell: Is told what share is done.

    Yields:
        Positions, ``(C, N, D)``.

    Reference:
        Neal (2011), section 3.2, https://arxiv.org/abs/1206.1901
    """
    state, half = begun(density, position), warmup // 2
    begin = torch.full(position.shape[1:2], 0.3, dtype=position.dtype, device=position.device)
    size, met = begin, []
    for number in range(warmup + draws):
        steps = int(torch.randint(1, leapfrogs + 1, ()))
        state, accepted = moved(density, state, size, scale, steps)
        tell((number + 1) / (warmup + draws))
        if number >= warmup:
            yield state.position
            continue
        size = adapted(size, accepted, rate=1.0 if number % half < half // 2 else 0.3)
        if half // 2 <= number < half:
            met.append(state.position)
        if number == half:
            scale, size = _factor(torch.cat(met)), begin
