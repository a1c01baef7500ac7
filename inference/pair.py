"""A model and its guide as one object: two programs, their parameters, a store of their own."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.infer.autoguide as autoguides
import torch
from pyro import poutine
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import _context_wrap
from torch import Tensor, nn

from ppl_gen.component import Component
from ppl_gen.errors import RunError, StoryError

Program = Callable[..., Any]

# Under these names Pyro's bounds keep running averages, which are no parameters of the programs.
_BASELINE = "__baseline_avg_downstream_cost_"


class Pair:
    """A model and a guide, with the parameters of both.

    Parameters live in modules, in Pyro's parameter store, or in both. Each pair has a store of its
    own, in force only inside :meth:`active`, so that pairs with equal parameter names never meet
    and the store outside stays as it was.

    Args:
        story: The object both programs belong to, if there is one, else the pair itself.
        model: The generative program.
        guide: The program of the approximate posterior.
        borrowed: Whether to work in the store outside instead of an own one.
        origin: Where the story comes from, if it was read from a file: its path and hash, and the
            arguments it was made with.
    """

    def __init__(
        self,
        story: Any,
        model: Program,
        guide: Program,
        *,
        borrowed: bool = False,
        origin: dict[str, Any] | None = None,
    ) -> None:
        self.story = story
        self.origin = origin
        self.model = model
        self.guide = guide
        self._store: dict[str, Any] = {"params": {}, "constraints": {}}
        self._captured: dict[int, tuple[nn.Parameter, Tensor]] = {}
        self._used = False
        self._inside = borrowed
        self._borrowed = borrowed

    @contextmanager
    def active(self) -> Iterator[None]:
        """Put this pair's parameter store in force, and the one outside back afterwards."""
        if self._inside:
            yield
            return
        store = pyro.get_param_store()
        outside = store.get_state()
        _swap_store(self._store)
        self._trade_captured()
        self._used = self._inside = True
        try:
            yield
        finally:
            self._inside = False
            self._trade_captured()
            self._store = store.get_state()  # type: ignore[assignment]
            _swap_store(outside)

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """Try something out: new parameters and changed buffers are forgotten afterwards."""
        with self.active(), torch.no_grad():
            before = pyro.get_param_store().get_state()
            buffers = [(b, b.clone()) for m in self.modules().values() for b in m.buffers()]
            try:
                yield
            finally:
                _swap_store(before)
                for buffer, value in buffers:
                    buffer.copy_(value)

    def modules(self) -> dict[str, nn.Module]:
        """The modules whose parameters and buffers belong to the pair, by name."""
        if isinstance(self.story, nn.Module):
            return {"story": self.story}
        found: dict[str, nn.Module] = {}
        for name, program in (("model", self.model), ("guide", self.guide)):
            for i, module in enumerate(_owners(program)):
                if all(module is not other for other in found.values()):
                    found[f"{name}_{i}" if i else name] = module
        return found

    def parameters(self) -> dict[str, Tensor]:
        """Every unconstrained parameter that can be trained, by name, each once."""
        found: dict[int, tuple[str, Tensor]] = {}
        for prefix, module in self.modules().items():
            for name, value in module.named_parameters():
                found.setdefault(id(value), (f"{prefix}.{name}", value))
        for name, value in self._params().items():
            if name.startswith(_BASELINE):
                continue
            if isinstance(value, nn.Parameter) and id(value) not in found and not self._borrowed:
                self._captured.setdefault(id(value), (value, value.detach().clone()))
            found.setdefault(id(value), (f"param.{name}", value))
        return {name: value for name, value in found.values() if value.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers by name: what has to be kept to have the fit again."""
        state = {
            f"{prefix}.{name}": value.detach()
            for prefix, module in self.modules().items()
            for name, value in module.state_dict().items()
            if isinstance(value, Tensor)
        }
        for name, value in self.parameters().items():
            if name.startswith("param."):
                state[name] = value.detach()
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` gave.

        Raises:
            RunError: If a name is missing or too many, or a shape differs; it names the first.
        """
        own = self.state()
        for name in own.keys() - state.keys():
            raise RunError(f"the weights lack {name!r}, which this story has: it is another story")
        for name in state.keys() - own.keys():
            raise RunError(f"the weights hold {name!r}, which this story lacks: another story")
        for name, value in state.items():
            if value.shape != own[name].shape:
                raise RunError(
                    f"{name!r} has shape {tuple(value.shape)} in the weights and "
                    f"{tuple(own[name].shape)} in this story: it was built with other sizes"
                )
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value)

    def baselines(self) -> dict[str, Tensor]:
        """The running averages that Pyro's bounds keep in the parameter store."""
        return {n: v.detach() for n, v in self._params().items() if n.startswith(_BASELINE)}

    def load_baselines(self, averages: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`baselines` gave."""
        for name, value in averages.items():
            pyro.param(name, value.clone())

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of :meth:`state` that later training does not touch."""
        return {name: value.clone() for name, value in self.state().items()}

    def train(self, mode: bool = True) -> None:
        """Set the modules to training or to evaluation, as :meth:`torch.nn.Module.train` does."""
        for module in self.modules().values():
            module.train(mode)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put every module in evaluation mode, and back to the mode it had."""
        modes = [(m, m.training) for top in self.modules().values() for m in top.modules()]
        self.train(False)
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode

    def to(self, device: torch.device) -> None:
        """Move modules and store to a device."""
        for module in self.modules().values():
            module.to(device)
        params = self._params()
        for name, value in params.items():
            if value.device != device:
                params[name] = value.detach().to(device).requires_grad_(value.requires_grad)

    def fresh(self, warm_start: bool = False) -> Pair:
        """A pair of its own to train, so that the one given stays as it is.

        A component of ppl-gen is built anew, its weights drawn from torch's generator; anything
        else is copied with the weights it has. With ``warm_start`` every weight is kept, those in
        Pyro's parameter store outside included.
        """
        if isinstance(self.story, Component) and not warm_start:
            pair = as_pair(self.story.rebuild())
        else:
            pair = self.copied()
        pair.origin = self.origin
        if warm_start:
            inside = self._used and not self._inside
            store = self._store if inside else pyro.get_param_store().get_state()
            copies = {
                id(value): copied
                for own, other in zip(self.modules().values(), pair.modules().values(), strict=True)
                for value, copied in zip(own.parameters(), other.parameters(), strict=True)
            }
            pair._store = {
                "params": {
                    name: copies[id(value)] if id(value) in copies else self._leaf_copy(value)
                    for name, value in store["params"].items()
                },
                "constraints": dict(store["constraints"]),
            }
            pair._captured = {
                key: (value, (value if self._inside else other).detach().clone())
                for key, (value, other) in self._captured.items()
            }
        return pair

    def copied(self) -> Pair:
        """Copy all three at once, so that what they share stays shared."""
        originals = _autoguides(self.guide)
        # Copying an autoguide takes these two away from it, in Pyro 1.9.2.
        kept = [(guide._model, guide.master) for guide in originals]
        handlers: Any = poutine.unwrap(self.guide)
        # One made of handlers can only be copied once it has run, in Pyro 1.9.2.
        unused = isinstance(handlers, GuideMessenger) and not hasattr(handlers, "trace")
        if unused:
            handlers.trace = None  # pyright: ignore[reportAttributeAccessIssue]
        try:
            story, model, guide, wrapped = copy.deepcopy(
                (self.story, self.model, self.guide, [m for m, _ in kept])
            )
        except (TypeError, RuntimeError):  # holds something that cannot be copied: train it
            story, model, guide, wrapped = self.story, self.model, self.guide, []
        if unused:
            del handlers.trace
        for original, (own_model, master) in zip(originals, kept, strict=True):
            original._model, original.master = own_model, master
        for copied, copied_model in zip(_autoguides(guide), wrapped, strict=False):
            copied._model = copied_model
        return Pair(story, model, guide, origin=self.origin)

    def _leaf_copy(self, value: Tensor) -> Tensor:
        if id(value) in self._captured:
            return value
        return value.detach().clone().requires_grad_(value.requires_grad)

    def _trade_captured(self) -> None:
        """Exchange the pair's values of captured parameters with those they have outside.

        A function can use a module that nobody handed over, and register it by ``pyro.module``:
        its parameters cannot be copied, so they have the pair's values only while it is active.
        """
        for key, (parameter, other) in self._captured.items():
            self._captured[key] = (parameter, parameter.data)
            parameter.data, parameter.grad = other, None

    def _params(self) -> dict[str, Tensor]:
        return pyro.get_param_store()._params if self._inside else self._store["params"]


def as_pair(story: Any) -> Pair:
    """Make a pair of whatever tells a story.

    Args:
        story: An object with ``.model`` and ``.guide``, or a tuple ``(model, guide)`` of callables
            or modules. The guide may be one of Pyro's autoguides: an instance, its class, or its
            name, as in ``(model, "AutoNormal")``.

    Raises:
        StoryError: If it is none of these.
    """
    if isinstance(story, Pair):
        return story
    if isinstance(story, tuple | list) and len(story) == 2:
        model, guide = story
        if not callable(model):
            raise StoryError(f"the model must be callable, got {type(model).__name__}")
        if isinstance(guide, str):
            guide = _autoguide(guide)
        if isinstance(guide, type) and issubclass(guide, autoguides.AutoGuide):
            guide = guide(poutine.block(model, hide_fn=_is_enumerated))
        if not callable(guide):
            raise StoryError(f"the guide must be callable, got {type(guide).__name__}")
        return Pair(story, model, guide)
    model, guide = getattr(story, "model", None), getattr(story, "guide", None)
    if callable(model) and callable(guide):
        return Pair(story, model, guide)
    raise StoryError(
        "a story must have .model and .guide, or be a pair (model, guide) of callables, got "
        f"{type(story).__name__}: for a model alone, let Pyro write the guide: "
        "(model, 'AutoNormal')"
    )


def _is_enumerated(site: Mapping[str, Any]) -> bool:
    return site["infer"].get("enumerate") == "parallel"


def _autoguide(name: str) -> type[autoguides.AutoGuide]:
    known = [n for n in autoguides.__all__ if n.startswith("Auto")]
    guide = getattr(autoguides, name, None)
    if name not in known or not isinstance(guide, type):
        raise StoryError(f"the guide must be one of Pyro's {', '.join(known)}, got {name!r}")
    return guide


def _owners(program: Program) -> list[nn.Module]:
    """The modules that a program is, is a method of, or has bound to it by ``partial``."""
    found: list[nn.Module] = []
    while isinstance(program, functools.partial):
        bound = [*program.args, *program.keywords.values()]
        found.extend(value for value in bound if isinstance(value, nn.Module))
        # Pyro's handlers wrap a program as partial(_context_wrap, handler, program).
        program = bound[1] if program.func is _context_wrap else program.func
    owner = program if isinstance(program, nn.Module) else getattr(program, "__self__", None)
    if isinstance(owner, nn.Module) and all(owner is not other for other in found):
        found.insert(0, owner)
    return found


def _autoguides(guide: Program) -> list[Any]:
    inside = {id(m): m for module in _owners(guide) for m in module.modules()}
    return [m for m in inside.values() if isinstance(m, autoguides.AutoGuide)]


def _swap_store(state: Any) -> None:
    store = pyro.get_param_store()
    store.clear()
    store.set_state(state)
