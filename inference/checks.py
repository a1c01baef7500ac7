"""The checks: each looks at a fitted run from one side and says what it found.

Thresholds that have no published source are ours, and say so. Every check that cannot be made is
reported as skipped, with the reason; it never passes for lack of evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ppl_gen.data import Dataset, as_part
from ppl_gen.inference.evidence import Evidence, khat_threshold
from ppl_gen.inference.history import History
from ppl_gen.inference.passes import MEMORY, evidence_of, joint_evidence_of, plan
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.verdict import Finding, Status, Verdict

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

REPLICATES = 200


def check(
    run: Run, data: Any = None, *, draws: int = 1000, memory: int = MEMORY, seed: int = 0
) -> Verdict:
    """Look at a fitted run from several sides and say whether to believe it.

    The checks: ``evidence`` (importance-sampled, with its error), ``gap`` (how far the ELBO lies
    below it), ``k-hat`` (where the guide misses the posterior), ``active units`` (whether the code
    is used), ``posterior predictive`` (whether replicated data look like the data) and ``settled``
    (whether the fit had come to rest). Each is a function of this module that says how to read it.

    Args:
        run: The fitted story.
        data: Rows to check it on, best ones it has not seen. Of a data set the test part is
            taken, or the train part if all latents are global, whose posterior belongs to it.
        draws: Draws of the guide a row.
        memory: Bytes that a pass may take.
        seed: Of the draws.

    Returns:
        The verdict, which is also kept as ``run.verdict``.
    """
    if isinstance(data, Dataset):
        data = data.test if any(s.local for s in run.structure.latents) else data.train
    subject = _Subject(run, data, draws, memory, seed)
    verdict = Verdict(
        findings=(
            *posterior_findings(subject),
            active_units(subject),
            posterior_predictive(subject),
            settled(run.history),
        ),
        data=len(subject.batch[0]) if subject.batch else 0,
        draws=draws,
    )
    run.verdict = verdict
    return verdict


@dataclass
class _Subject:
    """A run and the data it is checked on."""

    run: Run
    data: Any
    draws: int
    memory: int
    seed: int

    def __post_init__(self) -> None:
        self.batch = () if self.data is None else self.run.batch(self.data)

    @property
    def fingerprint(self) -> str | None:
        """That of the data, to compare with the run's."""
        return None if self.data is None else as_part(self.data).fingerprint

    def skipped(self, check: str, reason: str, status: Status = "skipped") -> Finding:
        """A finding for a check that cannot be made."""
        return Finding(check, math.nan, "", "", status, reason, "", "")


def posterior_findings(subject: _Subject) -> list[Finding]:
    """Evidence, gap and k-hat, from one set of importance weights."""
    run, structure = subject.run, subject.run.structure
    names = ("evidence", "gap", "k-hat")
    local = [s for s in structure.latents if s.local]
    points = [s.name for s in (local or structure.latents) if s.point]
    reason = ""
    if not structure.latents:
        reason = "The story has no latents."
    elif points:
        reason = f"The guide gives one value of {points[0]!r} and no posterior to weigh."
    elif local and not structure.splits_rows:
        reason = "The story takes its data whole, so no datum has a weight of its own."
    elif not local and run.data.fingerprint != subject.fingerprint:
        reason = (
            "All latents are global: check them on the data of the fit, check(run, data.train)."
        )
    if reason:
        return [subject.skipped(name, reason) for name in names]
    if not local:
        rows = max(1, len(subject.batch[0]) if subject.batch else 1)
        # One tail for all data: more draws cost little and tell it better.
        draws = max(subject.draws, min(10 * subject.draws, 10**7 // rows))
        found = joint_evidence_of(
            run, subject.data, draws, memory=subject.memory, seed=subject.seed
        )
        return [evidence(found, "evidence of all data"), gap(found), joint_khat(found)]
    found = evidence_of(run, subject.data, subject.draws, memory=subject.memory, seed=subject.seed)
    named = "predictive density" if structure.has_globals else "evidence"
    return [evidence(found, f"{named} per datum"), gap(found), khat(found)]


def evidence(found: Evidence, named: str) -> Finding:
    """Mean log evidence per datum, in nats, with the error that the draws leave.

    With global latents the figure is the log predictive density under their posterior. It passes
    with a standard error of at most 0.1 nats, if k-hat lets one believe that (our thresholds).

    Reference:
        Burda et al. (2016), section 3, https://arxiv.org/abs/1509.00519
    """
    believed = not (found.khat > khat_threshold(found.draws)).double().mean() > 0.2
    exact = found.mean_error <= 0.1 and believed
    return Finding(
        "evidence",
        found.mean,
        "nats",
        "error at most 0.1 nats",
        "pass" if exact else "warn",
        f"The log {named} is {found.mean:.2f} nats, with a standard error of "
        f"{found.mean_error:.2g} from the draws; its estimate errs downwards."
        if believed
        else f"The log {named} is above {found.mean:.2f} nats; by how much these draws cannot say, "
        "as k-hat shows.",
        "" if exact else "Mend the guide first." if not believed else "Take more draws.",
        "Burda et al. 2016",
        {"error": [found.mean_error]},
    )


def gap(found: Evidence) -> Finding:
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
    return Finding(
        "gap",
        figure,
        "nats",
        "at most 0.5 nats",
        _grade(figure, 0.5, 2.0),
        f"The guide lies {figure:.2f} nats from the posterior, a distance of at most "
        f"{distance:.2f} in total variation.",
        ""
        if figure <= 0.5
        else "Weigh its draws (log_p - log_q in sample_stats) before you use them; fit for "
        "longer, or give the guide more room (of a VAE, posterior='full').",
        "Pinsker's inequality; Cremer et al. 2018",
        {"largest": [found.gap.max().item()]},
    )


def khat(found: Evidence) -> Finding:
    """Share of data whose importance weights have too heavy a tail, by Pareto k-hat.

    It passes up to 5 % of the data and fails beyond 20 % (our limits); the threshold of a datum is
    that of Vehtari et al.

    Reference:
        Vehtari et al. (2024), https://arxiv.org/abs/1507.02646; Yao et al. (2018),
        https://arxiv.org/abs/1802.02538
    """
    threshold = khat_threshold(found.draws)
    if found.khat.isnan().any():
        reason = f"Needs at least 25 draws a datum, got {found.draws}."
        return Finding("k-hat", math.nan, "", "", "skipped", reason, "Take more draws.", "")
    share = (found.khat > threshold).double().mean().item()
    worst = found.khat.argsort(descending=True)[:5]
    return Finding(
        "k-hat",
        share,
        "of the data",
        f"at most 0.05 of the data above {threshold:.2f}",
        _grade(share, 0.05, 0.20),
        "The guide covers the posterior of every datum well enough to reweigh its draws."
        if share == 0
        else f"For {share:.1%} of the data the guide misses so much of the posterior that its "
        "draws cannot be reweighed.",
        ""
        if share <= 0.05
        else f"Distrust the latents of rows such as {worst.tolist()}; give "
        "the guide heavier tails or more room (of a VAE, posterior='full').",
        "Vehtari et al. 2024; Yao et al. 2018",
        {"worst rows": [float(i) for i in worst], "worst k-hat": found.khat[worst].tolist()},
    )


def joint_khat(found: Evidence) -> Finding:
    """Pareto k-hat of the weights of the global latents, one figure for all data.

    It passes below 0.5, and fails above the threshold for so many draws unless the gap is below
    0.05 nats (our limit): a guide so near the posterior has a heavy tail, but little in it.

    Reference:
        Yao et al. (2018), https://arxiv.org/abs/1802.02538
    """
    threshold, figure = khat_threshold(found.draws), found.khat.item()
    if math.isnan(figure):
        return khat(found)
    status = _grade(figure, 0.5, threshold)
    if status == "fail" and found.gap.item() < 0.05:
        status = "warn"
    return Finding(
        "k-hat",
        figure,
        "",
        f"at most 0.5, usable to {threshold:.2f}",
        status,
        "The guide covers the posterior of the global latents well enough to reweigh its draws."
        if status != "fail"
        else "The guide misses so much of the posterior of the global latents that its draws "
        "cannot be reweighed.",
        ""
        if status == "pass"
        else "Take more draws, fit for longer, or take a guide with correlations, such as "
        "AutoMultivariateNormal.",
        "Yao et al. 2018",
    )


def active_units(subject: _Subject) -> Finding:
    r"""Share of the code's dimensions that answer to the data.

    A unit is active if :math:`\mathrm{Var}_x(\mathrm{E}_q[z_j]) > 0.01`. It passes if half of them
    are, and fails if none is (our limits): the code has collapsed onto the prior. The details hold
    the KL of each dimension where prior and guide both factorise, in nats.

    Reference:
        Burda et al. (2016), section 5.1, https://arxiv.org/abs/1509.00519
    """
    run = subject.run
    sites = [s for s in run.structure.latents if s.local and not s.summed]
    if not sites or not run.structure.splits_rows:
        reason = "The story has no code of its own for each datum."
        return subject.skipped("active units", reason, "not applicable")
    means, divergences = _codes(subject)
    if not means:
        return subject.skipped("active units", "The guide's laws have no means to compare.")
    if len(next(iter(means.values()))) < 2:
        return subject.skipped("active units", "Needs at least 2 data, got 1.")
    active, total, details = 0, 0, {}
    for name, mean in means.items():
        variance = mean.flatten(1).var(0)
        active += int((variance > 0.01).sum())
        total += variance.numel()
        details[f"variance of {name}"] = variance.tolist()
    for name, divergence in divergences.items():
        details[f"KL of {name}"] = divergence.flatten(1).mean(0).tolist()
    share = active / total
    return Finding(
        "active units",
        float(active),
        f"of {total}",
        f"at least {math.ceil(total / 2)} of {total}",
        "fail" if not active else "pass" if share >= 0.5 else "warn",
        f"{active} of {total} dimensions of the code answer to the data.",
        ""
        if share >= 0.5
        else "Free bits, a KL warm-up, a smaller code or a weaker decoder bring more into use.",
        "Burda et al. 2016",
        details,
    )


def _codes(subject: _Subject) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Posterior means of local sites, and KL per dimension where both laws factorise."""
    run = subject.run
    means: dict[str, list[Tensor]] = {}
    divergences: dict[str, list[Tensor]] = {}
    with run.pair.active(), seeded(subject.seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        rows, _ = plan(sampler, subject.batch, 1, subject.memory, predict=False)
        for part in sampler.window.slices(subject.batch, rows):
            with sampler.window.showing(subject.batch, part) as batch:
                codes = sampler.codes(batch)
            for name, (mean, divergence) in codes.items():
                if mean is not None:
                    means.setdefault(name, []).append(mean.cpu())
                if divergence is not None:
                    divergences.setdefault(name, []).append(divergence.cpu())
    return (
        {name: torch.cat(parts) for name, parts in means.items()},
        {name: torch.cat(parts) for name, parts in divergences.items()},
    )


def posterior_predictive(subject: _Subject) -> Finding:
    r"""Whether data replicated from the posterior have the mean and spread of the data.

    For each statistic :math:`T`, the share of replicated data sets with :math:`T(x^{rep}) \ge
    T(x)`, made two-sided; the figure is the smallest over statistics, times their number. It warns
    below 0.05 and fails below 0.01 if the statistic is also off by more than 1 % of the data's
    standard deviation, since with many data any model is found out (that margin is ours).

    Reference:
        Gelman et al. (1996), https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n41/j6n41.htm
    """
    run, name = subject.run, "posterior predictive"
    if not run.structure.observed or not subject.batch:
        return subject.skipped(name, "The story binds no data that could be replicated.")
    observed, replicated = _statistics(subject)
    worst, off, named, details = 1.0, 0.0, "", {}
    for statistic, value in observed.items():
        draws = replicated[statistic]
        above = (1 + (draws >= value).sum().item()) / (1 + len(draws))
        p = min(1.0, 2 * min(above, 1 - above + 1 / (1 + len(draws)))) * len(observed)
        details[statistic] = [value, draws.mean().item()]
        site = statistic.partition(" of ")[2]
        distance = abs(value - draws.mean().item()) / max(observed[f"sd of {site}"], 1e-12)
        if p < worst or (p == worst and distance > off):
            worst, off, named = p, distance, statistic
    status: Status = "pass" if worst >= 0.05 else _grade(off, 0.01, 0.1)
    return Finding(
        name,
        min(1.0, worst),
        "p-value",
        "at least 0.05",
        status,
        "Data replicated from the posterior have the mean and the spread of the data."
        if status == "pass"
        else f"The {named} is off in replicated data, by {off:.1%} of the data's deviation.",
        ""
        if status == "pass"
        else "Fit for longer; if that does not help, choose a likelihood that can say what "
        "the data do.",
        "Gelman et al. 1996",
        details,
    )


def _statistics(subject: _Subject) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Mean and standard deviation of every observed site: of the data, and of replicates."""
    run = subject.run
    draws = min(subject.draws, REPLICATES)
    sums: dict[str, Tensor] = {}
    data: dict[str, Tensor] = {}
    with run.pair.active(), seeded(subject.seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        rows, together = plan(sampler, subject.batch, draws, subject.memory, predict=True)
        for name, value in sampler.observed(subject.batch).items():
            data[name] = value.flatten().double().cpu()
        with sampler.window.showing(
            subject.batch, next(sampler.window.slices(subject.batch, rows))
        ) as first:
            fixed = sampler.draw_globals(first, draws)
        for part in sampler.window.slices(subject.batch, rows):
            for start in range(0, draws, together):
                stop = min(draws, start + together)
                held = {n: v[start:stop] for n, v in fixed.items()}
                with sampler.window.showing(subject.batch, part) as batch:
                    drawn = sampler.draw(batch, stop - start, held, predict=True).predicted
                for name, value in drawn.items():
                    flat = value.reshape(len(value), -1).double().cpu()
                    both = torch.stack([flat.sum(1), flat.square().sum(1)])
                    total = sums.setdefault(name, torch.zeros(2, draws, dtype=torch.float64))
                    total[:, start:stop] += both
    observed, replicated = {}, {}
    for name, total in sums.items():
        whole = data[name]
        mean, square = total / len(whole)
        observed[f"mean of {name}"] = whole.mean().item()
        observed[f"sd of {name}"] = whole.std(correction=0).item()
        replicated[f"mean of {name}"] = mean
        replicated[f"sd of {name}"] = (square - mean.square()).clamp_min(0).sqrt()
    return observed, replicated


def settled(history: History) -> Finding:
    """Whether the ELBO had stopped rising by itself.

    A falling learning rate brings any ELBO to rest, so that only the epochs are looked at in which
    it was at least half its largest. The last tenth of them (at least 10) is cut in two; the figure
    is how much the mean ELBO per datum rose from the first half to the second. It passes below 0.1
    nats or within two standard errors of the noise, and fails from 1 nat on (our limits). A climb
    that is slower than this is not seen.
    """
    elbo = torch.tensor(history["elbo"], dtype=torch.float64)
    rate = torch.tensor(history["learning_rate"], dtype=torch.float64)
    if len(rate):
        fast = (rate >= rate.max() / 2).nonzero().max().item() + 1
        elbo = elbo[: int(fast)]
    elbo = elbo[elbo.isfinite()]
    if len(elbo) < 20:
        reason = f"Needs at least 20 epochs before the learning rate falls, got {len(elbo)}."
        return Finding("settled", math.nan, "", "", "skipped", reason, "", "")
    window = max(10, len(elbo) // 10)
    first, second = elbo[-window:].split([window // 2, window - window // 2])
    rise = (second.mean() - first.mean()).item()
    noise = (first.var() / len(first) + second.var() / len(second)).sqrt().item()
    rising = rise > 0.1 and rise > 2 * noise
    when = "" if len(elbo) == len(history) else " before the learning rate had halved"
    verb = "rose" if rise >= 0 else "fell"
    return Finding(
        "settled",
        rise,
        "nats",
        "below 0.1 nats",
        "pass" if not rising else "warn" if rise < 1 else "fail",
        f"Over the last {window} epochs{when} the ELBO {verb} by {abs(rise):.3f} nats per datum"
        f" (noise {noise:.3f}).",
        "Fit for more epochs." if rising else "",
        "",
        {"noise": [noise]},
    )


def _grade(figure: float, good: float, bad: float) -> Status:
    return "pass" if figure <= good else "warn" if figure <= bad else "fail"
