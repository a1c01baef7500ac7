"""What a gradient does to the parameters: clipping, one of torch's optimisers, a running mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ppl_gen.inference.graph import Graph, trace
from ppl_gen.inference.watch import Uncapturable

OptimizerFactory = Callable[[list[Tensor]], Optimizer]


class Update:
    """Gradients, clipped if asked, handed to a torch optimiser.

    The optimiser is torch's own, and so is its state: ``optimizer.state_dict()`` is what torch
    saves and loads. Once it has taken a step, what it does is traced into a few operations and run
    as such, if they give the same to the last bit.

    Args:
        factory: Makes the optimiser for some parameters.
        clip: Largest norm of the gradient, or None.
        ema: How much of the mean is kept a step, if a running mean of the weights is wanted.
        captured: Whether to trace it.
    """

    def __init__(
        self,
        factory: OptimizerFactory,
        clip: float | None = None,
        ema: float | None = None,
        captured: bool = True,
    ) -> None:
        self.factory = factory
        self.clip = clip
        self.ema = ema
        self.captured = captured
        self.optimizer: Optimizer | None = None
        self.parameters: list[Tensor] = []
        self.means: list[Tensor] = []
        self.rate = 0.0
        self._graphs: dict[tuple[bool, ...], Graph | None] = {}

    def prepare(self, parameters: list[Tensor]) -> Optimizer:
        """The optimiser, with all these parameters in it."""
        if self.optimizer is None:
            self.optimizer = self.factory(parameters)
        elif len(parameters) > len(self.parameters):
            known = {id(p) for p in self.parameters}
            self.optimizer.add_param_group(
                {"params": [p for p in parameters if id(p) not in known]}
            )
        if len(parameters) > len(self.parameters):
            self._graphs.clear()
            self.means = []
            for group in self.optimizer.param_groups:
                # A tensor, so that another rate is no other graph.
                if group.get("fused"):
                    group["lr"] = torch.tensor(float(group["lr"]), device=parameters[0].device)
        self.parameters = list(parameters)
        if self.ema is not None and not self.means:
            self.means = [p.detach().clone() for p in parameters]
        return self.optimizer

    def state(self, names: Sequence[str]) -> dict[str, Any]:
        """What the optimiser keeps of each parameter, and the means, by the parameters' names."""
        kept = {} if self.optimizer is None else self.optimizer.state
        named = list(zip(names, self.parameters, strict=False))
        return {
            "optimizer": {n: dict(kept[p]) for n, p in named if p in kept},
            "means": dict(zip(names, self.means, strict=False)),
            "rate": self.rate,
        }

    def load_state(
        self, state: Mapping[str, Any], names: Sequence[str], parameters: list[Tensor]
    ) -> None:
        """Go on from what :meth:`state` gave, with these parameters."""
        optimizer = self.prepare(parameters)
        for name, parameter in zip(names, parameters, strict=True):
            kept = state["optimizer"].get(name)
            if kept is not None:
                optimizer.state[parameter] = {k: _beside(parameter, k, v) for k, v in kept.items()}
        means = state["means"]
        self.means = [means[n].to(p) for n, p in zip(names, parameters, strict=True) if n in means]
        self.rate = math.nan
        self.set_rate(state["rate"])

    def set_rate(self, rate: float) -> None:
        """Choose the learning rate of the steps to come."""
        assert self.optimizer is not None
        if rate == self.rate:
            return
        self.rate = rate
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def __call__(self, used: Sequence[bool], gradients: Sequence[Tensor]) -> None:
        """Take a step.

        Args:
            used: For each parameter whether it has a gradient.
            gradients: Those of the ones that have.
        """
        key = tuple(used)
        if key in self._graphs:
            graph = self._graphs[key]
            if graph is None:
                self._apply(key, *gradients)
            else:
                graph(*gradients)
            return
        assert self.optimizer is not None
        # A rate that is a number would be the same for ever in a graph.
        fixed = any(not isinstance(group["lr"], Tensor) for group in self.optimizer.param_groups)
        if not self.optimizer.state or fixed or not self.captured:
            self._apply(key, *gradients)
            return
        self._graphs[key] = self._capture(key, gradients)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the parameters their running means inside, if there are any."""
        if not self.means:
            yield
            return
        present = [p.detach().clone() for p in self.parameters]
        _put(self.parameters, self.means)
        try:
            yield
        finally:
            _put(self.parameters, present)

    def take_means(self) -> None:
        """Go on from the means of the parameters."""
        if self.means:
            _put(self.parameters, self.means)

    def _apply(self, used: tuple[bool, ...], *gradients: Tensor) -> None:
        assert self.optimizer is not None
        given = iter(gradients)
        for parameter, has in zip(self.parameters, used, strict=True):
            parameter.grad = next(given) if has else None
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        if self.ema is not None:
            get_ema_multi_avg_fn(self.ema)(self.means, [p.detach() for p in self.parameters], 0)

    def _capture(self, used: tuple[bool, ...], gradients: Sequence[Tensor]) -> Graph | None:
        """Take a step, and trace one: from the same state both must lead to the same."""
        state = self._state()
        before = [tensor.detach().clone() for tensor in state]
        clones = [g.clone() for g in gradients]
        self._apply(used, *clones)
        wanted = [tensor.detach().clone() for tensor in self._state()]
        graph = None
        if len(wanted) == len(before):
            _put(state, before)
            try:
                graph = trace(lambda *given: self._apply(used, *given) or (), *gradients)
                _put(state, before)
                graph(*[g.clone() for g in gradients])
            except (Uncapturable, RuntimeError):
                graph = None
            if graph is not None and not all(map(torch.equal, wanted, state)):
                graph = None
            _put(state, wanted)
        for parameter in self.parameters:
            parameter.grad = None
        return graph

    def _state(self) -> list[Tensor]:
        """All that a step changes."""
        assert self.optimizer is not None
        inner = [
            value
            for parameter in self.parameters
            for value in self.optimizer.state.get(parameter, {}).values()
            if isinstance(value, Tensor)
        ]
        return [*self.parameters, *inner, *self.means]


def _beside(parameter: Tensor, key: str, value: Any) -> Any:
    """What an optimiser keeps of a parameter, where it keeps it: torch wants its steps in float."""
    if not isinstance(value, Tensor):
        return value
    return value.to(parameter.device) if key == "step" else value.to(parameter)


def _put(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)
