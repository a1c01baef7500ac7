"""The figures of a verdict: pure functions from the details of its findings to inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    svg,
    without_frame,
)
from ppl_gen.report.figures import Array, dots, late_limits
from ppl_gen.report.html import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TENTHS = 10
LOWEST, HIGHEST = -0.5, 1.5  # of k-hat, as in the plane of codes


@dataclass(frozen=True)
class Measured:
    """A number to be drawn.

    Attributes:
        name: What it is, to stand beside it.
        value: Where it lies.
        error: Its standard error; not drawn if it is not finite.
        bad: Whether it fails or warns.
        limits: Up to where it passes, and warns; drawn if there are any.
        chance: Where it may lie by chance, from and to; not drawn if it is not finite.
        hollow: Whether it passes though it lies beyond the limits.
    """

    name: str
    value: float
    error: float = np.nan
    bad: bool = False
    limits: tuple[float, ...] = ()
    chance: tuple[float, float] = (np.nan, np.nan)
    hollow: bool = False


def trust_map(
    khat: Array,
    ess: Array,
    draws: float,
    threshold: float,
    named: Sequence[tuple[int, str]],
    alt: str,
) -> Markup:
    """K-hat and effective draws of each datum, and their histograms.

    Args:
        khat: Shape ``(N,)``.
        ess: Shape ``(N,)``, from 1 to ``draws``.
        draws: How many draws each has.
        threshold: Above it, a datum's weights are not to be used.
        named: Places of data among them, and what they are called.
        alt: What the figure shows.
    """
    shown = np.clip(khat, LOWEST, HIGHEST)
    over = shown > threshold
    points = np.stack([shown, ess], 1)
    with canvas(10, 4.4) as figure:
        axes, right = figure.subplots(1, 2, width_ratios=(3, 2))
        axes.axvspan(threshold, HIGHEST + 0.1, color=BAD, alpha=0.07, linewidth=0)
        axes.axvline(threshold, color=BAD, linewidth=1.4, dashes=(4, 2))
        dots(axes, points[~over], FIRST, 4.5, alpha=0.6)
        dots(axes, points[over], BAD, 6.5, "^", alpha=0.8)
        for place, name in _apart(points, draws, named):
            axes.annotate(
                *(name, points[place]), (5, 3), textcoords="offset points", fontsize=8, color=INK
            )
        axes.set_yscale("log")
        axes.set_ylim(0.8, 1.4 * draws)
        axes.set_xlim(min(shown.min(), threshold) - 0.1, max(shown.max(), threshold) + 0.15)
        axes.set_xlabel("k-hat")
        axes.set_ylabel(f"effective draws, of {draws:,.0f}")
        bins = np.linspace(LOWEST, HIGHEST, 33)
        below, _, _ = right.hist(shown[~over], bins.tolist(), color=FIRST, alpha=0.75)
        style = {"color": BAD, "alpha": 0.85, "hatch": "////", "edgecolor": PAPER}
        right.hist(shown[over], bins.tolist(), bottom=below, **style)
        right.axvline(threshold, color=BAD, linewidth=1.4, dashes=(4, 2))
        right.set_xlabel("k-hat")
        right.set_ylabel("data")
        right.yaxis.get_major_locator().set_params(integer=True)
        for each in (axes, right):
            each.locator_params(axis="x", nbins=6)
            without_frame(each)
        return svg(figure, alt)


def _apart(points: Array, draws: float, named: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Those of the names, the first before the others, that are not printed over each other."""
    room = np.array([0.09 * (HIGHEST - LOWEST), 0.05 * np.log(draws)])
    shown: list[tuple[int, str]] = []
    for place, name in named:
        here = np.array([points[place, 0], np.log(points[place, 1])])
        there = [np.array([points[p, 0], np.log(points[p, 1])]) for p, _ in shown]
        if all((np.abs(here - other) > room).any() for other in there):
            shown.append((place, name))
    return shown


def ranks(
    panels: Sequence[tuple[str, Array]], at: Array, lower: Array, upper: Array, alt: str
) -> Markup:
    """How far the distribution of ranks is from the uniform one, scalar by scalar.

    Args:
        panels: Title, and share of ranks up to each point, ``(G,)``.
        at: The points, ``(G,)``.
        lower: The band of uniform ranks from below, ``(G,)``.
        upper: The same from above.
        alt: What the figure shows.
    """
    width = min(3, len(panels))
    rows = -(-len(panels) // width)
    with canvas(10, 2.4 * rows + 0.3) as figure:
        grid = figure.subplots(rows, width, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes, (title, share) in zip(grid.flat, panels, strict=False):
            apart = share - at
            outside = (share < lower) | (share > upper)
            axes.fill_between(at, lower - at, upper - at, color=MUTED, alpha=0.2, linewidth=0)
            axes.axhline(0, color=MUTED, linewidth=1)
            axes.plot(at, apart, color=FIRST, linewidth=1.8)
            dots(axes, np.stack([at, apart], 1)[outside], SECOND, 4.5, alpha=0.9)
            axes.set_title(title)
            axes.set_xlim(0, 1)
            without_frame(axes)
        figure.supxlabel("rank of the truth", fontsize=9.5, color=MUTED)
        figure.supylabel("share below, less that of uniform", fontsize=9.5, color=MUTED)
        return svg(figure, alt)


def coverage(
    levels: Sequence[float],
    shares: Array,
    limits: tuple[float, float],
    alt: str,
) -> Markup:
    """Share of truths in central intervals, less what it ought to be.

    Args:
        levels: Of the intervals, ``(L,)``.
        shares: Of each scalar, ``(D, L)``.
        limits: Within which it passes, and warns.
        alt: What the figure shows.
    """
    places = np.arange(len(levels))
    off = shares - np.array(levels)
    across = np.linspace(-0.3, 0.3, len(off)) if len(off) > 1 else np.zeros(1)
    with canvas(10, 2.6) as figure:
        axes = figure.subplots()
        _bands(axes, limits)
        for place, column in zip(places, off.T, strict=True):
            bad = np.abs(column) > limits[1]
            points = np.stack([place + across, column], 1)
            dots(axes, points[~bad], FIRST, 4.5)
            dots(axes, points[bad], BAD, 6, "^")
        axes.set_xticks(places, [f"{level:.0%}" for level in levels])
        axes.set_xlabel("interval")
        axes.set_ylabel("truths inside, less that")
        without_frame(axes)
        return svg(figure, alt)


def sandwich(bounds: Sequence[Measured], parts: Sequence[Measured], unit: str, alt: str) -> Markup:
    """The bounds below the evidence, and what the distance of the lowest is made of.

    Args:
        bounds: In nats, the lowest first.
        parts: The divergence and its parts, in nats.
        unit: Of both, in words.
        alt: What the figure shows.
    """
    with canvas(10, 2.3) as figure:
        left, right = figure.subplots(1, 2)
        for place, one in enumerate(bounds):
            _whisker(left, one, place, INK)
            left.plot(one.value, place, "o", color=FIRST, markersize=7)
        left.margins(x=0.15)
        left.locator_params(axis="x", nbins=4)
        left.set_title("bounds of the log evidence")
        for place, one in enumerate(parts):
            colour = BAD if one.bad else FIRST if not place else SECOND
            right.barh(place, one.value, 0.55, color=colour, alpha=0.55)
            _whisker(right, one, place, INK)
            for limit, style in zip(one.limits, ((2, 2), (4, 0)), strict=False):
                right.plot([limit] * 2, [place - 0.4, place + 0.4], color=MUTED, dashes=style)
        furthest = max(one.value + np.nan_to_num(one.error) for one in parts)
        lowest = min(0.0, *(one.value for one in parts))
        # A limit far off would leave the bars no room.
        right.set_xlim(1.1 * lowest, 1.15 * max(furthest, min(one.limits[0] for one in parts)))
        right.axvline(0, color=MUTED, linewidth=1)
        right.set_title("distance from the posterior")
        for axes, rows in ((left, bounds), (right, parts)):
            axes.set_yticks(range(len(rows)), [one.name for one in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_xlabel(unit)
            axes.grid(False, axis="y")
            without_frame(axes)
        return svg(figure, alt)


def _whisker(axes: Axes, one: Measured, place: float, colour: str) -> None:
    """Two standard errors to either side."""
    if np.isfinite(one.error):
        ends = [one.value - 2 * one.error, one.value + 2 * one.error]
        axes.plot(ends, [place] * 2, color=colour, linewidth=1.4)


def marginals(
    names: Sequence[str],
    shift: Array,
    stretch: Array,
    limits: tuple[tuple[float, float], tuple[float, float]],
    alt: str,
) -> Markup:
    """How far the guide's marginals are from those of chains, latent by latent.

    Args:
        names: What stands below each; nothing if there are too many.
        shift: Of the mean, in posterior deviations, ``(D,)``.
        stretch: Factor on the deviation, ``(D,)``.
        limits: Within which shift and stretch pass, and warn.
        alt: What the figure shows.
    """
    places = np.arange(len(shift), dtype=float)
    with canvas(10, 3.0) as figure:
        left, right = figure.subplots(1, 2)
        logs = [tuple(np.log(limit) for limit in limits[1]), limits[0]]
        for axes, off, within in ((left, shift, logs[1]), (right, np.log(stretch), logs[0])):
            _bands(axes, within)
            points, bad = np.stack([places, off], 1), np.abs(off) > within[1]
            dots(axes, points[~bad], FIRST, 6, alpha=0.9)
            dots(axes, points[bad], BAD, 6.5, "^")
            axes.set_xticks(places, names, rotation=30, ha="right") if names else None
            axes.margins(x=0.06, y=0.2)
            without_frame(axes)
        left.set_title("shift of the guide's mean")
        left.set_ylabel("in posterior sd")
        right.set_title("its sd, as a multiple of the posterior's")
        right.yaxis.set_major_formatter(lambda value, _: f"{np.exp(value):.2g}")
        if not names:
            for axes in (left, right):
                axes.set_xlabel("latent")
        return svg(figure, alt)


def statistics(rows: Sequence[Measured], alt: str) -> Markup:
    """Statistics of the data among those of replicates.

    Args:
        rows: Signed distances in units of what warns, the worst first; of their limits the first
            is 1.
        alt: What the figure shows.
    """
    with canvas(10, 0.42 * len(rows) + 0.9) as figure:
        axes = figure.subplots()
        axes.axvspan(-1, 1, color=FIRST, alpha=0.08, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=1)
        reach = max(2.0, *(abs(one.value) for one in rows))
        for place, one in enumerate(rows):
            if np.isfinite(one.chance).all():
                span = [place] * 2
                axes.plot(one.chance, span, color=MUTED, linewidth=7, alpha=0.35)
            for limit in one.limits[1:]:
                for side in (-limit, limit) if np.isfinite(limit) else ():
                    if abs(side) <= 1.15 * reach:
                        ends = [place - 0.35, place + 0.35]
                        axes.plot([side] * 2, ends, color=MUTED, linewidth=1.2)
            colour, mark = (BAD, "^") if one.bad else (FIRST, "o")
            fill = PAPER if one.hollow else colour
            axes.plot(one.value, place, mark, color=colour, markersize=7, markerfacecolor=fill)
        axes.set_xlim(-1.2 * reach, 1.2 * reach)
        axes.set_yticks(range(len(rows)), [one.name for one in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("distance of the data from replicates, in units of what warns")
        axes.grid(False, axis="y")
        without_frame(axes)
        return svg(figure, alt)


def left(x: Array, y: Array, meant: NDArray[np.bool_], name: str, site: str, alt: str) -> Markup:
    """What is left of each row against a number, with means along it.

    Args:
        x: The number, ``(N,)``.
        y: What is left, in standard deviations, ``(N,)``.
        meant: Rows that are marked, ``(N,)``.
        name: What the number is called.
        site: What something is left of.
        alt: What the figure shows.
    """
    with canvas(10, 3.4) as figure:
        axes = figure.subplots()
        points = np.stack([x, y], 1)
        axes.axhline(0, color=MUTED, linewidth=1)
        dots(axes, points[~meant], FIRST, 4.5, alpha=0.5)
        dots(axes, points[meant], SECOND, 6, "^", alpha=0.9)
        for rows, colour in ((~meant, INK), (meant, SECOND)):
            if rows.any():
                parts = [points[rows][part] for part in _parts(x[rows])]
                means = np.array([part.mean(0) for part in parts])
                axes.plot(*means.T, "-", color=colour, linewidth=1.8)
        axes.set_xlabel(name)
        axes.set_ylabel(f"left of {site}, in sd")
        without_frame(axes)
        return svg(figure, alt)


def _parts(x: Array) -> list[NDArray[np.intp]]:
    """Places of the rows of each level, or of each tenth where there are many levels."""
    levels = np.unique(x)
    if len(levels) > 2 * TENTHS:
        return np.array_split(np.argsort(x, kind="stable"), TENTHS)
    return [np.flatnonzero(x == level) for level in levels]


def settling(
    steps: Array, climbed: Array, rate: Array, warm: int, fallen: int, title: str, alt: str
) -> Markup:
    """What the steps climbed, and their learning rate.

    Args:
        steps: Number of the last step of each block, ``(B,)``.
        climbed: What was climbed there, in nats per datum, ``(B,)``.
        rate: The learning rate there, ``(B,)``.
        warm: How many blocks came before the KL term had its full weight.
        fallen: After how many blocks the rate had halved.
        title: What was climbed.
        alt: What the figure shows.
    """
    with canvas(10, 3.0) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 1), sharex=True)
        left.plot(steps, climbed, color=FIRST, linewidth=1.2)
        limits = late_limits([climbed])
        if limits is not None:
            left.set_ylim(*limits)
        right.plot(steps, rate, color=SECOND, linewidth=1.8)
        right.set_ylim(0, 1.08 * rate.max())
        for axes in (left, right):
            if warm:
                axes.axvspan(steps[0], steps[warm - 1], color=LINE, alpha=0.5, linewidth=0)
            if fallen < len(steps):
                axes.axvline(steps[fallen - 1], color=MUTED, linewidth=1.2, dashes=(4, 2))
            axes.set_xlabel("step")
            axes.locator_params(axis="x", nbins=5)
            without_frame(axes)
        left.set_title(title)
        right.set_title("learning rate")
        return svg(figure, alt)


def _bands(axes: Axes, limits: tuple[float, ...]) -> None:
    """Where a figure passes, and where it warns."""
    good, bad = limits
    axes.axhspan(-bad, bad, color=FIRST, alpha=0.07, linewidth=0)
    axes.axhspan(-good, good, color=FIRST, alpha=0.10, linewidth=0)
    axes.axhline(0, color=MUTED, linewidth=1)
