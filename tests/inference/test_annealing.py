"""Chains that know no guide are held against a posterior that is known."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal
from torch.testing import assert_close

from ppl_gen.inference.estimators.annealing import (
    Start,
    annealed,
    reversed_annealed,
    scheduled,
)
from ppl_gen.inference.estimators.hmc import Density, chains
from ppl_gen.inference.estimators.nuts import nuts
from ppl_gen.inference.estimators.refinement import refined


class Linear:
    """z ~ N(0, I), x ~ N(W z, s^2): evidence and posterior in closed form."""

    def __init__(self, rows: int = 40, scale: float = 0.3) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(4, 2, generator=generator)
        self.scale = scale
        code = torch.randn(rows, 2, generator=generator)
        self.x = code @ self.weight.T + scale * torch.randn(rows, 4, generator=generator)
        precision = torch.eye(2) + self.weight.T @ self.weight / scale**2
        self.covariance = torch.linalg.inv(precision)
        self.loc = self.x @ self.weight / scale**2 @ self.covariance
        self.deviations = self.covariance.diagonal().sqrt().expand_as(self.loc)

    def log_density(self, position: Tensor) -> Tensor:
        """Joint, ``(C, N)``."""
        likelihood = Normal(position @ self.weight.T, self.scale).log_prob(self.x).sum(-1)
        return Normal(0.0, 1.0).log_prob(position).sum(-1) + likelihood

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """With its gradient."""
        log_density, gradient = with_gradient(self.log_density)(position)
        return log_density, gradient

    @property
    def evidence(self) -> Tensor:
        """Exact, ``(N,)``."""
        covariance = self.weight @ self.weight.T + self.scale**2 * torch.eye(4)
        return MultivariateNormal(torch.zeros(4), covariance).log_prob(self.x)

    @property
    def posterior(self) -> MultivariateNormal:
        """Exact."""
        return MultivariateNormal(self.loc, self.covariance)

    def start(self, narrow: float = 1.0, shift: float = 0.0) -> Start:
        """Half at a guide that is off, half at the prior."""
        loc = torch.stack([self.loc + shift * self.deviations, torch.zeros_like(self.loc)])
        return Start(loc, torch.stack([narrow * self.deviations, torch.ones_like(self.loc)]))


def with_gradient(log_density: object) -> Density:
    def density(position: Tensor) -> tuple[Tensor, Tensor]:
        position = position.detach().requires_grad_()
        value = log_density(position)
        (gradient,) = torch.autograd.grad(value.sum(), position)
        return value.detach(), gradient

    return density


@pytest.mark.parametrize(("narrow", "shift"), [(1.0, 0.0), (0.3, 0.0), (2.0, 0.0), (1.0, 3.0)])
def test_annealing_finds_the_evidence_from_a_start_that_is_off(narrow: float, shift: float) -> None:
    """Forty rows' mean within 0.1 nats, from below in expectation."""
    torch.manual_seed(0)
    story = Linear()
    start = story.start(narrow, shift)
    schedule = scheduled(story, start, 200)

    log_weights, _ = annealed(story, start, schedule, 16)

    found = log_weights.logsumexp(0) - math.log(16)
    assert (found - story.evidence).mean().abs() < 0.1
    assert (found - story.evidence).square().mean().sqrt() < 0.35


def test_few_moves_err_downwards_there_and_upwards_back() -> None:
    """The sandwich of Grosse et al., with so few moves that both sides are seen."""
    torch.manual_seed(0)
    story = Linear(rows=200)
    start = story.start(0.5, 2.0)
    schedule = scheduled(story, start, 10)

    below, _ = annealed(story, start, schedule, 8)
    above = reversed_annealed(story, start, schedule, story.posterior.sample(torch.Size([8])))

    lower = below.logsumexp(0) - math.log(8)
    upper = math.log(8) - (-above).logsumexp(0)
    assert (lower - story.evidence).mean() < -0.03
    assert (upper - story.evidence).mean() > 0.03


def test_the_weights_are_unbiased_whatever_the_number_of_moves() -> None:
    """Of one datum 4,000 chains of five moves each: the mean weight is the evidence."""
    torch.manual_seed(1)
    story = Linear(rows=1)
    start = story.start(0.7, 1.0)

    log_weights, _ = annealed(story, start, scheduled(story, start, 5), 4000)

    weights = (log_weights[:, 0] - story.evidence[0]).exp()
    error = weights.std() / len(weights) ** 0.5
    assert (weights.mean() - 1).abs() < 4 * error
    assert error < 0.1


def test_chains_draw_from_the_posterior() -> None:
    torch.manual_seed(0)
    story = Linear()
    begin = story.start().draw(16)

    drawn = torch.stack(list(chains(story, begin, 0.3 * story.deviations, 200, 100))).flatten(0, 1)

    assert ((drawn.mean(0) - story.loc) / story.deviations).square().mean().sqrt() < 0.06
    assert (drawn.std(0) / story.deviations - 1).abs().mean() < 0.05
    found = torch.stack([torch.corrcoef(row.T)[0, 1] for row in drawn.unbind(1)]).mean()
    exact = story.covariance[0, 1] / story.covariance.diagonal().prod().sqrt()
    assert_close(found, exact, atol=0.03, rtol=0.0)


def test_the_no_u_turn_sampler_finds_the_same() -> None:
    torch.manual_seed(0)
    story = Linear(rows=1)

    drawn = nuts(story.log_density, story.loc[:1].expand(2, 2), 400, 100)

    assert drawn.shape == (400, 2, 1, 2)
    flat = drawn.flatten(0, 1)[:, 0]
    assert ((flat.mean(0) - story.loc[0]) / story.deviations[0]).abs().max() < 0.2
    assert (flat.std(0) / story.deviations[0] - 1).abs().max() < 0.15


def test_the_no_u_turn_sampler_stops_when_its_time_is_over() -> None:
    story = Linear(rows=1)

    with pytest.raises(TimeoutError, match="1 of 1000 draws took"):
        nuts(story.log_density, story.loc[:1].expand(2, 2), 400, 100, seconds=0.0)


@pytest.mark.parametrize(
    ("narrow", "shift"), [(1.0, 0.0), (0.5, 0.0), (0.8, 0.0), (1.25, 0.0), (2.0, 0.0), (1.0, 0.5)]
)
def test_a_refined_guide_wins_back_what_was_lost(narrow: float, shift: float) -> None:
    """KL of the moved normal from the exact one, in closed form."""
    torch.manual_seed(0)
    story = Linear()
    draws = story.posterior.sample(torch.Size([600]))
    off = story.loc + shift * story.deviations + narrow * (draws - story.loc)
    distance = story.deviations[0] @ torch.linalg.inv(story.covariance) @ story.deviations[0]
    lost = narrow**2 - 1 - 2 * math.log(narrow) + 0.5 * shift**2 * distance

    found = refined(story, off, full=True)

    assert_close(found.gain.mean().item(), float(lost), atol=0.03, rtol=0.03)
    assert_close(found.stretch.mean().item(), 1 / narrow, atol=0.05, rtol=0.0)
    assert_close(found.shift.mean().item(), -shift / narrow, atol=0.05, rtol=0.0)


def test_a_diagonal_refinement_leaves_what_only_correlations_win() -> None:
    """The best diagonal guide of a correlated posterior gains nothing but by turning."""
    torch.manual_seed(0)
    story = Linear()
    precision = torch.linalg.inv(story.covariance)
    best = precision.diagonal().rsqrt()
    draws = story.loc + best * torch.randn(600, *story.loc.shape)
    lost = 0.5 * (story.covariance.logdet() - best.square().log().sum())

    assert refined(story, draws).gain.mean().abs() < 0.03
    assert_close(refined(story, draws, full=True).gain.mean(), lost.double(), atol=0.05, rtol=0.05)
