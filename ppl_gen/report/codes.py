"""The plane of codes: where the data lie in it, and where the guide is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ppl_gen.inference.estimators import Evidence, khat_threshold
from ppl_gen.report import figures
from ppl_gen.report.canvas import BAD, FIRST, class_style, legend
from ppl_gen.report.html import Markup, figure, joined, number, table, tag
from ppl_gen.report.images import Greys, picture
from ppl_gen.report.view import NotShown, View, kind_of

JUDGED = 200
DRAWS = 200
WORST = 12
PRIOR_DRAWS = 1500


@dataclass(frozen=True)
class Plane:
    """Codes brought into the plane.

    Attributes:
        points: Shape ``(N, 2)``.
        axes: What the axes are.
        how: How the points came about, in a sentence.
        prior: Draws of the prior in the same plane, ``(M, 2)``, where the code itself is one.
    """

    points: figures.Array
    axes: tuple[str, str]
    how: str
    prior: figures.Array | None = None


def plane_of(view: View) -> Plane:
    """The codes themselves if they have two dimensions, else their principal components."""
    codes = view.codes
    size = codes.shape[1]
    if size == 2:
        prior, how = prior_of(view), "The code has two dimensions."
        if prior is not None:
            how += " The small grey dots behind are draws of the prior."
        return Plane(codes.numpy(), ("code 1", "code 2"), how, prior)
    if size == 1:
        # Multiples of the golden ratio spread evenly, and the same way every time.
        height = (torch.arange(len(codes), dtype=torch.float64) * 0.6180339887) % 1
        if view.labels is None:
            how = "The code has one dimension; the height only spreads the dots."
            return Plane(torch.stack([codes[:, 0], height], 1).numpy(), ("code", ""), how)
        height = view.labels.values + (0 if view.labels.names is None else 0.5 * (height - 0.5))
        points = torch.stack([codes[:, 0], height], 1).numpy()
        return Plane(
            points, ("code", "label"), "The code has one dimension; the height is the label."
        )
    if len(codes) < 3 or not codes.var(0).any():
        raise NotShown("The codes of these data do not vary, so they span no plane.")
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full")
    points = pca.fit_transform(codes.numpy())
    share = pca.explained_variance_ratio_.sum()
    how = (
        f"The code has {size} dimensions; shown are its first two principal components, which hold "
        f"{share:.0%} of the variance of the posterior means, so what overlaps here may be apart."
    )
    return Plane(points, ("first component", "second component"), how)


def prior_of(view: View) -> figures.Array | None:
    """Draws of the code's prior, ``(M, 2)``; None where it depends on what is given with a row."""
    if len(view.run.data.columns) != 1 or view.run.structure.has_globals:
        return None
    drawn = view.run.sample(PRIOR_DRAWS, view.seed).get(view.code.name)
    return None if drawn is None else drawn.reshape(PRIOR_DRAWS, -1).double().cpu().numpy()


def codes(view: View) -> Markup:
    """Codes in the plane, coloured by label."""
    plane, labels = plane_of(view), view.labels
    alt = f"posterior means of {len(plane.points)} codes in the plane"
    how = f"A dot is the mean of a datum's posterior. {plane.how}"
    if labels is None:
        drawn = figures.labelled(plane.points, plane.axes, None, False, alt, plane.prior)
        caption = f"{how} Good: no holes and no far outliers where the prior has none."
        return figure(drawn, caption)
    values = labels.values.numpy()
    named = labels.names is not None
    drawn = figures.labelled(plane.points, plane.axes, values, named, alt, plane.prior)
    if labels.names is None:
        caption = f"{how} Good: the colour changes smoothly from place to place."
        return figure(drawn, caption)
    marks = []
    for position, value in enumerate(labels.values.unique().tolist()):
        colour, marker = class_style(position)
        name, number_ = labels.names[int(value)], str(int(value))
        marks.append((colour, marker, name if name == number_ else f"{number_}: {name}"))
    caption = f"{how} The number stands at the median of its class. "
    if view.told:
        caption += (
            "Labels are given to the story, so that a code need not tell them. Good, if the prior "
            "is the same for all: labels lie mixed, and a code is what they leave open."
        )
    else:
        caption += "Good: equal labels lie together, although the story never saw one."
    return joined([legend(marks), figure(drawn, caption)])


def khat(view: View) -> Markup:
    """Where the guide misses the posterior, datum by datum."""
    points = [s.name for s in view.run.structure.latents if s.local and s.point]
    if points:
        raise NotShown(f"The guide gives one value of {points[0]!r} and no posterior to weigh.")
    if view.run.structure.unscored:
        raise NotShown(f"There are no densities to weigh: {view.run.structure.unscored}.")
    plane = plane_of(view)
    found = view.run.evidence(view.some(JUDGED), draws=DRAWS, seed=view.seed)
    threshold, rows = khat_threshold(DRAWS), len(found.khat)
    over = int((found.khat > threshold).sum())
    exact = int(found.khat.isneginf().sum())
    alt = f"k-hat of {rows} data over the plane of codes, and its histogram; {over} above threshold"
    drawn = figures.khat_map(
        plane.points[:rows], plane.axes, found.khat.nan_to_num(nan=1.5).numpy(), threshold, alt
    )
    caption = (
        f"For {over} of {rows} data ({over / rows:.0%}) k-hat is above {threshold:.2f}, the limit "
        f"at {DRAWS} draws: there the guide misses so much of the posterior that reweighing its "
        "draws does not help. Good: few triangles, and not all in one place; a nest of them is a "
        "kind of datum whose latents should not be believed. The verdict, made with more draws, is "
        "the one to go by. Figures beyond -0.5 and 1.5 are drawn there. "
        "Source: Vehtari et al. 2024."
    )
    if exact:
        caption += f" For {exact} all weights are equal, as for an exact guide."
    marks = [(FIRST, "bar", "within the limit"), (BAD, "^", "above it")]
    return joined([legend(marks), figure(drawn, caption), _worst(view, found)])


def _worst(view: View, found: Evidence) -> Markup:
    """The data with the largest k-hat."""
    order = found.khat.nan_to_num(nan=torch.inf).argsort(descending=True, stable=True)
    rows = [int(row) for row in order[:WORST] if not found.khat[row].isneginf()]
    judged = [
        Judged(row, str(view.number(row)), found.khat[row].item(), found.ess[row].item())
        for row in rows
    ]
    return worst(view, judged, found.draws)


@dataclass(frozen=True)
class Judged:
    """A datum and how far its posterior is to be trusted.

    Attributes:
        place: Among the rows that are shown.
        name: Its number, in words.
        khat: Pareto shape of its weights.
        ess: Its effective draws.
    """

    place: int
    name: str
    khat: float
    ess: float


def worst(view: View, judged: Sequence[Judged], draws: int) -> Markup:
    """The data with the largest k-hat, as pictures or as rows of a table."""
    if not judged:
        return Markup()
    head = tag("h3", "The data with the largest k-hat")
    if kind_of(view.x) == "image":
        greys = Greys.of(view.x)
        thumbs = [
            figure(
                picture(view.x[[one.place]], 1, f"row {one.name}", greys),
                joined(_described(view, one), Markup("<br>")),
            )
            for one in judged
        ]
        return joined([head, tag("div", *thumbs, class_="thumbs")])
    columns = view.x.flatten(1).shape[1]
    titles = ["row", *(["label"] if view.labels else []), "k-hat", "effective draws"]
    titles += [*view.column_names[:5], *(["…"] if columns > 5 else [])]
    body = [
        [
            *(one.name, *([view.labels.name(one.place)] if view.labels else [])),
            *(number(one.khat, 3), f"{one.ess:.0f} of {draws:,}"),
            *(number(value, 3) for value in view.x[one.place].flatten()[:5].tolist()),
            *([""] if columns > 5 else []),
        ]
        for one in judged
    ]
    return joined([head, table(titles, body, "numbers")])


def _described(view: View, one: Judged) -> list[str]:
    label = [f"label {view.labels.name(one.place)}"] if view.labels else []
    return [f"row {one.name}", *label, f"k-hat {one.khat:.2f}"]
