"""Posteriors."""

import pytest
import torch
from torch.testing import assert_close

from ppl_gen.posteriors import POSTERIORS, DiagonalNormal, FullNormal, Point, posterior
from ppl_gen.priors import prior
from ppl_gen.testing import check_density


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("leading", [(), (4,), (5, 4)])
@pytest.mark.parametrize("name", POSTERIORS)
def test_one_event_is_one_code(name: str, leading: tuple[int, ...], features: int) -> None:
    law = posterior(name, 6, features)(torch.randn(*leading, 6))
    assert law.batch_shape == leading
    assert law.event_shape == (features,)
    assert law.has_rsample


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


@pytest.mark.parametrize("name", POSTERIORS)
def test_every_weight_of_a_posterior_is_learned(name: str) -> None:
    torch.manual_seed(0)
    part = posterior(name, 6, 3)
    law = part(torch.randn(4, 6))
    z = law.rsample()
    (law.log_prob(z.detach()) + z.sum(-1)).sum().backward()
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_a_point_draws_always_the_same_code() -> None:
    part = Point(6, 3)
    hidden = torch.randn(4, 6)
    law = part(hidden)
    assert_close(law.rsample((2,)), part.loc(hidden).expand(2, 4, 3))
    assert_close(law.log_prob(part.loc(hidden)), torch.zeros(4))


def test_an_unknown_posterior_is_refused() -> None:
    with pytest.raises(ValueError, match="posterior must be one of diagonal, full, point"):
        posterior("flow", 6, 3)


@pytest.mark.parametrize(("inputs", "features"), [(0, 3), (6, 0)])
def test_a_size_below_one_is_refused(inputs: int, features: int) -> None:
    with pytest.raises(ValueError, match=r"(inputs|features) must be at least 1, got 0"):
        DiagonalNormal(inputs, features)


SUPPORTED = ["uniform(low=-2.0, high=0.5)", "beta", "gamma", "dirichlet", "stick-breaking"]


@pytest.mark.parametrize("name", ["diagonal", "full"])
@pytest.mark.parametrize("spec", ["standard-normal", *SUPPORTED])
def test_a_head_covers_the_support_of_the_prior(spec: str, name: str) -> None:
    """It scores what it draws there."""
    support = prior(spec, 3).support
    law = posterior(name, 6, 3, support)(torch.randn(6))
    assert law.event_shape == (3,)
    z = law.rsample(torch.Size((1000,)))
    assert support.check(z).all()
    assert z.requires_grad
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
    with pytest.raises(ValueError, match="must have the support of the prior, but none has"):
        posterior("diagonal", 6, 3, torch.distributions.constraints.boolean)
