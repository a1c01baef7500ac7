"""The figures of stories with a condition, where observations are columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppl_gen.report import figures
from ppl_gen.report.canvas import (
    FIRST,
    INK,
    LINE,
    MUTED,
    SECOND,
    canvas,
    class_style,
    svg,
    without_frame,
)
from ppl_gen.report.figures import Array, dots
from ppl_gen.report.html import Markup


@dataclass(frozen=True)
class Panel:
    """A datum of D columns that was seen in part.

    Attributes:
        truth: Its values, ``(D,)``.
        seen: Which of them were seen, ``(D,)``.
        draws: Completions, ``(S, D)``.
        baseline: A single answer, ``(D,)``, if there is one.
    """

    truth: Array
    seen: NDArray[np.bool_]
    draws: Array
    baseline: Array | None


def completed(panels: Sequence[Panel], names: Sequence[str] | None, alt: str) -> Markup:
    """Completions of a few data over their columns.

    Args:
        panels: The data.
        names: What the columns are called, if they are few.
        alt: What the figure shows.
    """
    width = min(2, len(panels))
    rows = -(-len(panels) // width)
    with canvas(10, 2.3 * rows + (0.3 if names is None else 0.8)) as figure:
        grid = figure.subplots(rows, width, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for place, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
            columns = np.arange(1.0, len(panel.truth) + 1)
            axes.axhline(0, color=LINE, linewidth=1)
            for draw in panel.draws:
                axes.plot(columns, draw, color=SECOND, linewidth=0.7, alpha=0.3)
            hidden = ~panel.seen
            if panel.baseline is not None:
                points = np.stack([columns, panel.baseline], 1)[hidden]
                dots(axes, points, MUTED, 6, "^", 1.0)
            dots(axes, np.stack([columns, panel.truth], 1)[hidden], FIRST, 5.5, "D", 1.0)
            dots(axes, np.stack([columns, panel.truth], 1)[panel.seen], INK, 5, "o", 1.0)
            axes.set_title(f"datum {place + 1}")
            if names is None:
                axes.xaxis.get_major_locator().set_params(integer=True)
            else:
                axes.set_xticks(columns, names, rotation=20, ha="right")
            without_frame(axes)
        figure.supylabel("in sd of the data", fontsize=9.5, color=MUTED)
        return svg(figure, alt)


def redrawn_points(data: Array, drawn: Array, titles: tuple[str, str], alt: str) -> Markup:
    """Codes decoded under every class, ``(N, C, 2)``, over data ``(M, 2)``."""
    with canvas(10, 5.4) as figure:
        axes = figure.subplots()
        dots(axes, data, MUTED, 3, alpha=0.35)
        for row in drawn:
            axes.plot(*row.T, color=MUTED, linewidth=0.8, alpha=0.7)
        for place in range(drawn.shape[1]):
            colour, marker = class_style(place)
            dots(axes, drawn[:, place], colour, 6, marker, 0.95)
        axes.set_xlabel(titles[0])
        axes.set_ylabel(titles[1])
        axes.set_aspect("equal", adjustable="datalim")
        without_frame(axes)
        return svg(figure, alt)


def redrawn_profiles(
    panels: Sequence[tuple[str, Array]], names: Sequence[str] | None, alt: str
) -> Markup:
    """Columns ``(C, D)`` of a few codes, each decoded under every class."""
    classes, size = panels[0][1].shape
    colours = [class_style(place)[0] for place in range(classes)]
    columns = np.arange(1, size + 1)
    return figures.profiles(
        panels, columns, "column", "in sd of the data", alt, names=names, colours=colours
    )
