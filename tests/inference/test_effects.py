"""What a story leaves of the data is looked at for what it lacks: effects are named, chance not."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.inference.checks.look import AGAINST, LEFT, MEANT
from ppl_gen.inference.checks.predictive import posterior_predictive
from ppl_gen.inference.checks.scales import learns_scale
from ppl_gen.inference.checks.subject import Subject
from ppl_gen.inference.estimators.contrasts import centred, contrasts_of, effects
from ppl_gen.inference.estimators.heaps import apart_from_all
from ppl_gen.inference.estimators.replicates import (
    correlations,
    shape,
)
from ppl_gen.inference.estimators.rhythms import neighbours, waves_along


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_it_is(story: object, data: Any) -> pg.Run:
    """A run whose story keeps the weights it has."""
    return pg.fit(story, data, epochs=1, learning_rate=1e-12, warm_start=True, progress=False)


HOURS, SCHOOL = drawn(400, seed=21), torch.arange(400) % 8
LEVEL, SLOPE = drawn(8, seed=22), drawn(8, seed=23)
NOISE = drawn(400, seed=24)
# Student's t of two degrees of freedom, by its quantiles (Shaw 2006, equation 37), to variance 1.
HEAVY = 2 * torch.special.ndtr(NOISE) - 1
HEAVY = HEAVY / (1 - HEAVY.square()).sqrt()
HEAVY = HEAVY / HEAVY.std()


def schools(hours: Tensor, school: Tensor, score: Tensor) -> None:
    """A level for each school, one slope for all, and noise of one size; exact where that is so."""
    with pyro.plate("rows", len(hours)):
        loc = LEVEL[school] + pyro.param("slope", torch.tensor(0.5)) * hours
        pyro.sample("score", dist.Normal(loc, 1.0), obs=score)


def no_guide(hours: Tensor, school: Tensor, score: Tensor) -> None:
    """There is nothing to guide."""


def replicated(score: Tensor, draws: int = 100) -> Any:
    """The posterior predictive finding of the schools' story on these scores."""
    run = as_it_is((schools, no_guide), (HOURS, SCHOOL, score))
    return posterior_predictive(Subject(run, (HOURS, SCHOOL, score), draws=draws))


@pytest.mark.parametrize(
    ("score", "named", "remedy"),
    [
        (
            LEVEL[SCHOOL] + 0.5 * HOURS + 0.5 * SLOPE[SCHOOL] * HOURS + NOISE,
            "mean of score along hours by school",
            "Let each school have a slope of its own, by which score follows hours.",
        ),
        (
            LEVEL[SCHOOL] + 0.5 * HOURS + 0.4 * (HOURS**2 - 1) + NOISE,
            "mean of score along hours",
            "on another curve",
        ),
        (
            LEVEL.flip(0)[SCHOOL] + 0.5 * HOURS + NOISE,
            "mean of score by school",
            "Let each school have a level of score of its own; if it has one",
        ),
        (
            LEVEL[SCHOOL] + 0.5 * HOURS + NOISE * (0.5 * HOURS).exp() / math.exp(0.25),
            "scatter of score along hours",
            "Let the scale of score depend on hours.",
        ),
        (
            LEVEL[SCHOOL] + 0.5 * HOURS + HEAVY,
            "tails of score about what is expected (of the data 0.",
            "with heavier tails, such as StudentT",
        ),
        (
            LEVEL[SCHOOL] + 0.5 * HOURS - torch.special.ndtr(NOISE).log() - 1,
            "skewness of score about what is expected (of the data 0.",
            "with a longer tail above",
        ),
        (
            LEVEL[SCHOOL] + 0.5 * HOURS + 0.2 * NOISE + 0.98 * NOISE.flip(0).sign(),
            "tails of score about what is expected (of the data -0.",
            "hang on what parts its rows",
        ),
        (
            LEVEL[SCHOOL] + 0.5 * HOURS + (8 * HOURS).sin() + 0.7 * NOISE,
            "rhythm of score along hours (every 0.7",
            "Let score come back every 0.7",
        ),
    ],
)
def test_an_effect_that_the_story_lacks_is_found_and_named(
    score: Tensor, named: str, remedy: str
) -> None:
    finding = replicated(score)

    assert finding.status in ("warn", "fail")
    assert named in finding.meaning
    assert remedy in finding.remedy
    assert finding.of_story


def test_what_goes_with_what_is_expected_is_found() -> None:
    expected = LEVEL[SCHOOL] + 0.5 * HOURS
    bent = 0.4 * expected.square()

    finding = replicated(expected + bent - bent.mean() + NOISE)
    assert "mean of score along what is expected" in finding.meaning
    grows = replicated(expected + (0.6 * expected).exp() * NOISE / (0.72 * expected.var()).exp())
    assert "scatter of score along what is expected" in grows.meaning


def test_what_is_left_can_be_drawn_against_what_it_goes_with() -> None:
    """The slopes of schools: those of the farthest are meant; of what passes nothing is drawn."""
    steeper = LEVEL[SCHOOL] + 0.5 * HOURS + 1.5 * (SCHOOL == 3) * HOURS + NOISE

    found = replicated(steeper).details

    assert found[f"{AGAINST}hours"] == pytest.approx(HOURS.tolist(), rel=1e-4)
    assert found[f"{MEANT}school 3"] == (SCHOOL == 3).double().tolist()
    left = torch.tensor(found[f"{LEFT}score"])
    assert left.square().mean().item() == pytest.approx(1.0, abs=0.02)
    meant = SCHOOL == 3
    assert torch.corrcoef(torch.stack([left[meant], HOURS[meant]]))[0, 1] > 0.6
    fair = replicated(LEVEL[SCHOOL] + 0.5 * HOURS + NOISE).details
    assert not any(name.startswith(MEANT) for name in fair)
    alone = "Or see how school 3 was recorded: it alone is far off."
    assert alone in replicated(steeper).remedy


def test_a_story_that_lacks_no_effect_passes_as_often_as_it_should() -> None:
    found = [replicated(LEVEL[SCHOOL] + 0.5 * HOURS + drawn(400, seed=s)) for s in range(40, 60)]

    assert sum(finding.status == "pass" for finding in found) >= 18


def test_values_that_are_cut_off_or_mean_something_else_are_told_first() -> None:
    true = LEVEL[SCHOOL] + 0.5 * HOURS + NOISE
    cut = replicated(true.clamp(max=1.25))
    coded = replicated(torch.where(torch.arange(400) % 20 == 3, -9.0, true))
    rounded = replicated((10 * true).round() / 10)

    assert "share of 1.25 of score (0, of the data 0." in cut.meaning
    assert cut.remedy.endswith("if values are cut off there, let the story cut its own.")
    assert "A share of 5% of score is -9 exactly" in coded.remedy
    assert rounded.status == "pass", rounded


def test_a_number_that_stands_for_another_thing_is_apart_from_all() -> None:
    x = 30 + 60 * torch.rand(100, generator=torch.Generator().manual_seed(0))
    coded = torch.where(torch.arange(100) % 10 == 3, -999.0, x)

    assert apart_from_all(coded).tolist() == [-999.0]
    assert apart_from_all(x.clamp(max=70)).tolist() == [], "cut off, and next to others"
    assert apart_from_all(torch.where(coded < 0, 0.0, x)).tolist() == [], "no farther than others"
    assert apart_from_all(torch.where(coded < 0, math.nan, x)).tolist() == []


def test_a_column_with_a_stand_in_is_looked_at_without_it() -> None:
    """The story follows hours as a line; -99 in some rows is none of their curve or rhythm."""
    given = torch.where(torch.arange(400) % 20 == 3, -99.0, HOURS)
    data = given, SCHOOL, LEVEL[SCHOOL] + 0.5 * given + NOISE
    with pytest.warns(UserWarning, match="20 rows have -99 in hours, and all others from"):
        run = as_it_is((schools, no_guide), data)

    verdict = pg.check(run, data, progress=False)

    assert verdict["doctor"].status == "fail"
    assert "20 rows have -99 in hours, and all others from -" in verdict["doctor"].meaning
    assert "rhythm of score along hours" not in verdict["posterior predictive"].meaning
    reach = HOURS.max() - HOURS.min()
    for far, status in ((0.5, "pass"), (2.0, "warn"), (4.0, "fail")):
        near = torch.where(given < -9, HOURS.min() - far * reach, HOURS)
        found = pg.doctor((schools, no_guide), (near, SCHOOL, data[2]))["stand-ins"]
        assert found.status == status
    seen = torch.where(given < -9, -99.0, HOURS)
    held = pg.doctor((schools, no_guide), (HOURS, SCHOOL, seen))["stand-ins"]
    assert held.status == "pass", "what is observed may be masked"


def ratings(x: Tensor) -> None:
    """Normal, of a known mean and deviation."""
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(pyro.param("mean", torch.tensor(3.0)), 1.0), obs=x)


def test_few_whole_numbers_under_a_density_are_told() -> None:
    x = (3 + drawn(300)).round().clamp(1, 5)
    finding = posterior_predictive(Subject(as_it_is((ratings, nothing), x), x, draws=100))
    many = (3 + drawn(300) * 10).round() / 10
    other = posterior_predictive(Subject(as_it_is((ratings, nothing), many), many, draws=100))

    assert "All of x are 5 whole numbers from 1 to 5: take a law of such" in finding.remedy
    assert "whole numbers" not in other.meaning


def pressures(low: Tensor, high: Tensor) -> None:
    """Two sites that know nothing of each other."""
    with pyro.plate("rows", len(low)):
        mean = pyro.param("mean", torch.tensor(0.0))
        pyro.sample("low", dist.Normal(mean, 1.0), obs=low)
        pyro.sample("high", dist.Normal(mean, 1.0), obs=high)


def test_sites_that_go_together_otherwise_are_named() -> None:
    low, other = drawn(300), drawn(300, seed=1)
    for high, together in ((0.7 * low + 0.51**0.5 * other, True), (other, False)):
        run = as_it_is((pressures, lambda low, high: None), (low, high))
        finding = posterior_predictive(Subject(run, (low, high), draws=100))
        assert (finding.status == "fail") == together
        assert ("correlations of low and high (low and high: of" in finding.meaning) == together
        assert finding.remedy.startswith("Let low and high be told together") == together


def test_whole_numbers_that_a_law_does_not_take_are_told_before_a_fit() -> None:
    def sprouted(x: Tensor, y: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=slope * x), obs=y)

    x = drawn(40)
    with pytest.raises(pg.StoryError, match=r"'y' is Bernoulli and .* got int64: give it obs=y.fl"):
        pg.fit((sprouted, "AutoNormal"), (x, (x > 0).long()), epochs=1, progress=False)


def test_a_single_row_far_out_is_no_scatter_of_its_neighbours() -> None:
    score = LEVEL[SCHOOL] + 0.5 * HOURS + NOISE
    score[7] += 12

    finding = replicated(score)

    assert "maximum of score" in finding.meaning
    assert "scatter" not in finding.meaning


def daily(day: Tensor, count: Tensor) -> None:
    """As many on each day, but for what a gamma law scatters."""
    with pyro.plate("rows", len(day)):
        law = dist.GammaPoisson(4.0, pyro.param("rate", torch.tensor(0.8)))
        pyro.sample("count", law, obs=count)


def of_days(mean: Tensor) -> Any:
    """The finding of the daily story on counts about these means, their days in no order."""
    day = torch.randperm(len(mean), generator=torch.Generator().manual_seed(3)).float()
    generator = torch.Generator().manual_seed(4)
    count = torch.poisson(mean[day.long()], generator=generator)
    run = as_it_is((daily, no_rows), (day, count))
    return posterior_predictive(Subject(run, (day, count), draws=100))


def no_rows(day: Tensor, count: Tensor) -> None:
    """There is nothing to guide."""


DAYS = torch.arange(364)


@pytest.mark.parametrize("numbers", [torch.arange(3), torch.zeros(400), [[1]]])
def test_row_numbers_that_are_none_are_refused(numbers: Any) -> None:
    data = HOURS, SCHOOL, LEVEL[SCHOOL] + 0.5 * HOURS + NOISE
    run = as_it_is((schools, no_guide), data)
    with pytest.raises(pg.DataError, match="a whole number for each of the 400 rows"):
        pg.check(run, data, row_numbers=numbers, progress=False)


def test_a_rhythm_in_the_order_of_the_rows_is_found_though_they_were_divided() -> None:
    """Seven of ten rows, at random, and no column that tells the day."""
    level = LEVEL[SCHOOL] + 0.5 * HOURS + 0.8 * NOISE
    score = level + 1.2 * (2 * math.pi * torch.arange(400) / 7).sin()
    kept = torch.randperm(400, generator=torch.Generator().manual_seed(5))[:280]
    data = HOURS[kept], SCHOOL[kept], score[kept]
    run = as_it_is((schools, no_guide), data)

    told = pg.check(run, data, row_numbers=kept, progress=False)["posterior predictive"]
    untold = posterior_predictive(Subject(run, data, draws=100))

    assert "rhythm of score in the order of the data (every 7 of the rows" in told.meaning
    assert "every 7 of" not in untold.meaning


def test_a_rhythm_that_is_known_in_part_is_told_by_what_is_missing() -> None:
    """A weekend less its sine of seven days."""
    day = torch.arange(364)
    weekend = torch.where(day % 7 < 2, 8.0, 3.0)
    phase = 2 * math.pi * day / 7
    sine = torch.stack([phase.cos(), phase.sin(), torch.ones(364)], 1)
    followed = sine @ torch.linalg.lstsq(sine, weekend[:, None]).solution[:, 0]
    waves = waves_along(day)
    assert waves is not None

    power = waves.power((weekend - followed).double()[None, :, None])

    assert waves.period(int(power[0].argmax())) == (7.0, 2)


def test_what_acts_on_the_next_row_is_found() -> None:
    score = LEVEL[SCHOOL] + 0.5 * HOURS + 0.8 * NOISE + 0.8 * HOURS.roll(1)
    data = HOURS, SCHOOL, score
    kept = torch.randperm(400, generator=torch.Generator().manual_seed(5))[:280]
    part = tuple(column[kept] for column in data)

    for given, numbers in ((data, None), (part, kept)):
        run = as_it_is((schools, no_guide), given)
        found = pg.check(run, given, row_numbers=numbers, progress=False)["posterior predictive"]
        assert "mean of score along hours of the row before" in found.meaning
        assert found.remedy == "Let score depend on hours of the row before, too."


def test_what_comes_back_every_week_is_found_though_a_wide_law_hides_it() -> None:
    sine = of_days(5 * (1 + 0.7 * (2 * math.pi * DAYS / 7).sin()))
    weekend = of_days(torch.where(DAYS % 7 < 2, 10.0, 3.0))

    for finding in (sine, weekend):
        assert finding.status in ("warn", "fail")
        assert (
            "rhythm of count along day (every 7 of day: the data rise and fall" in finding.meaning
        )
        assert "or with a level for each day modulo 7." in finding.remedy
        assert max(finding.details[f"{AGAINST}day modulo 7"]) == 6


def test_rows_near_each_other_along_a_column_that_are_alike_are_named() -> None:
    """Nothing comes back; each day remembers the one before."""
    walk = drawn(364, seed=30)
    for i in range(1, 364):
        walk[i] = 0.8 * walk[i - 1] + 0.6 * walk[i]

    mean = (0.5 * walk).exp()
    finding = of_days(5 * mean / mean.mean())

    assert finding.status in ("warn", "fail")
    assert "rows of count that follow each other along day (of the data 0." in finding.meaning
    assert "lie near each other along day be alike" in finding.remedy


@pytest.mark.parametrize("memory", [0.5, 0.9])
def test_what_wanders_slowly_does_not_come_back(memory: float) -> None:
    """Of noise that remembers the row before, few waves stand out as they do of noise that has no
    memory; a true sine does, whatever the noise."""
    walk = drawn(40, 300, seed=31).double()
    for i in range(1, 300):
        walk[:, i] = memory * walk[:, i - 1] + (1 - memory**2) ** 0.5 * walk[:, i]
    waves = waves_along(torch.arange(300.0))
    assert waves is not None

    def highest(x: Tensor, how: Any) -> Tensor:
        return how(x[:, :, None] - x[:, :, None].mean(1, keepdim=True)).amax(1)

    usual = highest(drawn(40, 300, seed=32).double(), waves.peaks).quantile(0.95)
    assert (highest(walk, waves.peaks) > usual).double().mean() < 0.3
    assert (highest(walk, waves.power) > usual).double().mean() > 0.7
    sine = walk + 2 * (2 * math.pi * torch.arange(300) / 10).sin()
    assert (highest(sine, waves.peaks) > usual).all()


def test_rows_that_follow_each_other_and_are_alike_are_named_and_never_fail() -> None:
    """Noise that remembers the row before, of which the story knows nothing."""
    noise = NOISE.clone()
    for i in range(1, 400):
        noise[i] = 0.7 * noise[i - 1] + 0.51**0.5 * noise[i]

    finding = replicated(LEVEL[SCHOOL] + 0.5 * HOURS + noise)

    assert finding.status == "warn"
    assert "correlation of rows of score that follow each other (of the data 0." in finding.meaning
    assert "If rows have an order, as time gives them" in finding.remedy


def test_correlations_and_neighbours_are_those_of_numpy() -> None:
    x = drawn(3, 60, 4)
    found = correlations(x)
    for one, exact in zip(found, x, strict=True):
        expected = torch.corrcoef(exact.T.double())[tuple(torch.triu_indices(4, 4, 1))]
        assert_close(one, expected)
    line = torch.sin(torch.arange(200.0) / 10)[None, :, None]
    assert neighbours(line).item() > 0.95
    assert abs(neighbours(drawn(1, 4000, 1)).item()) < 0.06


def test_ratios_of_l_moments_are_those_of_scipy() -> None:
    x = drawn(2, 50, 3).exp()
    x[:, :7, 1] = math.nan

    found = shape(x)

    for replicate, exact in zip(found, x.double(), strict=True):
        for element in range(3):
            known = exact[~exact[:, element].isnan(), element].numpy()
            expected = stats.lmoment(known, order=[3, 4], standardize=True)
            assert_close(replicate[:, element], torch.tensor(expected), rtol=1e-9, atol=1e-12)


def test_an_element_of_few_rows_has_no_shape_and_spoils_no_other() -> None:
    x = drawn(3, 60, 3)
    x[:, 3:, 0] = math.nan
    x[:, :, 1] = 1.0

    found = shape(x)

    assert found[:, :, 0].abs().max() == 0
    assert found.isfinite().all()
    few = drawn(8, 12)
    run = as_it_is((wide, nothing), few)
    few[:, 3] = math.nan
    assert posterior_predictive(Subject(run, few, draws=40)).status != "skipped"


def wide(x: Tensor) -> None:
    """Twelve numbers a row; what is missing does not count."""
    with pyro.plate("rows", len(x)):
        law = dist.Normal(pyro.param("mean", torch.tensor(0.0)).expand(12), 1.0)
        counts = ~x.isnan()
        pyro.sample("x", law.mask(counts).to_event(1), obs=x.nan_to_num())


def test_waves_explain_what_least_squares_do() -> None:
    """At uneven times, some of them missing."""
    when, x = 50 * drawn(80).double(), drawn(2, 80, 3).double()
    when[:5] = math.nan
    x[:, :5] = 0
    x = x - x[:, 5:].mean(1, keepdim=True)
    x[:, :5] = 0

    waves = waves_along(when)

    assert waves is not None
    found = waves.power(x)
    for wave in (0, 3, len(waves.periods) - 1):
        phase = 2 * math.pi * when[5:] / waves.periods[wave]
        both = torch.stack([torch.ones(75), phase.cos(), phase.sin()], 1).double()
        rest = x[:, 5:] - both @ torch.linalg.lstsq(both.expand(2, -1, -1), x[:, 5:]).solution
        expected = 1 - rest.square().sum(1) / x.square().sum(1)
        assert_close(found[:, wave], expected.mean(1))
    assert waves_along(torch.arange(40.0)) is None
    assert waves_along((torch.arange(400) % 20).float()) is None


@pytest.mark.parametrize(("period", "told"), [(7, 7.0), (3.5, 7.0), (7 / 3, 7.0), (30, 30.0)])
def test_of_whole_numbers_the_period_is_one_where_it_can_be(period: float, told: float) -> None:
    days = torch.arange(365.0)
    waves = waves_along(days)
    assert waves is not None

    sine = (2 * math.pi * days.double() / period).sin()
    power = waves.power((sine - sine.mean())[None, :, None])

    assert power.max().item() > 0.8
    assert waves.period(int(power[0].argmax())) == (told, round(told / period))
    halves = waves_along(days / 2)
    assert halves is not None
    assert halves.period(int(power[0].argmax()))[0] == pytest.approx(period / 2, rel=0.02)


def test_the_scatter_of_all_rows_is_none_of_an_effect() -> None:
    """Counts that vary more than a Poisson law's do so in every group."""
    finding = replicated(LEVEL[SCHOOL] + 0.5 * HOURS + 2 * NOISE)

    assert finding.status == "fail"
    assert "sd of score" in finding.meaning
    assert finding.remedy == "Let the scale of score be learned."


def counted(x: Tensor) -> None:
    """One rate for all."""
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Poisson(pyro.param("rate", torch.tensor(3.0))), obs=x)


def nothing(x: Tensor) -> None:
    """There is nothing to guide."""


# Of the law's mean and, nearly, its spread; but all are even.
COUNTS = 2 * torch.poisson(torch.full((500,), 1.5), generator=torch.Generator().manual_seed(0))


def learned(x: Tensor) -> None:
    """A scale is drawn, one learned, and one known."""
    drawn = pyro.sample("drawn", dist.HalfNormal(1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("a", dist.Normal(0.0, drawn), obs=x)
        pyro.sample("b", dist.Normal(0.0, pyro.param("of_b", torch.tensor(1.0))), obs=x)
        pyro.sample("c", dist.Normal(drawn, torch.tensor(2.0)).expand([len(x)]), obs=x)
        pyro.sample("d", dist.Poisson(drawn), obs=x.abs().round())


def test_whether_a_scale_is_learned_is_read_off_what_it_depends_on() -> None:
    x = drawn(50)
    subject = Subject(pg.fit((learned, "AutoDelta"), x, epochs=2, progress=False), x)
    before = torch.get_rng_state()

    assert [learns_scale(subject, site) for site in "abc"] == [True, True, False]
    assert learns_scale(subject, "none") is None
    assert torch.equal(torch.get_rng_state(), before)


def test_counts_that_vary_more_than_their_law_are_told_which_law_does() -> None:
    rate = torch.distributions.Gamma(1.0, 1 / 3).sample((500,))
    x = torch.poisson(rate, generator=torch.Generator().manual_seed(0))

    finding = posterior_predictive(Subject(as_it_is((counted, nothing), x), x, draws=100))

    assert finding.status == "fail"
    assert "GammaPoisson" in finding.remedy
    assert "scale of x be learned" not in finding.remedy


def test_contrasts_are_orthonormal_and_give_back_the_effects_that_are_there() -> None:
    found = {c.name: c for c in contrasts_of({"hours": HOURS, "school": SCHOOL.float()})}

    assert set(found) == {"along hours", "by school", "along hours by school"}
    for contrast in found.values():
        gram = contrast.functions.T @ contrast.functions / len(HOURS)
        assert_close(gram, torch.eye(len(gram), dtype=torch.float64))
    # Levels of groups, in deviations of the rest, come back by their shares of the rows.
    rest = NOISE.double()
    by_school = found["by school"]
    rest = rest - by_school.functions @ (by_school.functions.T @ rest) / 400
    rest = rest / rest.square().mean().sqrt()
    level = LEVEL.double() - LEVEL.double().mean()
    mean, _ = effects(centred((level[SCHOOL] + rest)[None, :, None]), by_school)
    assert_close(mean[0, :, 0] / by_school.shares.sqrt(), level)
    # One slope for all is none that differs by school; and neither are levels.
    slopes, _ = effects(
        centred((level[SCHOOL] + 3 * HOURS.double() + rest)[None, :, None]),
        found["along hours by school"],
    )
    alone, _ = effects(centred(rest[None, :, None]), found["along hours by school"])
    assert_close(slopes, alone)


def test_numbers_that_cannot_part_rows_make_no_contrast() -> None:
    assert contrasts_of({"one": torch.ones(50)}) == []
    assert contrasts_of({"none": torch.full((50,), math.nan)}) == []
    assert [c.name for c in contrasts_of({"a": drawn(50), "twice": 2 * drawn(50)})] == [
        "along a",
        "along twice",
        "along twice times a",
    ]
    many = {str(i): drawn(50, seed=i) for i in range(8)}
    assert all(len(c.names) == 1 for c in contrasts_of(many))


def test_a_statistic_of_ones_own_that_alone_is_off_has_a_remedy_of_its_own() -> None:
    run = as_it_is((counted, nothing), COUNTS)
    odd = {"share of odd": lambda x: (x % 2).mean()}

    finding = pg.check(run, COUNTS, statistics=odd, progress=False)["posterior predictive"]

    assert "what share of odd measures" in finding.remedy
