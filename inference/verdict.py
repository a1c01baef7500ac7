"""The outcome of the checks on a run."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ppl_gen.errors import RunError

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

Status = Literal["pass", "warn", "fail", "skipped", "not applicable"]
WIDTH = 110
_BY_CHANCE = " So few data make as much by chance, and could not tell a fault of that size."
# What shows in all that is looked at after it, the first in what is looked at after that; and what
# says that data and story differ, but not in what.
_CAUSES = ("doctor", "settled", "R-hat", "longer fit", "active units", "mutual information")
_SYMPTOMS = ("LOO-PIT", "generated data")
_MARKS = {"fail": " !!", "warn": "  !"}
_COLOURS = {
    "pass": "green",
    "warn": "yellow",
    "fail": "bold red",
    "skipped": "dim",
    "not applicable": "dim",
}


@dataclass(frozen=True)
class Finding:
    """One check: its figure, how it was judged, and what follows.

    Attributes:
        check: Its name.
        figure: The number that was measured; NaN if it was skipped.
        unit: Of the figure.
        threshold: What a good figure is, in words and numbers.
        status: ``pass``, ``warn``, ``fail``; ``skipped`` where it could not be made, ``not
            applicable`` where the story has nothing of the kind.
        meaning: What the figure says, in one sentence.
        remedy: What to do, in one sentence; empty if nothing.
        source: Where check and threshold come from.
        details: Further figures by name, one a latent dimension or a statistic.
        question: That of the check which it answers; empty if it was asked alone.
        of_story: Whether it names what is wrong with the story, which no guide can make good.
    """

    check: str
    figure: float
    unit: str
    threshold: str
    status: Status
    meaning: str
    remedy: str
    source: str
    details: dict[str, list[float]] = field(default_factory=dict, repr=False)
    question: str = ""
    of_story: bool = False

    @property
    def measured(self) -> str:
        """Its figure and unit, to read; empty if there is none."""
        return "" if math.isnan(self.figure) else f"{self.figure:.4g} {self.unit}".strip()

    @property
    def in_short(self) -> str:
        """The first sentence of its meaning, and that a figure passes by chance if it does."""
        first = re.split(r"(?<=[.!?])\s+(?=[A-Z])", self.meaning)[0]
        return first + (_BY_CHANCE if self.meaning.endswith(_BY_CHANCE) else "")


@dataclass(frozen=True)
class Verdict:
    """All findings on a run, and the data they were made on.

    Printing it shows a table; :meth:`to_json` gives the same as data.

    Attributes:
        findings: In the order of the checks.
        data: How many rows they were made on; 0 where the programs hold their data themselves.
        draws: Draws of the guide a row.
        level: How much was asked for.
        fingerprint: SHA-256 of the rows; None if there are none, or it is not known.
    """

    findings: tuple[Finding, ...]
    data: int
    draws: int
    level: str = "quick"
    fingerprint: str | None = None

    @property
    def status(self) -> Status:
        """The worst status of all findings; what was skipped lets nothing pass unseen."""
        found = {finding.status for finding in self.findings} - {"not applicable"}
        if "fail" in found:
            return "fail"
        return "pass" if found == {"pass"} else "warn"

    def __getitem__(self, check: str) -> Finding:
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(f"there is no check {check!r}; there are {[f.check for f in self.findings]}")

    def of(self, *statuses: Status) -> tuple[Finding, ...]:
        """The findings of some statuses, in their order."""
        return tuple(finding for finding in self.findings if finding.status in statuses)

    def by_cause(self, status: Status) -> tuple[Finding, ...]:
        """The findings of a status, those first that others may follow from.

        What is wrong with the programs shows in everything, and so does a fit that is still under
        way or a code that says nothing. What the story lacks moves its posterior as well, and makes
        it harder to follow: it comes before what is said of the guide.
        """
        return tuple(sorted(self.of(status), key=_place))

    @property
    def first(self) -> Finding | None:
        """The finding to begin with, see :meth:`by_cause`; None if none fails or warns.

        What fails comes before what warns, but for what is wrong with the programs or names what
        the story lacks where others only say that it lacks something. What could not be asked, as
        of a fit too short to judge, is mended before what may follow.
        """
        off = (*self.by_cause("fail"), *self.by_cause("warn"))
        told = [f for f in off if f.of_story]
        programs = [f for f in told if f.check == "doctor"]
        if programs:
            return programs[0]
        unasked = [f for f in self.by_cause("skipped") if f.check in _CAUSES and f.remedy]
        if off and unasked and off[0].check not in _CAUSES:
            return unasked[0]
        if off and told and off[0].check in _SYMPTOMS:
            return told[0]
        return next(iter(off), None)

    @property
    def counts(self) -> str:
        """How many findings have which status, in words, the worst first."""
        order = ("fail", "warn", "pass", "skipped", "not applicable")
        found = ((len(self.of(status)), status) for status in order)
        verbs = {"fail": "fails", "warn": "warns", "pass": "passes"}
        return ", ".join(
            f"{count} {verbs.get(status, status) if count == 1 else status}"
            for count, status in found
            if count
        )

    @property
    def answers(self) -> dict[str, tuple[Finding, ...]]:
        """What was found out, by the question that it answers; without what was skipped."""
        found = dict[str, tuple[Finding, ...]]()
        for finding in self.of("pass", "warn", "fail"):
            found[finding.question] = (*found.get(finding.question, ()), finding)
        return found

    @property
    def left_out(self) -> dict[tuple[Status, str], tuple[str, ...]]:
        """What was not found out: status and reason, and the names of the checks it holds for."""
        found = dict[tuple[Status, str], tuple[str, ...]]()
        for finding in (*self.of("skipped"), *self.of("not applicable")):
            reason = finding.status, f"{finding.meaning} {finding.remedy}".strip()
            found[reason] = (*found.get(reason, ()), finding.check)
        return found

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        from rich.padding import Padding
        from rich.text import Text

        width = min(options.max_width, WIDTH)
        colour = _COLOURS[self.status].removeprefix("bold ")
        yield Text.assemble((f"verdict: {self.status}", f"bold {colour}"), f"  ({self.counts})")
        draws = f", {self.draws:,} draws each" if self.draws > 1 else ""
        data = f"{self.data:,} data" if self.data else "the data of the fit"
        yield Text(f"on {data}{draws}, level {self.level}", "dim")
        if self.status == "warn" and not self.of("warn"):
            yield Text("nothing warns: what was skipped keeps the whole from passing", "dim")
        if self.first is not None and self.first.remedy:
            advice = Text.assemble(("begin with ", "dim"), (self.first.check, "bold"))
            yield Text.assemble(advice, f": {self.first.remedy}")
        yield Text("")
        names = max((len(f.check) for group in self.answers.values() for f in group), default=0)
        for question, findings in self.answers.items():
            if question:
                yield Text(asked(question), "italic")
            yield _rows(findings, names, width)
        blocks: dict[Status, str] = {
            "fail": "What fails",
            "warn": "What warns",
            "pass": "What passes",
        }
        for status, heading in blocks.items():
            if found := self.by_cause(status):
                yield Text(f"\n{heading}", _COLOURS[status])
            for f in found:
                said = f.in_short if status == "pass" else f"{f.meaning} {f.remedy}".strip()
                sentence = Text.assemble((f.check, "" if status == "pass" else "bold"), f": {said}")
                yield Padding(sentence, (0, 0, 0, 2), expand=False)
        for block in ("skipped", "not applicable"):
            reasons = {r: names for (s, r), names in self.left_out.items() if s == block}
            if reasons:
                yield Text(f"\n{block.capitalize()}", "dim")
            for reason, names in reasons.items():
                yield Padding(
                    Text(f"{', '.join(names)}: {reason}", "dim"), (0, 0, 0, 2), expand=False
                )

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(width=WIDTH, file=text).print(self)
        return text.getvalue()

    def to_json(self) -> str:
        """The verdict as JSON; figures that were skipped are null."""
        first = None if self.first is None else self.first.check
        plain: dict[str, Any] = {"status": self.status, "first": first, **asdict(self)}
        for finding in plain["findings"]:
            if not math.isfinite(finding["figure"]):
                finding["figure"] = None
            for name, values in finding["details"].items():
                finding["details"][name] = [v if math.isfinite(v) else None for v in values]
        return json.dumps(plain, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Read what :meth:`to_json` wrote.

        Raises:
            RunError: If it is something else.
        """
        try:
            plain = json.loads(text)
            findings = []
            for item in plain["findings"]:
                details = {n: [_number(v) for v in vs] for n, vs in item["details"].items()}
                figure = _number(item["figure"])
                finding = Finding(**{**item, "figure": figure, "details": details})
                if not all(isinstance(word, str) for word in (finding.check, finding.status)):
                    raise ValueError("a finding must have a name and a status")
                findings.append(finding)
            level = str(plain.get("level", "quick"))
            made_on = int(plain["data"]), int(plain["draws"])
            return cls(tuple(findings), *made_on, level, plain.get("fingerprint"))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"the verdict cannot be read: {error}") from error


def _place(finding: Finding) -> int:
    """How many kinds of findings it may follow from."""
    if finding.check in _CAUSES:
        return _CAUSES.index(finding.check)
    return len(_CAUSES) + (0 if finding.of_story else 2 if finding.check in _SYMPTOMS else 1)


def grade(figure: float, good: float, bad: float) -> Status:
    """``pass`` up to ``good``, ``warn`` up to ``bad``, ``fail`` beyond."""
    return "pass" if figure <= good else "warn" if figure <= bad else "fail"


def worst_of(*statuses: Status) -> Status:
    """The worst of some that pass, warn or fail."""
    return "fail" if "fail" in statuses else "warn" if "warn" in statuses else "pass"


def by_chance(figure: float, good: float) -> str:
    """The sentence on a figure that passes though it is beyond its limit; else nothing."""
    return _BY_CHANCE if figure > good else ""


def asked(question: str) -> str:
    """A question as a sentence."""
    return f"{question[:1].upper()}{question[1:]}?"


def _rows(findings: tuple[Finding, ...], names: int, width: int) -> RenderableType:
    """Findings as rows whose columns stand below those of every other question."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0), width=width)
    for fixed in (3, 4, names):
        table.add_column(width=fixed)
    for _ in ("figure", "good"):
        table.add_column(ratio=1)
    for f in findings:
        colour = _COLOURS[f.status]
        mark, status = Text(_MARKS.get(f.status, ""), colour), Text(f.status, colour)
        name = Text(f.check, "" if f.status == "pass" else colour)
        table.add_row(mark, status, name, Text(f.measured), Text(f.threshold, "dim"))
    return table


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
