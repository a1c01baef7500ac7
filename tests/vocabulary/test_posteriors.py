"""Posteriors."""

import re

import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close

from ppl_gen.posteriors import (
    POSTERIORS,
    DiagonalNormal,
    FullNormal,
    Point,
    Posterior,
    posterior,
)
from ppl_gen.priors import prior
from ppl_gen.testing import check_density

# A prior of each support, by which heads it has.
PRIORS_OF = {
    "standard-normal": ("diagonal", "full", "flow", "point"),
    "gamma": ("diagonal", "full", "flow", "point"),
    "uniform(low=-2.0, high=0.5)": ("diagonal", "full", "flow", "point"),
    "stick-breaking": ("diagonal", "full", "flow", "point", "kumaraswamy"),
    "sphere": ("power-spherical",),
    "one-hot": ("categorical", "straight-through"),
    "categorical(categories=3)": ("categorical",),
    "bernoulli": ("bernoulli", "straight-through"),
    "product(parts=('one-hot(features=2)', 'gamma'))": ("auto", "full"),
}
heads_of = pytest.mark.parametrize(
    ("spec", "name"), [(spec, name) for spec, names in PRIORS_OF.items() for name in names]
)


def head(spec: str, name: str, features: int = 3, inputs: int = 6) -> Posterior:
    """A head for a prior, with weights that are not those of the start."""
    part = posterior(name, inputs, features, prior(spec, features).support)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter += 0.3 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    return part


@pytest.mark.parametrize("features", [3, 5])
@pytest.mark.parametrize("leading", [(), (4,), (5, 4)])
@heads_of
def test_one_event_is_one_code(
    spec: str, name: str, leading: tuple[int, ...], features: int
) -> None:
    part = head(spec, name, features)
    law = part(torch.randn(*leading, 6))
    assert law.batch_shape == leading
    assert law.event_shape == (features,)
    assert law.has_rsample or part.infer == {"enumerate": "parallel"}
    wider = law.expand(torch.Size((2, *leading)))
    assert wider.log_prob(wider.sample()).shape == (2, *leading)


def test_every_head_is_tried_with_a_prior() -> None:
    assert {name for names in PRIORS_OF.values() for name in names} == {*POSTERIORS, "auto"}


@pytest.mark.parametrize("name", ["diagonal", "full"])
def test_every_scale_starts_at_one_without_correlation(name: str) -> None:
    law = posterior(name, 6, 3)(100 * torch.randn(4, 6))
    draws = torch.randn(4, 3)
    expected = torch.distributions.Normal(law.mean, 1 + 1e-4).log_prob(draws).sum(-1)
    assert_close(law.log_prob(draws), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["diagonal", "full"])
@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_a_scale_stays_positive_and_finite_wherever_it_is_driven(name: str, size: float) -> None:
    part = posterior(name, 6, 3)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.fill_(size)
    law = part(torch.ones(6))
    assert (law.variance > 0).all()
    assert law.log_prob(law.rsample()).isfinite()


def test_the_full_normal_has_the_covariance_of_its_factor() -> None:
    torch.manual_seed(0)
    part = FullNormal(6, 3)
    torch.nn.init.normal_(part.raw_tril.weight)
    law = part(torch.randn(4, 6))
    factor = law.scale_tril
    assert_close(law.covariance_matrix, factor @ factor.mT)
    assert_close(factor, factor.tril())
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()


@heads_of
def test_every_weight_of_a_posterior_is_learned(spec: str, name: str) -> None:
    part = head(spec, name)
    law = part(torch.randn(4, 6))
    z = law.rsample() if law.has_rsample else law.sample()
    (law.log_prob(z.detach()) + (z * torch.arange(3)).sum(-1)).sum().backward()
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@heads_of
def test_gradients_of_a_head_are_those_of_its_density(spec: str, name: str) -> None:
    """Against finite differences, of all its weights; and of its draws where they have one."""
    if name == "point":
        return
    part = head(spec, name).double()
    hidden = torch.randn(6, dtype=torch.double)
    z = part(hidden).sample(torch.Size((5,)))
    weights = dict(part.named_parameters())

    def log_density(*values: torch.Tensor) -> torch.Tensor:
        given = dict(zip(weights, values, strict=True))
        return functional_call(part, given, (hidden,)).log_prob(z)

    def drawn(*values: torch.Tensor) -> torch.Tensor:
        given = dict(zip(weights, values, strict=True))
        torch.manual_seed(3)
        return functional_call(part, given, (hidden,)).rsample(torch.Size((5,)))

    inputs = tuple(value.detach().clone().requires_grad_() for value in weights.values())
    assert torch.autograd.gradcheck(log_density, inputs, atol=1e-4, rtol=1e-3, fast_mode=True)
    # What is drawn by rejection, and what is rounded to 0 or 1, has no slope to compare with.
    smooth = name in ("diagonal", "full", "flow", "kumaraswamy")
    if smooth and not spec.startswith("product"):
        assert torch.autograd.gradcheck(drawn, inputs, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_a_point_draws_always_the_same_code() -> None:
    part = Point(6, 3)
    hidden = torch.randn(4, 6)
    law = part(hidden)
    assert_close(law.rsample((2,)), part.loc(hidden).expand(2, 4, 3))
    assert_close(law.log_prob(part.loc(hidden)), torch.zeros(4))


def test_an_unknown_posterior_is_refused() -> None:
    with pytest.raises(ValueError, match="posterior must be one of diagonal, full, flow, point"):
        posterior("fuller", 6, 3)


@pytest.mark.parametrize(
    ("spec", "name", "message"),
    [
        ("sphere", "full", "'full' gives real numbers, but the prior has directions"),
        ("standard-normal", "categorical", "'categorical' gives one of several, but the prior"),
        ("one-hot", "bernoulli", "'bernoulli' gives 0 or 1, but the prior has one of several"),
        ("gamma", "kumaraswamy", "'kumaraswamy' gives shares of a whole, but the prior has"),
        ("product(parts=('sphere', 'one-hot(features=3)'))", "full", "'full' gives real numbers"),
        ("categorical(categories=9)", "auto", "at most 256, got 9**6"),
    ],
)
def test_a_head_of_another_support_is_refused_with_both_named(
    spec: str, name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        posterior(name, 4, 6, prior(spec, 6).support)


def test_many_bits_are_drawn_and_few_are_summed_over() -> None:
    assert posterior("auto", 4, 8, prior("bernoulli", 8).support).infer
    assert not posterior("auto", 4, 9, prior("bernoulli", 9).support).infer


@pytest.mark.parametrize(("spec", "values"), [("bernoulli", 8), ("categorical(categories=3)", 27)])
def test_all_values_of_a_code_are_summed_over_once(spec: str, values: int) -> None:
    law = head(spec, "auto")(torch.randn(4, 6))
    every = law.enumerate_support()
    assert every.shape == (values, 4, 3)
    assert len(every[:, 0].unique(dim=0)) == values
    assert_close(law.log_prob(every).exp().sum(0), torch.ones(4))
    assert law.enumerate_support(expand=False).shape == (values, 1, 3)


@pytest.mark.parametrize("features", [2, 3, 10])
def test_the_divergence_of_directions_has_a_closed_form(features: int) -> None:
    law = head("sphere", "auto", features)(torch.randn(6))
    uniform = prior("sphere", features)()
    z = law.sample(torch.Size((100_000,)))
    terms = law.log_prob(z) - uniform.log_prob(z)
    exact = torch.distributions.kl_divergence(law, uniform)
    assert (terms.mean() - exact).abs() < 5 * terms.std() / len(z) ** 0.5
    assert_close(z.mean(0), law.mean, rtol=0, atol=0.02)


def test_draws_of_directions_have_the_gradient_of_their_mean() -> None:
    """Of the mean of a linear function, both ways of taking it."""
    part = head("sphere", "auto").double()
    law = part(torch.ones(6, dtype=torch.double))
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.double)
    parameters = list(part.parameters())
    exact = torch.autograd.grad((law.mean * weights).sum(), parameters)
    draws = [
        torch.autograd.grad(
            (part(torch.ones(6, dtype=torch.double)).rsample(torch.Size((20_000,))) * weights)
            .sum(-1)
            .mean(),
            parameters,
        )
        for _ in range(20)
    ]
    for number, gradient in enumerate(exact):
        drawn = torch.stack([d[number] for d in draws])
        error = drawn.std(0) / len(drawn) ** 0.5
        assert ((drawn.mean(0) - gradient).abs() <= 6 * error + 1e-9).all()


@pytest.mark.parametrize(("inputs", "features"), [(0, 3), (6, 0)])
def test_a_size_below_one_is_refused(inputs: int, features: int) -> None:
    with pytest.raises(ValueError, match=r"(inputs|features) must be at least 1, got 0"):
        DiagonalNormal(inputs, features)


SUPPORTED = ["uniform(low=-2.0, high=0.5)", "beta", "gamma", "dirichlet", "stick-breaking"]
covered = [(s, n) for s, names in PRIORS_OF.items() for n in names if n not in ("point", "auto")]


@pytest.mark.parametrize(("spec", "name"), [*covered, ("sphere", "auto")])
def test_a_head_covers_the_support_of_the_prior(spec: str, name: str) -> None:
    """It scores what it draws there."""
    support = prior(spec, 3).support
    part = head(spec, name)
    law = part(torch.randn(6))
    z = law.rsample(torch.Size((1000,))) if law.has_rsample else law.sample(torch.Size((1000,)))
    assert support.check(z).all()
    assert z.requires_grad or part.infer
    check_density(law, support)


@pytest.mark.parametrize("spec", SUPPORTED)
def test_far_out_a_head_still_scores_its_draws(spec: str) -> None:
    support = prior(spec, 3).support
    part = posterior("diagonal", 6, 3, support)
    for size in (-30.0, 30.0):
        torch.nn.init.constant_(part.law.loc.bias, size)
        law = part(torch.zeros(6))
        z = law.rsample(torch.Size((100,)))
        assert law.log_prob(z).isfinite().all()
        assert prior(spec, 3)().log_prob(z).isfinite().all()


@pytest.mark.parametrize("spec", SUPPORTED)
def test_a_point_lies_in_the_support(spec: str) -> None:
    support = prior(spec, 3).support
    law = posterior("point", 6, 3, support)(torch.randn(4, 6))
    assert support.check(law.rsample()).all()
    assert_close(law.log_prob(law.rsample()), torch.zeros(4))


def test_a_support_that_no_head_covers_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="must have the support of the prior, but none has square"):
        posterior("diagonal", 6, 3, torch.distributions.constraints.square)
