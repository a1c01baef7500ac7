"""Is the posterior calibrated: do its intervals hold as many truths as they say?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ppl_gen.inference.checks.advice import Advice, sentence
from ppl_gen.inference.checks.ranked import (
    DRAWS,
    LEAST_FITS,
    LIKELIHOOD,
    Ranked,
    guessed,
    ranked,
    refitted,
)
from ppl_gen.inference.checks.subject import NOTHING, Check, Cost, Subject
from ppl_gen.inference.estimators.ranks import (
    LEVELS,
    asymmetry,
    bias,
    coverage,
    from_uniform,
    uniformity,
    width,
)
from ppl_gen.inference.verdict import Finding, Status, by_chance, grade

SIMULATIONS = {"quick": 1000, "full": 10_000}
DRAWN = 12  # of the scalars, the worst ones, whose ECDF is kept for a figure
# Our limits: good up to the first, bad beyond the second.
LATENTS_WITHIN, LIKELIHOOD_WITHIN, COVERAGE_WITHIN = (0.025, 0.04), (0.10, 0.25), (0.05, 0.075)


def _otherwise(advice: Advice) -> str:
    """What may be wrong where neither a shift nor a scale explains how ranks lie."""
    bounded = "see that nothing bounds the means, as a tanh or ReLU at the encoder's end; or "
    return f"{sentence(f'{bounded * advice.amortised}{advice.another_shape}')}."


def calibration(subject: Subject) -> list[Finding]:
    r"""Whether truths lie among the draws of their posterior as they should.

    Latents and data are drawn from the model, and the guide is asked for the posterior of these
    data, for which an amortised guide needs no fit: 1,000 times, or 10,000 at level full. Among
    draws of the exact posterior the rank of the truth is uniform, and an interval of 90 % holds
    90 % of the truths. No density of the prior is asked for, so that it may be implicit. What
    holds on average over data of the model need not hold for each: of that k-hat tells.

    "calibration": the figure is the largest distance of the distribution of ranks from the uniform
    one. It passes up to 0.025, or if chance explains as much in 1 % of cases; it fails beyond
    0.04, if chance explains that in less than 0.1 % (our limits; p-values are multiplied by the
    number of scalars). A scale that is wrong by 20 % gives 0.055, a shift by a quarter of a
    standard deviation 0.10. For ranks of the log-likelihood, which add up what is wrong in all
    dimensions, the limits are 0.10 and 0.25; a guide that gives back the prior has above 0.7.

    "coverage": the figure is the largest difference, over the scalars, between the share of truths
    in the central intervals of 50, 80, 90 and 95 % and these. It passes up to 0.05 and fails
    beyond 0.075 (our limits), chance allowed for as above. A scale that is wrong by 20 % gives
    0.10; a shift shows little.

    How to read it: exact guides have 0.01 at 10,000 simulations. An ordinary VAE is not among
    them. On the digits, with 8 dimensions of code and a Bernoulli likelihood, half the dimensions
    are 5 to 20 % too narrow (distances up to 0.07, of the log-likelihood 0.2), as the gap of 0.35
    nats says too; with 2 dimensions all are by 35 % (0.12, at 0.45 nats); with a Gaussian
    likelihood that has learned little noise by 60 % (0.25, at 6 nats).

    Where all latents are global, every simulation needs a fit, which is done at level full, at
    least 20 times: :func:`ppl_gen.inference.checks.ranked.refitted`. Ranks are then also held
    against themselves the other way round, which shows a bias first. So few show gross faults
    alone: 30 a scale that is wrong by half (in 95 % of cases, by their coverage) or a shift by a
    whole standard deviation, 300 a scale that is wrong by 20 % (in 87 %).

    References:
        Talts et al. (2018), https://arxiv.org/abs/1804.06788; Säilynoja et al. (2022),
        https://arxiv.org/abs/2103.10522; Modrák et al. (2023), https://arxiv.org/abs/2211.02383;
        Yao et al. (2018), https://arxiv.org/abs/1802.02538
    """
    structure, drawn = subject.run.structure, guessed(subject)
    if not drawn:
        reason = "All latents are summed out, which is exact." if structure.latents else (
            "The story has no latents."
        )  # fmt: skip
        return _skipped(subject, reason, "not applicable")
    points = [site.name for site in drawn if site.point]
    if points and len(points) == len(drawn) and not any(site.local for site in drawn):
        reason = f"The guide gives a single value of {points[0]!r}, as of a parameter."
        return _skipped(subject, reason, "not applicable")
    point = next((site.name for site in drawn if site.local and site.point), None)
    if point is not None:
        reason = f"The guide gives one value of {point!r} and no posterior to calibrate."
        return _skipped(subject, reason)
    if not subject.batch:
        reason = "The programs hold their data themselves, so that no others can be simulated."
        return _skipped(subject, reason)
    if not any(site.local for site in drawn):
        return _by_fits(subject) if subject.level == "full" else []
    if structure.keeps_rows or not structure.splits_rows:
        reason = f"The guide may know no posterior of simulated data: {structure.needs_all}."
        return _skipped(subject, reason)
    found = ranked(subject, SIMULATIONS[subject.level])
    advice = Advice.of(subject.run)
    return [uniform(found, advice), covered(found, advice)]


def _by_fits(subject: Subject) -> list[Finding]:
    run = subject.run
    exchangeable = getattr(run.story, "exchangeable", None)
    if exchangeable:
        reason = f"The {exchangeable} can change places, so that no truth has a rank."
        return _skipped(subject, reason)
    seconds = run.history[-1].seconds if len(run.history) else 0.0
    if LEAST_FITS * seconds <= subject.budget:
        found, seconds = refitted(subject)
        if len(found) >= LEAST_FITS:
            advice = Advice.of(run)
            return [uniform(found, advice, by_fits=True), covered(found, advice)]
    reason = (
        f"Needs {LEAST_FITS} fits to simulated data, about {1.2 * LEAST_FITS * seconds:.0f} s: "
        f"raise the budget, which is {subject.budget:g} s."
    )
    return _skipped(subject, reason)


def uniform(found: Ranked, advice: Advice, by_fits: bool = False) -> Finding:
    """Whether ranks are uniform; see :func:`calibration`.

    Args:
        found: Ranks of the truths.
        advice: What can be changed of the guide.
        by_fits: Whether each is of a fit of its own: then few, and held for asymmetry as well.
    """
    tested, count = uniformity(found.ranks), len(found.names)
    tests = 2 * count if by_fits else count
    p_values = (tests * tested.p_value).clamp(max=1.0)
    limits = [LIKELIHOOD_WITHIN if n == LIKELIHOOD else LATENTS_WITHIN for n in found.names]
    skew, p_skew = asymmetry(found.ranks)
    statuses: list[Status] = []
    for i, within in enumerate(limits):
        statuses.append(_status(tested.distance[i].item(), p_values[i].item(), *within))
        if by_fits:
            # A shift takes the ends of the ranks twice as far from each other as from uniform.
            skewed = _status(skew[i].item() / 2, tests * p_skew[i].item(), *within)
            statuses[i] = _worse(statuses[i], skewed)
    weight = tested.distance / torch.tensor([bad for _, bad in limits], dtype=torch.float64)
    worst = max(range(count), key=lambda i: (_ORDER.index(statuses[i]), weight[i].item()))
    figures = [tested.distance, p_values, skew, bias(found.scores), width(found.scores)]
    told = "distance, p-value, asymmetry, shift and scale of "
    details = {
        told + name: values
        for name, values in zip(found.names, torch.stack(figures, 1).tolist(), strict=True)
    }
    for i in weight.topk(min(count, DRAWN)).indices.tolist():
        details[f"ECDF of {found.names[i]}"] = _rounded(tested.ecdf[:, i])
    details["ECDF at"] = _rounded(tested.grid)
    details |= {"band from": _rounded(tested.lower), "band to": _rounded(tested.upper)}
    done = f"{len(found):,} {'fits to simulated data' if by_fits else 'simulations'}"
    blind = f" (so many see distances from {1.63 / len(found) ** 0.5:.2f} on)" if by_fits else ""
    passes = f"In {done} the truths lie among the draws of their posterior as they should{blind}."
    if LIKELIHOOD in found.names:
        added = tested.distance[found.names.index(LIKELIHOOD)].item()
        if added > LATENTS_WITHIN[0]:
            passes += (
                f" Ranks of the log-likelihood, which add up what is wrong in all dimensions, are "
                f"off by {added:.2g}, of which up to {LIKELIHOOD_WITHIN[0]:g} passes."
            )
    passes += by_chance(tested.distance[worst].item(), limits[worst][0])
    meaning, remedy = (
        (passes, "") if statuses[worst] == "pass" else _direction(found, worst, advice)
    )
    return Finding(
        "calibration",
        tested.distance[worst].item(),
        f"from uniform, {found.names[worst]}",
        f"at most {limits[worst][0]:g}, or by chance",
        statuses[worst],
        meaning,
        remedy,
        "Yao et al. 2018" if by_fits else "Talts et al. 2018; Modrák et al. 2023",
        details,
    )


def covered(found: Ranked, advice: Advice) -> Finding:
    """Whether central intervals hold as many truths as they say; see :func:`calibration`."""
    from scipy.stats import norm

    scalars = [i for i, name in enumerate(found.names) if name != LIKELIHOOD]
    shares, errors = coverage(found.ranks[:, scalars])
    off = (shares - torch.tensor(LEVELS, dtype=torch.float64)[:, None]).abs()
    worst, scalar = divmod(int(off.argmax()), len(scalars))
    figure, named = off[worst, scalar].item(), found.names[scalars[scalar]]
    p_value = off.numel() * float(2 * norm.sf(figure / errors[worst].item()))
    status = _status(figure, p_value, *COVERAGE_WITHIN)
    details = {f"share of {found.names[i]}": shares[:, j].tolist() for j, i in enumerate(scalars)}
    return Finding(
        "coverage",
        figure,
        f"at {LEVELS[worst]:.0%}, {named}",
        f"at most {COVERAGE_WITHIN[0]:g}, or by chance",
        status,
        f"Intervals hold about as many truths as they say.{by_chance(figure, COVERAGE_WITHIN[0])}"
        if status == "pass"
        else f"Intervals of {LEVELS[worst]:.0%} of {named} hold {shares[worst, scalar]:.0%} of the "
        "truths.",
        "" if status == "pass" else _direction(found, scalars[scalar], advice)[1],
        "Talts et al. 2018",
        {"levels": list(LEVELS), "errors": errors.tolist(), **details},
    )


_ORDER: tuple[Status, ...] = ("pass", "warn", "fail")


def _rounded(values: Tensor) -> list[float]:
    """As exact as a figure shows it."""
    return values.double().round(decimals=5).tolist()


def _status(figure: float, p_value: float, good: float, bad: float) -> Status:
    """By size, as far as chance does not explain it."""
    if p_value >= 0.01:
        return "pass"
    status = grade(figure, good, bad)
    return "warn" if status == "fail" and p_value >= 0.001 else status


def _worse(one: Status, other: Status) -> Status:
    return one if _ORDER.index(one) >= _ORDER.index(other) else other


def _direction(found: Ranked, scalar: int, advice: Advice) -> tuple[str, str]:
    """In which way the draws of a scalar are wrong, and what to do."""
    name, ranks = found.names[scalar], found.ranks[:, scalar : scalar + 1]
    longer = "fit for longer with kl_weight=1, or give the guide more room"
    if name == LIKELIHOOD:
        worse, distance = ranks.mean().item(), from_uniform(ranks).item()
        if abs(worse - 0.5) < distance / 4:
            return (
                "Draws of the guide explain the data as well as the truths do on average, and yet "
                f"not as often well or badly: ranks are off by {distance:.2f}.",
                f"{longer.capitalize()}.",
            )
        if worse > 0.5:
            return (
                f"Draws of the guide explain the data worse than the truths do, in {worse:.0%} of "
                "comparisons: it forgets some of what the data say.",
                f"See that the encoder takes in all of the data; {longer}.",
            )
        return (
            f"Draws of the guide explain the data better than the truths do, in {1 - worse:.0%} of "
            "comparisons: it is surer than the posterior.",
            f"Widen it: fit for longer with kl_weight=1, or {advice.correlations}.",
        )
    scores, distance = found.scores[:, scalar : scalar + 1], from_uniform(ranks).item()
    shift, scale = bias(scores).item(), width(scores).item()
    if not _of_a_normal(scores, shift, scale) <= distance / 2:
        return (
            f"Draws of {name} are spread otherwise than the posterior: ranks are off by "
            f"{distance:.2f}, and neither a shift nor a wrong scale explains that.",
            _otherwise(advice),
        )
    if 0.4 * abs(shift * scale) >= 0.24 * abs(math.log(scale)):  # what either does to the ranks
        return (
            f"Draws of {name} are too {'low' if shift > 0 else 'high'}: the truths lie "
            f"{abs(shift):.2f} of their standard deviations {'above' if shift > 0 else 'below'}.",
            f"{sentence(advice.better_means)}.",
        )
    (held,) = coverage(ranks, (0.9,))[0][0].tolist()
    return (
        f"Intervals of {name} are too {'narrow' if scale < 1 else 'wide'}: those of 90% hold "
        f"{held:.0%} of the truths; the guide's scale is off by a factor of {scale:.2f}.",
        f"{'Widen' if scale < 1 else 'Narrow'} them: fit for longer with kl_weight=1, or "
        f"{advice.correlations}.",
    )


def _of_a_normal(scores: Tensor, shift: float, scale: float) -> float:
    """How far scores are from those that a normal posterior has under such a shift and scale."""
    standard = (scores[scores.isfinite()] - shift) * scale
    return from_uniform(torch.special.ndtr(standard)[:, None]).item() if len(standard) else 1.0


def _skipped(subject: Subject, reason: str, status: Status = "skipped") -> list[Finding]:
    return [subject.skipped(name, reason, status) for name in CALIBRATION.findings]


def _cost(subject: Subject) -> Cost:
    structure, drawn = subject.run.structure, guessed(subject)
    if any(site.local and not site.point for site in drawn) and structure.splits_rows:
        count = SIMULATIONS[subject.level]
        return Cost(f"{count:,} simulations, {DRAWS} draws each", count * (DRAWS + 1))
    if drawn and subject.batch and subject.level == "full":
        return Cost(f"fits to simulated data, for up to {subject.budget:g} s")
    return NOTHING


CALIBRATION = Check(
    "do intervals hold as many truths as they say",
    ("calibration", "coverage"),
    calibration,
    _cost,
)
