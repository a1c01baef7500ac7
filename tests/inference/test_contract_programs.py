"""``fit`` takes any Pyro program: one small program of every kind, each with a known answer.

All tell the same story: mu ~ Normal(0, 3), and x ~ Normal(mu, 1) for each
datum. Its posterior is normal and known, so whatever way the story is written, the fit must
arrive at that mean and that standard deviation.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import (
    JitTrace_ELBO,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuideList,
    AutoLowRankMultivariateNormal,
    AutoNormal,
    AutoNormalMessenger,
)
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn
from torch.distributions import constraints

import ppl_gen as pg

X = 1.5 + torch.randn(64, generator=torch.Generator().manual_seed(0))
PRECISION = 1 / 9 + len(X)
MEAN, SD = float(X.sum() / PRECISION), PRECISION**-0.5


def model(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def guide(x: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.5))
    scale = pyro.param("scale", torch.tensor(0.3), constraint=constraints.positive)
    pyro.sample("mu", dist.Normal(loc, scale))


class Story(pg.Story):
    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.5))
        self.log_scale = nn.Parameter(torch.tensor(-1.0))

    def model(self, x: Tensor) -> None:
        model(x)

    def guide(self, x: Tensor) -> None:
        pyro.sample("mu", dist.Normal(self.loc, self.log_scale.exp()))


class Plain:
    """No module at all: two methods and the parameters that they make."""

    def __init__(self, spread: float) -> None:
        self.spread = spread

    def model(self, x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, self.spread))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        guide(x)


class Sampled(PyroModule):
    """The latent is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = PyroSample(dist.Normal(0.0, 3.0))

    def forward(self, x: Tensor) -> None:
        mu = self.mu
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


class Constrained(PyroModule):
    """The parameters are attributes, one of them positive."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.5))
        self.scale = PyroParam(torch.tensor(0.3), constraint=constraints.positive)

    def forward(self, x: Tensor) -> None:
        pyro.sample("mu", dist.Normal(self.loc, self.scale))


class Easy(EasyGuide):
    def guide(self, x: Tensor) -> None:
        group = self.group(match="mu")
        loc = pyro.param("loc", torch.zeros(group.event_shape))
        scale = pyro.param("scale", torch.full(group.event_shape, 0.3), constraints.positive)
        group.sample("mu_joint", dist.Normal(loc, scale).to_event(1))


def no_plate(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    pyro.sample("x", dist.Normal(mu, 1.0).expand([len(x)]).to_event(1), obs=x)


def plate_without_size(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data"):
        pyro.sample("x", dist.Normal(mu, torch.ones_like(x)), obs=x)


def plate_in_a_loop(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"x_{i}", dist.Normal(mu, 1.0), obs=x[i])


def plate_of_given_rows(x: Tensor, rows: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(X), subsample=rows):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def plate_that_subsamples(x: Tensor, taken: int = 32) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x), subsample_size=taken) as rows:
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x[rows])


def loop_that_subsamples(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    for i in pyro.plate("data", len(x), subsample_size=48):
        pyro.sample(f"x_{i}", dist.Normal(mu, 1.0), obs=x[i])


def two_columns(x: Tensor, shift: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu + shift, 1.0), obs=x + shift)


def with_options(x: Tensor, spread: float, flip: bool = False) -> None:
    assert flip
    mu = pyro.sample("mu", dist.Normal(0.0, spread))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def guide_with_options(x: Tensor, spread: float, flip: bool = False) -> None:
    guide(x)


def model_of_its_own_data() -> None:
    model(X)


def guide_of_its_own_data() -> None:
    guide(X)


def hierarchy(x: Tensor) -> None:
    """The same law of mu and x, with a local latent between: its variance and x's make 1."""
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 0.5**0.5))
        pyro.sample("x", dist.Normal(z, 0.5**0.5), obs=x)


def hierarchy_guide(x: Tensor) -> None:
    """Exact for mu; z hangs on it and on its datum, whose parameters every datum shares."""
    loc = pyro.param("loc", torch.tensor(0.5))
    scale = pyro.param("scale", torch.tensor(0.3), constraint=constraints.positive)
    mu = pyro.sample("mu", dist.Normal(loc, scale))
    weight = pyro.param("weight", torch.tensor(0.3), constraint=constraints.unit_interval)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(weight * x + (1 - weight) * mu, 0.5))


def subsampled_hierarchy(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x), subsample_size=32) as rows:
        z = pyro.sample("z", dist.Normal(mu, 0.5**0.5))
        pyro.sample("x", dist.Normal(z, 0.5**0.5), obs=x[rows])


def guide_with_local_parameters(x: Tensor) -> None:
    """Two numbers for every datum, of which Pyro hands out those of the subsample."""
    loc = pyro.param("loc", torch.tensor(0.5))
    scale = pyro.param("scale", torch.tensor(0.3), constraint=constraints.positive)
    mu = pyro.sample("mu", dist.Normal(loc, scale))
    with pyro.plate("data", len(x), subsample_size=32):
        shift = pyro.param("shift", lambda: x / 2, event_dim=0)
        width = pyro.param(
            "width", lambda: torch.full((len(x),), 0.5), constraints.positive, event_dim=0
        )
        pyro.sample("z", dist.Normal(shift + mu / 2, width))


def guide_in_parts() -> AutoGuideList:
    parts = AutoGuideList(two_latents)
    parts.append(AutoDiagonalNormal(poutine.block(two_latents, expose=["mu"])))
    parts.append(AutoDelta(poutine.block(two_latents, expose=["nu"])))
    return parts


def two_latents(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    pyro.sample("nu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def random_number_of_sites(x: Tensor) -> None:
    """Which sites there are depends on what is drawn; mu does not."""
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    for t in range(5):
        if pyro.sample(f"stop_{t}", dist.Bernoulli(0.5)) == 1:
            break
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def guide_of_random_sites(x: Tensor) -> None:
    guide(x)
    for t in range(5):
        if pyro.sample(f"stop_{t}", dist.Bernoulli(0.5)) == 1:
            break


@dataclass
class Case:
    """What is handed to ``fit``."""

    story: Any
    data: Any = field(default_factory=lambda: X)
    options: dict[str, Any] = field(default_factory=dict)
    posterior: bool = True


CASES: dict[str, Callable[[], Case]] = {
    "a story": lambda: Case(Story()),
    "an object with two methods": lambda: Case(Plain(3.0)),
    "two functions": lambda: Case((model, guide)),
    "bound methods": lambda: Case((Plain(3.0).model, Plain(3.0).guide)),
    "bound methods of one module": lambda: Case([(s := Story()).model, s.guide]),
    "partial": lambda: Case((functools.partial(with_options, spread=3.0, flip=True), guide)),
    "kwargs": lambda: Case(
        (with_options, guide_with_options), X, {"kwargs": {"spread": 3.0, "flip": True}}
    ),
    "data of its own": lambda: Case((model_of_its_own_data, guide_of_its_own_data), None),
    "two columns": lambda: Case((two_columns, lambda x, _: guide(x)), (X, torch.ones(64))),
    "PyroSample": lambda: Case((Sampled(), AutoNormal(Sampled()))),
    "PyroParam": lambda: Case((model, Constrained())),
    "handlers around both": lambda: Case(
        (poutine.scale(model, scale=1.0), poutine.scale(Constrained(), scale=1.0))
    ),
    "an autoguide": lambda: Case((model, AutoDiagonalNormal(model))),
    "an autoguide's class": lambda: Case((model, AutoNormal)),
    "an autoguide's name": lambda: Case((model, "AutoMultivariateNormal")),
    "a low rank guide": lambda: Case((two_latents, AutoLowRankMultivariateNormal(two_latents))),
    "guides in a list": lambda: Case((two_latents, guide_in_parts())),
    "an easy guide": lambda: Case((model, Easy(model))),
    "a guide of handlers": lambda: Case((model, AutoNormalMessenger(model))),
    "no plate": lambda: Case((no_plate, guide)),
    "plate without size": lambda: Case((plate_without_size, guide), X, {"batch_size": 32}),
    "plate in a loop": lambda: Case(
        (plate_in_a_loop, guide), X, {"batch_size": 32, "epochs": 100}, posterior=False
    ),
    "plate of given rows": lambda: Case(
        (plate_of_given_rows, lambda x, rows: guide(x)), (X, torch.arange(64)), {"batch_size": 32}
    ),
    "plate that subsamples": lambda: Case((plate_that_subsamples, guide)),
    "loop that subsamples": lambda: Case(
        (loop_that_subsamples, guide), X, {"epochs": 400}, posterior=False
    ),
    "mini-batches": lambda: Case((model, guide), X, {"batch_size": 16, "epochs": 120}),
    "local latents": lambda: Case((hierarchy, hierarchy_guide)),
    "local latents in mini-batches": lambda: Case(
        (hierarchy, hierarchy_guide), X, {"batch_size": 16, "epochs": 150}
    ),
    "local parameters": lambda: Case(
        (subsampled_hierarchy, guide_with_local_parameters), X, {"epochs": 500}
    ),
    "reparametrised": lambda: Case(
        (poutine.reparam(model, {"mu": LocScaleReparam(0.0)}), AutoNormal)
    ),
    "a random number of sites": lambda: Case(
        (random_number_of_sites, guide_of_random_sites), posterior=False
    ),
}


def fitted(case: Case, **options: Any) -> pg.Run:
    """A fit at the end of which the noise of the steps has died down."""
    chosen = {"epochs": 300, "learning_rate": 0.05, "schedule": "cosine", **case.options, **options}
    return pg.fit(case.story, case.data, progress=False, **chosen)


def draws_of_mu(run: pg.Run, data: Any) -> Tensor:
    tree = run.posterior(data, draws=2000, groups=["posterior"])
    return torch.as_tensor(tree["posterior"]["mu"].values).flatten()


def guide_draws(run: pg.Run, data: Any) -> Tensor:
    with run.pair.active(), torch.no_grad():
        batch = () if data is None else run.batch(data)
        return torch.stack(
            [
                poutine.trace(run.pair.guide).get_trace(*batch).nodes["mu"]["value"]
                for _ in range(2000)
            ]
        )


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_every_kind_of_program_arrives_at_the_exact_posterior(build: Callable[[], Case]) -> None:
    """Mean within a fifth of the posterior's standard deviation, that within a fifth of itself."""
    case = build()
    run = fitted(case)

    mu = (draws_of_mu if case.posterior else guide_draws)(run, case.data)

    assert mu.mean().item() == pytest.approx(MEAN, abs=SD / 5)
    assert mu.std().item() == pytest.approx(SD, rel=0.2)


BOUNDS: dict[str, Callable[[], Any]] = {
    "Trace_ELBO": Trace_ELBO,
    "several particles at once": lambda: Trace_ELBO(
        4, max_plate_nesting=1, vectorize_particles=True
    ),
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "TraceGraph_ELBO": TraceGraph_ELBO,
    "TraceEnum_ELBO": lambda: TraceEnum_ELBO(1, strict_enumeration_warning=False),
    "RenyiELBO": lambda: RenyiELBO(alpha=0.9, num_particles=4),
    "JitTrace_ELBO": lambda: JitTrace_ELBO(ignore_jit_warnings=True),
    "ReweightedWakeSleep": lambda: ReweightedWakeSleep(num_particles=4, insomnia=1.0),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_every_bound_of_pyro_can_be_climbed(bound: Callable[[], Any]) -> None:
    """Each has the exact posterior as its optimum, with draws of its own."""
    case = Case((model, guide))
    run = fitted(case, elbo=bound())

    mu = draws_of_mu(run, X)

    assert mu.mean().item() == pytest.approx(MEAN, abs=SD / 2)
    assert mu.std().item() == pytest.approx(SD, rel=0.4)
