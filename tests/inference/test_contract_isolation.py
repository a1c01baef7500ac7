"""A fit changes nothing but the run it returns: no argument, no other fit, no global state."""

import functools
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.errors import FitError, PplGenError
from ppl_gen.models import VAE

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
BRIEF: Any = {"epochs": 3, "batch_size": 20, "learning_rate": 0.05, "progress": False}


class Codes(nn.Module):
    """A module of one's own with buffers, and both programs as methods."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.decoder = nn.Linear(1, 3)

    def model(self, x: Tensor) -> None:
        pyro.module("codes", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


class Regression(PyroModule):
    """Global latents in a module of Pyro's."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](2, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> None:
        mean = self.linear(x[:, :2]).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, self.log_scale.exp()), obs=x[:, 2])


NET = nn.Linear(3, 2)


def captured_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., None] * torch.ones(3), 1.0).to_event(1), obs=x)


def captured_guide(x: Tensor) -> None:
    """It uses a module that nobody handed over."""
    pyro.module("net", NET)
    loc, log_scale = NET(x).unbind(-1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, log_scale.exp()))


def bound_guide(net: nn.Module, x: Tensor) -> None:
    pyro.module("net", net)
    loc, log_scale = net(x).unbind(-1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, log_scale.exp()))


def store_model(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(3))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def nothing(x: Tensor) -> None:
    """A guide without latents."""


def _regression() -> tuple[Any, Any]:
    model = Regression()
    return model, AutoDiagonalNormal(model)


STORIES: dict[str, Callable[[], Any]] = {
    "a story of ppl-gen": lambda: VAE((3,), 1, hidden=(4,)),
    "a module": Codes,
    "methods of a module": lambda: ((codes := Codes()).model, codes.guide),
    "a PyroModule and an autoguide": _regression,
    "a captured module": lambda: (captured_model, captured_guide),
    "a module bound by partial": lambda: (
        captured_model,
        functools.partial(bound_guide, nn.Linear(3, 2)),
    ),
    "parameters in the store": lambda: (store_model, nothing),
}


def modules_of(story: Any) -> list[nn.Module]:
    """Every module that can be reached from what is handed to fit."""
    parts = story if isinstance(story, tuple) else (story,)
    found: list[nn.Module] = [NET]
    for part in parts:
        owner = getattr(part, "__self__", part)
        found += [m for m in (owner, *getattr(part, "args", ())) if isinstance(m, nn.Module)]
    return found


def state_of_the_world() -> dict[str, Any]:
    """Whatever a careless fit might leave changed, in a form that can be compared."""
    store = pyro.get_param_store()
    return {
        "torch's generator": torch.get_rng_state().tolist(),
        "numpy's generator": str(np.random.get_state()),  # noqa: NPY002
        "Python's generator": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "threads": torch.get_num_threads(),
        "validation": (
            pyro.infer.is_validation_enabled(),
            torch.distributions.Distribution._validate_args,
        ),
        "settings": pyro.settings.get(),
        "handlers": list(pyro.poutine.runtime._PYRO_STACK),
        "store": {name: value.detach().tolist() for name, value in store.items()},
        "constraints": {name: str(value) for name, value in store._constraints.items()},
        "warnings": list(warnings.filters),
    }


@pytest.fixture(scope="module")
def libraries() -> None:
    """What is imported at first use adds filters of warnings, but must draw no random numbers."""
    story = VAE((3,), 2, hidden=(4,))
    before = {**state_of_the_world(), "warnings": None}
    run = pg.fit(story, X, **BRIEF)
    pg.check(run, X, draws=20)
    run.posterior(X, draws=5)
    assert {**state_of_the_world(), "warnings": None} == before


@pytest.fixture
def world(libraries: None) -> Any:
    """A store with something in it, put back afterwards."""
    with pyro.get_param_store().scope():
        pyro.param("loc", torch.tensor([7.0]))
        pyro.param("net$$$weight", torch.tensor([8.0]), constraint=dist.constraints.positive)
        yield


def raising_model(x: Tensor) -> None:
    store_model(x)
    raise KeyError("nowhere")


def diverging_model(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(3))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)
    pyro.factor("cliff", torch.where(loc.sum() == 0, 0.0, torch.inf))


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("build", STORIES.values(), ids=STORIES)
def test_a_fit_leaves_the_world_as_it_was(build: Callable[[], Any]) -> None:
    story = build()
    before = state_of_the_world()
    run = pg.fit(story, X, **BRIEF)
    assert state_of_the_world() == before
    pg.check(run, X, draws=20)
    run.posterior(X, draws=5)
    assert state_of_the_world() == before


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("model", "error"), [(raising_model, PplGenError), (diverging_model, FitError)]
)
def test_a_fit_that_raises_leaves_the_world_as_it_was(model: Any, error: type) -> None:
    before = state_of_the_world()
    with pytest.raises(error):
        pg.fit((model, nothing), X, **BRIEF)
    assert state_of_the_world() == before


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("build", STORIES.values(), ids=STORIES)
def test_what_is_handed_over_stays_as_it_was(build: Callable[[], Any]) -> None:
    """Weights, buffers, gradients, training mode; an autoguide stays unbuilt; data stay data."""
    story, x, kwargs = build(), X.clone(), {}
    modules = modules_of(story)
    for module in modules:
        module.train()
    before = [{n: v.clone() for n, v in m.state_dict().items()} for m in modules]

    run = pg.fit(story, x, kwargs=kwargs, **BRIEF)

    assert any(not torch.equal(v, _first(story, n, v)) for n, v in run.parameters().items())
    for module, state in zip(modules, before, strict=True):
        assert module.training
        assert_close(dict(module.state_dict()), state, rtol=0, atol=0)
        assert all(p.grad is None for p in module.parameters())
    assert_close(x, X, rtol=0, atol=0)
    assert kwargs == {}


def _first(story: Any, name: str, value: Tensor) -> Tensor:
    """A parameter as it was handed over, zeros if it was not."""
    for module in modules_of(story):
        for own, parameter in module.named_parameters():
            if name.endswith(own) and parameter.shape == value.shape:
                return parameter
    return torch.zeros_like(value)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("build", STORIES.values(), ids=STORIES)
def test_two_fits_of_one_story_are_equal_to_the_bit(build: Callable[[], Any]) -> None:
    """The second begins where the first began, and the first keeps what it has learned."""
    story = build()
    first = pg.fit(story, X, seed=3, **BRIEF)
    learned = first.parameters()
    torch.rand(7)
    second = pg.fit(story, X, seed=3, **BRIEF)
    other = pg.fit(story, X, seed=4, **BRIEF)

    assert first.history["elbo"] == second.history["elbo"]
    assert_close(second.parameters(), learned, rtol=0, atol=0)
    assert_close(first.parameters(), learned, rtol=0, atol=0)
    assert other.history["elbo"] != first.history["elbo"]
    draws = [run.posterior(X, draws=3, seed=1) for run in (first, second)]
    assert draws[0].equals(draws[1])


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("build", STORIES.values(), ids=STORIES)
def test_a_warm_start_continues_and_leaves_the_first_run_alone(build: Callable[[], Any]) -> None:
    """At a tiny rate it shows the same ELBO as the weights it started from."""
    still = {**BRIEF, "epochs": 1, "learning_rate": 1e-12, "seed": 5, "batch_size": 40}
    first = pg.fit(build(), X, **{**BRIEF, "epochs": 30})
    learned = first.parameters()

    second = pg.fit(first.pair, X, warm_start=True, **still)
    third = pg.fit(first.pair, X, warm_start=True, **{**BRIEF, "epochs": 5})

    assert_close(second.parameters(), learned, rtol=1e-5, atol=1e-6)
    assert_close(first.parameters(), learned, rtol=0, atol=0)
    assert any(not torch.equal(v, learned[n]) for n, v in third.parameters().items())


def test_plain_descent_goes_on_where_it_stopped() -> None:
    """Without noise or momentum, two epochs and two more are four."""
    steps: Any = {"optimizer": "sgd", "learning_rate": 0.1, "schedule": "constant"}
    steps["progress"] = False
    four = pg.fit((store_model, nothing), X, epochs=4, **steps)
    two = pg.fit((store_model, nothing), X, epochs=2, **steps)
    more = pg.fit(two.pair, X, epochs=2, warm_start=True, **steps)
    assert_close(more.parameters(), four.parameters(), rtol=0, atol=0)


def test_two_instances_of_a_class_do_not_share() -> None:
    """In Pyro's store their parameters have the same names."""
    one, two = _regression(), _regression()
    with torch.no_grad():
        two[0].log_scale.fill_(3.0)
    first = pg.fit(one, X, **BRIEF)
    learned = first.parameters()
    second = pg.fit(two, X, **BRIEF)
    assert_close(first.parameters(), learned, rtol=0, atol=0)
    assert second.parameters()["log_scale"] > learned["log_scale"] + 2.0
    assert two[0].log_scale.item() == 3.0


def test_a_warm_start_takes_what_pyro_itself_has_learned() -> None:
    """Parameters in the store outside are the ones to go on from, and stay there."""
    with pyro.get_param_store().scope():
        pyro.param("loc", torch.tensor([1.0, 2.0, 3.0]))
        run = pg.fit((store_model, nothing), X, warm_start=True, **{**BRIEF, "epochs": 1})
        assert run.parameters()["loc"][2] > 2.5
        assert_close(pyro.param("loc").detach(), torch.tensor([1.0, 2.0, 3.0]))


def test_a_run_can_be_used_inside_another() -> None:
    """Both use a captured module, each with its own weights."""
    first = pg.fit((captured_model, captured_guide), X, **BRIEF)
    second = pg.fit((captured_model, captured_guide), X, **{**BRIEF, "epochs": 9})
    alone = [run.encode(X[:4])["z"] for run in (first, second)]
    with first.pair.active():
        inner = second.encode(X[:4])["z"]
        outer = first.encode(X[:4])["z"]
    assert_close(inner, alone[1], rtol=0, atol=0)
    assert_close(outer, alone[0], rtol=0, atol=0)
    assert not torch.equal(alone[0], alone[1])


def test_an_autoguide_handed_over_is_still_unbuilt() -> None:
    model, guide = _regression()
    before = guide.model
    pg.fit((model, guide), X, **BRIEF)
    assert guide.prototype_trace is None
    assert guide.model is before
