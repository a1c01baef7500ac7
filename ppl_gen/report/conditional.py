"""What a condition does: observations completed from their seen part, or redrawn under others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ppl_gen.data.labels import UNKNOWN
from ppl_gen.errors import StoryError
from ppl_gen.inference.passes import Completion
from ppl_gen.report import conditional_figures as drawing
from ppl_gen.report.canvas import FIRST, INK, MUTED, SECOND, class_style, legend
from ppl_gen.report.html import Markup, figure, joined, number, tag
from ppl_gen.report.images import Greys, heads, picture
from ppl_gen.report.pictures import NAMED, flat, strip
from ppl_gen.report.view import CLASSES, NotShown, View, kind_of

SHOWN = 10
JUDGED = 64
DRAWS = 40
SINGLE = 6
STYLES = 10
PANELS = 6


@runtime_checkable
class Answers(Protocol):
    """A story with a baseline, which gives one answer where the story gives many."""

    def predict_baseline(self, x: Tensor, condition: Tensor) -> Tensor:
        """The expected observation given the condition alone, ``(N, *shape)``.

        Raises:
            StoryError: If the story was built without a baseline.
        """
        ...


@dataclass(frozen=True)
class Completed:
    """Some data, what was seen of them, and how it was completed.

    Attributes:
        x: The data, ``(N, *shape)``.
        found: Their completions.
        baseline: The single answer of a baseline, ``(N, *shape)``, if there is one.
    """

    x: Tensor
    found: Completion
    baseline: Tensor | None

    @property
    def unseen(self) -> Tensor:
        """Where nothing was seen, ``(N, *shape)``."""
        return ~self.found.seen


def can_complete(view: View) -> bool:
    """Whether the story completes what a mask shows, and there are data to try it on."""
    return view.shown.part is not None and view.masked


def completions(view: View) -> Markup:
    """Completions beside the truth and the single answer of a baseline."""
    unseen = (~view.seen).flatten(1).any(1)
    if not unseen.any():
        raise NotShown("All of the data shown was seen: there is nothing to complete.")
    rows = view.spread_rows(JUDGED, unseen)
    done = _completed(view, rows)
    few = torch.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().long()
    draw = _images if kind_of(view.x) == "image" else _columns
    return draw(view, done, few, rows)


def _completed(view: View, rows: Tensor) -> Completed:
    x, seen, story = view.x[rows], view.seen[rows], view.run.story
    found = view.run.complete(x, seen, draws=DRAWS, seed=view.seed)
    baseline = None
    if isinstance(story, Answers):
        try:
            with view.run.pair.active(), torch.no_grad():
                batch = view.run.batch(view.part[rows])
                baseline = story.predict_baseline(batch[0], batch[1]).cpu()
        except StoryError:
            baseline = None
    moved = Completion(found.draws.cpu(), found.seen.cpu())
    return Completed(x, moved, baseline)


def _images(view: View, done: Completed, few: Tensor, rows: Tensor) -> Markup:
    greys = Greys.of(view.x)
    answers = [] if done.baseline is None else [done.baseline]
    words = ["truth", "seen", *(["baseline"] if answers else []), "mean"]
    apart = (2, 2 + len(answers), 3 + len(answers), 3 + len(answers) + SINGLE)
    words += [*(f"draw {i + 1}" for i in range(SINGLE)), "spread"]
    spread = done.found.spread
    widest = spread[few].max().item()
    # As bright as the data's white where the spread is largest.
    scaled = greys.black + spread * ((greys.white - greys.black) / max(widest, 1e-12))
    cells = [tag("span", ""), heads(words, done.x, apart)]
    for i in few.tolist():
        tiles = [done.x[i], done.x[i], *(a[i] for a in answers), done.found.mean[i]]
        tiles += [*done.found.draws[:SINGLE, i], scaled[i]]
        hatched = torch.zeros(len(tiles), *done.x.shape[1:], dtype=torch.bool)
        hatched[1] = done.unseen[i]
        name = _name(view, int(rows[i]))
        alt = f"{name}: the truth, what was seen of it, and how it is completed"
        images = torch.stack([tile.float() for tile in tiles])
        cells.append(tag("span", name))
        cells.append(picture(images, len(tiles), alt, greys, apart, hatched.float()))
    caption = (
        f"{_how(done)} Spread is the standard deviation of {DRAWS} draws, white at "
        f"{number(widest, 2)}. Good: each draw could be what was hidden and goes on from what was "
        "seen without a seam; draws differ where what was seen leaves it open, and nowhere else. "
        f"{_errors(done)}"
    )
    return figure(tag("div", *cells, class_="strips"), caption)


def _name(view: View, row: int) -> str:
    named = view.labels is not None and view.labels.names is not None
    return view.labels.name(row) if named and view.labels else f"row {view.number(row)}"


def _how(done: Completed) -> str:
    """What stands beside what."""
    answer = (
        ""
        if done.baseline is None
        else "The baseline gives one answer, which has to be a compromise of all that is possible. "
    )
    return (
        "What was not seen of a datum is hatched in blue. "
        f"{answer}Each draw is what the story expects, without the noise of its law, at another "
        f"draw of the code given what was seen; the mean is that of {DRAWS}."
    )


def _errors(done: Completed) -> str:
    """How far answers are from what was hidden."""
    x, unseen = done.x.double(), done.unseen

    def error(guess: Tensor) -> str:
        return number((guess.double() - x).square()[unseen].mean().sqrt().item(), 3)

    seen_by_few = x.masked_fill(~unseen, torch.nan).nanmean(0).nan_to_num().expand_as(x)
    words = f"{error(done.found.mean)} of the mean of draws"
    if done.baseline is not None:
        words += f", {error(done.baseline)} of the baseline"
    single = (done.found.draws.double() - x).square()[:, unseen].mean().sqrt().item()
    return (
        f"Root mean square error of what was hidden, in {len(x)} data: {words}, "
        f"{number(single, 3)} of a single draw, {error(seen_by_few)} if always the mean of the "
        "data were said."
    )


def _columns(view: View, done: Completed, few: Tensor, rows: Tensor) -> Markup:
    """Completions of observations that are columns of numbers."""
    x = view.x.flatten(1).double()
    centre, spread = x.nanmean(0), (x - x.nanmean(0)).square().nanmean(0).sqrt()
    spread = torch.where(spread > 0, spread, 1.0)

    def scaled(values: Tensor) -> Tensor:
        return (values.double() - centre) / spread

    few = few[:PANELS]
    part, name = view.part[rows[few]], view.observation.name
    # With the law's own noise, as each hidden value has it.
    whole = [view.run.sample(len(few), view.seed + i, part)[name].cpu() for i in range(DRAWS)]
    draws = torch.stack(whole, 1).flatten(2)
    panels = [
        drawing.Panel(
            scaled(done.x[i].flatten()).numpy(),
            done.found.seen[i].flatten().numpy(),
            scaled(draws[place]).numpy(),
            None if done.baseline is None else scaled(done.baseline[i].flatten()).numpy(),
        )
        for place, i in enumerate(few.tolist())
    ]
    size = x.shape[1]
    names = view.titles(range(size)) if size <= NAMED else None
    marks = [(INK, "o", "seen"), (FIRST, "D", "hidden truth"), (SECOND, "bar", "completions")]
    if done.baseline is not None:
        marks.append((MUTED, "^", "baseline"))
    titled = "; ".join(f"datum {n + 1}: {_name(view, int(rows[i]))}" for n, i in enumerate(few))
    drawn = drawing.completed(panels, names, f"completions of {len(few)} data")
    caption = (
        f"A panel is a datum, in standard deviations of the data ({titled}). Thin lines "
        f"are {DRAWS} draws of the observation given what was seen of it. Good: hidden values lie "
        f"among the draws, and draws differ where what was seen leaves it open. {_errors(done)}"
    )
    untold = view.untold(range(size)) if names is not None else ""
    return joined([legend(marks), figure(drawn, caption + untold)])


def classes_of(view: View) -> Tensor:
    """The values of a condition that is one of a few whole numbers, ``(C,)``; empty otherwise."""
    part = view.shown.part
    if part is None or not view.told or len(part.stored) < 2:
        return torch.empty(0)
    values = part.sample().stored[1].detach().reshape(-1).double().cpu().unique()
    values = values[values != UNKNOWN]
    whole = values.isfinite().all() and (values == values.round()).all()
    return values if whole and 2 <= len(values) <= CLASSES else torch.empty(0)


def can_redraw(view: View) -> bool:
    """Whether a datum has a code, and beside it a label that can be another."""
    structure = view.run.structure
    numbers = getattr(view.run.story, "indices", ())
    coded = any(site.local and site.name not in numbers for site in structure.latents)
    return coded and structure.takes_batches and len(classes_of(view)) > 0


def redrawn(view: View) -> Markup:
    """The code of a datum under every label: rows are styles, columns are classes."""
    code = view.code.name
    classes = classes_of(view)
    known = view.given.reshape(-1).double() != UNKNOWN
    if not known.any():
        raise NotShown("No label of the data shown is known, so there is no code to redraw.")
    rows = view.spread_rows(STYLES, known)
    asked = classes.reshape(-1, *view.run.data.columns[1][0])
    drawn = view.run.redraw(view.part[rows], asked).cpu()
    if torch.equal(drawn, drawn[:, :1].expand_as(drawn)):
        raise NotShown(f"At the same {code!r} the story expects the same under every label.")
    with_label, with_style = shares(drawn)
    caption = (
        "The code of a datum, decoded under every label; under its own that is its reconstruction. "
        "Good: whatever the row, every column is of its class; along a row the style stays, and "
        "from row to row it differs. Columns that are alike are a label that is not used, rows "
        f"that are alike a code that is not. Of the variance {with_label:.0%} goes with the label, "
        f"{with_style:.0%} with the row, and the rest with both together."
    )
    names = [_class_name(view, int(value)) for value in classes]
    if kind_of(view.x) == "image":
        return figure(_grid(view, rows, drawn, names), caption)
    return _redrawn_columns(view, rows, drawn, names, caption)


def shares(drawn: Tensor) -> tuple[float, float]:
    """Which share of the variance of ``(N, C, *)`` goes with C alone, and which with N alone."""
    table = drawn.double().flatten(2)
    table = table - table.mean((0, 1))
    whole = table.square().sum().clamp(min=1e-300)
    columns = table.mean(0).square().sum() * len(table)
    rows = table.mean(1).square().sum() * table.shape[1]
    return (columns / whole).item(), (rows / whole).item()


def _class_name(view: View, value: int) -> str:
    names = {} if view.labels is None else dict(view.labels.names or {})
    given = view.label_names or view.shown.label_names or ()
    return names.get(value) or (str(given[value]) if 0 <= value < len(given) else str(value))


def _grid(view: View, rows: Tensor, drawn: Tensor, names: list[str]) -> Markup:
    greys, apart = Greys.of(view.x), (1,)
    cells = [tag("span", ""), heads(["datum", *names], view.x, apart)]
    for row, images in zip(rows.tolist(), drawn, strict=True):
        name = _class_name(view, int(view.given[row].item()))
        cells += strip(
            name, "", torch.cat([view.x[row][None].float(), images.float()]), greys, apart
        )
    return tag("div", *cells, class_="strips")


def _redrawn_columns(
    view: View, rows: Tensor, drawn: Tensor, names: list[str], caption: str
) -> Markup:
    """Redrawn observations that are columns of numbers."""
    styles = [class_style(i) for i in range(len(names))]
    if kind_of(view.x) == "plane":
        marks = [(*style, name) for style, name in zip(styles, names, strict=True)]
        table = drawn.flatten(2).double().numpy()
        titles = view.titles([0, 1])
        picture_ = drawing.redrawn_points(
            flat(view.x), table, (titles[0], titles[1]), "codes decoded under every label"
        )
        caption += " A thin line joins what is decoded from one code. Data are grey."
        marks.append((MUTED, "o", "data"))
        return joined([legend(marks), figure(picture_, caption + view.untold([0, 1]))])
    x = view.x.flatten(1).double()
    centre, spread = x.nanmean(0), (x - x.nanmean(0)).square().nanmean(0).sqrt()
    scaled = (drawn.flatten(2).double() - centre) / torch.where(spread > 0, spread, 1.0)
    chosen = rows[torch.linspace(0, len(rows) - 1, min(PANELS, len(rows))).round().long()]
    places = [rows.tolist().index(row) for row in chosen.tolist()]
    titles = [f"row {view.number(row)}" for row in chosen.tolist()]
    size = x.shape[1]
    columns = view.titles(range(size)) if size <= NAMED else None
    panels = [(t, scaled[i].numpy()) for t, i in zip(titles, places, strict=True)]
    picture_ = drawing.redrawn_profiles(panels, columns, "columns of codes under every label")
    marks = [(colour, "line", name) for (colour, _), name in zip(styles, names, strict=True)]
    caption += view.untold(range(size)) if columns is not None else ""
    return joined([legend(marks), figure(picture_, caption)])
