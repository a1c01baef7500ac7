"""Importance weights give the evidence where it is known, and distrust where they should."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Normal
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.inference.estimators.evidence import khat_threshold, log_evidence, pareto_khat
from ppl_gen.inference.passes import plan
from ppl_gen.inference.sampler import Sampler
from ppl_gen.models import PPCA, VAE


@pytest.mark.parametrize("draws", [1, 7, 100])
def test_the_exact_posterior_gives_the_exact_evidence(draws: int) -> None:
    """When q(z | x) = p(z | x), every weight is p(x): nothing is left to chance."""
    x = torch.linspace(-3, 3, 5)
    posterior = Normal(x / 2, math.sqrt(1 / 2))  # of z ~ N(0, 1), x ~ N(z, 1)
    z = posterior.sample(torch.Size((draws,)))
    joint = Normal(0, 1).log_prob(z) + Normal(z, 1).log_prob(x)

    found = log_evidence(joint - posterior.log_prob(z))

    exact = Normal(0, math.sqrt(2)).log_prob(x)
    assert_close(found.nats, exact.double(), rtol=1e-5, atol=1e-5)
    assert_close(found.ess, torch.full_like(x, draws).double(), rtol=1e-4, atol=0)
    assert_close(found.gap, torch.zeros(5).double(), rtol=0, atol=1e-5)


def test_a_wrong_guide_brackets_the_evidence_within_its_error() -> None:
    """Over 200 data, the standardised errors have mean 0 and deviation 1, as their error says."""
    torch.manual_seed(0)
    x = torch.linspace(-2, 2, 200)
    guide = Normal(x / 2 + 0.1, 0.9)
    z = guide.sample(torch.Size((4000,)))
    weights = Normal(0, 1).log_prob(z) + Normal(z, 1).log_prob(x) - guide.log_prob(z)

    found = log_evidence(weights)

    score = (found.nats - Normal(0, math.sqrt(2)).log_prob(x)) / found.error
    assert abs(score.mean().item()) < 5 / math.sqrt(200)
    assert score.std().item() == pytest.approx(1.0, abs=0.25)


def test_the_gap_is_the_divergence_of_the_guide() -> None:
    """For two normals KL(q || p) is known."""
    torch.manual_seed(0)
    x = torch.zeros(50)
    guide, posterior = Normal(0.3, 0.6), Normal(0.0, math.sqrt(1 / 2))
    z = guide.sample(torch.Size((5000, 50)))
    weights = Normal(0, 1).log_prob(z) + Normal(z, 1).log_prob(x) - guide.log_prob(z)

    exact = torch.distributions.kl_divergence(guide, posterior).item()

    assert log_evidence(weights).gap.mean().item() == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("shape", [0.2, 0.6, 1.0])
def test_khat_finds_the_tail_it_was_given(shape: float) -> None:
    """Weights drawn from a generalised Pareto law of known shape."""
    weights = stats.genpareto.rvs(shape, size=(4000, 20), random_state=0)

    khat = pareto_khat(torch.as_tensor(weights).log())

    assert khat.mean().item() == pytest.approx(shape, abs=0.1)


def test_equal_weights_have_no_tail_and_few_draws_have_no_khat() -> None:
    assert pareto_khat(torch.zeros(100, 2)).tolist() == [-math.inf, -math.inf]
    assert pareto_khat(torch.randn(10, 2)).isnan().all()


def test_the_threshold_is_that_of_the_paper() -> None:
    assert khat_threshold(100) == pytest.approx(0.5)
    assert khat_threshold(10_000) == 0.7


@pytest.mark.parametrize("weights", [torch.zeros(3), torch.zeros(0, 2)])
def test_weights_of_another_shape_are_refused(weights: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"must have shape \(S, N\)"):
        log_evidence(weights)


def test_nan_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be NaN, got 1 NaN"):
        log_evidence(torch.tensor([[0.0, math.nan]]))


@pytest.fixture(scope="module")
def ppca() -> tuple[pg.Run, torch.Tensor]:
    """A PPCA story away from its optimum, so that its guide is not exact."""
    torch.manual_seed(0)
    x = torch.randn(60, 2) @ torch.randn(2, 4) + 0.5 * torch.randn(60, 4)
    run = pg.fit(PPCA((4,)), x, epochs=150, learning_rate=0.03, progress=False)
    return run, x


def test_the_evidence_of_a_run_brackets_the_closed_form(
    ppca: tuple[pg.Run, torch.Tensor],
) -> None:
    run, x = ppca
    found = run.evidence(x, draws=2000)
    exact = run.story.log_evidence(x)

    assert found.elbo.mean() < exact.mean()
    assert abs(found.mean - exact.mean().item()) < 4 * found.mean_error + 1e-4
    assert ((found.nats - exact).abs() < 6 * found.error + 1e-3).all()


def test_memory_bounds_the_pass_and_leaves_the_figures(
    ppca: tuple[pg.Run, torch.Tensor],
) -> None:
    """Cut into many small passes, the estimate stays within its error."""
    run, x = ppca
    with run.pair.active():
        sampler = Sampler(run.pair, run.structure, {})
        small = plan(sampler, (x,), 500, 2**14, predict=False)
        large = plan(sampler, (x,), 500, 2**26, predict=False)
    cut = run.evidence(x, draws=500, memory=2**14)
    whole = run.evidence(x, draws=500)

    assert small[0] * small[1] < large[0] * large[1]
    assert abs(cut.mean - whole.mean) < 5 * math.hypot(cut.mean_error, whole.mean_error)


def test_draws_at_once_weigh_as_draws_alone() -> None:
    """A program that cannot bear a plate of draws is run draw by draw, to the same figures."""
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    run = pg.fit(VAE((6,), latent=2, hidden=(8,)), x, epochs=3, progress=False)
    with run.pair.active():
        together, alone = (Sampler(run.pair, run.structure, {}) for _ in range(2))
        alone.at_once = False
        fast, slow = together.draw((x,), 400), alone.draw((x,), 400)

    assert together.at_once
    for one, other in ((fast, slow),):
        assert one.log_weights.shape == other.log_weights.shape == (400, 40)
        difference = one.log_weights.logsumexp(0).mean() - other.log_weights.logsumexp(0).mean()
        assert abs(difference.item()) < 0.1


def test_weights_whose_largest_are_equal_have_no_tail() -> None:
    """A discrete guide draws its best value again and again."""
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([0.0, -1.0, -3.0])
    weights = values[torch.randint(3, (1000, 4), generator=generator)]
    assert_close(pareto_khat(weights), torch.full((4,), -math.inf, dtype=torch.float64))
