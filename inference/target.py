"""The joint density of latents and data as a function of free coordinates, with its gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from ppl_gen.errors import StoryError
from ppl_gen.inference.layout import Node
from ppl_gen.inference.marginal import summed_out
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.tracing import Batch, Fix, blame, sample_sites


@dataclass(frozen=True)
class _Coordinates:
    """How the values of a site follow from some of the free coordinates.

    Attributes:
        node: The site in a trace of the model.
        transform: From free coordinates to values.
        plates: Sizes of its plates, from the outermost batch dimension in.
        free: Shape of the free coordinates of one value.
        rows: The plate along which the data lie; None where all coordinates belong to all data.
        part: Which of all coordinates are its own.
    """

    node: Node
    transform: Any
    plates: tuple[int, ...]
    free: tuple[int, ...]
    rows: int | None
    part: slice

    def value(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Values, ``(C, *plates, *event)``, at positions ``(C, N, D)``, and ``log |dv/du|``."""
        own = position[..., self.part]
        if self.rows is None:
            own = own.reshape(len(own), *self.plates, *self.free)
        else:
            others = self.plates[: self.rows] + self.plates[self.rows + 1 :]
            own = own.reshape(*own.shape[:2], *others, *self.free).movedim(1, 1 + self.rows)
        value = self.transform(own)
        stretch = self.transform.log_abs_det_jacobian(own, value)
        return value, self._by_row(stretch).flatten(2).sum(-1)

    def position(self, value: Tensor) -> Tensor:
        """Its coordinates, ``(C, N, d)``, of values ``(C, *plates, *event)``."""
        return self._by_row(self.transform.inv(value)).flatten(2)

    def _by_row(self, value: Tensor) -> Tensor:
        if self.rows is None:
            return value.reshape(len(value), 1, -1)
        return value.movedim(1 + self.rows, 1).reshape(len(value), value.shape[1 + self.rows], -1)


class Target:
    """The joint log-density of a story at any values of its latents, given some rows of data.

    Constrained latents are moved to coordinates that may take any value, by Pyro's bijections, and
    sites that are enumerated are summed out. For latents of single rows the densities of all rows
    stand side by side, ``N`` of them; where latents are shared by all rows there is one density,
    of everything, and ``N`` is 1.

    Args:
        sampler: Of the run, whose parameter store has to be in force.
        batch: Rows of data.
        fixed: Values of global sites to hold, ``(1, *plates, *event)`` each as
            :meth:`Sampler.draw_globals` gives them; by default, if all latents are global, or with
            ``whole``, they are coordinates themselves.
        whole: Whether local and global latents are coordinates of one density.

    Raises:
        StoryError: If a latent has no free coordinates, as a discrete one has not, or no density.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch: Batch,
        fixed: Mapping[str, Tensor] | None = None,
        whole: bool = False,
    ) -> None:
        structure = sampler.structure
        if structure.unscored:
            raise StoryError(structure.unscored)
        self.sampler = sampler
        self.batch = batch
        self.fixed = dict(fixed or {})
        local = [s for s in structure.latents if s.local and not s.summed]
        self.by_row = bool(local) and not whole
        sites = (
            local
            if self.by_row
            else [s for s in structure.latents if not s.summed and s.name not in self.fixed]
        )
        if not sites:
            raise StoryError("the story has no latent that could be moved")
        self.rows = sampler.window.count(batch) if self.by_row else 1
        self.coordinates = _described(sampler, batch, [s.name for s in sites], self.by_row)
        self.dimensions = max(c.part.stop for c in self.coordinates.values())
        if sampler.at_once is None:
            sampler.draw(batch, 2)
        self._maps = True

    def log_density(self, position: Tensor) -> Tensor:
        """In nats, ``(C, N)``, at positions ``(C, N, D)``; it carries a gradient."""
        if self.sampler.at_once:
            return self._log_density(position)
        if self._maps:
            try:
                return torch.vmap(lambda one: self._log_density(one[None])[0])(position)
            except (RuntimeError, StoryError):  # what a program may do that cannot be mapped
                self._maps = False
        return torch.cat([self._log_density(one[None]) for one in position])

    def _log_density(self, position: Tensor) -> Tensor:
        values, stretch = {}, torch.zeros((), device=position.device)
        for name, coordinates in self.coordinates.items():
            value, log_stretch = coordinates.value(position)
            values[name] = (
                self.sampler.layout.placed(value, coordinates.node)
                if self.sampler.at_once
                else value.reshape(1, *coordinates.node["value"].shape)
            )
            stretch = stretch + log_stretch
        chains = len(position)
        held = {n: v.expand(chains, *v.shape[1:]) for n, v in self.fixed.items()}
        inner, outer = self._joint({**held, **values}, chains)
        if self.by_row:
            return inner + stretch
        return inner.sum(1, keepdim=True) + outer[:, None] + stretch

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Log-densities ``(C, N)`` and their gradients ``(C, N, D)``."""
        with torch.enable_grad(), pyro.validation_enabled(False):
            position = position.detach().requires_grad_()
            log_density = self.log_density(position)
            (gradient,) = torch.autograd.grad(log_density.sum(), position)
        return log_density.detach(), gradient

    def position(self, latents: Mapping[str, Tensor]) -> Tensor:
        """Coordinates, ``(S, N, D)``, of draws ``(S, *plates, *event)`` by site.

        Raises:
            StoryError: If a draw lies on the edge of what its law takes.
        """
        parts = [c.position(latents[name]) for name, c in self.coordinates.items()]
        found = torch.cat(parts, -1)
        if not found.isfinite().all():
            raise StoryError("a draw of the latents lies at the edge of its support")
        return found

    def latents(self, position: Tensor) -> dict[str, Tensor]:
        """Values by site, ``(C, *plates, *event)``, at positions ``(C, N, D)``."""
        return {name: c.value(position)[0] for name, c in self.coordinates.items()}

    def log_stretch(self, position: Tensor) -> Tensor:
        r"""``log |dv/du|`` of the values by the coordinates, ``(C, N)``, in nats."""
        return torch.stack([c.value(position)[1] for c in self.coordinates.values()]).sum(0)

    def _joint(self, values: Mapping[str, Tensor], chains: int) -> tuple[Tensor, Tensor]:
        """Log-densities inside the data plate, ``(C, N)``, and outside, ``(C,)``."""
        sampler, rows = self.sampler, self.sampler.window.count(self.batch)
        at_once = bool(sampler.at_once)
        model = sampler._plated(Fix(values, at_once)(sampler.pair.model), chains)
        if sampler.summed:
            guide = poutine.infer_config(sampler.pair.guide, lambda site: {"enumerate": None})  # pyright: ignore[reportArgumentType]
            _, inner, outer = summed_out(
                model,
                sampler._plated(Fix(values, at_once)(guide), chains),
                self.batch,
                sampler.kwargs,
                sampler.structure.nesting + at_once,
                sampler.structure.data_plates,
                (chains, rows),
            )
            return inner, outer
        with blame("model"):
            trace = poutine.trace(model).get_trace(*self.batch, **sampler.kwargs)
        inner, outer = sampler.layout.sums((), chains, rows)
        for node in sample_sites(trace).values():
            terms = sampler.layout.terms(node, chains)
            inner, outer = sampler.layout.added(inner, outer, node, terms)
        return inner, outer


def _described(
    sampler: Sampler, batch: Batch, names: Sequence[str], by_row: bool
) -> dict[str, _Coordinates]:
    """Coordinates of each site, one after the other."""
    with torch.no_grad(), pyro.validation_enabled(False), blame("model"):
        trace = poutine.trace(sampler.pair.model).get_trace(*batch, **sampler.kwargs)
    nodes, found, begin = sample_sites(trace), {}, 0
    for name in names:
        node = nodes[name]
        value = sampler.layout.value(node, 1)
        if not value.is_floating_point():
            raise StoryError(f"{name!r} is discrete: no path leads from one value to another")
        try:
            transform: Any = biject_to(node["fn"].support)
            free = transform.inv(value)
        except (NotImplementedError, ValueError, AttributeError):
            raise StoryError(
                f"values of {name!r} ({sampler.structure.sites[name].law}) have no free coordinates"
            ) from None
        plates = tuple(value.shape[1 : 1 + len(sampler.structure.sites[name].plates)])
        own = tuple(free.shape[1 + len(plates) :])
        row = sampler.window.row_axis(name) - 1 if by_row else None
        others = plates if row is None else plates[:row] + plates[row + 1 :]
        size = math.prod(others) * math.prod(own)
        found[name] = _Coordinates(node, transform, plates, own, row, slice(begin, begin + size))
        begin += size
    return found
