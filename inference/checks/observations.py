"""Observations of the data and of a story's replicates, side by side as rows of numbers."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.checks.subject import Subject
from ppl_gen.inference.estimators.heaps import apart_from_all, far_from_all
from ppl_gen.inference.estimators.replicates import FEW_ELEMENTS
from ppl_gen.inference.passes import plan
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.simulated import must_not_read
from ppl_gen.inference.tracing import Batch, argument_names


@dataclass
class Replicates:
    """Some replicates of all rows, by site.

    Attributes:
        values: Observations drawn anew, ``(S, N, *other plates, *event)``.
        expected: What their laws expect, of the same shape, where the latents have seen the data;
            NaN where a law has no mean.
    """

    values: dict[str, Tensor]
    expected: dict[str, Tensor]


def by_row(sampler: Sampler, name: str, value: Tensor) -> Tensor:
    """Draws ``(S, *plates, *event)`` with the rows next to the draws, ``(S, N, ...)``."""
    if not sampler.structure.sites[name].local:
        return value
    return value.movedim(sampler.window.row_axis(name), 1)


def observed_rows(
    subject: Subject, batch: Batch, counted: bool, *, as_given: bool = False
) -> dict[str, Tensor]:
    """The data of every observed site, ``(N, *other plates, *event)``, in single precision.

    Grey values under a Bernoulli law, which makes 0 and 1, are taken for the probabilities that
    they stand for, and drawn once.

    Args:
        subject: The run, and the seed.
        batch: The rows.
        counted: Whether values that the model does not count are NaN.
        as_given: Whether grey values are left as they are.
    """
    run = subject.run
    generator = torch.Generator().manual_seed(subject.seed)
    found = {}
    with run.pair.active(), seeded(subject.seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        for name, value in sampler.observed(batch, counted).items():
            rows = by_row(sampler, name, value[None])[0].cpu().float()
            is_bernoulli = run.structure.sites[name].law == "Bernoulli"
            if is_bernoulli and not as_given and not _is_binary(rows):
                shares = rows.nan_to_num(0.0).clamp(0, 1)
                drawn = torch.bernoulli(shares, generator=generator)
                rows = torch.where(rows.isnan(), rows, drawn)
            found[name] = rows
    return found


def replicates(
    subject: Subject, batch: Batch, draws: int, *, from_prior: bool
) -> Generator[Replicates, None, None]:
    """Replicates of all rows, some at a time: their latents from the guide, or from the prior.

    Latents that all rows share come from the guide in both cases; what the model conditions on is
    that of the rows.

    Args:
        subject: The run, seed and memory.
        batch: The rows.
        draws: How many replicates.
        from_prior: Whether the latents of the rows are drawn from their prior.

    Yields:
        As many at a time as half the memory holds.

    Raises:
        StoryError: If a draw is not finite; or, where it is to be from the prior, if the model
            reads the data that it is to draw.
    """
    run = subject.run
    with run.pair.active(), seeded(subject.seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        window = sampler.window
        if from_prior:
            must_not_read(sampler, batch)
        rows, some = plan(sampler, batch, draws, subject.memory, predict=True)
        with window.showing(batch, next(window.slices(batch, rows))) as shown:
            fixed = sampler.draw_globals(shown, draws)
        numbers = sum(value.numel() for value in sampler.observed(batch).values())
        together = max(1, subject.memory // (2 * 8 * 4 * max(1, numbers)))
        for start in range(0, draws, together):
            stop = min(draws, start + together)
            blocks = []
            for first in range(start, stop, some):
                last = min(stop, first + some)
                held = {n: v[first:last] for n, v in fixed.items()}
                parts = []
                for part in window.slices(batch, rows):
                    with window.showing(batch, part) as shown:
                        if from_prior:
                            found = sampler.draw_prior(shown, last - first, fixed=held)[1], {}
                        else:
                            drawn = sampler.draw(
                                shown, last - first, held, predict=True, expected=True
                            )
                            found = drawn.predicted, drawn.expected
                    parts.append([_rows(sampler, values) for values in found])
                blocks.append([_joined(sampler, [part[i] for part in parts]) for i in (0, 1)])
            values, expected = (
                {n: torch.cat([block[i][n] for block in blocks]) for n in blocks[0][i]}
                for i in (0, 1)
            )
            for name, value in values.items():
                if not value.isfinite().all():
                    raise StoryError(f"draws of {name!r} must be finite, got some that are not")
            subject.tell(stop / draws)
            yield Replicates(values, expected)


def flat(subject: Subject, values: dict[str, Tensor]) -> Tensor:
    """Local sites side by side, ``(N, E)``."""
    local = [values[site.name] for site in subject.run.structure.observed if site.local]
    return torch.cat([value.reshape(len(value), -1) for value in local], 1)


def conditions(subject: Subject, batch: Batch) -> dict[str, Tensor]:
    """The columns of a batch that the story is given, and does not make, ``(N, *)`` each.

    They are called as the model calls them. There are none where the story observes something that
    is no column as it stands: which of the columns it is made of is then not known.
    """
    run = subject.run
    with run.pair.active(), seeded(subject.seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        found, sites = sampler.observed(batch), run.structure.sites
        local = {n: value for n, value in found.items() if sites[n].local}
        rows = [by_row(sampler, n, v[None])[0].cpu().double() for n, v in local.items()]
    if not rows:
        return {}
    made = [value.reshape(len(value), -1) for value in rows]
    names = argument_names(run.pair.model, len(batch))
    columns = {
        name: column.detach().cpu().double().reshape(len(column), -1)
        for name, column in zip(names, batch, strict=True)
        if isinstance(column, Tensor) and column.dim() and len(column) == len(made[0])
    }
    bound = [{n for n, column in columns.items() if _same(site, column)} for site in made]
    if not all(bound):
        return {}
    return {n: column for n, column in columns.items() if not any(n in same for same in bound)}


def covariates(subject: Subject, batch: Batch) -> dict[str, Tensor]:
    """The single numbers that the story is given of each row, ``(N,)`` each, by name.

    Those of up to 20 in all; of an image that is given nothing is known by its pixels. Numbers that
    stand apart from all others, as -999 does for what is missing, are NaN.
    """
    found = {}
    for name, column in conditions(subject, batch).items():
        names = entries(subject, name, column.shape[1])
        told = subject.run.data.column_names
        if column.shape[1:] == (1,) and told is not None and len(told) == 1:
            names = list(told)
        found.update(zip(names, column.T, strict=True))
    return _without_stand_ins(found) if len(found) <= FEW_ELEMENTS else {}


def entries(subject: Subject, name: str, count: int) -> list[str]:
    """What the numbers of an observation or a condition are called, ``count`` of them.

    As the columns of the table they come from, if there are as many; else by their place.
    """
    told = subject.run.data.column_names
    if count == 1:
        return [name]
    if told is not None and len(told) == count:
        return list(told)
    return [f"element {e} of {name}" for e in range(count)]


def _without_stand_ins(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, values in columns.items():
        strange = torch.cat([apart_from_all(values), far_from_all(values)])
        found[name] = torch.where(torch.isin(values, strange), torch.nan, values)
    return found


def _same(site: Tensor, column: Tensor) -> bool:
    return site.shape == column.shape and bool(site.nan_to_num().equal(column.nan_to_num()))


def _rows(sampler: Sampler, values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: by_row(sampler, n, v).cpu().float() for n, v in values.items()}


def _joined(sampler: Sampler, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sites of parts of the rows as sites of all rows."""
    local = {site.name for site in sampler.structure.observed if site.local}
    return {n: torch.cat([p[n] for p in parts], 1) if n in local else parts[0][n] for n in parts[0]}


def _is_binary(values: Tensor) -> bool:
    return bool(((values == 0) | (values == 1) | values.isnan()).all())
