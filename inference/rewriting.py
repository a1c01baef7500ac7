"""Graphs in other operations with the same results, which compiled code is quicker at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

aten = torch.ops.aten

# Times as many columns as rows, for which a triangular matrix is worth inverting.
MANY = 4


def rewritten(module: fx.GraphModule) -> fx.GraphModule:
    """The same in operations that machine code of Inductor's is good at."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    faster = fx.GraphModule(module, graph)
    for node in list(faster.graph.nodes):
        if (rule := _RULES.get(node.target)) is None:
            continue
        with faster.graph.inserting_before(node):
            other = rule(node)
        if other is not None:
            other.meta = dict(node.meta)
            node.replace_all_uses_with(other)
            faster.graph.erase_node(node)
    faster.recompile()
    return faster


def changes_or_draws(node: fx.Node) -> bool:
    """Whether it has an effect beside its result: it writes in place, or uses up random numbers."""
    if node.op in ("placeholder", "output"):
        return True
    target = node.target
    if not isinstance(target, OpOverload):
        return False
    return target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags


def _inverted(node: Any) -> fx.Node | None:
    """A triangular system for many columns as a product with the inverse, in double precision.

    Both are as accurate (Higham 2002, Accuracy and Stability of Numerical Algorithms, section
    14.2), but processors are good at products: mixtures of normal laws with full covariances,
    whose columns are the rows of the data, take a third of the time.
    """
    matrix, columns = node.args
    like, size = matrix.meta["val"], matrix.meta["val"].shape[-1]
    odd = not node.kwargs.get("left", True) or like.is_complex()
    if odd or columns.meta["val"].shape[-1] < MANY * size:
        return None
    call = node.graph.call_function
    exact = call(aten.to.dtype, (matrix, torch.double))
    identity = call(aten.eye, (size,), {"dtype": torch.double, "device": like.device})
    inverse = call(node.target, (exact, identity), node.kwargs)
    return call(aten.matmul.default, (call(aten.to.dtype, (inverse, like.dtype)), columns))


def _multiplied(node: Any) -> fx.Node | None:
    """Products of a column and a row each, as the sums over enumerated sites have them."""
    outer = node.args[0].meta["val"].shape[-1] == 1
    return node.graph.call_function(aten.mul.Tensor, node.args) if outer else None


def _apart(node: Any) -> fx.Node | None:
    """A product of matrices and a row that is added: the sum goes into the operation that follows.

    Written as a difference, since Inductor puts product and sum together again.
    """
    row, *factors = node.args
    if node.kwargs or row.meta["val"].dim() != 1 or node.meta["val"].device.type != "cpu":
        return None
    call = node.graph.call_function
    product = call(aten.mm.default, tuple(factors))
    return call(aten.sub.Tensor, (product, call(aten.neg.default, (row,))))


def _numbered(node: Any) -> fx.Node | None:
    """Entries chosen by truth values that are always the same, such as those below a diagonal."""
    first, indices, *others = node.args
    numbers: list[Any] = []
    for index in indices:
        mask = None if index is None else _constant(index)
        if mask is None or mask.dtype is not torch.bool:
            numbers.append(index)
            continue
        for places in mask.nonzero(as_tuple=True):
            name = f"places_{len(list(node.graph.owning_module.buffers()))}"
            node.graph.owning_module.register_buffer(name, places)
            numbers.append(node.graph.get_attr(name))
    if numbers == list(indices):
        return None
    return node.graph.call_function(node.target, (first, numbers, *others), node.kwargs)


def _constant(node: Any) -> Any:
    """What a node gives if that depends on no input and no random number; else None."""
    if not isinstance(node, fx.Node):
        return node
    if node.op != "call_function" or changes_or_draws(node):
        return None
    inputs = [_constant(given) for given in node.all_input_nodes]
    if any(given is None for given in inputs):
        return None
    known = dict(zip(node.all_input_nodes, inputs, strict=True))
    args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
    function: Any = node.target
    return function(*args, **kwargs)


_RULES: dict[Any, Callable[[Any], fx.Node | None]] = {
    aten.linalg_solve_triangular.default: _inverted,
    aten.bmm.default: _multiplied,
    aten.addmm.default: _apart,
    aten.index.Tensor: _numbered,
    aten.index_put.default: _numbered,
    aten.index_put_.default: _numbered,
}
