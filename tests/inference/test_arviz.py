"""The tree follows ArviZ's schema, holds the right numbers, and is the same on disk."""

import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

import ppl_gen as pg
from ppl_gen.models import PPCA, VAE

if sys.version_info >= (3, 12):
    import arviz as az
else:
    import arviz.preview as az

mpl.use("Agg")

GROUPS = {
    "posterior",
    "posterior_predictive",
    "prior",
    "prior_predictive",
    "log_likelihood",
    "observed_data",
    "sample_stats",
}


def regression(x: Tensor, y: Tensor) -> None:
    """Global latents, one plate, written by someone who has never heard of ppl-gen."""
    weight = pyro.sample("weight", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("observations", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, scale), obs=y)


@pytest.fixture(scope="module")
def fitted_by_pyro() -> tuple[AutoNormal, Tensor, Tensor]:
    """A guide fitted with nothing but Pyro, its parameters in the global store."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    x = torch.randn(80, 2)
    y = x @ torch.tensor([1.0, -2.0]) + 0.3 * torch.randn(80)
    guide = AutoNormal(regression)
    svi = SVI(regression, guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())
    for _ in range(400):
        svi.step(x, y)
    return guide, x, y


@pytest.fixture(scope="module")
def ppca() -> tuple[pg.Run, Tensor]:
    """The linear-Gaussian story with its exact guide."""
    torch.manual_seed(0)
    x = torch.randn(40, 2) @ torch.randn(2, 3) + 0.4 * torch.randn(40, 3)
    exact = PPCA.maximum_likelihood(x, 2)
    return pg.fit(exact, x, epochs=1, learning_rate=1e-9, warm_start=True, progress=False), x


def test_a_plain_pyro_script_gets_a_whole_tree(
    fitted_by_pyro: tuple[AutoNormal, Tensor, Tensor],
) -> None:
    guide, x, y = fitted_by_pyro
    before = {name: value.clone() for name, value in pyro.get_param_store().items()}

    tree = pg.to_arviz(regression, guide, (x, y), draws=300)

    assert set(tree.children) == GROUPS
    assert dict(tree["posterior"].sizes) == {"chain": 1, "draw": 300, "weight_dim_0": 2}
    assert dict(tree["log_likelihood"].sizes) == {"chain": 1, "draw": 300, "observations": 80}
    means = tree["posterior"]["weight"].mean(("chain", "draw")).values
    np.testing.assert_allclose(means, [1.0, -2.0], atol=0.15)
    np.testing.assert_allclose(tree["observed_data"]["y"].values, y.numpy())
    after = dict(pyro.get_param_store().items())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_log_likelihood_is_that_of_the_draws(
    fitted_by_pyro: tuple[AutoNormal, Tensor, Tensor],
) -> None:
    guide, x, y = fitted_by_pyro
    tree = pg.to_arviz(regression, guide, (x, y), draws=20)
    draws = tree["posterior"]
    loc = np.einsum("nd,sd->sn", x.numpy(), draws["weight"].values[0])
    law = dist.Normal(torch.tensor(loc), torch.tensor(draws["scale"].values[0])[:, None])

    np.testing.assert_allclose(
        tree["log_likelihood"]["y"].values[0], law.log_prob(y).numpy(), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        tree["sample_stats"]["log_p"].values, tree["log_likelihood"]["y"].values, rtol=1e-6
    )


def test_arviz_summarises_compares_and_plots_it(
    fitted_by_pyro: tuple[AutoNormal, Tensor, Tensor],
) -> None:
    guide, x, y = fitted_by_pyro
    tree = pg.to_arviz(regression, guide, (x, y), draws=2000)

    assert list(az.summary(tree, kind="stats").index) == ["weight[0]", "weight[1]", "scale"]
    assert az.loo(tree).elpd == pytest.approx(
        tree["log_likelihood"]["y"].mean("draw").sum().item(), rel=0.2, abs=5
    )
    az.plot_ppc_dist(tree, num_samples=10)
    az.plot_pair(tree, var_names=["weight", "scale"])


def test_with_the_exact_guide_every_draw_weighs_the_evidence(ppca: tuple[pg.Run, Tensor]) -> None:
    run, x = ppca
    stats = run.posterior(x, draws=50)["sample_stats"]
    weights = (stats["log_p"] - stats["log_q"]).values[0]

    exact = run.story.log_evidence(x).detach().numpy()

    np.testing.assert_allclose(weights, np.broadcast_to(exact, weights.shape), atol=2e-3)


def test_the_posterior_drawn_is_the_exact_one(ppca: tuple[pg.Run, Tensor]) -> None:
    """Means within five standard errors, variances within a tenth."""
    run, x = ppca
    draws = run.posterior(x, draws=2000)["posterior"]["z"].values[0]
    exact = run.story.exact_posterior(x)

    error = exact.variance.sqrt().detach().numpy() / np.sqrt(2000)
    assert (np.abs(draws.mean(0) - exact.mean.detach().numpy()) < 5 * error).all()
    np.testing.assert_allclose(draws.var(0), exact.variance.detach().numpy(), rtol=0.2)


def test_replicated_data_and_prior_draws_have_the_laws_of_the_story(
    ppca: tuple[pg.Run, Tensor],
) -> None:
    run, x = ppca
    tree = run.posterior(x, draws=500, prior_draws=500)

    assert tree["posterior_predictive"]["x"].dims == ("chain", "draw", "observations", "x_dim_0")
    prior = tree["prior"]["z"].values
    assert abs(prior.mean()) < 0.02
    assert prior.std() == pytest.approx(1.0, abs=0.02)
    covariance = np.cov(tree["prior_predictive"]["x"].values.reshape(-1, 3).T)
    weight, scale = run.story.weight.detach().numpy(), run.story.log_scale.exp().item()
    np.testing.assert_allclose(covariance, weight @ weight.T + scale**2 * np.eye(3), atol=0.15)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_what_is_streamed_to_disk_is_what_memory_holds(
    ppca: tuple[pg.Run, Tensor], tmp_path: Path, suffix: str
) -> None:
    """Cut into many chunks by a small allowance of memory."""
    if suffix == ".zarr":
        pytest.importorskip("zarr", reason="zarr is an extra")
    run, x = ppca
    options = {"draws": 60, "memory": 2**14}
    held = run.posterior(x, **options)

    with run.posterior(x, out=tmp_path / f"post{suffix}", **options) as streamed:
        for group in GROUPS:
            assert held[group].to_dataset().load().identical(streamed[group].to_dataset().load())
    assert [path.name for path in tmp_path.iterdir()] == [f"post{suffix}"]


def test_coordinates_and_groups_can_be_chosen(ppca: tuple[pg.Run, Tensor]) -> None:
    run, x = ppca
    tree = run.posterior(
        x, draws=5, groups=["posterior"], coords={"observations": [f"row {i}" for i in range(40)]}
    )

    assert set(tree.children) == {"posterior"}
    assert tree["posterior"]["z"].sel(observations="row 3").shape == (1, 5, 2)


def test_enumerated_sites_are_drawn_from_their_exact_posterior() -> None:
    """A mixture of two known normals: responsibilities follow from Bayes' rule."""
    x = torch.tensor([-1.5, -0.5, 0.2, 2.0])

    def mixture(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample(
                "z", dist.Categorical(torch.tensor([0.3, 0.7])), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(2.0 * z - 1.0, 1.0), obs=x)

    tree = pg.to_arviz(mixture, lambda x: None, x, draws=4000)

    joint = torch.stack(
        [
            np.log(weight) + dist.Normal(loc, 1.0).log_prob(x)
            for weight, loc in ((0.3, -1.0), (0.7, 1.0))
        ]
    )
    share = tree["posterior"]["z"].mean(("chain", "draw")).values
    np.testing.assert_allclose(share, joint.softmax(0)[1].numpy(), atol=0.04)
    evidence = tree["log_likelihood"]["x"].values[0, 0]
    np.testing.assert_allclose(evidence, joint.logsumexp(0).numpy(), rtol=1e-5)


class Cities(pg.Story):
    """Shops in cities, each with goods: plates, event dimensions, and one that is both."""

    dims = {"share": ("cities",), "loc": ("goods",), "x": ("goods",), "unused": ("a", "b")}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.tensor(1.0))

    def model(self, x: Tensor) -> None:
        share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("cities", 3):
            loc = pyro.sample("loc", dist.Normal(torch.zeros(2), self.width).to_event(1))
        mean = (share[..., None] * loc).sum(-2, keepdim=True)
        with pyro.plate("observations", len(x)):
            pyro.sample("x", dist.Normal(mean.squeeze(-2), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.sample("share", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("cities", 3):
            pyro.sample("loc", dist.Normal(torch.zeros(2), self.width).to_event(1))


@pytest.fixture(scope="module")
def cities() -> tuple[pg.Run, Tensor]:
    """A run of it, as it is."""
    x = torch.randn(8, 2)
    return pg.fit(Cities(), x, epochs=1, progress=False), x


@pytest.mark.parametrize("suffix", ["", ".nc"])
def test_a_dimension_has_one_name_wherever_it_stands(
    cities: tuple[pg.Run, Tensor], tmp_path: Path, suffix: str
) -> None:
    run, x = cities
    out = tmp_path / f"post{suffix}" if suffix else None
    named = {"cities": [1950, 1960, 1970], "goods": [7, 9]}
    tree = run.posterior(x, draws=5, coords=named, out=out)

    dims = {"share": ("cities",), "loc": ("cities", "goods")}
    for group in ("posterior", "prior"):
        for name, expected in dims.items():
            assert tree[group][name].dims == ("chain", "draw", *expected)
        assert list(tree[group]["cities"].values) == named["cities"]
    for group in ("posterior_predictive", "prior_predictive"):
        assert tree[group]["x"].dims == ("chain", "draw", "observations", "goods")
    assert tree["observed_data"]["x"].dims == ("observations", "goods")
    sold = tree["posterior"]["share"] * tree["posterior"]["loc"].sel(goods=7)
    assert sold.dims == ("chain", "draw", "cities")
    tree.close()


def test_dimensions_of_a_plain_program_are_named_by_its_user(
    fitted_by_pyro: tuple[AutoNormal, Tensor, Tensor],
) -> None:
    guide, x, y = fitted_by_pyro
    tree = pg.to_arviz(regression, guide, (x, y), draws=5, dims={"weight": ["columns"]})
    assert tree["posterior"]["weight"].dims == ("chain", "draw", "columns")

    def matrix() -> None:
        pyro.sample("m", dist.Normal(torch.zeros(3, 2), 1.0).to_event(2))

    tree = pg.to_arviz(matrix, matrix, draws=5, dims={"m": ("rows", "columns")})
    assert dict(tree["posterior"]["m"].sizes) == {"chain": 1, "draw": 5, "rows": 3, "columns": 2}


@pytest.mark.parametrize(
    ("dims", "sentence"),
    [
        ({"loc": ["goods", "kinds"]}, r"'loc' must name the 1 dimension of one value, .* got"),
        ({"loc": []}, "'loc' must name the 1 dimension of one value"),
        ({"loc": "goods"}, "'loc' must be a list of names, got 'goods'"),
        ({"loc": ["cities"]}, "'loc' must be names of their own, got 'cities'"),
        ({"loc": ["draw"]}, "'loc' must be names of their own, got 'draw'"),
        ({"mu": ["goods"]}, "dims must be of sites of the story, got 'mu': there are share, loc"),
        ({"share": ["goods"]}, "'goods' must have one size, got 3 in 'share' and 2 in 'loc'"),
    ],
)
def test_names_of_dimensions_that_do_not_fit_are_refused(
    cities: tuple[pg.Run, Tensor], dims: dict[str, list[str]], sentence: str
) -> None:
    run, x = cities
    with pytest.raises(pg.DataError, match=sentence):
        run.posterior(x, draws=2, dims=dims)


@pytest.fixture
def own_store() -> Iterator[None]:
    """A parameter store for a guide whose names another test's guide has too."""
    with pyro.get_param_store().scope():
        yield


@pytest.mark.usefixtures("own_store")
def test_a_program_that_cannot_bear_more_dimensions_is_drawn_one_by_one() -> None:
    """Its matrix product would broadcast wrongly under a plate of draws."""
    x = torch.randn(6, 3)

    def model(x: Tensor) -> None:
        weight = pyro.sample("weight", dist.Normal(0.0, 1.0).expand([3, 3]).to_event(2))
        with pyro.plate("rows", 6):
            pyro.sample("x", dist.Normal(torch.mm(x, weight), 1.0).to_event(1), obs=x)

    guide = AutoNormal(model)
    guide(x)

    tree = pg.to_arviz(model, guide, x, draws=7)

    assert tree["posterior"]["weight"].shape == (1, 7, 3, 3)
    assert tree["posterior_predictive"]["x"].shape == (1, 7, 6, 3)
    assert np.unique(tree["posterior"]["weight"].values[0, :, 0, 0]).size == 7


@pytest.mark.usefixtures("own_store")
def test_blocks_of_handlers_around_a_model_change_nothing() -> None:
    x = torch.randn(5)

    def model(x: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 5):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    guide = AutoNormal(model)
    guide(x)
    scaled = poutine.scale(model, scale=0.5)

    tree = pg.to_arviz(scaled, guide, x, draws=5)

    loc = torch.tensor(tree["posterior"]["loc"].values[0])
    law = dist.Normal(loc[:, None], 1.0).log_prob(x)
    np.testing.assert_allclose(tree["log_likelihood"]["x"].values[0], law.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"out": "post.csv"}, r"saved as .nc or .zarr, got 'post.csv'"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"groups": ["warmup"]}, "groups must be among .*, got 'warmup'"),
        ({"coords": {"observations": [1, 2]}}, "'observations' must have 40 labels, got 2"),
    ],
)
def test_a_wrong_option_is_named(
    ppca: tuple[pg.Run, Tensor], options: dict[str, object], sentence: str
) -> None:
    run, x = ppca
    with pytest.raises(pg.DataError, match=sentence):
        run.posterior(x, **{"draws": 5, **options})


def test_observations_of_another_shape_are_refused(ppca: tuple[pg.Run, Tensor]) -> None:
    run, _ = ppca
    with pytest.raises(pg.DataError, match=r"observations of shape \(3,\), got \(4,\)"):
        run.posterior(torch.zeros(2, 4))


def test_a_vae_on_images_names_every_dimension() -> None:
    data = pg.data.load("digits", binarise="fixed")
    run = pg.fit(
        VAE(data.shape, latent=2, likelihood="bernoulli", hidden=(8,)),
        data,
        epochs=1,
        progress=False,
    )
    tree = run.posterior(data.test.x[:10], draws=20)

    assert tree["posterior"]["z"].dims == ("chain", "draw", "observations", "z_dim_0")
    assert tree["posterior_predictive"]["x"].shape == (1, 20, 10, 1, 8, 8)
    az.summary(tree, var_names=["z"], kind="stats")
    az.plot_pair(tree, var_names=["z"], coords={"observations": [0, 1]})


@pytest.mark.parametrize("ending", ["memory", "nc", "zarr"])
def test_columns_of_a_table_are_labels_in_the_tree(tmp_path: Path, ending: str) -> None:
    data = pg.data.load("iris")
    run = pg.fit(PPCA(data.shape, 1), data, epochs=1, progress=False)
    out = None if ending == "memory" else tmp_path / f"post.{ending}"

    tree = run.posterior(data.test, draws=2, out=out)

    assert tree["observed_data"]["x_dim_0"].values.tolist() == list(data.column_names or ())
    tree.close()
