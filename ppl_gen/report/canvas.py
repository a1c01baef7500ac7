"""Matplotlib's figures as inline SVG that takes its colours from the page.

Ink, lines and the two series are drawn in marker colours and written as CSS variables, so that a
figure is legible in light and in dark. Only matplotlib's object interface is used; its settings are
put aside while a figure is made and are as they were afterwards.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ppl_gen.report.html import Markup, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE, PAPER = "#010203", "#020304", "#030405", "#040506"
FIRST, SECOND, BAD = "#050607", "#060708", "#070809"
VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    BAD: "var(--bad)",
}
# Okabe and Ito (2008), yellow darkened for a white page, and two more.
CLASS_COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"),
    *("#56b4e9", "#8f7a00", "#7a5fc0", "#8c8c8c", "#a0522d"),
)
CLASS_MARKERS = ("o", "^", "s", "D")
LONGEST = 30
FIRST_WITHOUT_GLYPH = 0x530  # matplotlib's own font has Latin, Greek and Cyrillic before it
SETTINGS = {
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "semibold",
    "axes.labelsize": 9.5,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 8.5,
}


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """A figure to draw on, in inches, under the report's own settings."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", SETTINGS]):
        yield Figure(figsize=(width, height))


def svg(figure: Figure, alt: str) -> Markup:
    """The figure as an SVG element; to be called inside :func:`canvas`.

    Args:
        figure: Whose text is the report's own, or :func:`drawable`: other text of data goes into
            the page around it.
        alt: What the figure shows, for those who cannot see it; no two on a page alike.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # A fixed salt makes the identifiers, and with them the file, the same every time.
    with rc_context({"svg.hashsalt": alt}):
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # Names of artists repeat from figure to figure; identifiers that are used do not.
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r"\n\s*", "\n", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, variable)
    box = re.search(r'viewBox="([^"]*)"', text)
    frame = tag("svg", Markup(body), viewBox=box[1] if box else None, role="img", aria_label=alt)
    return tag("div", frame, class_="plot", tabindex="0")


def drawable(text: str, longest: int = LONGEST) -> bool:
    """Whether text of data may stand in a figure: short, and of characters that its font has."""
    simple = all(c.isalnum() or c in " _-.,:()[]'/%+*²³°" for c in text)
    return 0 < len(text) <= longest and simple and all(ord(c) < FIRST_WITHOUT_GLYPH for c in text)


def legend(entries: Sequence[tuple[str, str, str]]) -> Markup:
    """A legend in HTML, beside the figure: its words may come from data.

    Args:
        entries: Colour, kind of mark ("line", "dashed" or a marker of matplotlib) and words.
    """
    items = [
        tag("li", _mark(VARIABLES.get(colour, colour), mark), words)
        for colour, mark, words in entries
    ]
    return tag("ul", *items, class_="legend")


def _mark(colour: str, mark: str) -> Markup:
    shapes = {
        "line": '<path d="M1 6H19" stroke="C" stroke-width="2.4"/>',
        "dashed": '<path d="M1 6H19" stroke="C" stroke-width="2.4" stroke-dasharray="5 3"/>',
        "o": '<circle cx="10" cy="6" r="4.5" fill="C"/>',
        "^": '<path d="M10 1L15 11H5Z" fill="C"/>',
        "s": '<path d="M6 2H14V10H6Z" fill="C"/>',
        "D": '<path d="M10 1L15 6L10 11L5 6Z" fill="C"/>',
        "bar": '<path d="M3 1H17V11H3Z" fill="C" fill-opacity="0.55"/>',
    }
    shape = Markup(shapes[mark].replace('"C"', f'"{colour}"'))
    return tag("svg", shape, viewBox="0 0 20 12", aria_hidden="true")


def class_style(position: int) -> tuple[str, str]:
    """Colour and marker of the class at a position: no two of 40 alike."""
    marker = CLASS_MARKERS[position // len(CLASS_COLOURS) % len(CLASS_MARKERS)]
    return CLASS_COLOURS[position % len(CLASS_COLOURS)], marker


def without_frame(axes: Axes) -> None:
    """Take the lines around the axes away, and the ticks with them."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
