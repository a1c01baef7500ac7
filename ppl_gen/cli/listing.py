"""``ppl-gen list``: what there is to choose from, and what each takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import tyro
from rich import box
from rich.table import Table
from rich.text import Text
from torch.distributions.constraints import Constraint

from ppl_gen.cli.console import show
from ppl_gen.cli.fitting import BY_DATA
from ppl_gen.cli.options import first_line, nearest, readable
from ppl_gen.cli.sources import Unset
from ppl_gen.cli.specifications import VOCABULARIES, Vocabulary
from ppl_gen.data import CATALOGUE
from ppl_gen.errors import PplGenError
from ppl_gen.likelihoods import LIKELIHOODS
from ppl_gen.models import STORIES
from ppl_gen.posteriors import POSTERIORS
from ppl_gen.priors import PRIORS
from ppl_gen.supports import in_words


def list_names(kind: Annotated[tyro.conf.Positional[str | None], Unset] = None) -> None:
    """Name all stories, data sets, priors, likelihoods and posteriors; or tell more of one kind.

    Of priors it then tells where a code can lie, whether they have a density (scored) or draws
    only (drawn), which options they take, and where they come from.

    Examples:
        ppl-gen list
        ppl-gen list priors

    Args:
        kind: Of what to tell more: stories, data, priors, likelihoods or posteriors.

    Raises:
        PplGenError: If it is none of these.
    """
    if kind is None:
        show(_overview())
        show("More of each: ppl-gen list priors, and so for stories, data, likelihoods, posteriors")
        return
    tables: dict[str, Callable[[], Table]] = {
        "stories": lambda: _table("story", Vocabulary(STORIES, frozenset(BY_DATA))),
        "data": _data,
        "priors": _priors,
        "likelihoods": lambda: _table("likelihood", VOCABULARIES["likelihood"]),
        "posteriors": lambda: _table("posterior", VOCABULARIES["posterior"]),
    }
    if kind not in tables:
        raise PplGenError(f"there are no {kind!r} to list: {nearest(kind, tables)}")
    show(tables[kind]())


def source_of(thing: Any) -> str:
    """Who proposed it, from the ``Reference`` section of a docstring; empty if that has none."""
    text = readable(inspect.getdoc(thing) or "")
    section = re.search(r"^References?:\n((?:[ \t]+\S.*\n?|\n)+)", text, re.MULTILINE)
    return " ".join(section[1].split()) if section else ""


def _overview() -> Table:
    table = Table.grid(padding=(0, 2))
    kinds: dict[str, Mapping[str, Any]] = {
        "stories": STORIES,
        "data sets": CATALOGUE,
        "priors": PRIORS,
        "likelihoods": LIKELIHOODS,
        "posteriors": POSTERIORS,
    }
    for noun, named in kinds.items():
        table.add_row(Text(noun, style="bold"))
        for name, thing in named.items():
            table.add_row(f"  {name}", thing if isinstance(thing, str) else first_line(thing))
    return table


def _data() -> Table:
    table = _columns("data set", "what it holds")
    for name, line in CATALOGUE.items():
        table.add_row(name, line)
    return table


def _priors() -> Table:
    vocabulary = Vocabulary(PRIORS, VOCABULARIES["prior"].supplied)
    table = _table("prior", vocabulary, {"support": _support, "density": _density})
    # So that most links fit into one line beside them.
    for column, width in zip(table.columns[2:], (14, 7, 20), strict=True):
        column.max_width = width
    return table


def _table(
    noun: str, vocabulary: Vocabulary, more: Mapping[str, Callable[[Any], str]] | None = None
) -> Table:
    """A row for each part: what it is and who proposed it, and its options."""
    more = more or {}
    table = _columns(noun, "what it is, and its source", *more, "options")
    for name, cls in vocabulary.table.items():
        what = Text(first_line(cls))
        if source := source_of(cls):
            what.append(f"\n{source}", style="dim")
        options = ", ".join(_option(p) for p in vocabulary.arguments(name).values())
        cells = [Text(tell(cls)) for tell in more.values()]
        table.add_row(name, what, *cells, Text(options))
        table.add_row()
    return table


def _columns(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(names[0], no_wrap=True)
    for name in names[1:]:
        table.add_column(name, overflow="fold")  # no letter of a link may be missing
    return table


def _option(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return parameter.name
    return f"{parameter.name}={parameter.default!r}"


def _support(cls: Any) -> str:
    """In words; empty where two features alone do not tell it, and the class does not either."""
    support = getattr(cls, "support", None)
    if isinstance(support, str):
        return support
    try:
        support = support if isinstance(support, Constraint) else cls(2).support
    except (TypeError, ValueError, NotImplementedError, AttributeError):
        return ""
    return in_words(support)


def _density(cls: Any) -> str:
    return "scored" if getattr(cls, "scored", True) else "drawn"
