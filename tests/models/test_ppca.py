"""Probabilistic principal component analysis: every law has an exact answer."""

from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from sklearn.decomposition import PCA
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from ppl_gen.errors import StoryError
from ppl_gen.models import PPCA


def _story(features: int = 5, latent: int = 2) -> PPCA:
    torch.manual_seed(0)
    story = PPCA((features,), latent)
    with torch.no_grad():
        for parameter in story.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return story.double()


def _data(observations: int = 200, features: int = 5) -> Tensor:
    torch.manual_seed(1)
    spread = torch.randn(observations, features) @ torch.randn(features, features)
    return (spread + torch.randn(features)).double()


def _log_joint(story: PPCA, x: Tensor, z: Tensor) -> Tensor:
    trace: Any = poutine.trace(poutine.condition(story.model, {"z": z})).get_trace(x)
    trace.compute_log_prob()
    return trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]


@pytest.mark.parametrize("latent", [1, 2, 6])
def test_the_evidence_is_a_normal_with_the_full_covariance(latent: int) -> None:
    story, x = _story(latent=latent), _data(7)
    noise = (2 * story.log_scale).exp() * torch.eye(5)
    expected = MultivariateNormal(story.loc, story.weight @ story.weight.T + noise).log_prob(x)
    assert_close(story.log_evidence(x), expected)


def test_joint_over_posterior_is_the_evidence_whatever_the_code() -> None:
    story, x = _story(), _data(7)
    posterior = story.exact_posterior(x)
    assert (posterior.batch_shape, posterior.event_shape) == ((7,), (2,))
    for z in (posterior.sample(), 3 * torch.randn(7, 2).double()):
        assert_close(_log_joint(story, x, z) - posterior.log_prob(z), story.log_evidence(x))


def test_an_exact_guide_leaves_no_gap_in_any_draw() -> None:
    story, x = _story(), _data(7)
    story.set_guide_to_exact_posterior()
    elbo = -Trace_ELBO().loss(story.model, story.guide, x)
    assert_close(elbo, story.log_evidence(x).sum().item())


def test_another_guide_leaves_a_gap_which_is_its_divergence() -> None:
    story, x = _story(), _data(7)
    trace: Any = poutine.trace(story.guide).get_trace(x)
    law = trace.nodes["z"]["fn"]
    gap = torch.distributions.kl_divergence(law, story.exact_posterior(x)).sum()
    many = Trace_ELBO(num_particles=20_000, vectorize_particles=True, max_plate_nesting=1)
    with torch.no_grad():
        elbo = -many.loss(story.model, story.guide, x)
    found = story.log_evidence(x).sum() - elbo
    assert gap > 1
    assert_close(found, gap, rtol=0.02, atol=0)


@pytest.mark.parametrize("latent", [1, 2, 4])
def test_maximum_likelihood_is_what_sklearn_finds(latent: int) -> None:
    """Both have one closed form of a covariance, sklearn's divided by N - 1 and ours by N.

    Data stretched about their mean by sqrt(N / (N - 1)) make up for the difference.
    """
    x = _data()
    stretched = x.mean(0) + (x - x.mean(0)) * (len(x) / (len(x) - 1)) ** 0.5
    story = PPCA.maximum_likelihood(stretched, latent).double()
    expected = torch.from_numpy(PCA(latent).fit(x.numpy()).score_samples(x.numpy()))
    assert_close(story.log_evidence(x), expected, rtol=1e-5, atol=1e-4)


def test_every_step_away_from_the_maximum_lowers_the_likelihood() -> None:
    x = _data()
    story = PPCA.maximum_likelihood(x, 2).double()
    best = story.log_evidence(x).mean()
    gradients = torch.autograd.grad(best, [story.weight, story.loc, story.log_scale])
    for gradient in gradients:
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-5)
    torch.manual_seed(2)
    for parameter in (story.weight, story.loc, story.log_scale):
        for _ in range(5):
            kept = parameter.detach().clone()
            with torch.no_grad():
                parameter += 0.03 * torch.randn_like(parameter)
                assert story.log_evidence(x).mean() < best
                parameter.copy_(kept)


def test_the_guide_of_the_maximum_is_exact() -> None:
    x = _data()
    story = PPCA.maximum_likelihood(x, 2).double()
    elbo = -Trace_ELBO().loss(story.model, story.guide, x)
    assert_close(elbo, story.log_evidence(x).sum().item(), rtol=1e-6, atol=0)


def test_the_closed_form_survives_small_noise_in_single_precision() -> None:
    story = _story().double()
    with torch.no_grad():
        story.log_scale.fill_(-6.0)
    trace: Any = poutine.trace(poutine.uncondition(story.model)).get_trace(_data(7))
    x = trace.nodes["x"]["value"]
    expected = story.log_evidence(x.float().double())
    story = story.float()
    again = story.log_evidence(x.float())
    assert again.dtype == torch.float32
    assert_close(again.double(), expected, rtol=1e-3, atol=1e-2)


def test_model_and_guide_name_the_same_sites_under_draws() -> None:
    story, x = _story(), _data(7)
    with pyro.plate("draws", 3, dim=-2):
        guide: Any = poutine.trace(story.guide).get_trace(x)
        model: Any = poutine.trace(poutine.replay(story.model, guide)).get_trace(x)
    model.compute_log_prob()
    assert guide.stochastic_nodes == model.stochastic_nodes
    assert "z" in guide.stochastic_nodes
    assert model.nodes["z"]["value"].shape == (3, 7, 2)
    assert model.nodes["x"]["log_prob"].shape == (3, 7)


def test_observations_of_another_shape_are_refused() -> None:
    story = PPCA((5,))
    programs = (story.model, story.guide, story.log_evidence, story.exact_posterior)
    for program in programs:
        with pytest.raises(StoryError, match=r"of shape \(5,\), got \(6,\)"):
            program(torch.zeros(3, 6))


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 3)])
def test_a_shape_of_several_sizes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape must hold one size, .* flatten the observations"):
        PPCA(shape)


@pytest.mark.parametrize(
    ("x", "latent", "message"),
    [
        (torch.zeros(5), 1, r"x must be of shape \(N, D\), got \(5,\)"),
        (torch.zeros(0, 5), 1, r"x must be of shape \(N, D\), got \(0, 5\)"),
        (torch.randn(9, 3), 3, "latent must be below the 3 features, got 3"),
        (torch.randn(9, 3), 0, "latent must be at least 1, got 0"),
        (torch.randn(3, 5), 2, "must vary in more than latent=2 directions, got 3 observations"),
        (torch.zeros(9, 5), 2, "must vary in more than latent=2 directions"),
    ],
)
def test_data_without_a_maximum_are_refused(x: Tensor, latent: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPCA.maximum_likelihood(x, latent)
