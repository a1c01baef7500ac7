"""Truths of simulated data among the draws of their posterior, by one guide or by many fits."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.batches import some_rows
from ppl_gen.inference.checks.subject import Subject
from ppl_gen.inference.draws import Draws
from ppl_gen.inference.estimators.ranks import ranks, scores
from ppl_gen.inference.passes import plan
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.simulated import simulate
from ppl_gen.inference.tracing import Batch

if TYPE_CHECKING:
    from ppl_gen.inference.structure import Site

DRAWS = 50  # of the guide for each; more sharpen the ranks by less than chance blurs them
DRAWS_OF_FITS = 200  # where a fit stands behind them
LEAST_FITS = 20  # our limit: fewer ranks are far from uniform by chance, whatever the guide
MOST_FITS = 500
LIKELIHOOD = "log-likelihood"
_NEXT_SEED = 7919  # truths must not be drawn from the random numbers that the draws come from


@dataclass(frozen=True)
class Ranked:
    """Truths of simulations among the draws of their posteriors.

    Attributes:
        names: Of the scalars, such as ``z[3]``.
        ranks: From 0 to 1, ``(R, D)``.
        scores: In standard deviations of the draws, ``(R, D)``.
    """

    names: tuple[str, ...]
    ranks: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.ranks)


def guessed(subject: Subject) -> list[Site]:
    """The latents that the guide draws: those that are not summed out."""
    return [site for site in subject.run.structure.latents if not site.summed]


def ranked(subject: Subject, simulations: int) -> Ranked:
    """Simulate data from the model, and rank their latents among the guide's draws for them.

    Data are simulated on the rows of the subject, taken again and again where there are too few:
    what a row is conditioned on stays. The latents that all rows share are held at one draw of the
    guide. Beside each scalar of the local latents their log-likelihood is ranked, which sees a
    guide that forgets the data: draws of the prior have uniform ranks, but explain the data worse.

    Raises:
        StoryError: If the model cannot be simulated, or the guide does not take what it gives.

    Reference:
        Modrák et al. (2023), section 3, https://arxiv.org/abs/2211.02383
    """
    run, parts = subject.run, list[Ranked]()
    names = [site.name for site in guessed(subject) if site.local]
    generator = torch.Generator().manual_seed(subject.seed)
    with run.pair.active(), seeded(subject.seed), torch.no_grad():
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        window = sampler.window
        with window.showing(subject.batch, next(window.slices(subject.batch, 4))) as shown:
            outer = sampler.draw_globals(shown, 1)
        for number, batch in enumerate(_batches(subject, simulations), 1):
            seed = subject.seed + number * _NEXT_SEED
            latents, data = simulate(run, batch, seed, fixed=outer, memory=subject.memory)
            rows, together = plan(sampler, data, DRAWS, subject.memory, predict=False)
            for part in window.slices(data, max(1, rows * together // DRAWS)):
                truth = {name: latents[name][part] for name in names}
                with window.showing(data, part) as shown:
                    parts.append(_compared(sampler, shown, truth, outer, generator))
                subject.tell(min(1.0, sum(map(len, parts)) / simulations))
    return _joined(parts, simulations)


def refitted(subject: Subject) -> tuple[Ranked, float]:
    """Simulate data from the model, and rank its latents among draws of guides fitted to them.

    Each time the latents, all of them global, are drawn from their prior, data of the form of the
    given ones from the model, and the story is fitted anew with the settings of the run; as often
    as ``subject.budget`` seconds allow, and 500 times at most. It ends after two if they do not
    allow 20. Parameters that the model has beside its latents are those of the run in the
    simulation, and learned anew in each fit.

    Returns:
        The truths of all simulations, and the seconds that one took.

    Raises:
        StoryError: If the model cannot be simulated.

    Reference:
        Yao et al. (2018), section 4, https://arxiv.org/abs/1802.02538
    """
    parts, begun, spent = list[Ranked](), time.perf_counter(), 0.0
    while len(parts) < MOST_FITS:
        parts.append(_refitted(subject, len(parts)))
        spent = time.perf_counter() - begun
        subject.tell(min(1.0, spent / subject.budget))
        ahead = max(len(parts) + 1, LEAST_FITS if len(parts) >= 2 else 0)
        if spent / len(parts) * ahead > subject.budget:
            break
    return _joined(parts, len(parts)), spent / len(parts)


def _refitted(subject: Subject, number: int) -> Ranked:
    from ppl_gen.inference.fit import fit

    run, seed = subject.run, subject.seed + (1 + number) * _NEXT_SEED
    latents, data = simulate(run, subject.batch, seed, fixed={}, memory=subject.memory)
    # No rows are held out of a simulation, so that there are none to be patient with.
    settings = {**vars(run.settings), "patience": None, "seed": seed + 1}
    again = fit(run.story, data, kwargs=run.kwargs, progress=False, **settings)
    with again.pair.active(), seeded(seed + 2), torch.no_grad():
        sampler = Sampler(again.pair, again.structure, again.kwargs)
        with sampler.window.showing(data, next(sampler.window.slices(data, 4))) as shown:
            drawn = sampler.draw(shown, DRAWS_OF_FITS).latents
    names = [site.name for site in guessed(subject) if not site.point]
    generator = torch.Generator().manual_seed(seed)
    return _among(
        {name: latents[name][None] for name in names},
        {name: drawn[name][:, None] for name in names},
        generator,
    )


def _batches(subject: Subject, simulations: int) -> Iterator[Batch]:
    """Batches of as many rows as there are simulations, or a few more."""
    if not subject.run.structure.takes_batches:
        for _ in range(-(-simulations // subject.rows)):
            yield subject.batch
        return
    chosen, batch = subject.some(simulations)
    order = torch.arange(len(chosen)).repeat(-(-simulations // len(chosen)))[:simulations]
    row = sum(column[0].nbytes for column in batch)
    for rows in order.split(max(1, subject.memory // max(1, row))):
        yield some_rows(batch, rows)


def _compared(
    sampler: Sampler,
    batch: Batch,
    truth: Mapping[str, Tensor],
    outer: Mapping[str, Tensor],
    generator: torch.Generator,
) -> Ranked:
    """The truths of some rows, ``(rows, *event)`` each, among draws of their posterior."""
    axes = {name: sampler.window.row_axis(name) for name in truth}
    placed = {name: v.movedim(0, axes[name] - 1)[None] for name, v in truth.items()}
    at_truth = sampler.draw(batch, 1, {**outer, **placed})
    drawn = sampler.draw(batch, DRAWS, {n: v.expand(DRAWS, *v.shape[1:]) for n, v in outer.items()})
    draws = {name: drawn.latents[name].movedim(axes[name], 1) for name in truth}
    return _among(
        {**truth, LIKELIHOOD: _log_likelihood(sampler, at_truth)[0]},
        {**draws, LIKELIHOOD: _log_likelihood(sampler, drawn)},
        generator,
    )


def _log_likelihood(sampler: Sampler, drawn: Draws) -> Tensor:
    """Of each row, in nats, ``(S, N)``."""
    found = []
    for name, terms in drawn.log_likelihood.items():
        if sampler.summed:
            found.append(terms)
        elif sampler.structure.sites[name].local:
            rows = terms.movedim(sampler.window.row_axis(name), 1)
            found.append(rows.reshape(*rows.shape[:2], -1).sum(2))
    if not found:
        raise StoryError("no datum has a likelihood of its own: no site in the data plate observes")
    return torch.stack(found).sum(0)


def _among(
    truth: Mapping[str, Tensor], draws: Mapping[str, Tensor], generator: torch.Generator
) -> Ranked:
    """Truths, ``(R, *event)`` each, among draws, ``(S, R, *event)`` each, a scalar at a time."""
    names, found = list[str](), list[tuple[Tensor, Tensor]]()
    for name, value in truth.items():
        indices = itertools.product(*map(range, value.shape[1:]))
        names += [f"{name}{list(index)}" if index else name for index in indices]
        found.append(
            (value.double().reshape(len(value), -1),
             draws[name].double().reshape(*draws[name].shape[:2], -1))
        )  # fmt: skip
        if not all(values.isfinite().all() for values in found[-1]):
            raise StoryError(f"{name!r} of simulated data must be finite, got draws that are not")
    values, drawn = torch.cat([v for v, _ in found], 1), torch.cat([d for _, d in found], 2)
    return Ranked(tuple(names), ranks(values, drawn, generator).cpu(), scores(values, drawn).cpu())


def _joined(parts: Sequence[Ranked], count: int) -> Ranked:
    return Ranked(
        parts[0].names,
        torch.cat([part.ranks for part in parts])[:count],
        torch.cat([part.scores for part in parts])[:count],
    )
