"""Command-line options read off the signatures and docstrings of what they are for."""

from __future__ import annotations

import difflib
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, make_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.extras import subcommand_cli_from_dict

MARKERS = (
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.DisallowNone,
    tyro.conf.PositionalMetavarFromFieldName,
)
_PLAIN = (str, int, float, bool, tuple, types.NoneType, Literal)


def options_of(
    function: Callable[..., Any],
    *,
    leave_out: tuple[str, ...] = (),
    hints: Mapping[str, str] | None = None,
) -> type:
    """A dataclass with a field for each argument, for tyro to read.

    Args:
        function: A class or a function with annotated arguments and an ``Args`` or ``Attributes``
            section in its docstring.
        leave_out: Arguments that are no options.
        hints: What to say in place of a default, by argument; such an argument becomes optional.
    """
    made: list[tuple[str, Any, Any]] = []
    annotations = get_type_hints(_annotated(function))
    for name, parameter in inspect.signature(function).parameters.items():
        if name in leave_out or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            continue
        plain = plain_type(annotations.get(name, str))
        hint = (hints or {}).get(name)
        default = None if hint else parameter.default
        if default is None:
            plain = Annotated[plain | None, tyro.conf.arg(help_behavior_hint=hint or "")]
        made.append((name, plain, default))
    required = [
        (name, plain) for name, plain, default in made if default is inspect.Parameter.empty
    ]
    optional = [field for field in made if field[2] is not inspect.Parameter.empty]
    cls = make_dataclass("Options", [*required, *optional], frozen=True, kw_only=True)
    cls.__doc__ = readable(inspect.getdoc(function) or "")
    return cls


def values_of(options: Any) -> dict[str, Any]:
    """The fields of an options object by name."""
    return {field.name: getattr(options, field.name) for field in fields(options)}


def plain_type(annotation: Any) -> Any:
    """What of a type can be typed on a command line: ``str | Prior`` is ``str`` there."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    members = [a for a in get_args(annotation) if (get_origin(a) or a) in _PLAIN]
    return Union[tuple(members)]  # noqa: UP007  # of a number of types known only here


def readable(docstring: str) -> str:
    """A docstring without the markup that only Sphinx turns into something else."""
    text = re.sub(r":\w+:`~?\.?([^`]+)`", r"\1", docstring)
    text = text.replace("``", "")
    return re.sub(r"::\n+", ":\n", text)


def first_line(thing: Any) -> str:
    """The summary line of a docstring."""
    return readable(inspect.getdoc(thing) or "").split("\n")[0]


def run_command(function: Callable[..., Any], program: str, arguments: Sequence[str]) -> Any:
    """Call a function with what a command line says; its docstring becomes the help."""
    text, *_ = readable(inspect.getdoc(function) or "").partition("\nArgs:")
    return tyro.cli(
        function, prog=program, description=text.strip(), args=arguments, config=MARKERS
    )


def show_choices(program: str, text: str, lines: Mapping[str, str]) -> None:
    """Print the help of a program of which one has to choose what to do."""
    choices = {name: _described(line) for name, line in lines.items()}
    subcommand_cli_from_dict(choices, prog=program, description=text, args=["--help"])


def nearest(name: str, known: Iterable[str]) -> str:
    """The remedy for a name that is not known."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"


def _described(line: str) -> Callable[[], None]:
    def choice() -> None:
        pass

    choice.__doc__ = line
    return choice


def _annotated(function: Callable[..., Any]) -> Any:
    own_init = isinstance(function, type) and not hasattr(function, "__dataclass_fields__")
    return function.__init__ if own_init else function  # type: ignore[misc]
