"""An exact guide is calibrated; a wrong one is found, and told in which way it is wrong."""

import math
import re
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppl_gen as pg
from ppl_gen.inference.checks import Subject
from ppl_gen.inference.checks import ranked as of_ranks
from ppl_gen.inference.checks.calibration import calibration
from ppl_gen.inference.checks.ranked import LIKELIHOOD
from ppl_gen.inference.verdict import Finding
from ppl_gen.laws import Drawn
from ppl_gen.models import CVAE, GMM, M2, PPCA, VAE, AutoEncoder


def as_it_is(story: object, data: Any = None) -> pg.Run:
    """A run whose story keeps the weights it has."""
    return pg.fit(story, data, epochs=1, learning_rate=1e-12, warm_start=True, progress=False)


def found(story: object, data: Any = None, **options: Any) -> tuple[Finding, Finding]:
    """What the check says: calibration, coverage."""
    findings = calibration(Subject(as_it_is(story, data), data, **{"level": "quick", **options}))
    return findings[0], findings[1]


def linear_data(rows: int = 200) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    code = torch.randn(rows, 2, generator=generator)
    weight = torch.randn(2, 4, generator=generator)
    return code @ weight + 0.5 * torch.randn(rows, 4, generator=generator)


class Changed:
    """PPCA with its exact posterior, changed."""

    def __init__(self, x: Tensor, change: Callable[[Any, Tensor], Any]) -> None:
        self.story = PPCA.maximum_likelihood(x, 2)
        self.change = change

    def model(self, x: Tensor) -> None:
        """The model as it is."""
        self.story.model(x)

    def guide(self, x: Tensor) -> None:
        """Another law for each row."""
        pyro.param("unused", torch.tensor(0.0))
        with pyro.plate("observations", len(x)):
            pyro.sample("z", self.change(self.story.exact_posterior(x), x))


def scaled(law: Any, factor: float, shift: float = 0.0) -> Any:
    moved = law.loc + shift * law.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    return dist.MultivariateNormal(moved, scale_tril=factor * law.scale_tril)


@pytest.mark.parametrize("level", ["quick", "full"])
def test_an_exact_guide_is_calibrated(level: str) -> None:
    x = linear_data()
    calibrated, covered = found(PPCA.maximum_likelihood(x, 2), x, level=level)

    assert (calibrated.status, covered.status) == ("pass", "pass")
    simulations = 1000 if level == "quick" else 10_000
    assert calibrated.figure < 1.95 / math.sqrt(simulations)
    assert f"{simulations:,} simulations" in calibrated.meaning
    grid = len(calibrated.details["ECDF at"])
    assert grid == len(calibrated.details["ECDF of z[1]"]) == len(calibrated.details["band to"])


FAULTS: dict[str, tuple[Callable[[Any, Tensor], Any], str, str]] = {
    "half as wide": (lambda q, x: scaled(q, 0.5), "too narrow", "fail"),
    "too narrow by a fifth": (lambda q, x: scaled(q, 0.8), "too narrow", "fail"),
    "too wide by a quarter": (lambda q, x: scaled(q, 1.25), "too wide", "fail"),
    "twice as wide": (lambda q, x: scaled(q, 2.0), "too wide", "fail"),
    "a quarter of a deviation too high": (lambda q, x: scaled(q, 1, 0.25), "too high", "pass"),
    "half a deviation too low": (lambda q, x: scaled(q, 1, -0.5), "too low", "warn"),
    "the prior": (
        lambda q, x: dist.Normal(torch.zeros_like(q.loc), 1.0).to_event(1),
        "explain the data worse",
        "pass",
    ),
    "of another row": (lambda q, x: scaled(q.__class__(q.loc.roll(1, 0), q.covariance_matrix), 1),
                       "too narrow", "fail"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:When data row")  # the doctor finds one of them, too
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_told_which_way_it_goes(fault: str) -> None:
    change, told, coverage = FAULTS[fault]
    x = linear_data()

    calibrated, covered = found(Changed(x, change), x, level="full")

    assert calibrated.status == "fail", calibrated
    assert told in calibrated.meaning
    assert calibrated.remedy
    assert covered.status == coverage, covered


def test_the_sentence_says_by_what_factor_and_what_intervals_hold() -> None:
    x = linear_data()
    calibrated, covered = found(Changed(x, lambda q, _: scaled(q, 0.5)), x, level="full")

    assert re.search(r"those of 90% hold (58|59|60|61)% of the truths", calibrated.meaning)
    assert re.search(r"a factor of 0\.(49|50|51)", calibrated.meaning)
    assert "hold" in covered.meaning
    assert covered.figure == pytest.approx(0.32, abs=0.02)


HUMPS = dist.MixtureSameFamily(
    dist.Categorical(torch.ones(2)), dist.Normal(torch.tensor([-3.0, 3.0]), 0.5)
)


def humped(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", HUMPS)
        pyro.sample("x", dist.Normal(0.0 * z, 1.0), obs=x)


def normal_guide(x: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(loc, 9.25**0.5))


def test_two_humps_under_a_normal_law_have_another_shape() -> None:
    """Mean and deviation are right."""
    calibrated, _ = found((humped, normal_guide), torch.randn(100), level="full")

    at = torch.linspace(-6, 6, 1001)
    distance = (HUMPS.cdf(at) - dist.Normal(0.0, 9.25**0.5).cdf(at)).abs().max()
    assert calibrated.status == "fail"
    assert "spread otherwise" in calibrated.meaning
    assert calibrated.figure == pytest.approx(distance.item(), abs=0.06)  # blurred by few draws


LOC = torch.tensor([-1.0, 0.0, 1.5])


def mixture(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3))
        pyro.sample("x", dist.Normal(LOC[k], 1.0), obs=x)


def assigned(sharpness: float) -> Callable[[Tensor], None]:
    def guide(x: Tensor) -> None:
        factor = pyro.param("factor", torch.tensor(sharpness))
        with pyro.plate("rows", len(x)):
            pyro.sample("k", dist.Categorical(logits=-factor * (x[:, None] - LOC).square() / 2))

    return guide


def test_a_discrete_latent_is_ranked_by_chance_among_its_equals() -> None:
    x = torch.randn(100)

    exact, _ = found((mixture, assigned(1.0)), x, level="full")
    sharp, _ = found((mixture, assigned(3.0)), x, level="full")
    prior, _ = found((mixture, assigned(0.0)), x, level="full")

    assert exact.status == "pass", exact
    assert sharp.status == "fail"
    assert prior.status == "fail"
    assert "explain the data worse" in prior.meaning


def given(x: Tensor, label: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(2 * LOC[label], 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def given_guide(permuted: bool) -> Callable[[Tensor, Tensor], None]:
    def guide(x: Tensor, label: Tensor) -> None:
        at = pyro.param("at", torch.tensor(0.5))
        seen = (label + 1) % 3 if permuted else label
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(at * (x + 2 * LOC[seen]), 0.5**0.5))

    return guide


def test_a_condition_stays_with_its_row() -> None:
    """The exact guide is calibrated; one that mixes up the labels is not."""
    data = torch.randn(90), torch.arange(90) % 3

    exact, _ = found((given, given_guide(False)), data)
    permuted, _ = found((given, given_guide(True)), data)

    assert exact.status == "pass", exact
    assert permuted.status == "fail"


def below_global(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    with pyro.plate("rows", len(x), dim=-2), pyro.plate("columns", 2, dim=-1):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def below_global_guide(factor: float) -> Callable[[Tensor], None]:
    def guide(x: Tensor) -> None:
        at = pyro.param("at", torch.tensor(0.5))
        loc = pyro.sample("loc", dist.Normal(3.0, 2.0))
        with pyro.plate("rows", len(x), dim=-2), pyro.plate("columns", 2, dim=-1):
            pyro.sample("z", dist.Normal(at * (x + loc), factor * 0.5**0.5))

    return guide


def test_local_latents_are_calibrated_given_the_global_ones() -> None:
    exact, _ = found((below_global, below_global_guide(1.0)), torch.randn(30, 2))
    narrow, _ = found((below_global, below_global_guide(0.5)), torch.randn(30, 2))

    assert exact.status == "pass", exact
    assert narrow.status == "fail"
    assert "of z[" in narrow.meaning


def test_a_prior_without_a_density_will_do() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", Drawn(lambda rows: torch.randn(rows, 2), 2, "Secret"))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        at = pyro.param("at", torch.tensor(0.5))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(at * x, 0.5**0.5).to_event(1))

    run = pg.fit(
        (model, guide), torch.randn(50, 2), epochs=1, learning_rate=1e-12, objective="mmd",
        progress=False,
    )  # fmt: skip

    assert run.structure.unscored
    findings = calibration(Subject(run, torch.randn(50, 2), level="quick"))
    assert [finding.status for finding in findings] == ["pass", "pass"], findings


@pytest.mark.parametrize(
    ("story", "data"),
    [
        (lambda: M2((6,), 3, latent=2), (torch.rand(40, 6), torch.arange(40) % 4 - 1)),
        (lambda: CVAE((6,), condition="seen", latent=2), (torch.rand(40, 6),) * 2),
        (lambda: VAE((6,), latent=2, prior="flower-sampler"), torch.rand(40, 6)),
    ],
)
def test_stories_with_conditions_and_implicit_priors_are_looked_at(
    story: Callable[[], Any], data: Any
) -> None:
    if isinstance(data, tuple) and data[1].is_floating_point():
        data = (data[0], data[1] < 0.5)
    run = pg.fit(story(), data, epochs=2, progress=False)

    calibrated, covered = calibration(Subject(run, data, level="quick"))

    assert math.isfinite(calibrated.figure)
    assert math.isfinite(covered.figure)
    assert len(calibrated.details[f"ECDF of {LIKELIHOOD}"]) == 50


def of_its_own() -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 5):
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(5))


def by_row(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize(
    ("story", "data", "status", "reason"),
    [
        (lambda: AutoEncoder((4,), latent=2), linear_data(), "skipped", "one value of 'z'"),
        (
            lambda: (by_row, "AutoNormal"),
            torch.randn(20),
            "skipped",
            "parameters for every datum",
        ),
        (lambda: (of_its_own, "AutoNormal"), None, "skipped", "hold their data themselves"),
        (lambda: (of_its_own, "AutoDelta"), None, "not applicable", "single value of 'z'"),
        (lambda: GMM((4,), 2), linear_data(), "not applicable", "single value of 'weights'"),
        (lambda: GMM((4,), 2, posterior="normal"), linear_data(), "skipped", "change places"),
    ],
)
def test_what_cannot_be_calibrated_says_why(
    story: Callable[[], Any], data: Any, status: str, reason: str
) -> None:
    run = pg.fit(story(), data, epochs=1, progress=False)

    for finding in calibration(Subject(run, data, level="full")):
        assert finding.status == status
        assert reason in finding.meaning


def test_a_model_that_cannot_be_simulated_is_skipped_in_a_sentence() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.exp())

    def guide(x: Tensor) -> None:
        at = pyro.param("at", torch.tensor(0.5))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(at * x, 1.0))

    run = pg.fit((model, guide), torch.randn(30), epochs=1, progress=False)
    verdict = pg.check(run, torch.randn(30), draws=30, progress=False)

    assert verdict["calibration"].status == verdict["coverage"].status == "skipped"
    assert "'x' must be a column of the data as it is" in verdict["calibration"].meaning


def mean_of_all(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def its_posterior(factor: float, shift: float = 0.0) -> Callable[[Tensor], None]:
    """Of the mean of all data, in closed form, so that a fit takes one step."""

    def guide(x: Tensor) -> None:
        deviation = (1 + len(x)) ** -0.5
        at = pyro.param("at", torch.tensor(1.0))
        loc = at * x.sum(0) * deviation**2 + shift * deviation
        pyro.sample("loc", dist.Normal(loc, factor * deviation).to_event(1))

    return guide


def refitted(factor: float, shift: float = 0.0, budget: float = 600.0) -> tuple[Finding, Finding]:
    run = as_it_is((mean_of_all, its_posterior(factor, shift)), torch.randn(20, 2))
    verdict = calibration(Subject(run, torch.randn(20, 2), level="full", budget=budget))
    return verdict[0], verdict[1]


@pytest.fixture
def few_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a fast machine makes in little time."""
    monkeypatch.setattr(of_ranks, "MOST_FITS", 30)


@pytest.mark.usefixtures("few_fits")
def test_a_posterior_of_global_latents_is_calibrated_by_fits_to_simulated_data() -> None:
    calibrated, covered = refitted(1.0)

    assert (calibrated.status, covered.status) == ("pass", "pass")
    assert "30 fits to simulated data" in calibrated.meaning
    assert "see distances from 0.30 on" in calibrated.meaning


@pytest.mark.usefixtures("few_fits")
@pytest.mark.parametrize(
    ("factor", "shift", "told"), [(0.1, 0.0, "too narrow"), (1.0, 1.5, "too high")]
)
def test_a_wrong_posterior_of_global_latents_is_found(
    factor: float, shift: float, told: str
) -> None:
    calibrated, _ = refitted(factor, shift)

    assert calibrated.status == "fail", calibrated
    assert told in calibrated.meaning


def test_too_small_a_budget_is_said_with_what_would_do() -> None:
    calibrated, covered = refitted(1.0, budget=0.05)

    assert calibrated.status == covered.status == "skipped"
    assert "Needs 20 fits to simulated data, about" in calibrated.meaning
    with pytest.raises(ValueError, match="budget must be"):
        pg.check(as_it_is((mean_of_all, its_posterior(1.0)), torch.randn(20, 2)), budget=-1.0)


def test_fits_are_not_asked_for_at_the_quick_level() -> None:
    run = as_it_is((mean_of_all, its_posterior(1.0)), torch.randn(20, 2))

    assert calibration(Subject(run, torch.randn(20, 2), level="quick")) == []
