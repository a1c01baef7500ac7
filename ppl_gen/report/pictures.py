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
NAMED = 8
REACH = 2.5
ACTIVE = 0.01


def samples(view: View) -> Markup:
    """Draws of the story beside data."""
    if view.shown.part is None:
        return _samples_alone(view)
    kind = kind_of(view.x)
    size = min(len(view.x), TILES) if kind == "image" else len(view.x)
    (drawn, means), x = view.drawn(size), view.x[:size]
    how = _how(view)
    if kind != "image" and x.is_floating_point() and x.isnan().any():
        drawn = drawn.masked_fill(x.isnan(), torch.nan)
        how += "Where a value of a datum is missing, it is left out of the draw beside it, too. "
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
        clouds = figures.two_clouds(flat(x), flat(drawn), titles, "data beside draws of the story")
        return figure(clouds, how + good)
    return _tables(view, x, drawn, how)


def _how(view: View) -> str:
    """How draws come about that stand beside data."""
    if not view.run.structure.has_globals:
        how = "Each draw starts from the prior: latents first, then an observation of its law. "
    elif all(site.point for site in view.run.structure.latents):
        how = "Each draw is a new observation under the values that were fitted. "
    else:
        how = (
            "Each draw is a replicate of one datum: its latents, and those that all data share, "
            "come from the posterior. "
        )
    if view.masked:
        return f"{how}Each is given what is seen of the datum at the same place, and keeps it. "
    if view.conditioned:
        return f"{how}Each is given the condition of the datum at the same place. "
    return how


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


def _tables(view: View, x: Tensor, drawn: Tensor, how: str) -> Markup:
    """Observations in columns: a few of them in detail, all by their moments."""
    data, replicas = flat(x), flat(drawn)
    columns = telling_columns(x, COLUMNS)
    marks = [(FIRST, "bar", "data"), (SECOND, "bar", "drawn from the story")]
    parts = [legend(marks)]
    if not _two_valued(x) or data.shape[1] <= 2:
        titles = view.titles(columns)
        alt = f"{', '.join(titles)} of the data and of draws, alone and in pairs"
        caption = f"{how}Good: both colours cover the same ground, alone and in pairs."
        caption += view.untold(columns)
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
    spread = _spread(x)
    varied = spread > 0
    if _two_valued(x):
        found = spread.argsort(descending=True, stable=True)[: min(count, int(varied.sum()))]
        return sorted(found.tolist()) or [0]
    return varied.nonzero()[:count, 0].tolist() or [0]


def _two_valued(x: Tensor) -> bool:
    return len(x[~x.isnan()].unique()) <= 2


def _spread(x: Tensor) -> Tensor:
    """Standard deviation of every column, of what is not missing; 0 where all of it is."""
    x = x.flatten(1).double()
    return (x - x.nanmean(0)).square().nanmean(0).sqrt().nan_to_num()


def reconstructions(view: View) -> Markup:
    """Data, and what the story expects at their codes."""
    kind, greys = kind_of(view.x), Greys.of(view.x)
    error = _error(view, kind)
    if kind == "image":
        rows = view.spread_rows(32)
        cells: list[Markup] = []
        for some in rows.chunk(2):
            cells += strip("data", "", view.x[some], greys)
            cells += strip("expected", "", view.reconstructed[some], greys)
            cells.append(tag("div", class_="wide"))
        caption = (
            "Above the data, below what the story expects at the mean of the code's posterior. "
            "Good: the same thing in the same place, without the noise. A sharp picture of "
            f"something else is a guide that misreads; a blur is a code that is too small. {error}"
        )
        return figure(tag("div", *cells[:-1], class_="strips"), caption)
    x, expected = flat(view.x), flat(view.reconstructed)
    if kind == "plane":
        marks = [(FIRST, "o", "data"), (SECOND, "o", "expected at their codes")]
        alt = "data and their reconstructions, joined by lines"
        caption = f"Each line joins a datum to its reconstruction. Good: short lines. {error}"
        return joined([legend(marks), figure(figures.arrows(x, expected, alt), caption)])
    columns = telling_columns(view.x, COLUMNS)
    titles = view.titles(columns)
    drawn = figures.agreement(
        x[:, columns], expected[:, columns], titles, "expected against observed values"
    )
    caption = (
        "A dot is a datum: across what was observed, up what the story expects at its code. Good: "
        f"dots along the line. A flat cloud is a column that the code does not carry. {error}"
    )
    return figure(drawn, caption + view.untold(columns))


def _error(view: View, kind: Kind) -> str:
    """How far the reconstructions are from the data, and how far their mean would be."""
    x, expected, of = view.x.flatten(1).double(), view.reconstructed.flatten(1).double(), ""
    if view.masked:
        x, of = x.masked_fill(view.seen.flatten(1), torch.nan), " of what is unseen"
    squares, spread = (expected - x).square().nanmean(0), _spread(x).square()
    if kind == "vector":
        ratio = (squares / spread)[spread > 0].nanmean().sqrt().item()
        return (
            f"The root mean square error{of} is {number(ratio, 3)} standard deviations of a "
            "column; always saying the mean would give 1."
        )
    error, always = (v[squares.isfinite()].mean().sqrt().item() for v in (squares, spread))
    return (
        f"The root mean square error{of} is {number(error, 3)}; always saying the mean would give "
        f"{number(always, 3)}."
    )


def strip(
    label: str, remark: str, x: Tensor, greys: Greys, apart: Sequence[int] = ()
) -> list[Markup]:
    """A row of images with what they are called before it: two cells of a grid."""
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
    if view.conditioned or view.told:
        caption += " All is given the condition of the datum nearest to the mean code."
    if kind == "image":
        greys = Greys.of(view.x)
        cells: list[Markup] = []
        for name, remark, images in zip(names, remarks, decoded, strict=True):
            cells += strip(name, remark, images, greys)
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
    if view.conditioned or view.told:
        caption += " Each way keeps the condition of its first datum."
    if kind == "image":
        greys, cells = Greys.of(view.x), []
        for i, (a, b) in enumerate(zip(starts, ends, strict=True)):
            row = torch.stack([view.x[a].float(), *decoded[i].float(), view.x[b].float()])
            cells += strip(between[i], "", row, greys, apart=(1, 1 + len(steps)))
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
    """Rows to go between: unequal labels where there are labels, unless those are given."""
    if view.told and view.labels is not None and view.labels.names is not None:
        return _pairs_within(view.labels.values)
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


def _pairs_within(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Two rows of each of a few labels, spread over those that occur twice."""
    values, counts = labels.unique(return_counts=True)
    twice = values[counts > 1]
    if not len(twice):
        raise NotShown("No two data have the same condition, so there is no way between them.")
    few = twice[torch.linspace(0, len(twice) - 1, min(len(twice), PAIRS)).round().long()]
    rows = torch.stack([(labels == label).nonzero()[:2, 0] for label in few])
    return rows[:, 0], rows[:, 1]


def _paths(view: View, what: str, words: Sequence[str], decoded: Tensor, caption: str) -> Markup:
    """Walks through the codes, where an observation is a point of the plane."""
    walks = [(str(i + 1), flat(walk)) for i, walk in enumerate(decoded)]
    drawn = figures.paths(flat(view.x), walks, f"decoded points of {what}, over the data")
    marks = [(class_style(i)[0], "line", f"{i + 1}: {word}") for i, word in enumerate(words)]
    caption += " The number stands at the end of the way."
    return joined([legend([*marks, (MUTED, "o", "data")]), figure(drawn, caption)])


def _profiles(
    view: View, what: str, titles: Sequence[str], decoded: Tensor, steps: Tensor, caption: str
) -> Markup:
    """Walks through the codes, where an observation has columns."""
    x = view.x.flatten(1).double()
    centre, spread = x.nanmean(0), _spread(x)
    up = "in sd of the data"
    shown = (spread > 0).nonzero()[:, 0]
    shown = shown[torch.linspace(0, len(shown) - 1, min(len(shown), 200)).round().long()]
    if not len(shown):
        raise NotShown("No column of the data varies.")
    if _two_valued(x):
        centre, spread, up = torch.zeros_like(centre), torch.ones_like(spread), "expected value"
    scaled = ((decoded.flatten(2).double() - centre) / spread)[..., shown]
    across, columns = "column", (shown + 1).numpy()
    names = view.titles(shown.tolist()) if 1 < len(shown) <= NAMED else None
    if x.shape[1] == 1:
        scaled, across, columns = scaled.transpose(1, 2), "way along the code", steps.numpy()
    panels = [(title, walk.numpy()) for title, walk in zip(titles, scaled, strict=True)]
    alt = f"decoded columns of {what}"
    if x.shape[1] > 1:
        caption += " Dark lines come first, bright ones last."
    if names is not None:
        caption += view.untold(shown.tolist())
    return figure(figures.profiles(panels, columns, across, up, alt, names), caption)


def flat(x: Tensor) -> figures.Array:
    """Observations as rows of a table."""
    return x.flatten(1).double().numpy()
