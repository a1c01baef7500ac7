"""A label that is seen for some of the data: summed over where it is not."""

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from prior_support import pairs
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from torch import Tensor
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.data.labels import partly_labelled
from ppl_gen.models.m2 import M2
from ppl_gen.posteriors import SCALE_FLOOR

LIKELIHOODS = ["bernoulli", "gaussian", "categorical(categories=2)", "poisson"]
NOISE = 0.7
CENTRES = torch.tensor([[0.0, 0.0, 0.0], [1.0, -0.5, 1.5], [-1.0, 1.0, 0.5]])
DIRECTION = torch.tensor([0.8, 1.2, -0.6])
SHARES = torch.tensor([0.2, 0.3, 0.5])


def small(**arguments: Any) -> M2:
    """A story for images of 5 x 6, all parts small, in evaluation as outside epochs."""
    return M2((1, 5, 6), 3, 2, **{"hidden": (4,), **arguments}).eval()


def few_rows() -> tuple[Tensor, Tensor]:
    """Six images of 0 and 1, of which three have a label."""
    x = torch.randint(2, (6, 1, 5, 6), generator=torch.Generator().manual_seed(0)).float()
    return x, torch.tensor([0, -1, 2, -1, -1, 1])


def elbo(story: M2, x: Tensor, y: Tensor) -> Tensor:
    """One estimate of the ELBO of all rows, in nats."""
    bound = TraceEnum_ELBO(max_plate_nesting=1)
    return -torch.as_tensor(bound.differentiable_loss(story.model, story.guide, x, y))


def linear_story() -> M2:
    """A story that can be solved, with its exact posterior as the guide.

    x ~ N(centre of y + direction z, noise^2) in three dimensions, z ~ N(0, 1): given y the law of x
    is normal, with the same covariance for every y, so that log p(y | x) is linear in x.
    """
    story = M2((3,), 3, 1, likelihood=f"gaussian(scale={NOISE})", hidden=(), proportions="learned")
    covariance = NOISE**2 * torch.eye(3) + DIRECTION.outer(DIRECTION)
    slope = torch.linalg.solve(covariance, CENTRES.T).T
    precise = NOISE**2 + DIRECTION.square().sum()
    scale = NOISE / precise.sqrt()
    posterior: Any = story.posterior
    decoder: Any = story.decoder
    with torch.no_grad():
        story.log_shares.copy_(SHARES.log())
        decoder.layers[-1].weight.copy_(torch.cat([DIRECTION[:, None], CENTRES.T], 1))
        decoder.layers[-1].bias.zero_()
        story.classifier.last.weight.copy_(slope)
        story.classifier.last.bias.copy_(SHARES.log() - (slope * CENTRES).sum(1) / 2)
        posterior.loc.weight.copy_(torch.cat([DIRECTION, -CENTRES @ DIRECTION])[None] / precise)
        posterior.loc.bias.zero_()
        posterior.raw_scale.bias.copy_((scale - SCALE_FLOOR).expm1().log())
    return story.eval()


def exact_log_joint(x: Tensor) -> Tensor:
    """log p(x, y) of the linear story for every class, (N, 3)."""
    covariance = NOISE**2 * torch.eye(3) + DIRECTION.outer(DIRECTION)
    law = dist.MultivariateNormal(CENTRES, covariance_matrix=covariance)
    return law.log_prob(x[:, None]) + SHARES.log()


def linear_rows(rows: int = 12) -> tuple[Tensor, Tensor]:
    """Observations, and labels for a half of them."""
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(1))
    return x, torch.where(torch.arange(rows) % 2 == 0, torch.arange(rows) % 3, -1)


def exact_evidence(x: Tensor, y: Tensor) -> Tensor:
    """log p(x, y) where the label is seen, log p(x) where it is not."""
    joint = exact_log_joint(x)
    labelled = joint.gather(1, y.clamp(min=0)[:, None])[:, 0]
    return torch.where(y == -1, joint.logsumexp(1), labelled)


@pytest.fixture(scope="module")
def linear() -> pg.Run:
    """A run of the linear story, its weights as they were."""
    return pg.fit(
        linear_story(),
        linear_rows(),
        warm_start=True,
        epochs=1,
        learning_rate=1e-12,
        progress=False,
    )


@pytest.mark.parametrize("labels", ["some", "none", "all"])
def test_with_the_exact_guide_one_elbo_is_the_evidence(labels: str) -> None:
    """Nothing is left to chance: neither the label, which is summed, nor the style."""
    x, y = linear_rows()
    y = {"some": y, "none": torch.full_like(y, -1), "all": torch.arange(len(y)) % 3}[labels]

    assert_close(elbo(linear_story(), x, y), exact_evidence(x, y).sum())


def test_with_the_exact_guide_every_draw_weighs_the_evidence(linear: pg.Run) -> None:
    x, y = linear_rows()

    found = linear.evidence((x, y), draws=30)

    assert_close(found.nats, exact_evidence(x, y).double(), rtol=1e-4, atol=1e-4)
    assert_close(found.ess, torch.full_like(found.ess, 30), rtol=1e-4, atol=0)


def test_labels_are_drawn_from_their_posterior_and_seen_ones_stay(linear: pg.Run) -> None:
    x, y = linear_rows()
    tree = linear.posterior((x, y), draws=2000, groups=["posterior"])
    drawn = torch.as_tensor(tree["posterior"]["y"].values)[0]

    seen = y != -1
    assert (drawn[:, seen] == y[seen]).all()
    exact = exact_log_joint(x)[~seen].softmax(1).double()
    shares = torch.stack([(drawn[:, ~seen] == k).double().mean(0) for k in range(3)], 1)
    assert ((shares - exact).abs() <= 5 * (exact * (1 - exact) / 2000).sqrt() + 1e-3).all()


def test_the_classifier_of_the_exact_guide_gives_the_posterior(linear: pg.Run) -> None:
    x, _ = linear_rows()
    exact = exact_log_joint(x).softmax(1)

    assert_close(linear.story.predict_proba(x), exact)
    assert_close(linear.story.predict_proba(x.numpy()), exact)
    assert (linear.story.predict(x) == exact.argmax(1)).all()


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_elbo_is_a_sum_over_classes_where_the_label_is_not_seen(
    likelihood: str, network: str
) -> None:
    """By hand, for a guide with all mass on one style, which leaves no draws."""
    torch.manual_seed(0)
    story = small(likelihood=likelihood, network=network, posterior="point", proportions="learned")
    with torch.no_grad():
        story.log_shares.copy_(SHARES.log())
        story.classifier.last.weight.normal_()
    x, y = few_rows()
    log_q = story.classifier(x)
    by_class = []
    for k in range(3):
        label = torch.nn.functional.one_hot(torch.full((6,), k), 3).float()
        z = story.posterior(story.encoder(x, label)).mean
        law = story.likelihood(story.decoder(torch.cat([z, label], -1)))
        by_class.append(SHARES[k].log() + story.prior().log_prob(z) + law.log_prob(x))
    joint = torch.stack(by_class, 1)
    unlabelled = (log_q.exp() * (joint - log_q)).sum(1)
    labelled = joint.gather(1, y.clamp(min=0)[:, None])[:, 0]

    expected = torch.where(y == -1, unlabelled, labelled).sum()

    assert_close(elbo(story, x, y), expected)


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize(("prior", "posterior"), pairs(2, "vamp"))
def test_any_parts_make_a_story(prior: str, posterior: str, network: str) -> None:
    torch.manual_seed(0)
    story = small(prior=prior, posterior=posterior, network=network, proportions="learned").train()
    loss = -elbo(story, *few_rows())
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in story.parameters())


def test_the_classifier_has_a_term_of_its_own_while_it_is_trained() -> None:
    """The paper's equation 9: weight times the mean log-likelihood of seen labels, per datum."""
    torch.manual_seed(0)
    story = small(posterior="point", weight=0.3)
    x, y = few_rows()
    story.start(x, y)
    with torch.no_grad():
        story.classifier.last.weight.normal_()
    plain = elbo(story, x, y)
    seen = y != -1
    mean = story.classifier(x)[seen].gather(1, y[seen][:, None]).mean()

    assert_close(elbo(story.train(), x, y) - plain, len(x) * 0.3 * mean, rtol=1e-4, atol=1e-4)


def test_without_weight_the_classifier_has_no_term() -> None:
    story = small(posterior="point", weight=0.0)
    x, y = few_rows()
    assert_close(elbo(story.eval(), x, y), elbo(story.train(), x, y))


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_draws_stack_to_the_left_of_the_observations(network: str) -> None:
    story = small(network=network, likelihood="bernoulli")
    x, y = few_rows()
    with pyro.plate("draws", 2, dim=-2):
        guide: Any = poutine.trace(story.guide).get_trace(x, y)
        model: Any = poutine.trace(poutine.replay(story.model, guide)).get_trace(x, y)
    model.compute_log_prob()
    one = {name: guide.nodes[name]["value"][1] for name in ("y", "z")}
    alone: Any = poutine.trace(poutine.condition(story.model, one)).get_trace(x, y)
    alone.compute_log_prob()

    assert model.nodes["x"]["log_prob"].shape == (2, 6)
    assert_close(model.nodes["x"]["log_prob"][1], alone.nodes["x"]["log_prob"])


def test_a_seen_label_is_that_of_the_observation_when_data_are_drawn(linear: pg.Run) -> None:
    drawn = linear.sample(600, seed=3)
    assert (drawn["y"] == drawn["y_seen"]).all()
    shares = torch.bincount(drawn["y"], minlength=3) / 600
    assert ((shares - SHARES).abs() <= 5 * (SHARES * (1 - SHARES) / 600).sqrt()).all()
    means = torch.stack([drawn["x"][drawn["y"] == k].mean(0) for k in range(3)])
    assert ((means - CENTRES).abs() < 0.8).all()


LABELS = {
    "all unknown": torch.full((40,), -1),
    "all known": torch.arange(40) % 3,
    "one example of one class": torch.where(torch.arange(40) == 7, 2, -1),
}


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_any_share_of_labels_can_be_fitted_checked_and_kept(y: Tensor, tmp_path: Path) -> None:
    x = torch.rand(40, 4, generator=torch.Generator().manual_seed(0))
    story = M2((4,), 3, 2, hidden=(8,))

    def fitted() -> pg.Run:
        return pg.fit(story, (x, y), validation=(x, y), epochs=3, batch_size=16, progress=False)

    run = fitted()
    assert pg.check(run, (x, y), draws=50).status in ("pass", "warn", "fail")
    assert run.evidence((x, y), draws=20).nats.isfinite().all()
    run.save(tmp_path / "run")
    again = pg.load(tmp_path / "run").story.predict_proba(x)
    assert torch.equal(again, run.story.predict_proba(x))
    assert torch.equal(again, fitted().story.predict_proba(x))


def test_the_style_of_an_image_is_redrawn_under_other_labels(linear: pg.Run) -> None:
    """In the linear story that moves it from its own centre to another's."""
    x, _ = linear_rows()
    y = torch.arange(len(x)) % 3

    drawn = linear.redraw((x, y), [0, 1, 2])

    assert_close(drawn - drawn[:, :1], (CENTRES - CENTRES[:1]).expand_as(drawn))


@pytest.mark.parametrize("method", ["model", "guide", "start"])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0, 1, 3, -1]), r"from 0 to 2, or -1 where unknown, got 3 \(in 1 of 4 rows"),
        (torch.tensor([0, -2, -2, 1]), r"got -2 \(in 2 of 4 rows"),
        (torch.tensor([0.5, 0.0, 1.0, 2.0]), r"got 0.5 \(in 1 of 4 rows"),
        (torch.tensor([0, 1]), r"one number for each row, shape \(4,\), got \(2,\)"),
        (torch.zeros(4, 3), r"one number for each row, shape \(4,\), got \(4, 3\)"),
    ],
)
def test_labels_that_cannot_be_are_refused(method: str, y: Tensor, message: str) -> None:
    with pytest.raises(pg.StoryError, match=message):
        getattr(small(), method)(torch.zeros(4, 1, 5, 6), y)


def test_a_wrong_label_of_any_row_is_found_before_the_first_step() -> None:
    y = torch.zeros(300).long()
    y[-1] = 5
    with pytest.raises(pg.StoryError, match=r"labels must be whole numbers from 0 to 2.* got 5"):
        pg.fit(M2((2,), 3, 1, hidden=(3,)), (torch.rand(300, 2), y), epochs=1, progress=False)


def test_observations_of_another_shape_are_refused() -> None:
    with pytest.raises(pg.StoryError, match=r"expects observations of shape \(1, 5, 6\)"):
        small().predict(torch.zeros(3, 30))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "classes must be at least 2"),
        ({"latent": 0}, "latent must be at least 1"),
        ({"weight": -1.0}, "weight must be 0 or a positive number, got -1.0"),
        ({"weight": float("nan")}, "weight must be 0 or a positive number, got nan"),
        ({"proportions": "equal"}, "proportions must be uniform or learned, got 'equal'"),
        ({"network": "cnn"}, "network must be one of"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        M2(**{"shape": (4,), "classes": 3, **arguments})


def test_a_hundred_labels_of_the_digits_teach_a_classifier() -> None:
    """A short form of benchmarks/semi_supervised.py; a hundred epochs reach 93 %, chance 10 %."""
    data = pg.data.load("digits")
    some = partly_labelled(data, 100, seed=0)
    story = M2(data.shape, 10, 12, hidden=(100,), activation="relu")
    run = pg.fit(story, some.train, epochs=12, batch_size=128, learning_rate=5e-3, progress=False)
    assert (run.story.predict(data.test.x) == data.test.y).double().mean() > 0.75
