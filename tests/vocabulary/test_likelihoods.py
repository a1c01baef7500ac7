"""Likelihoods."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from ppl_gen.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    Poisson,
    for_support,
    likelihood,
)

SHAPES = [(6,), (2, 3), (1, 4, 2)]
SPECS = {
    "bernoulli": torch.tensor([0.0, 1.0]),
    "gaussian": torch.tensor([-3.0, 0.25]),
    "gaussian(scale='per-pixel')": torch.tensor([-3.0, 0.25]),
    "gaussian(scale=0.5)": torch.tensor([-3.0, 0.25]),
    "categorical(categories=3)": torch.tensor([0.0, 2.0]),
    "poisson": torch.tensor([0.0, 7.0]),
}


def _decoded(part: Likelihood, *leading: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(*leading, part.outputs, *part.shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("leading", [(), (4,), (5, 4)])
@pytest.mark.parametrize("spec", SPECS)
def test_one_event_is_one_observation(
    spec: str, leading: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    part = likelihood(spec, shape)
    law = part(_decoded(part, *leading))
    x = law.sample()
    assert law.batch_shape == leading
    assert law.event_shape == shape
    assert law.log_prob(x).isfinite().all()


@pytest.mark.parametrize(("spec", "values"), SPECS.items())
def test_the_values_of_the_data_are_in_the_support(spec: str, values: Tensor) -> None:
    part = likelihood(spec, (2,))
    law = part(_decoded(part, 1))
    assert law.support.check(values).all()
    assert law.log_prob(values).isfinite().all()


@pytest.mark.parametrize(
    ("spec", "value"),
    [("bernoulli", 0.5), ("categorical(categories=3)", 3.0), ("poisson", -1.0)],
)
def test_other_values_are_refused(spec: str, value: float) -> None:
    part = likelihood(spec, (1,))
    with pytest.raises(ValueError, match="support"):
        part(_decoded(part)).log_prob(torch.tensor([value]))


def test_bernoulli_is_minus_the_cross_entropy_of_the_logits() -> None:
    part = Bernoulli((2, 3))
    decoded, x = 50 * _decoded(part, 4), torch.randint(2, (4, 2, 3)).float()
    entropy = functional.binary_cross_entropy_with_logits(decoded[:, 0], x, reduction="none")
    assert_close(part(decoded).log_prob(x), -entropy.sum((-2, -1)))


def test_categorical_is_minus_the_cross_entropy_of_integers_and_of_floats() -> None:
    part = Categorical((2, 3), categories=5)
    decoded, x = _decoded(part, 4), torch.randint(5, (4, 2, 3))
    expected = -functional.cross_entropy(decoded, x, reduction="none").sum((-2, -1))
    assert_close(part(decoded).log_prob(x), expected)
    assert_close(part(decoded).log_prob(x.float()), expected)


def test_poisson_has_the_softplus_as_its_rate() -> None:
    part = Poisson((2, 3))
    decoded, x = _decoded(part, 4), torch.randint(9, (4, 2, 3)).float()
    rate = functional.softplus(decoded[:, 0])
    expected = x * rate.log() - rate - (x + 1).lgamma()
    assert_close(part(decoded).log_prob(x), expected.sum((-2, -1)))


def test_poisson_scores_a_count_where_the_rate_underflows() -> None:
    law = Poisson((1,))(torch.tensor([[-1000.0]]))
    assert law.log_prob(torch.tensor([2.0])).isfinite()


def test_a_fixed_scale_gives_the_squared_error_and_a_constant() -> None:
    part = Gaussian((2, 3), scale=0.5)
    decoded, x = _decoded(part, 4), torch.randn(4, 2, 3)
    error = (x - decoded[:, 0]).square().sum((-2, -1))
    constant = 6 * torch.tensor(0.5 * (2 * torch.pi) ** 0.5).log()
    assert_close(part(decoded).log_prob(x), -error / (2 * 0.5**2) - constant)
    assert list(part.parameters()) == []


def test_a_learned_scale_is_one_parameter_for_all_elements() -> None:
    part = Gaussian((2, 3), floor=0.1)
    (parameter,) = part.parameters()
    law = part(_decoded(part, 4))
    assert parameter.shape == ()
    expected = 0.1 + functional.softplus(torch.tensor(0.0))
    assert_close(law.stddev, expected.expand(4, 2, 3))
    law.log_prob(torch.zeros(2, 3)).sum().backward()
    assert parameter.grad is not None


def test_a_scale_per_pixel_comes_from_the_decoder() -> None:
    part = Gaussian((2, 3), scale="per-pixel", floor=0.1)
    decoded = _decoded(part, 4)
    law = part(decoded)
    assert_close(law.mean, decoded[:, 0])
    assert_close(law.stddev, 0.1 + functional.softplus(decoded[:, 1]))


@pytest.mark.parametrize("scale", ["learned", "per-pixel"])
def test_a_learned_scale_never_falls_below_the_floor(scale: str) -> None:
    """Wherever the optimiser drives it, a constant pixel earns a bounded likelihood."""
    part = Gaussian((1,), scale, floor=0.05)
    decoded = torch.full((part.outputs, 1), -1e4)
    for parameter in part.parameters():
        parameter.data.fill_(-1e4)
    law = part(decoded)
    assert_close(law.stddev, torch.tensor([0.05]))
    bound = torch.distributions.Normal(0, 0.05).log_prob(torch.tensor(0.0))
    assert_close(law.log_prob(torch.tensor([-1e4])), bound)


@pytest.mark.parametrize(
    "arguments",
    [{"scale": 0.0}, {"scale": -1}, {"scale": "small"}, {"scale": float("nan")}, {"floor": 0.0}],
)
def test_a_scale_that_is_not_positive_is_refused(arguments: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match=r"must be (a )?positive"):
        Gaussian((2,), **arguments)  # pyright: ignore[reportArgumentType]


def test_a_single_category_is_refused() -> None:
    with pytest.raises(ValueError, match="categories must be at least 2, got 1"):
        Categorical((2,), categories=1)


def test_a_decoded_tensor_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decoded must end in the shape \(1, 6\), got \(4, 6\)"):
        Bernoulli((6,))(torch.zeros(4, 6))


def test_a_likelihood_passes_through_if_its_shape_agrees() -> None:
    given = Bernoulli((6,))
    assert likelihood(given, [6]) is given
    with pytest.raises(ValueError, match=r"shape of an observation, \(2, 3\), got \(6,\)"):
        likelihood(given, (2, 3))


@pytest.mark.parametrize(
    ("support", "name"),
    [
        ("binary", "bernoulli"),
        ("unit interval", "gaussian"),
        ("real", "gaussian"),
        ("counts", "poisson"),
        ("categories", "categorical"),
    ],
)
def test_every_support_has_a_likelihood(support: str, name: str) -> None:
    assert type(likelihood(for_support(support, 7), (2,))) is LIKELIHOODS[name]


def test_categories_keep_their_number() -> None:
    assert for_support("categories", 7) == "categorical(categories=7)"
    with pytest.raises(ValueError, match="categories must be given"):
        for_support("categories", None)


def test_an_unknown_support_is_refused() -> None:
    with pytest.raises(ValueError, match=r"support must be one of binary, .*, got 'colours'"):
        for_support("colours", None)
