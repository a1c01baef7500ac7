"""Runs are ranked as the exact predictive densities rank them, and only where these compare."""

import json
import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta
from torch import Tensor, nn

import ppl_gen as pg
from ppl_gen.inference import Candidate, Comparison, LeaveOneOut
from ppl_gen.models import PPCA, VAE, AutoEncoder

# Some of the guides here are blind on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:The guide draws 'z' from the same law")


class Conjugate(pg.Story):
    """A mean with a normal prior, data around it, and a guide set to the exact posterior.

    The posterior is that of ``total``, the sum of so many ``rows``.
    """

    def __init__(self, rows: int, total: float, noise: float = 1.0, prior: float = 3.0) -> None:
        super().__init__()
        self.noise, self.prior = noise, nn.Parameter(torch.tensor(prior))
        loc, variance = self.posterior(rows, total, noise, prior)
        self.loc = nn.Parameter(torch.tensor(loc))
        self.scale = nn.Parameter(torch.tensor(math.sqrt(variance)))

    @staticmethod
    def posterior(rows: int, total: float, noise: float, prior: float) -> tuple[float, float]:
        """Mean and variance of the mean, in closed form."""
        variance = 1 / (1 / prior**2 + rows / noise**2)
        return variance * total / noise**2, variance

    def model(self, x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, self.prior))
        with pyro.plate("observations", len(x)):
            pyro.sample("x", dist.Normal(mean, self.noise), obs=x[:, 0])

    def guide(self, x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(self.loc, self.scale))


def as_it_is(story: object, data: object) -> pg.Run:
    """A run of a story that is fitted already."""
    return pg.fit(
        story, data, epochs=1, learning_rate=1e-9, warm_start=True, progress=False, device="cpu"
    )


def three_parts(x: Tensor, held_out: int) -> pg.data.Dataset:
    parts = (x[: -2 * held_out], x[-2 * held_out : -held_out], x[-held_out:])
    return pg.data.Dataset(
        "made up", pg.data.Support.REAL, *(pg.data.Part((part,)) for part in parts)
    )


@pytest.fixture(scope="module")
def normal() -> pg.data.Dataset:
    """Rows of mean 1 and deviation 1."""
    torch.manual_seed(0)
    return three_parts(1 + torch.randn(100, 1), 30)


@pytest.fixture(scope="module")
def conjugate(normal: pg.data.Dataset) -> dict[str, pg.Run]:
    """Runs that know the noise, and that think it twice as large."""
    x = normal.train.x
    return {
        f"noise={noise:g}": as_it_is(Conjugate(len(x), x.sum().item(), noise), normal)
        for noise in (2.0, 1.0)
    }


@pytest.fixture(scope="module")
def linear() -> pg.data.Dataset:
    """Rows that two directions and noise make up."""
    torch.manual_seed(0)
    weight = torch.randn(2, 6)
    return three_parts(torch.randn(600, 2) @ weight + 0.4 * torch.randn(600, 6), 100)


@pytest.fixture(scope="module")
def ppca(linear: pg.data.Dataset) -> dict[str, pg.Run]:
    """Maximum-likelihood fits of 1 to 4 directions, with exact posteriors."""
    return {
        str(latent): as_it_is(PPCA.maximum_likelihood(linear.train.x, latent), linear)
        for latent in range(1, 5)
    }


def test_with_exact_guides_the_figures_are_exact(
    linear: pg.data.Dataset, ppca: dict[str, pg.Run]
) -> None:
    found = pg.compare(ppca, linear, draws=3)

    x = linear.valid.x
    exact = {name: run.story.log_evidence(x).detach().double() for name, run in ppca.items()}
    best = max(exact, key=lambda name: exact[name].mean())
    assert found.best.name == best
    for name, nats in exact.items():
        candidate, difference = found[name], nats - exact[best]
        assert candidate.nats == pytest.approx(nats.mean().item(), abs=1e-5)
        assert candidate.error == pytest.approx(0, abs=1e-5)
        assert candidate.difference == pytest.approx(difference.mean().item(), abs=1e-5)
        error = difference.std().item() / math.sqrt(len(x))
        assert candidate.difference_error == pytest.approx(error, abs=1e-5)
    assert [c.nats for c in found.candidates] == sorted(c.nats for c in found.candidates)[::-1]


def test_the_simplest_story_that_foretells_as_well_is_recommended(
    linear: pg.data.Dataset, ppca: dict[str, pg.Run]
) -> None:
    found = pg.compare(ppca, linear, draws=30)
    assert found.recommended.name == "2"
    assert not found["1"].near_best
    assert "cannot tell them apart: take '2', the simplest of them (19" in found.sentences[0]


def test_parameters_are_those_of_the_model_alone(
    linear: pg.data.Dataset, ppca: dict[str, pg.Run], conjugate: dict[str, pg.Run],
    normal: pg.data.Dataset,
) -> None:  # fmt: skip
    """Of PPCA weight, mean and scale; of the conjugate story its mean and the prior's width."""
    found = pg.compare(ppca, linear, draws=2)
    for latent in range(1, 5):
        assert found[str(latent)].parameters == 6 * latent + 6 + 1
    assert all(c.parameters == 2 for c in pg.compare(conjugate, normal, draws=2).candidates)


def test_the_predictive_density_is_the_exact_one(
    normal: pg.data.Dataset, conjugate: dict[str, pg.Run]
) -> None:
    """Over the posterior of the mean; within the error that is given for shared draws."""
    found = pg.compare(conjugate, normal, draws=2000)

    for noise in (1.0, 2.0):
        x = normal.train.x
        loc, variance = Conjugate.posterior(len(x), x.sum().item(), noise, 3.0)
        law = dist.Normal(loc, math.sqrt(noise**2 + variance))
        exact = law.log_prob(normal.valid.x).mean().item()
        candidate = found[f"noise={noise:g}"]
        assert abs(candidate.nats - exact) < 4 * candidate.error
        assert candidate.error < 0.01
    assert found.best.name == found.recommended.name == "noise=1"
    assert found.held_out


def test_the_error_is_what_other_draws_change(
    normal: pg.data.Dataset, conjugate: dict[str, pg.Run]
) -> None:
    """All rows share their draws of the mean: of rows on one side of it, the errors add up.

    A deviation of 40 figures is known to 11 %; this is within three times that.
    """
    x = normal.valid.x
    for rows in (x, x[x > 1.0][:, None]):
        found = [pg.compare(conjugate, rows, draws=50, seed=seed)["noise=1"] for seed in range(40)]
        deviation = torch.tensor([candidate.nats for candidate in found]).std().item()
        told = sum(candidate.error for candidate in found) / len(found)
        assert deviation == pytest.approx(told, rel=0.34)


def test_loo_leaves_each_row_out_exactly(
    normal: pg.data.Dataset, conjugate: dict[str, pg.Run]
) -> None:
    """The posterior without a row has a closed form, and so has its density of the row."""
    found = pg.compare(conjugate, normal, draws=4000)

    x = normal.train.x[:, 0].tolist()
    for noise in (1.0, 2.0):
        exact, inside = [], []
        for row in x:
            for kept, total, densities in (
                (len(x) - 1, sum(x) - row, exact),
                (len(x), sum(x), inside),
            ):
                loc, variance = Conjugate.posterior(kept, total, noise, 3.0)
                law = dist.Normal(loc, math.sqrt(noise**2 + variance))
                densities.append(law.log_prob(torch.tensor(row)).item())
        loo = found[f"noise={noise:g}"].loo
        assert loo is not None
        assert loo.nats == pytest.approx(sum(exact) / len(x), abs=2e-3)
        assert loo.parameters == pytest.approx(sum(inside) - sum(exact), rel=0.1)
        assert loo.error == pytest.approx(
            torch.tensor(exact).std(correction=0).item() / math.sqrt(len(x)), rel=0.05
        )
        assert loo.distrusted == 0


def test_points_score_by_their_likelihood_and_have_no_loo(normal: pg.data.Dataset) -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
        with pyro.plate("observations", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x[:, 0])

    runs = {
        name: pg.fit((model, AutoDelta), normal, epochs=epochs, progress=False, device="cpu")
        for name, epochs in (("short", 1), ("long", 30))
    }
    found = pg.compare(runs, normal, draws=50)

    for name, run in runs.items():
        point = run.parameters()["AutoDelta.mean"] if "AutoDelta.mean" in run.parameters() else (
            next(iter(run.parameters().values()))
        )  # fmt: skip
        exact = dist.Normal(point, 1.0).log_prob(normal.valid.x).mean().item()
        assert found[name].nats == pytest.approx(exact, abs=1e-5)
        assert found[name].error == 0
    assert "LOO is not applicable: there is no posterior of what the rows share" in str(found)


def test_a_story_of_vectors_and_one_of_images_are_compared_on_the_same_rows() -> None:
    torch.manual_seed(0)
    images = three_parts(torch.randn(60, 2, 2), 10)
    rows = three_parts(torch.cat([part.x for part in images.parts]).flatten(1), 10)
    vae = VAE((2, 2), latent=1, hidden=(4,))
    runs = {
        "images": pg.fit(vae, images, epochs=1, progress=False),
        "vectors": pg.fit(PPCA((4,), 1), rows, epochs=1, progress=False),
    }
    for data in (images, rows):
        found = pg.compare(runs, data, draws=30)
        exact = runs["vectors"].evidence(rows.valid, draws=30, seed=0).mean
        assert found["vectors"].nats == pytest.approx(exact)


def test_rows_that_are_drawn_anew_are_the_same_for_every_run() -> None:
    """Restarts of one fit differ by their seed, which must not choose their rows."""
    probabilities = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    parts = (pg.data.Part((p,), redraw=True) for p in probabilities.split([40, 10, 10]))
    data = pg.data.Dataset("redrawn", pg.data.Support.BINARY, *parts)
    story = VAE((4,), latent=1, hidden=(4,), likelihood="bernoulli")
    run = pg.fit(story, data, epochs=1, progress=False, seed=0)
    other = pg.fit(run.story, data, epochs=1, learning_rate=1e-9, warm_start=True, seed=1,
                   progress=False)  # fmt: skip

    found = pg.compare({"first": run, "again": other}, data, draws=30)

    assert found["first"].nats == pytest.approx(found["again"].nats, abs=1e-5)


def test_rows_of_the_fit_are_told_from_rows_held_out(
    normal: pg.data.Dataset, conjugate: dict[str, pg.Run]
) -> None:
    found = pg.compare(conjugate, normal.train, draws=10)
    assert not found.held_out
    assert any("rows are those of the fit" in sentence for sentence in found.sentences)
    assert found.best.without_loo.startswith("the rows of the fit were not given")


class FromTheRows(Conjugate):
    """Its guide takes the mean off whatever rows it is given."""

    def guide(self, x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(self.loc * 0 + x.mean(), self.scale))


class NoPlate(Conjugate):
    """Its data are one observation."""

    def model(self, x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, self.prior))
        pyro.sample("x", dist.Normal(mean, self.noise).expand([len(x)]).to_event(1), obs=x[:, 0])


class Rounded(Conjugate):
    """It gives probabilities, to rows that it takes for counts."""

    def model(self, x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, self.prior))
        with pyro.plate("observations", len(x)):
            pyro.sample("x", dist.Poisson(mean.exp()), obs=x[:, 0].abs().round())


class Twice(Conjugate):
    """It observes each number twice."""

    def model(self, x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, self.prior))
        with pyro.plate("observations", len(x)):
            pyro.sample("x", dist.Normal(mean, self.noise), obs=x[:, 0])
            pyro.sample("y", dist.Normal(mean, self.noise), obs=x[:, 0])


@pytest.mark.parametrize(
    ("story", "sentence"),
    [
        (FromTheRows, "its guide reads what all rows share off the rows it is given"),
        (NoPlate, "its model has no plate over the data"),
        (Rounded, "give its data densities, as 'right' does, got probabilities"),
        (Twice, "observe as many numbers a row as 'right', 1, got 2"),
        (lambda *_: AutoEncoder((1,), 1, hidden=(2,)), "its guide gives each row one value of 'z'"),
    ],
)
def test_a_story_whose_evidence_does_not_compare_is_refused(
    story: type[Conjugate], sentence: str, normal: pg.data.Dataset, conjugate: dict[str, pg.Run]
) -> None:
    other = as_it_is(story(40, 40.0), normal)
    with pytest.raises(pg.DataError, match=f"run 'other' must .*{sentence}"):
        pg.compare({"right": conjugate["noise=1"], "other": other}, normal, draws=2)


def test_runs_of_other_data_are_refused(
    normal: pg.data.Dataset, conjugate: dict[str, pg.Run], ppca: dict[str, pg.Run]
) -> None:
    run = conjugate["noise=1"]
    other = as_it_is(Conjugate(30, 30.0), normal.test)
    with pytest.raises(pg.DataError, match="'other' must be fitted to the train rows"):
        pg.compare({"right": run, "other": other}, normal)
    with pytest.raises(pg.DataError, match="'other' must be fitted to the data of 'right'"):
        pg.compare({"right": run, "other": other}, normal.valid)
    with pytest.raises(pg.DataError, match="'wide' must take the rows that are compared"):
        pg.compare({"right": run, "wide": ppca["1"]}, normal)
    with pytest.raises(TypeError, match=r"runs must be given by name, .* got list"):
        pg.compare([], torch.zeros(3, 2))  # type: ignore[arg-type]
    with pytest.raises(pg.DataError, match="runs must be at least 2 to compare, got 1"):
        pg.compare({"right": run}, normal)
    with pytest.raises(pg.DataError, match="draws must be at least 1, got 0"):
        pg.compare(conjugate, normal, draws=0)


def test_figures_of_the_codes_stand_beside_the_evidence(
    linear: pg.data.Dataset, ppca: dict[str, pg.Run]
) -> None:
    """KL has a closed form here, which 200,000 draws meet within 0.03 nats."""
    found = pg.compare(ppca, linear, draws=2000)

    for name, run in ppca.items():
        law = run.story.exact_posterior(linear.valid.x)
        prior = dist.MultivariateNormal(torch.zeros(int(name)), torch.eye(int(name)))
        exact = torch.distributions.kl_divergence(law, prior).mean().item()
        candidate = found[name]
        assert candidate.kl == pytest.approx(exact, abs=0.03)
        checked = pg.check(run, linear.valid, draws=30)
        assert candidate.active_units == (checked["active units"].figure, int(name))
        assert [candidate.two_sample] == checked["aggregate posterior"].details["MMD p-value"]
        assert candidate.seconds == run.history[-1].seconds > 0


class Coded(pg.Story):
    """A code, a kind that may be summed out, and three numbers; a guide that sees nothing."""

    def __init__(self, loc: float = 0.0, summed: bool = True) -> None:
        super().__init__()
        self.law, self.summed = dist.Normal, summed
        self.loc = nn.Parameter(torch.tensor(loc))
        self.weight, self.width = nn.Parameter(torch.ones(3)), nn.Parameter(torch.tensor(2.0))

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-1):
            pyro.factor("more", torch.full((len(x),), 0.7))
            k = torch.zeros(())
            if self.summed:
                k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            z = pyro.sample("z", self.law(torch.zeros(2), self.width).to_event(1))
            loc = self.weight[:, None] * z[..., 0] + k
            with pyro.plate("columns", 3, dim=-2):
                pyro.sample("x", dist.Normal(loc, 1.0), obs=x.T)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-1):
            pyro.sample("z", dist.Normal(self.loc.expand(2), 1.0).to_event(1))


class NoDensity(dist.Normal):
    """A law that can only be drawn from."""

    def log_prob(self, value: Tensor) -> Tensor:
        """None."""
        raise NotImplementedError("this law has no density")


@pytest.fixture(scope="module")
def threes() -> pg.data.Dataset:
    """Rows without structure."""
    return three_parts(torch.randn(400, 3, generator=torch.Generator().manual_seed(0)), 120)


@pytest.mark.parametrize("summed", [True, False])
def test_kl_is_that_of_what_the_guide_draws_whatever_else_is_counted(
    summed: bool, threes: pg.data.Dataset
) -> None:
    """Sites that are summed out, and factors, are no part of it."""
    runs = {f"{loc:g}": as_it_is(Coded(loc, summed), threes) for loc in (0.0, 1.0)}

    found = pg.compare(runs, threes, draws=500)

    for name in runs:
        law = torch.distributions.Normal(float(name), 1.0)
        exact = torch.distributions.kl_divergence(law, torch.distributions.Normal(0.0, 2.0))
        assert found[name].kl == pytest.approx(2 * exact.item(), abs=0.03)
        assert found[name].active_units == (0, 2)
        assert found[name].two_sample < 0.01


def without_density(data: pg.data.Dataset) -> pg.Run:
    """The same run, as if the law of its code had draws alone."""
    run = as_it_is(Coded(), data)
    run.story.law = NoDensity
    sites = {n: replace(s, implicit=n == "z") for n, s in run.structure.sites.items()}
    run.structure = replace(run.structure, sites=sites)
    return run


def test_a_run_without_a_density_has_no_evidence_and_comes_last(threes: pg.data.Dataset) -> None:
    runs = {"weighed": as_it_is(Coded(), threes), "drawn": without_density(threes)}

    found = pg.compare(runs, threes, draws=30)

    drawn, weighed = found["drawn"], found["weighed"]
    assert found.candidates == (weighed, drawn)
    assert found.best is found.recommended is weighed
    assert math.isnan(drawn.nats)
    assert math.isnan(drawn.kl)
    assert (drawn.parameters, drawn.active_units) == (weighed.parameters, weighed.active_units)
    assert drawn.two_sample == weighed.two_sample
    assert not drawn.near_best
    assert any("'drawn' has no evidence, as the prior of 'z' can be drawn" in sentence
               for sentence in found.sentences)  # fmt: skip
    assert json.loads(found.to_json())["candidates"][1]["nats"] is None
    neither = pg.compare({**runs, "weighed": without_density(threes)}, threes, draws=30)
    assert neither.sentences[0] == "No run has an evidence, so that they cannot be ranked."
    assert "nan" not in str(neither)


def candidate(name: str, difference: float, error: float, parameters: int) -> Candidate:
    return Candidate(name, -2 + difference, 0.01, difference, error, 0.0, parameters)


def test_two_standard_errors_are_the_limit() -> None:
    best, near = candidate("a", 0.0, 0.0, 9), candidate("b", -0.2, 0.1, 5)
    far = candidate("[c]", -0.21, 0.1, 1)
    found = Comparison((best, near, far), data=50, draws=10)
    assert (near.near_best, far.near_best) == (True, False)
    assert found.recommended is near
    alone = Comparison((best, far), data=50, draws=10)
    assert alone.recommended is best
    assert "no other run comes within two standard errors of it" in alone.sentences[0]
    assert "[c]" in str(found)


def test_columns_stand_where_a_run_has_figures_for_them_and_fit_on_a_page() -> None:
    plain = str(Comparison((candidate("a", 0.0, 0.0, 9), candidate("b", -1.0, 0.1, 9)), 50, 10))
    for heading in ("KL", "active", "sample", "LOO", "seconds"):
        assert heading not in plain
    long = "latent=10,prior=mixture(components=100)"
    full = Candidate(
        long, -1234.567, 0.012, -1.234, 0.123, 0.25, 1234567,
        kl=25.25, active_units=(12, 50), two_sample=0.002, seconds=1234.4,
    )  # fmt: skip
    text = str(Comparison((candidate("a", 0.0, 0.0, 9), full), 50, 10))
    for cell in ("-1234.567 ± 0.012", "-1.234 ± 0.123", "25%", "1234567", "25.25", "12 of 50",
                 "0.002", "1234"):  # fmt: skip
        assert cell in text
    assert max(map(len, text.splitlines())) <= 110


def test_it_is_written_as_json_and_what_is_missing_is_null() -> None:
    loo = LeaveOneOut(-2.0, 0.1, 3.0, 0.25)
    best = Candidate("a", -2.0, 0.1, 0.0, 0.0, 0.5, 3, loo, active_units=(5, 8), two_sample=0.5)
    rest = Candidate("b", -math.inf, 0.0, -math.inf, math.nan, math.nan, 1)
    found = Comparison((best, rest), data=4, draws=10)
    plain = json.loads(found.to_json())
    assert (plain["best"], plain["recommended"], plain["data"]) == ("a", "a", 4)
    assert plain["candidates"][0]["loo"]["distrusted"] == 0.25
    assert plain["candidates"][0]["active_units"] == [5, 8]
    assert [c["two_sample"] for c in plain["candidates"]] == [0.5, None]
    assert plain["candidates"][1]["nats"] is None
    assert any("hangs on a few draws for 50%" in sentence for sentence in plain["sentences"])
    assert any("LOO of 'a' is not to be trusted for 25.0%" in s for s in plain["sentences"])
    with pytest.raises(KeyError, match="no run 'x'"):
        found["x"]
