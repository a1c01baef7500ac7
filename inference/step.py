"""One step of gradient descent: the seam ``(rows) -> (figures, gradients)`` and its optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ppl_gen.errors import StoryError
from ppl_gen.inference.batches import Batches
from ppl_gen.inference.objective import Objective, Terms
from ppl_gen.inference.tracing import is_one

# The factor on the KL term if it is not 1, and what else the objective takes.
Given = tuple[Tensor, ...]


class Gradient:
    """The figures of some rows and the gradient of their loss, by Pyro's own means.

    A function of tensors that gives tensors, so that it can be captured as a graph. The batch is
    drawn inside.

    Args:
        objective: What is climbed.
        batches: The data.
        kwargs: Further arguments of both programs.

    Attributes:
        parameters: All parameters that were found by now.
    """

    def __init__(self, objective: Objective, batches: Batches, kwargs: dict[str, Any]) -> None:
        self.objective = objective
        self.batches = batches
        self.kwargs = kwargs
        self.parameters: list[Tensor] = []
        self._used: dict[tuple[int, ...], list[bool]] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Evaluate loss and gradients; parameters a program makes on the way are found.

        Args:
            *inputs: What a step is given of a batch, see :class:`Batches`; the factor on the KL
                term, ``()``, if it is not 1; and what else the objective takes.

        Returns:
            The figures of :class:`~ppl_gen.inference.objective.Terms`, and the gradients of the
            parameters that are :meth:`used`.

        Raises:
            StoryError: If there is no parameter at all.
        """
        self.find_parameters()
        if len(self.parameters) == len(self.objective.opponents):
            raise StoryError(
                "there is nothing to fit: neither model nor guide has a parameter, by pyro.param "
                "or in a module; for draws from them as they are, use to_arviz(model, guide, data)"
            )
        own = self.batches.inputs
        batch, (kl_weight, *more) = self.batches.at(*inputs[:own]), _weight_first(inputs[own:])
        if hasattr(self.objective.elbo, "differentiable_loss"):
            terms = self.objective(batch, self.kwargs, kl_weight, *more)
            climbed = terms.loss
        else:
            terms, climbed = self._postponed(batch, kl_weight)
        self.find_parameters()
        opponents = self.objective.opponents
        climbing = self.parameters[: len(self.parameters) - len(opponents)]
        gradients = torch.autograd.grad(climbed, climbing, allow_unused=True)
        if terms.against is not None:
            gradients += torch.autograd.grad(terms.against, opponents)
        self._used[_form(*inputs)] = [gradient is not None for gradient in gradients]
        return terms.figures, *(gradient for gradient in gradients if gradient is not None)

    def used(self, *inputs: Tensor) -> list[bool]:
        """For each parameter whether the last loss of inputs of this form depended on it.

        A graph was made of such a loss, and gives the gradients of these parameters.
        """
        return self._used[_form(*inputs)]

    def find_parameters(self) -> None:
        """Take note of the parameters that there are by now."""
        store = pyro.get_param_store()
        if not self.parameters or len(store) != self._stored:
            own = self.objective.pair.parameters().values()
            self.parameters = [*own, *self.objective.opponents]
            self._stored = len(store)

    def _postponed(self, batch: Any, kl_weight: float | Tensor) -> tuple[Terms, Tensor]:
        """For the bounds of Pyro that only know how to call ``backward`` themselves."""
        model, guide = self.objective.weighted(batch, kl_weight)

        def registered(*args: Any, **kwargs: Any) -> Any:
            for name, module in self.objective.pair.modules().items():
                pyro.module(name, module)
            return model(*args, **kwargs)

        elbo: Any = self.objective.elbo
        with _Postponed() as postponed:
            loss = elbo.loss_and_grads(registered, guide, *batch, **self.kwargs)
        size = self.objective.size
        value = torch.as_tensor(loss[0] if isinstance(loss, tuple) else loss) / size
        unknown = torch.full_like(value, torch.nan)
        elbo_shown = -value if is_one(kl_weight) else unknown
        nothing = torch.zeros((), device=self.parameters[0].device)
        climbed = sum(postponed.losses, nothing) / size
        return Terms(value, elbo_shown, unknown), climbed

    _stored: int = -1


def _weight_first(given: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """The factor on the KL term, 1 if there is none, and what else is given."""
    return given if given and not given[0].dim() else (1.0, *given)


def _form(*inputs: Tensor) -> tuple[int, ...]:
    return tuple(map(Tensor.numel, inputs))


class _Postponed(TorchFunctionMode):
    """Collects the losses that ``backward`` is called on, instead of calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.backward:
            self.losses.append(args[0].reshape(()))
            return None
        return func(*args, **(kwargs or {}))
