"""What mixtures are made of: elliptical laws with missing values, covariances, global guides."""

import copy
import math
from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to
from torch.testing import assert_close

from ppl_gen.autoguides import POSTERIORS, Globals, InUnits
from ppl_gen.covariances import raised
from ppl_gen.ellipses import Assigned, Axes, Dense, Ellipses, Mixture
from ppl_gen.mixture_story import clusters
from ppl_gen.mixtures import expectation, from_clusters
from ppl_gen.wishart import LogCholesky, Wishart

NAN = math.nan
PATTERNS = list(product([True, False], repeat=3))
GUIDES = [*POSTERIORS, "AutoDiagonalNormal", "AutoLowRankMultivariateNormal", "AutoIAFNormal"]


def _ellipses(
    kind: str = "dense", heavy: bool = False, missing: bool = False, leading: tuple[int, ...] = ()
) -> Ellipses:
    """Four components in three dimensions."""
    generator = torch.Generator().manual_seed(0)
    shape = (*leading, 1, 4, 3)
    loc = torch.randn(shape, generator=generator).double()
    matrix = torch.randn(*shape, 3, generator=generator).double()
    scale_tril = torch.linalg.cholesky(matrix @ matrix.mT + torch.eye(3))
    diagonal = scale_tril.diagonal(dim1=-2, dim2=-1)
    root = Dense(scale_tril) if kind == "dense" else Axes(diagonal)
    df = torch.tensor([2.0, 3.0, 5.0, 8.0]).double().expand(shape[:-1]) if heavy else None
    return Ellipses(loc, root, df, missing)


def _rows(count: int = 7) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1)).double()


def _reference(components: Ellipses, keep: list[int] | None = None) -> Any:
    """The components as Pyro has them, of some of the values."""
    keep = list(range(3)) if keep is None else keep
    covariance = components.root.covariance[..., keep, :][..., :, keep]
    loc = components.loc[..., keep]
    if components.df is None:
        return dist.MultivariateNormal(loc, covariance)
    return dist.MultivariateStudentT(components.df, loc, torch.linalg.cholesky(covariance))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("kind", ["dense", "axes"])
def test_a_complete_row_has_the_density_that_pyro_gives_it(
    kind: str, heavy: bool, missing: bool
) -> None:
    components, x = _ellipses(kind, heavy, missing), _rows()
    expected = _reference(components).log_prob(x[:, None])
    assert_close(components.log_prob(x), expected)


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("kind", ["dense", "axes"])
@pytest.mark.parametrize("seen", PATTERNS)
def test_a_row_with_missing_values_has_the_marginal_density(
    seen: tuple[bool, ...], kind: str, heavy: bool
) -> None:
    components = _ellipses(kind, heavy, missing=True)
    x = torch.where(torch.tensor(seen), _rows(), NAN)
    keep = [i for i in range(3) if seen[i]]
    expected = (
        _reference(components, keep).log_prob(x[:, None, keep]) if keep else torch.zeros(7, 4)
    )
    assert_close(components.log_prob(x), expected.double())


def test_patterns_of_missing_values_do_not_mix() -> None:
    components = _ellipses(missing=True)
    x = torch.where(torch.tensor(PATTERNS), _rows(8), NAN)
    alone = torch.cat([components.log_prob(row[None]) for row in x])
    assert_close(components.log_prob(x), alone)
    stacked = x.expand(2, 8, 3)  # an observation may come with draws to its left
    assert_close(components.log_prob(stacked), alone.expand(2, 8, 4))


def test_missing_values_are_filled_with_their_conditional_law() -> None:
    """The textbook's: mean m + B A^-1 (x - a), covariance C - B A^-1 B^T."""
    components = _ellipses(missing=True)
    x = _rows(1)
    x[:, 2] = NAN
    moments, values = components.moments(x)
    for k in range(4):
        covariance, loc = components.root.covariance[0, k], components.loc[0, k]
        slope = covariance[2, :2] @ covariance[:2, :2].inverse()
        assert_close(moments.filled[0, k, 2], slope @ (x[0, :2] - loc[:2]))
        assert_close(moments.filled[0, k, :2], x[0, :2] - loc[:2])
        assert moments.spread is not None
        assert_close(moments.spread[0, k, 2, 2], covariance[2, 2] - slope @ covariance[:2, 2])
        assert moments.spread[0, k, :2].abs().max() < 1e-12
    assert values.item() == 2


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", ["dense", "axes"])
def test_a_mixture_is_what_pyro_mixes(kind: str, missing: bool) -> None:
    components, x = _ellipses(kind, missing=missing), _rows()
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).double()
    law = Mixture(weights, components)
    reference = dist.MixtureSameFamily(dist.Categorical(weights), _reference(components))
    assert (law.batch_shape, law.event_shape) == ((1,), (3,))
    assert_close(law.expand([7]).log_prob(x), reference.log_prob(x))
    assert_close(law.expand([7]).mean, reference.mean.expand(7, 3))


def test_the_law_of_an_assignment_is_that_component() -> None:
    components, x = _ellipses(), _rows()
    each = _reference(components).log_prob(x[:, None])
    every = Assigned(torch.arange(4)[:, None], components)  # as enumeration in parallel has it
    assert_close(every.log_prob(x), each.T)
    index = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    law = Assigned(index, components)
    assert_close(law.log_prob(x), each.gather(1, index[:, None])[:, 0])
    assert_close(law.mean, components.loc[0][index])


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("kind", ["dense", "axes"])
def test_draws_of_parameters_stack_to_the_left_of_the_rows(
    kind: str, heavy: bool, missing: bool
) -> None:
    many = _ellipses(kind, heavy, missing, leading=(5,))
    x = torch.where(torch.tensor(PATTERNS), _rows(8), NAN) if missing else _rows(8)
    weights = torch.rand(5, 1, 4).double()
    weights = weights / weights.sum(-1, keepdim=True)
    together = Mixture(weights, many).expand([5, 8]).log_prob(x)
    assert together.shape == (5, 8)
    for s in range(5):
        matrix = many.root.scale_tril[s] if isinstance(many.root, Dense) else many.root.scale[s]
        root = Dense(matrix) if isinstance(many.root, Dense) else Axes(matrix)
        one = Ellipses(many.loc[s], root, None if many.df is None else many.df[s], missing)
        assert_close(together[s], Mixture(weights[s], one).log_prob(x))


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("kind", ["dense", "axes"])
def test_a_mixture_scores_what_it_draws(kind: str, heavy: bool) -> None:
    """Mean cosine and sine of the draws, in some directions, against those of Pyro's draws."""
    torch.manual_seed(0)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.double)
    components = _ellipses(kind, heavy)
    law = Mixture(weights, components)
    drawn = law.sample((20_000,))[:, 0]
    assert drawn.shape == (20_000, 3)
    reference = _reference(components).sample((20_000,))[:, 0]
    index = torch.multinomial(weights, 20_000, replacement=True)
    reference = reference[torch.arange(20_000), index]
    for direction in torch.eye(3).double():
        for wave in (torch.cos, torch.sin):
            ours, theirs = wave(drawn @ direction), wave(reference @ direction)
            error = ((ours.var() + theirs.var()) / 20_000).sqrt()
            assert (ours.mean() - theirs.mean()).abs() < 5 * error


def test_missing_values_are_in_the_support_only_where_they_are_integrated_out() -> None:
    weights, x = torch.full((4,), 0.25).double(), torch.tensor([0.0, NAN, 1.0]).double()
    assert Mixture(weights, _ellipses(missing=True)).log_prob(x).isfinite().all()
    with pytest.raises(ValueError, match="within the support"):
        Mixture(weights, _ellipses()).log_prob(x)
    with pytest.raises(ValueError, match="within the support"):
        Mixture(weights, _ellipses(missing=True)).log_prob(x + math.inf)


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("missing", [False, True])
def test_a_component_missed_costs_the_likelihood_it_is_said_to(heavy: bool, missing: bool) -> None:
    components = _ellipses(heavy=heavy, missing=missing)
    x = torch.where(torch.tensor(PATTERNS), _rows(8), NAN) if missing else _rows(8)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.double)
    table = expectation(x, weights, components)
    for k in range(4):
        rest = weights.clone()
        rest[k] = 0
        without = Mixture(rest / rest.sum(), components).log_prob(x).sum()
        assert_close(table["loss"][k], table["log_likelihood"] - without)


def test_the_raised_scatter_is_the_best_covariance_above_the_floor() -> None:
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(3, 3).double()).Q
    scatter = rotation @ torch.diag(torch.tensor([1e-4, 0.5, 2.0]).double()) @ rotation.T

    def likelihood(covariance: Tensor) -> Tensor:
        return -(covariance.logdet() + torch.linalg.solve(covariance, scatter).trace()) / 2

    best = raised(scatter, 0.1)
    assert torch.linalg.eigvalsh(best).min() >= 0.01 * (1 - 1e-9)
    for _ in range(50):
        step = torch.randn(3, 3).double() * 0.02
        other = raised(best + step + step.T, 0.1)
        assert likelihood(other) < likelihood(best)


def test_k_means_numbers_clusters_by_size() -> None:
    torch.manual_seed(0)
    y = torch.cat([torch.randn(20, 2), torch.randn(60, 2) + 20, torch.randn(40, 2) - 20]).double()
    assert clusters(y, 3).bincount().tolist() == [60, 40, 20]


def test_a_cluster_of_one_row_does_not_begin_as_a_spike() -> None:
    from ppl_gen.covariances import form

    torch.manual_seed(0)
    y = torch.cat([torch.randn(50, 2), torch.tensor([[9.0, 9.0]])]).double()
    found = from_clusters(y, clusters(y, 2), 2, form("full", 2, "log-normal", "lkj"), tied=False)
    assert found.weights[1] == pytest.approx(1 / 51)
    assert torch.linalg.eigvalsh(found.covariance[1]).min() > 0.1


def test_the_wishart_law_is_torchs_with_a_bijection() -> None:
    torch.manual_seed(0)
    law = Wishart(torch.tensor(5.0).double(), torch.eye(3).double() + 0.5)
    draws = law.expand([20_000]).sample()
    error = draws.std(0) / math.sqrt(20_000)
    assert ((draws.mean(0) - law.mean).abs() < 5 * error).all()
    assert law.support.check(draws).all()
    transform: Any = biject_to(law.support)
    assert isinstance(transform, LogCholesky)
    raw = transform.inv(draws[0])
    assert raw.shape == (6,)
    assert_close(transform(raw), draws[0])
    row, column = torch.tril_indices(3, 3)
    jacobian = torch.autograd.functional.jacobian(lambda v: transform._call(v)[row, column], raw)
    assert_close(transform.log_abs_det_jacobian(raw, draws[0]), jacobian.det().abs().log())


def _latents() -> None:
    one = torch.ones((), dtype=torch.double)
    pyro.sample("weights", dist.Dirichlet(torch.ones(3).double()))
    with pyro.plate("components", 3):
        pyro.sample("loc", dist.Normal(0 * one, one).expand([2]).to_event(1))
        pyro.sample("scale", dist.LogNormal(0 * one, one))


def _values(shift: float = 0.0) -> dict[str, Tensor]:
    return {
        "weights": torch.tensor([0.2, 0.3, 0.5]).double(),
        "loc": torch.arange(6).reshape(3, 2).double() + shift,
        "scale": torch.tensor([1.0, 2.0, 0.1]).double(),
    }


@pytest.mark.parametrize("spec", GUIDES)
def test_a_guide_is_centred_where_it_was_moved_in_the_same_tensors(spec: str) -> None:
    guide = Globals(spec, _latents, _values())
    before = dict(guide.named_parameters())
    guide.move(_values(shift=2.5))
    for name, value in guide.centre().items():
        assert_close(value, _values(shift=2.5)[name])
    after = dict(guide.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


@pytest.mark.parametrize("spec", GUIDES)
def test_a_guide_begins_narrow_about_its_centre(spec: str) -> None:
    torch.manual_seed(0)
    guide = Globals(spec, _latents, _values())
    for _ in range(20):
        assert (guide()["loc"] - _values()["loc"]).abs().max() < 0.5


@pytest.mark.parametrize("spec", GUIDES)
def test_a_guide_can_be_copied_and_leaves_the_parameter_store_alone(spec: str) -> None:
    outside = pyro.get_param_store().get_state()
    guide = Globals(spec, _latents, _values())
    guide()["loc"].sum().backward()
    other = copy.deepcopy(guide)
    other.move(_values(shift=1.0))
    assert_close(guide.centre()["loc"], _values()["loc"])
    assert_close(other.centre()["loc"], _values(shift=1.0)["loc"])
    assert other()["loc"].shape == (3, 2)
    assert pyro.get_param_store().get_state() == outside


def test_units_shift_a_guide_and_scale_its_density() -> None:
    """If v has density q, then a + b v has density q / |b|."""
    shift, factor = torch.tensor([5.0, -5.0]).double(), torch.tensor([10.0, 0.1]).double()
    log_volume = torch.tensor(3.0).double()
    guide = Globals("normal", _latents, _values())
    traces: list[Any] = []
    choices: list[dict[str, Any]] = [{}, {"loc": (shift, factor, log_volume)}]
    for units in choices:
        torch.manual_seed(0)
        with InUnits(units, guide.points):
            traces.append(poutine.trace(guide).get_trace())
        traces[-1].compute_log_prob()
    plain, moved = (trace.nodes["loc"] for trace in traces)
    assert_close(moved["value"], shift + factor * plain["value"])
    assert_close(moved["log_prob"], plain["log_prob"] - log_volume)
    assert_close(traces[0].nodes["scale"]["log_prob"], traces[1].nodes["scale"]["log_prob"])


@pytest.mark.parametrize("spec", ["flow", "AutoGuideList", "AutoContinuous", "Trace"])
def test_a_guide_that_pyro_has_not_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="posterior must be one of map, ml, normal, full"):
        Globals(spec, _latents, _values())
    with pytest.raises(TypeError, match="posterior must be a name"):
        Globals(3, _latents, _values())  # pyright: ignore[reportArgumentType]
