"""What the story draws, what it makes of single data, and where its codes lead."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ppl_gen.report import figures
from ppl_gen.report.canvas import FIRST, MUTED, SECOND, class_style, legend
from ppl_gen.report.html import Markup, figure, joined, number, tag
from ppl_gen.report.images import Greys, picture
from ppl_gen.report.view import Kind, NotShown, View, kind_of

TILES = 40
COLUMNS = 6
DIMENSIONS = 8
PAIRS = 6
REACH = 2.5
ACTIVE = 0.01


def samples(view: View) -> Markup:
    """Draws of the story beside data."""
    if view.shown.part is None:
        return _samples_alone(view)
    kind = kind_of(view.x)
    size = min(len(view.x), TILES) if kind == "image" else len(view.x)
    (drawn, means), x = view.drawn(size), view.x[:size]
    if view.run.structure.has_globals:
        how = (
            "Each draw is a replicate of one datum: its latents, and those that all data share, "
            "come from the posterior. "
        )
    else:
        how = "Each draw starts from the prior: latents first, then an observation of its law. "
    good = (
        "Good: you could not tell which of the two is real, and neither has a kind the other lacks."
    )
    if kind == "image":
        greys = Greys.of(view.x)
        panels = [_panel("data", x, greys), _panel("drawn from the story", drawn, greys)]
        caption = how + good
        if means is not None:
            panels.append(_panel("the same draws, expected", means, greys))
            caption += (
                " The third panel shows what the law of each draw expects, without its noise: what "
                "the decoder can do, rather than what the story says."
            )
        return figure(tag("div", *panels, class_="panels"), caption)
    if kind == "plane":
        titles = ("data", "drawn from the story")
        clouds = figures.two_clouds(
            _flat(x), _flat(drawn), titles, "data beside draws of the story"
        )
        return figure(clouds, how + good)
    return _tables(x, drawn, how)


def _samples_alone(view: View) -> Markup:
    name = view.observation.name
    drawn = view.run.sample(TILES, view.seed)[name].cpu()
    if view.run.structure.has_globals or kind_of(drawn) != "image":
        raise NotShown(f"{view.shown.remark} Without them there is nothing to compare draws with.")
    return figure(
        picture(drawn, 10, "images drawn from the story", Greys.of(drawn)),
        "Each draw starts from the prior. There are no data to hold them against.",
    )


def _panel(title: str, x: Tensor, greys: Greys) -> Markup:
    return tag("div", tag("h3", title), picture(x, 8, f"{len(x)} images: {title}", greys))


def _tables(x: Tensor, drawn: Tensor, how: str) -> Markup:
    """Observations in columns: a few of them in detail, all by their moments."""
    data, replicas = _flat(x), _flat(drawn)
    columns = telling_columns(x, COLUMNS)
    marks = [(FIRST, "bar", "data"), (SECOND, "bar", "drawn from the story")]
    parts = [legend(marks)]
    if not _two_valued(x) or data.shape[1] <= 2:
        titles = [f"column {c + 1}" for c in columns]
        alt = f"{', '.join(titles)} of the data and of draws, alone and in pairs"
        caption = f"{how}Good: both colours cover the same ground, alone and in pairs."
        few = figures.marginals(data[:, columns], replicas[:, columns], titles, alt)
        parts.append(figure(few, caption))
        how = ""
    if data.shape[1] > 1:
        alt = "means, standard deviations and correlations of all columns, data against draws"
        caption = (
            f"{how}All columns. Good: shifts near 0, ratios near 1, correlations on the line; "
            f"with {len(data)} data, shifts of {2 * (2 / len(data)) ** 0.5:.2f} are chance."
        )
        parts.append(figure(figures.moments(data, replicas, alt), caption))
    return joined(parts if len(parts) > 2 or not _two_valued(x) else parts[1:])


def telling_columns(x: Tensor, count: int) -> list[int]:
    """The first columns that vary; of many with two values, those that vary most."""
    spread = x.flatten(1).double().std(0, correction=0).nan_to_num()
    varied = spread > 0
    if _two_valued(x):
        found = spread.argsort(descending=True, stable=True)[: min(count, int(varied.sum()))]
        return sorted(found.tolist()) or [0]
    return varied.nonzero()[:count, 0].tolist() or [0]


def _two_valued(x: Tensor) -> bool:
    return len(x.unique()) <= 2


def reconstructions(view: View) -> Markup:
    """Data, and what the story expects at their codes."""
    kind, greys = kind_of(view.x), Greys.of(view.x)
    error = _error(view, kind)
    if kind == "image":
        rows = view.spread_rows(32)
        cells: list[Markup] = []
        for some in rows.chunk(2):
            cells += _strip("data", "", view.x[some], greys)
            cells += _strip("expected", "", view.reconstructed[some], greys)
            cells.append(tag("div", class_="wide"))
        caption = (
            "Above the data, below what the story expects at the mean of the code's posterior. "
            "Good: the same thing in the same place, without the noise. A sharp picture of "
            f"something else is a guide that misreads; a blur is a code that is too small. {error}"
        )
        return figure(tag("div", *cells[:-1], class_="strips"), caption)
    x, expected = _flat(view.x), _flat(view.reconstructed)
    if kind == "plane":
        marks = [(FIRST, "o", "data"), (SECOND, "o", "expected at their codes")]
        alt = "data and their reconstructions, joined by lines"
        caption = f"Each line joins a datum to its reconstruction. Good: short lines. {error}"
        return joined([legend(marks), figure(figures.arrows(x, expected, alt), caption)])
    columns = telling_columns(view.x, COLUMNS)
    titles = [f"column {c + 1}" for c in columns]
    drawn = figures.agreement(
        x[:, columns], expected[:, columns], titles, "expected against observed values"
    )
    caption = (
        "A dot is a datum: across what was observed, up what the story expects at its code. Good: "
        f"dots along the line. A flat cloud is a column that the code does not carry. {error}"
    )
    return figure(drawn, caption)


def _error(view: View, kind: Kind) -> str:
    """How far the reconstructions are from the data, and how far their mean would be."""
    x, expected = view.x.flatten(1).double(), view.reconstructed.flatten(1).double()
    squares, spread = (expected - x).square().mean(0), x.var(0, correction=0)
    if kind == "vector":
        ratio = (squares / spread)[spread > 0].mean().sqrt().item()
        return (
            f"The root mean square error is {number(ratio, 3)} standard deviations of a column; "
            "always saying the mean would give 1."
        )
    return (
        f"The root mean square error is {number(squares.mean().sqrt().item(), 3)}; always saying "
        f"the mean would give {number(spread.mean().sqrt().item(), 3)}."
    )


def _strip(
    label: str, remark: str, x: Tensor, greys: Greys, apart: Sequence[int] = ()
) -> list[Markup]:
    head = [label] + ([tag("small", remark)] if remark else [])
    return [tag("span", *head), picture(x, len(x), f"{label}: {len(x)} images", greys, apart)]


def traversals(view: View) -> Markup:
    """What changes in the observation when one dimension of the code does."""
    codes, drawn = view.codes, view.drawn_codes
    activity = codes.var(0, correction=0)
    chosen = activity.argsort(descending=True, stable=True)[:DIMENSIONS].tolist()
    centre, spread = drawn.mean(0), drawn.std(0, correction=0)
    kind = kind_of(view.x)
    steps = torch.linspace(-REACH, REACH, 11 if kind == "image" else 9, dtype=torch.float64)
    walks = centre.repeat(len(chosen), len(steps), 1)
    for walk, dimension in zip(walks, chosen, strict=True):
        walk[:, dimension] += steps * spread[dimension]
    nearest = (codes - centre).square().sum(1).argmin()
    decoded = view.decoded(walks.flatten(0, 1), nearest.expand(walks[..., 0].numel()))
    decoded = decoded.reshape(len(chosen), len(steps), *decoded.shape[1:])
    variances = [activity[dimension].item() for dimension in chosen]
    remarks = [f"variance {v:.2g}" + ("" if v > ACTIVE else ", idle") for v in variances]
    names = [f"dimension {dimension + 1}" for dimension in chosen]
    caption = (
        f"From the mean code, one dimension at a time from {REACH} standard deviations below to "
        f"{REACH} above, most active first (of {codes.shape[1]}). Good: each dimension changes one "
        "thing, smoothly. A dimension whose posterior means hardly vary (variance up to "
        f"{ACTIVE}) is idle: nothing happens along it."
    )
    if kind == "image":
        greys = Greys.of(view.x)
        cells: list[Markup] = []
        for name, remark, images in zip(names, remarks, decoded, strict=True):
            cells += _strip(name, remark, images, greys)
        ends = [tag("span", words) for words in (f"−{REACH} sd", "mean code", f"+{REACH} sd")]
        cells += [tag("span", ""), tag("div", *ends, class_="scale")]
        return figure(tag("div", *cells, class_="strips"), caption)
    titles = [f"{name}, {remark}" for name, remark in zip(names, remarks, strict=True)]
    if kind == "plane":
        return _paths(view, "traversals", titles, decoded, caption)
    return _profiles(view, "traversals", titles, decoded, steps, caption)


def interpolations(view: View) -> Markup:
    """The straight way from one datum's code to another's."""
    starts, ends = _pairs(view)
    steps = torch.linspace(0, 1, 8, dtype=torch.float64)[:, None]
    first, last = view.codes[starts], view.codes[ends]
    walks = torch.stack([a + steps * (b - a) for a, b in zip(first, last, strict=True)])
    decoded = view.decoded(walks.flatten(0, 1), starts.repeat_interleave(len(steps)))
    decoded = decoded.reshape(len(starts), len(steps), *decoded.shape[1:])
    kind = kind_of(view.x)
    names = [f"pair {i + 1}" for i in range(len(starts))]
    between = names
    if view.labels is not None:
        ways = zip(starts.tolist(), ends.tolist(), strict=True)
        between = [f"{view.labels.name(a)} → {view.labels.name(b)}" for a, b in ways]
    caption = (
        "Eight equal steps on the line between two codes, decoded. Good: every step could be a "
        "datum, and none jumps."
    )
    if kind == "image":
        greys, cells = Greys.of(view.x), []
        for i, (a, b) in enumerate(zip(starts, ends, strict=True)):
            row = torch.stack([view.x[a].float(), *decoded[i].float(), view.x[b].float()])
            cells += _strip(between[i], "", row, greys, apart=(1, 1 + len(steps)))
        caption += (
            " Two pictures that fade into each other mean a way that leaves the data. The "
            "outermost images are the data themselves."
        )
        return figure(tag("div", *cells, class_="strips"), caption)
    if kind == "plane":
        return _paths(view, "interpolations", between, decoded, caption)
    if view.labels is not None:
        listed = "; ".join(f"{name}: {way}" for name, way in zip(names, between, strict=True))
        caption += f" {listed[0].upper()}{listed[1:]}."
    return _profiles(view, "interpolations", names, decoded, steps[:, 0], caption)


def _pairs(view: View) -> tuple[Tensor, Tensor]:
    """Rows to go between: unequal labels where there are labels."""
    rows = view.spread_rows(2 * PAIRS)
    half = len(rows) // 2
    if not half:
        raise NotShown("It takes two data to go from one to the other.")
    starts, ends = rows[:half], rows[half : 2 * half]
    if view.labels is not None:
        differ = view.labels.values[starts] != view.labels.values[ends]
        if differ.any():
            return starts[differ], ends[differ]
    return starts, ends


def _paths(view: View, what: str, words: Sequence[str], decoded: Tensor, caption: str) -> Markup:
    """Walks through the codes, where an observation is a point of the plane."""
    walks = [(str(i + 1), _flat(walk)) for i, walk in enumerate(decoded)]
    drawn = figures.paths(_flat(view.x), walks, f"decoded points of {what}, over the data")
    marks = [(class_style(i)[0], "line", f"{i + 1}: {word}") for i, word in enumerate(words)]
    caption += " The number stands at the end of the way."
    return joined([legend([*marks, (MUTED, "o", "data")]), figure(drawn, caption)])


def _profiles(
    view: View, what: str, titles: Sequence[str], decoded: Tensor, steps: Tensor, caption: str
) -> Markup:
    """Walks through the codes, where an observation has columns."""
    x = view.x.flatten(1).double()
    centre, spread = x.mean(0), x.std(0, correction=0)
    up = "in sd of the data"
    shown = (spread > 0).nonzero()[:, 0]
    shown = shown[torch.linspace(0, len(shown) - 1, min(len(shown), 200)).round().long()]
    if not len(shown):
        raise NotShown("No column of the data varies.")
    if _two_valued(x):
        centre, spread, up = torch.zeros_like(centre), torch.ones_like(spread), "expected value"
    scaled = ((decoded.flatten(2).double() - centre) / spread)[..., shown]
    across, columns = "column", (shown + 1).numpy()
    if x.shape[1] == 1:
        scaled, across, columns = scaled.transpose(1, 2), "way along the code", steps.numpy()
    panels = [(title, walk.numpy()) for title, walk in zip(titles, scaled, strict=True)]
    alt = f"decoded columns of {what}"
    if x.shape[1] > 1:
        caption += " Dark lines come first, bright ones last."
    return figure(figures.profiles(panels, columns, across, up, alt), caption)


def _flat(x: Tensor) -> figures.Array:
    return x.flatten(1).double().numpy()
