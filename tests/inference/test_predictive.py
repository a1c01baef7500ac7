"""Data are held against what a story makes: faults show, chance does not."""

import functools
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.inference.checks.generated import generated_data, kept, told_apart
from ppl_gen.inference.checks.observations import replicates
from ppl_gen.inference.checks.pit import loo_pit
from ppl_gen.inference.checks.predictive import posterior_predictive, prior_predictive
from ppl_gen.inference.checks.subject import Subject
from ppl_gen.inference.estimators import ClassifierTest
from ppl_gen.inference.estimators.labels import LabelTest, label_test
from ppl_gen.inference.estimators.pit import kolmogorov_test, leave_one_out, transforms
from ppl_gen.inference.estimators.replicates import (
    element_units,
    kind_of,
    pooled_statistics,
    replicate_test,
    typical_distance,
)
from ppl_gen.models import GMM


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_it_is(story: object, data: Any) -> pg.Run:
    """A run whose story keeps the weights it has."""
    return pg.fit(story, data, epochs=1, learning_rate=1e-12, warm_start=True, progress=False)


def test_the_smallest_of_many_p_values_is_uniform_if_the_data_are_one_more_replicate() -> None:
    """However many statistics there are, and however they hang together."""
    root = drawn(40, 40, seed=1)
    smallest = []
    for seed in range(400):
        both = drawn(20, 40, seed=seed + 10) @ root
        smallest.append(replicate_test(both[0], both[1:], torch.ones(40)).p_value.min().item())
    found = torch.tensor(smallest)
    for level in (0.05, 0.2, 0.5, 0.8):
        error = (level * (1 - level) / 400) ** 0.5
        assert abs((found <= level + 1e-9).double().mean().item() - level) < 4 * error, level


def test_a_statistic_that_no_replicate_reaches_has_the_smallest_p_value() -> None:
    replicated = drawn(99, 3)
    test = replicate_test(torch.tensor([0.0, 9.0, 0.0]), replicated, torch.ones(3))

    assert test.p_value[1].item() == pytest.approx(0.01)
    assert (test.p_value[[0, 2]] > 0.5).all()
    assert test.distance[1].item() == pytest.approx(9 - replicated[:, 1].mean().item(), abs=1e-5)


def test_a_law_that_was_itself_estimated_is_given_room() -> None:
    replicated, observed = drawn(99, 3), torch.tensor([0.0, 2.6, 0.0])
    sharp, wide = (replicate_test(observed, replicated, torch.ones(3), w) for w in (1.0, 2**0.5))

    assert sharp.p_value[1] < wide.p_value[1]
    assert_close(sharp.distance, wide.distance)


def test_rare_trifles_hide_no_other_statistic() -> None:
    """Each replicate is the only one to differ in some statistic, by a millionth of a unit."""
    replicated = torch.cat([1e-6 * torch.eye(99), drawn(99, 1)], 1)
    observed = torch.zeros(100)
    observed[-1] = 6.0

    test = replicate_test(observed, replicated, torch.ones(100))

    assert test.p_value[-1].item() == pytest.approx(0.01)
    assert (test.p_value[:-1] > 0.5).all()


def test_statistics_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(S, K\)"):
        replicate_test(torch.zeros(2), torch.zeros(5, 3), torch.ones(2))
    with pytest.raises(ValueError, match="must be finite"):
        replicate_test(torch.tensor([math.nan]), torch.zeros(5, 1), torch.ones(1))
    with pytest.raises(ValueError, match="units must be above 0"):
        replicate_test(torch.zeros(1), torch.zeros(5, 1), torch.zeros(1))


def test_statistics_are_those_of_what_is_not_missing() -> None:
    x = torch.arange(101.0)[:, None].repeat(1, 2)
    x[0, 1] = math.nan
    found = pooled_statistics(x[None], "real")
    both = x[~x.isnan()]

    assert found["mean"].item() == pytest.approx(both.mean().item())
    assert found["sd"].item() == pytest.approx(both.std(correction=0).item())
    assert (found["minimum"].item(), found["maximum"].item()) == (0, 100)
    assert found["50% quantile"].item() == both.median().item()
    assert found["sd of rows' means"].item() == pytest.approx(x[:, 0].std(correction=0).item())


def test_numbers_are_described_by_what_they_are() -> None:
    binary, counts = torch.tensor([0.0, 1.0]), torch.arange(30.0)
    assert kind_of(binary, binary) == "binary"
    assert kind_of(binary, 3 * binary) == "categories"
    assert kind_of(counts, binary) == "counts"
    assert kind_of(binary, binary / 2) == "real"

    shares = pooled_statistics(torch.tensor([[[0.0], [2.0], [2.0], [5.0]]]), "categories")
    assert [shares[f"share of {v}"].item() for v in (0, 2, 5)] == [0.25, 0.5, 0.25]


def test_a_pixel_that_is_black_in_all_data_is_no_unit() -> None:
    """Of columns each has its own; a constant one that of its replicates."""
    pixels = torch.cat([torch.zeros(30), torch.ones(30)])
    assert element_units(pixels, torch.ones(60)).min().item() == pytest.approx(0.5**0.5)
    columns = element_units(torch.tensor([1e-3, 1e3, 0.0]), torch.tensor([1.0, 1.0, 5.0]))
    assert_close(columns, torch.tensor([1e-3, 1e3, 5.0]))


def test_the_typical_distance_of_elements_is_its_root_mean_square() -> None:
    replicated = torch.zeros(999, 4)
    data, others = typical_distance(torch.tensor([0.0, 2.0, 0.0, 2.0]), replicated, torch.ones(4))
    assert data.item() == pytest.approx(0.999 * 2**0.5)
    assert_close(others, torch.full((999,), 0.001 * 2**0.5))


class Linear(nn.Module):
    """Four numbers that follow two codes, and a guide that is exact for whatever the model says."""

    def __init__(self, weight: Tensor, noise: float = 0.5, prior: float = 1.0) -> None:
        super().__init__()
        self.weight, self.noise, self.prior = nn.Parameter(weight), noise, prior

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), self.prior).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight.T, self.noise).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        precision = self.weight.T @ self.weight / self.noise**2 + torch.eye(2) / self.prior**2
        covariance = precision.inverse()
        loc = x @ self.weight @ covariance / self.noise**2
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, covariance))


WEIGHT = 2 * drawn(4, 2, seed=3)
X = drawn(600, 2, seed=4) @ WEIGHT.T + 0.5 * drawn(600, 4, seed=5)
HELD = X[300:]


@functools.cache
def linear(noise: float = 0.5, prior: float = 1.0) -> pg.Run:
    """A run of the linear story as it is, on the first 300 rows."""
    return as_it_is(Linear(WEIGHT.clone(), noise, prior), X[:300])


def test_a_true_story_makes_data_like_the_data() -> None:
    verdict = pg.check(linear(), HELD, level="full", train=X[:300], draws=400, progress=False)

    for name in ("posterior predictive", "prior predictive", "LOO-PIT", "generated data", "memory"):
        assert verdict[name].status == "pass", verdict[name]
    assert verdict["training rows"].status == "pass"
    assert verdict["conditions"].status == "not applicable"


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_noise_of_the_wrong_size_is_found_in_replicates(factor: float) -> None:
    finding = posterior_predictive(Subject(linear(noise=0.5 * factor), HELD, draws=100))

    assert finding.status == "fail"
    assert "spread of x" in finding.meaning


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_prior_of_the_wrong_scale_is_found_in_what_is_made_from_scratch(factor: float) -> None:
    """And less in replicates, whose codes follow the data."""
    subject = Subject(linear(prior=factor), HELD, draws=400)

    assert prior_predictive(subject).status == "fail"
    assert loo_pit(subject).status in ("warn", "fail")
    assert posterior_predictive(subject).status != "fail"


def test_single_columns_whose_faults_cancel_are_found_and_named() -> None:
    """One column too high and one too low leave all pooled statistics as they are."""
    shift = torch.tensor([0.0, 2.0, 0.0, -2.0])

    finding = prior_predictive(Subject(linear(), HELD + shift, draws=100))

    assert finding.status == "fail"
    assert "mean of single elements of x" in finding.meaning
    assert {1.0, 3.0} == set(finding.details["elements of x of worst mean"][:2])
    assert abs(finding.details["mean of x"][2]) < 0.1


def test_a_single_value_beyond_all_others_warns_and_does_not_fail() -> None:
    """Extremes hang on single rows, and one that is mistaken is no fault of the story."""
    x = HELD.clone()
    x[0, 0] = 25.0

    finding = prior_predictive(Subject(linear(), x, draws=100))

    assert finding.status == "warn"
    assert "maximum of x" in finding.meaning


def skewness(x: Tensor) -> Tensor:
    """Of all numbers."""
    return ((x - x.mean()) / x.std()).pow(3).mean()


def test_a_statistic_of_ones_own_finds_what_it_is_made_for() -> None:
    """Exponential noise has the moments of the normal one that the story has, and a skewness."""
    noise = torch.distributions.Exponential(1.0).sample((600, 4)) - 1
    run = as_it_is(Linear(0.01 * WEIGHT, 1.0), noise)

    finding = pg.check(run, noise, statistics={"skewness": skewness}, draws=100, progress=False)[
        "posterior predictive"
    ]

    observed, replicated, distance, p_value = finding.details["skewness"]
    assert observed == pytest.approx(skewness(noise).item())
    assert abs(replicated) < 0.1
    assert distance > 0.5
    assert p_value < 0.02


def test_a_statistic_that_is_none_is_said() -> None:
    with pytest.raises(TypeError, match="the statistic 'mean' must be a function"):
        pg.check(linear(), HELD, statistics={"mean": 3})  # type: ignore[dict-item]
    before = torch.get_rng_state()
    subject = Subject(linear(), HELD, draws=20, statistics={"all": lambda x: x})
    with pytest.raises(pg.DataError, match="'all' must make one number of observations of shape"):
        posterior_predictive(subject)
    calls = iter(range(30))
    late = Subject(linear(), HELD, draws=20, statistics={"late": lambda x: 9 / (20 - next(calls))})
    with pytest.raises(pg.DataError, match="'late' must make one number"):
        posterior_predictive(late)
    assert torch.equal(torch.get_rng_state(), before)
    verdict = pg.check(linear(), HELD, draws=30, statistics={"all": lambda x: x}, progress=False)
    assert verdict["posterior predictive"].status == "skipped"
    assert "'all' must make one number" in verdict["posterior predictive"].meaning


def test_too_few_rows_or_draws_are_said_and_not_passed() -> None:
    few = Subject(linear(), HELD[:30], draws=10)

    assert "at least 20 draws, got 10" in posterior_predictive(few).meaning
    assert "at least 100 data, got 30" in loo_pit(few).meaning
    assert "at least 100 data, got 30" in generated_data(few)[0].meaning
    assert "at least 100 draws, got 10" in loo_pit(Subject(linear(), HELD, draws=10)).meaning
    for finding in (posterior_predictive(few), loo_pit(few), *generated_data(few)):
        assert finding.status == "skipped"


def test_as_many_replicates_are_held_at_a_time_as_memory_allows() -> None:
    """Of 300 rows of 4 numbers a megabyte holds 13, with what is computed of them."""
    subject = Subject(linear(), HELD, memory=2**20)

    blocks = list(replicates(subject, subject.batch, 30, from_prior=True))

    assert [len(block.values["x"]) for block in blocks] == [13, 13, 4]
    assert {block.values["x"].shape[1:] for block in blocks} == {(300, 4)}
    assert posterior_predictive(subject).status == "pass"


def one_by_one(x: Tensor) -> None:
    """Each number is a site of its own, in a plate that is a loop."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    for i in pyro.plate("rows", len(x)):
        pyro.sample(f"x_{i}", dist.Normal(loc, 1.0), obs=x[i])


def test_a_site_of_a_single_number_is_compared_in_units_of_its_law() -> None:
    options = {"epochs": 100, "learning_rate": 0.05, "progress": False}
    run = pg.fit((one_by_one, "AutoDelta"), drawn(30), **options)
    subject = Subject(run, drawn(30), draws=100)

    fair = posterior_predictive(subject)
    assert fair.status == "pass"
    assert fair.details["mean of x_0"][2] < 5
    assert "makes no rows" in generated_data(subject)[0].meaning
    far = drawn(30)
    far[3] = 50.0
    found = posterior_predictive(Subject(run, far, draws=100))
    assert "x_3" in found.meaning
    assert found.status == "fail"


def test_missing_values_are_missing_in_replicates_too() -> None:
    """All that is high is missing in one column: what is there is compared with what is there."""
    x = drawn(300, 2)
    x[:150, 0] = math.nan
    run = as_it_is(GMM((2,), 1, missing="integrate"), x)

    finding = posterior_predictive(Subject(run, x, draws=100))

    seen = x[~x.isnan()]
    assert finding.details["mean of x"][0] == pytest.approx(seen.mean().item(), abs=1e-6)
    assert finding.status in ("pass", "warn", "fail")


def masked_story(x: Tensor, valid: Tensor) -> None:
    """Rows that are not valid do not count."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)), pyro.poutine.mask(mask=valid):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def test_rows_that_do_not_count_are_not_compared() -> None:
    x, valid = drawn(200), torch.arange(200) < 150
    x[150:] = 1000.0
    options = {"epochs": 200, "learning_rate": 0.05, "progress": False}
    run = pg.fit((masked_story, "AutoDelta"), (x, valid), **options)

    finding = posterior_predictive(Subject(run, (x, valid), draws=100))

    assert finding.details["mean of x"][0] == pytest.approx(x[:150].mean().item(), abs=1e-5)
    assert finding.status == "pass", finding


def grey_story(x: Tensor) -> None:
    """Ten pixels, each as often white as it is in the data."""
    shade = pyro.param("shade", torch.linspace(0.1, 0.9, 10))
    with pyro.plate("rows", len(x)):
        law = dist.Bernoulli(shade, validate_args=False)
        pyro.sample("x", law.to_event(1), obs=x)


def test_grey_values_are_compared_as_what_a_bernoulli_law_makes_of_them() -> None:
    shades = torch.linspace(0.1, 0.9, 10)
    x = (shades + 0.05 * drawn(300, 10)).clamp(0, 1)
    run = as_it_is((grey_story, lambda x: None), x)
    subject = Subject(run, x, draws=100)

    assert posterior_predictive(subject).status == "pass"
    assert generated_data(subject)[0].status == "pass"


def test_the_transform_of_a_draw_of_known_rank_is_its_rank() -> None:
    grid = torch.arange(10.0)[:, None, None].expand(10, 1, 3)
    found = transforms(torch.tensor([[-0.5, 3.5, math.nan]]), grid)
    assert_close(found[0, :2], torch.tensor([0.0, 0.4], dtype=torch.float64))
    assert found[0, 2].isnan()

    weights = torch.arange(1.0, 11.0).log()[:, None]
    weighted = transforms(torch.tensor([[3.5, 3.5, 3.5]]), grid, weights)
    assert_close(weighted, torch.full((1, 3), 10 / 55, dtype=torch.float64))


def test_the_transforms_of_a_discrete_law_are_uniform_too() -> None:
    law = torch.distributions.Poisson(2.0)
    found = transforms(law.sample((2000, 1)), law.sample((400, 2000, 1)))
    assert kolmogorov_test(found[:, 0]).p_value > 0.001


def test_leaving_one_out_gives_the_posterior_without_it() -> None:
    """Of a normal mean, whose predictive law without each datum is known."""
    x = drawn(6).double()
    loc = torch.distributions.Normal(x.sum() / 7, 7**-0.5).sample((20_000,))
    likelihood = torch.distributions.Normal(loc[:, None], 1.0)
    weights, khat = leave_one_out(likelihood.log_prob(x))

    found = transforms(x[:, None], likelihood.sample((1,))[0].expand(-1, 6)[:, :, None], weights)

    exact = torch.distributions.Normal((x.sum() - x) / 6, (1 + 1 / 6) ** 0.5).cdf(x)
    assert_close(found[:, 0], exact, rtol=0, atol=0.015)
    assert (khat < 0.7).all()


def test_the_distance_from_uniform_is_that_of_the_distribution_function() -> None:
    low = kolmogorov_test(torch.linspace(0, 0.5, 200))
    assert low.distance == pytest.approx(0.5, abs=1e-6)
    even = torch.rand(200, generator=torch.Generator().manual_seed(0))
    expected = stats.kstest(even.double().numpy(), "uniform")
    assert kolmogorov_test(even).p_value == pytest.approx(float(expected.pvalue), rel=1e-6)
    assert kolmogorov_test(even, 1.4).p_value > kolmogorov_test(even).p_value
    with pytest.raises(ValueError, match="from 0 to 1"):
        kolmogorov_test(torch.tensor([2.0]))


def regression(noise: float, x: Tensor, y: Tensor) -> None:
    """A line of known noise."""
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(slope * x, noise), obs=y)


def regression_guide(x: Tensor, y: Tensor) -> None:
    """About the slope that the data have."""
    shift = pyro.param("shift", torch.tensor(0.0))
    pyro.sample("slope", dist.Normal(2.0 + shift, 0.03))


@pytest.mark.parametrize(("noise", "found"), [(1.0, False), (0.4, True), (2.5, True)])
def test_global_latents_are_left_without_each_row(noise: float, found: bool) -> None:
    x = drawn(300)
    y = 2.0 * x + drawn(300, seed=1)
    run = as_it_is((functools.partial(regression, noise), regression_guide), (x, y))
    subject = Subject(run, (x, y), draws=400)

    assert (loo_pit(subject).status == "fail") == found
    assert (posterior_predictive(subject).status == "fail") == found
    assert prior_predictive(subject).status == "not applicable"


def test_what_is_made_of_a_truncated_sample_is_told() -> None:
    """The upper fifth was cut from the rows of the fit."""
    cut = X[:300][X[:300, 0] < X[:, 0].quantile(0.8)]
    run = as_it_is(pg.models.PPCA.maximum_likelihood(cut, 2), cut)
    verdict = pg.check(run, HELD, level="full", train=cut, draws=400, progress=False)

    assert verdict["prior predictive"].status in ("warn", "fail")
    assert verdict["training rows"].status in ("warn", "fail")


class Labelled(nn.Module):
    """A label moves the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]))

    def model(self, x: Tensor, label: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = self.shift[label] + z[..., None] * torch.tensor([0.5, 0.5])
            pyro.sample("x", dist.Normal(loc, 0.5).to_event(1), obs=x)

    def guide(self, x: Tensor, label: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("exchanged", [False, True])
def test_labels_that_were_exchanged_are_read_off_what_is_made_for_them(exchanged: bool) -> None:
    """The observations alone are as they should be: only label and observation together are not."""
    label = torch.arange(300) % 3
    story = Labelled()
    x = story.shift.detach()[label] + 0.5 * drawn(300, 1) + 0.5 * drawn(300, 2, seed=1)
    run = as_it_is(story, (x, label))
    given = (label + 1) % 3 if exchanged else label

    told, conditions = generated_data(Subject(run, (x, given)))

    assert told.status == ("fail" if exchanged else "pass"), told
    assert conditions.status == ("fail" if exchanged else "pass"), conditions
    if not exchanged:
        assert conditions.figure == pytest.approx(1.0, abs=0.1)


def test_labels_are_read_as_often_as_they_show() -> None:
    label = torch.arange(400) % 2
    real, same = (4.0 * label[:, None] + drawn(400, 2, seed=s) for s in (0, 1))

    good, blind = label_test(real, same, label), label_test(real, drawn(400, 2), label)

    assert good.real > 0.95
    assert good.made > 0.95
    assert good.p_value > 0.05
    assert blind.kept < 0.2
    assert blind.p_value < 1e-6
    with pytest.raises(ValueError, match="at least 20 points"):
        label_test(real[:4], same[:4], label[:4])
    with pytest.raises(ValueError, match="labels must differ"):
        label_test(real, same, torch.zeros(400))


def test_details_of_images_warn_and_their_gross_features_fail() -> None:
    surely = ClassifierTest(0.99, 1e-9, 200)
    assert told_apart(surely, ClassifierTest(0.7, 1e-3, 200), 64).status == "warn"
    assert told_apart(surely, ClassifierTest(0.9, 1e-9, 200), 64).status == "fail"
    assert told_apart(surely, surely, 4).status == "fail"
    assert told_apart(ClassifierTest(0.8, 0.2, 20), surely, 4).status == "pass"


def test_how_much_is_kept_of_a_label_is_counted_above_chance() -> None:
    half = kept(LabelTest(real=0.9, made=0.5, chance=0.1, p_value=1e-6, points=200))
    assert half.figure == pytest.approx(0.5)
    assert half.status == "warn"
    assert kept(LabelTest(0.9, 0.5, 0.1, 0.3, 10)).status == "pass"
    assert kept(LabelTest(0.9, 0.1, 0.1, 1e-6, 200)).status == "fail"


def test_elements_that_go_together_otherwise_are_named() -> None:
    """A third number hangs on the first, which two codes of the story cannot say."""
    x = HELD.clone()
    x[:, 3] = x[:, 3].std() * (x[:, 0] / x[:, 0].std())

    finding = prior_predictive(Subject(linear(), x, draws=100))

    assert finding.status in ("warn", "fail")
    assert "correlations of elements of x" in finding.meaning
