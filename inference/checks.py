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
from ppl_gen.errors import StoryError
from ppl_gen.inference.codes import LEAST_ROWS, active, code_means, drawn_codes, has_codes
from ppl_gen.inference.findings import (
    converged,
    evidence,
    gap,
    grade,
    joint_khat,
    khat,
    matches_prior,
    settled,
)
from ppl_gen.inference.memory import MEMORY
from ppl_gen.inference.passes import evidence_of, joint_evidence_of, plan
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.two_sample import classifier_test, mmd_test
from ppl_gen.inference.verdict import Finding, Status, Verdict
from ppl_gen.inference.window import Window

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

REPLICATES = 200


def check(
    run: Run, data: Any = None, *, draws: int = 1000, memory: int = MEMORY, seed: int = 0
) -> Verdict:
    """Look at a fitted run from several sides and say whether to believe it.

    The checks: ``evidence`` (importance-sampled, with its error), ``gap`` (how far the ELBO lies
    below it), ``k-hat`` (where the guide misses the posterior), ``active units`` (whether the code
    is used), ``aggregate posterior`` (whether the codes of all data look like the prior),
    ``posterior predictive`` (whether replicated data look like the data) and ``settled`` (whether
    the fit had come to rest). Each is a function, here or in
    :mod:`ppl_gen.inference.findings`, that says how to read it.

    Args:
        run: The fitted story.
        data: Rows to check it on, best ones it has not seen. Of a data set the test part is
            taken, or the train part if all latents are global and have a posterior, which belongs
            to it.
        draws: Draws of the guide a row.
        memory: Bytes that a pass may take.
        seed: Of the draws.

    Returns:
        The verdict, which is also kept as ``run.verdict``.
    """
    if isinstance(data, Dataset):
        data = data.test if run.structure.takes_new_rows else data.train
    subject = _Subject(run, data, draws, memory, seed)
    verdict = Verdict(
        findings=(
            *posterior_findings(subject),
            active_units(subject),
            aggregate_posterior(subject),
            posterior_predictive(subject),
            _at_rest(run),
        ),
        data=len(subject.batch[0]) if subject.batch else 0,
        draws=draws,
    )
    run.verdict = verdict
    return verdict


def _at_rest(run: Run) -> Finding:
    if run.settings.method == "em":
        return converged(run.history, run.settings.tolerance)
    return settled(run.history)


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


def _estimated(subject: _Subject) -> list[Finding]:
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


def active_units(subject: _Subject) -> Finding:
    """How many of the code's dimensions answer to the data: :func:`ppl_gen.inference.codes.active`.

    It passes if half of them do, and fails if none does (our limits): the code has collapsed onto
    the prior. The details hold the KL of each dimension where prior and guide both factorise, in
    nats.

    Reference:
        Burda et al. (2016), section 5.1, https://arxiv.org/abs/1509.00519
    """
    run = subject.run
    if not has_codes(run):
        reason = "The story has no code of its own for each datum."
        return subject.skipped("active units", reason, "not applicable")
    if reason := _without_codes(subject):
        return subject.skipped("active units", reason)
    means, divergences = code_means(run, subject.batch, subject.memory, subject.seed)
    if not means:
        return subject.skipped("active units", "The guide's laws have no means to compare.")
    if len(next(iter(means.values()))) < 2:
        return subject.skipped("active units", "Needs at least 2 data, got 1.")
    details = {f"variance of {name}": mean.var(0).tolist() for name, mean in means.items()}
    for name, divergence in divergences.items():
        details[f"KL of {name}"] = divergence.mean(0).tolist()
    answers, total = active(means)
    share = answers / total
    return Finding(
        "active units",
        float(answers),
        f"of {total}",
        f"at least {math.ceil(total / 2)} of {total}",
        "fail" if not answers else "pass" if share >= 0.5 else "warn",
        f"{answers} of {total} dimensions of the code answer to the data.",
        ""
        if share >= 0.5
        else "Free bits, a KL warm-up, a smaller code or a weaker decoder bring more into use.",
        "Burda et al. 2016",
        details,
    )


def aggregate_posterior(subject: _Subject) -> Finding:
    """Whether the codes of all data together look like draws of the prior.

    See :func:`ppl_gen.inference.findings.matches_prior`. One draw of each datum's code is
    compared with one draw of its prior, which need not have a density. Where the story leaves a
    code's prior out of its bound, as an autoencoder does, nothing has drawn the two together.
    """
    run, name = subject.run, "aggregate posterior"
    if not has_codes(run):
        return subject.skipped(
            name, "The story has no code of its own for each datum.", "not applicable"
        )
    reason = _without_codes(subject)
    rows = 0 if reason else Window(run.pair, run.structure, run.kwargs).size(subject.batch)
    if not reason and rows < LEAST_ROWS:
        reason = f"Needs at least {LEAST_ROWS} data, got {rows}."
    if reason:
        return subject.skipped(name, reason)
    try:
        drawn = drawn_codes(run, subject.batch, subject.seed)
    except StoryError as error:
        return subject.skipped(name, f"Codes and prior cannot both be drawn: {error}.")
    if not drawn:
        return subject.skipped(name, "No code is a real number.", "not applicable")
    return matches_prior(
        {site: classifier_test(*pair, seed=subject.seed) for site, pair in drawn.items()},
        {site: mmd_test(*pair, seed=subject.seed) for site, pair in drawn.items()},
    )


def _without_codes(subject: _Subject) -> str:
    """Why the guide has no code for these rows; empty if it has."""
    if subject.run.structure.keeps_rows and subject.run.data.fingerprint != subject.fingerprint:
        return "The guide has a code for each datum of the fit alone: check(run, data.train)."
    return ""


def posterior_predictive(subject: _Subject) -> Finding:
    r"""Whether data replicated from the posterior have the mean and spread of the data.

    For each statistic :math:`T`, the share of replicated data sets with :math:`T(x^{rep}) \ge
    T(x)`, made two-sided; the figure is the smallest over statistics, times their number. Below
    0.05 it warns if the statistic is also off by more than 1 % of the data's standard deviation,
    and fails beyond 10 %: with many data any model is found out, however small its fault (these
    margins are ours). The replicates come from latents that have seen the data, so that the figure
    errs towards 1; and the statistics pool all elements of a site, so that faults of single columns
    that cancel are not seen.

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
    status: Status = "pass" if worst >= 0.05 else grade(off, 0.01, 0.1)
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
        "the data do (of labels in M2: proportions='learned').",
        "Gelman et al. 1996",
        details,
    )


def _statistics(subject: _Subject) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Mean and standard deviation of every observed site: of the data, and of replicates."""
    run = subject.run
    draws = min(subject.draws, REPLICATES)
    sums: dict[str, Tensor] = {}
    data: dict[str, Tensor] = {}
    holes = False
    with run.pair.active(), seeded(subject.seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        rows, together = plan(sampler, subject.batch, draws, subject.memory, predict=True)
        for name, value in sampler.observed(subject.batch).items():
            flat = value.flatten().double().cpu()
            data[name] = flat[~flat.isnan()]
            holes = holes or len(data[name]) < len(flat)
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
                    given = sampler.observed(batch) if holes else {}
                for name, value in drawn.items():
                    if holes:  # what was not observed has nothing to be compared with
                        value = value[:, ~given[name].isnan()]
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
