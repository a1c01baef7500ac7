"""Enumerated sites leave nothing to chance: one step shows the exact evidence."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDelta
from torch import Tensor
from torch.testing import assert_close

import ppl_gen as pg

X = 1.5 + torch.randn(64, generator=torch.Generator().manual_seed(0))
WEIGHTS, CENTRES = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 2.0])


def mixture(x: Tensor) -> None:
    centres = pyro.param("centres", CENTRES.clone())
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(centres[k], 1.0), obs=x)


def mixture_in_a_loop(x: Tensor) -> None:
    centres = pyro.param("centres", CENTRES.clone())
    for i in pyro.plate("data", len(x)):
        k = pyro.sample(f"k_{i}", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel"})
        pyro.sample(f"x_{i}", dist.Normal(centres[k], 1.0), obs=x[i])


def exact_responsibilities(x: Tensor) -> None:
    logits = WEIGHTS.log() + dist.Normal(CENTRES, 1.0).log_prob(x[:, None])
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Categorical(logits=logits))


DISCRETE: dict[str, tuple[Any, dict[str, Any]]] = {
    "summed out of the model": ((mixture, lambda x: None), {}),
    "summed out in mini-batches": ((mixture, lambda x: None), {"batch_size": 16}),
    "summed out in a loop": ((mixture_in_a_loop, lambda x: None), {"batch_size": 8}),
    "summed out beside an autoguide": ((mixture, AutoDelta), {}),
    "enumerated in the guide, in parallel": (
        (mixture, config_enumerate(exact_responsibilities, "parallel")),
        {"batch_size": 32},
    ),
    "enumerated in the guide, in sequence": (
        (mixture, config_enumerate(lambda x: exact_responsibilities(x), "sequential")),
        {"batch_size": 1},
    ),
}


@pytest.mark.parametrize(("story", "options"), DISCRETE.values(), ids=DISCRETE)
def test_the_elbo_of_an_enumerated_story_is_its_exact_evidence(
    story: Any, options: dict[str, Any]
) -> None:
    """By hand it is the log of a weighted sum of two densities; weights stay where they begin."""
    x = X[:16] if options.get("batch_size") == 1 else X
    law = dist.MixtureSameFamily(dist.Categorical(WEIGHTS), dist.Normal(CENTRES, 1.0))
    run = pg.fit(story, x, epochs=1, learning_rate=1e-12, progress=False, **options)
    assert run.history[-1].elbo == pytest.approx(law.log_prob(x).mean().item(), abs=1e-4)


def test_enumerated_sites_are_drawn_from_their_exact_posterior() -> None:
    run = pg.fit((mixture, lambda x: None), X, epochs=1, learning_rate=1e-12, progress=False)
    logits = WEIGHTS.log() + dist.Normal(CENTRES, 1.0).log_prob(X[:, None])

    tree = run.posterior(X, draws=4000, groups=["posterior"])

    share = torch.as_tensor(tree["posterior"]["k"].values).double().mean((0, 1))
    exact = logits.softmax(1)[:, 1].double()
    error = (exact * (1 - exact) / 4000).sqrt()
    assert ((share - exact).abs() <= 5 * error + 1e-3).all()


def test_an_enumerated_story_can_be_watched_on_a_validation_part() -> None:
    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
        with pyro.plate("rows", len(x)):
            kind = pyro.sample(
                "kind", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(loc[kind], 1.0), obs=x)

    x = torch.linspace(-2, 2, 12)
    run = pg.fit((model, lambda x: None), x, validation=x, epochs=2, progress=False)

    law = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2)), dist.Normal(run.parameters()["loc"], 1.0)
    )
    assert_close(max(run.history["valid_elbo"]), law.log_prob(x).mean().item(), rtol=1e-4, atol=0)
