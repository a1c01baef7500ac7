"""The E-step in two products is the E-step: densities, sums, precision, and what it holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ppl_gen.chunks import in_chunks, total
from ppl_gen.ellipses import Axes, Dense, Ellipses
from ppl_gen.errors import StoryError
from ppl_gen.mixtures import added, expectation, joint_density
from ppl_gen.models import GMM
from ppl_gen.quadratics import WIDE, Quadratics, packed, unpacked

COVARIANCES = ["full", "tied", "diagonal", "spherical"]
LAWS = ["normal", "student-t"]
CPU = torch.device("cpu")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _story(covariance: Any = "full", law: Any = "normal", features: int = 3, **more: Any) -> GMM:
    torch.manual_seed(0)
    story = GMM((features,), 4, covariance=covariance, law=law, **more)
    story.start(_rows(200, features))
    story.maximise(story.statistics(_rows(200, features)))
    return story


def _rows(count: int, features: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, features, generator=generator).double().cumsum(-1) + 5


def _mahalanobis(y: Tensor, loc: Tensor, covariance: Tensor) -> Tensor:
    rest = y[:, None] - loc
    return (rest * torch.linalg.solve(covariance, rest.unsqueeze(-1)).squeeze(-1)).sum(-1)


def _reference(story: GMM, x: Tensor) -> dict[str, Tensor]:
    """The E-step written out, with every array of rows by components by features."""
    y = (x - story.center) / story.spread
    loc = (story.means - story.center) / story.spread
    covariance = story.covariances / story.spread / story.spread.unsqueeze(-1)
    law: Any = MultivariateNormal(loc, covariance)
    precision = torch.ones(len(x), 4).double()
    if story.df is not None:
        import pyro.distributions as dist

        law = dist.MultivariateStudentT(story.df, loc, torch.linalg.cholesky(covariance))
        distance = _mahalanobis(y, loc, covariance)
        precision = (story.df + x.shape[1]) / (story.df + distance)
    joint = story.weights.log() + law.log_prob(y[:, None])
    share = joint.softmax(-1)
    counted = share * precision
    second = torch.einsum("nk,nd,ne->kde", counted, y, y)
    return {
        "log_likelihood": joint.logsumexp(-1).sum() - len(x) * story.spread.log().sum(),
        "rows": torch.tensor(float(len(x))).double(),
        "responsibility": share.sum(0),
        "precision": counted.sum(0),
        "first": counted.T @ y,
        "second": packed(second) if story.form.products else second.diagonal(dim1=-2, dim2=-1),
    }


@pytest.mark.parametrize("features", [1, 3, WIDE + 1])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_sums_are_those_of_the_e_step_written_out(
    covariance: Any, law: Any, features: int
) -> None:
    story, x = _story(covariance, law, features), _rows(150, features)
    found = story.statistics(x)
    for name, value in _reference(story, x).items():
        assert_close(found[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("kind", ["dense", "axes"])
def test_incomplete_rows_add_to_the_sums_of_the_complete(kind: str, heavy: bool) -> None:
    """Where nothing is missing, the path of missing values and that of products give the same."""
    story = _story("full" if kind == "dense" else "diagonal", LAWS[heavy], missing="integrate")
    weights, components = story._law()
    y = (_rows(50) - story.center) / story.spread
    gap = torch.full((1, 3), torch.nan).double()
    nothing = expectation(gap, weights, components)
    holed = expectation(torch.cat([y, gap]), weights, components)
    whole = expectation(y, weights, Ellipses(components.loc, components.root, components.df))
    for name, value in added(whole, nothing).items():
        assert_close(holed[name], value)
    moments, values = components.moments(y)
    expected = components.log_density(moments.distance, moments.log_det, values) + weights.log()
    assert_close(joint_density(y, weights, components), expected)


@pytest.mark.parametrize("kind", ["dense", "axes"])
@pytest.mark.parametrize("place", [0.0, 0.1, 3.0, 300.0])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0])
def test_a_small_component_far_away_keeps_its_density(
    scale: float, place: float, kind: str
) -> None:
    r"""As exact as whitening: within 1e-9, though products alone lose place^2 / scale^2 digits."""
    torch.manual_seed(0)
    root = torch.linalg.cholesky(torch.eye(3).double() + 0.5) * scale
    root = root if kind == "dense" else root.diagonal().diag_embed()
    loc = torch.tensor([[place, -place, 0.5 * place], [0.0, 0.0, 0.0]]).double()
    y = loc[0] + torch.randn(100, 3).double() @ root.T
    matrices = torch.stack([root, torch.eye(3).double()])
    held = Dense(matrices[None]) if kind == "dense" else Axes(matrices.diagonal(0, 1, 2)[None])
    weights = torch.tensor([0.5, 0.5]).double()

    found = expectation(y, weights, Ellipses(loc[None], held))["log_likelihood"]

    law = MultivariateNormal(loc, scale_tril=matrices)
    expected = (weights.log() + law.log_prob(y[:, None])).logsumexp(-1).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


def test_packed_matrices_are_unpacked_as_they_were() -> None:
    matrix = torch.randn(4, 3, 3).double()
    matrix = matrix + matrix.mT
    assert packed(matrix).shape == (4, 6)
    assert torch.equal(unpacked(packed(matrix), 3), matrix)


def test_components_are_whitened_only_where_terms_would_cancel() -> None:
    loc = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 0.0]]).double()
    white = torch.tensor([1.0, 1e3, 1e3]).double()[:, None, None] * torch.eye(2).double()
    assert Quadratics(loc, white).far == [1]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_sums_of_chunks_add_up_to_those_of_the_whole(
    covariance: Any, law: Any, missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = _story(covariance, law, missing="integrate" if missing else "refuse")
    x = _rows(500)
    if missing:
        x = torch.where(torch.rand(500, 3) < 0.2, torch.nan, x)
    whole = story.statistics(x)
    answers = [f(x) for f in (story.predict, story.predict_proba, story.score_samples)]

    monkeypatch.setattr("ppl_gen.mixture_story.NUMBERS", 1500)

    for threads in (1, 3):
        with _threads(threads):
            for name, value in story.statistics(x).items():
                assert_close(value, whole[name])
            for f, value in zip(
                (story.predict, story.predict_proba, story.score_samples), answers, strict=True
            ):
                assert_close(f(x), value)


class _Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        self.entries = max([self.entries, *sizes])
        return found


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_no_array_of_rows_by_components_is_made(covariance: Any) -> None:
    """So none of rows by components by features; answers of one number a row are the largest."""
    story, x = _story(covariance, features=8), _rows(200_000, 8)
    for ask in (story.statistics, story.predict, story.score_samples, story.bic):
        with _threads(1), _Largest() as largest:
            ask(x)
        assert largest.entries < len(x) * story.components


def test_a_value_that_cannot_be_scored_is_found_in_its_row() -> None:
    story, x = _story(), _rows(100_000)
    x[90_001, 2] = torch.inf
    for ask in (story.statistics, story.score_samples):
        with pytest.raises(StoryError, match="got inf in row 90001, feature 2"):
            ask(x)


def test_values_whose_sum_overflows_are_scored() -> None:
    story = _story()
    x = torch.full((3, 3), 1e38)
    assert story._checked(x) is x


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_chunks_come_in_their_order_and_without_gradients(threads: int) -> None:
    x = torch.arange(10.0, requires_grad=True)
    with _threads(threads):
        found = list(in_chunks(lambda part: 2 * x[part], 10, 3, CPU))
        assert torch.get_num_threads() == threads
        with pytest.raises(ZeroDivisionError):
            list(in_chunks(lambda part: 1 / (part.start - 3), 10, 3, CPU))
        assert torch.get_num_threads() == threads
    assert [len(f) for f in found] == [3, 3, 3, 1]
    assert torch.equal(torch.cat(found), 2 * torch.arange(10.0))
    assert not any(f.requires_grad for f in found)


def test_a_sum_has_every_row_once_and_the_same_bits_whatever_the_threads() -> None:
    x = torch.randn(10_007)
    found = []
    for threads in (1, 2, 5):
        with _threads(threads):
            found.append(total(lambda part: x[part].sum(), torch.add, len(x), 31, CPU))
            rows = total(lambda part: part.stop - part.start, int.__add__, len(x), 31, CPU)
            assert rows == len(x)
    assert all(torch.equal(found[0], other) for other in found)
    assert_close(found[0], x.sum())
