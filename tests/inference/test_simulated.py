"""Simulated data come from the story, and stand in the columns that it observes."""

from typing import Any

import programs
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.inference.simulated import simulate
from ppl_gen.models import CVAE, GMM, M2, PPCA, VAE


def as_it_is(story: object, data: Any) -> pg.Run:
    """A run whose story keeps the weights it has."""
    return pg.fit(story, data, epochs=1, learning_rate=1e-12, warm_start=True, progress=False)


def drawn(run: pg.Run, data: Any, **options: Any) -> tuple[dict[str, Tensor], Any]:
    return simulate(run, run.batch(data), **options)


def test_codes_and_data_have_the_law_of_the_story() -> None:
    """Of PPCA: x is normal, and its covariance with the code is the weight."""
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).cumsum(1)
    story = PPCA.maximum_likelihood(x, 1)
    latents, (simulated,) = drawn(as_it_is(story, x), torch.zeros(40_000, 3), memory=2**20)

    assert latents["z"].shape == (40_000, 1)
    covariance = torch.cov(torch.cat([latents["z"], simulated], 1).T)
    noise = (2 * story.log_scale).exp() * torch.eye(3)
    expected = torch.cat([torch.ones(1, 1), story.weight]).detach()
    assert_close(covariance[:1], expected.T, atol=0.05, rtol=0)
    assert_close(covariance[1:, 1:], (story.weight @ story.weight.T + noise).detach(),
                 atol=0.1, rtol=0)  # fmt: skip
    assert_close(simulated.mean(0), story.loc.detach(), atol=0.05, rtol=0)


def test_the_same_seed_gives_the_same_data_and_leaves_no_trace() -> None:
    x = torch.rand(20, 6)
    run = as_it_is(VAE((6,), latent=2, likelihood="bernoulli(grey=True)"), x)
    before = torch.get_rng_state()

    (_, (first,)), (_, (again,)), (_, (other,)) = (drawn(run, x, seed=seed) for seed in (1, 1, 2))

    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert set(first.unique().tolist()) == {0.0, 1.0}  # grey images are drawn in black and white


def test_conditions_stay_and_observations_are_drawn() -> None:
    x, label = torch.rand(30, 6), torch.arange(30) % 3
    run = as_it_is(CVAE((6,), condition="label(classes=3)", latent=2), (x, label))

    _, (simulated, kept) = drawn(run, (x, label))

    assert torch.equal(kept, label)
    assert (simulated != x).all()


def test_what_is_seen_of_an_image_stays_and_the_rest_is_drawn() -> None:
    x, seen = torch.rand(30, 6), torch.rand(30, 6) < 0.5
    run = as_it_is(CVAE((6,), condition="seen", latent=2), (x, seen))

    _, (simulated, kept) = drawn(run, (x, seen))

    assert torch.equal(kept, seen)
    assert torch.equal(simulated != x, ~seen)


def test_a_label_is_drawn_where_there_was_one() -> None:
    """Of M2: an unknown label stays unknown, and is among the latents."""
    x, label = torch.rand(300, 6), torch.arange(300) % 4 - 1
    run = as_it_is(M2((6,), 3, latent=2), (x, label))

    latents, (_, labels) = drawn(run, (x, label))

    assert torch.equal(labels == -1, label == -1)
    assert torch.equal(latents["y"][label >= 0], labels[label >= 0])
    assert (latents["y"] != label.clamp(min=0)).float().mean() > 0.5
    assert labels.dtype == label.dtype


def test_what_is_missing_stays_missing() -> None:
    x = torch.randn(90, 2)
    x[::3, 0] = torch.nan
    run = pg.fit(GMM((2,), 2, missing="integrate"), x, method="em", epochs=5, progress=False)

    _, (simulated,) = drawn(run, x)

    assert torch.equal(simulated.isnan(), x.isnan())
    assert (simulated != x).all()


def global_mean(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1e-3), obs=x)


def test_global_latents_are_one_draw_of_the_guide_or_of_the_prior_or_as_given() -> None:
    x = 5 + 0.1 * torch.randn(50)
    run = pg.fit((global_mean, "AutoNormal"), x, epochs=300, learning_rate=0.05, progress=False)

    from_guide, (near,) = drawn(run, x, memory=2**10)
    from_prior, (far,) = drawn(run, x, fixed={}, memory=2**10)
    given, (there,) = drawn(run, x, fixed={"loc": torch.tensor([7.0])})

    assert from_guide["loc"].item() == pytest.approx(5.0, abs=0.5)
    assert abs(from_prior["loc"].item()) < 4
    assert given["loc"].item() == 7.0
    for loc, data in ((from_guide, near), (from_prior, far), (given, there)):
        assert_close(data, loc["loc"].expand(50), atol=0.01, rtol=0)


def test_a_program_that_picks_its_own_mini_batch_is_shown_all_rows() -> None:
    data = (programs.X, programs.Y)
    run = pg.fit((programs.subsampled, "AutoNormal"), data, epochs=2, progress=False)
    weight = torch.tensor([[1.0, 2.0, 3.0]])

    _, (x, y) = drawn(run, data, fixed={"weight": weight})

    assert torch.equal(x, programs.X)
    assert_close(y, programs.X @ weight[0], atol=1.5, rtol=0)


def same_twice(x: Tensor, y: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(z, 1.0).to_event(1), obs=y)


def same_first(x: Tensor, y: Tensor) -> None:
    same_twice(y, x)


@pytest.mark.parametrize(("model", "observed"), [(same_first, 0), (same_twice, 1)])
def test_of_two_equal_columns_the_one_is_drawn_that_is_observed(
    model: object, observed: int
) -> None:
    x = torch.randn(20, 2)
    run = pg.fit((model, "AutoNormal"), (x, x), epochs=1, progress=False)

    _, simulated = drawn(run, (x, x))

    assert torch.equal(simulated[1 - observed], x)
    assert (simulated[observed] != x).all()


def halved(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x / 2)


def weighed(x: Tensor) -> None:
    same_twice(x, x)
    pyro.factor("charge", torch.tensor(-1.0))


def one_after_the_other(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        before = torch.cat([torch.zeros(len(x), 1), x[:, :-1]], -1)
        pyro.sample("x", dist.Normal(z + before, 1.0).to_event(1), obs=x)


def by_itself() -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 60):
        pyro.sample("y", dist.Normal(z, 1.0), obs=programs.Y)


@pytest.mark.parametrize(
    ("model", "data", "reason"),
    [
        (halved, torch.randn(20, 2), "'x' must be a column of the data as it is"),
        (weighed, torch.randn(20, 2), "by a factor, 'charge'"),
        (one_after_the_other, torch.randn(20, 2), "reads the data's own values"),
        (by_itself, None, "must take their data as arguments"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_a_sentence(
    model: object, data: Any, reason: str
) -> None:
    run = pg.fit((model, "AutoNormal"), data, epochs=1, progress=False)

    with pytest.raises(pg.StoryError, match=reason):
        simulate(run, () if data is None else run.batch(data))
