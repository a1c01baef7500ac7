"""The page of a sweep: what was tried, what came of it, and what it depends on."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.inference.files import write_file
from ppl_gen.inference.sweep import Tried, best_of
from ppl_gen.report.canvas import (
    FIRST,
    MUTED,
    SECOND,
    canvas,
    drawable,
    legend,
    svg,
    without_frame,
)
from ppl_gen.report.document import document
from ppl_gen.report.figures import late_limits
from ppl_gen.report.html import Markup, figure, joined, number, table, tag

PAGE = "sweep.html"
WORDS = {
    "complete": "complete",
    "pruned": "given up",
    "failed": "failed",
    "running": "under way",
}
# Panels of options in a row, and how many trials are listed.
ACROSS, LISTED = 3, 200


def write_sweep(folder: Path, story: str, names: Sequence[str], trials: Sequence[Tried]) -> Path:
    """Write the page of a sweep.

    Args:
        folder: Of the sweep.
        story: What was fitted: a name, or a file.
        names: What was searched.
        trials: All of them.

    Raises:
        RunError: If it cannot be written.
    """
    path = folder / PAGE
    write_file(path, page(story, names, trials).encode())
    return path


def page(story: str, names: Sequence[str], trials: Sequence[Tried]) -> str:
    """The page as HTML."""
    best = best_of(trials)
    title = f"A sweep of {Path(story).name}"
    told = {
        "searched": tag("code", ", ".join(names)),
        "trials": joined([counted(trials)]),
    }
    if best is not None:
        told["best"] = joined(
            [
                f"trial {best.number}, validation ELBO {number(best.elbo)} nats per datum: ",
                tag("code", ", ".join(f"{k}={_cell(v)}" for k, v in best.values.items())),
            ]
        )
    facts = (cell for k, v in told.items() for cell in (tag("dt", k), tag("dd", v)))
    header = tag(
        "header",
        tag("p", "ppl-gen sweep", class_="kicker"),
        tag("h1", title),
        tag("dl", *facts, class_="facts"),
    )
    sections: list[tuple[str, Markup]] = []
    done = [t for t in trials if t.done]
    if done:
        sections.append(("How the search went", _course(trials)))
        sections.append(("What it depends on", _options(names, trials)))
    if any(t.told for t in trials):
        sections.append(("The fits on their way", _curves(trials)))
    sections.append(("All trials", _table(names, trials)))
    return document(title, header, sections)


def counted(trials: Sequence[Tried]) -> str:
    """How many trials are how far."""
    counts = ((sum(t.state == state for t in trials), word) for state, word in WORDS.items())
    return ", ".join(f"{count} {word}" for count, word in counts if count)


def table_of(trials: Sequence[Tried], names: Sequence[str]) -> str:
    """The trials as CSV, one a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "validation_elbo", "seconds", *names, "error"])
    for t in trials:
        figures = ["" if math.isnan(v) else v for v in (t.elbo, t.seconds)]
        values = [t.values.get(name, "") for name in names]
        writer.writerow([t.number, t.state, *figures, *values, t.error])
    return text.getvalue()


def _course(trials: Sequence[Tried]) -> Markup:
    done = [t for t in trials if t.done]
    at = np.array([t.number for t in done])
    elbo = np.array([t.elbo for t in done])
    with canvas(10, 3.0) as drawn:
        axes = drawn.subplots()
        axes.plot(at, elbo, "o", color=FIRST, markersize=5)
        axes.step(at, np.maximum.accumulate(elbo), color=SECOND, where="post", linewidth=1.6)
        given_up = [t.number for t in trials if t.state == "pruned"]
        _limit(axes, elbo)
        low, _ = axes.get_ylim()
        axes.plot(given_up, np.full(len(given_up), low), "|", color=MUTED, markersize=14)
        axes.set_xlabel("trial")
        axes.locator_params(axis="x", integer=True)
        axes.set_title("validation ELBO, nats per datum")
        without_frame(axes)
        picture = svg(drawn, f"validation ELBO of {len(done)} trials, and the best so far")
    key = legend(
        [
            (FIRST, "o", "a trial"),
            (SECOND, "line", "the best so far"),
            *([(MUTED, "line", "given up, at the lower edge")] if given_up else []),
        ]
    )
    best = int(elbo.argmax())
    since = len(trials) - 1 - at[best]
    caption = (
        f"The best is trial {at[best]}, {since} before the last. Where it still rises at the end, "
        "more trials are worth their time: ppl-gen sweep --resume, with more --trials."
    )
    return joined([key, figure(picture, caption)])


def _limit(axes: Any, elbo: Sequence[float] | NDArray[np.float64]) -> None:
    """Show the better half of some ELBOs large."""
    limits = late_limits([np.sort(elbo)])
    if limits is not None:
        axes.set_ylim(*limits)


def _options(names: Sequence[str], trials: Sequence[Tried]) -> Markup:
    done = [t for t in trials if t.done]
    rows = -(-len(names) // ACROSS)
    with canvas(10, 2.7 * rows) as drawn:
        panels = list(drawn.subplots(rows, ACROSS, squeeze=False, sharey=True).flat)
        for name, axes in zip(names, panels, strict=False):
            _against(axes, [(t.values[name], t.elbo) for t in done if name in t.values])
            _limit(axes, [t.elbo for t in done])
            axes.set_title(name if drawable(name) else "option")
            without_frame(axes)
        for axes in panels[len(names) :]:
            axes.set_visible(False)
        picture = svg(drawn, f"validation ELBO by {len(names)} options")
    caption = (
        "Validation ELBO, nats per datum, by each option; the other options differ as well. An "
        "option whose best values lie at an end of its range deserves a wider one."
    )
    return figure(picture, caption)


def _against(axes: Any, found: Sequence[tuple[Any, float]]) -> None:
    """ELBOs by the values of an option: numbers on an axis, words one beside the other."""
    values, elbo = [v for v, _ in found], [e for _, e in found]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numbers:
        axes.plot(values, elbo, "o", color=FIRST, markersize=4.5)
        axes.locator_params(axis="x", integer=all(isinstance(v, int) for v in values))
        if min(values) > 0 and max(values) / min(values) >= 10:
            axes.set_xscale("log")
        return
    kinds = sorted(set(map(str, values)))
    axes.plot([kinds.index(str(v)) for v in values], elbo, "o", color=FIRST, markersize=4.5)
    axes.set_xlim(-0.6, len(kinds) - 0.4)
    longest = 60 // len(kinds)
    shown = [k if drawable(k, longest) else f"value {i}" for i, k in enumerate(kinds, 1)]
    axes.set_xticks(range(len(kinds)), shown)
    axes.grid(False, axis="x")


def _curves(trials: Sequence[Tried]) -> Markup:
    told = [t for t in trials if t.told]
    with canvas(10, 3.2) as drawn:
        axes = drawn.subplots()
        for t in told:
            colour = FIRST if t.state == "complete" else MUTED
            axes.plot(list(t.told), list(t.told.values()), color=colour, linewidth=1.2, alpha=0.7)
        best = best_of(told)
        if best is not None:
            axes.plot(list(best.told), list(best.told.values()), color=SECOND, linewidth=2.2)
        _limit(axes, [v for t in told for v in t.told.values()])
        axes.set_xlabel("share of the fit, percent")
        axes.set_title("validation ELBO, nats per datum")
        without_frame(axes)
        picture = svg(drawn, f"validation ELBO of {len(told)} fits on their way")
    key = legend(
        [(FIRST, "line", "complete"), (SECOND, "line", "the best"), (MUTED, "line", "given up")]
    )
    caption = (
        "A fit below the median of those before, at the same share of its way, is given up. These "
        "are the figures of every epoch; a trial is judged by the weights that it kept, of the "
        "best one where each datum has latents of its own."
    )
    return joined([key, figure(picture, caption)])


def _table(names: Sequence[str], trials: Sequence[Tried]) -> Markup:
    order = sorted(trials, key=lambda t: (-t.elbo if t.done else math.inf, t.number))
    rows = [
        (
            str(t.number),
            number(t.elbo) if t.done else WORDS[t.state],
            f"{t.seconds:.1f} s" if math.isfinite(t.seconds) else "–",
            *(_cell(t.values.get(name, "")) for name in names),
        )
        for t in order[:LISTED]
    ]
    whole = table(("trial", "validation ELBO", "took", *names), rows, "numbers")
    more = len(order) - LISTED
    said = [tag("p", f"{more:,} more are in trials.csv.", class_="note")] if more > 0 else []
    wrong = [tag("li", tag("b", f"trial {t.number}"), ": ", t.error) for t in trials if t.error]
    failed = [tag("h3", "What failed"), tag("ul", *wrong[:20], class_="told fail")] if wrong else []
    return joined([whole, *said, *failed])


def _cell(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)
