"""Stories that are right, with data that they made: what the faults are planted in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppl_gen as pg
from ppl_gen.models import CVAE, GMM, PPCA, VAE

TRAIN, TEST = 2000, 500

Rows = Any


@dataclass(frozen=True)
class Case:
    """A fitted run, the rows to check it on, and those of its fit."""

    run: pg.Run
    test: Rows
    train: Rows


@dataclass(frozen=True)
class Tale:
    """A story, data that one like it has made, and how it is fitted.

    Attributes:
        story: Makes it, given the rows of the fit.
        data: Draws so many rows from a seed.
        options: Of the fit.
        own: Whether it is checked on the rows of the fit, as its latents are of all of them.
    """

    story: Callable[[Rows], Any]
    data: Callable[[int, torch.Generator], Rows]
    options: dict[str, Any] = field(default_factory=dict)
    own: bool = False
    rows: int = TRAIN

    def case(self, seed: int, story: Any = None, **changed: Any) -> Case:
        """Fitted as it should be, but for what is changed."""
        train, test = self.split(seed)
        return self.fitted(seed, train, test, story, **changed)

    def split(self, seed: int) -> tuple[Rows, Rows]:
        """Rows of the fit, and others."""
        generator = torch.Generator().manual_seed(seed)
        rows = self.data(self.rows + TEST, generator)
        return some(rows, slice(0, self.rows)), some(rows, slice(self.rows, None))

    def fitted(self, seed: int, train: Rows, test: Rows, story: Any = None, **changed: Any) -> Case:
        """A fit to these rows."""
        told = self.story(train) if story is None else story
        run = pg.fit(told, train, seed=seed, progress=False, **{**self.options, **changed})
        return Case(run, train if self.own else test, train)


def some(rows: Rows, part: Any) -> Rows:
    """Some rows of a table, or of each of its columns."""
    return tuple(column[part] for column in rows) if isinstance(rows, tuple) else rows[part]


WEIGHT = torch.tensor([[1.5, 0.3, -1.0, 0.6, 0.9], [0.2, 1.4, 0.8, -0.9, 0.5]])


def linear(rows: int, generator: torch.Generator) -> Tensor:
    """Two codes, mapped to five numbers: ``(rows, 5)``."""
    code = torch.randn(rows, 2, generator=generator)
    return code @ WEIGHT + 0.7 * torch.randn(rows, 5, generator=generator)


def curved(rows: int, generator: torch.Generator) -> Tensor:
    """Two codes, bent a little on the way to eight numbers: ``(rows, 8)``."""
    code = torch.randn(rows, 2, generator=generator)
    fixed = torch.Generator().manual_seed(7)
    inner = torch.randn(2, 16, generator=fixed)
    outer = torch.randn(16, 8, generator=fixed) / 4
    bent = torch.tanh(0.5 * code @ inner) @ outer
    return 2 * bent + 0.6 * torch.randn(rows, 8, generator=generator)


def labelled(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Three labels, each with its own centre, around which one code moves ``x``."""
    label = torch.randint(3, (rows,), generator=generator)
    centre = 2.5 * torch.eye(3, 5)[label]
    code = torch.randn(rows, 1, generator=generator)
    x = centre + code @ WEIGHT[:1] + 0.6 * torch.randn(rows, 5, generator=generator)
    return x, label


def responses(rows: int, generator: torch.Generator, tied: bool = False) -> tuple[Tensor, Tensor]:
    """A line through three causes, the first two of which go together if they are tied."""
    cause = torch.randn(rows, 3, generator=generator)
    if tied:
        cause[:, 1] = 0.95 * cause[:, 0] + 0.3 * cause[:, 1]
    noise = 0.5 * torch.randn(rows, generator=generator)
    return cause, cause @ torch.tensor([1.0, -1.0, 0.5]) + 0.3 + noise


def tied_responses(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of two causes that go together."""
    return responses(rows, generator, tied=True)


def blobs(rows: int, generator: torch.Generator) -> Tensor:
    """Three clouds in the plane: ``(rows, 2)``."""
    centres = torch.tensor([[4.0, 0.0], [-4.0, -3.0], [-3.0, 4.0]])
    chosen = torch.multinomial(torch.ones(3), rows, replacement=True, generator=generator)
    return centres[chosen] + torch.randn(rows, 2, generator=generator)


def counts(rows: int, generator: torch.Generator) -> Tensor:
    """Counts of six kinds whose rates one code moves: ``(rows, 6)``."""
    code = torch.randn(rows, 1, generator=generator)
    rates = (1.0 + code * torch.tensor([0.5, -0.5, 0.4, 0.3, -0.4, 0.2])).exp()
    return torch.poisson(rates, generator=generator)


def regression(cause: Tensor, response: Tensor) -> None:
    """A line, whose weights and noise are not known."""
    weight = pyro.sample("weight", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    offset = pyro.sample("offset", dist.Normal(0.0, 2.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("rows", len(cause)):
        mean = (cause * weight).sum(-1) + offset
        pyro.sample("response", dist.Normal(mean, scale), obs=response)


class Counts(pg.Story):
    """A code moves the rates of six counts, and a network reads it back."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = nn.Linear(1, 6)
        self.encoder = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 2))

    def model(self, x: Tensor) -> None:
        """The story."""
        with pyro.plate("rows", len(x)):
            code = pyro.sample("code", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Poisson(self.rates(code).exp()).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Read backwards."""
        loc, log_scale = self.encoder(x.log1p()).chunk(2, -1)
        with pyro.plate("rows", len(x)):
            pyro.sample("code", dist.Normal(loc, log_scale.exp()).to_event(1))


def vae(**options: Any) -> VAE:
    """Of curved data."""
    return VAE((8,), latent=2, posterior="full", hidden=(64, 64), **options)


TALES = {
    "ppca": Tale(lambda x: PPCA((5,), 2), linear, {"epochs": 100, "learning_rate": 0.02}),
    "vae": Tale(lambda x: vae(), curved, {"epochs": 120, "learning_rate": 0.005}, rows=4000),
    "cvae": Tale(
        lambda x: CVAE((5,), "label(classes=3)", 1, hidden=(32,)),
        labelled,
        {"epochs": 60, "learning_rate": 0.005},
    ),
    "counts": Tale(lambda x: Counts(), counts, {"epochs": 60, "learning_rate": 0.01}),
    "regression": Tale(
        lambda x: (regression, "AutoMultivariateNormal"),
        responses,
        {"epochs": 3000, "learning_rate": 0.02, "batch_size": 200, "stop": "settled"},
        own=True,
        rows=200,
    ),
    "gmm": Tale(
        lambda x: GMM((2,), 3, posterior="normal"),
        blobs,
        {"epochs": 4000, "learning_rate": 0.02, "batch_size": 400, "stop": "settled"},
        own=True,
        rows=400,
    ),
}
