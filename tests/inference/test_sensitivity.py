"""Prior and data that pull a latent apart are told, by how much either moves its posterior."""

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import ppl_gen as pg
from ppl_gen.inference.checks.priors import Shared, prior_sensitivity, pulled
from ppl_gen.inference.checks.subject import Subject
from ppl_gen.inference.estimators.sensitivity import power_scaling
from ppl_gen.inference.verdict import Finding

ROWS, DRAWS = 100, 4000


def distance(p: np.ndarray, q: np.ndarray, width: float) -> float:
    """Root of the cumulative Jensen-Shannon divergence of distribution functions on a grid."""
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (np.nan_to_num(f * np.log2(f / middle)).sum() * width for f in (p, q))
    return math.sqrt((one + other) / ((p + q).sum() * width))


def exact(mean: float, scale: float) -> float:
    """Sensitivity of a normal posterior to the power of the standard normal prior.

    The distance is a share of the integral over all that is drawn, the farthest draws included.
    """
    grid = mean + scale * np.linspace(-1, 1, 20_001) * stats.norm.isf(0.5 / DRAWS)
    width, slopes = grid[1] - grid[0], []
    for alpha in (0.99, 1.01):
        precision = 1 / scale**2 + (alpha - 1)
        moved = stats.norm(mean / scale**2 / precision, precision**-0.5)
        laws = (stats.norm(mean, scale), moved)
        below = distance(*(law.cdf(grid) for law in laws), width)
        above = distance(*(law.sf(grid) for law in laws), width)
        slopes.append(max(below, above) / abs(math.log2(alpha)))
    return sum(slopes) / 2


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 0.9), (2.0, 0.5), (10.0, 0.1), (40.0, 0.1)])
def test_the_sensitivity_of_a_normal_posterior_is_the_exact_one(mean: float, scale: float) -> None:
    quantiles = (torch.arange(DRAWS) + 0.5) / DRAWS
    draws = torch.distributions.Normal(mean, scale).icdf(quantiles.double())
    draws = draws[torch.randperm(DRAWS, generator=torch.Generator().manual_seed(0))]

    found = power_scaling(torch.stack([draws, -3 * draws], 1), -(draws**2) / 2)

    assert found[0].item() == pytest.approx(exact(mean, scale), rel=0.05)
    assert found[1].item() == pytest.approx(found[0].item(), rel=1e-6)


def test_what_makes_no_difference_moves_nothing_and_shapes_must_agree() -> None:
    draws = torch.randn(200, 2)
    assert power_scaling(draws, torch.full((200,), 3.0)).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"must have shapes \(S, D\) and \(S,\)"):
        power_scaling(draws, torch.zeros(100))


def pay(prior: float, x: Tensor, y: Tensor) -> None:
    """A line; the scale of its intercept's prior is given."""
    base = pyro.sample("base", dist.Normal(0.0, prior))
    slope = pyro.sample("slope", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("groups", 3):
        level = pyro.sample("level", dist.Normal(base, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(level[..., x[:, 2].long()] + x[:, :2] @ slope, 1.0), obs=y)


def rows(base: float) -> tuple[Tensor, Tensor]:
    """A line about some level."""
    x = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(ROWS, generator=torch.Generator().manual_seed(1))
    return torch.cat([x, torch.arange(ROWS)[:, None] % 3], 1), base + x[:, 0] + noise


@functools.cache
def found(base: float, prior: float) -> Finding:
    """What is said of a fit."""
    model, data = functools.partial(pay, prior), rows(base)
    options = {"epochs": 3000, "learning_rate": 0.05, "progress": False}
    run = pg.fit((model, "AutoMultivariateNormal"), data, **options)
    return prior_sensitivity(Subject(run, data))[0]


def test_an_outcome_far_from_where_the_priors_are_is_told_and_which_latent() -> None:
    finding = found(40.0, 1.0)

    assert finding.status == "fail"
    assert finding.meaning.startswith("The priors let one expect y from -")
    assert ", and the data lie from 3" in finding.meaning
    assert "Prior and data pull base apart: its posterior has its mean" in finding.meaning
    assert "prior deviations from that of the prior (0, deviation 1)" in finding.meaning
    assert finding.remedy.startswith("Bring the data near to where the priors are")
    assert set(finding.details) == {"base", "slope[0]", "slope[1]"}, "levels hang on base"


def test_prior_and_data_that_pull_apart_warn_where_the_data_can_be_expected() -> None:
    """The farthest from its prior is named; what the data do not move tells nothing against it."""
    nothing = torch.zeros(50)
    values = torch.tensor([2.0, 4.0, 0.5]).double() + 0.01 * torch.randn(50, 3).double()
    prior = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]).double()
    shared = Shared(values, ("a", "b[0]", "c"), prior, nothing, nothing)

    def told(*by_data: float) -> Finding:
        return pulled(shared, torch.tensor([0.3, 0.1, 0.2]), torch.tensor(by_data))

    assert told(1.0, 1.0, 0.0).status == "warn"
    assert told(1.0, 1.0, 0.0).meaning.startswith("Prior and data pull b[0] apart")
    assert told(1.0, 1.0, 0.0).remedy == "Widen the prior of b, or leave it if it is meant."
    assert told(1.0, 0.0, 1.0).meaning.startswith("Prior and data pull b[0] apart")
    near = replace(shared, values=values - 2.5)
    assert pulled(near, torch.full((3,), 0.3), torch.ones(3)).status == "pass"
    assert pulled(near, torch.full((3,), 0.6), torch.ones(3)).status == "warn", "c is at -2"
    nearer = replace(shared, values=values / 8)
    assert pulled(nearer, torch.full((3,), 0.6), torch.ones(3)).status == "pass"
    assert told(0.0, 0.0, 0.0).figure == pytest.approx(0.1), "b is far off, by way of others"
    unknown = replace(shared, prior=torch.tensor([[math.inf, math.inf]] * 3).double())
    assert pulled(unknown, torch.full((3,), 0.3), torch.ones(3)).status == "warn"
    still = pulled(unknown, torch.full((3,), math.nan), torch.full((3,), math.nan))
    assert (still.status, still.figure) == ("pass", 0.0), "what never varies"
    weak = pulled(replace(shared, values=0 * values), torch.full((3,), 0.3), torch.zeros(3))
    assert weak.status == "pass"
    assert weak.meaning.endswith("Of a, b[0], c the priors tell more than the data.")


@pytest.mark.parametrize(("base", "prior"), [(0.5, 1.0), (40.0, 100.0)])
def test_priors_that_have_room_for_the_data_pass(base: float, prior: float) -> None:
    finding = found(base, prior)

    assert finding.status == "pass", finding
    assert finding.figure < 0.05


def test_what_has_no_prior_of_its_own_is_not_asked() -> None:
    def of_rows(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def finding(story: Any, data: Any, draws: int = 200) -> Finding:
        run = pg.fit(story, data, epochs=2, progress=False)
        return prior_sensitivity(Subject(run, data, draws=draws))[0]

    x = torch.randn(30)
    own = finding((of_rows, "AutoNormal"), x)
    assert own.status == "not applicable"
    assert "latents of its own" in own.meaning
    point = finding((functools.partial(pay, 1.0), "AutoDelta"), rows(0.0))
    assert "No latent that all data share has a posterior" in point.meaning
    few = finding((functools.partial(pay, 1.0), "AutoNormal"), rows(0.0), draws=50)
    assert few.status == "skipped"
    assert "at least 100 draws, got 50" in few.meaning
