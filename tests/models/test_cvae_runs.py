"""The conditional variational autoencoder: fitted, kept, asked, and given what it cannot take."""

import math
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from cvae_support import CONDITIONS, SHAPE, rows_of, small, traces, untrained
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.component import from_configuration
from ppl_gen.data import Part
from ppl_gen.errors import DataError, PplGenError, StoryError
from ppl_gen.likelihoods import Bernoulli, Likelihood
from ppl_gen.models.cvae import CVAE
from ppl_gen.priors import StandardNormal


@pytest.mark.parametrize(
    ("condition", "arguments"),
    [
        ("label(classes=3)", {}),
        ("label(classes=3)", {"network": "conv", "prior": "mixture", "gsnn": 0.2}),
        ("vector(features=2)", {"baseline": True}),
        ("seen", {"baseline": True, "gsnn": 0.2}),
        ("seen", {"baseline": True, "network": "conv"}),
    ],
)
def test_a_story_is_fitted_and_found_again(
    condition: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    story = small(condition, likelihood="bernoulli", **arguments)
    x, given = rows_of(condition, rows=40)
    held = (x[:10], given[:10])
    run = pg.fit(story, (x, given), validation=held, epochs=2, progress=False)
    assert list(run.structure.sites) == ["z", "x"]
    evidence = run.evidence(held, draws=20)
    assert evidence.nats.isfinite().all()
    made = [f.check for f in pg.check(run, held, draws=20).findings if f.status != "skipped"]
    assert {"evidence", "gap", "active units", "posterior predictive"} <= set(made)
    assert run.posterior(held, draws=5)["posterior"]["z"].shape == (1, 5, 10, 2)
    again = pg.load(run.save(tmp_path / "run"))
    assert torch.equal(again.evidence(held, draws=20).nats, evidence.nats)
    assert again.sample(3)["x"].shape == (3, *SHAPE)
    asked = again.sample(10, data=held)["x"]
    assert asked.shape == (10, *SHAPE)


def test_the_validation_bound_is_the_plain_one_and_the_training_curve_the_hybrid() -> None:
    """With no step taken, the curve lies below the bound by the baseline's own term."""
    story = small(baseline=True, likelihood="bernoulli")
    x, given = rows_of("label(classes=3)", rows=200)
    settings = {"warm_start": True, "epochs": 1, "learning_rate": 1e-30, "progress": False}
    run = pg.fit(story, (x, given), validation=(x, given), batch_size=200, **settings)
    epoch = run.history[-1]
    own = run.story.baseline_log_likelihood(x, given).mean().item()
    assert epoch.elbo == pytest.approx(epoch.valid_elbo + own, abs=0.2)
    assert own < -10


def test_masks_of_a_loaded_data_set_are_conditioned_on() -> None:
    data = pg.data.load("digits", binarise="redraw", mask="quadrants(seen=1)")
    story = CVAE(data.shape, "seen", 2, likelihood="bernoulli", hidden=(8,))
    run = pg.fit(story, data, epochs=1, progress=False)
    assert run.data.source == data.source
    assert run.evidence(data.test[:5], draws=10).nats.shape == (5,)


def test_grey_images_are_completed_by_the_cross_entropy_of_unseen_pixels() -> None:
    """No pixel is 0 or 1, and the law is asked to take that."""
    story = small("seen", likelihood="bernoulli(grey=True)")
    x, mask = rows_of("seen")
    grey = 0.2 + 0.6 * x
    run = untrained(story, (grey, mask))
    _, model = traces(run.story, grey, mask)
    logits = model.nodes["x"]["fn"].base_dist.base_dist.logits
    cost = binary_cross_entropy_with_logits(logits, grey, reduction="none")
    assert_close(model.nodes["x"]["log_prob"], -(cost * ~mask).sum((-3, -2, -1)))
    with pytest.raises(StoryError, match="takes 0 or 1, but 120 of 120 values lie outside"):
        untrained(small("seen", likelihood="bernoulli"), (grey, mask))


def test_a_class_with_one_example_is_a_class() -> None:
    x, labels = rows_of("label(classes=3)", rows=30)
    labels = torch.cat([torch.zeros(29).long(), torch.tensor([2])])
    run = pg.fit(small(), (x, labels), epochs=2, batch_size=10, progress=False)
    assert run.sample(2, data=(x[:2], torch.tensor([2, 0])))["x"].shape == (2, *SHAPE)
    assert run.story.condition.occurred.tolist() == [True, False, True]


def test_a_label_that_never_occurred_in_training_ends_in_a_sentence(tmp_path: Path) -> None:
    x, labels = rows_of("label(classes=3)", rows=30)
    run = pg.fit(small(), (x, labels.clamp(min=1)), epochs=1, progress=False)
    for asked in (run, pg.load(run.save(tmp_path / "run"))):
        with pytest.raises(StoryError, match=r"label 0 never occurred in training"):
            asked.evidence((x, labels), draws=3)
        assert asked.sample(2)["x"].shape == (2, *SHAPE)


def test_training_rows_with_a_label_out_of_range_are_refused_before_the_first_step() -> None:
    x, labels = rows_of("label(classes=3)", rows=400)
    labels[-1] = 3
    with pytest.raises(StoryError, match="from 0 to 2, got 3"):
        pg.fit(small(), (x, labels), epochs=1, batch_size=10, progress=False)


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_a_story_begins_at_the_mean_of_therows_of(network: str, baseline: bool) -> None:
    """With weights of no size the answer is the mean: of pixels (mlp), or of channels (conv)."""
    story = small(likelihood="bernoulli", network=network, baseline=baseline)
    x, given = rows_of("label(classes=3)", rows=30)
    for module in story.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.zeros_(module.weight)
    story.start(x, given)
    _, model = traces(story, x, given)
    mean = x.mean(0).clamp(1e-3, 1 - 1e-3)
    if network == "conv":
        mean = mean.logit().mean().sigmoid().expand(SHAPE)
    assert_close(model.nodes["x"]["fn"].mean[0], mean)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_story_is_built_again_from_its_configuration(condition: str) -> None:
    story = small(condition, baseline=True, gsnn=0.25, prior="mixture(components=3)")
    again: Any = from_configuration(story.configuration)
    assert again.configuration == story.configuration
    again.load_state_dict(story.state_dict())
    assert again.gsnn == 0.25


def test_the_same_seed_gives_the_same_bits() -> None:
    data = rows_of("seen", rows=20)
    runs = [
        pg.fit(small("seen", baseline=True, gsnn=0.1), data, epochs=2, progress=False)
        for _ in range(2)
    ]
    states = [run.story.state_dict() for run in runs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# What is given wrongly ends in one sentence.


@pytest.mark.parametrize("method", ["model", "guide", "predict_baseline"])
@pytest.mark.parametrize(
    ("condition", "x", "given", "message"),
    [
        ("seen", torch.zeros(3, 30), torch.zeros(3, 30), r"observations of shape \(1, 5, 6\)"),
        ("seen", torch.zeros(3, *SHAPE), torch.zeros(3, 5, 6), r"a mask of shape \(3, 1, 5, 6\)"),
        ("label(classes=3)", torch.zeros(3, *SHAPE), torch.zeros(3, 2), "one label for each row"),
        (
            "label(classes=3)",
            torch.zeros(3, *SHAPE),
            torch.zeros(2),
            "one condition for each of the 3 observations, got 2",
        ),
        ("vector(features=2)", torch.zeros(3, *SHAPE), torch.zeros(3, 4), r"shape \(3, 2\)"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    condition: str, x: Tensor, given: Tensor, message: str, method: str
) -> None:
    story = small(condition, baseline=True)
    with pytest.raises(StoryError, match=message):
        getattr(story, method)(x, given)


def test_data_without_a_condition_are_refused() -> None:
    for data in (torch.zeros(4, *SHAPE), Part((torch.zeros(4, *SHAPE),))):
        with pytest.raises(PplGenError, match=r"'condition'|requires 2 arguments"):
            pg.fit(small(), data, progress=False)


class _Joint(Likelihood):
    """A law whose elements depend on each other."""

    def forward(self, decoded: Tensor) -> Any:
        return dist.MultivariateNormal(self.numbers(decoded)[0], torch.eye(3))

    def start(self, x: Tensor) -> Tensor:
        return x.mean(0)[None]


def test_a_likelihood_of_dependent_elements_has_no_seen_part() -> None:
    story = small("seen", shape=(3,), likelihood=_Joint((3,), 1))
    with pytest.raises(StoryError, match="only if the likelihood is of independent elements"):
        story.model(torch.zeros(2, 3), torch.zeros(2, 3))
    plain = small("vector(features=2)", shape=(3,), likelihood=_Joint((3,), 1))
    plain.model(torch.zeros(2, 3), torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": ()}, "shape must hold at least 1"),
        ({"latent": 0}, "latent must be at least 1, got 0"),
        ({"condition": "colour"}, "condition must be one of label, vector, seen"),
        ({"condition": "label"}, "missing a required argument: 'classes'"),
        ({"prior": "daisy"}, "prior must be one of conditional, standard-normal"),
        ({"prior": StandardNormal(5)}, "as many features as the code, 8, got 5"),
        ({"likelihood": Bernoulli((2, 2))}, r"\(4,\), got \(2, 2\)"),
        ({"posterior": "fuller"}, "posterior must be one of"),
        ({"network": "lstm"}, "network must be one of mlp, conv"),
        ({"network": "conv"}, "a convolutional network takes observations"),
        ({"network": "conv", "condition": "seen"}, "an image that is halved 2 times"),
        ({"activation": "sine"}, "activation must be one of"),
        ({"gsnn": 1.0}, "gsnn must be a number from 0 to below 1, got 1.0"),
        ({"gsnn": -0.1}, "gsnn must be a number from 0 to below 1, got -0.1"),
        ({"gsnn": "some"}, "gsnn must be a number from 0 to below 1, got 'some'"),
        ({"gsnn": math.nan}, "gsnn must be a number from 0 to below 1, got nan"),
    ],
)
def test_a_story_that_cannot_be_built_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CVAE(**{"shape": (4,), "condition": "label(classes=3)", **arguments})


def test_parts_of_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="condition must be one of label, vector, seen or a part"):
        CVAE((4,), 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="network must be one of mlp, conv, got 3"):
        CVAE((4,), "seen", network=3)  # pyright: ignore[reportArgumentType]


def test_a_run_takes_its_condition_in_whatever_form_columns_have() -> None:
    x, labels = rows_of("label(classes=3)", rows=12)
    run = untrained(small(), Part((x, labels)))
    one = run.evidence((x, labels), draws=4).nats
    assert_close(run.evidence((x.numpy(), labels.numpy()), draws=4).nats, one)
    with pytest.raises(DataError, match="takes 2 columns, got 1"):
        run.evidence(x, draws=4)
