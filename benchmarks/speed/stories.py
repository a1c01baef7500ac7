"""Stories as users of Pyro write them, with nothing of ppl-gen in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import Tensor, nn
from torch.distributions import constraints


@dataclass(frozen=True)
class Told:
    """A story with data of its kind.

    Attributes:
        model: The generative program.
        guide: The program of the approximate posterior.
        columns: What both are called with, as many rows each.
        elbo: The bound that Pyro's users take for it.
        batch_size: Rows a step; None where the program takes its own share of all rows.
        rate: Learning rate.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    columns: tuple[Tensor, ...]
    elbo: ELBO
    batch_size: int | None
    rate: float = 1e-3

    @property
    def data(self) -> Any:
        """The columns as ``ppl_gen.fit`` takes them."""
        first, *others = self.columns
        return self.columns if others else first


def functions() -> Told:
    """A noisy measurement of a hidden vector: two functions with ``pyro.param``::

    z ~ Normal(centre, width)
    x ~ Normal(z, noise)
    """
    return Told(measured, unmeasured, (normal_rows(5120, 4),), Trace_ELBO(), 256)


def measured(x: Tensor) -> None:
    """The model of :func:`functions`."""
    centre = pyro.param("centre", x.new_zeros(4))
    width = pyro.param("width", x.new_ones(4), constraint=constraints.positive)
    noise = pyro.param("noise", x.new_ones(4), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(centre, width).to_event(1))
        pyro.sample("x", dist.Normal(z, noise).to_event(1), obs=x)


def unmeasured(x: Tensor) -> None:
    """The guide of :func:`functions`."""
    slope = pyro.param("slope", torch.eye(4, device=x.device))
    offset = pyro.param("offset", x.new_zeros(4))
    scale = pyro.param("scale", x.new_ones(4), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x @ slope + offset, scale).to_event(1))


class Layers(nn.Module):
    """Five codes above each other, sampled in a Python loop::

    z0 ~ Normal(0, 1)
    z1 ~ Normal(network(z0), 1), ..., z4 ~ Normal(network(z3), 1)
    x ~ Normal(network(z4), 1)
    """

    def __init__(self, depth: int = 5, width: int = 8, features: int = 16) -> None:
        super().__init__()
        sizes = [width] * (depth - 1) + [features]
        self.width = width
        self.down = nn.ModuleList(nn.Linear(width, size) for size in sizes)
        self.up = nn.ModuleList(nn.Linear(features, 2 * width) for _ in range(depth))

    def model(self, x: Tensor) -> None:
        """Each code from the one above it."""
        pyro.module("layers", self)
        loc = x.new_zeros(len(x), self.width)
        with pyro.plate("rows", len(x)):
            for i, layer in enumerate(self.down):
                z = pyro.sample(f"z{i}", dist.Normal(loc, 1.0).to_event(1))
                loc = layer(torch.tanh(z))
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Each code from the observation."""
        pyro.module("layers", self)
        with pyro.plate("rows", len(x)):
            for i, layer in enumerate(self.up):
                loc, scale = layer(x).chunk(2, -1)
                pyro.sample(f"z{i}", dist.Normal(loc, scale.exp()).to_event(1))


def layers() -> Told:
    """The codes of :class:`Layers`."""
    story = Layers()
    return Told(story.model, story.guide, (normal_rows(5120, 16),), Trace_ELBO(), 256)


def mixture() -> Told:
    """Three clusters of points, the cluster of each summed out by enumeration::

    k ~ Categorical(weights)
    x ~ Normal(centre[k], width[k])
    """
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    return Told(clustered, nothing_hidden, (clusters(5120, 2, 3),), elbo, 256, 1e-2)


@config_enumerate
def clustered(x: Tensor) -> None:
    """The model of :func:`mixture`."""
    weights = pyro.param("weights", x.new_ones(3) / 3, constraint=constraints.simplex)
    centre = pyro.param("centre", lambda: torch.randn(3, x.shape[1], device=x.device))
    width = pyro.param("width", x.new_ones(3, x.shape[1]), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(centre[k], width[k]).to_event(1), obs=x)


def nothing_hidden(x: Tensor) -> None:
    """The guide of a story whose latents are all summed out."""


def regression() -> Told:
    """A line in each of twenty groups, the lines drawn from one law, from some rows a step::

    slope[g] ~ Normal(centre, spread)
    y ~ Normal(slope[g] . (1, x), noise)
    """
    x, group = normal_rows(10_000, 1)[:, 0], torch.arange(10_000) % 20
    y = 0.5 * x + group / 10 + 0.3 * normal_rows(10_000, 1, seed=1)[:, 0]
    return Told(lines_of_groups, lines_found, (x, group, y), Trace_ELBO(), None, 1e-2)


def lines_of_groups(x: Tensor, group: Tensor, y: Tensor) -> None:
    """The model of :func:`regression`."""
    centre = pyro.sample("centre", dist.Normal(x.new_zeros(2), 2.0).to_event(1))
    spread = pyro.sample("spread", dist.LogNormal(x.new_zeros(2), 1.0).to_event(1))
    noise = pyro.param("noise", x.new_ones(()), constraint=constraints.positive)
    with pyro.plate("groups", 20):
        slope = pyro.sample("slope", dist.Normal(centre, spread).to_event(1))
    with pyro.plate("rows", len(x), subsample_size=200) as some:
        mean = slope[group[some], 0] + slope[group[some], 1] * x[some]
        pyro.sample("y", dist.Normal(mean, noise), obs=y[some])


def lines_found(x: Tensor, group: Tensor, y: Tensor) -> None:
    """The guide of :func:`regression`."""

    def scale(name: str, *shape: int) -> Tensor:
        return pyro.param(name, 0.1 * x.new_ones(shape), constraint=constraints.positive)

    centre = pyro.param("centre_loc", x.new_zeros(2))
    pyro.sample("centre", dist.Normal(centre, scale("centre_scale", 2)).to_event(1))
    spread = pyro.param("spread_loc", x.new_zeros(2))
    pyro.sample("spread", dist.LogNormal(spread, scale("spread_scale", 2)).to_event(1))
    slope = pyro.param("slope_loc", x.new_zeros(20, 2))
    with pyro.plate("groups", 20):
        pyro.sample("slope", dist.Normal(slope, scale("slope_scale", 20, 2)).to_event(1))


# By name, with what the table calls them.
USERS: dict[str, Callable[[], Told]] = {
    "two functions with pyro.param": functions,
    "sample in a loop over 5 layers": layers,
    "enumerated mixture": mixture,
    "hierarchical regression, subsampled": regression,
}


def normal_rows(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, shape ``(rows, columns)``."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def clusters(rows: int, features: int, components: int) -> Tensor:
    """Rows of normal clusters with covariances of their own, shape ``(rows, features)``."""
    generator = torch.Generator().manual_seed(0)
    loc = 3 * torch.randn(components, features, generator=generator)
    root = torch.randn(components, features, features, generator=generator) / features**0.5
    root = root + 0.7 * torch.eye(features)
    labels = torch.randint(components, (rows,), generator=generator)
    noise = torch.randn(rows, features, generator=generator)
    return loc[labels] + torch.einsum("nij,nj->ni", root[labels], noise)
