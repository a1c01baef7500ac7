"""Conditions, and the parts that conditional stories are made of."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from ppl_gen.component import from_configuration
from ppl_gen.conditions import CONDITIONS, Condition, JointEncoder, Label, Seen, Vector, condition
from ppl_gen.errors import StoryError
from ppl_gen.likelihoods import LIKELIHOODS, Bernoulli, Categorical, Completed, completed
from ppl_gen.likelihoods import likelihood as likelihood_of

SHAPE = (2, 4, 3)
X = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))
COLUMNS: dict[str, tuple[str, Tensor]] = {
    "label": ("label(classes=4)", torch.tensor([0, 3, 1, 1, 0])),
    "labels as real numbers": ("label(classes=4)", torch.tensor([[0.0], [3.0], [1.0], [1], [0]])),
    "vector": ("vector(features=3)", torch.arange(15.0).reshape(5, 3)),
    "one number": ("vector(features=1)", torch.arange(5)),
    "seen": ("seen", X > 0.5),
    "seen as numbers": ("seen", (X > 0.5).long()),
}


@pytest.fixture(params=COLUMNS)
def pair(request: pytest.FixtureRequest) -> tuple[Condition, Tensor]:
    """A condition, and a column of five rows that it takes."""
    spec, column = COLUMNS[request.param]
    return condition(spec, SHAPE).eval(), column


def test_every_condition_is_in_the_table() -> None:
    assert set(CONDITIONS) == {spec.partition("(")[0] for spec, _ in COLUMNS.values()}


def test_one_row_gives_numbers_of_the_stated_shape(pair: tuple[Condition, Tensor]) -> None:
    part, column = pair
    numbers = part(X, column)
    assert numbers.shape == (5, *part.shape)
    assert numbers.dtype is X.dtype
    assert part.features == math.prod(part.shape)
    assert_close(part(X[2:4], column[2:4]), numbers[2:4])


def test_a_condition_is_built_again_from_its_configuration(pair: tuple[Condition, Tensor]) -> None:
    part, column = pair
    again: Any = from_configuration(part.configuration)
    assert type(again) is type(part)
    assert_close(again.eval()(X, column), part(X, column))
    assert part.rebuild().shape == part.shape


def test_a_label_is_one_among_zeros() -> None:
    column = torch.tensor([0, 3, 1, 1, 0])
    assert_close(Label(4).eval()(X, column), functional.one_hot(column, 4).float())


def test_the_seen_part_stands_before_its_mask_and_shows_nothing_else() -> None:
    mask = X > 0.5
    numbers = Seen(SHAPE).eval()(X, mask)
    assert_close(numbers[:, :2], X * mask)
    assert_close(numbers[:, 2:], mask.float())
    changed = torch.where(mask, X, 7.0)
    assert_close(Seen(SHAPE).eval()(changed, mask), numbers)
    assert torch.equal(Seen(SHAPE).unseen(X, mask), ~mask)


@pytest.mark.parametrize("shape", [(6,), (4, 3), (2, 2, 2, 2)])
def test_any_shape_can_be_seen(shape: tuple[int, ...]) -> None:
    part, x = Seen(shape).eval(), torch.rand(5, *shape)
    assert part(x, x > 0.5).shape == (5, 2, *shape)


def test_a_label_that_never_occurred_in_training_is_refused_by_name() -> None:
    part = Label(4)
    part(X, torch.tensor([0, 3, 1, 1, 0]))
    part.eval()
    part(X, torch.tensor([3, 3, 1, 0, 1]))
    with pytest.raises(StoryError, match=r"label 2 never occurred in training.* in 2 of 5 rows"):
        part(X, torch.tensor([0, 2, 2, 1, 0]))


def test_before_any_training_every_label_may_be_asked_for() -> None:
    assert Label(4).eval()(X, torch.tensor([0, 1, 2, 3, 0])).sum() == 5


def test_a_blank_batch_passes_though_label_0_never_occurred() -> None:
    """Programs are run on zeros of the right form, to draw from or to find their parameters."""
    part = Label(4)
    part(X, torch.tensor([1, 3, 1, 1, 2]))
    part.eval()
    zeros = torch.zeros(5, dtype=torch.long)
    assert_close(part(torch.zeros_like(X), zeros)[:, 0], torch.ones(5))
    with pytest.raises(StoryError, match="label 0 never occurred"):
        part(X, zeros)


def test_a_story_on_disk_knows_which_labels_occurred() -> None:
    assert list(Label(4).state_dict()) == ["occurred"]


NAN = torch.full((5, 3), torch.nan)


@pytest.mark.parametrize(
    ("spec", "column", "message"),
    [
        ("label(classes=4)", torch.arange(5), "from 0 to 3, got 4 .in 1 of 5 rows.: number"),
        ("label(classes=4)", torch.full((5,), -1), "from 0 to 3, got -1 .in 5 of 5 rows"),
        ("label(classes=4)", torch.full((5,), 0.5), "from 0 to 3, got 0.5"),
        ("label(classes=4)", torch.zeros(5, 2), r"one label for each row, shape \(5,\), got"),
        ("label(classes=4)", torch.zeros(4), r"one label for each row, shape \(5,\), got \(4,\)"),
        ("vector(features=3)", torch.zeros(5, 2), r"must have shape \(5, 3\), .* got \(5, 2\)"),
        ("vector(features=3)", torch.zeros(5), r"must have shape \(5, 3\), .* got \(5,\)"),
        ("vector(features=3)", NAN, "the condition must be finite, got 15 values"),
        ("seen", torch.zeros(5, 4, 3), r"a mask of shape \(5, 2, 4, 3\), .* got \(5, 4, 3\)"),
        ("seen", torch.full(X.shape, 0.5), "True and False, or 1 and 0, got 0.5"),
    ],
)
def test_a_column_that_cannot_be_conditioned_on_is_refused(
    spec: str, column: Tensor, message: str
) -> None:
    with pytest.raises(StoryError, match=message):
        condition(spec, SHAPE).eval()(X, column)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("colour", ValueError, "condition must be one of label, vector, seen, got 'colour'"),
        ("label", ValueError, "missing a required argument: 'classes'"),
        ("label(classes=1)", ValueError, "classes must be at least 2, got 1"),
        ("vector(features=0)", ValueError, "features must be at least 1, got 0"),
        ("seen(part=1)", ValueError, "unexpected keyword argument 'part'"),
        (3, TypeError, "condition must be one of label, vector, seen or a part, got 3"),
        (Seen((4, 3)), ValueError, r"shape of an observation, \(2, 4, 3\), got \(4, 3\)"),
    ],
)
def test_a_condition_that_cannot_be_built_is_refused(
    spec: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        condition(spec, SHAPE)


def test_a_given_condition_passes_through() -> None:
    given = Vector(3)
    assert condition(given, SHAPE) is given


# What is seen of an observation is known: a law of the rest.

SPECS = {**dict.fromkeys(LIKELIHOODS), "categorical": "categorical(categories=2)"}


@pytest.mark.parametrize("draws", [(), (6,)])
@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "categorical", "poisson"])
def test_a_completed_law_scores_and_draws_what_is_unknown(
    name: str, draws: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    part = likelihood_of(SPECS[name] or name, (2, 3))
    x, unknown = torch.randint(2, (4, 2, 3)).float(), torch.rand(4, 2, 3) < 0.5
    law: Any = part(torch.randn(*draws, 4, part.outputs, 2, 3))
    whole: Any = completed(law, unknown, x)
    expected = torch.where(unknown, law.base_dist.log_prob(x), 0.0).sum((-2, -1))
    assert_close(whole.log_prob(x), expected)
    assert whole.log_prob(x).shape == (*draws, 4)
    drawn = whole.sample()
    assert drawn.shape == (*draws, 4, 2, 3)
    assert torch.equal(drawn[..., ~unknown], x[~unknown].expand(*draws, -1))
    if name != "categorical":  # which has no mean
        assert_close(whole.mean, torch.where(unknown, law.mean, x))
        assert_close(whole.variance, law.variance * unknown)
    wide = whole.expand([3, *whole.batch_shape])
    assert_close(wide.log_prob(x), expected.expand(3, *expected.shape))
    assert isinstance(wide.base_dist, Completed)


def test_a_law_of_elements_that_depend_on_each_other_cannot_be_completed() -> None:
    law: Any = torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3))
    with pytest.raises(ValueError, match="independent elements, got MultivariateNormal"):
        completed(law, torch.ones(3, dtype=torch.bool), torch.zeros(3))


def test_grey_values_are_scored_as_the_mean_over_their_binarisations() -> None:
    """E[log p(b)] for b ~ Bernoulli(x), summed over all eight images b of three pixels."""
    part = Bernoulli((3,), grey=True)
    decoded, x = torch.tensor([[-1.0, 0.5, 2.0]]), torch.tensor([0.25, 0.5, 1.0])
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    weights = torch.where(images == 1, x, 1 - x).prod(-1)
    exact = (weights * Bernoulli((3,))(decoded).log_prob(images)).sum()
    assert_close(part(decoded).log_prob(x), exact)


def test_grey_values_are_refused_unless_asked_for() -> None:
    with pytest.raises(ValueError, match="support"):
        Bernoulli((1,))(torch.zeros(1, 1)).log_prob(torch.tensor([0.5]))
    with pytest.raises(ValueError, match="grey must be True or False, got 1"):
        likelihood_of("bernoulli(grey=1)", (1,))


def test_the_expected_category_is_the_mean_of_the_numbers() -> None:
    part = Categorical((2,), categories=3)
    decoded = torch.tensor([[0.0, 9.0], [0.0, -99.0], [0.0, -99.0]])
    assert_close(part.mean(decoded), torch.tensor([1.0, 0.0]))


def test_the_mean_of_a_likelihood_is_that_of_its_law() -> None:
    part = likelihood_of("gaussian", (2, 3))
    decoded = torch.randn(4, 1, 2, 3)
    assert_close(part.mean(decoded), part(decoded).mean)


# Networks that read several tensors side by side.


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("shapes", [[(3, 8, 8), (5,)], [(8, 8), (2, 8, 8)], [(5,)], [(4,), (2,)]])
def test_every_tensor_that_is_read_together_changes_the_features(
    network: str, shapes: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    part = JointEncoder(network, shapes, (6,), "tanh")
    tensors = [torch.randn(7, *shape) for shape in shapes]
    features = part(*tensors)
    assert features.shape == (7, part.width)
    for i, tensor in enumerate(tensors):
        changed = part(*tensors[:i], tensor + 1, *tensors[i + 1 :])
        assert ((changed - features).abs().amax(1) > 1e-4).all()


def test_a_linear_network_reads_them_one_after_the_other() -> None:
    part = JointEncoder("mlp", [(2, 2), (3,)], ())
    first, second = torch.randn(5, 2, 2), torch.randn(5, 3)
    assert_close(part(first, second), torch.cat([first.flatten(1), second], 1))


def test_a_network_must_be_named() -> None:
    with pytest.raises(TypeError, match="network must be one of mlp, conv, got 3"):
        JointEncoder(3, [(2,)])  # pyright: ignore[reportArgumentType]
