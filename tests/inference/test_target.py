"""The density at free coordinates is the story's own, whatever its latents are like."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.errors import StoryError
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.target import Target
from ppl_gen.models import GMM, PPCA, VAE


def as_it_is(story: object, data: object) -> pg.Run:
    return pg.fit(story, data, epochs=1, learning_rate=1e-12, warm_start=True, progress=False)


def positive(x: Tensor) -> None:
    """A positive latent of each row, under a global scale."""
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        pyro.sample("x", dist.Normal(rate, scale), obs=x[:, 0])


def positive_guide(x: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.0))
    pyro.sample("scale", dist.LogNormal(loc, 0.2))
    with pyro.plate("rows", len(x)):
        pyro.sample("rate", dist.LogNormal(x[:, 0].abs().clamp_min(0.1).log(), 0.3))


def shares(x: Tensor) -> None:
    """Shares that sum to one, of each row."""
    with pyro.plate("rows", len(x)):
        share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
        pyro.sample("x", dist.Normal(share, 0.3).to_event(1), obs=x)


def shares_guide(x: Tensor) -> None:
    weight = pyro.param("weight", torch.tensor(5.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("share", dist.Dirichlet(1 + weight * x.softmax(-1)))


def reshaped(x: Tensor, y: Tensor) -> None:
    """Global latents in a program that bears no further batch dimension."""
    weight = pyro.sample("weight", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, 0.5), obs=y)


CASES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "ppca": lambda: (PPCA((4,), 2), torch.randn(20, 4)),
    "vae": lambda: (VAE((4,), 2, hidden=(8,)), torch.randn(20, 4)),
    "positive": lambda: ((positive, positive_guide), torch.rand(20, 1) + 0.5),
    "shares": lambda: ((shares, shares_guide), torch.randn(20, 3)),
    "summed": lambda: (GMM((2,), 3, posterior="normal"), torch.randn(20, 2)),
    "reshaped": lambda: ((reshaped, "AutoNormal"), (torch.randn(20, 2), torch.randn(20))),
}


def made(name: str) -> tuple[pg.Run, Any]:
    torch.manual_seed(0)
    story, data = CASES[name]()
    run = as_it_is(story, data)
    return run, run.batch(data)


@pytest.mark.parametrize("name", CASES)
def test_at_the_guides_draws_it_is_the_density_that_weighs_them(name: str) -> None:
    """Joint density, less the stretch of the coordinates, is what the sampler finds."""
    run, batch = made(name)
    with run.pair.active():
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        outer = sampler.draw_globals(batch, 1) if run.structure.has_globals else {}
        local = any(s.local and not s.summed for s in run.structure.latents)
        held = outer if local else {}
        drawn = sampler.draw(batch, 5, {n: v.expand(5, *v.shape[1:]) for n, v in held.items()})
        target = Target(sampler, batch, held)
        position = target.position(drawn.latents)
        found = target.log_density(position) - target.log_stretch(position)

    wanted = drawn.log_p
    if not local:
        wanted = (drawn.log_p.sum(1) + drawn.log_p_global)[:, None]
    assert position.shape == (5, target.rows, target.dimensions)
    assert_close(found.detach().to(wanted), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_its_gradient_is_its_slope(name: str) -> None:
    """Central differences along a random direction."""
    run, batch = made(name)
    with run.pair.active():
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        local = any(s.local and not s.summed for s in run.structure.latents)
        target = Target(sampler, batch, sampler.draw_globals(batch, 1) if local else {})
        torch.manual_seed(1)
        position = 0.3 * torch.randn(3, target.rows, target.dimensions)
        direction = torch.randn_like(position)
        _, gradient = target(position)
        step = 1e-2
        up, down = (target(position + sign * step * direction)[0] for sign in (1, -1))

    slope = (up - down) / (2 * step)
    assert_close((gradient * direction).sum(-1).to(slope), slope, rtol=0.02, atol=0.05)


def test_values_come_back_from_their_coordinates() -> None:
    run, batch = made("shares")
    with run.pair.active():
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        drawn = sampler.draw(batch, 4).latents
        target = Target(sampler, batch)
        again = target.latents(target.position(drawn))

    assert target.dimensions == 2
    assert_close(again["share"], drawn["share"], atol=1e-5, rtol=1e-4)


def test_all_latents_can_be_coordinates_of_one_density() -> None:
    run, batch = made("positive")
    with run.pair.active():
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        drawn = sampler.draw(batch, 4)
        target = Target(sampler, batch, whole=True)
        position = target.position(drawn.latents)
        found = target.log_density(position) - target.log_stretch(position)

    assert position.shape == (4, 1, 21)
    wanted = (drawn.log_p.sum(1) + drawn.log_p_global)[:, None]
    assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_a_discrete_latent_has_no_path_from_value_to_value() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        logits = pyro.param("logits", torch.tensor(0.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("k", dist.Bernoulli(logits=logits + x[:, 0]))

    x = torch.randn(20, 1)
    run = as_it_is((model, guide), x)
    with run.pair.active():
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        # A draw of a Bernoulli is a float, but its support is not connected.
        with pytest.raises(StoryError, match="'k'"):
            Target(sampler, run.batch(x))
