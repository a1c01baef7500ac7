"""Graphs: what is rewritten for a compiler gives the same, and how far rounding takes results."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import CorrCholeskyTransform, MultivariateNormal
from torch.testing import assert_close

from ppl_gen.inference import capture, graph
from ppl_gen.inference.rewriting import rewritten
from ppl_gen.inference.watch import Uncapturable

aten = torch.ops.aten


def quicker(function: Callable[..., Any], *inputs: Tensor) -> tuple[list[Any], Any]:
    """What is called once a function is rewritten, and what it gives then."""
    module = rewritten(graph.trace(lambda *given: (function(*given),), *inputs).module)
    (found,) = graph._bound(module)(*inputs)
    return [node.target for node in module.graph.nodes], found


def factors(count: int, size: int) -> Tensor:
    """Cholesky factors, with diagonals over three orders of magnitude."""
    diagonal = torch.logspace(-2, 1, size).diag_embed()
    return torch.randn(count, size, size).tril(-1) * 0.1 + diagonal


@pytest.mark.parametrize("upper", [False, True])
def test_a_triangular_system_for_many_columns_becomes_a_product(upper: bool) -> None:
    matrix, columns = factors(3, 5), torch.randn(3, 5, 200)
    matrix = matrix.mT if upper else matrix

    called, found = quicker(
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=upper), matrix, columns
    )

    assert aten.matmul.default in called
    exact = torch.linalg.solve_triangular(matrix.double(), columns.double(), upper=upper)
    assert_close(found.double(), exact, rtol=1e-5, atol=1e-5 * exact.abs().max().item())
    assert found.dtype == columns.dtype


def test_a_triangular_system_for_few_columns_stays() -> None:
    matrix, columns = factors(3, 5), torch.randn(3, 5, 6)
    called, found = quicker(
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=False), matrix, columns
    )
    assert aten.matmul.default not in called
    assert torch.equal(found, torch.linalg.solve_triangular(matrix, columns, upper=False))


def test_densities_of_a_mixture_of_full_covariances_are_the_same() -> None:
    scale_tril, loc, x = factors(4, 6), torch.randn(4, 6), torch.randn(300, 6)

    def density(scale_tril: Tensor, loc: Tensor, x: Tensor) -> Tensor:
        law = MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)
        return law.log_prob(x[:, None]).logsumexp(-1)

    called, found = quicker(density, scale_tril, loc, x)
    assert aten.matmul.default in called
    exact = density(scale_tril.double(), loc.double(), x.double())
    assert_close(found.double(), exact, rtol=1e-4, atol=1e-3)


def test_products_of_a_column_and_a_row_are_multiplied() -> None:
    column, row = torch.randn(50, 3, 1), torch.randn(50, 1, 4)
    called, found = quicker(torch.bmm, column, row)
    assert aten.bmm.default not in called
    assert torch.equal(found, torch.bmm(column, row))

    left, right = torch.randn(50, 3, 2), torch.randn(50, 2, 4)
    called, found = quicker(torch.bmm, left, right)
    assert aten.bmm.default in called


def test_a_row_is_added_after_the_product() -> None:
    row, left, right = torch.randn(4), torch.randn(50, 3), torch.randn(3, 4)
    called, found = quicker(torch.addmm, row, left, right)
    assert aten.addmm.default not in called
    assert_close(found, torch.addmm(row, left, right))

    matrix = torch.randn(50, 4)
    for options in ({}, {"alpha": 2.0}, {"beta": 0.0}):
        first = row if options else matrix
        called, found = quicker(lambda *g: torch.addmm(*g, **options), first, left, right)  # noqa: B023
        assert aten.addmm.default in called
        assert_close(found, torch.addmm(first, left, right, **options))


def test_entries_below_a_diagonal_are_numbered() -> None:
    transform, vector = CorrCholeskyTransform(), torch.randn(7, 6)
    called, found = quicker(lambda v: transform(v), vector)
    assert aten.lt.Tensor not in called[called.index(aten.index_put_.default) :]
    assert torch.equal(found, transform(vector))
    module = rewritten(graph.trace(lambda v: (transform(v),), vector).module)
    assert [b.dtype for b in module.buffers()] == [torch.int64, torch.int64]


def test_numbers_off_by_some_roundings_show_what_rounding_does() -> None:
    """Where numbers that nearly agree cancel, rounding is what is left; elsewhere, the digits."""
    x = torch.randn(1000)
    y = x * (1 + 1e-5)

    def difference(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x - y, x * y

    traced = graph.trace(difference, x, y)
    cancelled, whole = traced(x, y)
    nearly, near = traced.nudged(torch.Generator().manual_seed(1), x, y)
    assert not torch.allclose(nearly, cancelled, rtol=1e-3, atol=0)
    assert_close(near, whole, rtol=1e-5, atol=0)
    assert not torch.equal(near, whole)
    again = traced.nudged(torch.Generator().manual_seed(1), x, y)
    assert all(map(torch.equal, again, (nearly, near)))


def test_rounding_excuses_no_more_than_it_does() -> None:
    wanted, found = torch.tensor([1e-4, 1.0]), torch.tensor([2e-4, 1.0])
    for moved, right in ((3e-5, True), (1e-6, False)):
        asked = [(wanted,), (wanted + moved,), (wanted,)]
        if right:
            capture._hold((wanted,), (found,), 1e-5, asked.pop)
            assert not asked
        else:
            with pytest.raises(Uncapturable, match="off by"):
                capture._hold((wanted,), (found,), 1e-5, asked.pop)
    with pytest.raises(Uncapturable, match="off by"):
        capture._hold((wanted,), (found,), 1e-5)


@pytest.mark.parametrize("planted", [0.0, 0.01])
def test_at_the_end_of_a_climb_rounding_is_no_error_but_an_error_is(
    planted: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient of large terms that cancel, of which machine code adds up in another order."""
    x = torch.randn(4096)
    x = x - x.mean()

    def gradient(x: Tensor) -> tuple[Tensor, ...]:
        return (x.sum()[None],)

    def compiled(self: graph.Graph, *inputs: Tensor) -> graph.Graph:
        return graph.Graph(
            self.module, self.outer, self.assumed, lambda x: (x.flip(0).cumsum(0)[-1:] + planted,)
        )

    monkeypatch.setattr(capture, "COMPILING", 0.0)
    monkeypatch.setattr(graph.Graph, "compiled", compiled)
    captured = capture.Captured(gradient, [], "auto", lambda rows: 100)
    for _ in range(20):
        captured(x)
    (shape,) = captured.shapes.values()
    assert not captured.reason
    assert shape.compiled == (planted == 0.0)
