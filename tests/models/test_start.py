"""Before the first step a story gives the mean of its data, whatever the code."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.models import PPCA, VAE, AutoEncoder

GENERATOR = torch.Generator().manual_seed(0)
RATE = torch.rand(1, 6, 6, generator=GENERATOR)
DATA = {
    "bernoulli": torch.bernoulli(RATE.expand(4000, -1, -1, -1), generator=GENERATOR),
    "gaussian": 5 + 3 * torch.randn(4000, 1, 6, 6, generator=GENERATOR),
    "gaussian(scale='per-pixel')": 5 + 3 * torch.randn(4000, 1, 6, 6, generator=GENERATOR),
    "poisson": torch.poisson(9 * RATE.expand(4000, -1, -1, -1), generator=GENERATOR),
}


def law_at_the_start(story: VAE | AutoEncoder, x: Tensor) -> torch.distributions.Distribution:
    """The law of an observation whose code says nothing."""
    story.start(x)
    return story.likelihood(story.decoder(torch.zeros(1, 2)))


@pytest.mark.parametrize("likelihood", list(DATA))
@pytest.mark.parametrize("cls", [VAE, AutoEncoder])
def test_the_first_law_has_the_mean_of_the_data(cls: type[VAE], likelihood: str) -> None:
    x = DATA[likelihood]
    story = cls((1, 6, 6), latent=2, likelihood=likelihood)

    assert_close(law_at_the_start(story, x).mean[0], x.mean(0), rtol=0.01, atol=0.01)


def test_a_convolution_starts_at_the_mean_of_each_channel() -> None:
    x = DATA["gaussian"]
    story = VAE((1, 6, 6), latent=2, network="conv", hidden=(4,))
    before = story.decoder(torch.zeros(1, 2)).mean()

    after = law_at_the_start(story, x).mean.mean()

    assert abs(after - x.mean()) < abs(before - x.mean()) / 10


def test_a_learned_scale_starts_at_the_spread_of_the_data() -> None:
    law = law_at_the_start(VAE((1, 6, 6), latent=2), DATA["gaussian"])

    assert law.variance.sqrt().mean().item() == pytest.approx(3.0, rel=0.02)


def test_categories_start_at_their_shares() -> None:
    x = torch.randint(3, (5000, 4), generator=GENERATOR) // 2
    story = VAE((4,), latent=2, likelihood="categorical(categories=3)")
    story.start(x)

    law = story.likelihood(story.decoder(torch.zeros(1, 2)))

    shares = law.base_dist.probs[0].mean(0)  # type: ignore[attr-defined]
    assert_close(shares, torch.tensor([2 / 3, 1 / 3, 0.0]), atol=0.02, rtol=0)


def test_ppca_starts_at_mean_and_spread() -> None:
    x = DATA["gaussian"].flatten(1)
    story = PPCA((36,))
    story.start(x)

    assert_close(story.loc.detach(), x.mean(0))
    assert story.log_scale.exp().item() == pytest.approx(3.0, rel=0.02)


def test_fit_starts_a_story_unless_the_start_is_warm() -> None:
    x = DATA["gaussian"]
    options = {"epochs": 1, "learning_rate": 1e-12, "progress": False}
    story = VAE((1, 6, 6), latent=2)

    cold = pg.fit(story, x, **options).story
    warm = pg.fit(story, x, warm_start=True, **options).story

    assert cold.likelihood.raw_scale.item() > 2
    assert_close(warm.likelihood.raw_scale, story.likelihood.raw_scale, rtol=0, atol=1e-6)
