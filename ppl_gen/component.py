"""Parts that remember how they were built, so that a readable configuration rebuilds them."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import numbers
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Self, get_args

from torch import nn

from ppl_gen.errors import RunError


class Component(nn.Module):
    """A module that remembers the arguments it was built with.

    Priors, likelihoods, posteriors, networks and stories are components. What is remembered is
    enough to build a fresh one (:meth:`rebuild`) and, as plain data, to write down how
    (:attr:`configuration`).
    """

    arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError:  # a copy under way, or wrong arguments that __init__ will name itself
            remembered = {}
        else:
            bound.apply_defaults()
            remembered = dict(list(bound.arguments.items())[1:])
            if cls.__init__ is nn.Module.__init__:  # takes anything, and does nothing with it
                remembered = {}
        object.__setattr__(self, "arguments", remembered)
        return self

    def rebuild(self) -> Self:
        """Build the same component again, with fresh weights from torch's generator."""
        return type(self)(**{name: _renewed(value) for name, value in self.arguments.items()})

    @property
    def configuration(self) -> dict[str, Any]:
        """The class and its arguments as plain data: numbers, strings, lists and tables."""
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            "arguments": {name: _plain(value) for name, value in self.arguments.items()},
        }


def from_configuration(configuration: Mapping[str, Any]) -> Component:
    """Build a component of ppl-gen from what :attr:`Component.configuration` wrote down.

    Only components of ppl-gen itself are built, so that a configuration from elsewhere cannot
    name code to run.

    Raises:
        RunError: If the class is not one of ppl-gen's, or does not take these arguments.
    """
    arguments = configuration.get("arguments", {})
    if not isinstance(arguments, Mapping):
        raise RunError(f"the arguments of a configuration must be a table, got {arguments!r}")
    name = str(configuration.get("class", ""))
    module_name, _, class_name = name.rpartition(".")
    first, *inner = module_name.split(".")
    if first != "ppl_gen" or not inner or any(part.startswith("_") for part in inner):
        raise RunError(
            f"a configuration can only name parts of ppl_gen, got {name!r}: "
            "pass the story itself, for instance load(path, story=...)"
        )
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise RunError(f"this version of ppl-gen has no {name!r}") from error
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        raise RunError(f"{name!r} is not a part that a configuration can build")
    try:
        return cls(**{k: _built(v) for k, v in arguments.items()})
    except (TypeError, ValueError) as error:
        raise RunError(f"{name} cannot be built from its configuration: {error}") from error


def by_name(spec: str, table: Mapping[str, type], noun: str) -> tuple[type, dict[str, Any]]:
    """Read ``"name"`` or ``"name(argument=value, ...)"`` against a table of constructors.

    Args:
        spec: For instance ``"mixture(components=50)"``; values are Python literals.
        table: Constructors by name.
        noun: What the table holds, for the message.

    Returns:
        The constructor and the arguments.

    Raises:
        ValueError: If the name is not in the table or the arguments cannot be read.
    """
    name, bracket, rest = spec.strip().partition("(")
    name = name.strip()
    if name not in table:
        raise ValueError(f"{noun} must be one of {', '.join(table)}, got {spec!r}")
    try:
        call = ast.parse(f"_({rest}" if bracket else "_()", mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise ValueError("nothing may follow the closing bracket")
        if call.args:
            raise ValueError("every argument needs its name")
        arguments = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"{noun} must be a name or name(argument=value, ...), got {spec!r}: {error}"
        ) from error
    return table[name], arguments


def built(spec: str, table: Mapping[str, type], noun: str, *sizes: Any, **options: Any) -> Any:
    """Build the part that a specification names.

    Args:
        spec: As in :func:`by_name`.
        table: Constructors by name.
        noun: What the table holds, for the message.
        sizes: Leading arguments of the constructor, which the caller knows.
        options: Arguments by name, beside those of ``spec``.

    Raises:
        ValueError: As :func:`by_name` does, or if the constructor does not take the arguments.
        TypeError: If ``spec`` is not a string.
    """
    if not isinstance(spec, str):
        raise TypeError(f"{noun} must be one of {', '.join(table)} or a part, got {spec!r}")
    cls, arguments = by_name(spec, table, noun)
    try:
        inspect.signature(cls).bind(*sizes, **options, **arguments)
        return cls(*sizes, **options, **arguments)
    except TypeError as error:
        raise ValueError(f"{noun} {spec!r} cannot be built: {error}") from error


def whole(name: str, value: Any, least: int = 1) -> int:
    """The value as an integer.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is below ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from error
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return number


def whole_sizes(name: str, values: Sequence[int], least: int = 1) -> tuple[int, ...]:
    """The sizes as a tuple of at least ``least`` positive integers.

    Raises:
        TypeError: If the values are not a sequence of whole numbers.
        ValueError: If there are fewer than ``least``, or one is below 1.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a sequence of sizes such as (64,), got {values!r}")
    if len(values) < least:
        raise ValueError(f"{name} must hold at least {least} size(s), got {tuple(values)}")
    return tuple(whole(f"each size of {name}", value) for value in values)


def positive(name: str, value: Any) -> float:
    """The value as a number above 0.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not positive and finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive, got {value}")
    return float(value)


def choice(name: str, value: Any, options: Any) -> Any:
    """The value, once it is one of the options of a ``Literal``.

    Raises:
        ValueError: If it is not.
    """
    if value not in get_args(options):
        raise ValueError(f"{name} must be one of {', '.join(get_args(options))}, got {value!r}")
    return value


def _renewed(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_renewed, value))
    return value.rebuild() if isinstance(value, Component) else copy.deepcopy(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.configuration
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return {"not rebuilt from here": type(value).__qualname__}


def _built(value: Any) -> Any:
    if isinstance(value, Mapping) and "class" in value:
        return from_configuration(value)
    if isinstance(value, list):
        return tuple(_built(item) for item in value)
    return value
