"""What a mixture says: its components, their weights, and which datum is of which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ppl_gen.data.labels import UNKNOWN
from ppl_gen.report import mixture_figures as drawing
from ppl_gen.report.canvas import INK, MUTED, class_style, legend
from ppl_gen.report.figures import Array
from ppl_gen.report.html import Markup, figure, joined, number, table, tag
from ppl_gen.report.mixture_figures import SMALL, Scene
from ppl_gen.report.planes import Mixed, Principal, full_covariances
from ppl_gen.report.view import NotShown, View

DRAWS = 1000
COLUMNS = 8
LISTED = 30
DOUBTFUL = 0.9
WORST = 12
TOLD = 5


@runtime_checkable
class Mixture(Protocol):
    """A story whose observations come from one of K components, each with an ellipse.

    A latent site ``weights``, if there is one, tells how sure the weights are. Components are
    normal unless the story has ``df``, degrees of freedom ``(K,)``, which is not None.
    """

    @property
    def weights(self) -> Tensor:
        """Probabilities of the components, ``(K,)``."""
        ...

    @property
    def means(self) -> Tensor:
        """Their centres, ``(K, D)``."""
        ...

    @property
    def covariances(self) -> Tensor:
        """Covariances or scale matrices: of the forms of :func:`.planes.full_covariances`."""
        ...

    def predict_proba(self, x: Tensor) -> Tensor:
        """The probability of each component, ``(N, K)``."""
        ...

    def score_samples(self, x: Tensor) -> Tensor:
        """The log-density of each observation, in nats, ``(N,)``."""
        ...


def is_mixture(view: View) -> bool:
    """Whether the story is one of components."""
    return isinstance(view.run.story, Mixture)


@dataclass(frozen=True)
class Fitted:
    """A mixture at the centre of its posterior, and what it makes of the data shown.

    Attributes:
        x: Data, ``(N, D)``, NaN where a value is missing.
        mixed: The components; their weights, means and covariances.
        shares: Probability of each component for each datum, ``(N, K)``.
        elliptic: Whether the density is that of the ellipses, as it is found to be at the data.
    """

    x: Array
    mixed: Mixed
    shares: Array
    elliptic: bool

    @property
    def chosen(self) -> np.ndarray:
        """The likeliest component of each datum, ``(N,)``."""
        return self.shares.argmax(1)

    @property
    def complete(self) -> np.ndarray:
        """Which rows have no value missing, ``(N,)``."""
        return np.asarray(np.isfinite(self.x).all(1))


def fitted(view: View) -> Fitted:
    """What the story says of its components and of the data shown.

    Raises:
        NotShown: If its figures are not finite, or of no shape that is known.
    """
    story = view.run.story
    rows = view.x.flatten(1)
    with view.run.pair.active(), torch.no_grad():
        weights, means, given = (
            np.asarray(v.detach().cpu(), dtype=float)
            for v in (story.weights, story.means, story.covariances)
        )
        df = getattr(story, "df", None)
        shares = _numbers(story.predict_proba(rows.to(view.run.device)))
    components, features = means.shape
    mixed = Mixed(
        weights,
        means,
        full_covariances(given, components, features),
        None if df is None else _numbers(torch.as_tensor(df)).reshape(components),
    )
    if not all(np.isfinite(v).all() for v in (weights, means, given, shares)):
        raise NotShown("The components are not finite: fit again from another start.")
    x = _numbers(rows)
    some = np.flatnonzero(np.isfinite(x).all(1))[:50]
    exact = _log_density(view, x[some])
    agrees = np.allclose(mixed.log_density(x[some]), exact, rtol=1e-3, atol=1e-3)
    return Fitted(x, mixed, shares, bool(agrees))


def _numbers(values: Tensor) -> Array:
    return values.detach().cpu().double().numpy()


def _log_density(view: View, points: Array) -> Array:
    """The story's own log-density of points ``(N, D)``."""
    with view.run.pair.active(), torch.no_grad():
        x = torch.as_tensor(points, dtype=torch.float64, device=view.run.device)
        return _numbers(view.run.story.score_samples(x))


def components(view: View) -> Markup:
    """Where the components lie among the data."""
    found = fitted(view)
    size = found.x.shape[1]
    kept = np.flatnonzero(found.mixed.weights >= SMALL)
    marks = [(*class_style(int(k)), f"component {k}") for k in kept]
    alt = f"data and {len(kept)} components"
    if size == 1:
        picture = drawing.line(found.x[:, 0], found.mixed, view.titles([0])[0], alt)
        marks = [(colour, "line", words) for colour, _, words in marks]
        marks = [(MUTED, "bar", "data"), (INK, "line", "density"), *marks]
        caption = (
            "The density that was fitted over a histogram of the data, and the part that each "
            "component has in it. Good: the histogram follows the density, and no component stands "
            "where there are no data."
        )
        return joined([legend(marks), figure(picture, caption + view.untold([0])), _facts(view)])
    scenes, how = _scenes(view, found)
    caption = (
        "A mark is a datum in the colour of the component that is most probable for it. Ellipses "
        f"{_radii(found)}, around the number of their component, as the story's predict gives it. "
        f"{how}Good: each ellipse holds a cloud of its own colour, the shade is dark where data "
        "are many, and no ellipse is a needle through a few of them."
    )
    small = np.flatnonzero(found.mixed.weights < SMALL)
    if len(small):
        names = ", ".join(map(str, small))
        caption += f" Not drawn, as their weight is below {SMALL}: {names}."
    return joined([legend(marks), figure(drawing.planes(scenes, alt), caption), _facts(view)])


def _radii(found: Fitted) -> str:
    if not found.elliptic:
        return "are drawn at 1 and 2 roots of the covariances that the story gives"
    if found.mixed.df is None:
        return "are drawn at 1 and 2 standard deviations"
    return "are drawn at 1 and 2 scales of the Student-t law"


def _scenes(view: View, found: Fitted) -> tuple[list[Scene], str]:
    """The planes to look at, and what is to be known of them."""
    size, chosen = found.x.shape[1], found.chosen
    shade = "The shade grows in steps where the densest 98, 90, 75, 50, 25 and 10 % of the law lie"
    if size == 2:
        titles = view.titles([0, 1])
        exact = partial(_log_density, view)
        scene = Scene(found.x, chosen, found.mixed, (titles[0], titles[1]), exact)
        return [scene], f"{shade}. {view.untold([0, 1]).strip()} ".replace("  ", " ")
    best = sorted(telling_columns(found.mixed, 3))
    scenes = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        pair = [best[i], best[j]]
        titles = view.titles(pair)
        side = found.mixed.columns(pair)
        scenes.append(_scene(found, found.x[:, pair], chosen, side, (titles[0], titles[1])))
    how = f"Of {size} columns these tell the components apart best. " if size > 3 else ""
    rows = found.complete
    if rows.sum() > 2:
        plane = Principal.of(found.x[rows])
        points = (found.x[rows] - plane.origin) @ plane.directions
        side = found.mixed.along(plane.directions, plane.origin)
        names = ("first principal component", "second principal component")
        scenes.append(_scene(found, points, chosen[rows], side, names))
        how += (
            f"The last plane holds {plane.share:.0%} of the variance of all columns, each in units "
            "of its standard deviation; ellipses and density are projected, which is exact. "
        )
    if found.elliptic:
        how += f"{shade}, seen from this side. "
    return scenes, f"{how}{view.untold(best).strip()} ".replace("  ", " ")


def _scene(
    found: Fitted, points: Array, chosen: np.ndarray, side: Mixed, titles: tuple[str, str]
) -> Scene:
    return Scene(points, chosen, side, titles, side.log_density if found.elliptic else None)


def telling_columns(mixed: Mixed, count: int) -> list[int]:
    """The columns that tell the components apart best, best first."""
    return np.argsort(-mixed.separation, kind="stable")[:count].tolist()


def _facts(view: View) -> Markup:
    """Weight, rows, means and deviations of each component."""
    found = fitted(view)
    mixed, size = found.mixed, found.x.shape[1]
    columns = sorted(telling_columns(mixed, COLUMNS))
    draws = weight_draws(view)
    ends = None if draws is None else np.quantile(draws, [0.03, 0.97], axis=0)
    rows = np.bincount(found.chosen, minlength=len(mixed.weights))
    spread = np.sqrt(np.diagonal(mixed.covariances, axis1=1, axis2=2))
    head = ["component", "weight" + ("" if ends is None else " (94 % interval)"), "rows"]
    head += [view.column_names[c] for c in columns]
    body = []
    for k in np.argsort(-mixed.weights, kind="stable")[:LISTED]:
        weight = number(float(mixed.weights[k]), 3)
        if ends is not None:
            low, high = ends[:, k].tolist()
            weight += f" ({number(low, 3)} to {number(high, 3)})"
        cells = [f"{number(mixed.means[k, c])} ± {number(spread[k, c], 2)}" for c in columns]
        body.append([str(k), weight, str(rows[k]), *cells])
    what = "scale" if mixed.df is not None else "standard deviation"
    note = (
        f"Rows: of the {len(found.x)} shown here, those for which the component is most probable. "
        f"Columns: mean ± {what}, in {_units(view)}"
        + (f", the {len(columns)} of {size} in which components differ most." if size > COLUMNS
           else ".")
    )  # fmt: skip
    return joined([table(head, body, "numbers"), tag("p", note, class_="note")])


def _units(view: View) -> str:
    if (view.run.data.source or {}).get("standardise"):
        return "standard deviations from the mean of the training part: data were standardised"
    return "the units of the data"


def weight_draws(view: View) -> Array | None:
    """Draws of the posterior of the weights, ``(S, K)``; None if each is a single value."""
    site = next((s for s in view.run.structure.latents if s.name == "weights"), None)
    components = len(view.run.story.weights)
    if site is None or site.point or site.local or site.event_shape != (components,):
        return None
    # As the guide numbers the components: so does the story at the centre, which stands beside.
    options = {"groups": ("posterior",), "align": False, "seed": view.seed}
    tree = view.run.posterior(view.some(1), DRAWS, **options)
    return np.asarray(tree["posterior"]["weights"], dtype=float).reshape(DRAWS, components)


def weights(view: View) -> Markup:
    """How large the components are, and how sure that is."""
    found = fitted(view)
    order = np.argsort(-found.mixed.weights, kind="stable")[:LISTED]
    numbers = [int(k) for k in order]
    draws = weight_draws(view)
    ends = None if draws is None else np.quantile(draws, [0.03, 0.25, 0.75, 0.97], axis=0)[:, order]
    centres = found.mixed.weights[order]
    shares = found.shares.mean(0)[order]
    drawn = drawing.weights(numbers, centres, ends, shares, f"weights of {len(order)} components")
    if draws is None:
        how = "A mark is the weight of a component: the fit gives single values, so no intervals. "
    else:
        how = (
            "A mark is the weight of a component, the thick line its 50 % interval and the thin "
            f"one its 94 % interval, of {DRAWS:,} draws of the posterior. "
        )
    chance = float(np.sqrt((centres * (1 - centres)).max() / len(found.x)))
    caption = (
        f"{how}An upright stroke is the share of the {len(found.x)} data shown that the component "
        f"explains. Good: strokes near the marks; with so many data, {number(2 * chance, 2)} apart "
        "is chance. A weight near 0 is a component that is not needed."
    )
    return figure(drawn, caption)


def responsibilities(view: View) -> Markup:
    """Which datum is of which component, and where that is in doubt."""
    found = fitted(view)
    largest, chosen = found.shares.max(1), found.chosen
    numbers = [int(k) for k in np.argsort(-found.mixed.weights, kind="stable")[:LISTED]]
    place = np.argsort(np.argsort(-found.mixed.weights, kind="stable"))
    order = np.lexsort((-largest, place[chosen]))
    alt = f"probabilities of {len(numbers)} components for {len(chosen)} data"
    drawn = drawing.responsibilities(found.shares[order][:, numbers], numbers, alt)
    doubtful = int((largest < DOUBTFUL).sum())
    caption = (
        "Each datum is a column, full colour where a component is certain to have made it; above, "
        f"the largest of its probabilities. For {doubtful} of {len(chosen)} data "
        f"({doubtful / len(chosen):.0%}) it is below {DOUBTFUL}. Good: few, and at the ends of the "
        "blocks; blocks that share their rows throughout are components that lie on each other."
    )
    parts = [figure(drawn, caption), _agreement(view, chosen), _doubtful(view, found, largest)]
    return joined(parts)


def _agreement(view: View, chosen: np.ndarray) -> Markup:
    """Classes against components, where the data have classes."""
    labels = view.labels
    if labels is None or labels.names is None:
        return Markup()
    values = labels.values.numpy().astype(int)
    known = values != UNKNOWN
    if not known.any():
        return Markup()
    from sklearn.metrics import adjusted_rand_score

    rand = adjusted_rand_score(values[known], chosen[known])
    counts, classes, used = cross_table(values[known], chosen[known])
    head = ["class", *(f"component {k}" for k in used)]
    rows = zip(classes, counts, strict=True)
    body = [[labels.names[value], *map(str, line)] for value, line in rows]
    note = (
        f"The adjusted Rand index is {number(rand, 3)}: 1 if classes and components are the same "
        "up to their names, 0 on average for random ones. The story never saw the classes, and may "
        "divide the data in another way that is as true. Source: Hubert and Arabie (1985)."
    )
    title = tag("h3", "Classes and components")
    return joined([title, table(head, body, "numbers"), tag("p", note, class_="note")])


def cross_table(
    classes: np.ndarray, components: np.ndarray
) -> tuple[np.ndarray, list[int], list[int]]:
    """How many rows are of each class and each component, and the classes and components met."""
    rows, row = np.unique(classes, return_inverse=True)
    columns, column = np.unique(components, return_inverse=True)
    counts = np.zeros((len(rows), len(columns)), dtype=int)
    np.add.at(counts, (row, column), 1)
    return counts, rows.tolist(), columns.tolist()


def _doubtful(view: View, found: Fitted, largest: np.ndarray) -> Markup:
    """The data whose component is least certain."""
    head = tag("h3", "The most doubtful data")
    rows = [int(row) for row in largest.argsort(kind="stable")[:WORST] if largest[row] < DOUBTFUL]
    if not rows:
        words = f"No datum is in doubt: all largest probabilities are {DOUBTFUL} or more."
        return joined([head, tag("p", words, class_="note")])
    columns = sorted(telling_columns(found.mixed, TOLD))
    titles = ["row", *(["label"] if view.labels else []), "component", "or"]
    titles += [view.column_names[c] for c in columns]
    body = []
    for row in rows:
        best = np.argsort(-found.shares[row], kind="stable")[:2]
        body.append(
            [
                *(str(view.number(row)), *([view.labels.name(row)] if view.labels else [])),
                *_ways(found.shares[row], best),
                *(_value(found.x[row, c]) for c in columns),
            ]
        )
    return joined([head, table(titles, body, "numbers")])


def _ways(shares: Array, best: np.ndarray) -> Sequence[str]:
    told = [f"{k} ({shares[k]:.0%})" for k in best]
    return [*told, *["–"] * (2 - len(told))]


def _value(value: float) -> str:
    return "missing" if np.isnan(value) else number(value)
