"""Does the story make data like the data, by their statistics?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ppl_gen.errors import DataError
from ppl_gen.inference.checks.observations import observed_rows, replicates
from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.estimators.replicates import (
    FEW_ELEMENTS,
    Kind,
    element_statistics,
    element_units,
    kind_of,
    pooled_statistics,
    replicate_test,
    typical_distance,
)
from ppl_gen.inference.verdict import Finding, Status, grade

REPLICATES = 200
LEAST_REPLICATES = 20  # with fewer no p-value is below 0.05
NUMBERS = 500_000  # observed numbers that are looked at, of rows chosen by chance
SURPRISING = 0.01
CHANCE = 0.05

Limits = tuple[float, float]
CENTRE: Limits = (0.05, 0.2)
TOGETHER: Limits = (0.1, 0.5)
QUANTILES: Limits = (0.25, 1.0)
EXTREMES: Limits = (0.5, 3.0)
COLUMNS: Limits = (0.1, 0.4)
PIXELS: Limits = (0.15, 0.6)
SPREAD: Limits = (0.1, 0.2)
SURPRISE: Limits = (0.05, 0.25)
_WORSE: dict[Status, int] = {"pass": 0, "warn": 1, "fail": 2}


@dataclass
class _Compared:
    """One statistic of the data and of its replicates."""

    name: str
    unit: str
    limits: Limits
    observed: float
    replicated: float
    distance: float
    p_value: float

    @property
    def status(self) -> Status:
        return "pass" if self.p_value >= CHANCE else grade(self.distance, *self.limits)

    @property
    def rank(self) -> tuple[int, bool, float]:
        badness = self.distance / self.limits[1]
        return _WORSE[self.status], self.p_value < CHANCE, badness


@dataclass
class _Site:
    """What is gathered of one observed site.

    Attributes:
        data: Rows of numbers, ``(N, E)``, NaN where nothing counts.
        kind: What the numbers are.
        pooled: Statistics of all numbers: of the data, and of replicates, ``(S,)`` each.
        elements: Mean and deviation of each element, ``(S, 2, E)``.
        spread: How much farther replicates lie from what is expected than data, in nats, ``(S,)``.
        nearer: How often a row lies as near to what is expected as its replicate, ``(N,)``.
    """

    data: Tensor
    kind: Kind = "real"
    values: Tensor | None = None
    pooled: dict[str, list[Tensor]] = field(default_factory=dict)
    elements: list[Tensor] = field(default_factory=list)
    spread: list[Tensor] = field(default_factory=list)
    nearer: Tensor | None = None
    draws: int = 0

    def take(self, drawn: Tensor, expected: Tensor | None) -> None:
        """Add replicates, ``(S, N, E)``."""
        missing = self.data.isnan()
        drawn = torch.where(missing, torch.nan, drawn)
        if not self.draws:
            self.kind = kind_of(self.data, drawn)
            if self.kind == "categories":
                both = torch.cat([self.data.flatten(), drawn.flatten()])
                self.values = both[~both.isnan()].unique()
        for name, value in pooled_statistics(drawn, self.kind, self.values).items():
            self.pooled.setdefault(name, []).append(value)
        if drawn.shape[2] > 1:
            self.elements.append(element_statistics(drawn))
        self.draws += len(drawn)
        if expected is None or expected.isnan().all():
            return
        far = (self.data - expected).square().nan_to_num()
        far_drawn = (drawn - expected).square().nan_to_num()
        rows, rows_drawn = far.sum(2), far_drawn.sum(2)
        ratio = rows_drawn.sum(1).log() - rows.sum(1).log()
        self.spread.append(ratio / 2)
        nearer = (rows_drawn >= rows).double().sum(0)
        self.nearer = nearer if self.nearer is None else self.nearer + nearer


def posterior_predictive(subject: Subject) -> Finding:
    r"""Whether data replicated from the posterior look like the data, by statistics.

    The latents are those of the guide, which have seen the data: the figure errs towards agreement.
    See :func:`compared` for how the statistics are judged. Beside those of :func:`prior_predictive`
    there are two of Gelman et al.'s realised discrepancies, which are told apart by the latents: how
    far data and replicates lie from what the likelihood expects (``spread``, the logarithm of the
    ratio; a noise of twice the size shows as up to 0.7), and the share of rows that lie farther from
    it than 99 % of their replicates do.

    Reference:
        Gelman et al. (1996), https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n41/j6n41.htm
    """
    return _predictive(subject, "posterior predictive", from_prior=False)


def prior_predictive(subject: Subject) -> Finding:
    """Whether data made from scratch look like the data, by statistics.

    Each row's latents are drawn from their prior, given what the model conditions the row on; what
    all rows share comes from the guide. It is a test of what the story generates, of new rows or
    new groups. Where no row has latents of its own that is what the posterior predictive shows.

    Reference:
        Gelman et al. (1996), section 2.3, the prior predictive distribution,
        https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n41/j6n41.htm
    """
    name = "prior predictive"
    if not any(site.local for site in subject.run.structure.latents):
        reason = "No datum has latents of its own: see the posterior predictive."
        return subject.skipped(name, reason, "not applicable")
    return _predictive(subject, name, from_prior=True)


def _predictive(subject: Subject, name: str, from_prior: bool) -> Finding:
    structure, draws = subject.run.structure, min(subject.draws, REPLICATES)
    if not structure.observed or not subject.batch:
        return subject.skipped(name, "The story binds no data that could be replicated.")
    if draws < LEAST_REPLICATES:
        reason = f"Needs at least {LEAST_REPLICATES} draws, got {draws}."
        return subject.skipped(name, reason)
    if not from_prior and structure.keeps_rows and not subject.is_of_the_fit:
        reason = "The guide has latents for each datum of the fit alone: check(run, data.train)."
        return subject.skipped(name, reason)
    compared, details = _gathered(subject, draws, from_prior)
    if not compared:
        return subject.skipped(name, "All observations are missing.")
    return _finding(name, compared, details, from_prior)


def _gathered(
    subject: Subject, draws: int, from_prior: bool
) -> tuple[list[_Compared], dict[str, list[float]]]:
    """All statistics of all sites, compared; and details."""
    _, batch = subject.some(max(100, NUMBERS // _numbers_of_a_row(subject)))
    sites, own = {}, _Own(subject)
    data = observed_rows(subject, batch, counted=True)
    for name, value in data.items():
        if not value.isnan().all():
            sites[name] = _Site(_table(value, subject.run.structure.sites[name].local))
    if not sites:
        return [], {}
    for block in replicates(subject, batch, draws, from_prior=from_prior):
        own.take(data, block.values)
        for name, site in sites.items():
            local = subject.run.structure.sites[name].local
            drawn = torch.stack([_table(v, local) for v in block.values[name]])
            expected = block.expected.get(name)
            if expected is not None:
                expected = torch.stack([_table(v, local) for v in expected])
            site.take(drawn, expected)
    found, details = _Family(), {}
    for name, site in sites.items():
        _add(found, name, site, details)
    own.add_to(found, rows=len(next(iter(sites.values())).data))
    compared = found.compared()
    for name, site in sites.items():
        if site.nearer is not None and len(site.data) >= 20:
            compared.append(_surprise(name, site, details))
    return compared, details


class _Family:
    """Statistics that are tested together."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, Limits, float, Tensor, float]] = []
        self.distances: dict[str, float] = {}

    def add(
        self,
        name: str,
        unit: str,
        limits: Limits,
        observed: float,
        draws: Tensor,
        size: float = 1.0,
        distance: float | None = None,
    ) -> None:
        """Add a statistic of the data and of replicates, ``(S,)``.

        Args:
            name: Of the statistic.
            unit: In words.
            limits: Up to which distance it passes, and warns.
            observed: Of the data.
            draws: Of the replicates.
            size: What a distance of 1 is.
            distance: Where it is another than that of ``observed`` from the mean of ``draws``.
        """
        self.rows.append((name, unit, limits, observed, draws, size))
        if distance is not None:
            self.distances[name] = distance

    def compared(self) -> list[_Compared]:
        observed = torch.tensor([row[3] for row in self.rows], dtype=torch.float64)
        replicated = torch.stack([row[4] for row in self.rows], 1)
        units = torch.tensor([row[5] for row in self.rows], dtype=torch.float64)
        test = replicate_test(observed, replicated, units)
        return [
            _Compared(
                name,
                unit,
                limits,
                value,
                draws.mean().item(),
                self.distances.get(name, distance),
                p_value,
            )
            for (name, unit, limits, value, draws, _), distance, p_value in zip(
                self.rows, test.distance.tolist(), test.p_value.tolist(), strict=True
            )
        ]


def _add(found: _Family, name: str, site: _Site, details: dict[str, list[float]]) -> None:
    """The statistics of one site."""
    data = pooled_statistics(site.data[None], site.kind, site.values)
    flat = site.data[~site.data.isnan()]
    deviation = max(flat.std(correction=0).item(), 1e-12)
    for statistic, value in data.items():
        draws, observed = torch.cat(site.pooled[statistic]), value.item()
        unit, size, limits = "of the data's deviation", deviation, CENTRE
        if statistic.startswith("share"):
            unit, size = "of its deviation", max((observed * (1 - observed)) ** 0.5, 0.1)
        elif statistic.startswith("sd of rows"):
            unit, limits = "of itself", TOGETHER
            size = max(observed, draws.mean().item(), 1e-12)
        elif "quantile" in statistic:
            limits = QUANTILES
        elif statistic in ("minimum", "maximum"):
            limits = EXTREMES
        found.add(f"{statistic} of {name}", unit, limits, observed, draws, size)
    if site.elements:
        own = element_statistics(site.data[None])[0]
        drawn = torch.cat(site.elements)
        units = element_units(own[1], drawn[:, 1].mean(0))
        for i, statistic in enumerate(("means", "sds")):
            value, draws = typical_distance(own[i], drawn[:, i], units)
            excess = (value.square() - draws.square().mean()).clamp_min(0).sqrt().item()
            found.add(
                f"{statistic} of the elements of {name}",
                "of their deviation",
                COLUMNS if len(units) <= FEW_ELEMENTS else PIXELS,
                value.item(),
                draws,
                distance=excess,
            )
            away = ((own[i] - drawn[:, i].mean(0)) / units).abs()
            worst = away.argsort(descending=True)[:5]
            details[f"worst {statistic} of {name}: elements"] = worst.double().tolist()
            details[f"worst {statistic} of {name}: distances"] = away[worst].tolist()
    if site.spread:
        ratio = torch.cat(site.spread)
        if ratio.isfinite().all():
            found.add(f"spread of {name} about what is expected", "nats", SPREAD, 0.0, ratio)


def _surprise(name: str, site: _Site, details: dict[str, list[float]]) -> _Compared:
    """Rows that lie farther from what is expected than nearly all of their replicates."""
    from scipy.stats import binomtest

    assert site.nearer is not None
    p_values = (1 + site.nearer) / (1 + site.draws)
    found = p_values < SURPRISING if site.draws >= 100 else site.nearer == 0
    level = max(SURPRISING, 1 / (1 + site.draws))
    share = found.double().mean().item()
    p_value = binomtest(int(found.sum()), len(found), level, alternative="greater").pvalue
    worst = p_values.argsort()[:5]
    details[f"least likely rows of {name}"] = worst.double().tolist()
    return _Compared(
        f"share of surprising rows of {name}",
        "of the rows",
        SURPRISE,
        share,
        level,
        max(0.0, share - level),
        float(p_value),
    )


def _finding(
    name: str, compared: list[_Compared], details: dict[str, list[float]], from_prior: bool
) -> Finding:
    worst = max(compared, key=lambda one: one.rank)
    status = worst.status
    made = "made from the prior" if from_prior else "replicated from the posterior"
    shown = {
        one.name: [one.observed, one.replicated, one.distance, one.p_value] for one in compared
    }
    return Finding(
        name,
        worst.distance,
        worst.unit,
        f"at most {worst.limits[0]:g}, or by chance",
        status,
        f"Data {made} have the statistics of the data."
        if status == "pass"
        else f"The {worst.name} is off in data {made}, by {worst.distance:.2g} {worst.unit}.",
        "" if status == "pass" else "x",
        "Gelman et al. 1996",
        {**shown, **details},
    )


class _Own:
    """The user's own statistics."""

    def __init__(self, subject: Subject) -> None:
        structure = subject.run.structure
        self.site = (structure.observation or structure.observed[0]).name
        self.functions: Mapping[str, Callable[[Tensor], Any]] = subject.statistics
        self.observed: dict[str, float] = {}
        self.drawn: dict[str, list[float]] = {name: [] for name in self.functions}

    def take(self, data: Mapping[str, Tensor], replicated: Mapping[str, Tensor]) -> None:
        rows = data[self.site]
        for name in self.functions:
            if name not in self.observed:
                self.observed[name] = self._of(name, rows)
            for drawn in replicated[self.site]:
                value = self._of(name, torch.where(rows.isnan(), torch.nan, drawn))
                self.drawn[name].append(value)

    def add_to(self, found: _Family, rows: int) -> None:
        for name, value in self.observed.items():
            draws = torch.tensor(self.drawn[name], dtype=torch.float64)
            size = draws.std().item() * rows**0.5
            size = size if size > 0 else max(abs(value), 1e-12)
            found.add(name, "of what one row does to it", CENTRE, value, draws, size)

    def _of(self, name: str, rows: Tensor) -> float:
        try:
            value = float(self.functions[name](rows))
        except Exception as error:
            told = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
            raise DataError(
                f"the statistic {name!r} must make a number of observations of shape "
                f"{tuple(rows.shape)}, got {told}"
            ) from error
        if value != value or abs(value) == float("inf"):
            raise DataError(
                f"the statistic {name!r} must be finite, got {value}: NaN stands for missing values"
            )
        return value


def _table(value: Tensor, local: bool) -> Tensor:
    """Rows of numbers, ``(N, E)``; of what stands outside the rows each number is one."""
    return value.reshape(len(value), -1) if local and value.dim() else value.reshape(-1, 1)


def _numbers_of_a_row(subject: Subject) -> int:
    numbers = sum(
        max(1, torch.Size(site.event_shape).numel())
        for site in subject.run.structure.observed
        if site.local
    )
    return max(1, numbers)


def _cost(subject: Subject) -> Cost:
    draws = min(subject.draws, REPLICATES)
    return Cost(f"{draws:,} replicates of {subject.rows:,} rows", draws * subject.rows)


POSTERIOR_PREDICTIVE = Check(
    "do replicated data look like the data",
    ("posterior predictive",),
    lambda subject: [posterior_predictive(subject)],
    _cost,
)
PRIOR_PREDICTIVE = Check(
    "do data made from scratch look like the data",
    ("prior predictive",),
    lambda subject: [prior_predictive(subject)],
    _cost,
)
