"""How far apart the posteriors of engines are, in the free coordinates of the latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.checks.reference import distance, rhat
from ppl_gen.inference.dims import event_dims
from ppl_gen.inference.engine_comparison import Engine, Latent
from ppl_gen.inference.labels import Labels, component_table, nearest_order, relabelling
from ppl_gen.inference.structure import Site, Structure

Free = dict[str, Tensor]  # draws of each site in free coordinates, (S, N, d)


@dataclass
class Found:
    """What an engine found, before it is held against the others.

    Attributes:
        engine: Its figures.
        latents: Draws by site, ``(S, *plates, *event)``, of chains one after the other.
        points: Sites of which it gives a single value.
        chains: How many chains the draws are of; 0 where they are independent.
    """

    engine: Engine
    latents: dict[str, Tensor]
    points: frozenset[str] = frozenset()
    chains: int = 0


def moved(structure: Structure) -> list[Site]:
    """The latents in which engines can differ: those that are not summed out."""
    return [site for site in structure.latents if not site.summed]


@dataclass
class Exchange:
    """Gives exchangeable components the same order everywhere.

    Attributes:
        story: Which says what is exchangeable, as :class:`ppl_gen.Story` does, or does not.
        structure: Its sites.
    """

    story: Any
    structure: Structure

    @cached_property
    def dims(self) -> dict[str, list[str]]:
        """Names of the dimensions of each latent: its plates, then those of one value."""
        named = event_dims(self.structure, dict(getattr(self.story, "dims", {})), {})
        return {s.name: [*s.plates, *named[s.name]] for s in moved(self.structure)}

    def like(self, latents: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draws whose components are in the order of other draws, which agree with themselves.

        Raises:
            StoryError: If sites or shapes differ.
        """
        for name in self.dims:
            if name not in latents:
                raise StoryError(f"it has no values of {name!r}")
            mine, theirs = tuple(latents[name].shape[1:]), tuple(other[name].shape[1:])
            if mine != theirs:
                raise StoryError(
                    f"its {name!r} has shape {mine}, where that of the reference has {theirs}"
                )
        dim = getattr(self.story, "exchangeable", "")
        shared = [s.name for s in moved(self.structure) if not s.local]
        axes = {
            n: 1 + self.dims[n].index(dim)
            for n in shared
            if dim in self.dims[n] and latents[n].is_floating_point()
        }
        if not axes:
            return dict(latents)
        first = len(next(iter(other.values())))
        table = component_table({n: torch.cat([other[n], latents[n]]) for n in axes}, axes)
        order = nearest_order(table[first:], relabelling(table[:first])[1])
        labels = Labels(dim, (), order)
        return {
            n: labels.applied(n, value, self.dims[n], slice(None)) if n in shared else value
            for n, value in latents.items()
        }


def _coordinates(values: Free) -> Mapping[str, Tensor]:
    """Draws of each coordinate, ``(S, N, 1)``, by its name."""
    return {
        f"{site}[{i}]" if value.shape[-1] > 1 else site: value[..., i : i + 1]
        for site, value in values.items()
        for i in range(value.shape[-1])
    }


def with_latents(one: Found, mine: Free | None, reference: Free) -> Engine:
    """An engine with what it found of each coordinate, and how far that is from the reference."""
    if mine is None:
        return one.engine
    theirs, latents = _coordinates(reference), {}
    for name, value in _coordinates(mine).items():
        point = one.engine.point and name.partition("[")[0] in one.points
        value = value.mean(0, keepdim=True) if point else value
        found = Latent(
            mean=value.mean(0)[:, 0].tolist(),
            deviation=value.std(0, correction=0)[:, 0].tolist(),
        )
        held = theirs[name]
        if mine is reference:
            latents[name] = replace(found, shift=0.0, stretch=1.0, wasserstein=0.0)
        elif point:
            shift = ((value[0] - held.mean(0)) / held.std(0).clamp_min(1e-12)).mean().item()
            latents[name] = replace(found, shift=shift)
        else:
            apart = distance(value, held)
            latents[name] = replace(
                found, **{f.name: getattr(apart, f.name).item() for f in fields(apart)}
            )
    return replace(one.engine, latents=latents)


def worst_rhat(values: Free, chains: int) -> tuple[str, float]:
    """The coordinate whose chains agree least, and its R-hat."""
    found = {
        name: rhat(value.unflatten(0, (chains, -1)).transpose(0, 1)).max().item()
        for name, value in _coordinates(values).items()
    }
    worst = max(found, key=lambda name: found[name])
    return worst, found[worst]


def error_of_means(values: Free, chains: int) -> float:
    """The largest standard error of a mean of chains, in deviations of the draws."""
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    least = min(
        np.min(array_stats.ess(v.unflatten(0, (chains, -1)).numpy(), chain_axis=0, draw_axis=1))
        for v in values.values()
    )
    return 1 / math.sqrt(max(1.0, float(least)))
