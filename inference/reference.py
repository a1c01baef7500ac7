"""A second look at the posterior, by chains that know nothing of the guide's family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import pyro
import torch
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.estimators.annealing import (
    Start,
    annealed,
    reversed_annealed,
    scheduled,
)
from ppl_gen.inference.estimators.hmc import chains
from ppl_gen.inference.estimators.nuts import nuts
from ppl_gen.inference.estimators.refinement import Refinement, refined
from ppl_gen.inference.passes import plan
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.target import Target
from ppl_gen.inference.tracing import Batch

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

CHAINS = 32
MOVES = 200
GUIDE_DRAWS = 1000
KEPT = 100
# Of a single posterior of all data so many times as many, which no mean over rows makes up for.
ALONE = 4
WARMUP = 100
NUTS_CHAINS, NUTS_DRAWS, NUTS_WARMUP = 2, 500, 300

Tell = Callable[[float], None]


def nobody(share: float) -> None:
    """Is told what share is done, and does nothing."""


@dataclass(frozen=True)
class Reference:
    """What chains found of the posterior of some rows, beside the guide's draws of it.

    Positions are in free coordinates: where a latent is constrained, those that Pyro's bijection
    gives. For global latents there is one row, of all data together.

    Attributes:
        names: What each coordinate is called, such as ``z[3]``, ``D`` of them.
        guide: Draws of the guide, ``(S, N, D)``.
        log_weights: Of these draws, in nats, ``(S, N)``.
        annealed: Log-weights of annealed importance sampling, ``(C, N)``.
        chains: Positions of chains that went on from there, ``(K, C, N, D)``.
    """

    names: tuple[str, ...]
    guide: Tensor
    log_weights: Tensor
    annealed: Tensor
    chains: Tensor


def look(
    run: Run, batch: Batch, seed: int, memory: int, tell: Tell = nobody, whole: bool = False
) -> Reference:
    """Anneal chains towards the posterior of each row, and let them go on there.

    Args:
        run: The fitted story.
        batch: Some rows; all of the fit's where latents are global.
        seed: Of the draws.
        memory: Bytes that a pass may take.
        tell: Is told what share is done.
        whole: Whether latents of single rows are looked at together with those that all share.

    Raises:
        StoryError: If the latents have no free coordinates or no density.
    """
    parts = []
    with _blocks(run, batch, seed, memory, tell, whole) as blocks:
        for target, told in blocks:
            times = 1 if target.by_row else ALONE
            guide, log_weights = guide_draws(target, times * GUIDE_DRAWS)
            start = start_of(target, guide[:GUIDE_DRAWS])
            schedule = scheduled(target, start, MOVES)
            weights, position = annealed(target, start, schedule, CHAINS, told.between(0.1, 0.6))
            begin, told = resampled(weights, position), told.between(0.6, 1.0)
            moving = chains(target, begin, start.scale[0], times * KEPT, WARMUP, tell=told)
            kept = torch.stack(list(moving))
            parts.append(Reference(names_of(target), guide, log_weights, weights, kept))
    return _joined(parts)


def look_both_ways(
    run: Run,
    batch: Batch,
    truth: Mapping[str, Tensor],
    seed: int,
    memory: int,
    tell: Tell = nobody,
) -> tuple[Tensor, Tensor]:
    """Log-weights of chains there and back on data that the story made, ``(C, N)`` each, in nats.

    Args:
        run: The fitted story.
        batch: Rows that it made.
        truth: The latents they were made from, ``(N, *event)`` by site.
        seed: Of the draws.
        memory: Bytes that a pass may take.
        tell: Is told what share is done.

    Returns:
        Those of chains that go from the start to the posterior, and of those that come back.
    """
    there, back, done = [], [], 0
    with _blocks(run, batch, seed, memory, tell) as blocks:
        for target, told in blocks:
            start = start_of(target, guide_draws(target, GUIDE_DRAWS)[0])
            schedule = scheduled(target, start, MOVES)
            weights, _ = annealed(target, start, schedule, CHAINS, told.between(0.1, 0.5))
            rows = slice(done, done + target.rows)
            known = {name: truth[name][rows][None] for name in target.coordinates}
            position = target.position(known).expand(CHAINS, -1, -1)
            there.append(weights)
            back.append(
                reversed_annealed(target, start, schedule, position, told.between(0.5, 1.0))
            )
            done += target.rows
    return torch.cat(there, 1), torch.cat(back, 1)


def walked(
    run: Run,
    batch: Batch,
    seed: int,
    memory: int,
    tell: Tell = nobody,
    seconds: float = math.inf,
) -> Tensor:
    """Positions of Pyro's no-U-turn sampler on the latents of all rows, ``(K, C, 1, D)``.

    For posteriors in which chains with steps of one length do not mix.

    Raises:
        TimeoutError: If that takes more than so many seconds.
    """
    with _blocks(run, batch, seed, memory, tell, whole=True) as blocks:
        target, told = next(blocks)
        guide, _ = guide_draws(target, NUTS_CHAINS)
        return nuts(target.log_density, guide[:, 0], NUTS_DRAWS, NUTS_WARMUP, told, seconds)


def refine(
    run: Run, batch: Batch, full: bool, seed: int, memory: int, tell: Tell = nobody
) -> Refinement:
    """Refine the guide for each of some rows; see :func:`refined`."""
    parts = []
    with _blocks(run, batch, seed, memory, tell) as blocks:
        for target, told in blocks:
            parts.append(refined(target, guide_draws(target, GUIDE_DRAWS)[0], full, tell=told))
    joined = {f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Refinement)}
    return Refinement(**joined)


def guide_draws(target: Target, draws: int) -> tuple[Tensor, Tensor]:
    """Draws of the guide in free coordinates, ``(S, N, D)``, and log-weights, ``(S, N)``."""
    sampler, found = target.sampler, []
    for begin in range(0, draws, 64):
        count = min(64, draws - begin)
        fixed = {n: v.expand(count, *v.shape[1:]) for n, v in target.fixed.items()}
        found.append(sampler.draw(target.batch, count, fixed))
    position = target.position(
        {name: torch.cat([f.latents[name] for f in found]) for name in target.coordinates}
    )
    log_weights = torch.cat([f.log_weights for f in found])
    if not target.by_row:
        outer = torch.cat([f.log_p_global - f.log_q_global for f in found])
        log_weights = (log_weights.double().sum(1) + outer)[:, None]
    return position, log_weights


def start_of(target: Target, guide: Tensor) -> Start:
    """Half at the guide's draws, half where the prior's are: normals of their means and spreads."""
    sampler = target.sampler
    fixed = {n: v.expand(len(guide), *v.shape[1:]) for n, v in target.fixed.items()}
    latents, _ = sampler.draw_prior(target.batch, len(guide), fixed=fixed)
    try:
        prior = target.position(latents)
    except StoryError:  # some priors draw values at the edge of what they allow
        prior = guide
    parts = [guide, prior]
    loc = torch.stack([part.median(0).values for part in parts])
    # Half of the range that holds the middle 68 % of a normal: the prior may have no variance.
    tails = torch.tensor([0.1587, 0.8413], dtype=guide.dtype, device=guide.device)
    ranges = torch.stack([part.quantile(tails, 0).diff(dim=0)[0] / 2 for part in parts])
    return Start(loc, ranges.clamp_min(1e-6))


def resampled(log_weights: Tensor, position: Tensor) -> Tensor:
    """Draws of the posterior, ``(C, N, D)``, from chains and their weights, by systematic draws."""
    count = len(log_weights)
    shares = log_weights.softmax(0).cumsum(0).T.contiguous()
    at = (torch.rand(len(shares), 1) + torch.arange(count)).to(shares) / count
    chosen = torch.searchsorted(shares, at).clamp(max=count - 1).T
    return position.gather(0, chosen[..., None].expand_as(position))


def names_of(target: Target) -> tuple[str, ...]:
    """What the coordinates are called: the site, and which of its numbers, such as z[3]."""
    names: list[str] = []
    for site, coordinates in target.coordinates.items():
        size = coordinates.part.stop - coordinates.part.start
        names += [site] if size == 1 else [f"{site}[{i}]" for i in range(size)]
    return tuple(names)


@dataclass(frozen=True)
class _Told:
    """Tells of a part of the work as of the share it is of the whole."""

    tell: Tell
    begin: float = 0.0
    end: float = 1.0

    def between(self, begin: float, end: float) -> _Told:
        """Of a part of this part."""
        size = self.end - self.begin
        return _Told(self.tell, self.begin + size * begin, self.begin + size * end)

    def __call__(self, share: float) -> None:
        self.tell(self.begin + (self.end - self.begin) * share)


@contextmanager
def _blocks(
    run: Run, batch: Batch, seed: int, memory: int, tell: Tell, whole: bool = False
) -> Iterator[Iterator[tuple[Target, _Told]]]:
    """As many rows at a time as memory allows for, with the global latents held at one draw."""
    with run.pair.active(), seeded(seed), pyro.validation_enabled(False):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        by_row = not whole and run.structure.has_codes
        slices, fixed = [slice(None)], dict[str, Tensor]()
        if by_row:
            # A gradient keeps what a draw lets go of, about three times as much.
            rows, _ = plan(sampler, batch, 4 * CHAINS, memory // 3, predict=False)
            slices = list(sampler.window.slices(batch, rows))
            with sampler.window.showing(batch, slices[0]) as shown:
                fixed = sampler.draw_globals(shown, 1)

        def each() -> Iterator[tuple[Target, _Told]]:
            for number, part in enumerate(slices):
                told = _Told(tell).between(number / len(slices), (number + 1) / len(slices))
                with sampler.window.showing(batch, part) as shown:
                    yield Target(sampler, shown, fixed, whole), told

        yield each()


def _joined(parts: list[Reference]) -> Reference:
    first = parts[0]
    return Reference(
        first.names,
        torch.cat([p.guide for p in parts], 1),
        torch.cat([p.log_weights for p in parts], 1),
        torch.cat([p.annealed for p in parts], 1),
        torch.cat([p.chains for p in parts], 2),
    )
