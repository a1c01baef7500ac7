"""Codes of all data are held against their own prior, and told apart as far as can be."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.inference.checks import Subject
from ppl_gen.inference.checks.codes import (
    PARTS_OF_KL,
    aggregate_posterior,
    information,
    marginal,
    matches_prior,
)
from ppl_gen.inference.codes import TOGETHER, Split, drawn_codes, elbo_split, split_of
from ppl_gen.inference.estimators.two_sample import ClassifierTest, TwoSample
from ppl_gen.inference.verdict import Finding
from ppl_gen.models import CVAE, PPCA

# Some of the guides here are blind on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:The guide draws 'z' from the same law")

X = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))


def as_it_is(story: object, data: object) -> pg.Run:
    """A run whose story keeps the weights it has."""
    return pg.fit(
        story, data, epochs=1, learning_rate=1e-12, warm_start=True, progress=False, device="cpu"
    )


def finding(run: pg.Run, data: Any) -> Finding:
    """The one on the aggregate posterior alone."""
    return aggregate_posterior(Subject(run, data, draws=10, memory=2**28, seed=0))


class NoDensity(dist.Normal):
    """A law that can only be drawn from, and counts who asks for more."""

    asked = 0

    def log_prob(self, value: Tensor) -> Tensor:
        """None."""
        NoDensity.asked += 1
        raise NotImplementedError("this law has no density")


class NoDraws(dist.Normal):
    """A law that cannot be drawn from."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """None."""
        raise NotImplementedError("this law has no draws")


class Shifted(pg.Story):
    """Codes that no datum decides, some way from their prior."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift, self.law = shift, dist.Normal
        self.weight = nn.Parameter(torch.zeros(()))

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", self.law(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.weight * z[..., :1], 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            loc = torch.tensor([self.shift, 0.0])
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


@pytest.mark.parametrize(("shift", "status"), [(0.0, "pass"), (0.75, "warn"), (2.0, "fail")])
def test_codes_are_told_from_draws_of_the_prior_as_far_as_they_can_be(
    shift: float, status: str
) -> None:
    """At best Phi(shift / 2): within 3 % and three standard errors of 2,000 codes."""
    found = finding(as_it_is(Shifted(shift), X), X)

    best = dist.Normal(0.0, 1.0).cdf(torch.tensor(shift / 2)).item()
    assert best - 0.03 - 0.034 < found.figure < best + 0.034
    assert found.status == status
    assert (found.details["p-value"][0] < 0.05) == (shift > 0)
    assert (found.details["MMD p-value"][0] < 0.05) == (shift > 0)
    assert ("of the data's 'z' from draws of its prior" in found.meaning) == (shift > 0)
    assert ("a prior that can follow the data's" in found.remedy) == (shift > 0)


def test_a_prior_needs_no_density_to_be_compared_with() -> None:
    run = as_it_is(Shifted(2.0), X)
    before = finding(run, X)
    run.story.law = NoDensity
    assert finding(run, X) == before
    assert NoDensity.asked == 0
    with pytest.raises(ValueError, match="log_weights must not be NaN"):
        run.evidence(X[:3], draws=2)
    assert NoDensity.asked > 0


def point(x: Tensor) -> None:
    """Rows of two plates' codes, in the order of the data."""
    same = pyro.param("same", torch.tensor(1.0))
    with pyro.plate("columns", 2, dim=-2), pyro.plate("rows", len(x), dim=-1):
        pyro.sample("z", dist.Delta(same * torch.stack([x[:, 0], -x[:, 0]])))


def two_plates(x: Tensor) -> None:
    with pyro.plate("rows", len(x), dim=-1):
        with pyro.plate("columns", 2, dim=-2):
            z = pyro.sample("z", dist.Normal(3.0, 1.0))
        pyro.sample("x", dist.Normal(z.sum(-2), 1.0), obs=x[:, 0])


def picked(x: Tensor) -> None:
    with pyro.plate("rows", len(x), subsample_size=70) as rows:
        z = pyro.sample("z", dist.Normal(3.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows, 0])


def picked_point(x: Tensor) -> None:
    same = pyro.param("same", torch.tensor(1.0))
    with pyro.plate("rows", len(x), subsample_size=70) as rows:
        pyro.sample("z", dist.Delta(same * x[rows, 0]))


@pytest.mark.parametrize(
    ("programs", "columns"), [((two_plates, point), 2), ((picked, picked_point), 1)]
)
def test_every_row_has_its_code_in_its_place(programs: Any, columns: int) -> None:
    """In several blocks, of which the last is smaller or reaches back."""
    x = X[: TOGETHER + 30]
    run = as_it_is(programs, x)

    codes, prior = drawn_codes(run, run.batch(x))["z"]

    assert_close(codes, torch.cat([x, -x], 1)[:, :columns], rtol=0, atol=1e-6)
    assert prior.shape == codes.shape
    assert len(prior[:, 0].unique()) == len(x)
    assert prior.mean() == pytest.approx(3.0, abs=4 / math.sqrt(prior.numel()))


def shared(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 100.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 0.1), obs=x[:, 0])


def shared_guide(x: Tensor) -> None:
    at = pyro.param("at", torch.tensor(0.0))
    loc = pyro.sample("loc", dist.Normal(at, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0))


def test_the_prior_of_a_code_is_that_given_what_all_rows_share() -> None:
    """Of which the prior is wide: one draw of it would be nowhere near the codes."""
    run = as_it_is((shared, shared_guide), X)
    codes, prior = drawn_codes(run, run.batch(X))["z"]
    assert abs(codes.mean() - prior.mean()) < 4 * math.sqrt(2 / len(X))
    assert finding(run, X).status == "pass"


class Conditional(pg.Story):
    """Codes and their prior both follow a label."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def law(self, label: Tensor) -> dist.TorchDistribution:
        return dist.Normal(5.0 * label[:, None], 1.0).to_event(1)

    def model(self, x: Tensor, label: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", self.law(label))
            pyro.sample("x", dist.Normal(self.weight * z, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor, label: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", self.law(label))


def test_the_prior_of_a_code_is_that_given_its_own_condition() -> None:
    data = (X, torch.arange(len(X)).remainder(3))
    assert finding(as_it_is(Conditional(), data), data).status == "pass"


def test_the_worst_site_is_named_and_chance_never_warns() -> None:
    discrepancies = {name: TwoSample(0.1, 0.02, (100, 100)) for name in "abc"}
    classified = {
        "a": ClassifierTest(0.55, 0.2, 100),
        "b": ClassifierTest(0.70, 0.01, 100),
        "c": ClassifierTest(0.52, 0.4, 100),
    }
    found = matches_prior(classified, discrepancies)
    assert (found.figure, found.status) == (0.70, "warn")
    assert "70% of the data's 'b'" in found.meaning
    assert found.details["p-value"] == [pytest.approx(0.03)]
    assert found.details["MMD p-value"] == [pytest.approx(0.06)]

    lucky = classified | {"b": ClassifierTest(0.70, 0.02, 40)}
    assert matches_prior(lucky, discrepancies).status == "pass"
    sure = {"b": ClassifierTest(0.60, 1e-9, 4000)}
    assert matches_prior(sure, discrepancies).status == "pass"
    assert matches_prior({"b": ClassifierTest(0.76, 1e-9, 400)}, discrepancies).status == "fail"


def only_shared(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x[:, 0])


def test_what_cannot_be_compared_is_skipped_with_the_reason() -> None:
    few = finding(as_it_is(Shifted(2.0), X), X[:99])
    assert (few.status, few.meaning) == ("skipped", "Needs at least 100 data, got 99.")
    assert finding(as_it_is((only_shared, "AutoNormal"), X), X).status == "not applicable"
    run = as_it_is(Shifted(1.0), X)
    run.story.law = NoDraws
    found = finding(run, X)
    assert found.status == "skipped"
    assert found.meaning.startswith("Codes and prior cannot both be drawn: the model raised")
    run.story.law, run.story.shift = dist.Normal, math.inf
    assert "draws of 'z' must be finite" in finding(run, X).meaning


def test_the_parts_of_the_kl_are_those_of_a_linear_story() -> None:
    """The exact guide of a linear-Gaussian story: I = log det(I + W'W / s^2) / 2, q(z) = p(z)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 5, generator=generator)
    x = torch.randn(3000, 2, generator=generator) @ weight
    x = x + 1.5 * torch.randn(3000, 5, generator=generator)
    story = PPCA.maximum_likelihood(x, 2)
    run = pg.fit(story, x, epochs=1, learning_rate=1e-12, warm_start=True, progress=False)
    inner = story.weight.T @ story.weight / (2 * story.log_scale).exp()
    exact = 0.5 * torch.logdet(torch.eye(2) + inner).item()

    found = split_of(run, run.batch(x))

    assert found.information == pytest.approx(exact, abs=4 * found.error)
    assert found.marginal == pytest.approx(0.0, abs=4 * found.error)
    assert found.kl == pytest.approx(found.information + found.marginal, abs=1e-9)
    assert found.error < 0.15


def test_information_ends_at_the_logarithm_of_the_rows() -> None:
    """Codes that are all apart tell everything there is to tell; no more is seen of it."""
    log_q = torch.where(torch.eye(50).bool(), 0.0, -1e3)
    found = elbo_split(log_q, torch.arange(50), torch.full((50,), -20.0))
    assert found.information == pytest.approx(math.log(50))
    assert found.marginal == pytest.approx(20 - math.log(50))
    assert marginal(found).status == "skipped"


@pytest.mark.parametrize(("told", "status"), [(0.01, "fail"), (0.2, "warn"), (1.0, "pass")])
def test_a_code_that_tells_nothing_has_collapsed(told: float, status: str) -> None:
    assert information(Split(told, told, 0.0, 0.01, 1000)).status == status


def test_codes_far_from_their_prior_leave_holes() -> None:
    assert marginal(Split(4.0, 1.0, 3.0, 0.05, 1000)).status == "fail"
    assert marginal(Split(1.0, 1.0, 0.0, 0.05, 1000)).status == "pass"


def test_the_kl_of_a_conditional_story_is_split_too() -> None:
    x, label = torch.randn(120, 3), torch.arange(120) % 3
    story = CVAE((3,), "label(classes=3)", latent=2, hidden=(4,), prior="standard-normal")
    run = pg.fit(story, (x, label), epochs=2, progress=False)

    findings = PARTS_OF_KL.look(Subject(run, (x, label), draws=50))

    assert {f.check: f.status for f in findings}["mutual information"] in ("pass", "warn", "fail")
