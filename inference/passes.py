"""What is asked of a run: passes over many draws and data, within a stated amount of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from ppl_gen.errors import DataError, NoDensityError, StoryError
from ppl_gen.inference.batches import on_disk
from ppl_gen.inference.capture import Captured, Compile
from ppl_gen.inference.draws import Draws
from ppl_gen.inference.estimators import Evidence, log_evidence
from ppl_gen.inference.memory import MEMORY, Bytes
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.tracing import Batch, blame, sample_sites

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

# Rows of data on disk that are read at a time.
READ = 10_000


def plan(sampler: Sampler, batch: Batch, draws: int, memory: int, predict: bool) -> tuple[int, int]:
    """How many rows and draws to take at once so that a pass stays within ``memory`` bytes.

    A small pass is run, and the most it holds at one moment is counted.
    """
    rows = sampler.window.size(batch) if sampler.structure.splits_rows else 1
    few = sampler.window.step(batch, min(rows, 4))
    part = next(sampler.window.slices(batch, few))
    with torch.random.fork_rng(), sampler.window.showing(batch, part) as shown:
        sampler.draw(shown, 2)
        with Bytes() as counted:
            sampler.draw(shown, 4, predict=predict)
    cell = max(1, counted.peak // (4 * few))
    cells = max(1, memory // cell)
    together = min(draws, max(1, cells // sampler.window.step(batch, min(rows, 64))))
    return sampler.window.step(batch, max(1, min(rows, cells // together))), together


class Blocks:
    """Draws of a block of rows at a time, captured as a graph where there are many blocks.

    Args:
        sampler: What draws.
        batch: All rows.
        rows: How many of them a block has.
        draws: How many draws there are of each.
        together: How many of them a block has.
        how: auto, graph or eager.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch: Batch,
        rows: int,
        draws: int,
        together: int,
        how: Compile = "auto",
    ) -> None:
        self.sampler = sampler
        # What is summed out is drawn by Pyro's own means, and a window shows rows by a handler.
        by_hand = sampler.summed or sampler.structure.subsamples or not sampler.at_once
        self.how: Compile = "eager" if by_hand else how
        self.count = len(list(sampler.window.slices(batch, rows))) * -(-draws // together)
        self._captured: dict[Any, tuple[Captured, list[TreeSpec]]] = {}

    def draw(
        self, batch: Batch, draws: int, fixed: Mapping[str, Tensor], predict: bool = False
    ) -> Draws:
        """As :meth:`Sampler.draw`."""
        key = draws, tuple(fixed), predict
        if self.how == "eager" or not all(isinstance(column, Tensor) for column in batch):
            return self.sampler.draw(batch, draws, fixed, predict)
        if key not in self._captured:
            self._captured[key] = self._capture(len(batch), draws, tuple(fixed), predict)
        captured, form = self._captured[key]
        with pyro.validation_enabled(False):
            values = captured(*batch, *fixed.values())
        return Draws(**tree_unflatten(list(values), form[-1]))

    def _capture(
        self, columns: int, draws: int, names: tuple[str, ...], predict: bool
    ) -> tuple[Captured, list[TreeSpec]]:
        form: list[TreeSpec] = []

        def drawn(*given: Tensor) -> tuple[Tensor, ...]:
            fixed = dict(zip(names, given[columns:], strict=True))
            found = self.sampler.draw(given[:columns], draws, fixed, predict)
            values, spec = tree_flatten(vars(found))
            form[:] = [spec]
            return tuple(values)

        programs = (self.sampler.pair.model, self.sampler.pair.guide)
        return Captured(drawn, programs, self.how, lambda _: self.count, trusts=False), form


def evidence_of(
    run: Run, x: Any, draws: int = 1000, *, memory: int = MEMORY, seed: int = 0, khat: bool = True
) -> Evidence:
    """Importance-sampled evidence of each row, as in :func:`ppl_gen.inference.log_evidence`.

    Args:
        run: The fitted story.
        x: Rows of data.
        draws: Draws of the guide a row.
        memory: Bytes that a pass may take.
        seed: Of the draws.
        khat: Whether to fit the Pareto tails as well.
    """
    parts = [
        log_evidence(local, khat)
        for local, *_ in weighed(run, run.batch(x, read=False), draws, memory, seed)
    ]
    joined = {
        name: torch.cat([getattr(p, name) for p in parts])
        for name in ("nats", "error", "ess", "elbo", "khat")
    }
    return Evidence(**joined, draws=draws)


def joint_evidence_of(
    run: Run, x: Any, draws: int = 1000, *, memory: int = MEMORY, seed: int = 0
) -> Evidence:
    """Evidence of all rows together, global latents included: one figure, shape ``(1,)``.

    Only on the data of the fit do the guide's global latents belong to these rows.
    """
    batch = () if x is None else run.batch(x, read=False)
    total = torch.zeros(draws, dtype=torch.float64)
    outer = torch.zeros(draws, dtype=torch.float64)
    for local, outer, _ in weighed(run, batch, draws, memory, seed):  # noqa: B007
        total += local.double().sum(1)
    return log_evidence((total + outer.double())[:, None])


def weighed(
    run: Run, batch: Batch, draws: int, memory: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Log-weights of a few rows at a time, ``(S, rows)``, of the global sites, ``(S,)``, and KL.

    The latter is that of the guide from the prior of each row's latents, in nats, ``(rows,)``.

    Raises:
        NoDensityError: If a prior has no density.
    """
    if run.structure.unscored:
        raise NoDensityError(
            f"an evidence needs the density of every latent, but {run.structure.unscored}: ask "
            "check for its two-sample test, or score the codes under a prior that has one"
        )
    with run.pair.active(), seeded(seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        rows, together = plan(sampler, batch, draws, memory, predict=False)
        first = next(sampler.window.slices(batch, rows))
        with sampler.window.showing(batch, first) as shown:
            fixed = sampler.draw_globals(shown, draws)
        blocks = Blocks(sampler, batch, rows, draws, together, run.settings.compile)
        for part in sampler.window.slices(batch, rows):
            local, outer, divergence = [], [], torch.zeros(())
            for start in range(0, draws, together):
                stop = min(draws, start + together)
                held = {n: v[start:stop] for n, v in fixed.items()}
                with sampler.window.showing(batch, part) as shown:
                    drawn = blocks.draw(shown, stop - start, held)
                local.append(drawn.log_weights.cpu())
                outer.append((drawn.log_p_global - drawn.log_q_global).cpu())
                divergence = divergence + drawn.divergence.double().sum(0).cpu()
            yield torch.cat(local), torch.cat(outer), divergence / draws


def sample_prior(run: Run, rows: int, seed: int = 0, data: Any = None) -> dict[str, Tensor]:
    """Draw whole observations from the model; see :meth:`ppl_gen.Run.sample`."""
    batch = run.data.blank(rows, run.device) if data is None else run.batch(data)
    with run.pair.active(), seeded(seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        latents, observed = sampler.draw_prior(batch, 1)
    return {name: value[0] for name, value in {**latents, **observed}.items()}


def encode(run: Run, x: Any) -> dict[str, Tensor]:
    """Posterior means of the local latents; see :meth:`ppl_gen.Run.encode`."""
    batch = run.batch(x, read=False)
    with run.pair.active(), seeded(run.settings.seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        if not on_disk(batch):
            return sampler.means(batch)
        parts = []
        for part in sampler.window.slices(batch, READ):
            with sampler.window.showing(batch, part) as shown:
                parts.append(sampler.means(shown))
        return {name: torch.cat([found[name] for found in parts]) for name in parts[0]}


def redraw(run: Run, x: Any, conditions: Any) -> Tensor:
    """Each row's code decoded under other conditions; see :meth:`ppl_gen.Run.redraw`."""
    batch = run.batch(x)
    if len(batch) < 2:
        raise StoryError(
            "redraw needs a story with a condition: its programs take the observations and, "
            "second, what each is conditioned on, as those of CVAE and M2 do"
        )
    own = batch[1]
    if not isinstance(conditions, Tensor):
        conditions = torch.as_tensor(np.asarray(conditions))
    if conditions.shape[1:] != own.shape[1:] or not conditions.dim() or not len(conditions):
        shape = ", ".join(["C", *map(str, own.shape[1:])])
        raise DataError(
            f"conditions must have shape ({shape}), one row a condition, got "
            f"{tuple(conditions.shape)}"
        )
    whole = own.is_floating_point() or not conditions.is_floating_point()
    if not whole and (conditions != conditions.round()).any():
        raise DataError(f"conditions must be whole numbers, as those of the rows, got {conditions}")
    site = _observation(run)
    latents = encode(run, x)
    drawn = []
    for condition in conditions.to(own):
        asked = condition.expand_as(own)
        found = decode(run, latents, (batch[0], asked, *batch[2:]))
        if site not in found:
            raise StoryError(f"redraw needs a mean of {site!r} to show, which its law has not")
        drawn.append(found[site])
    return torch.stack(drawn, 1)


@dataclass(frozen=True)
class Completion:
    """Images of which a part was seen, completed many times.

    Attributes:
        draws: Completions, ``(S, N, *shape)``: what the story expects at each draw of the code,
            beside what was seen, which is as it was given.
        seen: Where the given values stand, booleans ``(N, *shape)``.
    """

    draws: Tensor
    seen: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean completion of each image, ``(N, *shape)``."""
        return self.draws.mean(0)

    @property
    def spread(self) -> Tensor:
        """Standard deviation of the completions at each element, ``(N, *shape)``; 0 where seen."""
        return self.draws.std(0, correction=0)


def complete(
    run: Run, seen: Any, mask: Any, draws: int = 100, *, memory: int = MEMORY, seed: int = 0
) -> Completion:
    """Complete what was seen of each row; see :meth:`ppl_gen.Run.complete`."""
    if draws < 1:
        raise DataError(f"draws must be at least 1, got {draws}")
    columns = run.data.columns
    if len(columns) < 2 or columns[1][0] != columns[0][0]:
        raise StoryError(
            "complete needs a story that is conditioned on the seen part of an observation, such "
            "as CVAE(shape, condition='seen'): its programs take the observations and a mask"
        )
    x, given = (torch.as_tensor(np.asarray(v) if not isinstance(v, Tensor) else v)
                for v in (seen, mask))  # fmt: skip
    if given.shape == columns[0][0]:
        given = given.expand_as(x)
    if given.shape != x.shape:
        raise DataError(
            f"mask must have the shape of what is seen, {tuple(x.shape)}, or of one observation, "
            f"got {tuple(given.shape)}"
        )
    if not ((given == 0) | (given == 1)).all():
        raise DataError("mask must hold True and False, or 1 and 0, got other values too")
    given = given.bool()
    batch = run.batch((torch.where(given, x, torch.zeros_like(x)), given))
    x, given, site = batch[0], batch[1].bool(), _observation(run)
    parts = []
    with run.pair.active(), seeded(seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        rows, together = plan(sampler, batch, draws, memory, predict=True)
        for part in sampler.window.slices(batch, rows):
            drawn = []
            for start in range(0, draws, together):
                with sampler.window.showing(batch, part) as shown:
                    count = min(draws - start, together)
                    drawn.append(sampler.draw_prior(shown, count, expected=True)[1][site])
            parts.append(torch.cat(drawn))
    expected = torch.cat(parts, 1)
    if expected.isnan().any():
        raise StoryError(f"complete needs a mean of {site!r} to show, which its law has not")
    return Completion(torch.where(given, x.to(expected), expected), given)


def _observation(run: Run) -> str:
    site = run.structure.observation
    if site is None:
        raise StoryError("the story observes nothing inside a plate over the data")
    return site.name


def decode(run: Run, latents: Mapping[str, Tensor], data: Any = None) -> dict[str, Tensor]:
    """Expected observations given local latents; see :meth:`ppl_gen.Run.decode`."""
    if not latents:
        raise StoryError("decode needs the value of a latent site of each row, got none")
    rows = len(next(iter(latents.values())))
    batch = run.data.blank(rows, run.device) if data is None else run.batch(data)
    with run.pair.active(), seeded(run.settings.seed), torch.no_grad():
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        outer = {n: v[0] for n, v in sampler.draw_globals(batch, 1).items()}
        model = poutine.condition(run.pair.model, data={**outer, **latents})
        with pyro.validation_enabled(False), blame("model, given these latents,"):
            nodes = sample_sites(poutine.trace(model).get_trace(*batch, **run.kwargs))
        means = {s.name: sampler.layout.mean(nodes[s.name], 1) for s in run.structure.observed}
    return {name: mean[0] for name, mean in means.items() if mean is not None}
