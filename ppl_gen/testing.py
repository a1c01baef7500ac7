"""Promises that parts of your own can be held to, in pytest or by hand.

A prior of your own keeps them if this passes::

    class TestHeart(PriorContract):
        @pytest.fixture
        def prior(self):
            return Heart(2)

One that can only be drawn from has an :class:`ImplicitPriorContract`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Gamma,
    MixtureSameFamily,
    MultivariateNormal,
    biject_to,
    constraints,
)
from torch.distributions.constraints import Constraint
from torch.func import functional_call
from torch.nn.functional import normalize

from ppl_gen import laws, supports
from ppl_gen.errors import NoDensityError
from ppl_gen.priors import ImplicitPrior, Prior

# Normal laws that a density is integrated against, and the share of the draws that each is fitted
# to: together they cover where the draws are.
PLACES, SHARE = 16, 0.1
# Standard errors by which an integral may be off: by chance, one in a million is.
ERRORS = 5.0


def check_density(
    law: Distribution, support: Constraint | None = None, draws: int = 20_000, seed: int = 0
) -> None:
    r"""Hold a density against the draws of the same law, in any number of dimensions.

    For any density :math:`g`, if that of the draws is :math:`p`,

    .. math:: \mathbb{E}_p \left[ \frac{g(z)}{g(z) + p(z)} \right] =
        \mathbb{E}_g \left[ \frac{p(z)}{g(z) + p(z)} \right]

    (Meng and Wong 1996, https://www.jstor.org/stable/24306045), both of numbers between 0 and 1.
    Here :math:`g` are normal laws, each fitted to draws that are near each other, and their
    mixture, which covers all. And for every feature, by Stein's identity,

    .. math:: \mathbb{E}_p \left[ \partial_d \log p(z) \right] = 0, \qquad
        \mathbb{E}_p \left[ (z_d - m_d) \, \partial_d \log p(z) \right] = -1

    If the support is not the whole space, all this is of ``biject_to(support)``'s coordinates. A
    constant that is wrong by 0.05 nats is found, and a scale that is wrong by 5 %.

    Directions, on the unit sphere, are given a length at random. Of finitely many values each has
    to be drawn as often as its probability says. Parts that are joined are looked at one by one.

    Args:
        law: Batch shape ``()``, event shape ``(D,)``.
        support: Where its draws are; by default its own.
        draws: How many to hold it against.
        seed: Of the draws; torch's generator is left as it was.

    Raises:
        AssertionError: If an integral is off by more than five standard errors, naming where.
    """
    support = support or law.support
    assert isinstance(support, Constraint)
    if isinstance(law, laws.Joined):
        for part in law.parts:
            check_density(part, None, draws, seed)
        return
    if support.is_discrete:
        _check_probabilities(law, draws, seed)
        return
    if supports.is_sphere(support):
        law, support = _Lengthened(law), constraints.real_vector
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        point = _points(law, draws, support)
        log_density, slope = _with_slope(law, point, support)
        if not log_density.isfinite().all():
            worst = point[~log_density.isfinite()][0].tolist()
            raise AssertionError(f"every draw must have a finite density, {worst} (free) has not")
        places = _neighbourhoods(_points(law, max(200, draws // 4), support))
        for other in (_mixed(places), *places):
            _hold(law, support, point, log_density, other)
    stretch = (point - point.median(0).values) * slope + 1
    for name, terms in (("place", slope), ("scale", stretch)):
        off = terms.mean(0).abs() > ERRORS * terms.std(0) / math.sqrt(draws)
        if off.any():
            raise AssertionError(
                f"the density must be that of the draws, but it has another {name} in feature "
                f"{int(off.nonzero()[0])} (unconstrained)"
            )


class _Contract:
    """What priors with a density and without have to keep."""

    def test_it_is_one_law_of_the_whole_code(self, prior: Prior) -> None:
        law = prior()
        assert law.batch_shape == (), f"batch shape must be (), got {tuple(law.batch_shape)}"
        assert law.event_shape == (prior.features,), (
            f"event shape must be ({prior.features},), got {tuple(law.event_shape)}"
        )

    def test_a_plate_repeats_it_for_each_observation(self, prior: Prior) -> None:
        with pyro.plate("draws", 5, dim=-2), pyro.plate("observations", 4):
            z = pyro.sample("z", prior())
        assert z.shape == (5, 4, prior.features)
        if prior.scored:
            assert prior().log_prob(z).shape == (5, 4)

    def test_its_draws_are_in_its_support(self, prior: Prior) -> None:
        inside = prior.support.check(prior().sample(torch.Size((1000,))))
        assert inside.all(), "every draw must be in the support"

    def test_the_same_seed_draws_the_same(self, prior: Prior) -> None:
        drawn = []
        for _ in range(2):
            with torch.random.fork_rng():
                torch.manual_seed(1)
                drawn.append(prior().sample(torch.Size((50,))))
        assert torch.equal(*drawn), "draws must come from torch's generator"

    def test_it_can_be_built_again(self, prior: Prior) -> None:
        again = prior.rebuild()
        assert type(again) is type(prior)
        assert again.features == prior.features
        assert str(again.support) == str(prior.support)


class PriorContract(_Contract):
    """Tests that a prior with a density has to pass: inherit them, with a fixture ``prior``."""

    def test_it_scores_what_it_draws(self, prior: Prior) -> None:
        check_density(prior(), prior.support)

    def test_its_gradients_are_those_of_its_density(self, prior: Prior) -> None:
        prior = prior.double()
        drawn = prior().sample(torch.Size((20,))).double()
        learned = dict(prior.named_parameters())
        place = _placed(prior.support)
        inputs = list(learned.values())
        if place is not None:  # what is nowhere between two values has no slope
            inputs.append(drawn if supports.is_sphere(prior.support) else place.inv(drawn))

        def log_density(*given: Tensor) -> Tensor:
            values = dict(zip(learned, given, strict=False))
            law = functional_call(prior, values, ())
            return law.log_prob(drawn if place is None else place(given[-1]))

        fresh = tuple(value.detach().clone().requires_grad_() for value in inputs)
        if fresh:
            assert torch.autograd.gradcheck(
                log_density, fresh, atol=1e-4, rtol=1e-3, fast_mode=True
            )


class ImplicitPriorContract(_Contract):
    """Tests that a prior without a density has to pass: inherit them, with a fixture ``prior``."""

    def test_it_gives_so_many_draws(self, prior: ImplicitPrior) -> None:
        assert not prior.scored
        drawn = prior.sample(7)
        assert drawn.shape == (7, prior.features), (
            f"sample(7) must give (7, {prior.features}), got {tuple(drawn.shape)}"
        )
        assert drawn.isfinite().all(), "every draw must be finite"
        assert len(drawn.unique(dim=0)) > 1, "draws must differ"

    def test_a_density_is_refused_in_a_sentence(self, prior: ImplicitPrior) -> None:
        law, told = prior(), ""
        try:
            law.log_prob(law.sample())
        except NoDensityError as error:
            told = str(error)
        assert type(prior).__name__ in told, f"a density must be refused by name, got {told!r}"


class _Lengthened(Distribution):
    """Directions with a length at random, which have a density in the whole space."""

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore

    def __init__(self, law: Distribution) -> None:
        self.law, self.length = law, Gamma(20.0, 20.0)
        super().__init__(law.batch_shape, law.event_shape, validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        drawn = self.law.sample(sample_shape)
        return self.length.sample(drawn.shape[:-1]).unsqueeze(-1) * drawn

    def log_prob(self, value: Tensor) -> Tensor:
        length = value.norm(dim=-1)
        around = (value.shape[-1] - 1) * length.log()
        return self.law.log_prob(normalize(value, dim=-1)) + self.length.log_prob(length) - around


def _check_probabilities(law: Distribution, draws: int, seed: int) -> None:
    """Refuse probabilities that are not how often values are drawn, or do not add up to 1."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = law.sample(torch.Size((draws,)))
    values, counts = drawn.unique(dim=0, return_counts=True)
    with torch.no_grad():
        probability = law.log_prob(values).double().exp()
    error = (probability * (1 - probability) / draws).clamp(min=1 / draws**2).sqrt()
    off = (counts / draws - probability).abs() > ERRORS * error
    if off.any():
        worst = int(off.nonzero()[0])
        raise AssertionError(
            f"the probability must be how often a value is drawn, but {values[worst].tolist()} "
            f"has {float(probability[worst]):.4f} and is drawn {int(counts[worst])} times of "
            f"{draws}"
        )
    total = float(probability.sum())
    if len(values) < draws / 100 and abs(total - 1) > 0.01:
        raise AssertionError(
            f"probabilities must add up to 1, got {total:.4f} of all that is drawn"
        )


def _placed(support: Constraint) -> Any:
    """From any numbers to a support, where there is a way that has a slope."""
    if supports.is_sphere(support):
        return lambda point: normalize(point, dim=-1)
    try:
        return biject_to(support)
    except NotImplementedError:
        return None


def _points(law: Distribution, count: int, support: Constraint) -> Tensor:
    """Draws as points of the whole space, ``(n, d)``."""
    with torch.no_grad():
        return biject_to(support).inv(law.sample(torch.Size((count,))).double())


def _log_density(law: Distribution, point: Tensor, support: Constraint) -> Tensor:
    """Log-densities of the whole space at points ``(n, d)``, ``(n,)``."""
    transform = biject_to(support)
    value = transform(point)
    log_density = law.log_prob(value.to(torch.get_default_dtype())).double()
    return log_density + transform.log_abs_det_jacobian(point, value)


def _with_slope(law: Distribution, point: Tensor, support: Constraint) -> tuple[Tensor, Tensor]:
    """Log-densities at points ``(n, d)``, and their slopes."""
    point = point.detach().requires_grad_()
    log_density = _log_density(law, point, support)
    (slope,) = torch.autograd.grad(log_density.sum(), point)
    return log_density.detach(), slope


def _neighbourhoods(point: Tensor) -> list[MultivariateNormal]:
    """Normal laws, each of the draws nearest to one of them, in units of their quartiles."""
    lower, upper = (point.quantile(q, 0) for q in (0.25, 0.75))
    unit = point / (upper - lower)
    count = max(2 * point.shape[1] + 10, int(SHARE * len(point)))
    found = []
    for centre in unit[:PLACES]:
        nearest = point[(unit - centre).square().sum(1).topk(count, largest=False).indices]
        covariance = nearest.mT.cov().reshape(point.shape[1], -1)
        found.append(MultivariateNormal(nearest.mean(0), covariance))
    return found


def _mixed(places: list[MultivariateNormal]) -> MixtureSameFamily:
    """All of the laws, each as likely as any other."""
    together = MultivariateNormal(
        torch.stack([place.mean for place in places]),
        scale_tril=torch.stack([place.scale_tril for place in places]),
    )
    return MixtureSameFamily(Categorical(logits=torch.zeros(len(places))), together)


def _hold(
    law: Distribution, support: Constraint, point: Tensor, log_density: Tensor, other: Distribution
) -> None:
    """Refuse a density if its bridge to another law is not that of the draws, ``point``."""
    there = other.sample(point.shape[:1])
    with torch.no_grad():
        density_there = _log_density(law, there, support)
    ours = (other.log_prob(point) - log_density).sigmoid()
    theirs = (density_there - other.log_prob(there)).nan_to_num(-math.inf).sigmoid()
    error = float((ours.var() + theirs.var()).sqrt()) / math.sqrt(len(point))
    off = float(theirs.mean() - ours.mean())
    if abs(off) > ERRORS * error:
        where = "everywhere"
        if isinstance(other, MultivariateNormal):
            where = f"about {[round(c, 3) for c in other.mean.tolist()]}"
        raise AssertionError(
            f"the density must be that of the draws, but {where} it is too "
            f"{'high' if off > 0 else 'low'}: a mean is {float(theirs.mean()):.4f} where draws "
            f"have {float(ours.mean()):.4f} (a standard error is {error:.4f})"
        )
