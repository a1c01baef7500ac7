"""Priors."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

from ppl_gen.posteriors import DiagonalNormal
from ppl_gen.priors import PRIORS, MixturePrior, StandardNormal, prior


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_is_one_law_of_the_whole_code(name: str) -> None:
    law = prior(name, 3)()
    assert law.batch_shape == ()
    assert law.event_shape == (3,)


@pytest.mark.parametrize("name", PRIORS)
def test_a_plate_repeats_a_prior_for_each_observation(name: str) -> None:
    with pyro.plate("draws", 5, dim=-2), pyro.plate("observations", 4):
        assert pyro.sample("z", prior(name, 3)()).shape == (5, 4, 3)


def test_the_divergence_from_the_standard_normal_has_a_closed_form() -> None:
    torch.manual_seed(0)
    law = DiagonalNormal(4, 3)(torch.randn(5, 4))
    loc, scale = law.mean, law.stddev
    expected = (loc**2 + scale**2 - 1 - 2 * scale.log()).sum(-1) / 2
    assert_close(torch.distributions.kl_divergence(law, StandardNormal(3)()), expected)


def test_a_mixture_is_the_weighted_sum_of_its_normals() -> None:
    torch.manual_seed(0)
    mixture = MixturePrior(2, components=3)
    with torch.no_grad():
        mixture.logits.copy_(torch.tensor([0.0, 1.0, -1.0]))
        mixture.log_scale.copy_(torch.randn(3, 2))
    z = torch.randn(7, 1, 2)
    scale = mixture.log_scale.exp()
    densities = torch.distributions.Normal(mixture.loc, scale).log_prob(z).sum(-1).exp()
    expected = (mixture.logits.softmax(0) * densities).sum(-1).log()
    assert_close(mixture().log_prob(z.squeeze(1)), expected)


def test_every_part_of_a_mixture_is_learned() -> None:
    mixture = MixturePrior(2, components=3)
    mixture().log_prob(torch.ones(2)).backward()
    assert all(parameter.grad is not None for parameter in mixture.parameters())
    assert {name for name, _ in mixture.named_parameters()} == {"logits", "loc", "log_scale"}


def test_the_standard_normal_saves_nothing_and_follows_its_module() -> None:
    part = StandardNormal(3)
    assert part.state_dict() == {}
    assert part.double()().sample().dtype == torch.float64


def test_a_specification_builds_a_prior_and_a_prior_passes_through() -> None:
    assert prior("mixture(components=4)", 2).arguments == {"features": 2, "components": 4}
    given = StandardNormal(2)
    assert prior(given, 2) is given


def test_a_prior_of_another_size_than_the_code_is_refused() -> None:
    with pytest.raises(ValueError, match="as many features as the code, 3, got 2"):
        prior(StandardNormal(2), 3)


def test_what_is_neither_a_name_nor_a_prior_is_refused() -> None:
    with pytest.raises(TypeError, match="prior must be one of standard-normal, mixture or a part"):
        prior(dist.Normal(0.0, 1.0), 2)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("features", [0, -1])
def test_a_code_has_at_least_one_feature(features: int) -> None:
    with pytest.raises(ValueError, match=f"features must be at least 1, got {features}"):
        StandardNormal(features)
