"""Programs as users of Pyro write them, one of each kind, on data they could have."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn
from torch.distributions import constraints

G = torch.Generator().manual_seed(0)
X = torch.randn(60, 3, generator=G)
Y = X @ torch.tensor([1.0, -2.0, 0.5]) + 0.3 * torch.randn(60, generator=G)
GROUP = torch.randint(5, (60,), generator=G)
BITS = (torch.rand(60, 20, generator=G) < 0.4).float()
COUNTS = torch.poisson(3 * torch.rand(60, 6, generator=G), generator=G)
SERIES = torch.randn(60, 8, generator=G).cumsum(1)


def regression(x: Tensor, y: Tensor) -> None:
    weight = pyro.sample("weight", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((weight * x).sum(-1), scale), obs=y)


def regression_guide(x: Tensor, y: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(3))
    root = pyro.param("root", torch.eye(3), constraint=constraints.lower_cholesky)
    pyro.sample("weight", dist.MultivariateNormal(loc, scale_tril=root))
    at = pyro.param("at", torch.tensor(0.0))
    spread = pyro.param("spread", torch.tensor(0.1), constraint=constraints.positive)
    pyro.sample("scale", dist.LogNormal(at, spread))


def hierarchy(x: Tensor, y: Tensor, group: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with pyro.plate("groups", 5):
        weight = pyro.sample("weight", dist.Normal(mean, spread).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((x * weight[group]).sum(-1), 0.5), obs=y)


def subsampled(x: Tensor, y: Tensor) -> None:
    weight = pyro.sample("weight", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    with pyro.plate("rows", len(x), subsample_size=20) as rows:
        pyro.sample("y", dist.Normal(x[rows] @ weight, 0.3), obs=y[rows])


class Layers(nn.Module):
    """Five layers of codes, one ``pyro.sample`` each, in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(20, 4) for _ in range(5))
        self.down = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.out = nn.Linear(4, 20)

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z0", dist.Normal(x.new_zeros(len(x), 4), 1.0).to_event(1))
            for i, layer in enumerate(self.down, 1):
                z = pyro.sample(f"z{i}", dist.Normal(layer(z.tanh()), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.out(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            for i, layer in enumerate(self.up):
                pyro.sample(f"z{i}", dist.Normal(layer(x), 0.5).to_event(1))


class Normalised(nn.Module):
    """A VAE with batch normalisation, whose buffers change at every step, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.loc, self.scale = nn.Linear(16, 2), nn.Linear(16, 2)
        self.decoder = nn.Sequential(
            nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 20)
        )

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        hidden = self.encoder(x)
        with pyro.plate("rows", len(x)):
            law = dist.Normal(self.loc(hidden), self.scale(hidden).exp())
            pyro.sample("z", law.to_event(1))


def mixture(x: Tensor) -> None:
    weights = pyro.param("weights", torch.ones(4) / 4, constraint=constraints.simplex)
    loc = pyro.param("loc", X[:4].clone())
    scale = pyro.param("scale", torch.ones(4, 3), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc[k], scale[k]).to_event(1), obs=x)


def nothing(*batch: Tensor) -> None:
    """A guide of a model without latents, or with summed ones alone."""


def guessed(x: Tensor) -> None:
    """A mixture's assignment guessed by the guide, and summed over its guesses."""
    logits = pyro.param("slope", 0.1 * torch.ones(3, 4))
    with pyro.plate("rows", len(x)):
        law = dist.Categorical(logits=x @ logits)
        pyro.sample("k", law, infer={"enumerate": "parallel"})


class Switches(nn.Module):
    """Binary codes without a gradient of their own: the score-function estimator."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(20, 3), nn.Linear(3, 20)

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5 * torch.ones(3)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=self.encoder(x)).to_event(1))


class BayesianNetwork(PyroModule):
    """Weights with priors, as attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = PyroModule[nn.Linear](3, 5)
        self.first.weight = PyroSample(dist.Normal(0.0, 1.0).expand([5, 3]).to_event(2))
        self.last = PyroModule[nn.Linear](5, 1)

    def forward(self, x: Tensor, y: Tensor) -> None:
        mean = self.last(self.first(x).tanh()).squeeze(-1)
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean, 0.3), obs=y)


def topics(counts: Tensor) -> None:
    """Gamma and Dirichlet latents, whose gradients go through the draws implicitly."""
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("topics", 3):
        words = pyro.sample("words", dist.Dirichlet(torch.ones(6)))
    with pyro.plate("rows", len(counts)):
        share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
        mean = 20 * rate * share @ words
        pyro.sample("counts", dist.Poisson(mean).to_event(1), obs=counts)


def topics_guide(counts: Tensor) -> None:
    shape = pyro.param("shape", torch.tensor(2.0), constraint=constraints.positive)
    pyro.sample("rate", dist.Gamma(shape, 2.0))
    with pyro.plate("topics", 3):
        of_words = pyro.param("of_words", 1 + COUNTS[:3], constraint=constraints.positive)
        pyro.sample("words", dist.Dirichlet(of_words))
    slope = pyro.param("slope", torch.zeros(6, 3))
    with pyro.plate("rows", len(counts)):
        pyro.sample("share", dist.Dirichlet(1 + (0.1 * counts @ slope).exp()))


def series(x: Tensor) -> None:
    """A state that walks, seen through noise: a loop over time."""
    drift = pyro.param("drift", torch.tensor(0.1))
    with pyro.plate("rows", len(x)):
        state = x.new_zeros(len(x))
        for t in range(x.shape[1]):
            state = pyro.sample(f"state_{t}", dist.Normal(state + drift, 1.0))
            pyro.sample(f"x_{t}", dist.Normal(state, 0.5), obs=x[:, t])


def series_guide(x: Tensor) -> None:
    share = pyro.param("share", torch.tensor(0.5), constraint=constraints.unit_interval)
    with pyro.plate("rows", len(x)):
        for t in range(x.shape[1]):
            pyro.sample(f"state_{t}", dist.Normal(share * x[:, t], 0.4))


def in_a_loop(x: Tensor, y: Tensor) -> None:
    """A plate in a loop, and terms masked and scaled by handlers."""
    weight = pyro.sample("weight", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    for column in pyro.plate("columns", 3):
        with poutine.scale(scale=0.5):
            pyro.sample(f"pull_{column}", dist.Normal(weight[column], 2.0), obs=torch.zeros(()))
    with pyro.plate("rows", len(x)), poutine.mask(mask=y > -1):
        pyro.sample("y", dist.StudentT(4.0, x @ weight, 0.3), obs=y)


# What to hand to fit, by what it shows; every call makes new modules.
PROGRAMS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "functions with parameters": lambda: ((regression, regression_guide), (X, Y)),
    "a hierarchy and an autoguide": lambda: ((hierarchy, "AutoNormal"), (X, Y, GROUP)),
    "a guide of low rank": lambda: ((regression, "AutoLowRankMultivariateNormal"), (X, Y)),
    "a plate that subsamples": lambda: ((subsampled, "AutoDiagonalNormal"), (X, Y)),
    "five layers in a loop": lambda: (Layers(), BITS),
    "batch normalisation and dropout": lambda: (Normalised(), BITS),
    "a mixture summed by Pyro": lambda: ((mixture, nothing), X),
    "a mixture guessed and summed": lambda: ((mixture, guessed), X),
    "discrete codes without enumeration": lambda: (Switches(), BITS),
    "a Bayesian network": lambda: ((BayesianNetwork(), "AutoNormal"), (X, Y)),
    "Gamma and Dirichlet": lambda: ((topics, topics_guide), COUNTS),
    "a time series": lambda: ((series, series_guide), SERIES),
    "a plate in a loop, masks and scales": lambda: ((in_a_loop, "AutoNormal"), (X, Y)),
    "a guide that is a flow": lambda: ((regression, "AutoIAFNormal"), (X, Y)),
}
