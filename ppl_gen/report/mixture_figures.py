"""The figures of mixtures: ellipses over data, densities, weights and responsibilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ppl_gen.report.canvas import FIRST, INK, MUTED, canvas, class_style, svg, without_frame
from ppl_gen.report.figures import Array, dots, tab
from ppl_gen.report.html import Markup
from ppl_gen.report.planes import Mixed, levels, outline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = 90
SHARES = [0.1, 0.25, 0.5, 0.75, 0.9, 0.98]
SMALL = 1e-3  # a component of less weight is not drawn


@dataclass(frozen=True)
class Scene:
    """Data and components in a plane.

    Attributes:
        points: Data, ``(N, 2)``, NaN where a value is missing.
        chosen: The likeliest component of each, ``(N,)``.
        mixed: The components in that plane.
        titles: Of both axes.
        log_density: Of points of the plane, ``(M, 2)``; None if it is not known there.
    """

    points: Array
    chosen: NDArray[np.int64]
    mixed: Mixed
    titles: tuple[str, str]
    log_density: Callable[[Array], Array] | None


def planes(scenes: Sequence[Scene], alt: str) -> Markup:
    """Data, ellipses and density, two planes beside each other."""
    width = min(2, len(scenes))
    rows = -(-len(scenes) // width)
    with canvas(10, 6.2 if width == 1 else 4.3 * rows) as figure:
        grid = figure.subplots(rows, width, squeeze=False)
        for axes in grid.flat[len(scenes) :]:
            axes.remove()
        for axes, scene in zip(grid.flat, scenes, strict=False):
            _plane(axes, scene)
        return svg(figure, alt)


def _plane(axes: Axes, scene: Scene) -> None:
    low, high = window(scene.points, scene.mixed)
    if scene.log_density is not None:
        _shaded(axes, scene.log_density, low, high)
    mixed = scene.mixed
    for k in np.unique(scene.chosen):
        colour, marker = class_style(int(k))
        dots(axes, scene.points[scene.chosen == k], colour, 4, marker, 0.65)
    drawn = np.flatnonzero(mixed.weights >= SMALL)
    for k in drawn:
        colour, _ = class_style(int(k))
        for radius, width in ((1, 1.8), (2, 1.1)):
            edge = outline(mixed.means[k], mixed.covariances[k], radius)
            axes.plot(*edge.T, color=colour, linewidth=width)
    for k in drawn:
        if (mixed.means[k] > low).all() and (mixed.means[k] < high).all():
            tab(axes, mixed.means[k], str(k), class_style(int(k))[0])
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_xlabel(scene.titles[0])
    axes.set_ylabel(scene.titles[1])
    axes.grid(False)
    without_frame(axes)


def _shaded(axes: Axes, log_density: Callable[[Array], Array], low: Array, high: Array) -> None:
    x, y = (np.linspace(low[i], high[i], GRID) for i in (0, 1))
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    found = log_density(points).reshape(GRID, GRID)
    for level in levels(found, SHARES):
        if level < found.max():
            axes.contourf(x, y, found, [level, found.max() + 1], colors=[MUTED], alpha=0.08)


def window(points: Array, mixed: Mixed) -> tuple[Array, Array]:
    """Corners that hold the data, and of the ellipses what lies within reach of them.

    Args:
        points: Data, ``(N, D)``, NaN where a value is missing.
        mixed: Components of the same D.
    """
    spread = 2 * np.sqrt(np.diagonal(mixed.covariances, axis1=1, axis2=2))
    drawn = mixed.weights >= SMALL
    edges = (mixed.means - spread)[drawn].min(0), (mixed.means + spread)[drawn].max(0)
    held = np.isfinite(points)
    known = held.any(0)  # a column may be missing altogether
    low = np.where(known, np.where(held, points, np.inf).min(0), edges[0])
    high = np.where(known, np.where(held, points, -np.inf).max(0), edges[1])
    reach = 0.3 * np.where(high > low, high - low, 1.0)
    low = np.minimum(low, np.maximum(edges[0], low - reach)) - 0.1 * reach
    return low, np.maximum(high, np.minimum(edges[1], high + reach)) + 0.1 * reach


def line(points: Array, mixed: Mixed, title: str, alt: str) -> Markup:
    """Data in one dimension ``(N,)`` as a histogram, under the density and its components."""
    points = points[np.isfinite(points)]
    low, high = window(points[:, None], mixed)
    x = np.linspace(low[0], high[0], 400)
    joint = np.exp(mixed.log_joint(x[:, None]))
    with canvas(10, 4.2) as figure:
        axes = figure.subplots()
        if len(points):
            axes.hist(points, bins=40, density=True, color=MUTED, alpha=0.3)
        axes.plot(x, joint.sum(1), color=INK, linewidth=2)
        for k in np.flatnonzero(mixed.weights >= SMALL):
            colour, _ = class_style(int(k))
            axes.fill_between(x, joint[:, k], color=colour, alpha=0.18, linewidth=0)
            axes.plot(x, joint[:, k], color=colour, linewidth=1.6)
            top = int(joint[:, k].argmax())
            tab(axes, np.array([x[top], joint[top, k]]), str(k), colour)
        axes.set_xlabel(title)
        axes.set_ylabel("density")
        axes.set_ylim(bottom=0)
        axes.grid(False)
        without_frame(axes)
        return svg(figure, alt)


def weights(
    numbers: Sequence[int], centres: Array, intervals: Array | None, shares: Array, alt: str
) -> Markup:
    """Weights with their uncertainty, a line for each component.

    Args:
        numbers: Numbers of the components, ``K`` of them, from the top.
        centres: Their weights, ``(K,)``.
        intervals: Ends of the 94 % and, inside, of the 50 % interval, ``(4, K)``, if there are any.
        shares: Of the data that each explains, ``(K,)``.
        alt: What the figure shows.
    """
    with canvas(10, 0.75 + 0.34 * len(numbers)) as figure:
        axes = figure.subplots()
        for height, k in enumerate(numbers):
            colour, marker = class_style(k)
            if intervals is not None:
                ends = intervals[:, height]
                axes.plot(ends[[0, 3]], [height] * 2, color=colour, linewidth=1.6)
                axes.plot(ends[[1, 2]], [height] * 2, color=colour, linewidth=5)
            style = {"markersize": 8.5, "markeredgecolor": INK, "markeredgewidth": 0.8}
            axes.plot(centres[height], height, marker, color=colour, **style)
            axes.plot(shares[height], height, "|", color=INK, markersize=15, markeredgewidth=1.6)
        axes.set_yticks(range(len(numbers)), [str(k) for k in numbers])
        axes.set_ylim(len(numbers) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("weight")
        axes.set_ylabel("component")
        without_frame(axes)
        return svg(figure, alt)


def responsibilities(shown: Array, numbers: Sequence[int], alt: str) -> Markup:
    """Probabilities of the components as a map, in the colours of the components.

    Args:
        shown: Probabilities, ``(N, K)``, rows in the order in which they are drawn.
        numbers: Numbers of the components, ``K`` of them, from the top.
        alt: What the figure shows.
    """
    from matplotlib.colors import to_rgba

    colours = np.array([to_rgba(class_style(k)[0]) for k in numbers])
    image = np.repeat(colours[:, None], len(shown), 1)
    image[..., 3] = shown.T
    largest = shown.max(1)
    with canvas(10, 1.9 + 0.3 * len(numbers)) as figure:
        ratios = (1.1, 0.3 * len(numbers) + 0.1)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
        across = np.arange(len(shown))
        upper.fill_between(across, largest, step="mid", color=FIRST, alpha=0.3, linewidth=0)
        upper.plot(across, largest, color=FIRST, linewidth=1.2, drawstyle="steps-mid")
        upper.axhline(0.9, color=MUTED, linewidth=1, dashes=(4, 2))
        upper.set_ylim(0, 1.03)
        upper.set_ylabel("largest")
        lower.imshow(image, aspect="auto", interpolation="nearest")
        lower.set_yticks(range(len(numbers)), [str(k) for k in numbers])
        lower.set_xlim(-0.5, len(shown) - 0.5)
        lower.xaxis.get_major_locator().set_params(integer=True)
        lower.set_xlabel("rows, by component and certainty")
        lower.set_ylabel("component")
        lower.grid(False)
        for axes in (upper, lower):
            without_frame(axes)
        return svg(figure, alt)
