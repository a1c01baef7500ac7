"""The figures of a report: pure functions from numbers to inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.report.canvas import (
    BAD,
    FIRST,
    INK,
    LINE,
    MUTED,
    PAPER,
    SECOND,
    canvas,
    class_style,
    svg,
    without_frame,
)
from ppl_gen.report.html import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
MANY = 10


def curves(panels: Sequence[tuple[str, Array, Array]], kept: int | None, alt: str) -> Markup:
    """Figures of a fit, epoch by epoch.

    Args:
        panels: Title, training curve and validation curve of each; NaN where there is no figure.
        kept: The epoch whose weights were kept, from 1, if it was chosen on validation data.
        alt: What the figure shows.
    """
    with canvas(10, 2.9) as figure:
        for axes, (title, train, valid) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            epochs = np.arange(1, len(train) + 1)
            mark = "o" if len(train) == 1 else None
            axes.plot(epochs, train, color=FIRST, linewidth=1.8, marker=mark)
            axes.plot(epochs, valid, color=SECOND, linewidth=1.8, marker=mark, dashes=(4, 1.8))
            if kept is not None and np.isfinite(valid[kept - 1]):
                axes.plot(kept, valid[kept - 1], "o", color=SECOND, markersize=6)
            limits = late_limits([train, valid])
            if limits is not None:
                axes.set_ylim(*limits)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            without_frame(axes)
        return svg(figure, alt)


def late_limits(series: Sequence[Array]) -> tuple[float, float] | None:
    """Limits that show the second half of long series large, and what comes before if it fits."""
    finite = [s[np.isfinite(s)] for s in series]
    finite = [s for s in finite if len(s)]
    if not finite:
        return None
    late = np.concatenate([s[len(s) // 2 if len(s) >= MANY else 0 :] for s in finite])
    every = np.concatenate(finite)
    room = max(np.ptp(late), 0.01 * np.abs(late).max()) or 1.0
    low, high = max(every.min(), late.min() - room), min(every.max(), late.max() + room)
    return low - 0.08 * room, high + 0.08 * room


def two_clouds(left: Array, right: Array, titles: tuple[str, str], alt: str) -> Markup:
    """Two sets of points ``(N, 2)`` side by side, on the same axes."""
    with canvas(10, 4.9) as figure:
        both = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, points, title, colour in zip(
            both, (left, right), titles, (FIRST, SECOND), strict=True
        ):
            dots(axes, points, colour)
            axes.set_title(title)
            axes.set_aspect("equal", adjustable="box")
            without_frame(axes)
        return svg(figure, alt)


def marginals(data: Array, drawn: Array, titles: Sequence[str], alt: str) -> Markup:
    """A few columns ``(N, K)`` of two tables, each alone; and the first three of them in pairs."""
    above = -(-len(titles) // 3)
    pairs = [(0, 1), (0, 2), (1, 2)] if len(titles) > 2 else [(0, 1)][: len(titles) - 1]
    rows, width = above + bool(pairs), min(3, len(titles))
    with canvas(10, 1.9 * above + 2.9 * bool(pairs) + 0.2) as figure:
        ratios = [2] * above + [3] * bool(pairs)
        grid = figure.subplots(rows, width, squeeze=False, height_ratios=ratios)
        for column, axes in enumerate(grid[:above].flat):
            if column < len(titles):
                _histograms(axes, data[:, column], drawn[:, column])
                axes.set_xlabel(titles[column])
            else:
                axes.remove()
        for axes, (i, j) in zip(grid[above:].flat, pairs, strict=False):
            dots(axes, data[:, [i, j]], FIRST, 3)
            dots(axes, drawn[:, [i, j]], SECOND, 3)
            axes.set_xlabel(titles[i])
            axes.set_ylabel(titles[j])
        for axes in grid[above:].flat[len(pairs) :]:
            axes.remove()
        for axes in figure.axes:
            axes.locator_params(axis="x", nbins=5)
            without_frame(axes)
        return svg(figure, alt)


def _histograms(axes: Axes, data: Array, drawn: Array) -> None:
    data, drawn = data[np.isfinite(data)], drawn[np.isfinite(drawn)]
    bins = np.histogram_bin_edges(np.concatenate([data, drawn]), bins=24).tolist()
    for values, colour in ((data, FIRST), (drawn, SECOND)):
        axes.hist(values, bins, density=True, color=colour, alpha=0.45)
        axes.hist(values, bins, density=True, color=colour, histtype="step", linewidth=1.2)
    axes.set_yticks([])
    axes.grid(False)


def moments(data: Array, drawn: Array, alt: str) -> Markup:
    """Means, standard deviations and correlations of all columns ``(N, D)`` of two tables.

    Values that are NaN are missing, and columns without any value are left out.
    """
    held = np.flatnonzero(np.isfinite(data).any(0) & np.isfinite(drawn).any(0))
    data, drawn = data[:, held], drawn[:, held]
    spread, scale = np.nanstd(data, 0), np.nanstd(drawn, 0)
    varied = spread > 0
    shift = (np.nanmean(drawn, 0) - np.nanmean(data, 0))[varied] / spread[varied]
    columns = held[varied] + 1
    with canvas(10, 2.9) as figure:
        first, second, third = figure.subplots(1, 3)
        first.plot(columns, shift, "o", color=FIRST, markersize=4)
        first.axhline(0, color=MUTED, linewidth=1)
        first.set_title("shift of the mean")
        first.set_ylabel("in sd of the data")
        second.plot(columns, scale[varied] / spread[varied], "o", color=FIRST, markersize=4)
        second.axhline(1, color=MUTED, linewidth=1)
        second.set_title("ratio of the sd")
        second.set_ylabel("drawn / data")
        for axes in (first, second):
            axes.set_xlabel("column")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.margins(y=0.25)
        _correlations(third, data[:, varied & (scale > 0)], drawn[:, varied & (scale > 0)])
        for axes in (first, second, third):
            without_frame(axes)
        return svg(figure, alt)


def _correlations(axes: Axes, data: Array, drawn: Array) -> None:
    axes.plot([-1, 1], [-1, 1], color=MUTED, linewidth=1)
    if data.shape[1] > 1:
        pairs = np.triu_indices(data.shape[1], 1)
        x, y = (correlations(table)[pairs] for table in (data, drawn))
        few = np.linspace(0, len(x) - 1, min(len(x), 600)).round().astype(int)
        dots(axes, np.stack([x[few], y[few]], 1), FIRST, 3)
    axes.set_title("correlations of columns")
    axes.set_xlabel("data")
    axes.set_ylabel("drawn")


def correlations(table: Array) -> Array:
    """Correlations of columns ``(N, D)``, each of the rows in which neither value is NaN."""
    held = np.isfinite(table).astype(float)
    centred = np.where(held > 0, table - np.nanmean(table, 0), 0)
    rows = np.maximum(held.T @ held, 1)
    mean = centred.T @ held / rows  # of the first column of a pair, in the rows that both have
    variance = centred.T**2 @ held / rows - mean**2
    covariance = centred.T @ centred / rows - mean * mean.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / np.sqrt(variance * variance.T)


def arrows(data: Array, means: Array, alt: str) -> Markup:
    """Points ``(N, 2)`` and where each is reconstructed."""
    with canvas(10, 5.4) as figure:
        axes = figure.subplots()
        for start, end in zip(data, means, strict=True):
            axes.plot(*np.stack([start, end], 1), color=MUTED, linewidth=0.6, alpha=0.7)
        dots(axes, data, FIRST)
        dots(axes, means, SECOND)
        axes.set_aspect("equal", adjustable="datalim")
        without_frame(axes)
        return svg(figure, alt)


def agreement(data: Array, means: Array, titles: Sequence[str], alt: str) -> Markup:
    """Columns ``(N, K)``: what is expected against what was observed."""
    rows = -(-len(titles) // 3)
    generator = np.random.default_rng(0)
    with canvas(10, 3.0 * rows) as figure:
        grid = figure.subplots(rows, 3, squeeze=False)
        for axes in grid.flat[len(titles) :]:
            axes.remove()
        for axes, x, y, title in zip(grid.flat, data.T, means.T, titles, strict=False):
            ends = [np.nanmin([x, y]), np.nanmax([x, y])]
            axes.plot(ends, ends, color=MUTED, linewidth=1)
            if len(np.unique(x)) <= 12:  # few values: spread them to see how many there are
                x = x + 0.06 * (ends[1] - ends[0]) * generator.uniform(-1, 1, len(x))
            dots(axes, np.stack([x, y], 1), FIRST)
            axes.set_title(title)
            axes.set_xlabel("observed")
            axes.set_ylabel("expected")
            without_frame(axes)
        return svg(figure, alt)


def labelled(
    plane: Array,
    axis_titles: tuple[str, str],
    values: Array | None,
    classes: bool,
    alt: str,
    behind: Array | None = None,
) -> Markup:
    """Codes in the plane, coloured by label.

    Args:
        plane: Shape ``(N, 2)``.
        axis_titles: Of both axes.
        values: Labels, ``(N,)``, if there are any.
        classes: Whether they are whole numbers that name classes.
        alt: What the figure shows.
        behind: Draws of the prior, ``(M, 2)``, shown small; those far from all others are not.
    """
    with canvas(10, 5.8) as figure:
        axes = figure.subplots()
        if behind is not None:
            low, high = np.quantile(behind, [0.01, 0.99], axis=0)
            near = (np.abs(behind - (low + high) / 2) <= high - low).all(1)
            axes.plot(*behind[near].T, ".", color=MUTED, markersize=2, alpha=0.5, zorder=0)
        if values is None:
            dots(axes, plane, FIRST, 4.5)
        elif classes:
            _classes(axes, plane, values)
        else:
            points = axes.scatter(*plane.T, c=values, cmap=shades(), s=20, linewidths=0, alpha=0.9)
            _colour_bar(figure, points, axes, label="label", fraction=0.04)
        _plane_axes(axes, axis_titles)
        return svg(figure, alt)


def _classes(axes: Axes, plane: Array, values: Array) -> None:
    """Dots in the colour of their class, and its number at its median."""
    styles = [(value, *class_style(i)) for i, value in enumerate(np.unique(values))]
    for value, colour, marker in styles:
        dots(axes, plane[values == value], colour, 4.5, marker)
    for value, colour, _ in styles:
        tab(axes, np.median(plane[values == value], 0), f"{value:.0f}", colour)


def tab(axes: Axes, place: Array, text: str, colour: str) -> None:
    """A word in a box of some colour."""
    box = {"facecolor": PAPER, "edgecolor": colour, "boxstyle": "round,pad=0.25", "alpha": 0.9}
    style = {"ha": "center", "va": "center", "fontsize": 9.5, "fontweight": "bold", "color": INK}
    axes.text(place[0], place[1], text, bbox=box, **style)


def _colour_bar(figure: Any, points: Any, axes: Axes, **options: Any) -> None:
    bar = figure.colorbar(points, ax=axes, pad=0.01, **options)
    bar.outline.set_visible(False)


def _plane_axes(axes: Axes, titles: tuple[str, str]) -> None:
    axes.set_xlabel(titles[0])
    axes.set_ylabel(titles[1])
    without_frame(axes)


def khat_map(
    plane: Array, axis_titles: tuple[str, str], khat: Array, threshold: float, alt: str
) -> Markup:
    """Where the guide misses the posterior: k-hat over the plane of codes, and its histogram.

    Args:
        plane: Shape ``(N, 2)``.
        axis_titles: Of both axes.
        khat: Shape ``(N,)``; minus infinity is drawn at the lower end.
        threshold: Above it, a datum's weights are not to be used.
        alt: What the figure shows.
    """
    shown = np.clip(khat, -0.5, 1.5)
    over = shown > threshold
    with canvas(10, 4.4) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        scale = {
            "cmap": shades().with_extremes(over=BAD),
            "vmin": -0.5,
            "vmax": threshold,
            "linewidths": 0,
        }
        points = left.scatter(*plane[~over].T, c=shown[~over], s=20, alpha=0.9, **scale)
        dots(left, plane[over], BAD, 7, "^")
        _colour_bar(figure, points, left, label="k-hat", fraction=0.05, extend="max")
        _plane_axes(left, axis_titles)
        bins = np.linspace(-0.5, 1.5, 33).tolist()
        right.hist(shown[~over], bins, color=FIRST, alpha=0.75)
        right.hist(shown[over], bins, color=BAD, alpha=0.85, hatch="////", edgecolor=PAPER)
        right.axvline(threshold, color=BAD, linewidth=1.4, dashes=(4, 2))
        right.set_xlabel("k-hat")
        right.set_ylabel("data")
        right.locator_params(axis="x", nbins=5)
        right.yaxis.get_major_locator().set_params(integer=True)
        without_frame(right)
        return svg(figure, alt)


def profiles(
    panels: Sequence[tuple[str, Array]],
    columns: Array,
    across: str,
    up: str,
    alt: str,
    names: Sequence[str] | None = None,
    colours: Sequence[str] | None = None,
) -> Markup:
    """Decoded columns at each step of a walk through the codes.

    Args:
        panels: Title and decoded observations, ``(steps, D)``.
        columns: Where each column stands, ``(D,)``.
        across: What it is that stands there.
        up: Unit of the values.
        alt: What the figure shows.
        names: What the columns are called, to stand below them.
        colours: Of the steps; by default from dark to bright.
    """
    rows = -(-len(panels) // 2)
    with canvas(10, 2.2 * rows + (0.3 if names is None else 0.8)) as figure:
        width = min(2, len(panels))
        grid = figure.subplots(rows, width, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes, (title, values) in zip(grid.flat, panels, strict=False):
            axes.axhline(0, color=LINE, linewidth=1)
            mark = "o" if values.shape[1] <= 30 else None
            ways = colours or shades()(np.linspace(0, 1, len(values)))
            for line, colour in zip(values, ways, strict=True):
                axes.plot(columns, line, color=colour, linewidth=1.5, marker=mark, markersize=3.2)
            axes.set_title(title)
            if names is None:
                whole = np.issubdtype(columns.dtype, np.integer)
                axes.xaxis.get_major_locator().set_params(integer=whole)
            else:
                axes.set_xticks(columns, names, rotation=20, ha="right")
            without_frame(axes)
        figure.supxlabel(across, fontsize=9.5, color=MUTED)
        figure.supylabel(up, fontsize=9.5, color=MUTED)
        return svg(figure, alt)


def paths(data: Array, walks: Sequence[tuple[str, Array]], alt: str) -> Markup:
    """Decoded points ``(steps, 2)`` of several walks through the codes, over the data."""
    with canvas(10, 5.4) as figure:
        axes = figure.subplots()
        dots(axes, data, MUTED, 3, alpha=0.35)
        for position, (title, walk) in enumerate(walks):
            colour, _ = class_style(position)
            axes.plot(*walk.T, color=colour, linewidth=2)
            dots(axes, walk, colour, 4.5)
            tab(axes, walk[-1], title, colour)
        axes.set_aspect("equal", adjustable="datalim")
        without_frame(axes)
        return svg(figure, alt)


def shades() -> Any:
    """Viridis without its brightest end, which would be lost on a white page."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["viridis"](np.linspace(0.05, 0.9, 256)))


def dots(
    axes: Axes, points: Array, colour: str, size: float = 4, marker: str = "o", alpha: float = 0.7
) -> None:
    """Points ``(N, 2)``, each as a mark of one colour."""
    style = {"markersize": size, "markeredgewidth": 0, "alpha": alpha}
    axes.plot(*points.T, linestyle="none", marker=marker, color=colour, **style)
