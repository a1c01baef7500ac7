"""Draws that differ in the order of their components alone are the same draws once aligned."""

import itertools
import math
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from torch import Tensor, nn

import ppl_gen as pg
from ppl_gen.inference.labels import (
    Centre,
    component_table,
    nearest_order,
    permuted,
    relabelling,
    renumbered,
)


def mixtures(draws: int, components: int) -> dict[str, Tensor]:
    """Draws of a mixture whose components are far apart compared to what they vary by."""
    torch.manual_seed(components)
    centre = 5 * torch.arange(components).float()
    return {
        "weights": torch.full((components,), 10.0).softmax(0) + 1e-3 * torch.rand(draws, 1),
        "loc": centre[:, None] + 0.1 * torch.randn(draws, components, 2),
        "scale": 1 + 0.1 * torch.rand(draws, components),
    }


def shuffled(values: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """The same with the components of every draw in another order."""
    draws, components = values["loc"].shape[:2]
    order = torch.stack([torch.randperm(components) for _ in range(draws)])
    values = {
        name: value.expand(draws, components, *value.shape[2:]) for name, value in values.items()
    }
    return {name: permuted(value, order, 1) for name, value in values.items()}, order


def found_order(values: dict[str, Tensor]) -> Tensor:
    return relabelling(component_table(values, dict.fromkeys(values, 1)))[0]


@pytest.mark.parametrize("components", [1, 2, 5])
def test_shuffled_copies_come_back_exactly(components: int) -> None:
    """Up to one order that is the same for all draws."""
    ordered = mixtures(200, components)
    values, order = shuffled(ordered)

    found = found_order(values)

    common = order.gather(1, found)
    assert (common == common[0]).all()
    back = permuted(values["loc"], found, 1)
    assert torch.equal(back, ordered["loc"][:, common[0]])


def test_what_is_aligned_stays_as_it_is() -> None:
    """Also where components overlap, so that many orders are nearly as good."""
    torch.manual_seed(0)
    values = {
        "loc": torch.randn(300, 4, 2) + torch.arange(4.0)[:, None],
        "scale": torch.rand(300, 4),
    }
    order = found_order(values)
    aligned = {name: permuted(value, order, 1) for name, value in values.items()}

    again = found_order(aligned)

    assert (order != torch.arange(4)).any()
    assert (again == torch.arange(4)).all()


def test_labels_that_agree_are_not_touched() -> None:
    """A guide of one mode keeps the order that it has."""
    assert (found_order(mixtures(100, 6)) == torch.arange(6)).all()


def test_no_other_order_is_nearer() -> None:
    torch.manual_seed(0)
    table, loc, variance = torch.randn(50, 4, 3), torch.randn(4, 3), torch.rand(3)

    order = nearest_order(table, Centre(loc, variance))

    def distance(one: Tensor, chosen: tuple[int, ...]) -> float:
        return ((one[list(chosen)] - loc).square() / variance).sum().item()

    for one, chosen in zip(table, order.tolist(), strict=True):
        least = min(distance(one, every) for every in itertools.permutations(range(4)))
        assert distance(one, tuple(chosen)) == pytest.approx(least)


def test_units_do_not_matter() -> None:
    torch.manual_seed(0)
    values = {"loc": torch.randn(100, 3, 2), "scale": torch.rand(100, 3)}
    other = {"loc": values["loc"] * torch.tensor([1024.0, 0.125]), "scale": values["scale"]}
    assert torch.equal(found_order(values), found_order(other))


def test_numbers_of_components_follow_them() -> None:
    """Each datum keeps the component it was assigned to, by its new number."""
    values, _ = shuffled(mixtures(60, 4))
    assignment = torch.randint(4, (60, 7))
    chosen = values["loc"][..., 0].gather(1, assignment)

    order = found_order(values)
    loc = permuted(values["loc"], order, 1)[..., 0]

    assert torch.equal(loc.gather(1, renumbered(assignment, order)), chosen)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_each_draw_is_put_in_its_own_order_along_any_axis(axis: int) -> None:
    torch.manual_seed(0)
    value = torch.randn(20, 3, 3, 3)
    order = torch.stack([torch.randperm(3) for _ in range(20)])
    expected = [one.index_select(axis - 1, own) for one, own in zip(value, order, strict=True)]
    assert torch.equal(permuted(value, order, axis), torch.stack(expected))


def test_an_axis_that_is_not_the_components_is_found_out() -> None:
    values = {"loc": torch.randn(10, 3, 2), "scale": torch.rand(10, 3)}
    with pytest.raises(pg.DataError, match="got 2 in 'loc' and 3 in 'scale'"):
        component_table(values, {"loc": 2, "scale": 1})


def tree_of(values: dict[str, Tensor], **more: object) -> xarray.DataTree:
    """As a sampler leaves it: two chains."""
    chains = {n: v.reshape(2, len(v) // 2, *v.shape[1:]).numpy() for n, v in values.items()}
    dims = {"loc": ("chain", "draw", "components", "features")}
    data = {
        name: (dims.get(name, ("chain", "draw", "components")), value)
        for name, value in chains.items()
        if name != "assignment"
    }
    if "assignment" in chains:
        data["assignment"] = (("chain", "draw", "observations"), chains["assignment"])
    posterior = xarray.Dataset(data, {"components": list("abcdefg")[: values["loc"].shape[1]]})
    prior = xarray.Dataset({"loc": (dims["loc"], chains["loc"])})
    return xarray.DataTree.from_dict({"posterior": posterior, "prior": prior, **more})


def density(tree: xarray.DataTree, x: Tensor) -> Tensor:
    """That of the mixture of each draw, ``(chain, draw, N)``."""
    weights, loc, scale = (torch.tensor(tree["posterior"][n].values).double()
                           for n in ("weights", "loc", "scale"))  # fmt: skip
    law = dist.Normal(loc[..., None, :, :], scale[..., None, :, None]).to_event(1)
    return (weights.log()[..., None, :] + law.log_prob(x[:, None])).logsumexp(-1)


@pytest.mark.parametrize("components", [1, 2, 4])
def test_a_tree_of_any_sampler_is_aligned_and_its_density_unchanged(components: int) -> None:
    values, _ = shuffled(mixtures(80, components))
    values["assignment"] = torch.randint(components, (80, 5))
    tree = tree_of(values)
    before = tree.copy(deep=True)

    aligned = pg.align_labels(tree, indices=["assignment"])

    spread = aligned["posterior"]["loc"].std(("chain", "draw"))
    assert spread.max() < 0.2
    x = torch.randn(6, 2).double()
    torch.testing.assert_close(density(aligned, x), density(tree, x))
    chosen = [
        np.take_along_axis(t["posterior"]["scale"].values, t["posterior"]["assignment"].values, 2)
        for t in (tree, aligned)
    ]
    np.testing.assert_array_equal(*chosen)
    assert tree.identical(before)
    assert aligned["prior"].identical(tree["prior"])
    assert aligned["posterior"]["loc"].dims == tree["posterior"]["loc"].dims
    assert aligned["posterior"]["components"].identical(tree["posterior"]["components"])
    assert pg.align_labels(aligned, indices=["assignment"]).identical(aligned)


def test_a_restart_takes_over_the_labels_of_another_run() -> None:
    values = mixtures(80, 4)
    first = tree_of(values)
    other, _ = shuffled(mixtures(60, 4))

    aligned = pg.align_labels(tree_of(other), like=first)

    means = [t["posterior"]["loc"].mean(("chain", "draw")).values for t in (first, aligned)]
    np.testing.assert_allclose(*means, atol=0.1)
    assert pg.align_labels(aligned, like=first).identical(aligned)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dim": "clusters"}, "dimensions chain, draw and 'clusters' to align by"),
        ({"var_names": ["mu"]}, "got 'mu': there are weights, loc, scale"),
        ({"indices": ["loc"]}, "indices must be .* whole numbers, got 'loc'"),
        ({"like": tree_of(mixtures(10, 3))}, "like must have 'weights' with sizes"),
        ({"like": xarray.DataTree()}, "like must have a group 'posterior', got none"),
    ],
)
def test_what_cannot_be_aligned_is_named(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(pg.DataError, match=sentence):
        pg.align_labels(tree_of(shuffled(mixtures(10, 4))[0]), **options)


class Switching(pg.Story):
    """Two known-width components, and a guide that does not know which is the first."""

    dims = {"loc": ("components",), "weights": ("components",)}  # noqa: RUF012
    exchangeable = "components"
    indices = ("assignment",)

    def __init__(self) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.tensor(5.0))

    def model(self, x: Tensor) -> None:
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
        loc = pyro.sample("loc", dist.Normal(0.0, self.width).expand([2]).to_event(1))
        with pyro.plate("observations", len(x)):
            z = pyro.sample(
                "assignment", dist.Categorical(weights), infer={"enumerate": "parallel"}
            )
            loc = torch.where(z == 0, loc[..., 0], loc[..., 1])
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x[:, 0])

    def guide(self, x: Tensor) -> None:
        pyro.sample("weights", dist.Dirichlet(torch.full((2,), 50.0)))
        modes = torch.tensor([[-3.0, 3.0], [3.0, -3.0]])
        law = dist.Normal(modes, 0.2).to_event(1)
        pyro.sample("loc", dist.MixtureSameFamily(dist.Categorical(torch.ones(2) / 2), law))


@pytest.fixture(scope="module")
def switching() -> pg.Run:
    """A run of it, as it is."""
    torch.manual_seed(0)
    x = torch.cat([torch.randn(10, 1) - 3, torch.randn(10, 1) + 3])
    return pg.fit(Switching(), x, epochs=1, progress=False)


def test_draws_of_an_exchangeable_story_come_aligned(switching: pg.Run) -> None:
    """The densities are those of the draws: no order changes them."""
    x = torch.tensor([[-3.0], [3.1]])
    drawn = switching.posterior(x, draws=200, align=False)
    aligned = switching.posterior(x, draws=200)

    loc = aligned["posterior"]["loc"]
    assert loc.dims == ("chain", "draw", "components")
    assert drawn["posterior"]["loc"].std("draw").min() > 2
    assert loc.std("draw").max() < 0.3
    np.testing.assert_array_equal(
        loc.sum("components"), drawn["posterior"]["loc"].sum("components")
    )
    nearest = np.abs(loc.values[0][:, None] - x.numpy()).argmin(2)
    assert (aligned["posterior"]["assignment"].values[0] == nearest).mean() > 0.99
    for group in ("sample_stats", "log_likelihood", "prior", "posterior_predictive"):
        assert aligned[group].to_dataset().equals(drawn[group].to_dataset())


def test_a_tree_of_ones_own_draws_knows_which_variables_number_components(
    switching: pg.Run,
) -> None:
    tree = switching.posterior(torch.tensor([[-3.0], [3.1]]), draws=50)
    order = np.array([1, 0])
    swapped = tree.copy()
    posterior = tree["posterior"].to_dataset()
    swapped["posterior"] = xarray.DataTree(
        posterior.assign(
            loc=posterior["loc"].copy(data=posterior["loc"].values[..., order]),
            weights=posterior["weights"].copy(data=posterior["weights"].values[..., order]),
            assignment=posterior["assignment"].copy(data=order[posterior["assignment"].values]),
        )
    )
    assert pg.align_labels(swapped, like=tree).identical(tree)


def test_blocks_that_are_streamed_have_the_same_labels(switching: pg.Run, tmp_path: Path) -> None:
    x = torch.linspace(-4, 4, 30)[:, None]
    options = {"draws": 60, "memory": 2**15}
    held = switching.posterior(x, **options)
    with switching.posterior(x, out=tmp_path / "post.nc", **options) as streamed:
        for group in held.children:
            assert held[group].to_dataset().load().identical(streamed[group].to_dataset().load())
    assert held["posterior"]["loc"].std("draw").max() < 0.3


def test_densities_of_aligned_draws_are_those_of_the_story(switching: pg.Run) -> None:
    x = torch.tensor([[-3.0], [0.5]])
    tree = switching.posterior(x, draws=30)
    weights, loc = (torch.tensor(tree["posterior"][n].values[0]) for n in ("weights", "loc"))
    terms = weights.log()[:, None] + dist.Normal(loc[:, None], 1.0).log_prob(x)
    np.testing.assert_allclose(
        tree["log_likelihood"]["x"].values[0], terms.logsumexp(2).numpy(), rtol=1e-4
    )
    assert math.isfinite(tree["sample_stats"]["log_p"].values.sum())
