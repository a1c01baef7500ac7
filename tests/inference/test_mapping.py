"""Programs that are written for one draw are run for many at once, and draw the same."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppl_gen as pg
from ppl_gen.inference.mapping import mapped
from ppl_gen.inference.sampler import Sampler

GROUP = torch.arange(40) % 4
X = 0.5 * torch.arange(4.0)[GROUP] + 0.3 * torch.randn(
    40, generator=torch.Generator().manual_seed(0)
)


def grouped(x: Tensor, group: Tensor) -> None:
    """Levels are looked up by number, which a further dimension in front does not bear."""
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("groups", 4):
        level = pyro.sample("level", dist.StudentT(5.0, 0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(level[group], scale), obs=x)


@pytest.fixture(scope="module")
def run() -> pg.Run:
    """The grouped story, fitted."""
    options = {"epochs": 300, "learning_rate": 0.02, "progress": False}
    return pg.fit((grouped, "AutoNormal"), (X, GROUP), **options)


def test_draws_that_are_mapped_are_weighed_as_those_made_one_by_one(run: pg.Run) -> None:
    with run.pair.active():
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        together = sampler.draw((X, GROUP), 2000, predict=True, expected=True)
        assert sampler.at_once is False
        assert sampler._maps
        fixed = {n: v[:50] for n, v in together.latents.items()}
        given = sampler.draw_globals((X, GROUP), 50)
        mapped_again = sampler.draw((X, GROUP), 50, given)
        sampler._maps = False
        single = sampler.draw((X, GROUP), 50, given)
        alone = sampler.draw((X, GROUP), 500, predict=True, expected=True)

    assert fixed["level"].shape == (50, 4)
    for name in ("log_p", "log_p_global", "log_q_global"):
        torch.testing.assert_close(getattr(mapped_again, name), getattr(single, name))
    for name in ("level", "scale"):
        ours, theirs = together.latents[name], alone.latents[name]
        assert len(ours[:, ..., 0].unique() if ours.dim() > 1 else ours.unique()) > 1900
        error = 5 * theirs.std(0) / 500**0.5
        assert ((ours.mean(0) - theirs.mean(0)).abs() < error).all()
        assert ((ours.std(0) / theirs.std(0)).log().abs() < 0.2).all()
    assert together.predicted["x"].shape == (2000, 40)
    ratio = together.predicted["x"].std(0) / alone.predicted["x"].std(0)
    assert (ratio.log().abs() < 0.25).all()


def test_the_same_seed_draws_the_same(run: pg.Run) -> None:
    one, other = (
        run.posterior((X, GROUP), draws=30, seed=3)["posterior"]["level"] for _ in range(2)
    )
    assert (one.values == other.values).all()


@pytest.mark.parametrize(
    "law",
    [
        dist.Normal(1.0, 2.0),
        dist.HalfNormal(2.0),
        dist.Exponential(2.0),
        dist.StudentT(6.0),
        dist.Gamma(3.0, 2.0),
        dist.LogNormal(0.0, 0.5),
        dist.Uniform(-1.0, 2.0),
        dist.Poisson(4.0),
        dist.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]])),
    ],
    ids=lambda law: type(law).__name__,
)
def test_noise_has_its_law_and_differs_by_draw(law: dist.TorchDistribution) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        found = mapped(lambda _: {"x": law.sample()[None]}, 20_000, {})["x"]

    expected = law.mean, law.stddev
    for value, exact in zip((found.mean(0), found.std(0)), expected, strict=True):
        torch.testing.assert_close(value, exact.expand_as(value), rtol=0.05, atol=0.05)


def chooses(x: Tensor) -> None:
    """What it does next hangs on a value, which cannot be mapped."""
    level = pyro.sample("level", dist.Normal(torch.zeros(()), 1.0))
    assert level.dim() == 0
    if level.item() > 100.0:
        raise AssertionError
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(level, 1.0), obs=x)


def test_a_program_that_looks_at_values_is_run_draw_by_draw() -> None:
    run = pg.fit((chooses, "AutoNormal"), X, epochs=5, progress=False)
    with run.pair.active():
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        drawn = sampler.draw((X,), 20)

    assert not sampler._maps
    assert drawn.latents["level"].unique().numel() == 20
