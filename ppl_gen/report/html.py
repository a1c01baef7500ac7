"""HTML that cannot be broken from outside: text is escaped unless it was built here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

VOID = frozenset({"img", "meta"})
ADDRESS = re.compile(r"https?://[^\s<>\"']*[^\s<>\"'.,;:)\]]")


class Markup(str):
    """Text that is HTML already and is not escaped again."""


def tag(name: str, /, *children: str, **attributes: str | None) -> Markup:
    """An element.

    Args:
        name: Name of the element.
        *children: Its content; what is not :class:`Markup` is text, and escaped.
        **attributes: Their values are escaped; ``class_`` and ``aria_label`` stand for ``class``
            and ``aria-label``. One that is None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")


def joined(parts: Iterable[str], between: str = "") -> Markup:
    """Parts one after the other; what is not :class:`Markup` is escaped."""
    safe = (part if isinstance(part, Markup) else escape(part) for part in parts)
    return Markup((between if isinstance(between, Markup) else escape(between)).join(safe))


def linked(text: str) -> Markup:
    """Text whose web addresses can be followed. Nothing is loaded before a reader does."""
    parts: list[str] = []
    end = 0
    for found in ADDRESS.finditer(text):
        parts += [text[end : found.start()], tag("a", found[0], href=found[0], rel="noreferrer")]
        end = found.end()
    return joined([*parts, text[end:]])


def table(head: Iterable[str], rows: Iterable[Iterable[str]], class_: str | None = None) -> Markup:
    """A table that scrolls sideways where the screen is too narrow."""
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = (tag("tr", *(tag("td", cell) for cell in row)) for row in rows)
    whole = tag("table", tag("thead", top), tag("tbody", *body), class_=class_)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label="table")


def figure(picture: str, caption: str) -> Markup:
    """A picture and how to read it."""
    return tag("figure", picture, tag("figcaption", caption))


def number(value: float, digits: int = 4) -> str:
    """A number to read, with a true minus sign."""
    return f"{value:.{digits}g}".replace("-", "−")
