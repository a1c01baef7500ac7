"""What a report says of a mixture, held against exact answers."""

import math
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor

import ppl_gen as pg
from ppl_gen.data import Dataset, Part, Support
from ppl_gen.models import VAE
from ppl_gen.models.gmm import GMM
from ppl_gen.report import figures, mixture, write_report
from ppl_gen.report.canvas import drawable
from ppl_gen.report.figures import correlations
from ppl_gen.report.html import Markup
from ppl_gen.report.mixture import cross_table, fitted, weight_draws
from ppl_gen.report.planes import Mixed, Principal, full_covariances, levels, outline
from ppl_gen.report.view import View, data_to_show

OF_MIXTURES = ["Components", "Weights", "Responsibilities"]
EVIL = """<script>alert("1")</script>'&$\\frac{$ 数字"""
GENERATOR = np.random.default_rng()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Each test draws the same, whichever others are run."""
    GENERATOR.bit_generator.state = np.random.default_rng(0).bit_generator.state


def covariance(size: int, count: int = 1) -> np.ndarray:
    roots = GENERATOR.normal(size=(count, size, size))
    return roots @ roots.transpose(0, 2, 1) + 0.2 * np.eye(size)


class Known(pg.Story):
    """Components that are known; their weights are known too, or of a known Dirichlet law."""

    def __init__(self, mixed: Mixed, rows: float | None = None, offset: float = 0.0) -> None:
        super().__init__()
        self.mixed = mixed
        self.rows = rows
        self.offset = offset
        self.idle = torch.nn.Parameter(torch.zeros(()))

    @property
    def weights(self) -> Tensor:
        return torch.as_tensor(self.mixed.weights)

    @property
    def means(self) -> Tensor:
        return torch.as_tensor(self.mixed.means)

    @property
    def covariances(self) -> Tensor:
        return torch.as_tensor(self.mixed.covariances)

    @property
    def df(self) -> Tensor | None:
        return None if self.mixed.df is None else torch.as_tensor(self.mixed.df)

    def predict_proba(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.mixed.log_joint(x.double().numpy())).softmax(-1)

    def score_samples(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.mixed.log_density(x.double().numpy())) + self.offset

    def model(self, x: Tensor) -> None:
        """The story."""
        weights = self.weights + 0 * self.idle
        if self.rows is not None:
            weights = pyro.sample("weights", dist.Dirichlet(torch.ones_like(weights)))
        with pyro.plate("observations", len(x)):
            each = dist.MultivariateNormal(self.means, self.covariances)
            law = dist.MixtureSameFamily(dist.Categorical(weights), each)
            pyro.sample("x", law, obs=x.double())

    def guide(self, x: Tensor) -> None:
        """Its posterior, or as good as one."""
        if self.rows is not None:
            pyro.sample("weights", dist.Dirichlet(self.rows * self.weights + 0 * self.idle))


def blobs(size: int = 2, count: int = 3) -> Mixed:
    """Well separated components of unequal weights."""
    means = 6.0 * np.eye(count, size) + np.arange(count)[:, None]
    weights = np.arange(1.0, count + 1)
    return Mixed(weights / weights.sum(), means, 0.5 * covariance(size, count))


def run_of(story: pg.Story, data: object) -> pg.Run:
    options = {"epochs": 1, "learning_rate": 1e-12, "progress": False}
    return pg.fit(story, data, warm_start=True, **options)


def draws_of(mixed: Mixed, rows: int = 60) -> tuple[Tensor, Tensor]:
    """Rows and their components."""
    labels = GENERATOR.choice(len(mixed.weights), rows, p=mixed.weights)
    x = [GENERATOR.multivariate_normal(mixed.means[k], mixed.covariances[k]) for k in labels]
    return torch.as_tensor(np.array(x)), torch.as_tensor(labels)


def view_of(story: pg.Story, data: object) -> View:
    run = run_of(story, data)
    return View(run, data_to_show(run, data))


def headings(path: Path) -> list[str]:
    return [unescape(found) for found in re.findall("<h2>(.*?)</h2>", path.read_text())]


@pytest.mark.parametrize("radius", [1.0, 2.0])
def test_an_ellipse_has_the_half_axes_of_its_covariance(radius: float) -> None:
    """A covariance of deviations 3 and 1/2 along axes turned by 30 degrees."""
    angle = math.pi / 6
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    mean = np.array([5.0, -2.0])

    points = outline(mean, turn @ np.diag([9.0, 0.25]) @ turn.T, radius)

    along = (points - mean) @ turn / (radius * np.array([3.0, 0.5]))
    np.testing.assert_allclose((along**2).sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(np.abs(along).max(0), 1, atol=1e-12)


@pytest.mark.parametrize("df", [None, np.array([4.0, 9.0, 30.0])])
def test_a_density_seen_from_a_side_is_its_integral_over_the_other(df: np.ndarray | None) -> None:
    mixed = Mixed(np.array([0.2, 0.3, 0.5]), GENERATOR.normal(size=(3, 2)), covariance(2, 3), df)
    direction, across = np.array([[0.6], [0.8]]), np.array([[-0.8], [0.6]])
    origin = np.array([0.3, -1.0])
    places = np.linspace(-3, 3, 7)
    steps = np.sinh(np.linspace(-9, 9, 4001))  # fine in the middle, far in the tails
    points = origin + places[:, None, None] * direction.T + steps[:, None] * across.T
    density = np.exp(mixed.log_density(points.reshape(-1, 2))).reshape(len(places), -1)

    found = np.exp(mixed.along(direction, origin).log_density(places[:, None]))

    np.testing.assert_allclose(found, np.trapezoid(density, steps, axis=1), rtol=1e-4)


def test_the_density_of_some_columns_is_that_of_torch() -> None:
    mixed = blobs(5, 3)
    part = mixed.columns([3, 1])
    each = dist.MultivariateNormal(
        torch.as_tensor(mixed.means[:, [3, 1]]),
        torch.as_tensor(mixed.covariances[:, [3, 1]][:, :, [3, 1]]),
    )
    law = dist.MixtureSameFamily(dist.Categorical(torch.as_tensor(mixed.weights)), each)
    points = GENERATOR.normal(size=(20, 2)) * 4
    exact = law.log_prob(torch.as_tensor(points))
    np.testing.assert_allclose(part.log_density(points), exact.numpy(), rtol=1e-9)


def test_the_shade_holds_the_shares_it_says() -> None:
    """Of a normal in the plane, all but exp(-r^2 / 2) lies within r deviations."""
    x = np.linspace(-6, 6, 301)
    squares = x[:, None] ** 2 + x**2
    found = levels(-0.5 * squares, [0.5, 0.9])
    np.testing.assert_allclose(found, [math.log(0.1), math.log(0.5)], atol=0.01)


def test_all_forms_of_covariances_are_the_same_when_they_say_the_same() -> None:
    full = np.broadcast_to(4 * np.eye(3), (2, 3, 3))
    for given in (full, full[0], np.full((2, 3), 4.0), np.full(2, 4.0)):
        np.testing.assert_array_equal(full_covariances(given, 2, 3), full)
    diagonals = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(full_covariances(diagonals, 2, 2)[1], np.diag([3.0, 4.0]))


def test_a_column_tells_components_apart_by_the_variance_between_them() -> None:
    """Two equal halves at -1 and 1 have variance 1 between them."""
    means = np.array([[-1.0, 0.0, -1.0], [1.0, 0.0, 1.0]])
    within = np.stack([np.diag([3.0, 1.0, 0.0])] * 2)
    found = Mixed(np.array([0.5, 0.5]), means, within).separation
    np.testing.assert_allclose(found, [1 / 4, 0, 1])


def test_the_principal_plane_knows_no_units() -> None:
    x = GENERATOR.normal(size=(40, 4)) @ GENERATOR.normal(size=(4, 4))
    plane = Principal.of(x)
    points = (x - plane.origin) @ plane.directions
    values = np.linalg.eigvalsh(np.corrcoef(x.T))[::-1]
    np.testing.assert_allclose(points.var(0), values[:2])
    assert plane.share == pytest.approx(values[:2].sum() / 4)
    other = Principal.of(x * [1000, 0.1, 1, 5] + 7)
    again = (x * [1000, 0.1, 1, 5] + 7 - other.origin) @ other.directions
    np.testing.assert_allclose(again, points, atol=1e-9)


def test_correlations_are_those_of_the_rows_that_both_columns_have() -> None:
    x = GENERATOR.normal(size=(50, 3)) @ GENERATOR.normal(size=(3, 3)) + 100
    np.testing.assert_allclose(correlations(x), np.corrcoef(x.T))
    x[:20, 0] = np.nan
    x[15:30, 1] = np.nan
    found = correlations(x)
    np.testing.assert_allclose(found[0, 1], np.corrcoef(x[30:, :2].T)[0, 1])
    np.testing.assert_allclose(found[0, 2], np.corrcoef(x[20:, [0, 2]].T)[0, 1])


def test_classes_are_counted_and_compared_as_scikit_learn_does() -> None:
    mixed = blobs()
    x, _ = draws_of(mixed)
    y = torch.as_tensor(GENERATOR.integers(0, 4, len(x)))
    view = view_of(Known(mixed), Part((x, y)))
    chosen, labels = fitted(view).chosen, view.labels.values.numpy().astype(int)
    counts, classes, used = cross_table(labels, chosen)
    np.testing.assert_array_equal(counts, contingency_matrix(labels, chosen))
    assert (classes, used) == ([0, 1, 2, 3], [0, 1, 2])
    rand = adjusted_rand_score(labels, chosen)
    said = str(mixture.responsibilities(view))
    said_rand = re.findall(r"adjusted Rand index is ([^:]*):", said)
    assert said_rand == [f"{rand:.3g}".replace("-", "−")]


def test_unknown_labels_are_no_class() -> None:
    mixed = blobs()
    x, y = draws_of(mixed)
    unknown = torch.where(torch.arange(len(x)) % 2 == 0, y, -1)
    said = str(mixture.responsibilities(view_of(Known(mixed), Part((x, unknown)))))
    assert "adjusted Rand index is 1:" in said
    assert "<td>-1</td>" not in said


def test_the_uncertainty_of_weights_is_that_of_their_posterior() -> None:
    mixed = blobs()
    x, _ = draws_of(mixed)
    draws = weight_draws(view_of(Known(mixed, rows=50.0), x))
    assert draws is not None
    law = dist.Dirichlet(50 * torch.as_tensor(mixed.weights))
    error = law.stddev.numpy() / math.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - law.mean.numpy()) < 5 * error).all()
    assert (np.abs(draws.std(0) / law.stddev.numpy() - 1) < 5 / math.sqrt(2 * len(draws))).all()


def test_single_values_have_no_intervals() -> None:
    mixed = blobs()
    view = view_of(Known(mixed), draws_of(mixed)[0])
    assert weight_draws(view) is None
    assert "single values" in mixture.weights(view)
    assert "94 % interval" not in mixture.components(view)


def test_the_most_doubtful_datum_comes_first() -> None:
    """Two like components: half-way between them nothing is known."""
    means = np.array([[-3.0, 0.0], [3.0, 0.0]])
    mixed = Mixed(np.array([0.5, 0.5]), means, np.stack([np.eye(2)] * 2))
    x = torch.tensor([[-3.0, 0.0], [0.1, 0.0], [0.0, 0.0], [3.0, 0.0]])
    view = view_of(Known(mixed), x)
    said = str(mixture.responsibilities(view))
    assert "For 2 of 4 data (50%)" in said
    rows = re.findall(r"<tr><td>(\d)</td><td>\d \((\d+)%\)", said)
    assert rows == [("2", "50"), ("1", "65")]


def test_a_density_that_is_not_of_ellipses_is_not_drawn_as_one() -> None:
    mixed = blobs(3)
    x, _ = draws_of(mixed)
    assert fitted(view_of(Known(mixed), x)).elliptic
    other = view_of(Known(mixed, offset=0.1), x)
    assert not fitted(other).elliptic
    assert "shade grows" not in mixture.components(other)


def test_student_t_components_are_known_by_their_degrees_of_freedom() -> None:
    mixed = replace(blobs(3), df=np.array([2.5, 4.0, 20.0]))
    view = view_of(Known(mixed), draws_of(mixed)[0])
    assert fitted(view).elliptic
    assert "1 and 2 scales of the Student-t law" in mixture.components(view)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_mixture_has_its_own_sections_and_none_of_codes(size: int, tmp_path: Path) -> None:
    mixed = blobs(size)
    x, _ = draws_of(mixed)
    run = run_of(Known(mixed, rows=80.0), x)
    path = write_report(run, tmp_path / "a.html", x)
    assert headings(path) == ["Verdict", "Learning curves", *OF_MIXTURES, "Samples"]


def test_the_same_mixture_gives_the_same_pictures() -> None:
    mixed = blobs(3)
    view = view_of(Known(mixed, rows=80.0), draws_of(mixed)[0])
    for section in (mixture.components, mixture.weights, mixture.responsibilities):
        assert section(view) == section(replace(view))


def test_another_story_has_no_section_of_mixtures(tmp_path: Path) -> None:
    x = torch.randn(20, 3)
    run = pg.fit(VAE((3,), 2, hidden=(4,)), x, epochs=1, progress=False)
    assert not set(OF_MIXTURES) & set(headings(write_report(run, tmp_path / "a.html", x)))


@pytest.mark.parametrize("posterior", ["normal", "ml"])
def test_missing_values_are_shown_as_missing(
    posterior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[np.ndarray, np.ndarray]] = []

    def marginals(data: np.ndarray, drawn: np.ndarray, *_: object) -> Markup:
        compared.append((data, drawn))
        return Markup("")

    monkeypatch.setattr(figures, "marginals", marginals)
    data = pg.data.load("iris")
    x = data.train.x.clone()
    x[::3, 1] = x[::5, 2] = torch.nan
    fitted = Part((x.clone(), data.train.y))
    x[:, 3] = torch.nan
    part = Part((x, data.train.y))
    torch.manual_seed(0)
    story = GMM((4,), 3, posterior=posterior, missing="integrate")
    run = pg.fit(story, fitted, epochs=2, progress=False)
    path = write_report(run, tmp_path / "a.html", part, label_names=data.label_names)
    assert headings(path) == ["Verdict", "Learning curves", *OF_MIXTURES, "Samples"]
    assert "<td>missing</td>" in path.read_text()
    assert "it is left out of the draw beside it" in path.read_text()
    assert path.read_text().count('class="note"') == 3  # no verdict, and below two tables
    ((found, drawn),) = compared
    assert found.shape == (len(x), 3)  # of the fourth column nothing is known
    np.testing.assert_array_equal(np.isnan(found), np.isnan(drawn))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    mixed = blobs(3)
    parts = [Part(draws_of(mixed, 20)) for _ in range(3)]
    names = (EVIL, "a length (cm)", "$x^2$")
    data = Dataset("d", Support.REAL, *parts, label_names=(EVIL, "b", "c"), column_names=names)
    text = write_report(run_of(Known(mixed), data), tmp_path / "a.html", data).read_text()
    assert "<script" not in text
    assert unescape(text).count(EVIL) >= 4
    assert ">a length (cm)</text>" in text
    assert "column 1 is " in text


@pytest.mark.parametrize(
    ("name", "simple"),
    [
        *(("petal width (cm)", True), ("od280/od315", True), ("größe", True), ("", False)),
        *(("a" * 31, False), ("数字", False), ("a\nb", False), ("<b>", False), ("$x$", False)),
    ],
)
def test_only_simple_names_are_drawn(name: str, simple: bool) -> None:
    assert drawable(name) == simple
