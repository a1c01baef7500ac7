"""Annealed importance sampling: evidence from chains on the way from a known law to a posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.inference.estimators.hmc import Density, State, adapted, begun, moved


@dataclass(frozen=True)
class Start:
    """A mixture of diagonal normals for each datum, in equal parts: where chains begin.

    One part may stand where a guide says that the posterior is, the other cover all that the prior
    allows, so that what the guide has missed is found as well.

    Attributes:
        loc: Means, ``(K, N, D)``.
        scale: Standard deviations, ``(K, N, D)``.
    """

    loc: Tensor
    scale: Tensor

    def draw(self, chains: int) -> Tensor:
        """Points, ``(C, N, D)``: the same number from each part, or one more."""
        part = torch.arange(chains) % len(self.loc)
        return self.loc[part] + self.scale[part] * torch.randn_like(self.loc[part])

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Log-densities ``(C, N)``, in nats, and their gradients, at points ``(C, N, D)``."""
        away = (position[:, None] - self.loc) / self.scale
        constant = math.log(len(self.loc)) + position.shape[-1] * math.log(2 * math.pi) / 2
        terms = -away.square().sum(-1) / 2 - self.scale.log().sum(-1) - constant
        shares = terms.softmax(1)[..., None]
        return terms.logsumexp(1), -(shares * away / self.scale).sum(1)


@dataclass(frozen=True)
class Schedule:
    """How chains go from the start to the density.

    Attributes:
        temperatures: From 0, the start, to 1, the density, ``(T + 1,)``.
        sizes: Leapfrog step sizes at each of the ``T`` moves, ``(T, N)``.
        scale: Units of the coordinates, ``(N, D)``.
        leapfrogs: Steps a move.
    """

    temperatures: Tensor
    sizes: Tensor
    scale: Tensor
    leapfrogs: int

    @property
    def moves(self) -> int:
        """How many there are on the way."""
        return len(self.sizes)


def scheduled(
    density: Density, start: Start, moves: int, *, chains: int = 8, leapfrogs: int = 5
) -> Schedule:
    """A schedule whose step sizes are found by chains that go the way once, in fewer moves.

    The chains that are weighed later do not adapt, which would bias their weights.

    Args:
        density: The joint density of latents and data.
        start: Where chains begin.
        moves: How many they make.
        chains: How many go first.
        leapfrogs: Steps a move.

    Reference:
        Wu et al. (2017), appendix A, https://arxiv.org/abs/1611.04273
    """
    scale = start.scale[0]
    few = max(10, moves // 4)
    temperatures = _temperatures(few, scale)
    path = _Path(density, start)
    state = path.begun(start.draw(chains))
    size, sizes = torch.full_like(scale[:, 0], 0.3), []
    for temperature in temperatures[1:]:
        state = path.warmed(state, temperature)
        for _ in range(2):
            state, accepted = moved(path.at(temperature), state, size, scale, leapfrogs)
            size = adapted(size, accepted, rate=0.7)
        sizes.append(size)
    # Each of the few stands for as many moves of the schedule.
    found = torch.stack(sizes)[torch.arange(moves) * few // moves]
    return Schedule(_temperatures(moves, scale), found, scale, leapfrogs)


def annealed(
    density: Density,
    start: Start,
    schedule: Schedule,
    chains: int,
    tell: Callable[[float], None] = lambda share: None,
) -> tuple[Tensor, Tensor]:
    r"""Weights of chains that go from the start to the density, and where they end.

    .. math:: \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1})
        \left(\log p(x, z_{t-1}) - \log r(z_{t-1})\right)

    The mean of :math:`w` is the evidence :math:`p(x)` without bias, so that the logarithm of the
    mean of some chains lies below :math:`\log p(x)` in expectation, and rises to it with the number
    of moves.

    Args:
        density: The joint density of latents and data.
        start: Where chains begin, :math:`r`.
        schedule: How they go.
        chains: How many for each datum, ``C``.
        tell: Is told what share is done.

    Returns:
        Log-weights, ``(C, N)``, in nats; and positions, ``(C, N, D)``, draws of the posterior once
        they are weighed.

    Reference:
        Neal (2001), https://arxiv.org/abs/physics/9803008; Wu et al. (2017),
        https://arxiv.org/abs/1611.04273
    """
    return _gone(density, start, schedule, start.draw(chains), False, tell)


def reversed_annealed(
    density: Density,
    start: Start,
    schedule: Schedule,
    position: Tensor,
    tell: Callable[[float], None] = lambda share: None,
) -> Tensor:
    r"""Weights of chains that go from exact draws of the posterior back to the start.

    Of data that the story made itself the latents are known, which are exact draws of their
    posterior. The mean of :math:`1 / w` is :math:`1 / p(x)` without bias, so that minus the
    logarithm of that mean lies above :math:`\log p(x)` in expectation.

    Args:
        density: The joint density of latents and data.
        start: Where chains end.
        schedule: As of the chains the other way.
        position: Where they begin, ``(C, N, D)``.
        tell: Is told what share is done.

    Returns:
        :math:`\log w`, ``(C, N)``, in nats.

    Reference:
        Grosse et al. (2015), https://arxiv.org/abs/1511.02543; Wu et al. (2017), section 3.2
    """
    return _gone(density, start, schedule, position, True, tell)[0]


class _Path:
    """The densities between start and end, their logarithms mixed by the temperature.

    What both ends say of a point is kept, so that it serves at the next temperature, too.
    """

    def __init__(self, density: Density, start: Start) -> None:
        self.density = density
        self.start = start

    def begun(self, position: Tensor) -> State:
        """Chains that stand at the start."""
        return begun(self.at(torch.zeros(())), position)

    def at(self, temperature: Tensor) -> Density:
        """The density at a temperature."""

        def mixed(position: Tensor) -> tuple[Tensor, ...]:
            return self._mixed(temperature, *self.start(position), *self.density(position)[:2])

        return mixed

    def warmed(self, state: State, temperature: Tensor) -> State:
        """The same points at another temperature."""
        log_density, gradient, *kept = self._mixed(temperature, *state.kept)
        return State(state.position, log_density, gradient, tuple(kept))

    def _mixed(
        self, temperature: Tensor, first: Tensor, slope: Tensor, last: Tensor, last_slope: Tensor
    ) -> tuple[Tensor, ...]:
        return (
            first + temperature * (last - first),
            slope + temperature * (last_slope - slope),
            first,
            slope,
            last,
            last_slope,
        )


def _gone(
    density: Density,
    start: Start,
    schedule: Schedule,
    position: Tensor,
    back: bool,
    tell: Callable[[float], None],
) -> tuple[Tensor, Tensor]:
    """Log-weights of chains that go the way, or back, and where they end."""
    path, temperatures = _Path(density, start), schedule.temperatures
    order = range(schedule.moves)
    state = path.begun(position)
    log_weights = torch.zeros(position.shape[:2], dtype=torch.float64, device=position.device)
    for done, number in enumerate(reversed(order) if back else order):
        rise = temperatures[number + 1] - temperatures[number]
        if not back:
            log_weights += rise * _difference(state)
        state = path.warmed(state, temperatures[number + 1])
        at = path.at(temperatures[number + 1])
        state, _ = moved(at, state, schedule.sizes[number], schedule.scale, schedule.leapfrogs)
        if back:
            log_weights += rise * _difference(state)
        tell((done + 1) / schedule.moves)
    return log_weights, state.position


def _difference(state: State) -> Tensor:
    """How much higher the density lies than the start, ``(C, N)``."""
    first, _, last, _ = state.kept
    return (last.double() - first.double()).nan_to_num(-torch.inf)


def _temperatures(moves: int, like: Tensor) -> Tensor:
    """Closer together near the start, where chains that come from the prior meet the data."""
    return torch.linspace(0, 1, moves + 1, dtype=like.dtype, device=like.device) ** 3
