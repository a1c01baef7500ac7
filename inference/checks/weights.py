"""What the weights of the guide's draws say: evidence, the gap below it, and whom to trust."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ppl_gen.inference.checks.advice import GENERIC, Advice, sentence
from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.estimators import Evidence, khat_threshold
from ppl_gen.inference.passes import evidence_of, joint_evidence_of
from ppl_gen.inference.verdict import Finding, Status, grade

# A gap so small, in nats, that what its weights lack in the tail hardly matters.
NEAR = 0.05
_WEIGH = "Weigh its draws (log_p - log_q in sample_stats) before you use them"
MAPPED = 1000  # data whose k-hat is kept one by one


def posterior_findings(subject: Subject) -> list[Finding]:
    """Evidence, gap and k-hat, from one set of importance weights."""
    run, structure = subject.run, subject.run.structure
    names = ("evidence", "gap", "k-hat")
    local = [s for s in structure.latents if s.local]
    if structure.latents and not local and structure.takes_new_rows and structure.splits_rows:
        return _estimated(subject)
    points = [s.name for s in (local or structure.latents) if s.point]
    reason = ""
    if not structure.latents:
        reason = "The story has no latents."
    elif structure.unscored:
        reason = f"There are no densities to weigh: {structure.unscored}."
    elif points:
        reason = f"The guide gives one value of {points[0]!r} and no posterior to weigh."
    elif local and not structure.splits_rows:
        reason = "The story takes its data whole, so no datum has a weight of its own."
    elif not local and not subject.is_of_the_fit:
        reason = (
            "All latents are global: check them on the data of the fit, check(run, data.train)."
        )
    if reason:
        return [subject.skipped(name, reason) for name in names]
    advice = Advice.of(run)
    if not local:
        found = joint_evidence_of(
            run, subject.data, _draws(subject), memory=subject.memory, seed=subject.seed
        )
        return [
            evidence(found, "evidence of all data"),
            gap(found, advice),
            joint_khat(found, advice),
        ]
    found = evidence_of(run, subject.data, subject.draws, memory=subject.memory, seed=subject.seed)
    named = "predictive density" if structure.has_globals else "evidence"
    return [
        evidence(found, f"{named} per datum"),
        gap(found, advice),
        khat(found, subject.numbers, advice),
    ]


def _draws(subject: Subject) -> int:
    """How many draws to weigh: of one tail for all data more cost little, and tell it better."""
    if any(site.local for site in subject.run.structure.latents):
        return subject.draws
    return max(subject.draws, min(10 * subject.draws, 10**7 // max(1, subject.rows)))


def _cost(subject: Subject) -> Cost:
    draws = _draws(subject)
    return Cost(f"{draws:,} draws of {subject.rows:,} rows", draws * subject.rows)


def _estimated(subject: Subject) -> list[Finding]:
    """Where all latents are single values, as parameters are, the likelihood is known exactly."""
    run = subject.run
    found = evidence_of(run, subject.data, 1, memory=subject.memory, seed=subject.seed, khat=False)
    names = ", ".join(repr(site.name) for site in run.structure.latents)
    reason = (
        f"The guide gives single values of {names}, as of parameters: there is no posterior of "
        "them to be near, and what they leave open is not known."
    )
    return [
        evidence(found, "likelihood per datum at the estimates"),
        *(subject.skipped(name, reason, "not applicable") for name in ("gap", "k-hat")),
    ]


def evidence(found: Evidence, named: str) -> Finding:
    """Mean log evidence per datum, in nats, with the error that the draws leave.

    With global latents the figure is the log predictive density under their posterior. It passes
    with a standard error of at most 0.1 nats, if k-hat lets one believe that (our thresholds).

    Reference:
        Burda et al. (2016), section 3, https://arxiv.org/abs/1509.00519
    """
    if found.draws == 1:  # nothing is drawn where every latent is a single value
        sentence = f"The log {named} is {_nats(found.mean)} nats, without error."
        good = "finite"
        status: Status = "pass" if math.isfinite(found.mean) else "fail"
        return Finding("evidence", found.mean, "nats", good, status, sentence, "", "")
    believed = not _missed(found).double().mean() > 0.2
    exact = found.mean_error <= 0.1 and believed
    return Finding(
        "evidence",
        found.mean,
        "nats",
        "error at most 0.1 nats",
        "pass" if exact else "warn",
        f"The log {named} is {_nats(found.mean)} nats, with a standard error of "
        f"{found.mean_error:.2g} from the draws; its estimate errs downwards."
        if believed
        else f"The log {named} is above {_nats(found.mean)} nats; by how much these draws cannot "
        "say, as k-hat shows.",
        "" if exact else "Mend the guide first." if not believed else "Take more draws.",
        "Burda et al. 2016",
        {"error": [found.mean_error]},
    )


def gap(found: Evidence, advice: Advice) -> Finding:
    r"""Mean distance from the ELBO up to the evidence, in nats: KL(q(z|x) || p(z|x)).

    It passes up to 0.5 nats, where guide and posterior differ by at most 0.5 in total variation
    (Pinsker's inequality, :math:`\mathrm{TV} \le \sqrt{\mathrm{KL} / 2}`), and fails beyond 2,
    where that bound says nothing any more (both limits are ours). Since the evidence errs
    downwards, so does the gap.

    Reference:
        Cremer et al. (2018), https://arxiv.org/abs/1801.03558
    """
    figure = found.gap.mean().item()
    distance = min(1.0, math.sqrt(max(figure, 0.0) / 2))
    missed = _missed(found).double().mean().item()
    weigh = "Fit " if missed > 0.2 else f"{_WEIGH}; fit "
    return Finding(
        "gap",
        figure,
        "nats",
        "at most 0.5 nats",
        grade(figure, 0.5, 2.0),
        f"The guide lies {_nats(figure)} nats from the posterior, a distance of at most "
        f"{distance:.2f} in total variation.",
        "" if figure <= 0.5 else f"{weigh}for longer, or {advice.correlations}.",
        "Pinsker's inequality; Cremer et al. 2018",
        {"largest": [found.gap.max().item()]},
    )


def khat(found: Evidence, numbers: Tensor | None = None, advice: Advice = GENERIC) -> Finding:
    """Share of data whose importance weights have too heavy a tail, by Pareto k-hat.

    It passes up to 5 % of the data and fails beyond 20 % (our limits); the threshold of a datum is
    that of Vehtari et al. Data whose gap is below 0.05 nats count for a warning alone: a guide so
    near the posterior has a heavy tail, but little in it. The details hold k-hat, brought between
    -10 and 10, and effective draws of each datum; of more than 1,000, of that many evenly spread
    from the worst to the best.

    Args:
        found: The weights' evidence, and k-hat, of each row.
        numbers: What the rows are called, ``(N,)``; by default they are numbered from 0.
        advice: What can be changed of the guide.

    Reference:
        Vehtari et al. (2024), https://arxiv.org/abs/1507.02646; Yao et al. (2018),
        https://arxiv.org/abs/1802.02538
    """
    threshold = khat_threshold(found.draws)
    if found.khat.isnan().any():
        reason = f"Needs at least 25 draws a datum, got {found.draws}."
        return Finding("k-hat", math.nan, "", "", "skipped", reason, "Take more draws.", "")
    over, missed = found.khat > threshold, _missed(found).double().mean().item()
    share = over.double().mean().item()
    status = grade(share, 0.05, 0.20)
    near = missed <= 0.20
    if status == "fail" and near:
        status = "warn"
    if numbers is None or len(numbers) != len(found.khat):  # of a program with rows of its own
        numbers = torch.arange(len(found.khat))
    worst = found.khat.argsort(descending=True)[:5]
    return Finding(
        "k-hat",
        share,
        "of the data",
        f"at most 0.05 of the data above {threshold:.2f}",
        status,
        "The guide covers the posterior of every datum well enough to reweigh its draws."
        if share == 0
        else f"For {share:.1%} of the data the posterior has heavier tails than the guide, so that "
        f"its draws cannot be reweighed; but little lies there: {1 - missed / share:.0%} of these "
        f"are within {NEAR} nats of their posterior. Their draws serve as they are, but for tails."
        if near and status != "pass"
        else f"For {share:.1%} of the data the guide misses so much of the posterior that its "
        "draws cannot be reweighed.",
        ""
        if share <= 0.05
        else f"Where tails matter, {advice.another_shape}."
        if near
        else f"Distrust the latents of rows such as {numbers[worst].tolist()}; give the guide "
        f"heavier tails, or {advice.correlations}.",
        "Vehtari et al. 2024; Yao et al. 2018",
        {
            "worst rows": numbers[worst].double().tolist(),
            "worst k-hat": found.khat[worst].tolist(),
            **_of_each(found, numbers),
        },
    )


def _missed(found: Evidence) -> Tensor:
    """Of which data the guide misses more than tails in which little lies."""
    return (found.khat > khat_threshold(found.draws)) & ~(found.gap < NEAR)


def _of_each(found: Evidence, numbers: Tensor) -> dict[str, list[float]]:
    """What a map of trust is drawn from."""
    order = found.khat.argsort(descending=True)
    places = torch.linspace(0, len(order) - 1, min(len(order), MAPPED)).round().long()
    rows = order[places].sort().values
    return {
        "threshold": [khat_threshold(found.draws)],
        "draws": [float(found.draws)],
        "rows": numbers[rows].double().tolist(),
        "k-hat": found.khat[rows].double().clamp(-10, 10).round(decimals=3).tolist(),
        "ess": found.ess[rows].double().round(decimals=1).tolist(),
    }


def _nats(figure: float) -> str:
    return f"{figure:.2f}" if abs(figure) < 1e6 else f"{figure:.3g}"


def joint_khat(found: Evidence, advice: Advice) -> Finding:
    """Pareto k-hat of the weights of the global latents, one figure for all data.

    It passes below 0.5, and fails above the threshold for so many draws. Where the gap is below
    0.05 nats (our limit) it passes up to the threshold, and warns above: a guide so near the
    posterior has a heavy tail, but little in it.

    Reference:
        Yao et al. (2018), https://arxiv.org/abs/1802.02538
    """
    threshold, figure = khat_threshold(found.draws), found.khat.item()
    if math.isnan(figure):
        return khat(found)
    status = grade(figure, 0.5, threshold)
    near = bool((found.gap < NEAR).all())
    if near and status != "pass":
        status = "pass" if figure <= threshold else "warn"
    return Finding(
        "k-hat",
        figure,
        "",
        f"at most 0.5, usable to {threshold:.2f}",
        status,
        "The guide covers the posterior of the global latents well enough to reweigh its draws."
        if status == "pass"
        else "The guide covers the posterior of the global latents but just: its draws can be "
        f"reweighed up to a k-hat of {threshold:.2f}, with some noise."
        if figure <= threshold
        else "The posterior of the global latents has heavier tails than the guide, so that its "
        f"draws cannot be reweighed; but little lies there, as the gap of {found.gap.item():.2g} "
        "nats says: they serve as they are, but for tails."
        if near
        else "The guide misses so much of the posterior of the global latents that its draws "
        "cannot be reweighed.",
        ""
        if status == "pass"
        else f"Where tails matter, {advice.another_shape}."
        if near
        else f"{sentence(advice.correlations)}, or fit for longer.",
        "Yao et al. 2018",
        {"draws": [float(found.draws)]},
    )


WEIGHTS = Check(
    "how near is the guide, by the weights of its draws",
    ("evidence", "gap", "k-hat"),
    posterior_findings,
    _cost,
)
