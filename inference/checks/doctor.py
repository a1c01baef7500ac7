"""Are the programs of a run what they are meant to be? What the doctor finds, in one row."""

from __future__ import annotations

import math

from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.doctor import look_over
from ppl_gen.inference.verdict import Finding, Status


def healthy(subject: Subject) -> Finding:
    """How many faults the doctor finds in the fitted pair, on these rows.

    The questions are those of :func:`ppl_gen.doctor`, asked of the fitted programs: data and terms
    that are not finite (of all rows), rows that leak into others, terms that count too often or too
    seldom, parameters without a gradient, a guide that does not read the data, supports. It is as
    bad as the worst of them, whose sentence it gives; ``ppl_gen.doctor(run.story, x)`` gives all.
    """
    run, name = subject.run, "doctor"
    if run.structure.keeps_rows and not subject.is_of_the_fit:
        reason = "The guide has a code for each datum of the fit alone: check(run, data.train)."
        return subject.skipped(name, reason)
    size = run.data.rows
    with run.pair.active():
        found = look_over(
            run.pair,
            run.structure,
            subject.batch,
            run.kwargs,
            size=size if run.structure.takes_batches else max(1, subject.rows),
            rows_a_step=run.settings.batch_size or size,
            seed=subject.seed,
        )
    return summary(found)


def summary(found: tuple[Finding, ...]) -> Finding:
    """The findings of all looks as one: the worst, and how many more there are."""
    faults = [finding for finding in found if finding.status in ("fail", "warn")]
    made = [finding for finding in found if finding.status == "pass"]
    left = [finding for finding in found if finding.status == "skipped"]
    if not faults and not made:
        return Finding("doctor", math.nan, "", "", "skipped", left[0].meaning, "", "")
    details = {finding.check: [finding.figure] for finding in faults}
    unseen = f" {len(left)} could not be asked: {left[0].meaning}" if left else ""
    if not faults:
        said = f"Of {len(made)} questions to the programs none finds a fault.{unseen}"
        return Finding("doctor", 0.0, "faults", "none", "pass", said, "", "")
    worst = next((finding for finding in faults if finding.status == "fail"), faults[0])
    status: Status = worst.status
    more = f" And {len(faults) - 1} more: see ppl_gen.doctor." if len(faults) > 1 else ""
    return Finding(
        "doctor",
        float(len(faults)),
        "faults",
        "none",
        status,
        f"{worst.meaning}{more}",
        worst.remedy,
        worst.source,
        details,
        of_story=any(finding.check != "gradients" for finding in faults),
    )


DOCTOR = Check(
    "are the programs what they are meant to be",
    ("doctor",),
    lambda subject: [healthy(subject)],
    lambda subject: Cost(f"both programs on {subject.rows:,} rows", subject.rows),
)
