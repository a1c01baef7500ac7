"""Arguments of a part as options of their own: ``--prior mixture --prior.components 50``."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from ppl_gen.cli.options import nearest
from ppl_gen.component import by_name
from ppl_gen.conditions import CONDITIONS
from ppl_gen.covariances import FORMS
from ppl_gen.data.masks import MASKS
from ppl_gen.errors import StoryError
from ppl_gen.inference.settings import OPTIMIZERS
from ppl_gen.likelihoods import LIKELIHOODS
from ppl_gen.mixture_priors import DF_PRIORS, LOC_PRIORS, SCALE_PRIORS
from ppl_gen.networks import ENCODERS
from ppl_gen.posteriors import POSTERIORS, DiagonalNormal
from ppl_gen.priors import PRIORS

DOTTED = re.compile(r"--(?P<name>[\w-]+)\.(?P<argument>[\w-]+)(?:=(?P<value>.*))?", re.DOTALL)
# A negative number is a value.
OPTION = re.compile(r"-(?![\d.])")


@dataclass(frozen=True)
class Vocabulary:
    """The parts that the value of an option can name.

    Attributes:
        table: Constructors by name.
        supplied: Arguments of theirs that the story knows, so that nobody gives them.
    """

    table: Mapping[str, type]
    supplied: frozenset[str] = frozenset()

    def arguments(self, name: str) -> dict[str, inspect.Parameter]:
        """What can be given to the part of a name."""
        return {
            argument: parameter
            for argument, parameter in inspect.signature(self.table[name]).parameters.items()
            if argument not in self.supplied
            and parameter.kind
            not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        }

    def having(self, argument: str) -> list[str]:
        """The names of the parts that take an argument."""
        return [name for name in self.table if argument in self.arguments(name)]


_CODE = frozenset({"inputs", "features"})
VOCABULARIES: dict[str, Vocabulary] = {
    "prior": Vocabulary({**PRIORS, "conditional": DiagonalNormal}, _CODE),
    "likelihood": Vocabulary(LIKELIHOODS, frozenset({"shape"})),
    "posterior": Vocabulary(POSTERIORS, _CODE),
    "condition": Vocabulary(CONDITIONS, frozenset({"shape"})),
    "network": Vocabulary(ENCODERS, frozenset({"shape"})),
    "loc_prior": Vocabulary(LOC_PRIORS),
    "scale_prior": Vocabulary(SCALE_PRIORS),
    "covariance_prior": Vocabulary(FORMS, frozenset({"features", "prior"})),
    "df_prior": Vocabulary(DF_PRIORS),
    "optimizer": Vocabulary(OPTIMIZERS, frozenset({"params"})),
    "mask": Vocabulary(MASKS),
}


def specified(*groups: type) -> dict[str, str | None]:
    """The options whose values are specifications, with their defaults.

    Args:
        groups: Dataclasses of options.
    """
    found = {}
    for field in (field for group in groups for field in fields(group)):
        default = field.default if isinstance(field.default, str) else None
        default = None if default == "auto" else default  # which names no part
        # An option of the same name can have other values, as the posterior of a mixture has.
        if field.name in VOCABULARIES and (
            default is None or _name(default) in VOCABULARIES[field.name].table
        ):
            found[field.name] = default
    return found


def folded(arguments: Sequence[str], known: Mapping[str, str | None]) -> list[str]:
    """The arguments with dotted options put into the brackets of what they belong to.

    ``--prior mixture --prior.components 50`` becomes ``--prior "mixture(components=50)"``. A value
    is a Python literal, or else a string.

    Args:
        arguments: Those of a command line.
        known: Options whose values are specifications, with their defaults.

    Raises:
        StoryError: If a dotted option has no value, belongs to a part that is not named or does
            not take it, or is given twice.
    """
    rest, dotted = apart(arguments, known)
    for name, given in dotted.items():
        place = _place(rest, name)
        if place is None:
            rest += [_flag(name), _with(name, known[name], given, by_default=True)]
            continue
        flag, equals, spec = rest[place].partition("=")
        after = place + (1 if equals else 2)
        spec = spec if equals else "".join(rest[place + 1 : after])
        if spec and (equals or not OPTION.match(spec)):  # else it lacks a value, and tyro says so
            rest[place:after] = [flag, _with(name, spec, given)]
    return rest


def apart(
    arguments: Sequence[str], known: Mapping[str, str | None]
) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The arguments without dotted options, and these: their values by option and argument.

    Args:
        arguments: Those of a command line.
        known: Options whose values are specifications, with their defaults.

    Raises:
        StoryError: If a dotted option has no value, or is given twice.
    """
    rest: list[str] = []
    dotted: dict[str, dict[str, str]] = {}
    words = iter(arguments)
    for word in words:
        match = DOTTED.fullmatch(word)
        name = match["name"].replace("-", "_") if match else ""
        if match is None or name not in known:
            rest.append(word)
            continue
        flag = word.partition("=")[0]
        inside = match["value"] is not None
        value = match["value"] if inside else next(words, "")
        if not value or (not inside and OPTION.match(value)):
            raise StoryError(f"{flag} must have a value: give it, as in {flag}=VALUE")
        argument = match["argument"].replace("-", "_")
        if argument in dotted.setdefault(name, {}):
            raise StoryError(f"{flag} is given twice: leave one out")
        dotted[name][argument] = value
    return rest, dotted


def _place(arguments: Sequence[str], name: str) -> int | None:
    """Where an option is given; where it is twice, the last one counts."""
    flags = [argument.partition("=")[0].replace("_", "-") for argument in arguments]
    places = [place for place, flag in enumerate(flags) if flag == _flag(name)]
    return places[-1] if places else None


def _with(name: str, spec: str | None, given: Mapping[str, str], by_default: bool = False) -> str:
    """A specification with more arguments."""
    vocabulary = VOCABULARIES[name]
    if spec is None:
        raise _unnamed(name, next(iter(given)))
    part = _name(spec)
    if part not in vocabulary.table:
        return spec  # what it may be is said by what reads it
    try:
        _, inside = by_name(spec, vocabulary.table, name)
    except ValueError as error:
        raise StoryError(str(error)) from error
    takes = vocabulary.arguments(part)
    words = [f"{argument}={value!r}" for argument, value in inside.items()]
    for argument, value in given.items():
        if argument not in takes:
            raise _unknown(name, part, argument, by_default)
        if argument in inside:
            raise StoryError(
                f"{argument} is given twice, by {_flag(name)}.{argument} and in {spec!r}: "
                "leave one out"
            )
        words.append(f"{argument}={_literal(name, takes[argument], value)}")
    return f"{part}({', '.join(words)})"


def _literal(name: str, parameter: inspect.Parameter, text: str) -> str:
    """What is typed on a command line, as it is written in brackets."""
    text = text.title() if text in ("true", "false") else text.strip()
    try:
        tree = ast.parse(text, mode="eval")
        value = ast.literal_eval(tree)
    except (SyntaxError, ValueError, TypeError):
        literal, value = repr(text), text
    else:
        literal = ast.unparse(tree)
    # Any other word would count as true.
    if isinstance(parameter.default, bool) and not isinstance(value, bool):
        raise StoryError(f"{_flag(name)}.{parameter.name} must be True or False, got {text!r}")
    return literal


def _unnamed(name: str, argument: str) -> StoryError:
    vocabulary = VOCABULARIES[name]
    flag, having = _flag(name), vocabulary.having(argument)
    if having:
        return StoryError(
            f"{flag}.{argument} must go with {flag}: name one that takes it, as in "
            f"{flag} {having[0]}"
        )
    every = {argument for part in vocabulary.table for argument in vocabulary.arguments(part)}
    return StoryError(f"no {_noun(name)} takes {argument!r}: {nearest(argument, sorted(every))}")


def _unknown(name: str, part: str, argument: str, by_default: bool) -> StoryError:
    vocabulary = VOCABULARIES[name]
    takes, having = vocabulary.arguments(part), vocabulary.having(argument)
    if having and (by_default or not takes):
        remedy = f"name one that does, as in {_flag(name)} {having[0]}"
    else:
        remedy = nearest(argument, takes) if takes else "it takes no arguments"
    default = ", the default," if by_default else ""
    return StoryError(f"the {_noun(name)} {part}{default} does not take {argument!r}: {remedy}")


def _name(spec: str) -> str:
    return spec.partition("(")[0].strip()


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _noun(name: str) -> str:
    return name.replace("_", " ")
