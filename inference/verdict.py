"""The outcome of the checks on a run."""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ppl_gen.errors import RunError

if TYPE_CHECKING:
    from rich.console import Group

Status = Literal["pass", "warn", "fail", "skipped", "not applicable"]
_COLOURS = {
    "pass": "green",
    "warn": "yellow",
    "fail": "red",
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
    """

    check: str
    figure: float
    unit: str
    threshold: str
    status: Status
    meaning: str
    remedy: str
    source: str
    details: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """All findings on a run, and the data they were made on.

    Printing it shows a table; :meth:`to_json` gives the same as data.
    """

    findings: tuple[Finding, ...]
    data: int
    draws: int
    level: str = "quick"

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

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        skipped = sum(finding.status == "skipped" for finding in self.findings)
        rest = f", {skipped} check{'s' * (skipped > 1)} skipped" if skipped else ""
        table = Table(
            title=f"verdict: {self.status}  ({self.data} data, {self.draws} draws each{rest})",
            title_justify="left",
            title_style=f"bold {_COLOURS[self.status]}",
        )
        for name in ("check", "figure", "good", "status"):
            table.add_column(name)
        lines = []
        for f in self.findings:
            figure = "" if math.isnan(f.figure) else f"{f.figure:.4g} {f.unit}"
            status = f"[{_COLOURS[f.status]}]{f.status}[/]"
            table.add_row(escape(f.check), escape(figure), escape(f.threshold), status)
            lines.append(f"[bold]{escape(f.check)}[/]: {escape(f'{f.meaning} {f.remedy}'.strip())}")
        return Group(table, *lines)

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(width=110, file=text).print(self)
        return text.getvalue()

    def to_json(self) -> str:
        """The verdict as JSON; figures that were skipped are null."""
        plain: dict[str, Any] = {"status": self.status, **asdict(self)}
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
                findings.append(Finding(**{**item, "figure": figure, "details": details}))
            level = str(plain.get("level", "quick"))
            return cls(tuple(findings), int(plain["data"]), int(plain["draws"]), level)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"the verdict cannot be read: {error}") from error


def grade(figure: float, good: float, bad: float) -> Status:
    """``pass`` up to ``good``, ``warn`` up to ``bad``, ``fail`` beyond."""
    return "pass" if figure <= good else "warn" if figure <= bad else "fail"


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
