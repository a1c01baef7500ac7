"""What the latents of the rows, taken together, look like beside their prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.memory import MEMORY
from ppl_gen.inference.passes import plan
from ppl_gen.inference.sampler import MEAN_DRAWS, Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.tracing import Batch

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

# Rows that are drawn at a time, one draw each: as few as in the steps of a fit.
TOGETHER = 256
LEAST_ROWS = 100  # our limit: what fewer codes show of their law is little


def has_codes(run: Run) -> bool:
    """Whether each datum has latents of its own that are not summed out."""
    return any(site.local and not site.summed for site in run.structure.latents)


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
