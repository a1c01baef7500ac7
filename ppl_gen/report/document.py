"""A page that needs nothing from elsewhere: title, header and sections as one HTML document."""

from __future__ import annotations

from collections.abc import Sequence

from ppl_gen.report.html import Markup, tag
from ppl_gen.report.style import CSS

# No script, no font, no image from elsewhere: the reader's browser enforces what we promise.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, header: Markup, sections: Sequence[tuple[str, Markup]]) -> str:
    """The page as text.

    Args:
        title: What it is about, in a few words.
        header: What stands above the sections.
        sections: Headings and bodies, in their order.
    """
    links = [tag("a", _short(heading), href=f"#{_anchor(heading)}") for heading, _ in sections]
    parts = [
        tag("section", tag("h2", heading), body, id=_anchor(heading)) for heading, body in sections
    ]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", f"{title} - ppl-gen report"),
        tag("style", Markup(CSS)),
    ]
    foot = "Written by ppl-gen. This file needs no network and holds no script."
    body = [
        header,
        tag("main", tag("nav", *links, aria_label="sections"), *parts),
        tag("footer", foot),
    ]
    html = tag("html", tag("head", *head), tag("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


def _short(heading: str) -> str:
    """A heading as the words of a link: of those that several sections share, the first."""
    first, comma, rest = heading.partition(", ")
    return f"{first} and others" if comma and ", " in rest else heading


def _anchor(heading: str) -> str:
    return "-".join(heading.lower().replace(",", "").split())
