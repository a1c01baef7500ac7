"""What the latents of the rows, taken together, look like beside their prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.batches import rows_of, some_rows
from ppl_gen.inference.layout import Layout
from ppl_gen.inference.memory import MEMORY
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.passes import plan
from ppl_gen.inference.sampler import MEAN_DRAWS, Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.structure import Structure
from ppl_gen.inference.tracing import Batch, Fix, blame, sample_sites, trace_nodes

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

# Rows that are drawn at a time, one draw each: as few as in the steps of a fit.
TOGETHER = 256
# Codes whose density is asked for under the guide of every row.
SPLIT_CODES = 256
LEAST_ROWS = 100  # our limit: what fewer codes show of their law is little


def code_means(
    run: Run, batch: Batch, memory: int = MEMORY, seed: int = 0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """How far posterior means lie from those of the prior, and KL, by site.

    Args:
        run: The fitted story.
        batch: Rows in the form that its programs take.
        memory: Bytes that a pass may take.
        seed: Of the draws.

    Returns:
        Means, ``(N, dimensions)`` each; and KL in nats, of the same shape, of the sites where
        guide and prior both factorise over dimensions: of none where a prior has no density.
    """
    means: dict[str, list[Tensor]] = {}
    divergences: dict[str, list[Tensor]] = {}
    with run.pair.active(), seeded(seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        rows, density = TOGETHER, not run.structure.unscored
        if density:
            rows, together = plan(sampler, batch, MEAN_DRAWS, memory, predict=False)
            rows = max(1, rows * together // MEAN_DRAWS)
        for part in sampler.window.slices(batch, rows):
            with sampler.window.showing(batch, part) as shown:
                kl = sampler.kl(shown) if density else {}
                for found, now in ((means, sampler.codes(shown)), (divergences, kl)):
                    for name, value in now.items():
                        found.setdefault(name, []).append(value.cpu())
    return _joined(means), _joined(divergences)


def active(means: Mapping[str, Tensor]) -> tuple[int, int]:
    r"""How many dimensions of a code answer to the data, and of how many.

    A unit is active if :math:`\mathrm{Var}_x(\mathrm{E}_q[z_j] - \mathrm{E}_p[z_j]) > 0.01`, where
    the mean of the prior varies only if a condition decides it.

    Args:
        means: Differences of the means by site, ``(N, dimensions)`` each.

    Reference:
        Burda et al. (2016), section 5.1, https://arxiv.org/abs/1509.00519
    """
    variances = [mean.flatten(1).var(0) for mean in means.values()]
    answers = sum(int((variance > 0.01).sum()) for variance in variances)
    return answers, sum(variance.numel() for variance in variances)


def units_in_use(
    pair: Pair, structure: Structure, kwargs: Mapping[str, Any], batch: Batch
) -> int | None:
    """How many dimensions of the codes of a few rows are :func:`active`, found in a few traces.

    Returns:
        None where no guide's law has a mean to tell it by, or there are fewer than two rows.
    """
    sites = [site for site in structure.latents if site.local and not site.summed]
    if not sites or structure.keeps_rows or rows_of(batch) < 2:
        return None
    with torch.no_grad(), pyro.validation_enabled(False):
        guide, model = trace_nodes(pair, batch, kwargs)
    layout, found = Layout(structure), {}
    for site in sites:
        node = guide.get(site.name)
        mean = None if node is None or site.law == "Delta" else layout.mean(node, 1)
        if mean is None or not mean.is_floating_point():
            return None
        prior = layout.mean(model[site.name], 1)
        row = next(i for i, p in enumerate(site.plates) if p in structure.data_plates)
        moved = (mean if prior is None else mean - prior)[0].movedim(row, 0)
        found[site.name] = moved.reshape(len(moved), -1)
    return active(found)[0]


def drawn_codes(run: Run, batch: Batch, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    r"""One draw of each row's latents from the guide, and one from the prior, by site.

    The first are draws of the aggregate posterior, :math:`\frac{1}{N} \sum_n q(z \mid x_n)`. The
    second come from the model, given what the rows condition it on, and given the guide's draw of
    the latents that all rows share. No density is asked for, so that a prior need not have one.

    Args:
        run: The fitted story.
        batch: Rows in the form that its programs take.
        seed: Of the draws.

    Returns:
        ``(N, dimensions)`` and the same, of the local sites whose values are real numbers.

    Raises:
        StoryError: If the model cannot be drawn from, or a draw is not finite.
    """
    posterior: dict[str, list[Tensor]] = {}
    prior: dict[str, list[Tensor]] = {}
    with run.pair.active(), seeded(seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs, at_once=False)
        window, outer = sampler.window, None
        for part in window.slices(batch, TOGETHER):
            with window.showing(batch, part) as shown:
                outer = sampler.draw_globals(shown, 1) if outer is None else outer
                for found, now in (
                    (posterior, sampler.draw_guide(shown, outer)),
                    (prior, sampler.draw_prior(shown, 1, fixed=outer)[0]),
                ):
                    for site in run.structure.latents:
                        if site.local and not site.summed and now[site.name].is_floating_point():
                            value = sampler.by_row(site.name, now[site.name])
                            found.setdefault(site.name, []).append(value.cpu())
    from_prior = _joined(prior)
    drawn = {name: (value, from_prior[name]) for name, value in _joined(posterior).items()}
    for name, pair in drawn.items():
        if not all(value.isfinite().all() for value in pair):
            raise StoryError(f"draws of {name!r} must be finite, got some that are not")
    return drawn


def _joined(parts: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat(values) for name, values in parts.items()}


@dataclass(frozen=True)
class Split:
    r"""The mean KL of guide from prior in two parts, in nats.

    .. math:: \frac{1}{N} \sum_n \mathrm{KL}(q(z|x_n) \,\|\, p(z))
        = I_q(x; z) + \mathrm{KL}(q(z) \,\|\, p(z)), \qquad
        q(z) = \frac{1}{N} \sum_n q(z|x_n)

    Attributes:
        kl: The whole.
        information: How much a code says of which datum it is of, at most ``log N``.
        marginal: How far the codes of all data together are from the prior.
        error: Standard error of both parts, from the draws.
        rows: How many data there are, ``N``.
    """

    kl: float
    information: float
    marginal: float
    error: float
    rows: int


def elbo_split(log_q: Tensor, own: Tensor, log_prior: Tensor) -> Split:
    """What of the KL tells data apart, and what is lost as the codes miss the prior.

    Args:
        log_q: Log-density of each code under the guide of each row, in nats, ``(S, N)``.
        own: Which row each code was drawn for, ``(S,)``.
        log_prior: Its log-density under the prior, ``(S,)``.

    Reference:
        Hoffman and Johnson (2016), http://approximateinference.org/accepted/HoffmanJohnson2016.pdf
    """
    rows = log_q.shape[1]
    log_q, log_prior = log_q.double(), log_prior.double()
    mine = log_q.gather(1, own[:, None])[:, 0]
    together = log_q.logsumexp(1) - math.log(rows)
    information, marginal = mine - together, together - log_prior
    error = max(part.std().item() for part in (information, marginal)) / len(own) ** 0.5
    return Split(
        (mine - log_prior).mean().item(),
        information.mean().item(),
        marginal.mean().item(),
        error,
        rows,
    )


def split_of(run: Run, batch: Batch, seed: int = 0, codes: int = SPLIT_CODES) -> Split:
    """The two parts of the KL of a run's codes; see :func:`elbo_split`.

    Raises:
        StoryError: If there is no density of any code under the guide of any row, or each row has
            a prior of its own.
    """
    structure = run.structure
    if structure.unscored or not structure.takes_batches:
        raise StoryError(structure.unscored or structure.needs_all)
    with run.pair.active(), seeded(seed), torch.no_grad(), pyro.validation_enabled(False):
        sampler = Sampler(run.pair, structure, run.kwargs)
        own = torch.randperm(sampler.window.size(batch))[:codes]
        few = some_rows(batch, slice(0, 8))
        outer = sampler.draw_globals(few, 1)
        drawn = sampler.draw(some_rows(batch, own), 1, outer).latents
        if not sampler.at_once:
            raise StoryError("the programs do not bear many draws at once")
        held = {n: v.expand(len(own), *v.shape[1:]) for n, v in outer.items()}
        values = {
            site.name: drawn[site.name].movedim(sampler.window.row_axis(site.name), 0)
            for site in structure.latents
            if site.local and not site.summed
        }
        log_q = [
            _log_latents(sampler, run.pair.guide, some_rows(batch, part), values, held)
            for part in sampler.window.slices(batch, TOGETHER)
        ]
        log_prior = _log_latents(sampler, run.pair.model, few, values, held)
    if (log_prior - log_prior[:, :1]).abs().max() > 1e-3 * (1 + log_prior.abs().max()):
        raise StoryError("each row has a prior of its own")
    return elbo_split(torch.cat(log_q, 1), own, log_prior[:, 0])


def _log_latents(
    sampler: Sampler,
    program: Any,
    batch: Batch,
    codes: Mapping[str, Tensor],
    held: Mapping[str, Tensor],
) -> Tensor:
    """Log-density of each of some codes at each of some rows, ``(S, N)``.

    Args:
        sampler: Of the run.
        program: Its model or its guide.
        batch: Rows.
        codes: Values by site, ``(S, *plates, *event)`` without the rows among the plates.
        held: Values of global sites, as :meth:`Sampler.draw_globals` gives them.
    """
    count, layout = len(next(iter(codes.values()))), sampler.layout
    nodes = sample_sites(poutine.trace(program).get_trace(*batch, **sampler.kwargs))
    values = {}
    for name, value in codes.items():
        axis = sampler.window.row_axis(name)
        values[name] = layout.placed(value.unsqueeze(axis), nodes[name])
    fixed = Fix({**held, **values}, at_once=True)(program)
    with blame("programs"):
        trace = poutine.trace(sampler._plated(fixed, count)).get_trace(*batch, **sampler.kwargs)
    inner, outer = layout.sums((), count, sampler.window.count(batch))
    for name, node in sample_sites(trace).items():
        if name not in sampler.structure.sites and layout.is_local(node):
            raise StoryError(f"the guide computes its codes from {name!r}")
        if name in codes:
            inner, outer = layout.added(inner, outer, node, layout.terms(node, count))
    return inner
