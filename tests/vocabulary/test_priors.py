"""Priors."""

import math
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

from ppl_gen import laws
from ppl_gen.posteriors import DiagonalNormal
from ppl_gen.priors import (
    PRIORS,
    Image,
    MixturePrior,
    Prior,
    StandardNormal,
    prior,
)
from ppl_gen.testing import ImplicitPriorContract, PriorContract, check_density

SPECS = [
    *(name for name, cls in PRIORS.items() if cls.scored and name != "product"),
    "vamp(components=7, pseudo='data')",
    "flow(kind='maf', transforms=2)",
    "flow(kind='realnvp')",
    "flow(kind='gf')",
    "autoregressive(components=1)",
    "hierarchical(top=1)",
    "von-mises-fisher(concentration=30.0)",
    "one-hot(learned=True)",
    "categorical(categories=3, learned=True)",
    "bernoulli(learned=True)",
    "product(parts=('one-hot(features=2)', 'gamma(features=1)', 'normal'))",
    "product(parts=('standard-normal(features=2)', 'sphere'))",
    "normal(scale=0.5, learned=False)",
    "uniform(low=0.5, high=3.0)",
    "beta(alpha=0.5, beta=2.0)",
    "gamma(shape=0.7, rate=3.0)",
    "dirichlet(concentration=0.6)",
    "stick-breaking(concentration=2.5)",
    "flower(petals=5, depth=0.4, edge=1.0, scale=0.8)",
    *(
        f"{name}(radius={radius!r}, scale=0.7, learned=True)"
        for name in ("laplace", "student-t", "cauchy", "logistic")
        for radius in ("own", "shared")
    ),
]


def sizes(spec: str) -> tuple[int, ...]:
    """Sizes of a code that a law can have."""
    name = spec.split("(")[0]
    if name == "product":
        return (5,)
    if name == "flower":
        return 2, 4
    at_least_two = ("sphere", "von-mises-fisher", "one-hot", "hierarchical")
    if name in at_least_two or "realnvp" in spec:
        return 2, 5
    return (2, 5) if name in ("dirichlet", "logistic-normal", "stick-breaking") else (1, 2, 5)


def of(spec: str, features: int) -> Prior:
    """A prior, and for one that is made of a guide a small one."""
    made = prior(spec, features)

    def guide(x: torch.Tensor) -> dist.TorchDistribution:
        return dist.Normal(x[:, :features], 0.2 + x[:, features:].square()).to_event(1)

    made.follow(guide, (2 * features,))
    return made


def shaken(module: Prior) -> Prior:
    with torch.no_grad():
        for parameter in module.parameters():
            # Of a network's unit, all inputs together count as one.
            parameter += 0.3 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    return module


class TestEveryPrior(PriorContract):
    @pytest.fixture(params=[(spec, size) for spec in SPECS for size in sizes(spec)], ids=str)
    def prior(self, request: pytest.FixtureRequest) -> Prior:
        return shaken(of(*request.param))


DRAWN = [
    *(name for name, cls in PRIORS.items() if not cls.scored and name != "image"),
    "image(picture=((0, 1, 5), (2, 0, 1)))",
    "pinwheel(arms=3, scale=2.0)",
]


class TestEveryPriorThatIsDrawnAlone(ImplicitPriorContract):
    @pytest.fixture(params=[(spec, size) for spec in DRAWN for size in (2, 6)], ids=str)
    def prior(self, request: pytest.FixtureRequest) -> Prior:
        return prior(*request.param)


def test_a_continuous_flow_scores_what_it_draws() -> None:
    """With few draws: each takes the solution of a differential equation."""
    check_density(shaken(of("flow(kind='cnf')", 2))(), draws=300)


@pytest.mark.parametrize("radius", ["own", "shared"])
@pytest.mark.parametrize("name", ["laplace", "student-t", "cauchy", "logistic"])
def test_one_feature_has_one_radius(name: str, radius: str) -> None:
    """Of one feature both are the same law."""
    z = torch.linspace(-4, 4, 17).unsqueeze(-1) + 0.1
    own = prior(f"{name}(radius='own', scale=0.7)", 1)()
    assert_close(prior(f"{name}(radius={radius!r}, scale=0.7)", 1)().log_prob(z), own.log_prob(z))


@pytest.mark.parametrize("name", ["laplace", "student-t", "cauchy", "logistic"])
def test_a_shared_radius_is_the_same_in_all_directions(name: str) -> None:
    law = prior(f"{name}(radius='shared')", 3)()
    axis, diagonal = torch.tensor([4.0, 0, 0]), torch.full((3,), 4 / math.sqrt(3))
    assert_close(law.log_prob(axis), law.log_prob(diagonal))
    own = prior(name, 3)()
    assert (own.log_prob(axis) - own.log_prob(diagonal)).abs() > 0.1


def test_a_radius_is_logistic_by_its_integral() -> None:
    """The closed form of the constant, by numbers."""
    radius = torch.linspace(1e-4, 60, 600_001, dtype=torch.double)
    for features in (1, 2, 3, 4, 9):
        law = laws.LogisticRadius(torch.ones((), dtype=torch.double), features)
        assert_close(
            torch.trapezoid(law.log_prob(radius).exp(), radius).item(), 1.0, rtol=0, atol=1e-4
        )


@pytest.mark.parametrize(("nats", "scale"), [(0.05, 1.0), (-0.05, 1.0), (0.0, 1.05), (0.0, 0.95)])
def test_a_density_that_is_not_that_of_the_draws_is_found(nats: float, scale: float) -> None:
    check_density(Off(0.0, 1.0))
    with pytest.raises(AssertionError, match="the density must be that of the draws, but"):
        check_density(Off(nats, scale))


class Off(torch.distributions.Normal):
    """Planted: a density that is too high by so many nats, or of another scale than the draws."""

    def __init__(self, nats: float, scale: float) -> None:
        super().__init__(torch.zeros(2), torch.ones(2))
        self.nats, self.off = nats, scale

    support = torch.distributions.constraints.real_vector

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        law = torch.distributions.Normal(torch.zeros(2), self.off)
        return law.log_prob(value.float()).sum(-1) + self.nats


def test_the_divergence_from_the_standard_normal_has_a_closed_form() -> None:
    law = DiagonalNormal(4, 3)(torch.randn(5, 4))
    loc, scale = law.mean, law.stddev
    expected = (loc**2 + scale**2 - 1 - 2 * scale.log()).sum(-1) / 2
    assert_close(torch.distributions.kl_divergence(law, StandardNormal(3)()), expected)


def test_a_mixture_is_the_weighted_sum_of_its_normals() -> None:
    mixture = MixturePrior(2, components=3)
    with torch.no_grad():
        mixture.logits.copy_(torch.tensor([0.0, 1.0, -1.0]))
        mixture.log_scale.copy_(torch.randn(3, 2))
    z = torch.randn(7, 1, 2)
    scale = mixture.log_scale.exp()
    densities = torch.distributions.Normal(mixture.loc, scale).log_prob(z).sum(-1).exp()
    expected = (mixture.logits.softmax(0) * densities).sum(-1).log()
    assert_close(mixture().log_prob(z.squeeze(1)), expected)


def test_a_mixture_of_narrow_laws_far_out_keeps_its_digits() -> None:
    """Products of large numbers are taken in double precision."""
    loc, scale = torch.tensor([[300.0, -200.0], [301.0, 5.0]]), torch.full((2, 2), 1e-2)
    law = laws.NormalMixture(torch.zeros(2), loc, scale)
    z = loc[0] + torch.tensor([[0.01, -0.03], [0.0, 0.02]])
    exact = torch.distributions.Normal(loc[0].double(), 1e-2).log_prob(z.double()).sum(-1)
    assert_close(law.log_prob(z).double(), exact - math.log(2), rtol=1e-4, atol=1e-4)
    draws = law.sample((4000,))
    assert_close(draws.mean(0), law.mean, rtol=0, atol=8.0)
    assert_close(draws.var(0), law.variance, rtol=0.1, atol=0.1)


def test_every_part_of_a_mixture_is_learned() -> None:
    mixture = MixturePrior(2, components=3)
    mixture().log_prob(torch.ones(2)).backward()
    assert all(parameter.grad is not None for parameter in mixture.parameters())
    assert {name for name, _ in mixture.named_parameters()} == {"logits", "loc", "log_scale"}


@pytest.mark.parametrize("name", ["standard-normal", "laplace", "student-t", "cauchy", "logistic"])
def test_what_is_not_learned_saves_nothing_and_follows_its_module(name: str) -> None:
    part = prior(name, 3)
    assert part.state_dict() == {}
    assert part.double()().sample().dtype == torch.float64


def test_scales_are_learned_where_asked_for() -> None:
    assert [n for n, _ in prior("normal", 3).named_parameters()] == ["log_scale"]
    assert not list(prior("normal(learned=False)", 3).parameters())
    assert [n for n, _ in prior("laplace(learned=True)", 3).named_parameters()] == ["log_scale"]


def test_a_specification_builds_a_prior_and_a_prior_passes_through() -> None:
    assert prior("mixture(components=4)", 2).arguments == {"features": 2, "components": 4}
    given = StandardNormal(2)
    assert prior(given, 2) is given


def test_a_prior_of_another_size_than_the_code_is_refused() -> None:
    with pytest.raises(ValueError, match="as many features as the code, 3, got 2"):
        prior(StandardNormal(2), 3)


def test_what_is_neither_a_name_nor_a_prior_is_refused() -> None:
    with pytest.raises(TypeError, match=r"prior must be one of standard-normal, normal, .* a part"):
        prior(dist.Normal(0.0, 1.0), 2)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("features", [0, -1])
def test_a_code_has_at_least_one_feature(features: int) -> None:
    with pytest.raises(ValueError, match=f"features must be at least 1, got {features}"):
        StandardNormal(features)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("laplace(radius='both')", "radius must be one of own, shared, got 'both'"),
        ("laplace(scale=0.0)", "scale must be positive, got 0.0"),
        ("uniform(low=1.0, high=1.0)", "low must be below high, both finite, got 1.0 and 1.0"),
        ("beta(alpha=0.0)", "alpha must be positive, got 0.0"),
        ("gamma(rate=-1.0)", "rate must be positive, got -1.0"),
        ("flower(petals=0)", "petals must be at least 1, got 0"),
        ("flower(depth=1.0)", "depth must be at least 0 and below 1, got 1.0"),
        ("student-t(df=-1)", "df must be positive, got -1"),
    ],
)
def test_what_a_law_cannot_be_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        prior(spec, 2)


def test_a_picture_is_drawn_as_it_is_seen(tmp_path: Path) -> None:
    """Bright in the upper left: draws are there, and nowhere else; from a file or from numbers."""
    values = np.zeros((4, 8), dtype=np.uint8)
    values[0, 0] = 200
    PIL.Image.fromarray(values).save(tmp_path / "seen.png")
    for given in (values, torch.from_numpy(values), values.tolist(), str(tmp_path / "seen.png")):
        drawn = Image(2, given, scale=4.0).sample(100)
        assert ((drawn[:, 0] >= -4) & (drawn[:, 0] <= -3)).all()
        assert ((drawn[:, 1] >= 1) & (drawn[:, 1] <= 2)).all()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("missing.png", "picture 'missing.png' cannot be read"),
        ([1.0, 2.0], r"picture must be of shape (height, width), got (2,)"),
        ([[0.0, -1.0]], "picture must be finite, nowhere below 0 and somewhere above it"),
        ([["a", "b"]], "picture must be grey, of numbers, got"),
    ],
)
def test_what_is_no_grey_picture_is_refused(picture: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Image(2, picture)


@pytest.mark.parametrize("name", ["dirichlet", "logistic-normal", "stick-breaking"])
def test_one_share_of_a_whole_is_no_code(name: str) -> None:
    with pytest.raises(ValueError, match="features must be at least 2, got 1"):
        prior(name, 1)


def test_a_flower_has_its_petals_and_whole_pairs() -> None:
    """Turned by a petal it is the same; by half of one, it is not."""
    law = prior("flower(petals=7)", 2)()
    angle = torch.tensor([0.0, math.tau / 7, math.tau / 14])
    turned = law.log_prob(2.5 * torch.stack([angle.cos(), angle.sin()], -1))
    assert_close(turned[0], turned[1])
    assert turned[0] - turned[2] > 1
    assert law.log_prob(torch.zeros(2)).isfinite()
    with pytest.raises(ValueError, match="features must be even, two for each flower, got 3"):
        prior("flower", 3)
