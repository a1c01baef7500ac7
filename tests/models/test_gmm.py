"""The Gaussian mixture: against closed forms, scikit-learn, and itself told in other ways."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.component import from_configuration
from ppl_gen.errors import StoryError
from ppl_gen.mixture_priors import HalfNormalScale
from ppl_gen.models.gmm import GMM
from ppl_gen.story import Maximisable, OpenEnded

COVARIANCES = ["full", "tied", "diagonal", "spherical"]
LAWS = ["normal", "student-t"]
ASSIGNMENTS = ["summed", "enumerated", "amortised"]
POSTERIORS = ["map", "ml", "normal", "full", "AutoLowRankMultivariateNormal", "AutoIAFNormal"]


def _clusters(rows: int = 300, missing: float = 0.0) -> Tensor:
    """Three round clusters in the plane, some of the values missing."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [6.0, 6.0], [0.0, 9.0]])
    labels = torch.randint(3, (rows,), generator=generator)
    x = centres[labels] + torch.randn(rows, 2, generator=generator)
    absent = torch.rand(rows, 2, generator=generator) < missing
    return torch.where(absent, math.nan, x)


def _iris() -> Tensor:
    return torch.from_numpy(load_iris(return_X_y=True)[0])


def _started(x: Tensor, components: Any = 3, **arguments: Any) -> GMM:
    torch.manual_seed(0)
    story = GMM(tuple(x.shape[1:]), components, **arguments)
    story.start(x)
    return story


def _climbed(story: GMM, x: Tensor, steps: int = 1000, tolerance: float = 1e-7) -> list[float]:
    """The log-likelihood at every step of EM."""
    found: list[float] = []
    for _ in range(steps):
        table = story.statistics(x)
        found.append(float(table["log_likelihood"]))
        if len(found) > 1 and found[-1] - found[-2] < tolerance:
            break
        story.maximise(table)
    return found


def _elbo(story: GMM, x: Tensor, estimator: Any = None) -> float:
    return -(estimator or Trace_ELBO()).loss(story.model, story.guide, x)


@pytest.mark.parametrize(("components", "best"), [(2, -214.355), (3, -180.185)])
def test_em_finds_the_known_maximum_on_iris(components: int, best: float) -> None:
    """Total log-likelihoods that scikit-learn and R's mclust report for full covariances."""
    x = _iris()
    for seed in range(3):
        torch.manual_seed(seed)
        story = GMM((4,), components)
        story.start(x)
        assert _climbed(story, x)[-1] == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize("missing", ["refuse", "integrate"])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_no_step_of_em_lowers_the_likelihood(covariance: Any, law: Any, missing: Any) -> None:
    x = _iris()
    if missing == "integrate":
        absent = torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.2
        x = torch.where(absent, math.nan, x)
    found = _climbed(_started(x, 3, covariance=covariance, law=law, missing=missing), x, steps=30)
    assert found[-1] > found[0] + 0.3
    assert all(later > earlier - 1e-7 for earlier, later in pairwise(found))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_scores_are_those_of_scikit_learn_at_the_same_parameters(covariance: Any) -> None:
    x = _iris()
    story = _started(x, 3, covariance=covariance)
    _climbed(story, x, steps=8)
    kind = {"diagonal": "diag"}.get(covariance, covariance)
    reference: Any = GaussianMixture(3, covariance_type=kind)
    reference.weights_, reference.means_ = story.weights.numpy(), story.means.numpy()
    matrices = story.covariances
    variances = matrices.diagonal(dim1=-2, dim2=-1)
    precisions = {"full": matrices.inverse(), "tied": matrices[0].inverse()}
    precisions |= {"diagonal": 1 / variances, "spherical": 1 / variances[:, 0]}
    found = precisions[covariance]
    # scikit-learn's factors are upper triangular, their product with their transpose the inverse.
    dense = covariance in ("full", "tied")
    factors = torch.linalg.cholesky(found.flip(-1, -2)).flip(-1, -2) if dense else found.sqrt()
    reference.precisions_cholesky_ = factors.numpy()
    reference.covariances_ = np.zeros(1)

    data = x.numpy()
    assert_close(story.score_samples(x).numpy(), reference.score_samples(data), rtol=0, atol=1e-8)
    assert_close(story.predict_proba(data).numpy(), reference.predict_proba(data))
    assert story.predict(x).tolist() == reference.predict(data).tolist()
    assert story.bic(x) == pytest.approx(reference.bic(data), abs=1e-6)
    assert story.aic(x) == pytest.approx(reference.aic(data), abs=1e-6)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_em_takes_the_steps_of_scikit_learn(covariance: Any) -> None:
    """From the same responsibilities the next parameters are the same."""
    x = _iris()
    story = _started(x, 3, covariance=covariance)
    share = story.predict_proba(x).numpy()
    story.maximise(story.statistics(x))
    kind = {"diagonal": "diag"}.get(covariance, covariance)
    reference: Any = GaussianMixture(3, covariance_type=kind, reg_covar=0)
    reference._initialize(x.numpy(), share)
    assert_close(story.weights.numpy(), reference.weights_)
    assert_close(story.means.numpy(), reference.means_)
    matrices = story.covariances
    variances = matrices.diagonal(dim1=-2, dim2=-1)
    ours = {"full": matrices, "tied": matrices[0], "diagonal": variances}
    found = ours.get(covariance, variances[:, 0])
    if covariance != "spherical":
        assert_close(found.numpy(), reference.covariances_)
    else:
        assert_close(found.numpy(), reference.covariances_, rtol=1e-9, atol=0)


@pytest.mark.parametrize("missing", ["refuse", "integrate"])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_three_ways_to_assign_agree(covariance: Any, law: Any, missing: Any) -> None:
    """Summed out by hand and by Pyro: the same bound. Guessed by an encoder: a lower one."""
    x = _clusters(missing=0.1 if missing == "integrate" else 0.0)
    found = {}
    for assignment in ASSIGNMENTS:
        options: Any = {"covariance": covariance, "law": law, "missing": missing}
        story = _started(x, assignment=assignment, **options)
        estimator = Trace_ELBO() if assignment == "summed" else TraceEnum_ELBO(max_plate_nesting=1)
        found[assignment] = _elbo(story, x, estimator) / len(x)
    assert found["enumerated"] == pytest.approx(found["summed"], abs=1e-4)
    assert found["summed"] - 0.1 < found["amortised"] < found["summed"]


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_bound_of_maximum_likelihood_is_the_likelihood(missing: float) -> None:
    x = _clusters(missing=missing)
    story = _started(x, posterior="ml", missing="integrate")
    assert _elbo(story, x) == pytest.approx(float(story.score_samples(x).sum()), rel=1e-5)


def test_the_bound_of_map_adds_the_priors_in_units_of_the_data() -> None:
    x = _clusters()
    story = _started(x)
    log_prior = torch.distributions.Dirichlet(torch.ones(3).double()).log_prob(story.weights)
    loc = torch.distributions.Normal(x.double().mean(0), 3 * x.double().std(0, correction=0))
    log_prior = log_prior + loc.log_prob(story.means).sum()
    scale = story.covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    middle = (x.double().std(0, correction=0) / 2).log()
    log_prior = log_prior + torch.distributions.LogNormal(middle, 1.0).log_prob(scale).sum()
    factor = torch.linalg.cholesky(story.covariances) / scale.unsqueeze(-1)
    log_prior = log_prior + torch.distributions.LKJCholesky(2).log_prob(factor.float()).sum()
    expected = float(story.score_samples(x).sum() + log_prior)
    assert _elbo(story, x) == pytest.approx(expected, rel=1e-5)


def test_a_story_in_other_units_is_the_same_story() -> None:
    x = _clusters(100).double()
    plain, moved = _started(x, posterior="normal"), _started(1000 * x + 50, posterior="normal")
    losses = []
    for story, rows in ((plain, x), (moved, 1000 * x + 50)):
        torch.manual_seed(1)
        losses.append(_elbo(story, rows))
    assert losses[0] - losses[1] == pytest.approx(x.numel() * math.log(1000), rel=1e-6)
    assert_close(moved.means, 1000 * plain.means + 50)
    assert_close(moved.covariances, 1e6 * plain.covariances)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_every_posterior_is_fitted_with_every_assignment(posterior: str, assignment: Any) -> None:
    x = _clusters(120)
    story = GMM((2,), 3, posterior=posterior, assignment=assignment)
    run = pg.fit(story, x, epochs=2, learning_rate=1e-3, progress=False)
    tree = run.posterior(x[:7], draws=5, groups=["posterior", "log_likelihood"])
    shapes = {name: value.shape[2:] for name, value in tree["posterior"].data_vars.items()}
    expected = {"weights": (3,), "loc": (3, 2), "scale": (3, 2), "correlation": (3, 2, 2)}
    expected |= {} if assignment == "summed" else {"assignment": (7,)}
    assert shapes == expected
    assert tree["posterior"]["loc"].dims[2:] == ("components", "features")
    assert math.isfinite(run.history[-1].elbo)
    assert np.isfinite(tree["log_likelihood"]["x"].values).all()


@pytest.mark.parametrize("covariance", ["full", "tied"])
@pytest.mark.parametrize("posterior", ["map", "normal"])
def test_precisions_can_have_a_wishart_law(posterior: str, covariance: Any) -> None:
    x = _clusters(120)
    story = GMM(
        (2,), 3, posterior=posterior, covariance=covariance, covariance_prior="inverse-wishart"
    )
    run = pg.fit(story, x, epochs=2, learning_rate=1e-3, progress=False)
    plain = _started(x, covariance=covariance)
    assert_close(run.story.covariances, plain.covariances, rtol=0.2, atol=0.1)
    tree = run.posterior(x[:7], draws=5, groups=["posterior"])
    assert tree["posterior"]["precision"].shape[-2:] == (2, 2)


def test_a_fit_can_be_judged() -> None:
    x = _clusters(200)
    run = pg.fit(GMM((2,), 3, posterior="normal"), x, epochs=30, seed=0, progress=False)
    verdict = pg.check(run, x[:50])
    assert "evidence" in [finding.check for finding in verdict.findings]
    assert verdict.status in ("pass", "warn", "fail")


def test_maximum_likelihood_by_gradients_comes_near_em() -> None:
    x = _clusters()
    climbed = _started(x)
    _climbed(climbed, x)
    run = pg.fit(
        GMM((2,), 3, posterior="ml"), x, epochs=60, schedule="cosine", seed=0, progress=False
    )
    gap = climbed.score_samples(x).mean() - run.story.score_samples(x).mean()
    assert -1e-6 < gap < 0.01


def test_an_amortised_fit_comes_near_the_exact_one() -> None:
    x = _clusters()
    exact, guessed = (
        pg.fit(GMM((2,), 3, assignment=a), x, epochs=20, seed=0, progress=False).history[-1].elbo
        for a in ("summed", "amortised")
    )
    assert exact - 0.05 < guessed < exact + 0.01


@pytest.mark.parametrize("posterior", ["map", "full", "AutoIAFNormal"])
def test_a_run_is_read_back_as_it_was_and_repeats_to_the_bit(
    posterior: str, tmp_path: Path
) -> None:
    x = _clusters(60)
    story = GMM((2,), 2, posterior=posterior, assignment="amortised", scale_prior=HalfNormalScale())
    first, again = (pg.fit(story, x, epochs=2, seed=5, progress=False) for _ in range(2))
    first.save(tmp_path / "run")
    loaded = pg.load(tmp_path / "run")
    for other in (again, loaded):
        assert first.parameters().keys() == other.parameters().keys()
        for name, value in first.parameters().items():
            assert torch.equal(value, other.parameters()[name])
    assert torch.equal(loaded.story.means, first.story.means)


def test_a_story_is_rebuilt_from_its_configuration() -> None:
    story = GMM((3,), "auto", covariance="tied", loc_prior="normal(scale=2)", most=7)
    again = from_configuration(story.configuration)
    assert again.configuration == story.configuration
    assert isinstance(story, Maximisable)
    assert isinstance(story, OpenEnded)


def test_gradients_go_on_from_em() -> None:
    x = _clusters()
    story = _started(x, posterior="normal")
    _climbed(story, x)
    run = pg.fit(story, x, warm_start=True, epochs=1, learning_rate=1e-9, progress=False)
    assert_close(run.story.means, story.means, rtol=0, atol=1e-6)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_nothing_known_leaves_likelihood_and_parameters_alone(covariance: Any, law: Any) -> None:
    """A row whose values are all missing has density 1, and the weights for its assignment."""
    x = _clusters(90, missing=0.2)
    story = _started(x, covariance=covariance, law=law, missing="integrate")
    nothing = torch.full((1, 2), math.nan)
    assert_close(story.score_samples(nothing), torch.zeros(1, dtype=torch.double))
    assert_close(story.predict_proba(nothing)[0], story.weights)
    longer = torch.cat([x, nothing.expand(50, 2)])
    _climbed(story, x, steps=300, tolerance=1e-6)
    best = story.means
    _climbed(story, longer, steps=10, tolerance=0)
    assert_close(story.means, best, rtol=0, atol=1e-2)


def test_missing_values_at_random_do_not_bias_em() -> None:
    """Correlated columns, and one missing where the other is large: means stay, averages do not."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4000, generator=generator)
    second = 0.9 * first + 0.3 * torch.randn(4000, generator=generator)
    x = torch.stack([first, torch.where(first > 0, math.nan, second)], 1)
    story = _started(x, 1, missing="integrate")
    _climbed(story, x, tolerance=1e-6)
    assert story.means[0].abs().max() < 5 / math.sqrt(2000)
    assert x[:, 1].nanmean() < -0.5
    assert story.covariances[0, 0, 1].item() == pytest.approx(0.9, abs=0.05)


def test_student_components_find_the_degrees_of_freedom_of_their_data() -> None:
    torch.manual_seed(0)
    x = torch.distributions.StudentT(4.0).sample((4000, 1)).double()
    story = _started(x, 1, law="student-t")
    _climbed(story, x)
    assert story.globals.centre()["df"].item() == pytest.approx(4, abs=0.8)
    assert story.covariances.item() == pytest.approx(1, abs=0.1)


def test_what_is_sampled_has_the_moments_of_the_mixture() -> None:
    story = _started(_clusters())
    drawn, labels = story.sample(20_000, seed=1)
    again, _ = story.sample(20_000, seed=1)
    assert torch.equal(drawn, again)
    share = labels.bincount() / 20_000
    assert (share - story.weights).abs().max() < 5 * 0.5 / math.sqrt(20_000)
    mean = (story.weights[:, None] * story.means).sum(0)
    assert ((drawn.mean(0) - mean).abs() < 5 * drawn.std(0) / math.sqrt(20_000)).all()


def test_the_most_likely_number_of_components_is_found_by_dropping_the_dispensable() -> None:
    x = _clusters(400)
    story: GMM | None = _started(x, "auto", most=8)
    scores, stories = {}, {}
    while story is not None:
        assert story.open_ended
        scores[story.components] = story.score(_climbed(story, x, 200, 1e-2)[-1], len(x))
        stories[story.components], story = story, story.smaller()
    assert list(scores) == [8, 7, 6, 5, 4, 3, 2, 1]
    best = min(scores, key=scores.__getitem__)
    settled = stories[best].settled()
    assert (best, settled.components, settled.open_ended) == (3, 3, False)
    assert_close(settled.score_samples(x), stories[3].score_samples(x))
    assert settled.weights.tolist() == sorted(settled.weights.tolist(), reverse=True)


def test_a_component_that_dies_keeps_its_place() -> None:
    x = _clusters()
    story = _started(x, 3)
    values = story.globals.centre()
    values["loc"][2] = 1e4
    story.globals.move(values)
    _climbed(story, x, steps=5)
    assert story.weights[2] < 1e-9
    assert_close(story.globals.centre()["loc"][2], torch.full((2,), 1e4).double())
    assert story.score_samples(x).isfinite().all()


COLUMN = _clusters()[:, :1]
HARDLY = torch.full((300, 1), math.nan).index_fill(0, torch.tensor([7]), 3.0)
DEGENERATE = {
    "one point": (torch.tensor([[1.0, 2.0]]), 1),
    "a constant column": (torch.cat([COLUMN, torch.ones(300, 1)], 1), 2),
    "duplicated rows": (_clusters(4).repeat(20, 1), 4),
    "collinear columns": (COLUMN * torch.tensor([1.0, 2.0]), 2),
    "a column with one value": (torch.cat([COLUMN, HARDLY], 1), 2),
    "far from zero": (_clusters() + 1e6, 3),
}


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize(("x", "components"), DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_data_leave_every_number_finite(
    x: Tensor, components: int, covariance: Any
) -> None:
    story = _started(x, components, covariance=covariance, missing="integrate")
    found = _climbed(story, x, steps=20)
    assert all(math.isfinite(value) for value in found)
    assert math.isfinite(_elbo(story, x))
    for values in (story.weights, story.means, story.covariances):
        assert values.isfinite().all()


def test_a_column_without_any_value_is_refused() -> None:
    x = torch.cat([COLUMN, torch.full((300, 1), math.nan)], 1)
    with pytest.raises(StoryError, match="column 1 has none: leave it out"):
        _started(x, 2, missing="integrate")


def test_fewer_different_rows_than_components_are_refused() -> None:
    with pytest.raises(StoryError, match="number of different rows, 5, got 8: lower it"):
        _started(_clusters(5).repeat(4, 1), 8)
    with pytest.raises(StoryError, match="number of different rows, 2, got 3: lower it"):
        _started(_clusters(2), 3)
    with pytest.raises(StoryError, match=r"most must be at most .* 12, got 20: lower it"):
        _started(_clusters(12), "auto")


def test_values_that_are_not_finite_are_refused_with_a_remedy() -> None:
    story = GMM((2,), 3)
    for method in (story.model, story.guide, story.start, story.statistics, story.predict):
        with pytest.raises(StoryError, match=r"got nan in row 1, feature 0.*missing='integrate'"):
            method(torch.tensor([[0.0, 0.0], [math.nan, 0.0]]))
        with pytest.raises(StoryError, match=r"of shape \(2,\), got \(3,\)"):
            method(torch.zeros(5, 3))
    with pytest.raises(StoryError, match=r"finite or missing, got inf in row 0, feature 1"):
        GMM((2,), missing="integrate").model(torch.tensor([[math.nan, math.inf]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (2, 3)}, "shape must hold one size, .* flatten the observations"),
        ({"components": 0}, "components must be at least 1, got 0"),
        ({"components": "many"}, "components must be a whole number or 'auto', got 'many'"),
        ({"components": "auto", "most": 0}, "most must be at least 1, got 0"),
        ({"covariance": "round"}, "covariance must be one of full, tied, diagonal, spherical"),
        ({"law": "cauchy"}, "law must be one of normal, student-t"),
        ({"assignment": "hard"}, "assignment must be one of summed, enumerated, amortised"),
        ({"missing": "drop"}, "missing must be one of refuse, integrate"),
        ({"posterior": "laplace"}, "posterior must be one of map, ml, normal, full"),
        ({"concentration": 0.0}, "concentration must be positive, got 0.0"),
        ({"floor": -1.0}, "floor must be positive, got -1.0"),
        ({"loc_prior": "cauchy"}, "loc_prior must be one of normal"),
        ({"scale_prior": "half-normal(scale=0)"}, "scale must be positive, got 0"),
        ({"covariance_prior": "wishart"}, "covariance_prior must be one of lkj, inverse-wishart"),
        ({"covariance_prior": "inverse-wishart(df=3)"}, "df must be above .* 3, got 3"),
        ({"df_prior": "normal"}, "df_prior must be one of gamma"),
    ],
)
def test_a_story_that_cannot_be_built_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GMM(**{"shape": (2,), **arguments})


def test_building_a_story_leaves_the_parameter_store_alone() -> None:
    before = pyro.get_param_store().get_state()
    _elbo(_started(_clusters(20), posterior="normal"), _clusters(20))
    assert pyro.get_param_store().get_state() == before
