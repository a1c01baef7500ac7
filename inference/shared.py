"""The posterior of the latents that all data share: which parameters it has, and how it moves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ppl_gen.inference.pair import Pair
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.structure import Structure
from ppl_gen.inference.tracing import Batch, sample_sites


def shared_parameters(
    pair: Pair, structure: Structure, batch: Batch, kwargs: Mapping[str, Any]
) -> tuple[str, ...]:
    """Names of the parameters that the guide's law of the shared latents depends on.

    Found by the gradient of what the guide draws and of its density. Latents that the guide gives
    a single value are estimates, and have no posterior.

    Args:
        pair: The programs, whose store has to be in force.
        structure: Their sites and plates.
        batch: Rows of data, as a step takes them.
        kwargs: Further arguments of both.
    """
    local = {site.name for site in structure.sites.values() if site.local or site.point}
    if all(site.local or site.point or site.summed for site in structure.latents):
        return ()
    found: tuple[Tensor | None, ...] = ()
    parameters = pair.parameters()
    # What cannot be run or scored here is told of by the steps.
    unvalidated = pyro.validation_enabled(False)
    with suppress(Exception), seeded(0), pair.scratch(), torch.enable_grad(), unvalidated:
        total = torch.zeros(())
        trace = poutine.trace(pair.guide).get_trace(*batch, **kwargs)
        for name, node in sample_sites(trace).items():
            if name not in local and not node["is_observed"]:
                density = node["fn"].log_prob(node["value"]).sum()
                total = total.to(density) + density + node["value"].sum()
        found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return tuple(n for n, slope in zip(parameters, found, strict=False) if slope is not None)


def shared_draws(
    pair: Pair,
    structure: Structure,
    batch: Batch,
    kwargs: Mapping[str, Any],
    values: Mapping[str, Tensor],
    draws: int = 200,
) -> dict[str, Tensor]:
    """Draws of the shared latents' posterior as it was at other values of its parameters.

    The noise is the same at every call, so that posteriors can be told apart by few draws.

    Args:
        pair: The programs, whose store has to be in force; their parameters are put back.
        structure: Their sites and plates.
        batch: Rows of data; what is seen of them is as much as a step sees.
        kwargs: Further arguments of both.
        values: Unconstrained values of some parameters, by name.
        draws: How many draws.

    Returns:
        Real numbers, ``(draws, elements)``, by site.
    """
    parameters = pair.parameters()
    before = {name: parameters[name].detach().clone() for name in values}
    shared = {s.name for s in structure.latents if not (s.local or s.point or s.summed)}
    try:
        _put(parameters, values)
        with seeded(0):
            sampler = Sampler(pair, structure, kwargs)
            part = next(sampler.window.slices(batch, 64))
            with sampler.window.showing(batch, part) as shown:
                found = sampler.draw_globals(shown, draws)
    finally:
        _put(parameters, before)
    return {
        name: value.reshape(draws, -1).double().cpu()
        for name, value in found.items()
        if name in shared and value.is_floating_point()
    }


def _put(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value.reshape(parameters[name].shape))


def moved(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    r"""How far a posterior moved, in its own standard deviations: the largest over its latents.

    Of each element of a latent the larger of the distance of the means, and of
    :math:`|\log(s_2 / s_1)|`, which for small changes is that of the deviation, as a share of it.
    Draws of both from the same noise make the difference exact for normals.

    Args:
        first: Draws by site, ``(S, elements)``.
        second: Draws from elsewhere, of the same noise, ``(S, elements)``.
    """
    largest = 0.0
    for name, a in first.items():
        b = second[name]
        scale = torch.minimum(a.std(0), b.std(0)).clamp_min(1e-300)
        means = (a.mean(0) - b.mean(0)).abs() / scale
        scales = (a.std(0) / scale).log() + (b.std(0) / scale).log()
        largest = max(largest, means.max().item(), scales.max().item())
    return largest
