"""The variational autoencoder."""

from typing import Any

import pyro
import pytest
import torch
from prior_support import loss_of, pairs
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.errors import StoryError
from ppl_gen.likelihoods import LIKELIHOODS, Bernoulli
from ppl_gen.models import STORIES, VAE
from ppl_gen.priors import StandardNormal, VampPrior

SPECS = {**dict.fromkeys(LIKELIHOODS), "categorical": "categorical(categories=2)"}


def _story(shape: tuple[int, ...] = (1, 5, 6), **arguments: Any) -> VAE:
    return VAE(shape, 4, **{"hidden": (4,), **arguments})


each_pair = pytest.mark.parametrize(("spec", "posterior"), pairs(4))
networks = pytest.mark.parametrize("network", ["mlp", "conv"])


@networks
@each_pair
def test_any_prior_with_any_head_makes_a_story(spec: str, posterior: str, network: str) -> None:
    torch.manual_seed(0)
    story = _story(prior=spec, posterior=posterior, network=network)
    loss = loss_of(story, torch.rand(5, 1, 5, 6))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in story.parameters())


def test_a_prior_made_of_the_guide_refuses_one_without_a_density() -> None:
    story = _story(prior="vamp", posterior="point")
    with pytest.raises(StoryError, match="the guide gives a single code: take another posterior"):
        story.model(torch.rand(5, 1, 5, 6))


def test_pseudo_inputs_begin_as_rows_and_are_learned_or_stay() -> None:
    x = torch.rand(7, 1, 5, 6)
    for pseudo, learned in (("learned", True), ("data", False)):
        story = _story(prior=f"vamp(components=4, pseudo={pseudo!r})")
        story.start(x)
        assert all((x == row).flatten(1).all(1).any() for row in story.prior.state_dict()["inputs"])
        assert ("prior.inputs" in dict(story.named_parameters())) is learned
        assert "prior.inputs" in story.state_dict()
    few = _story(prior="vamp(components=9)")
    few.start(x)
    assert few.prior.inputs.shape == (9, 1, 5, 6)


def test_pseudo_inputs_of_ones_own_are_kept_by_a_fit() -> None:
    given = torch.rand(4, 1, 5, 6)
    story = _story(prior=VampPrior(4, components=4, pseudo="data", inputs=given))
    run = pg.fit(story, torch.rand(20, 1, 5, 6), epochs=1, progress=False)
    assert_close(run.story.prior.inputs, given)
    with pytest.raises(ValueError, match=r"shape of an observation, \(1, 5, 6\), got \(3,\)"):
        _story(prior=VampPrior(4, components=2, inputs=torch.rand(2, 3)))
    with pytest.raises(ValueError, match="inputs must be as many as components, 3, got 2"):
        VampPrior(4, components=3, inputs=torch.rand(2, 3))


def test_the_prior_of_pseudo_inputs_is_the_mean_of_what_the_guide_says_of_them() -> None:
    story = _story(prior="vamp(components=3)")
    law = story.posterior(story.encoder(story.prior.inputs))
    z = torch.randn(6, 4)
    expected = law.log_prob(z[:, None]).logsumexp(1) - torch.tensor(3.0).log()
    assert_close(story.prior().log_prob(z), expected)


@networks
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_any_likelihood_makes_a_story(likelihood: str, network: str) -> None:
    torch.manual_seed(0)
    story = _story(likelihood=SPECS[likelihood] or likelihood, network=network)
    loss = loss_of(story, torch.randint(2, (4, 1, 5, 6)).float())
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in story.parameters())


def test_model_and_guide_name_the_same_sites_inside_the_plate() -> None:
    story = _story()
    x = torch.rand(4, 1, 5, 6)
    guide: Any = poutine.trace(story.guide).get_trace(x)
    model: Any = poutine.trace(poutine.replay(story.model, guide)).get_trace(x)
    assert guide.stochastic_nodes == ["observations", "z"]
    assert model.stochastic_nodes == ["observations", "z"]
    assert model.observation_nodes == ["x"]
    for site, event_shape in [("z", (4,)), ("x", (1, 5, 6))]:
        law = model.nodes[site]["fn"]
        assert (law.batch_shape, law.event_shape) == ((4,), event_shape)
        assert [frame.name for frame in model.nodes[site]["cond_indep_stack"]] == ["observations"]


@each_pair
def test_draws_stack_to_the_left_of_the_observations(spec: str, posterior: str) -> None:
    story = _story(prior=spec, posterior=posterior)
    x = torch.rand(4, 1, 5, 6)
    with pyro.plate("draws", 2, dim=-2):
        guide: Any = poutine.trace(story.guide).get_trace(x)
        model: Any = poutine.trace(poutine.replay(story.model, guide)).get_trace(x)
    model.compute_log_prob()
    assert guide.nodes["z"]["value"].shape == (2, 4, 4)
    assert model.nodes["z"]["log_prob"].shape == (2, 4)
    assert model.nodes["x"]["log_prob"].shape == (2, 4)
    one = model.nodes["z"]["value"][1]
    alone: Any = poutine.trace(poutine.condition(story.model, {"z": one})).get_trace(x)
    alone.compute_log_prob()
    assert_close(model.nodes["x"]["log_prob"][1], alone.nodes["x"]["log_prob"])


def test_the_analytic_divergence_agrees_with_the_drawn_one() -> None:
    torch.manual_seed(0)
    story = _story()
    x = torch.rand(4, 1, 5, 6)
    analytic = TraceMeanField_ELBO(num_particles=4000, vectorize_particles=True)
    drawn = Trace_ELBO(num_particles=4000, vectorize_particles=True)
    difference = analytic.loss(story.model, story.guide, x) - drawn.loss(
        story.model, story.guide, x
    )
    assert abs(difference) < 0.5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.long, torch.bool])
@pytest.mark.parametrize("likelihood", SPECS)
def test_integers_are_scored_as_the_same_numbers(likelihood: str, dtype: torch.dtype) -> None:
    story = _story(likelihood=SPECS[likelihood] or likelihood, posterior="point")
    x = torch.randint(2, (4, 1, 5, 6))
    loss = Trace_ELBO().loss
    torch.manual_seed(0)
    expected = loss(story.model, story.guide, x.float())
    torch.manual_seed(0)
    assert_close(loss(story.model, story.guide, x.to(dtype)), expected)


def test_a_story_draws_data_when_none_are_given() -> None:
    story = _story(likelihood="bernoulli")
    drawn: Any = poutine.trace(poutine.uncondition(story.model)).get_trace(torch.zeros(4, 1, 5, 6))
    value = drawn.nodes["x"]["value"]
    assert value.shape == (4, 1, 5, 6)
    assert set(value.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("method", ["model", "guide"])
@pytest.mark.parametrize("x", [torch.zeros(3, 64), torch.zeros(1, 8, 8), torch.zeros(())])
def test_observations_of_another_shape_are_refused(method: str, x: torch.Tensor) -> None:
    story = VAE((1, 8, 8), 2, hidden=(3,))
    with pytest.raises(StoryError, match=r"expects observations of shape \(1, 8, 8\), got \("):
        getattr(story, method)(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": ()}, "shape must hold at least 1"),
        ({"shape": (4, 0)}, "each size of shape must be at least 1, got 0"),
        ({"latent": 0}, "latent must be at least 1, got 0"),
        ({"prior": "daisy"}, "prior must be one of"),
        ({"prior": StandardNormal(5)}, "as many features as the code, 8, got 5"),
        ({"likelihood": "cauchy"}, "likelihood must be one of"),
        ({"likelihood": Bernoulli((2, 2))}, r"\(4,\), got \(2, 2\)"),
        ({"likelihood": "categorical"}, "missing a required argument: 'categories'"),
        ({"posterior": "fuller"}, "posterior must be one of"),
        ({"network": "conv"}, "a convolutional network takes observations of shape"),
        ({"hidden": (3, -1)}, "each size of hidden must be at least 1, got -1"),
        ({"activation": "sine"}, "activation must be one of"),
    ],
)
def test_a_story_that_cannot_be_built_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VAE(**{"shape": (4,), **arguments})


def test_the_table_names_every_story() -> None:
    assert set(STORIES) == {"gmm", "vae", "cvae", "m2", "autoencoder", "ppca"}
    assert STORIES["vae"] is VAE
