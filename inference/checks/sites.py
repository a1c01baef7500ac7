"""Statistics of observed sites, of the data and of replicates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ppl_gen.errors import DataError
from ppl_gen.inference.checks.heaps import Heaps
from ppl_gen.inference.checks.statistic import LEADS, Compared, Limits, Statistic
from ppl_gen.inference.checks.subject import Subject
from ppl_gen.inference.estimators.heaps import heaped
from ppl_gen.inference.estimators.replicates import (
    FEW_ELEMENTS,
    Kind,
    beyond_chance,
    correlations,
    element_statistics,
    element_units,
    kind_of,
    pooled_statistics,
    typical_distance,
)

LEAST_ROWS = 20  # below, rows are too few to ask how they spread and how many surprise
FEW_LEVELS = 10  # whole numbers that are no approximation of a density
SURPRISING = 0.01
RESAMPLES = 50

CENTRE: Limits = (0.05, 0.2)
TOGETHER: Limits = (0.15, 0.5)
QUANTILES: Limits = (0.25, 1.0)
EXTREMES: Limits = (0.5, math.inf)
COLUMNS: Limits = (0.1, 0.4)
PIXELS: Limits = (0.15, 0.6)
PAIRS: Limits = (0.05, 0.15)
KINDS: Limits = (0.05, math.inf)
SPREAD: Limits = (0.1, 0.2)
SURPRISE: Limits = (0.05, 0.25)


@dataclass
class Pairs:
    """How far pairs of up to 20 numbers of a row go together otherwise than in replicates.

    Attributes:
        name: What they are numbers of.
        data: Rows of numbers, ``(N, E)``, NaN where nothing counts.
        entries: What each is called.
        site: The site to mend.
        mend: What the story lacks if they do.
        made: Correlations of replicates, ``(S, P)`` each.
    """

    name: str
    data: Tensor
    entries: Sequence[str]
    site: str
    mend: str = ""
    made: list[Tensor] = field(default_factory=list)

    @classmethod
    def between(cls, sites: Sequence[SiteStatistics]) -> Pairs | None:
        """Of numbers of several sites of the same rows; None of one, or of more than 20."""
        data = [site.data for site in sites]
        if (
            len(sites) < 2
            or len(set(map(len, data))) > 1
            or sum(rows.shape[1] for rows in data) > FEW_ELEMENTS
        ):
            return None
        names = [site.name for site in sites]
        return cls(
            " and ".join(names),
            torch.cat(data, 1),
            [entry for site in sites for entry in site.entries],
            names[0],
            f"Let {' and '.join(names)} be told together, by one law whose noise is correlated, as "
            "MultivariateNormal, or by latents of each row that all of them follow.",
        )

    def take(self, drawn: Tensor) -> None:
        """Add replicates, ``(S, N, E)``."""
        if 1 < self.data.shape[1] <= FEW_ELEMENTS and len(self.data) >= LEAST_ROWS:
            self.made.append(correlations(torch.where(self.data.isnan(), torch.nan, drawn)))

    def statistics(self) -> list[Statistic]:
        """One, or none if there are no pairs."""
        if not self.made:
            return []
        own, drawn = correlations(self.data[None])[0], torch.cat(self.made)
        observed, replicated = typical_distance(own, drawn, torch.ones_like(own))
        beyond = beyond_chance(observed, replicated)
        away = own - drawn.mean(0)
        worst = int(away.abs().argmax())
        first, second = torch.triu_indices(self.data.shape[1], self.data.shape[1], 1)[:, worst]
        named = f"{self.entries[int(first)]} and {self.entries[int(second)]}"
        return [
            Statistic(
                f"correlations of {self.name}",
                "of correlation",
                PAIRS,
                observed.item(),
                replicated,
                distance=beyond,
                where=f"{named}: of the data {own[worst]:.2f}, made {drawn.mean(0)[worst]:.2f}",
                mend=self.mend,
                site=self.site,
            )
        ]


@dataclass
class SiteStatistics:
    """What is gathered of one observed site.

    Attributes:
        name: Of the site.
        data: Rows of numbers, ``(N, E)``, NaN where nothing counts.
        entries: What the E numbers are called.
        has_codes: Whether rows have latents of their own.
        kind: What the numbers are.
        values: Of categories, those whose shares are looked at; of real numbers outermost ones
            that many rows have.
        pooled: Statistics of all numbers of replicates, ``(S,)`` each.
        elements: Mean and deviation of each element of replicates, ``(S, 2, E)``.
        whole: Share of whole numbers among those of replicates, ``(S,)`` each, where the data are
            few of them.
        spread: How much farther replicates lie from what is expected than data, in nats, ``(S,)``.
        nearer: In how many draws a row lies as near to what is expected as its replicate, ``(N,)``.
        draws: How many replicates were taken.
    """

    name: str
    data: Tensor
    entries: Sequence[str]
    has_codes: bool = False
    kind: Kind = "real"
    values: Tensor | None = None
    pooled: dict[str, list[Tensor]] = field(default_factory=dict)
    elements: list[Tensor] = field(default_factory=list)
    whole: list[Tensor] = field(default_factory=list)
    spread: list[Tensor] = field(default_factory=list)
    nearer: Tensor | None = None
    draws: int = 0

    def __post_init__(self) -> None:
        self.pairs = Pairs(f"elements of {self.name}", self.data, self.entries, self.name)
        self.heaps = {
            i: heaps
            for i in range(len(self.entries) if self.data.shape[1] <= FEW_ELEMENTS else 0)
            if (heaps := Heaps.of(self.name, self.entries[i], self.data[:, i])) is not None
        }

    def take(self, drawn: Tensor, expected: Tensor | None) -> None:
        """Add replicates, ``(S, N, E)``, and what their latents let one expect, if it is known."""
        drawn = torch.where(self.data.isnan(), torch.nan, drawn)
        if not self.draws:
            self.kind = kind_of(self.data, drawn[:1])
            if self.kind == "categories":
                both = torch.cat([self.data.flatten(), drawn[:1].flatten()])
                self.values = both[~both.isnan()].unique()
            if self.kind == "real" and drawn.shape[2] <= FEW_ELEMENTS:
                self.values = heaped(self.data)
        self.draws += len(drawn)
        for name, value in pooled_statistics(drawn, self.kind, self.values).items():
            self.pooled.setdefault(name, []).append(value)
        if drawn.shape[2] > 1:
            self.elements.append(element_statistics(drawn))
        self.pairs.take(drawn)
        for i, heaps in self.heaps.items():
            heaps.take(drawn[..., i])
        if self.kind == "real" and drawn.shape[2] == 1 and self._levels():
            flat = drawn[..., 0][:, ~self.data[:, 0].isnan()]
            self.whole.append((flat == flat.round()).double().mean(1))
        if expected is None or expected.isnan().all():
            return
        far, far_drawn = (
            (rows - expected).square().nan_to_num().sum(2) for rows in (self.data, drawn)
        )
        self.spread.append((far_drawn.sum(1).log() - far.sum(1).log()) / 2)
        nearer = (far_drawn >= far).double().sum(0)
        self.nearer = nearer if self.nearer is None else self.nearer + nearer

    def statistics(self) -> list[Statistic]:
        """All that are tested together."""
        found = []
        deviation = self._deviation()
        for name, value in pooled_statistics(self.data[None], self.kind, self.values).items():
            observed, drawn = value.item(), torch.cat(self.pooled[name])
            unit, size, limits = "of the data's deviation", deviation, CENTRE
            mend, lead = "", LEADS.index("")
            if name == "mean" and not self.has_codes and self.data.shape[1] == 1:
                mend, lead = _level(self.name), LEADS.index("level")
            if name.startswith("share"):
                unit, size = "of its deviation", max((observed * (1 - observed)) ** 0.5, 0.1)
                if self.kind == "counts":
                    lead = LEADS.index("zeros")
                if self.kind == "real":
                    outermost = name.removeprefix("share of ")
                    mend, lead = _cut_off(self.name, outermost, observed), LEADS.index("heap")
            elif name == "sd of rows' means":
                unit, limits = "of itself", TOGETHER
                size = max(observed, drawn.mean().item(), 1e-12)
            elif "quantile" in name:
                limits = QUANTILES
            elif name in ("minimum", "maximum"):
                limits = EXTREMES
            found.append(
                Statistic(
                    f"{name} of {self.name}",
                    unit,
                    limits,
                    observed,
                    drawn,
                    size,
                    mend=mend,
                    site=self.name,
                    lead=lead,
                )
            )
        for i, name in enumerate(("mean", "sd") if self.elements else ()):
            own, drawn, units = self._of_elements(i)
            observed, replicated = typical_distance(own, drawn, units)
            beyond = beyond_chance(observed, replicated)
            limits = COLUMNS if len(units) <= FEW_ELEMENTS else PIXELS
            name, unit = f"{name} of single elements of {self.name}", "of their deviation"
            found.append(
                Statistic(
                    name,
                    unit,
                    limits,
                    observed.item(),
                    replicated,
                    distance=beyond,
                    where=self._farthest(i),
                    site=self.name,
                )
            )
        found += self.pairs.statistics()
        found += [one for heaps in self.heaps.values() for one in heaps.statistics()]
        if self.whole:
            levels = self._levels()
            found.append(
                Statistic(
                    f"share of whole numbers of {self.name}",
                    "of the rows",
                    KINDS,
                    1.0,
                    torch.cat(self.whole),
                    mend=_of_levels(self.name, levels),
                    site=self.name,
                    lead=LEADS.index("heap"),
                )
            )
        enough = int((~self.data.isnan()).sum()) >= LEAST_ROWS
        if enough and self.spread and torch.cat(self.spread).isfinite().all():
            name = f"spread of {self.name} about what is expected"
            drawn = torch.cat(self.spread)
            found.append(Statistic(name, "nats", SPREAD, 0.0, drawn, site=self.name))
        return found

    def surprise(self) -> Compared | None:
        """Rows that lie farther from what is expected than nearly all of their replicates."""
        if self.nearer is None or len(self.data) < LEAST_ROWS:
            return None
        from scipy.stats import binomtest

        level = max(SURPRISING, 1 / (1 + self.draws))
        found = int(((1 + self.nearer) / (1 + self.draws) <= level).sum())
        share = found / len(self.data)
        p_value = float(binomtest(found, len(self.data), level, alternative="greater").pvalue)
        name = f"share of surprising rows of {self.name}"
        return Compared(
            name,
            "of the rows",
            SURPRISE,
            share,
            level,
            max(0.0, share - level),
            p_value,
            mend="Look at the least likely rows: the story may have seen nothing like them.",
            site=self.name,
        )

    def details(self, chosen: Tensor) -> dict[str, list[float]]:
        """Which elements and rows are worst, where these rows of all are looked at, ``(N,)``."""
        found = {}
        for i, name in enumerate(("mean", "sd") if self.elements else ()):
            own, drawn, units = self._of_elements(i)
            away = (own - drawn.mean(0)).abs() / units
            worst = away.argsort(descending=True)[:5]
            found[f"elements of {self.name} of worst {name}"] = worst.double().tolist()
            found[f"their distances in {name}"] = away[worst].tolist()
        if self.nearer is not None and len(self.nearer) == len(chosen):
            least = chosen[self.nearer.argsort()[:5]]
            found[f"least likely rows of {self.name}"] = least.double().tolist()
        return found

    def _levels(self) -> list[float]:
        """Values of the data, if these are few whole numbers."""
        values = self.data[~self.data.isnan()].unique()
        few = len(values) <= FEW_LEVELS and len(self.data) >= LEAST_ROWS
        return values.tolist() if few and torch.equal(values, values.round()) else []

    def _deviation(self) -> float:
        """That of the data; where they are all equal, or one number, that of replicates."""
        own = self.data[~self.data.isnan()].std(correction=0).item()
        if self.kind == "binary":
            return max(own, 0.1)
        drawn = max(
            torch.cat(self.pooled["sd"]).mean().item(), torch.cat(self.pooled["mean"]).std().item()
        )
        return max(own if own > 1e-6 * drawn else drawn, 1e-12)

    def _farthest(self, i: int) -> str:
        """The element whose mean or deviation is farthest from that of replicates."""
        own, drawn, units = self._of_elements(i)
        away = (own - drawn.mean(0)) / units
        worst = int(away.abs().argmax())
        above = away[worst].item()
        word = ("above", "below") if i == 0 else ("larger", "smaller")
        return f"{self.entries[worst]}: the data {abs(above):.2g} {word[above < 0]}"

    def _of_elements(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean or deviation of each element in the data, in replicates, and their units."""
        own, drawn = element_statistics(self.data[None])[0], torch.cat(self.elements)
        return own[i], drawn[:, i], element_units(own[1], drawn[:, 1].mean(0))


class OwnStatistics:
    """The user's own statistics of the observation that a datum is known by.

    Args:
        subject: The run and the functions.
        data: Observations by site, ``(N, *event)``.
    """

    def __init__(self, subject: Subject, data: Mapping[str, Tensor]) -> None:
        structure = subject.run.structure
        self.site = (structure.observation or structure.observed[0]).name
        self.functions = subject.statistics
        self.rows = torch.atleast_1d(data[self.site])
        self.observed = {name: self._of(name, self.rows) for name in self.functions}
        self.replicated: dict[str, list[float]] = {name: [] for name in self.functions}

    def take(self, replicated: Mapping[str, Tensor]) -> None:
        """Add replicates, ``(S, N, *event)``, by site."""
        for name in self.functions:
            for drawn in replicated[self.site]:
                rows = torch.where(self.rows.isnan(), torch.nan, drawn.reshape(self.rows.shape))
                value = self._of(name, rows)
                self.replicated[name].append(value)

    def statistics(self) -> list[Statistic]:
        """All of them, in units of what one row does to each, by the bootstrap."""
        found, count = [], len(self.rows)
        generator = torch.Generator().manual_seed(0)
        for name, value in self.observed.items():
            again = torch.tensor(
                [
                    self._of(name, self.rows[torch.randint(count, (count,), generator=generator)])
                    for _ in range(RESAMPLES)
                ],
                dtype=torch.float64,
            )
            size = again.std().item() * count**0.5 or max(abs(value), 1e-12)
            drawn = torch.tensor(self.replicated[name], dtype=torch.float64)
            found.append(Statistic(name, "of what one row does", CENTRE, value, drawn, size))
        return found

    def _of(self, name: str, rows: Tensor) -> float:
        try:
            value = float(self.functions[name](rows.clone()))
        except Exception as error:
            raise DataError(
                f"the statistic {name!r} must make one number of observations of shape "
                f"{tuple(rows.shape)}, got {type(error).__name__}: {error}"
            ) from error
        if not math.isfinite(value):
            raise DataError(
                f"the statistic {name!r} must be finite, got {value}: mind that NaN stands for "
                "missing values"
            )
        return value


def _of_levels(site: str, levels: list[float]) -> str:
    """What is said of few whole numbers under a density."""
    return (
        f"All of {site} are {len(levels)} whole numbers from {levels[0]:g} to {levels[-1]:g}: take "
        "a law of such, as Categorical, OrderedLogistic, Binomial or, of counts, Poisson."
    )


def _level(site: str) -> str:
    """What a story lacks whose data lie elsewhere as a whole."""
    return (
        f"Give {site} a level of its own, as an intercept, if it has none; if it has, fit for "
        "longer, or give it a prior that reaches the data."
    )


def _cut_off(site: str, value: str, share: float) -> str:
    """What it means that many rows have one outermost value."""
    return (
        f"A share of {share:.0%} of {site} is {value} exactly, the outermost value: if it means "
        "missing, say so by NaN; if values are cut off there, let the story cut its own."
    )
