"""Does the story make data like the data?"""

from __future__ import annotations

import torch
from torch import Tensor

from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.passes import plan
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.verdict import Finding, Status, grade

REPLICATES = 200


def posterior_predictive(subject: Subject) -> Finding:
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


def _statistics(subject: Subject) -> tuple[dict[str, float], dict[str, Tensor]]:
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


POSTERIOR_PREDICTIVE = Check(
    "do replicated data look like the data",
    ("posterior predictive",),
    lambda subject: [posterior_predictive(subject)],
    lambda subject: Cost(
        f"{min(subject.draws, REPLICATES):,} replicates of {subject.rows:,} rows",
        min(subject.draws, REPLICATES) * subject.rows,
    ),
)
