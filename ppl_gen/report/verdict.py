"""The verdict: its findings by question, and in words what fails, warns, passes and is missing."""

from __future__ import annotations

from ppl_gen.inference.verdict import Finding, Status, Verdict, asked
from ppl_gen.report.html import Markup, joined, linked, number, tag
from ppl_gen.report.view import NotShown, View

SIGNS = {"pass": "✓", "warn": "!", "fail": "✕", "skipped": "–"}
HEAD = ("check", "status", "figure", "good is", "source")


def verdict(view: View) -> Markup:
    """Every finding of the last check."""
    found = view.run.verdict
    if found is None:
        raise NotShown(
            "The run has not been checked. Make a verdict with: ppl-gen check RUN, then write the "
            "report again."
        )
    rows = f"{found.data:,} rows" if found.data else "the data of the fit"
    intro = (
        f"Made on {rows} with {found.draws:,} draws each, at level {found.level}: how far to "
        f"believe the posterior. Of {len(found.findings)} checks: {found.counts}."
    )
    first = found.first
    begin = Markup()
    if first is not None and first.remedy:
        begin = tag("p", "Begin with ", tag("b", first.check), ": ", linked(first.remedy))
    words = [
        *(_told("What fails", found, "fail"), _told("What warns", found, "warn")),
        *(_in_short(found), _left_out(found, "skipped"), _left_out(found, "not applicable")),
    ]
    return joined([tag("p", intro), begin, _table(found), *words])


def badge(status: str, words: str = "") -> Markup:
    """A status as a sign, a word and a colour."""
    sign = tag("span", SIGNS.get(status, "–"), aria_hidden="true")
    return tag("span", sign, words or status, class_=f"badge {status}")


def overall(found: Verdict | None) -> Markup:
    """The verdict in one line: what fails and what warns by name, the rest by number."""
    if found is None:
        return tag("p", badge("skipped", "not checked"), class_="verdict")
    named = [
        f"{status}: {', '.join(f.check for f in found.of(status))}"
        for status in ("fail", "warn")
        if found.of(status)
    ]
    rest = Verdict(found.of("pass", "skipped", "not applicable"), found.data, found.draws).counts
    words = "; ".join([*named, *([rest] if rest else [])])
    return tag("p", badge(found.status), tag("span", words), class_="verdict")


def _table(found: Verdict) -> Markup:
    """What was found out, each question with its findings; nothing if nothing was."""
    if not found.answers:
        return Markup()
    groups = []
    for question, findings in found.answers.items():
        heading = tag("th", asked(question), colspan=str(len(HEAD)), scope="rowgroup")
        rows = [tag("tr", heading, class_="question")] if question else []
        groups.append(tag("tbody", *rows, *map(_row, findings)))
    head = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in HEAD)))
    whole = tag("table", head, *groups, class_="findings")
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label="findings")


def _row(found: Finding) -> Markup:
    cells = (
        found.check,
        badge(found.status),
        f"{number(found.figure)} {found.unit}" if found.measured else "–",
        found.threshold or "–",
        linked(found.source) if found.source else "–",
    )
    return tag("tr", *(tag("td", cell) for cell in cells), class_=f"found {found.status}")


def _told(heading: str, found: Verdict, status: Status) -> Markup:
    """What each finding of a status says, and what to do."""
    parts = []
    for one in found.by_cause(status):
        remedy = [tag("p", "→ ", linked(one.remedy))] if one.remedy else []
        parts.append(tag("li", tag("p", tag("b", one.check), ": ", linked(one.meaning)), *remedy))
    if not parts:
        return Markup()
    return joined([tag("h3", heading), tag("ul", *parts, class_=f"told {status}")])


def _in_short(found: Verdict) -> Markup:
    parts = [tag("li", tag("b", f.check), ": ", linked(f.in_short)) for f in found.of("pass")]
    if not parts:
        return Markup()
    return joined([tag("h3", "What passes"), tag("ul", *parts, class_="told short")])


def _left_out(found: Verdict, status: Status) -> Markup:
    """What could not be found out, and why."""
    parts = [
        tag("li", tag("b", ", ".join(names)), ": ", linked(reason))
        for (which, reason), names in found.left_out.items()
        if which == status
    ]
    if not parts:
        return Markup()
    return joined([tag("h3", status.capitalize()), tag("ul", *parts, class_="told left")])
