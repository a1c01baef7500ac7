"""What a run says of itself: its story and its history."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppl_gen.errors import PplGenError
from ppl_gen.inference.run import Run
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.tracing import trace_nodes
from ppl_gen.report import figures
from ppl_gen.report.canvas import FIRST, SECOND, legend
from ppl_gen.report.html import Markup, figure, joined, number, tag
from ppl_gen.report.verdict import overall
from ppl_gen.report.view import NotShown, View


def story_name(run: Run) -> str:
    """What the story is called: its class, its file, or the names of its two programs."""
    told = run.configuration()
    if "file" in told:
        return Path(str(told["file"])).name
    if isinstance(run.story, tuple | list):
        return " and ".join(map(_program_name, (run.pair.model, run.pair.guide)))
    return str(told.get("class") or told.get("object") or "story").rpartition(".")[2]


def _program_name(program: Any) -> str:
    return getattr(program, "__name__", type(program).__name__)


def header(view: View) -> Markup:
    """Title, badge and facts."""
    run = view.run
    parts = [
        tag("p", "ppl-gen report", class_="kicker"),
        tag("h1", f"{story_name(run)} on {view.shown.name}"),
        overall(run.verdict),
        tag("dl", *(cell for pair in _facts(view) for cell in pair), class_="facts"),
    ]
    return tag("header", *parts)


def _facts(view: View) -> list[tuple[Markup, Markup]]:
    run, settings = view.run, view.run.settings
    told = run.configuration()
    facts = {"story": tag("code", told_as(told) if "class" in told else story_name(run))}
    if run.data.columns:
        shapes = " and ".join(str(shape) for shape, _ in run.data.columns)
        facts["fitted to"] = joined([f"{run.data.rows:,} rows of shape {shapes}"])
    if view.shown.part is not None:
        some = f"{len(view.index):,} of " if len(view.index) < len(view.shown.part) else ""
        which = f", {view.shown.which}" if view.shown.which else ""
        facts["shown here"] = joined([f"{some}{len(view.shown.part):,} rows{which}"])
    if view.shown.remark:
        facts["remark"] = joined([view.shown.remark])
    count, batches = f"{len(run.history)} of {settings.epochs}", f"batches of {settings.batch_size}"
    facts["fit"] = (
        joined([f"{count} iterations of EM at most, {batches}"])
        if settings.method == "em"
        else joined(
            [f"{count} epochs, {settings.optimizer}, learning rate {settings.rate:g}, {batches}"]
        )
    )
    facts["seed"] = joined([f"{settings.seed} (fit), {view.seed} (this report)"])
    facts["versions"] = joined([", ".join(f"{k} {v}" for k, v in run.versions.items())])
    return [(tag("dt", name), tag("dd", value)) for name, value in facts.items()]


def told_as(configuration: Mapping[str, Any]) -> str:
    """A configuration as the call that makes it, without the arguments that were left out."""
    if "class" not in configuration:
        return ", ".join(f"{k} {Path(str(v)).name}" for k, v in configuration.items())
    given = configuration.get("arguments", {}).items()
    arguments = ", ".join(f"{name}={_value(value)}" for name, value in given if value is not None)
    return f"{str(configuration['class']).rpartition('.')[2]}({arguments})"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return told_as(value)
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_value, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def curves(view: View) -> Markup:
    """ELBO, reconstruction and KL, epoch by epoch."""
    run, history = view.run, view.run.history
    panels, climbed = [], run.settings.method == "em"
    first = "log-likelihood" if climbed else "ELBO"
    matched = np.isfinite(history["divergence"]).any()
    kind = run.settings.objective
    unit = "" if kind == "mmd" else ", nats per datum"
    for title, name in (
        (f"{first}, nats per datum", "elbo"),
        ("reconstruction, nats per datum", "reconstruction"),
        ("KL, nats per datum", "kl"),
        (f"divergence{unit}", "divergence"),
    ):
        train = np.array(history[name], dtype=float)
        valid = np.array(history[f"valid_{name}"], dtype=float)
        if np.isfinite(train).any() or np.isfinite(valid).any():
            panels.append((title, train, valid))
    if not panels:
        raise NotShown("The run has no history of finite figures.")
    valid = np.array(history["valid_elbo"], dtype=float)
    watched = np.isfinite(valid).any()
    chosen = run.settings.chooses_by_validation(run.structure.has_codes)
    kept = _kept(valid, run.settings.kl_warmup or 0) if chosen else None
    marks = [(FIRST, "line", "training")]
    if watched:
        marks.append((SECOND, "dashed", "validation"))
    if kept is not None:
        marks.append((SECOND, "o", f"epoch {kept}, whose weights were kept"))
    last = history.epochs[-1]
    if matched:
        valid = np.array(history["valid_reconstruction"], dtype=float)
        marks += [(SECOND, "dashed", "validation")] if np.isfinite(valid).any() else []
        alt = f"reconstruction and divergence over {len(history)} epochs"
        caption = (
            f"At the end: {run.headline}. The prior has draws and no density, or a match was asked "
            "for: this is no ELBO. Good: the divergence stays near 0 while the reconstruction "
            "rises, and validation follows training."
        )
        return joined([legend(marks), figure(figures.curves(panels, None, alt), caption)])
    alt = f"{first}, and what it is made of, over {len(history)} epochs"
    what = (
        "An iteration of EM over all rows never lowers that of training"
        if climbed
        else "The ELBO is reconstruction minus KL, a lower bound on the log evidence"
    )
    caption = (
        f"At the end: training {first} {number(last.elbo)} nats per datum"
        + (f", validation {number(last.valid_elbo)}" if watched else "")
        + f". {what}. Good: it has come to rest, and validation follows training. A validation "
        f"{first} that falls while training rises is overfitting"
    )
    coded = any(site.local for site in run.structure.latents)
    caption += "; a KL near 0 is a code that is not used." if coded else "."
    if added := _counted_in_training(run):
        caption += (
            f" While it is trained the story counts {', '.join(added)} as well, which is in the "
            "training curves and not in those of validation: only their shapes can be compared."
        )
    if len(history) >= figures.MANY:
        caption += " The axes are fitted to the second half: the first epochs may lie outside."
    return joined([legend(marks), figure(figures.curves(panels, kept, alt), caption)])


def _counted_in_training(run: Run) -> list[str]:
    """Observed sites that are there in training mode only, found by trying it out."""
    batch = run.data.blank(2, run.device)
    with run.pair.scratch(), run.pair.evaluating(), seeded(run.settings.seed):
        run.pair.train(True)
        try:
            _, model = trace_nodes(run.pair, batch, run.kwargs)
        except PplGenError:  # a story that takes all its data at once, or none that are blank
            return []
    return [n for n, node in model.items() if node["is_observed"] and n not in run.structure.sites]


def _kept(valid: Any, warmup: int) -> int | None:
    counts = np.isfinite(valid) & (np.arange(1, len(valid) + 1) > warmup)
    return int(np.where(counts, valid, -np.inf).argmax()) + 1 if counts.any() else None
