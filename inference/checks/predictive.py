"""Does the story make data like the data, by their statistics?"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing

import torch
from torch import Tensor

from ppl_gen.inference.checks import advice
from ppl_gen.inference.checks.effects import Effects
from ppl_gen.inference.checks.observations import covariates, entries, observed_rows, replicates
from ppl_gen.inference.checks.scales import learns_scale
from ppl_gen.inference.checks.sites import OwnStatistics, Pairs, SiteStatistics
from ppl_gen.inference.checks.statistic import CHANCE, LEADS, Compared, compared
from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.verdict import Finding, Status, by_chance

REPLICATES = 100
LEAST_REPLICATES = 20  # with fewer no p-value is below 0.05
NUMBERS = 500_000  # observed numbers that are looked at, of rows chosen by chance
SHOWN, MOST_SHOWN = 3, 6  # statistics that a sentence tells of, and that it names

_ORDER: tuple[Status, ...] = ("pass", "warn", "fail")


def posterior_predictive(subject: Subject) -> Finding:
    r"""Whether data replicated from the posterior have the statistics of the data.

    The latents are those of the guide, which have seen the data: the figure errs towards agreement.
    Statistics, units and limits are those of :func:`prior_predictive`. Two more need latents that
    belong to the rows, and are Gelman et al.'s realised discrepancies:

    - the spread of data and of replicates about what the likelihood expects, as the logarithm of
      the ratio of both. It warns from 0.1 and fails from 0.2 on: a noise of twice the size gave
      0.23 where half as many codes as elements follow the noise, and 0.7 where none do;
      honest fits of digits gave up to 0.13;
    - the share of rows that lie farther from it than all but 1 % of their replicates, less that
      1 %. It warns from 0.05 and fails from 0.25 on; honest fits of digits gave up to 0.13.

    Reference:
        Gelman et al. (1996), https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n41/j6n41.htm
    """
    return _predictive(subject, "posterior predictive", from_prior=False)


def prior_predictive(subject: Subject) -> Finding:
    r"""Whether data made from scratch have the statistics of the data.

    Each row's latents are drawn from their prior, given what the model conditions the row on; what
    all rows share comes from the guide. It is a test of what the story generates, of new rows or
    new groups. Where no row has latents of its own that is what the posterior predictive shows.

    The statistics, and the distances from which they warn and fail (our limits), between which
    honest fits of digits and of linear stories were held:

    ================================== ================================== ========= =========
    statistic of an observed site      unit of a distance                 warns     fails
    ================================== ================================== ========= =========
    mean, sd; share of a value         the data's (or its) sd             0.05      0.2
    quantiles 5, 25, 50, 75, 95 %      the data's sd                      0.25      1
    minimum, maximum                   the data's sd                      0.5       never
    sd of rows' means                  itself                             0.15      0.5
    mean, sd of each of <= 20 elements the element's sd, root mean square 0.1       0.4
    mean, sd of each of more elements  no element's sd below the typical  0.15      0.6
    correlations of <= 20 elements     itself, root mean square           0.05      0.15
    the user's own                     what one row does to it            0.05      0.2
    mean, scatter by what is given     sd of what that leaves open        0.15      0.4
    step, rhythm along what is given   sd of what that leaves open        0.15      0.4
    correlation of rows that follow    itself                             0.15      0.4
    L-skewness, of real numbers        itself, root mean square           0.07      0.2
    L-kurtosis, of real numbers        itself, root mean square           0.04      0.15
    share of a number, or of every nth itself, of the rows                0.05      never
    ================================== ================================== ========= =========

    What is given are the columns that the story takes and does not observe, now or up to 14 rows
    before. Statistics by it and those below are of what the story leaves of the observations, and
    show an effect that it lacks, see :class:`ppl_gen.inference.checks.effects.Effects`; what is
    expected of a row is one more such column. Steps, rhythms and rows that follow each other are
    looked at in the order of the data as well; that rows are alike there, or jump, as sorted ones
    do, never fails. The last is beyond the share of its neighbours, or of every number, see
    :class:`ppl_gen.inference.checks.heaps.Heaps`.

    What one row does to a statistic is its deviation over resampled rows times the root of their
    number, which of the mean is the deviation of the data. Whole numbers of up to 20 different
    values are described by the share of each, 0 and 1 by their mean.

    A distance counts only if chance makes one as large, of any statistic, in fewer than 5 % of
    cases: see :func:`ppl_gen.inference.estimators.replicates.replicate_test`. With many data any
    model is found out, so that size decides how bad that is. The figure is the worst distance.

    Reference:
        Gelman et al. (1996), section 2.3, https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n41/j6n41.htm
    """
    name = "prior predictive"
    if not any(site.local for site in subject.run.structure.latents):
        reason = "No datum has latents of its own: see the posterior predictive."
        return subject.skipped(name, reason, "not applicable")
    return _predictive(subject, name, from_prior=True)


def inflation(subject: Subject) -> float:
    """By how much farther rows may lie from a law that was learned from others than from their own.

    What was learned from :math:`m` rows errs as much as means of so many do. Next to :math:`n` new
    ones the distance has :math:`1 + n / m` times the variance.
    """
    known = subject.run.data.rows
    return 1.0 if subject.is_of_the_fit else math.sqrt(1 + subject.rows / max(1, known))


def _predictive(subject: Subject, name: str, from_prior: bool) -> Finding:
    structure, draws = subject.run.structure, min(subject.draws, REPLICATES)
    if not structure.observed or not subject.batch:
        return subject.skipped(name, "The story binds no data that could be replicated.")
    if draws < LEAST_REPLICATES:
        return subject.skipped(name, f"Needs at least {LEAST_REPLICATES} draws, got {draws}.")
    chosen, batch = subject.some(max(100, NUMBERS // _numbers_of_a_row(subject)))
    data = observed_rows(subject, batch, counted=True)
    local = {site.name: site.local for site in structure.observed}
    tables = {n: _table(v[None], local[n])[0] for n, v in data.items() if not v.isnan().all()}
    sites = [
        SiteStatistics(name, table, entries(subject, name, table.shape[1]), structure.has_codes)
        for name, table in tables.items()
    ]
    if not sites:
        return subject.skipped(name, "All observations are missing.")
    given = covariates(subject, batch)
    follows = structure.has_codes and not from_prior
    ordered = not structure.has_codes and len(chosen) == subject.rows
    order = subject.places if ordered else None
    own = OwnStatistics(subject, data)
    rows = [site for site in sites if local[site.name]]
    between = Pairs.between(rows)
    effects = [Effects.of(s.name, s.data, given, follows, order, s.entries) for s in rows]
    # Closed whatever a user's statistic raises: the pair's parameters are in force until then.
    with closing(replicates(subject, batch, draws, from_prior=from_prior)) as blocks:
        for block in blocks:
            own.take(block.values)
            if between is not None:
                between.take(torch.cat([_table(block.values[s.name], True) for s in rows], 2))
            for effect in effects:
                effect.take(_table(block.values[effect.site], True))
            for site in sites:
                expected = block.expected.get(site.name)
                site.take(
                    _table(block.values[site.name], local[site.name]),
                    None if expected is None else _table(expected, local[site.name]),
                )
    # Extremes have heavy tails, which would hide effects if these were tested together with them.
    whole = [*sites, *([] if between is None else [between]), own]
    families = [[s for one in some for s in one.statistics()] for some in (whole, effects)]
    beyond = [s for family in families for s in family if not s.is_finite]
    if beyond:
        reason = (
            f"The {beyond[0].name} of the data or of replicates is not finite: values are too far "
            "from 1 to be squared."
        )
        return subject.skipped(name, reason)
    found = compared([family for family in families if family], inflation(subject))
    found += [surprise for site in sites if (surprise := site.surprise()) is not None]
    made = "made from scratch" if from_prior else "replicated from the posterior"
    details = {k: v for site in sites for k, v in site.details(chosen).items()}
    first = _leading(found)
    details |= {k: v for effect in effects for k, v in effect.picture(first).items()}
    labels = advice.Advice.of(subject.run).labels
    otherwise = (
        "Fit for longer; if that does not help, choose a likelihood that can say what the data do"
        f"{labels}."
    )

    def tells(one: Compared) -> bool:
        law = structure.sites[one.site].law if one.site else ""
        # Of other laws the scale is learned, and may yet have to be.
        spread = one.name.startswith("spread") and law in advice.OF_ONE_NUMBER
        return one.lead < len(LEADS) - 1 or (spread and not structure.has_codes)

    return judged(
        name, made, found, details, lambda one: _remedy(one, subject, from_prior), otherwise, tells
    )


def judged(
    name: str,
    made: str,
    found: list[Compared],
    details: dict[str, list[float]],
    remedy: Callable[[Compared], str],
    otherwise: str = "",
    tells: Callable[[Compared], bool] = lambda one: one.lead < len(LEADS) - 1,
) -> Finding:
    """The finding of some compared statistics: that of the worst of them.

    What the story lacks shows in many statistics. Of those that are off as badly as any, the one
    that most surely tells what it is comes first, and says what to mend.

    Args:
        name: Of the check.
        made: How the data were made that are compared.
        found: The statistics.
        details: Further figures.
        remedy: What to do about one that is off; empty if that does not follow from it.
        otherwise: What to do if it follows from none.
        tells: Whether one that is off tells what the story lacks.
    """
    order = sorted(found, key=_badness, reverse=True)
    worst = order[0]
    off = _off(order)
    told = [one.told for one in off[:SHOWN]] + [one.name for one in off[SHOWN:MOST_SHOWN]]
    more = len(off) - MOST_SHOWN
    each = {one.name: [one.observed, one.replicated, one.distance, one.p_value] for one in order}
    within = {f"chance and limits of {one.name}": [*one.chance, *one.limits] for one in order}
    return Finding(
        name,
        worst.distance,
        worst.unit,
        f"at most {worst.limits[0]:g}, or by chance",
        worst.status,
        f"Data {made} have the statistics of the data; farthest is the {worst.name}."
        + by_chance(worst.distance, worst.limits[0])
        if not off
        else f"Data {made} are off in {'; '.join(told)}"
        + (f"; its details have {more} more." if more > 0 else "."),
        next((said for one in off if (said := remedy(one))), otherwise) if off else "",
        "Gelman et al. 1996",
        {**each, **within, **details},
        of_story=bool(off) and tells(off[0]),
    )


def _off(order: list[Compared]) -> list[Compared]:
    """Those that do not pass, the one that tells most surely what the story lacks first."""
    off = [one for one in order if one.status != "pass"]
    return sorted(off, key=lambda one: (-max(map(_ORDER.index, _shows_in(one, off))), one.lead))


def _leading(found: list[Compared]) -> str:
    """The name of the statistic that says what to mend; empty if all pass."""
    off = _off(sorted(found, key=_badness, reverse=True))
    return off[0].name if off else ""


def _shows_in(one: Compared, off: list[Compared]) -> list[Status]:
    """Its own status; of scatter that of the tails too, which rows of several scales have."""
    tails: list[Status] = [
        other.status for other in off if other.lead in (LEADS.index("tails"), one.lead)
    ]
    return tails if one.lead == LEADS.index("scatter") else [one.status]


def _badness(one: Compared) -> tuple[int, bool, float]:
    return _ORDER.index(one.status), one.p_value < CHANCE, one.distance / one.limits[0]


def _remedy(one: Compared, subject: Subject, from_prior: bool) -> str:
    """What to do about a statistic that is off."""
    run = subject.run
    change = advice.Advice.of(run)
    if not one.site:  # the user's own
        return f"Let the story tell what {one.name} measures, best by a latent or a law of its own."
    law = run.structure.sites[one.site].law if one.site else ""
    more = one.replicated < one.observed  # whether the data have more of it
    of_law = one.lead in (LEADS.index(kind) for kind in ("scatter", "skewness", "tails"))
    if change.covariance and (of_law or one.name.startswith("correlations")):
        return f"{advice.sentence(change.covariance)}."
    if one.lead == LEADS.index("skewness") and law not in advice.SYMMETRIC:
        mend = f"Take a law for {one.site} that is {'more' if more else 'less'} skewed than {law}."
        return "" if law in advice.OF_ONE_NUMBER else mend
    if one.mend and not (of_law and law in advice.OF_ONE_NUMBER):
        return one.mend
    if one.name.startswith("share of 0 ") and more and law in advice.COUNTS:
        return advice.zeros(one.site, law)
    if one.name.startswith("correlations"):
        if run.structure.has_codes:
            return (
                f"Let the codes tell how elements of {one.site} go together: by a decoder that "
                "can, or by more dimensions where all are in use, see 'active units'."
            )
        return (
            f"Let the noise of elements of {one.site} be correlated, or give each row latents of "
            "its own."
        )
    if from_prior and run.structure.has_codes:
        return f"If the posterior predictive is well, {change.prior}."
    if one.name.startswith(("spread", "sd of", "share of 0 ")) and "elements" not in one.name:
        learned = learns_scale(subject, one.site)
        return advice.spread(one.site, law, more, run.structure.has_codes, learned)
    return ""


def _table(value: Tensor, local: bool) -> Tensor:
    """Draws as rows of numbers, ``(S, N, E)``; outside the rows each number is a row."""
    if local:
        return value.reshape(*value.shape[:2], -1)
    return value.reshape(len(value), -1, 1)


def _numbers_of_a_row(subject: Subject) -> int:
    local = (site for site in subject.run.structure.observed if site.local)
    return max(1, sum(math.prod(site.event_shape) for site in local))


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
    concerns=lambda structure: any(site.local for site in structure.latents),
)
