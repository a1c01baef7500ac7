"""One step of gradient descent: the seam ``(batch) -> (loss, gradients)`` and its optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.optim import Optimizer

from ppl_gen.errors import StoryError
from ppl_gen.inference.objective import Objective, Terms
from ppl_gen.inference.tracing import Batch

OptimizerFactory = Callable[[list[Tensor]], Optimizer]


class Gradient:
    """The terms of a batch and the gradient of its loss, in eager Pyro.

    This is the seam at which another way to compute the same may be put: called with a batch it
    returns the terms, and the gradients in the order of :attr:`parameters`.
    """

    def __init__(self, objective: Objective, kwargs: dict[str, Any]) -> None:
        self.objective = objective
        self.kwargs = kwargs
        self.parameters: list[Tensor] = []

    def __call__(self, batch: Batch, kl_weight: float) -> tuple[Terms, list[Tensor | None]]:
        """Evaluate loss and gradients; parameters a program makes on the way are found.

        Raises:
            StoryError: If there is no parameter at all.
        """
        self._find_parameters()
        if not self.parameters:
            raise StoryError(
                "there is nothing to fit: neither model nor guide has a parameter, by pyro.param "
                "or in a module; for draws from them as they are, use to_arviz(model, guide, data)"
            )
        if not hasattr(self.objective.elbo, "differentiable_loss"):
            return self._by_backward(batch, kl_weight)
        terms = self.objective(batch, self.kwargs, kl_weight)
        self._find_parameters()
        gradients = torch.autograd.grad(terms.loss, self.parameters, allow_unused=True)
        return terms, list(gradients)

    def _find_parameters(self) -> None:
        store = pyro.get_param_store()
        if not self.parameters or len(store) != self._stored:
            self.parameters = list(self.objective.pair.parameters().values())
            self._stored = len(store)

    def _by_backward(self, batch: Batch, kl_weight: float) -> tuple[Terms, list[Tensor | None]]:
        """For the bounds of Pyro that only know how to call ``backward`` themselves."""
        model, guide = self.objective.weighted(batch, kl_weight)

        def registered(*args: Any, **kwargs: Any) -> Any:
            for name, module in self.objective.pair.modules().items():
                pyro.module(name, module)
            return model(*args, **kwargs)

        self._find_parameters()
        for parameter in self.parameters:
            parameter.grad = None
        elbo: Any = self.objective.elbo
        loss = elbo.loss_and_grads(registered, guide, *batch, **self.kwargs)
        self._find_parameters()
        size = self.objective.size
        value = torch.as_tensor(loss[0] if isinstance(loss, tuple) else loss) / size
        unknown = torch.full_like(value, torch.nan)
        gradients = [None if p.grad is None else p.grad / size for p in self.parameters]
        elbo_shown = -value if kl_weight == 1.0 else unknown
        return Terms(value, elbo_shown, unknown), gradients

    _stored: int = -1


class Step:
    """A gradient, clipped if asked, handed to a torch optimiser."""

    def __init__(self, gradient: Gradient, factory: OptimizerFactory, clip: float | None) -> None:
        self.gradient = gradient
        self.factory = factory
        self.clip = clip
        self.optimizer: Optimizer | None = None
        self._known: set[int] = set()

    def __call__(self, batch: Batch, kl_weight: float) -> tuple[Terms, Callable[[], None]]:
        """Evaluate a batch; the second result applies the update, once the loss was looked at."""
        terms, gradients = self.gradient(batch, kl_weight)
        return terms, lambda: self._update(gradients)

    def prepare(self) -> Optimizer:
        """The optimiser, with every parameter known by now in it."""
        parameters = self.gradient.parameters
        if self.optimizer is None:
            self.optimizer = self.factory(parameters)
        else:
            new = [p for p in parameters if id(p) not in self._known]
            if new:
                self.optimizer.add_param_group({"params": new})
        self._known = {id(p) for p in parameters}
        return self.optimizer

    def _update(self, gradients: list[Tensor | None]) -> None:
        optimizer = self.prepare() if len(self._known) != len(gradients) else self.optimizer
        assert optimizer is not None
        for parameter, gradient in zip(self.gradient.parameters, gradients, strict=True):
            parameter.grad = gradient
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.gradient.parameters, self.clip)
        optimizer.step()
