"""The autoencoder."""

from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.testing import assert_close

from ppl_gen.errors import StoryError
from ppl_gen.models import AutoEncoder

ELBOS = {
    "drawn": Trace_ELBO(),
    "several draws": Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    "analytic": TraceMeanField_ELBO(),
}


def _story(**arguments: Any) -> AutoEncoder:
    torch.manual_seed(0)
    return AutoEncoder((1, 5, 6), 3, **{"hidden": (4,), **arguments})


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("elbo", ELBOS.values(), ids=ELBOS)
def test_the_elbo_is_the_log_likelihood_of_the_reconstruction(
    elbo: Trace_ELBO, likelihood: str, network: str
) -> None:
    story = _story(likelihood=likelihood, network=network)
    x = torch.randint(2, (4, 1, 5, 6)).float()
    code = story.posterior.loc(story.encoder(x))
    expected = story.likelihood(story.decoder(code)).log_prob(x).sum()
    assert_close(-elbo.differentiable_loss(story.model, story.guide, x), expected)


def test_a_fixed_scale_gives_half_the_squared_error_and_a_constant() -> None:
    story = _story(likelihood="gaussian(scale=1.0)")
    x = torch.randn(4, 1, 5, 6)
    reconstruction = story.decoder(story.posterior.loc(story.encoder(x))).squeeze(1)
    half_error = (x - reconstruction).square().sum() / 2
    constant = x.numel() * torch.log(torch.tensor(2 * torch.pi)) / 2
    loss = Trace_ELBO().differentiable_loss(story.model, story.guide, x)
    assert_close(loss, half_error + constant)


def test_model_and_guide_name_the_same_sites_inside_the_plate() -> None:
    story = _story()
    x = torch.rand(4, 1, 5, 6)
    with pyro.plate("draws", 2, dim=-2):
        guide: Any = poutine.trace(story.guide).get_trace(x)
        model: Any = poutine.trace(poutine.replay(story.model, guide)).get_trace(x)
    assert "z" in guide.stochastic_nodes
    assert guide.stochastic_nodes == model.stochastic_nodes
    assert model.observation_nodes == ["x"]
    assert model.nodes["z"]["value"].shape == (2, 4, 3)
    assert model.nodes["x"]["fn"].event_shape == (1, 5, 6)


def test_every_weight_of_the_story_is_learned() -> None:
    story = _story()
    x = torch.rand(4, 1, 5, 6)
    Trace_ELBO().differentiable_loss(story.model, story.guide, x).backward()
    for parameter in story.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_observations_of_another_shape_are_refused() -> None:
    story = _story()
    for program in (story.model, story.guide):
        with pytest.raises(StoryError, match=r"of shape \(1, 5, 6\), got \(30,\)"):
            program(torch.zeros(4, 30))


def test_a_story_without_a_code_is_refused() -> None:
    with pytest.raises(ValueError, match="latent must be at least 1, got 0"):
        AutoEncoder((4,), 0)
