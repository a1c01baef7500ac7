"""A function of tensors as one flat graph of torch's operations: traced, run, compiled."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx

from ppl_gen.inference.rewriting import changes_or_draws, rewritten
from ppl_gen.inference.watch import Uncapturable, Watch

Function = Callable[..., tuple[Tensor, ...]]

aten = torch.ops.aten

# Roundings by which numbers are moved to see what rounding does.
NUDGE = 8
# Give the tensor itself, once there is no autograd to hide it from.
_SAME = (aten.detach.default, aten.alias.default)


@dataclass
class Graph:
    """What a function computes, without Python, autograd or Pyro's handlers.

    Tensors that the function takes from elsewhere (parameters, buffers, data) are inputs of the
    graph, so that it sees what becomes of them and changes in place what the function changes.

    Attributes:
        module: The operations, a function of the outer tensors and of the inputs.
        outer: Tensors from elsewhere, in the order of their inputs.
        assumed: Whether the last output says if all that was taken for granted holds.
        run: What computes the outputs of ``module``, from the same inputs; by default its code.
    """

    module: fx.GraphModule
    outer: list[Tensor]
    assumed: bool
    run: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        self._run: Callable[..., Any] = self.run or _bound(self.module)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs; gradients are not recorded."""
        with torch.no_grad():
            return self._run(*self.outer, *inputs)

    def trusting(self) -> Graph:
        """The same without the output on what was assumed, and so without the work for it."""
        graph = fx.Graph()
        output: Any = graph.graph_copy(self.module.graph, {})
        graph.output(output[:-1] if self.assumed else output)
        graph.eliminate_dead_code(changes_or_draws)
        return Graph(fx.GraphModule(self.module, graph), self.outer, False)

    def nudged(self, noise: torch.Generator, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of numbers that are off by a few roundings each, by the graph's own code.

        How far they are from :meth:`__call__`'s is how far rounding alone takes them. Nothing is
        changed in place.

        Args:
            noise: Says how far each number is off.
            *inputs: As of :meth:`__call__`.
        """

        def near(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor.clone()
            off = NUDGE * torch.finfo(tensor.dtype).eps
            factor = torch.rand(tensor.shape, generator=noise, dtype=tensor.dtype)
            return factor.mul_(2 * off).add_(1 - off).to(tensor.device).mul_(tensor.detach())

        with torch.no_grad():
            return _bound(self.module)(*map(near, (*self.outer, *inputs)))

    def compiled(self, *inputs: Tensor) -> Graph:
        """The same as machine code for inputs of these shapes, made by torch's Inductor.

        Raises:
            Uncapturable: If there is no compiler at hand, or it fails.
        """
        try:
            from torch._inductor import config, standalone_compile

            on_cpu = all(tensor.device.type == "cpu" for tensor in (*self.outer, *inputs))
            options = {
                "fallback_random": True,
                "compile_threads": 1,
                "cpp_wrapper": on_cpu,
                # What the processor can is known; that the compiler can too shows as it compiles.
                # Trying every kind of vectors first took 8 s of 16 to the first compiled step.
                "cpp.vec_isa_ok": config.cpp.vec_isa_ok is not False,
            }
            with torch.no_grad(), warnings.catch_warnings(), config.patch(options):
                warnings.simplefilter("ignore")
                run = standalone_compile(
                    rewritten(self.module),
                    [t.detach() for t in (*self.outer, *inputs)],
                    dynamic_shapes="from_example_inputs",
                )
        except Exception as error:
            raise Uncapturable(f"could not be compiled: {told(error)}") from error
        return replace(self, run=run)


def trace(function: Function, *inputs: Tensor) -> Graph:
    """Run a function once and write down what it does.

    Args:
        function: Takes tensors and gives tensors. It may take further ones from elsewhere, and
            change those in place. It may use autograd.
        *inputs: What it is run on.

    Raises:
        Uncapturable: If what it does depends on the values of tensors.
    """
    watch = Watch()

    def watched(*given: Tensor) -> list[Tensor]:
        with watch:
            found = [value.detach() for value in function(*given)]
            if watch.assumed:
                found.append(torch.stack([a.all() for a in watch.assumed]).all())
            return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = make_fx(watched)(*inputs)
    for node in list(module.graph.nodes):
        _refuse_open_shapes(node)
        if node.target in _SAME:
            node.replace_all_uses_with(node.args[0])
    outer = _lift(module)
    module.graph.eliminate_dead_code(changes_or_draws)
    module.graph.lint()
    module.recompile()
    return Graph(module, outer, bool(watch.assumed))


def _bound(module: fx.GraphModule) -> Callable[..., Any]:
    """The graph as a Python function that has its operations at hand.

    The code that torch.fx writes looks each up anew by its whole name, and calls it by way of a
    Python method: of small tensors that takes longer than the operation.
    """
    code = module.graph.python_code("self")
    named = {
        f"torch.ops.{node.target}": node.target
        for node in module.graph.nodes
        if isinstance(node.target, OpOverload)
    }
    names = {name: f"op_{i}" for i, name in enumerate(named)}
    source = re.sub(r"torch\.ops\.[\w.]+(?=\()", lambda m: names.get(m[0], m[0]), code.src)
    at_hand = {names[name]: target._op for name, target in named.items()}
    scope: dict[str, Any] = {**code.globals, **at_hand}
    exec(source, scope)
    return functools.partial(scope["forward"], module)


def _lift(module: fx.GraphModule) -> list[Tensor]:
    """Make inputs, before the others, of the tensors that a graph holds as attributes."""
    graph = module.graph
    first = next(iter(graph.nodes))
    found: dict[int, tuple[Tensor, fx.Node]] = {}
    for node in list(graph.nodes):
        if node.op != "get_attr" or _is_constant(node):
            continue
        tensor = getattr(module, str(node.target))
        if id(tensor) not in found:
            with graph.inserting_before(first):
                found[id(tensor)] = tensor, graph.placeholder(f"outer_{len(found)}")
                found[id(tensor)][1].meta["val"] = tensor.detach()
        node.replace_all_uses_with(found[id(tensor)][1])
        graph.erase_node(node)
    for name in list(module._parameters):
        delattr(module, name)
    return [tensor for tensor, _ in found.values()]


def _is_constant(node: fx.Node) -> bool:
    """Whether it is a tensor made of Python numbers inside the function."""
    return all(
        user.target in (aten.lift_fresh_copy.default, aten.lift_fresh.default)
        for user in node.users
    )


def _refuse_open_shapes(node: fx.Node) -> None:
    tags = getattr(node.target, "tags", ())
    if node.target is aten.index.Tensor or not tags:
        return  # by truth values it is refused while it is traced
    if torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags:
        raise Uncapturable(f"has shapes that depend on the data ({node.target})")


def told(error: Exception) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:200]
