"""Mini-batches estimate the whole data's ELBO without bias, and no row is taken for another."""

import itertools
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import Tensor
from torch.distributions import constraints
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.errors import DataError, StoryError
from ppl_gen.inference.objective import Objective, choose_elbo
from ppl_gen.inference.pair import as_pair
from ppl_gen.inference.structure import examine
from ppl_gen.inference.tracing import Indices

N = 12
X = torch.randn(N, generator=torch.Generator().manual_seed(1))
STILL: Any = {"epochs": 1, "learning_rate": 1e-12, "progress": False}


def point(*batch: Tensor) -> None:
    """A guide with no chance in it."""
    pyro.sample("mu", dist.Delta(pyro.param("mu_at", torch.tensor(0.4))))


def in_a_plate(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def in_two_plates(x: Tensor) -> None:
    """The data plate is the left one of two, and a global site has a plate of its own."""
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("sides", 2):
        pyro.sample("side", dist.Normal(mu, 1.0), obs=torch.tensor([0.0, 1.0]))
    with pyro.plate("repeats", 3, dim=-1), pyro.plate("data", len(x), dim=-2):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x[:, None].expand(-1, 3))


def in_a_plate_without_size(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data"):
        pyro.sample("x", dist.Normal(mu, torch.ones_like(x)), obs=x)


def in_a_loop(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"x_{i}", dist.Normal(mu, 1.0), obs=x[i])


def in_given_rows(x: Tensor, rows: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", N, subsample=rows):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def summed(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(mu + k, 1.0), obs=x)


def with_factor(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    pyro.factor("outside", -mu)
    with pyro.plate("data", len(x)):
        pyro.factor("inside", dist.Normal(mu, 1.0).log_prob(x))


PLATES: dict[str, tuple[Any, Any]] = {
    "a plate": (in_a_plate, X),
    "the left of two plates": (in_two_plates, X),
    "a plate without size": (in_a_plate_without_size, X),
    "a loop": (in_a_loop, X),
    "given rows": (in_given_rows, (X, torch.arange(N))),
    "an enumerated site": (summed, X),
    "factors": (with_factor, X),
}


@pytest.mark.parametrize("batch_size", [1, 4, 5])
@pytest.mark.parametrize(("model", "data"), PLATES.values(), ids=PLATES)
def test_the_mean_over_mini_batches_is_the_elbo_of_all_the_data(
    model: Any, data: Any, batch_size: int
) -> None:
    """Exactly, whatever the order of the rows; the last batch of five may be smaller."""
    whole = pg.fit((model, point), data, **STILL)
    for seed in range(2):
        parts = pg.fit((model, point), data, batch_size=batch_size, seed=seed, **STILL)
        assert parts.history[0].elbo == pytest.approx(whole.history[0].elbo, rel=1e-5)


def subsampled(x: Tensor, taken: int) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x), subsample_size=taken) as rows:
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x[rows])


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_the_mean_over_subsamples_is_the_elbo_of_all_the_data(taken: int) -> None:
    """Every subset of four data has its turn: programs that subsample are not weighted twice."""
    x = X[:4]
    pair = as_pair((subsampled, lambda x, taken: point(x)))
    kwargs = {"taken": taken}
    structure = examine(pair, lambda rows: (x[:rows],), 4, 4, kwargs)
    elbo = choose_elbo(pair, structure, (x,), kwargs)
    objective = Objective(pair, structure, elbo, size=4)
    losses = []
    with pair.active():
        for rows in itertools.combinations(range(4), taken):
            with Indices({"data": torch.tensor(rows)}):
                losses.append(objective((x,), kwargs).loss)

    prior = dist.Normal(0.0, 3.0).log_prob(torch.tensor(0.4))
    likelihood = dist.Normal(0.4, 1.0).log_prob(x).sum()
    assert_close(torch.stack(losses).mean(), -(prior + likelihood) / 4)


def test_gradients_of_mini_batches_add_up_to_that_of_the_data() -> None:
    """One pass of plain descent at a tiny rate moves as one step on everything would."""
    common = {"epochs": 1, "optimizer": "sgd", "schedule": "constant", "progress": False}
    whole = pg.fit((in_a_plate, point), X, learning_rate=1e-3, **common)
    parts = pg.fit((in_a_plate, point), X, learning_rate=1e-3 / 4, batch_size=3, **common)
    moved = [run.parameters()["mu_at"] - 0.4 for run in (whole, parts)]
    assert_close(moved[1], moved[0], rtol=2e-3, atol=0.0)


# Parameters of every datum.


def hierarchy(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def one_number_a_datum(x: Tensor) -> None:
    point(x)
    at = pyro.param("z_at", lambda: torch.zeros(len(x)))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(at))


def one_parameter_a_datum(x: Tensor) -> None:
    point(x)
    for i in range(len(x)):
        pyro.param(f"unused_{i}", torch.tensor(0.0))
    at = torch.stack([pyro.param(f"z_at_{i}", torch.tensor(0.0)) for i in range(len(x))])
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(at))


KEEPERS: dict[str, Any] = {
    "a tensor": one_number_a_datum,
    "a name for each": one_parameter_a_datum,
    "AutoNormal": AutoNormal,
    "AutoDelta": AutoDelta,
    "AutoDelta, built": AutoDelta(hierarchy),
}


@pytest.mark.parametrize("guide", KEEPERS.values(), ids=KEEPERS)
def test_a_guide_that_keeps_numbers_for_every_datum_gets_all_the_data(guide: Any) -> None:
    """Else datum 128 would move the numbers of datum 0; and mini-batches are refused."""
    x = torch.linspace(-3, 3, 256)
    run = pg.fit((hierarchy, guide), x, epochs=2, progress=False)
    assert run.settings.batch_size == 256
    assert run.posterior(x, draws=2)["posterior"]["z"].shape == (1, 2, 256)
    with pytest.raises((StoryError, DataError), match="batch_size must be left out or 256, got 64"):
        pg.fit((hierarchy, guide), x, epochs=2, batch_size=64, progress=False)


def test_numbers_kept_for_every_datum_belong_to_it() -> None:
    """The best z of a datum lies halfway between it and mu, which stays at 0.4."""
    x = torch.linspace(-3, 3, 256)

    def fixed(x: Tensor) -> None:
        at = pyro.param("z_at", lambda: torch.zeros(len(x)))
        pyro.sample("mu", dist.Delta(torch.tensor(0.4)))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(at))

    run = pg.fit((hierarchy, fixed), x, epochs=200, learning_rate=0.1, progress=False)
    assert_close(run.parameters()["z_at"], (x + 0.4) / 2, atol=0.01, rtol=0.0)


# Programs that pick their own mini-batch: every datum still gets its posterior.


def subsampled_codes(x: Tensor) -> None:
    with pyro.plate("data", len(x), subsample_size=5) as rows:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])


def exact_codes(x: Tensor) -> None:
    half = pyro.param("half", torch.tensor(0.5))
    with pyro.plate("data", len(x), subsample_size=5) as rows:
        pyro.sample("z", dist.Normal(half * x[rows], 0.5**0.5))


def subsampled_indicators(x: Tensor) -> None:
    with pyro.plate("data", len(x), subsample_size=5) as rows:
        k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        centre = pyro.param("centre", torch.tensor(3.0))
        pyro.sample("x", dist.Normal(centre * k, 1.0), obs=x[rows])


def test_a_program_that_subsamples_shows_every_datum_once() -> None:
    """Twelve rows in blocks of five, the last of which reaches back: all in their places."""
    run = pg.fit((subsampled_codes, exact_codes), X, **STILL)

    tree = run.posterior(X, draws=4000)

    assert dict(tree["posterior"].sizes) == {"chain": 1, "draw": 4000, "data": N}
    assert_close(torch.as_tensor(tree["observed_data"]["x"].values), X)
    mean = torch.as_tensor(tree["posterior"]["z"].values).mean((0, 1))
    assert_close(mean, X / 2, atol=5 * (0.5 / 4000) ** 0.5, rtol=0.0)
    exact = dist.Normal(0.0, 2**0.5).log_prob(X)
    weights = tree["sample_stats"]["log_p"] - tree["sample_stats"]["log_q"]
    assert_close(torch.as_tensor(weights.values[0, 0]), exact)
    assert tree["posterior_predictive"]["x"].shape == (1, 4000, N)
    assert tree["prior"]["z"].shape == (1, 100, N)
    assert_close(run.evidence(X, draws=10).nats.float(), exact)


def test_a_program_that_subsamples_has_its_enumerated_sites_drawn_for_every_datum() -> None:
    run = pg.fit((subsampled_indicators, lambda x: None), X, **STILL)
    law = dist.Normal(torch.tensor([0.0, 3.0]), 1.0)
    joint = torch.tensor([0.7, 0.3]).log() + law.log_prob(X[:, None])

    tree = run.posterior(X, draws=1000, groups=["posterior", "log_likelihood"])

    assert_close(torch.as_tensor(tree["log_likelihood"]["x"].values[0, 0]), joint.logsumexp(1))
    share = torch.as_tensor(tree["posterior"]["k"].values).mean((0, 1))
    exact = joint.softmax(1)[:, 1]
    assert ((share - exact).abs() <= 5 * (exact * (1 - exact) / 1000).sqrt() + 5e-3).all()


def test_a_subsample_picked_by_the_guide_alone_is_the_models_too() -> None:
    """The model has the whole plate, as for documents that only the guide takes few of."""

    def whole(x: Tensor) -> None:
        with pyro.plate("data", len(x)) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    run = pg.fit((whole, exact_codes), X, **STILL)
    assert_close(run.evidence(X, draws=4).nats.float(), dist.Normal(0.0, 2**0.5).log_prob(X))


def test_local_parameters_are_those_of_the_rows_shown() -> None:
    """By ``pyro.param(..., event_dim=)``, of which the plate hands out its subsample's part."""

    def remembered(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=5):
            loc = pyro.param("loc", lambda: x / 2, event_dim=0)
            scale = pyro.param("scale", lambda: 0.1 + x.abs(), constraints.positive, event_dim=0)
            pyro.sample("z", dist.Normal(loc, scale))

    run = pg.fit((subsampled_codes, remembered), X, **STILL)
    z = torch.as_tensor(run.posterior(X, draws=4000)["posterior"]["z"].values)[0]
    assert_close(z.mean(0), X / 2, atol=5 * 2.5 / 4000**0.5, rtol=0.0)
    assert_close(z.std(0), 0.1 + X.abs(), rtol=5 / 8000**0.5, atol=0.0)
