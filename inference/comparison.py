"""The outcome of a comparison of runs."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group

# Our limit on the share of rows whose estimate may hang on a few draws, as in the check of k-hat.
DISTRUSTED = 0.05
# Columns that stand in every table; others only where a run has something to say there.
ALWAYS = ("para-\nmeters", "evidence", "to the best")


@dataclass(frozen=True)
class LeaveOneOut:
    """Leave-one-out cross-validation on the rows of a fit, by Pareto-smoothed importance sampling.

    Attributes:
        nats: Expected log predictive density per row, in nats.
        error: Its standard error over rows, in nats.
        parameters: Effective number of parameters of the whole fit.
        distrusted: Share of rows with a Pareto shape above the threshold for so many draws, for
            which the draws with and without the row are too far apart.
    """

    nats: float
    error: float
    parameters: float
    distrusted: float


@dataclass(frozen=True)
class Candidate:
    """One run among those that are compared.

    Attributes:
        name: Of the run.
        nats: Mean log evidence per row, in nats; NaN where it cannot be told.
        error: Its standard error that the draws cause, in nats; the rows are held fixed.
        difference: How far it lies below the best run, in nats per row; 0 for the best.
        difference_error: Standard error of the difference over rows, compared pair by pair: the
            deviation of the differences divided by the square root of their number.
        distrusted: Share of rows whose evidence hangs on a few draws, by Pareto k-hat; NaN with
            fewer than 25 draws.
        parameters: How many numbers the model leaves open: parameters its density depends on, and
            values of latents that all rows share.
        loo: Leave-one-out cross-validation on the rows of the fit; None where there is none.
        without_loo: Why there is none.
        without_evidence: Why there is no evidence, where there is none.
        kl: Mean KL per row of the guide from the prior of the row's own latents, by the draws that
            estimate the evidence, in nats; NaN without such latents.
        active_units: How many dimensions of the code answer to the rows, and of how many, as in
            :func:`ppl_gen.check`; None without a code.
        two_sample: P-value of a permutation test of whether the codes of all rows are draws of the
            prior (:func:`ppl_gen.inference.mmd_test`), times the number of sites; NaN without a
            code, or below 100 rows.
        seconds: That the fit took; NaN if that was not recorded.
    """

    name: str
    nats: float
    error: float
    difference: float
    difference_error: float
    distrusted: float
    parameters: int
    loo: LeaveOneOut | None = None
    without_loo: str = ""
    without_evidence: str = ""
    kl: float = math.nan
    active_units: tuple[int, int] | None = None
    two_sample: float = math.nan
    seconds: float = math.nan

    @property
    def near_best(self) -> bool:
        """Whether the best run lies within two standard errors, so that rows cannot tell."""
        return self.difference == 0 or self.difference + 2 * self.difference_error >= 0


@dataclass(frozen=True)
class Comparison:
    """Runs on the same data, the best first.

    Printing it shows a table; :meth:`to_json` gives the same as data.

    Attributes:
        candidates: The runs, by falling evidence; of equal ones the simpler first, and last those
            that have none.
        data: How many rows they were compared on.
        draws: Draws of the guide a row.
        held_out: Whether the rows are others than those of the fits.
    """

    candidates: tuple[Candidate, ...]
    data: int
    draws: int
    held_out: bool = True

    @property
    def best(self) -> Candidate:
        """The run of highest evidence."""
        return self.candidates[0]

    @property
    def recommended(self) -> Candidate:
        """The simplest of the runs that cannot be told from the best."""
        near = [candidate for candidate in self.candidates if candidate.near_best]
        return min(near, key=lambda candidate: candidate.parameters, default=self.best)

    def __getitem__(self, name: str) -> Candidate:
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise KeyError(f"there is no run {name!r}; there are {[c.name for c in self.candidates]}")

    @property
    def sentences(self) -> list[str]:
        """What the figures say, and how far to believe them."""
        best, recommended = self.best, self.recommended
        said = f"{best.name!r} has the highest evidence, {best.nats:.3f} nats a row"
        near = [repr(c.name) for c in self.candidates[1:] if c.near_best]
        if math.isnan(best.nats):
            found = ["No run has an evidence, so that they cannot be ranked."]
        elif not near:
            found = [f"{said}; no other run comes within two standard errors of it."]
        else:
            lie = "lies" if len(near) == 1 else "lie"
            simplest = (
                f"take it, as none of them is simpler ({best.parameters} parameters)."
                if recommended is best
                else f"take {recommended.name!r}, the simplest of them ({recommended.parameters} "
                "parameters)."
            )
            found = [
                f"{said}; {_listed(near)} {lie} within two standard errors of it, so that these "
                f"rows cannot tell them apart: {simplest}"
            ]
        if not self.held_out:
            found.append(
                "The rows are those of the fit, where a richer story always looks better: compare "
                "on rows that were held out."
            )
        return [*found, *self._doubts()]

    def _doubts(self) -> Iterable[str]:
        for c in self.candidates:
            if c.without_evidence:
                yield (
                    f"{c.name!r} has no evidence, as {c.without_evidence}, and cannot be ranked: "
                    "judge it by its draws."
                )
        for c in self.candidates:
            if c.distrusted > DISTRUSTED:
                yield (
                    f"The evidence of {c.name!r} hangs on a few draws for {c.distrusted:.0%} of "
                    "the rows, as k-hat shows, and may lie higher: mend its guide or take more "
                    "draws."
                )
        for c in self.candidates:
            if c.loo is not None and c.loo.distrusted > 0:
                yield (
                    f"LOO of {c.name!r} is not to be trusted for {c.loo.distrusted:.1%} of the "
                    "rows of its fit, as their Pareto k shows."
                )
        reasons: dict[str, list[str]] = {}
        for c in self.candidates:
            if c.without_loo:
                reasons.setdefault(c.without_loo, []).append(repr(c.name))
        for reason, names in reasons.items():
            these = "" if len(names) == len(self.candidates) else f" to {_listed(names)}"
            yield f"LOO is not applicable{these}: {reason}."

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            title=f"comparison of {len(self.candidates)} runs  ({self.data} rows, {self.draws} "
            "draws each; nats a row)",
            title_justify="left",
            title_style="bold",
        )
        table.add_column("run", overflow="fold")
        columns = {
            heading: cells
            for heading, cells in self._columns().items()
            if any(cells) or heading in ALWAYS
        }
        for heading in columns:
            table.add_column(heading, justify="right", no_wrap=True)
        for c, *cells in zip(self.candidates, *columns.values(), strict=True):
            name = f"[bold]{escape(c.name)}[/]" if c is self.recommended else escape(c.name)
            table.add_row(name, *cells)
        return Group(table, *(escape(sentence) for sentence in self.sentences))

    def _columns(self) -> dict[str, list[str]]:
        """Cells of the table by its headings, which are broken so that it stays narrow."""
        columns: dict[str, list[str]] = {}
        for c in self.candidates:
            difference = "" if c is self.best else _with_error(c.difference, c.difference_error)
            row = {
                "para-\nmeters": str(c.parameters),
                "evidence": _with_error(c.nats, c.error),
                "to the best": difference,
                "high\nk-hat": _shown(c.distrusted, ".0%"),
                "KL": _shown(c.kl, ".2f"),
                "active\nunits": "{} of {}".format(*c.active_units) if c.active_units else "",
                "two-\nsample p": _shown(c.two_sample, ".3f"),
                "LOO": _with_error(c.loo.nats, c.loo.error) if c.loo else "",
                "p_loo": f"{c.loo.parameters:.1f}" if c.loo else "",
                "seconds": _shown(c.seconds, ".1f" if c.seconds < 100 else ".0f"),
            }
            for heading, cell in row.items():
                columns.setdefault(heading, []).append(cell)
        return columns

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(width=110, file=text).print(self)
        return text.getvalue()

    def to_json(self) -> str:
        """The comparison as JSON; figures that there are not are null."""
        plain = {
            "best": self.best.name,
            "recommended": self.recommended.name,
            **asdict(self),
            "sentences": self.sentences,
        }
        return json.dumps(_finite(plain), indent=2) + "\n"


def _listed(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _with_error(value: float, error: float) -> str:
    return f"{value:.3f} ± {error:.3f}" if math.isfinite(error) else _shown(value, ".3f")


def _shown(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
