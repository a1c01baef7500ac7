"""The conditional variational autoencoder: what its story says."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from cvae_support import CONDITIONS, SHAPE, SPECS, rows_of, small, traces, untrained
from prior_support import pairs
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.nn.functional import softplus
from torch.testing import assert_close

from ppl_gen.errors import StoryError
from ppl_gen.likelihoods import LIKELIHOODS
from ppl_gen.models.cvae import CVAE
from ppl_gen.models.vae import VAE
from ppl_gen.posteriors import SCALE_FLOOR

# Any parts make a story, whatever is conditioned on.


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_any_parts_make_asmall(
    likelihood: str, condition: str, baseline: bool, network: str
) -> None:
    story = small(
        condition, likelihood=SPECS[likelihood], network=network, baseline=baseline
    ).train()
    loss = Trace_ELBO().differentiable_loss(story.model, story.guide, *rows_of(condition))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in story.parameters())


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize(
    ("prior", "posterior"),
    [*(("conditional", head) for head in ("diagonal", "full", "point")), *pairs(2, "vamp")],
)
def test_draws_stack_to_the_left_of_the_observations(
    prior: str, posterior: str, condition: str
) -> None:
    """Each draw is weighed as it would be alone."""
    story = small(condition, prior=prior, posterior=posterior, baseline=True)
    x, given = rows_of(condition)
    with pyro.plate("draws", 2, dim=-2):
        guide, model = traces(story, x, given)
    assert guide.nodes["z"]["value"].shape == (2, 4, 2)
    assert model.nodes["z"]["log_prob"].shape == (2, 4)
    assert model.nodes["x"]["log_prob"].shape == (2, 4)
    one = model.nodes["z"]["value"][1]
    alone: Any = poutine.trace(poutine.condition(story.model, {"z": one})).get_trace(x, given)
    alone.compute_log_prob()
    assert_close(model.nodes["x"]["log_prob"][1], alone.nodes["x"]["log_prob"])


def test_pseudo_inputs_have_no_condition_to_be_read_with() -> None:
    story = small(prior="vamp")
    with pytest.raises(StoryError, match="VampPrior must be part of a story whose guide reads obs"):
        story.model(*rows_of("label(classes=3)"))


def test_the_divergence_of_a_conditional_prior_is_analytic() -> None:
    """The ELBO of one draw spreads by the reconstruction alone: Pyro knows KL of two normals."""
    story, (x, given) = small(), rows_of("label(classes=3)")
    guide, model = traces(story, x, given)
    exact = torch.distributions.kl_divergence(guide.nodes["z"]["fn"], model.nodes["z"]["fn"]).sum()
    torch.manual_seed(3)
    bound = -TraceMeanField_ELBO().loss(story.model, story.guide, x, given)
    torch.manual_seed(3)
    _, again = traces(story, x, given)
    assert bound == pytest.approx((again.nodes["x"]["log_prob_sum"] - exact).item(), rel=1e-5)


def test_an_independent_prior_is_the_same_for_every_condition() -> None:
    story, (x, given) = small(prior="standard-normal"), rows_of("label(classes=3)")
    _, model = traces(story, x, given)
    assert_close(model.nodes["z"]["fn"].mean, torch.zeros(4, 2))
    _, model = traces(small(), x, given)
    mean = model.nodes["z"]["fn"].mean
    assert_close(mean[0], mean[3])  # both of label 0
    assert not torch.allclose(mean[0], mean[1])


# A linear story with normal noise has an exact conditional evidence.


def _linear() -> CVAE:
    """One code of a vector of two numbers and an observation of three, its exact posterior."""
    story = small(
        "vector(features=2)", shape=(3,), latent=1, hidden=(), likelihood="gaussian(scale=0.5)"
    )
    weight = torch.tensor([1.0, -0.5, 2.0])
    decoder: Any = story.decoder
    prior: Any = story.prior
    posterior: Any = story.posterior
    with torch.no_grad():
        decoder.layers[0].weight[:, 0] = weight
        precision = weight.square().sum() / 0.25 + 1 / PRIOR_SCALE**2
        posterior.raw_scale.bias.fill_(_raw(precision.rsqrt()))
        prior.raw_scale.bias.fill_(_raw(torch.tensor(PRIOR_SCALE)))
        # z given x and c has the mean (w^T (x - V c - b) / 0.25 + (A c + a) / s^2) / precision.
        of_c, b = decoder.layers[0].weight[:, 1:], decoder.layers[0].bias
        a, level = prior.loc.weight[0], prior.loc.bias
        gain = weight / 0.25 / precision
        pull = 1 / PRIOR_SCALE**2 / precision
        posterior.loc.weight.copy_(torch.cat([gain, pull * a - gain @ of_c])[None])
        posterior.loc.bias.copy_(pull * level - gain @ b)
    return story


PRIOR_SCALE = 0.8


def _raw(scale: Tensor) -> float:
    raw = torch.expm1(scale - SCALE_FLOOR).log()
    assert_close(softplus(raw) + SCALE_FLOOR, scale)
    return raw.item()


@pytest.mark.parametrize("draws", [1, 30])
def test_the_exact_posterior_gives_the_exact_conditional_evidence(draws: int) -> None:
    """x = w z + V c + b + noise, z ~ N(A c + a, s^2): x given c is normal, every weight equal."""
    story = _linear()
    x, c = torch.randn(6, 3), torch.randn(6, 2)
    decoder: Any = story.decoder
    prior: Any = story.prior
    with torch.no_grad():
        w, of_c = decoder.layers[0].weight[:, :1], decoder.layers[0].weight[:, 1:]
        loc = prior.loc(c) @ w.T + c @ of_c.T + decoder.layers[0].bias
        covariance = PRIOR_SCALE**2 * w @ w.T + 0.25 * torch.eye(3)
        exact = dist.MultivariateNormal(loc, covariance).log_prob(x)
    run = untrained(story, (x, c))

    found = run.evidence((x, c), draws=draws, khat=False)

    assert_close(found.nats, exact.double(), rtol=1e-4, atol=1e-4)
    assert_close(found.ess, torch.full((6,), float(draws)).double(), rtol=1e-4, atol=0)
    other = run.evidence((x, c + 1), draws=draws, khat=False)
    assert (other.nats - found.nats).abs().min() > 1e-3


# Under a mask the likelihood counts what is unseen.


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_likelihood_counts_unseen_elements_only(likelihood: str, baseline: bool) -> None:
    story = small("seen", likelihood=SPECS[likelihood], baseline=baseline)
    x, mask = rows_of("seen")
    _, model = traces(story, x, mask)
    law = model.nodes["x"]["fn"].base_dist.base_dist
    expected = (law.log_prob(x) * ~mask).sum((-3, -2, -1))
    assert_close(model.nodes["x"]["log_prob"], expected)


def test_where_everything_is_seen_there_is_nothing_to_explain() -> None:
    """With the prior as its guide the evidence of nothing is exactly 0."""
    story = small("seen", prior="standard-normal")
    head: Any = story.posterior
    torch.nn.init.zeros_(head.loc.weight)
    torch.nn.init.zeros_(head.loc.bias)
    torch.nn.init.constant_(head.raw_scale.bias, _raw(torch.tensor(1.0)))
    x, _ = rows_of("seen")
    everything = torch.ones_like(x, dtype=torch.bool)
    run = untrained(story, (x, everything))
    assert_close(run.evidence((x, everything), draws=9).nats, torch.zeros(4).double())
    assert_close(run.sample(4, data=(x, everything))["x"], x)


def test_where_nothing_is_seen_the_story_is_the_unconditional_one() -> None:
    story = small("seen", prior="standard-normal", hidden=(), likelihood="bernoulli")
    plain = VAE(SHAPE, 2, likelihood="bernoulli", hidden=())
    decoder: Any = story.decoder
    plain_decoder: Any = plain.decoder
    head: Any = story.posterior
    plain_head: Any = plain.posterior
    with torch.no_grad():
        plain_decoder.layers[0].weight.copy_(decoder.layers[0].weight[:, :2])
        plain_decoder.layers[0].bias.copy_(decoder.layers[0].bias)
        plain_head.loc.weight.copy_(head.loc.weight[:, :30])
        plain_head.loc.bias.copy_(head.loc.bias)
    x, mask = rows_of("seen")
    nothing = torch.zeros_like(mask)
    runs = (untrained(story, (x, nothing)), untrained(plain, x))
    found, expected = runs[0].evidence((x, nothing), draws=20), runs[1].evidence(x, draws=20)
    assert_close(found.nats, expected.nats, rtol=1e-5, atol=1e-5)


def test_what_is_drawn_keeps_what_is_seen() -> None:
    story = small("seen", likelihood="bernoulli")
    x, mask = rows_of("seen")
    run = untrained(story, (x, mask))
    drawn = run.sample(4, data=(x, mask))["x"]
    assert torch.equal(drawn[mask], x[mask])
    expected = run.decode({"z": torch.zeros(4, 2)}, (x, mask))["x"]
    assert torch.equal(expected[mask], x[mask])
    assert ((expected[~mask] > 0) & (expected[~mask] < 1)).all()


def test_the_decoder_is_not_shown_what_it_has_to_explain() -> None:
    """Prior, decoder and baseline are the same whatever is unseen."""
    story = small("seen", likelihood="bernoulli", baseline=True)
    x, mask = rows_of("seen")
    z = torch.randn(4, 2)
    laws = []
    for shown in (x, torch.where(mask, x, 1 - x)):
        fixed = poutine.condition(story.model, {"z": z})
        trace: Any = poutine.trace(fixed).get_trace(shown, mask)
        laws.append(
            torch.cat([trace.nodes["z"]["fn"].mean.flatten(), trace.nodes["x"]["fn"].mean[~mask]])
        )
        laws[-1] = torch.cat([laws[-1], story.predict_baseline(shown, mask)[~mask]])
    assert_close(laws[0], laws[1], rtol=0, atol=0)


# The baseline, and the hybrid with a Gaussian stochastic neural network.


def test_the_baseline_is_fitted_beside_while_the_story_is_trained() -> None:
    story, (x, given) = small(baseline=True), rows_of("label(classes=3)")
    assert "x_baseline" not in traces(story, x, given)[1]
    _, model = traces(story.train(), x, given)
    assert_close(
        model.nodes["x_baseline"]["log_prob"], story.baseline_log_likelihood(x, given).detach()
    )


def test_the_baseline_learns_from_its_own_likelihood_alone() -> None:
    """What the code's ELBO asks of it is not heard."""
    story, (x, given) = small(baseline=True), rows_of("label(classes=3)")
    baseline: Any = story.baseline
    Trace_ELBO().differentiable_loss(story.model, story.guide, x, given).backward()
    assert all(parameter.grad is None for parameter in baseline.parameters())
    assert story.decoder.layers[0].weight.grad is not None


def test_the_code_adds_to_what_the_baseline_answers() -> None:
    """Where the decoder gives 0, the story's answer is the baseline's."""
    story, (x, given) = small("seen", baseline=True, likelihood="bernoulli"), rows_of("seen")
    last: Any = story.decoder.layers[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    _, model = traces(story, x, given)
    assert_close(model.nodes["x"]["log_prob"], story.baseline_log_likelihood(x, given))
    assert_close(model.nodes["x"]["fn"].mean, story.predict_baseline(x, given))


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_baseline_has_one_answer(condition: str, name: str) -> None:
    story = small(condition, baseline=True, likelihood=SPECS[name])
    x, given = rows_of(condition)
    answer = story.predict_baseline(x, given)
    assert answer.shape == x.shape
    assert answer.isfinite().all()
    assert story.baseline_log_likelihood(x, given).shape == (4,)
    if condition == "seen":
        assert torch.equal(answer[given], x[given])


def test_a_given_likelihood_is_not_shared_with_the_baseline() -> None:
    story = small(baseline=True, likelihood="gaussian")
    baseline: Any = story.baseline
    assert story.likelihood.raw_scale is not baseline.likelihood.raw_scale


def test_a_story_without_a_baseline_says_so() -> None:
    story, (x, given) = small(), rows_of("label(classes=3)")
    for ask in (story.predict_baseline, story.baseline_log_likelihood):
        with pytest.raises(StoryError, match="no baseline: build it with baseline=True"):
            ask(x, given)


def _hybrid(story: CVAE, x: Tensor, given: Tensor) -> float:
    torch.manual_seed(5)
    return -TraceMeanField_ELBO().loss(story.model, story.guide, x, given)


def test_a_gsnn_weight_of_0_is_the_plain_bound() -> None:
    data = rows_of("label(classes=3)")
    story = small()
    assert _hybrid(story.train(), *data) == _hybrid(story.eval(), *data)


@pytest.mark.parametrize("prior", ["conditional", "standard-normal", "mixture"])
def test_the_hybrid_weighs_the_bound_and_the_likelihood_under_the_prior(prior: str) -> None:
    """(1 - w) ELBO + w log p(x | z', c), with z' drawn from the prior after z was from the guide.

    The plain bound is linear in its two terms, so that it is met at w = 0 with the same draws.
    """
    story, (x, given) = small(prior=prior, gsnn=0.3), rows_of("label(classes=3)")
    elbo = _hybrid(story, x, given)
    torch.manual_seed(5)
    _, model = traces(story.train(), x, given)
    term = model.nodes["x_gsnn"]["fn"].log_prob(x).sum().item()
    assert _hybrid(story, x, given) == pytest.approx(0.7 * elbo + 0.3 * term, rel=1e-5)
    story.eval()
    torch.manual_seed(5)
    guide: Any = poutine.trace(story.guide).get_trace(x, given)
    with torch.no_grad():
        blank: Any = poutine.trace(poutine.replay(story.model, guide)).get_trace(x, given)
        drawn = blank.nodes["z"]["fn"]
        own = drawn.rsample() if drawn.has_rsample else drawn.sample()
        alone: Any = poutine.trace(poutine.condition(story.model, {"z": own})).get_trace(x, given)
        alone.compute_log_prob()
    assert term == pytest.approx(alone.nodes["x"]["log_prob_sum"].item(), rel=1e-5)


def test_the_hybrid_trains_a_prior_by_the_likelihood_as_well() -> None:
    story, (x, given) = small(gsnn=0.5).train(), rows_of("label(classes=3)")
    _, model = traces(story, x, given)
    model.nodes["x_gsnn"]["log_prob_sum"].backward()
    prior: Any = story.prior
    assert prior.loc.weight.grad.abs().sum() > 0
    assert prior.raw_scale.weight.grad.abs().sum() > 0
