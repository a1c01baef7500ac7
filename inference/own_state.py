"""What programs keep of their own from call to call, which a graph of one call would not show."""

from __future__ import annotations

import functools
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

Token = tuple[Any, ...]

# What belongs to these is not a user's: it is trusted to keep nothing that matters.
_LIBRARIES = sys.stdlib_module_names | {"torch", "pyro", "numpy", "scipy", "sklearn", "pandas"}
_DEEPEST = 6
_SMALL = 100_000


class OwnState:
    """Everything that some programs can reach and could change, as it is at one moment.

    Args:
        programs: Functions, methods, modules or other objects.

    Attributes:
        tokens: Of everything found, by a name for it: equal tokens, unchanged.
        tensors: The tensors among it, by the same names.
    """

    def __init__(self, programs: Iterable[Any]) -> None:
        self.tokens: dict[str, Token] = {}
        self.tensors: dict[str, Tensor] = {}
        self._seen: set[int] = set()
        for program in programs:
            self._look_at("", program, 0)
        store = pyro.get_param_store()
        for name, value in store.named_parameters():
            self._look_at(name, value, 0)
        self.tokens["Python's random numbers"] = (random.getstate(),)
        array = np.random.get_state(legacy=False)  # noqa: NPY002
        self.tokens["numpy's random numbers"] = (repr(array),)

    def changed(self, before: OwnState) -> str | None:
        """The name of something that is another now, or nothing that can be written in place."""
        for name, token in self.tokens.items():
            known = before.tokens.get(name)
            if known != token and not (name in self.tensors and known and known[0] == token[0]):
                return name
        return next((name for name in before.tokens if name not in self.tokens), None)

    def written(self, before: OwnState) -> list[Tensor]:
        """The tensors that were changed in place."""
        return [
            tensor
            for name, tensor in self.tensors.items()
            if name in before.tokens and before.tokens[name] != self.tokens[name]
        ]

    def _look_at(self, name: str, value: Any, depth: int) -> None:
        if depth > _DEEPEST:
            return
        if isinstance(value, bool | int | float | complex | str | bytes | None):
            self.tokens[name] = (value,)
        elif isinstance(value, Tensor):
            version = 0 if value.is_inference() else value._version
            self.tokens[name] = (id(value), version, _digest(value))
            self.tensors[name] = value
        elif isinstance(value, np.ndarray):
            held = hash(value.tobytes()) if value.size <= _SMALL else 0
            self.tokens[name] = (id(value), held)
        elif id(value) not in self._seen:
            self._seen.add(id(value))
            self._look_into(name, value, depth + 1)

    def _look_into(self, name: str, value: Any, depth: int) -> None:
        if isinstance(value, dict):
            self.tokens[name] = (len(value),)
            for key, part in list(value.items()):
                self._look_at(f"{name}[{key!r}]", part, depth)
        elif isinstance(value, list | tuple | set | frozenset):
            self.tokens[name] = (len(value),)
            for i, part in enumerate(value):
                self._look_at(f"{name}[{i}]", part, depth)
        elif isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self._look_at(name, part, depth)
        elif isinstance(value, MethodType):
            self._look_at(name, value.__self__, depth)
            self._look_at(name, value.__func__, depth)
        elif isinstance(value, FunctionType):
            self._look_into_function(value, depth)
        elif isinstance(value, nn.Module):
            for path, tensor in [
                *value.named_parameters(recurse=False),
                *value.named_buffers(recurse=False),
            ]:
                self._look_at(_joined(name, path), tensor, depth)
            for path, module in value.named_children():
                self._look_at(_joined(name, path), module, depth - 1)
            if _is_users(value):
                self._look_into_object(name, value, depth)
        elif _is_users(value):
            self._look_into_object(name, value, depth)

    def _look_into_object(self, name: str, value: Any, depth: int) -> None:
        hidden = ("_parameters", "_buffers", "_modules") if isinstance(value, nn.Module) else ()
        for key, part in list(getattr(value, "__dict__", {}).items()):
            if key not in hidden:
                self._look_at(_joined(name, key), part, depth)
        for cls in type(value).__mro__:
            for part in vars(cls).values() if _is_users(cls) else ():
                self._look_at(cls.__name__, part, depth)

    def _look_into_function(self, value: FunctionType, depth: int) -> None:
        if not _is_users(value):
            return
        for cell_name, cell in zip(
            value.__code__.co_freevars, value.__closure__ or (), strict=True
        ):
            if _filled(cell):
                self._look_at(cell_name, cell.cell_contents, depth)
        for used in _names(value.__code__):
            if used in value.__globals__:
                self._look_at(used, value.__globals__[used], depth)


class Noise:
    """Whether anything is printed by this thread while it listens."""

    def __init__(self) -> None:
        self.heard = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let through what is printed, and notice it."""
        outside = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Ear(stream, self) for stream in outside)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = outside


class _Ear:
    def __init__(self, stream: Any, noise: Noise) -> None:
        self._stream = stream
        self._noise = noise
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        self._noise.heard |= threading.get_ident() == self._thread
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _digest(value: Tensor) -> int:
    """Of what a small tensor holds: kernels of batch normalisation write without saying so."""
    if value.numel() > _SMALL or value.layout is not torch.strided:
        return 0
    return hash(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def _joined(name: str, more: str) -> str:
    return f"{name}.{more}" if name else more


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _names(code: CodeType) -> set[str]:
    """Names that a function and those defined inside it look up outside."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _is_users(value: Any) -> bool:
    owner: Callable[..., Any] | type = value if hasattr(value, "__module__") else type(value)
    module = str(getattr(owner, "__module__", "") or "")
    return module.partition(".")[0] not in _LIBRARIES and not module.startswith("ppl_gen.inference")
