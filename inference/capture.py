"""A function that runs Pyro programs, in eager Pyro at first and as a graph once it is known."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pyro.infer import is_validation_enabled
from torch import Tensor

from ppl_gen.inference.graph import Function, Graph, told, trace
from ppl_gen.inference.memory import Bytes
from ppl_gen.inference.own_state import Noise, OwnState
from ppl_gen.inference.seeds import noise_to_come, set_noise
from ppl_gen.inference.watch import Uncapturable

logger = logging.getLogger("ppl_gen")

Compile = Literal["auto", "graph", "eager"]

# Fewer uses of a graph do not repay the tracing of it, which takes as long as some ten of them.
FEW = 20
# What compiling takes, and what it saves a step: of an operation's overhead, and of the time to
# write an intermediate result and read it again. Seconds, on a laptop's two cores; they only have
# to be right within a few times, and are constants so that the same fit always decides the same.
COMPILING = 10.0
SAVED_AN_OPERATION = 2e-6
SAVED_A_BYTE = 1e-10
# How far compiled results may be from those of eager Pyro, as a share of their own size: single
# precision, summed in another order.
AGREEMENT = 1e-3
# Or how many times as far as rounding alone was seen to take them, in so many trials, where that is
# further. In one trial a single number may hardly move by chance.
ROUNDED, TRIALS = 10.0, 3


@dataclass
class _Shape:
    """What is known for inputs of one shape.

    Attributes:
        seen: How often it came.
        checking: The graph that also says whether parameters and data are valid.
        plain: The same without.
        compiled: Whether that is machine code.
        owed: Whether a fit that was interrupted had such graphs, which are yet to be made again.
    """

    seen: int = 0
    checking: Graph | None = None
    plain: Graph | None = None
    compiled: bool = False
    owed: bool = False


class Captured:
    """A function of tensors that becomes a graph, one for each shape of its inputs.

    It runs as it is at first, and what it keeps from call to call is watched. Then it is traced and
    the graph held against it, from the same random numbers; again at the 4th use, the 8th, the
    16th and so on. Whatever differs or cannot be traced, it runs as it is from there on, and one
    line says why.

    Args:
        function: What to run. Called with tensors, it gives tensors.
        programs: What it runs, whose own state is watched.
        how: auto, graph or eager.
        uses: How often inputs of that many rows will come, if ``how`` is not eager.
        trusts: Whether inputs need not be looked at once Pyro's validation is off.

    Attributes:
        reason: Why it runs as it is, if it does.
        noise: State of torch's generators before the last call.
    """

    def __init__(
        self,
        function: Function,
        programs: Iterable[Any],
        how: Compile,
        uses: Callable[[int], int],
        trusts: bool = True,
    ) -> None:
        self.function = function
        self.trusts = trusts
        self.programs = list(programs)
        self.how = how
        self.uses = uses
        self.shapes: dict[Any, _Shape] = {}
        self.written: list[Tensor] = []
        self.noise = noise_to_come()
        self.reason = "" if how != "eager" else "asked for"

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function's outputs."""
        self.noise = noise_to_come()
        if self.reason:
            return self.function(*inputs)
        key = tuple((i.shape, i.dtype) for i in inputs)
        shape = self.shapes.get(key)
        if shape is None:
            shape = self.shapes[key] = _Shape()
        if shape.owed:
            self._make_again(shape, *inputs)
            if self.reason:
                return self.function(*inputs)
        shape.seen += 1
        if shape.seen == 1:
            return self._observed(*inputs)
        if shape.plain is None and shape.seen > 2:
            return self.function(*inputs)
        if shape.seen & (shape.seen - 1) == 0:
            return self._compared(shape, *inputs)
        return self._run(shape, *inputs)

    def state(self) -> dict[str, Any]:
        """What decides how the calls to come are run, as plain values."""
        shapes = [
            {
                "inputs": [[list(size), str(dtype).removeprefix("torch.")] for size, dtype in key],
                "seen": shape.seen,
                "traced": shape.plain is not None or shape.owed,
                "compiled": shape.compiled,
            }
            for key, shape in self.shapes.items()
        ]
        return {"reason": self.reason, "shapes": shapes}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on as what gave :meth:`state` would; graphs are made again when they are needed."""
        self.reason = state["reason"]
        for known in state["shapes"]:
            key = tuple((torch.Size(s), getattr(torch, dtype)) for s, dtype in known["inputs"])
            shape = _Shape(known["seen"], compiled=known["compiled"], owed=known["traced"])
            self.shapes[key] = shape

    def _make_again(self, shape: _Shape, *inputs: Tensor) -> None:
        """Trace, and compile, what was before the fit was interrupted, leaving no trace."""
        before = OwnState(self.programs)
        begun = _Moment(list(before.tensors.values()))
        try:
            self.function(*inputs)
            after = OwnState(self.programs)
            self.written = after.written(before)
            begun.restore()
            shape.checking = trace(self.function, *inputs)
            shape.plain = shape.checking.trusting() if self.trusts else shape.checking
            if shape.compiled:
                begun.restore()
                shape.plain = shape.plain.compiled(*inputs)
            shape.owed = False
        except Exception as error:
            self._give_up(f"the program could not be traced again: {told(error)}")
        finally:
            begun.restore()

    def _observed(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the function as it is and look whether it leaves anything behind."""
        noise, before = Noise(), OwnState(self.programs)
        with noise.listening():
            outputs = self.function(*inputs)
        after = OwnState(self.programs)
        changed = after.changed(before)
        if noise.heard:
            self._give_up("the program prints")
        elif changed is not None:
            self._give_up(f"the program changes {changed} from call to call")
        known = {id(tensor) for tensor in self.written}
        self.written += [tensor for tensor in after.written(before) if id(tensor) not in known]
        return outputs

    def _compared(self, shape: _Shape, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the function as it is, and hold a graph against it."""
        rows = len(inputs[0]) if inputs else 1
        uses = self.uses(rows) if shape.plain is None else 0
        if shape.plain is None and uses < FEW:
            return self.function(*inputs)
        begun = _Moment(self.written)
        wanted = self.function(*inputs)
        ended = _Moment(self.written)
        begun.restore()
        try:
            if shape.plain is None:
                shape.checking = trace(self.function, *inputs)
                shape.plain = shape.checking.trusting() if self.trusts else shape.checking
                begun.restore()
            with Bytes() as counted:
                found = _without_assumed(graph := self._graph_of(shape), graph(*inputs))
            if shape.compiled:
                _hold(wanted, found, _loosest(), self._nudged(graph, begun, *inputs))
            else:
                _hold(wanted, found, 1e-5)
            ended.hold()
            if self._pays(uses, shape.plain, counted.total):
                begun.restore()
                self._compile(shape, wanted, begun, ended, *inputs)
        except Uncapturable as error:
            self._give_up(f"the program {error}")
        except Exception as error:
            self._give_up(f"the program could not be traced: {told(error)}")
        finally:
            ended.restore()
        return wanted

    def _run(self, shape: _Shape, *inputs: Tensor) -> tuple[Tensor, ...]:
        graph = self._graph_of(shape)
        begun = _Moment(self.written, self.noise)
        try:
            outputs = graph(*inputs)
            if not graph.assumed or outputs[-1]:
                return _without_assumed(graph, outputs)
        except Exception as error:
            self._give_up(f"its graph failed: {told(error)}")
        # In eager Pyro it will say what is wrong, if something is.
        begun.restore()
        return self.function(*inputs)

    def _graph_of(self, shape: _Shape) -> Graph:
        graph = shape.checking if is_validation_enabled() else shape.plain
        assert graph is not None
        return graph

    def _pays(self, uses: int, graph: Graph, computed: int) -> bool:
        """Whether compiling a graph takes less time than it saves."""
        saved = SAVED_AN_OPERATION * len(graph.module.graph.nodes) + SAVED_A_BYTE * computed
        return self.how == "auto" and uses * saved > COMPILING

    def _compile(
        self,
        shape: _Shape,
        wanted: tuple[Tensor, ...],
        begun: _Moment,
        ended: _Moment,
        *inputs: Tensor,
    ) -> None:
        """Put machine code in the place of a graph, if it gives the same and leaves the same."""
        assert shape.plain is not None
        try:
            compiled = shape.plain.compiled(*inputs)
            found = _without_assumed(compiled, compiled(*inputs))
            _hold(wanted, found, _loosest(), self._nudged(compiled, begun, *inputs))
            ended.hold()
        except Uncapturable as error:
            logger.warning("compile: the graph runs as it is, since it %s", error)
        else:
            shape.plain, shape.compiled = compiled, True

    def _nudged(
        self, graph: Graph, begun: _Moment, *inputs: Tensor
    ) -> Callable[[], tuple[Tensor, ...]]:
        """What the graph gives from the same start where every number is off by some roundings.

        Each call's roundings are others.
        """
        noise = torch.Generator().manual_seed(0)

        def outputs() -> tuple[Tensor, ...]:
            now = _Moment(self.written)
            begun.restore()
            found = _without_assumed(graph, graph.nudged(noise, *inputs))
            now.restore()
            return found

        return outputs

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self.shapes.clear()
        logger.warning("compile: eager Pyro from here on, since %s", reason)


class _Moment:
    """The random numbers to come, and what a function writes in place, as they are now."""

    def __init__(self, written: list[Tensor], noise: tuple[Tensor, ...] | None = None) -> None:
        self.noise = noise or noise_to_come()
        self.written = [(tensor, tensor.detach().clone()) for tensor in written]

    def restore(self) -> None:
        """Make it all as it was."""
        set_noise(self.noise)
        with torch.no_grad():
            for tensor, value in self.written:
                tensor.copy_(value)

    def hold(self) -> None:
        """Refuse if it is not as it was."""
        if not all(map(torch.equal, noise_to_come(), self.noise)):
            raise Uncapturable("draws other random numbers as a graph")
        present = tuple(tensor.detach() for tensor, _ in self.written)
        _hold(tuple(value for _, value in self.written), present, _loosest())


def _without_assumed(graph: Graph, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs[:-1] if graph.assumed else outputs


def _hold(
    wanted: Sequence[Tensor],
    found: Sequence[Tensor],
    share: float,
    nudged: Callable[[], Sequence[Tensor]] | None = None,
) -> None:
    """Refuse if tensors are further apart than a share of their size.

    What is small beside the largest of them may be off by a share of that, a thousand times less:
    a gradient that is zero but for rounding has no digits to agree in. Near the end of a climb the
    whole gradient may be little but rounding: then what was wanted is moved as far by a few
    roundings of the numbers it is made of, and it may be off by as much.

    Args:
        wanted: How the tensors should be.
        found: How they are.
        share: How far they may be apart.
        nudged: Gives how they are when what they are made of is off by some roundings, by others
            at each call.
    """
    if len(wanted) != len(found):
        raise Uncapturable("gives other results as a graph")
    sizes = [float(value.double().nan_to_num().norm()) for value in wanted]
    least = 1e-3 * max(sizes, default=0.0)
    moved: list[Sequence[Tensor]] = []
    for i, (value, other, size) in enumerate(zip(wanted, found, sizes, strict=True)):
        alike = value.shape == other.shape and value.dtype == other.dtype
        if not alike or not torch.equal(value.isfinite(), other.isfinite()):
            raise Uncapturable("gives other results as a graph")
        away = _distance(value, other)
        if away <= share * max(size, least):
            continue
        if nudged is not None and not moved:
            moved = [nudged() for _ in range(TRIALS)]
        if away > ROUNDED * max((_distance(value, near[i]) for near in moved), default=0.0):
            raise Uncapturable(f"gives results as a graph that are off by {away:.1e} of {size:.1e}")


def _distance(value: Tensor, other: Tensor) -> float:
    return float((value.double() - other.double()).nan_to_num().norm())


def _loosest() -> float:
    return AGREEMENT if torch.get_float32_matmul_precision() == "highest" else 50 * AGREEMENT
