"""The outcome of a comparison of engines."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from ppl_gen.inference.comparison import DISTRUSTED, _finite, _listed, _shown, _with_error

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class Latent:
    """What an engine found of one coordinate of a latent, such as ``z[3]``.

    Everything is in free coordinates: where a latent is constrained, those of Pyro's bijection.

    Attributes:
        mean: Of the posterior of each row, or one of what all rows share.
        deviation: Standard deviations beside them; zero for a point.
        shift: How far the mean lies from the reference's, in standard deviations of the reference,
            averaged over rows: positive if too high. NaN without a reference.
        stretch: Factor on the deviation, by the mean of its logarithm; NaN for a point.
        wasserstein: Distance of order 1 from the reference, in its standard deviations, averaged
            over rows, less what two samples of one law would show; NaN for a point.
    """

    mean: list[float]
    deviation: list[float]
    shift: float = math.nan
    stretch: float = math.nan
    wasserstein: float = math.nan


@dataclass(frozen=True)
class Engine:
    """One engine, and what it made of the story.

    Attributes:
        name: As it was asked for.
        seconds: Wall time of its fit, or of its chains.
        rows: How many rows these seconds are for.
        log_likelihood: Of the observations given the latents, averaged over its posterior, in nats
            per datum; of ``em`` that at its point.
        elbo: In nats per datum; NaN for points and chains, which have none.
        elbo_error: Its standard error, which the draws cause.
        evidence: Importance-weighted with its draws, or annealed (``hmc``), in nats per datum; NaN
            for points and for ``nuts``.
        evidence_error: Its standard error, which the draws cause.
        distrusted: Share of the rows (of all data together, where latents are shared: 0 or 1)
            whose evidence hangs on a few draws, by Pareto k-hat.
        point: Whether it gives a single value of some latent, and no posterior.
        rhat: The largest rank-normalised split R-hat of its chains; NaN without chains.
        latents: What it found of each coordinate.
        before: Seconds that fitting the parameters of the model took, which it was given.
        reason: Why it was not run; empty if it was.
        unbounded: Why it has no bounds, where others have; empty otherwise.
        apart: Why it has no distance, where others have; empty otherwise.
    """

    name: str
    seconds: float = math.nan
    rows: int = 0
    log_likelihood: float = math.nan
    elbo: float = math.nan
    elbo_error: float = math.nan
    evidence: float = math.nan
    evidence_error: float = math.nan
    distrusted: float = math.nan
    point: bool = False
    rhat: float = math.nan
    latents: dict[str, Latent] = field(default_factory=dict)
    before: float = 0.0
    reason: str = ""
    unbounded: str = ""
    apart: str = ""

    @property
    def distance(self) -> float:
        """Mean over latents of the distance from the reference, in posterior deviations."""
        found = [v.wasserstein for v in self.latents.values() if not math.isnan(v.wasserstein)]
        return sum(found) / len(found) if found else math.nan

    @property
    def farthest(self) -> tuple[str, float]:
        """The latent with the largest distance, and that distance; NaN if there is none."""
        return self._most("wasserstein", lambda value: value)

    @property
    def shift(self) -> tuple[str, float]:
        """The latent whose mean is furthest off, and by how many posterior deviations."""
        return self._most("shift", abs)

    @property
    def stretch(self) -> tuple[str, float]:
        """The latent whose deviation is furthest off, and by which factor."""
        return self._most("stretch", lambda value: abs(math.log(value)))

    def _most(self, figure: str, size: Callable[[float], float]) -> tuple[str, float]:
        values = {name: getattr(latent, figure) for name, latent in self.latents.items()}
        known = {name: value for name, value in values.items() if not math.isnan(value)}
        if not known:
            return "", math.nan
        name = max(known, key=lambda n: size(known[n]))
        return name, known[name]


@dataclass(frozen=True)
class EngineComparison:
    """One story fitted by several engines, in the order in which they were asked for.

    Printing it shows a table; :meth:`to_json` gives the same as data.

    Attributes:
        engines: What each found.
        reference: The engine that the others are held against; empty if there is none.
        reference_error: The largest standard error of the reference's means, in posterior
            deviations: distances below it say nothing.
        data: How many rows there are.
        rows: How many of them latents of single rows were compared on; 0 without such latents.
        draws: Draws of each posterior.
        trusted: Whether the reference's chains have come to rest.
        doubts: What is to be said of the reference, in sentences.
    """

    engines: tuple[Engine, ...]
    reference: str
    reference_error: float
    data: int
    rows: int
    draws: int
    trusted: bool
    doubts: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Engine:
        for engine in self.engines:
            if engine.name == name:
                return engine
        raise KeyError(f"there is no engine {name!r}; there are {[e.name for e in self.engines]}")

    @property
    def nearest(self) -> Engine | None:
        """The posterior nearest to the reference, itself aside; None if it cannot be told."""
        if not self.trusted:
            return None
        others = [e for e in self.engines if e.name != self.reference]
        known = [e for e in others if not math.isnan(e.distance)]
        return min(known, key=lambda e: e.distance, default=None)

    @property
    def fastest(self) -> Engine | None:
        """The engine that took the least time, all in all; None if none was run."""
        run = (e for e in self.engines if not e.reason)
        return min(run, key=lambda e: e.seconds + e.before, default=None)

    @property
    def sentences(self) -> list[str]:
        """What the figures say, and how far to believe them."""
        return [*self._found(), *self.doubts, *self._notes()]

    def _found(self) -> Iterable[str]:
        if (near := self.nearest) is not None:
            name, most = near.farthest
            yield (
                f"{near.name!r} is nearest to {self.reference}: {near.distance:.2f} posterior "
                f"deviations away on average, {most:.2f} at most ({name})."
            )
        if (fast := self.fastest) is not None and len(self.engines) > 1:
            yield f"{fast.name!r} is fastest: {fast.seconds + fast.before:.1f} s."

    def _notes(self) -> Iterable[str]:
        run = [e for e in self.engines if not e.reason]
        if points := [repr(e.name) for e in run if e.point]:
            verb = "gives" if len(points) == 1 else "give"
            yield (
                f"{_listed(points)} {verb} a point and no posterior: there is only a mean to hold "
                "against the reference, and no bound."
            )
        if part := [repr(e.name) for e in run if e.rows < self.data]:
            rows = min(e.rows for e in run)
            yield f"The seconds of {_listed(part)} are for {rows} rows, not for all {self.data}."
        if after := [e for e in run if e.before]:
            takes = "takes" if len(after) == 1 else "take"
            yield (
                "The model has parameters of its own: "
                f"{_listed([repr(e.name) for e in after])} {takes} those that SVI with the story's "
                f"own guide found, whose {after[0].before:.1f} s come on top."
            )
        if few := [repr(e.name) for e in run if e.distrusted > DISTRUSTED]:
            yield (
                f"The evidence of {_listed(few)} hangs on a few draws, as k-hat shows, and may lie "
                "higher."
            )
        for e in self.engines:
            if e.unbounded:
                yield f"{e.name!r} has no bounds: {e.unbounded}."
            if e.apart:
                yield f"{e.name!r} has no distance: {e.apart}."
            if e.reason:
                yield f"{e.name!r} was not run: {e.reason.removesuffix('.')}."

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        count, plural = len(self.engines), "s" * (len(self.engines) > 1)
        title = (
            f"comparison of {count} engine{plural}  ({self.data} rows, {self.draws} draws each; "
            "nats a row, distances in posterior sd)"
        )
        table = Table()
        table.add_column("engine", overflow="fold", min_width=9)
        columns = {h: cells for h, cells in self._columns().items() if any(cells)}
        for heading in columns:
            table.add_column(heading, justify="right", no_wrap=True)
        near = self.nearest
        for e, *cells in zip(self.engines, *columns.values(), strict=True):
            name = escape(e.name)
            table.add_row(f"[bold]{name}[/]" if e is near else name, *map(escape, cells))
        return Group(Text(title, "bold"), table, *(escape(sentence) for sentence in self.sentences))

    def _columns(self) -> dict[str, list[str]]:
        """Cells of the table by its headings, which are broken so that it stays narrow."""
        columns: dict[str, list[str]] = {}
        for e in self.engines:
            itself = e.name == self.reference
            row = {
                "seconds": "not run" if e.reason else f"{e.seconds:.1f}",
                "log-like-\nlihood": _shown(e.log_likelihood, ".3f"),
                "ELBO": _with_error(e.elbo, e.elbo_error),
                "evidence": _with_error(e.evidence, e.evidence_error),
                "mean\ndistance": "reference" if itself else _shown(e.distance, ".2f"),
                "at most": "" if itself else _shown(e.farthest[1], ".2f"),
                "mean\noff by": "" if itself else _shown(e.shift[1], "+.2f"),
                "sd\ntimes": "" if itself else _shown(e.stretch[1], ".2f"),
            }
            for heading, cell in row.items():
                columns.setdefault(heading, []).append(cell)
        return columns

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(width=120, file=text).print(self)
        return text.getvalue()

    def to_json(self) -> str:
        """The comparison as JSON; figures that there are not are null."""
        each = [
            {
                **asdict(e),
                "distance": e.distance,
                "farthest": e.farthest,
                "shift": e.shift,
                "stretch": e.stretch,
            }
            for e in self.engines
        ]
        plain = {
            "nearest": self.nearest.name if self.nearest else None,
            "fastest": self.fastest.name if self.fastest else None,
            **asdict(self),
            "engines": each,
            "sentences": self.sentences,
        }
        return json.dumps(_finite(plain), indent=2) + "\n"
