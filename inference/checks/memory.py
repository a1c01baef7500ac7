"""Does the story make anything new, and were the rows of its fit such as it is held against?"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ppl_gen.data import as_part
from ppl_gen.inference.checks.generated import without_rows
from ppl_gen.inference.checks.observations import flat, observed_rows, replicates
from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.codes import LEAST_ROWS
from ppl_gen.inference.estimators.copies import CopyTest, NoveltyTest, copy_test, novelty_test
from ppl_gen.inference.estimators.replicates import FEW_ELEMENTS
from ppl_gen.inference.verdict import Finding, Status, by_chance, grade, worst_of

MOST = 5000  # rows of the fit, and rows held out, that are looked at
NEARER, COPIES, NOVEL = (0.60, 0.75), (0.05, 0.20), (0.03, 0.05)
CHANCE = 0.05
LEAST_HELD_OUT = 30  # with fewer chance hides even what copies every row


def memory(subject: Subject) -> list[Finding]:
    """Whether rows of the fit come back, and whether the data are like them.

    See :func:`copied` and :func:`new`.

    Distances are Euclidean; of up to 20 elements each in units of its deviation among the rows of
    the fit.
    """
    names = ("memory", "training rows")
    held_out = subject.held_out or subject
    if reason := without_rows(held_out, LEAST_HELD_OUT) or _without_train(subject):
        return [subject.skipped(name, reason) for name in names]
    subject = held_out
    chosen, batch = subject.some(MOST)
    fitted = Subject(subject.run, subject.train, seed=subject.seed)
    if fitted.rows < LEAST_ROWS:
        reason = f"Needs at least {LEAST_ROWS} rows of the fit, got {fitted.rows}."
        return [subject.skipped(name, reason) for name in names]
    known, fit = fitted.some(MOST)
    # What is made is 0 or 1 where grey values stand for probabilities: compare like with like.
    both = ((subject, batch), (fitted, fit))
    real, train = (flat(s, observed_rows(s, b, False)) for s, b in both)
    (block,) = replicates(subject, batch, 1, from_prior=True)
    made = flat(subject, {name: value[0] for name, value in block.values.items()})
    made = torch.where(real.isnan(), torch.nan, made)
    test = copy_test(*_comparable(train, made, real, train))
    copies = copied(replace(test, nearest=known[test.nearest]))
    subject.tell(0.7)
    real, train = (flat(s, observed_rows(s, b, False, as_given=True)) for s, b in both)
    novel = novelty_test(*_comparable(train, real, train))
    return [copies, new(replace(novel, farthest=chosen[novel.farthest].tolist()))]


def copied(test: CopyTest) -> Finding:
    """Whether what the story makes lies nearer to the rows of the fit than held-out rows do.

    The figure is the share of pairs in which a row that is made is nearer to its nearest row of the
    fit than a held-out row; 0.5 is fair. It passes up to 0.60, or if chance makes as much in 5 % of
    cases, and fails beyond 0.75; the same holds of the share of copies, with limits of 0.05 and
    0.20. Fair fits gave up to 0.52 and 0.03, a mixture of 60 components for 300 rows 0.73 and
    0.14, a smooth of the rows of the fit with a tenth of the best width 0.88 to 1 (our limits).
    Draws are compared, not expectations: those of a blurring decoder lie nearer to everything. A
    likelihood with much noise hides what its decoder knows by heart.

    Args:
        test: Of rows made, held out, and of the fit.

    Reference:
        Meehan et al. (2020), https://arxiv.org/abs/2004.05675
    """
    near: Status = "pass" if test.p_value >= CHANCE else grade(test.nearer, *NEARER)
    alike: Status = "pass" if test.copies_p_value >= CHANCE else grade(test.copies, *COPIES)
    status = worst_of(near, alike)
    nearest = test.distances.argsort()[:5]
    return Finding(
        "memory",
        test.nearer,
        "nearer",
        f"at most {NEARER[0]:.2f}, or by chance",
        status,
        "What the story makes is no nearer to the rows of its fit than held-out rows are."
        + by_chance(test.nearer, NEARER[0])
        if status == "pass"
        else "What the story makes is nearer to the rows of its fit than a held-out row in "
        f"{test.nearer:.0%} of cases (fair: 50%); about {test.copies:.0%} of it are near copies.",
        ""
        if status == "pass"
        else "It imitates the rows it has seen: fit it to more rows, for fewer epochs (patience=), "
        "or make it smaller.",
        "Meehan et al. 2020",
        {
            "copies": [test.copies, test.copies_p_value],
            "p-value": [test.p_value],
            "copied rows of the fit": test.nearest[nearest].double().tolist(),
            "their distances": test.distances[nearest].tolist(),
        },
    )


def new(test: NoveltyTest) -> Finding:
    """Whether the data lie among the rows of the fit, as these do among each other.

    The figure is the share of data farther from the rows of the fit than 99 % of these are from
    each other. It passes up to 0.03, or if chance makes as much in 5 % of cases, and fails beyond
    0.05 (our limits): of digits 0.01 are so far away, and 0.08 if one of the ten was left out of
    the fit.

    Args:
        test: Of data that were held out, and rows of the fit.

    Reference:
        Ramaswamy et al. (2000), https://doi.org/10.1145/342009.335437
    """
    status = "pass" if test.p_value >= CHANCE else grade(test.share, *NOVEL)
    return Finding(
        "training rows",
        test.share,
        "of the data",
        f"at most {NOVEL[0]:g}, or by chance",
        status,
        "The data lie among the rows of the fit."
        if status == "pass"
        else f"{test.share:.1%} of the data lie farther from the rows of the fit than 99% of these "
        "from each other: the story has seen nothing like them.",
        ""
        if status == "pass"
        else f"See what rows such as {test.farthest} have in common, and fit to data that have it.",
        "Ramaswamy et al. 2000",
        {"p-value": [test.p_value], "farthest rows": [float(i) for i in test.farthest]},
    )


def _without_train(subject: Subject) -> str:
    """Why there are no rows of the fit to compare with; empty if there are."""
    if subject.train is None:
        return "The rows of the fit are not at hand: check(run, x, train=...), or give a data set."
    held_out = subject.held_out
    if held_out is None or as_part(subject.train).fingerprint == held_out.fingerprint:
        return (
            "Needs data that the story has not seen, got the rows of its fit: test=... adds some."
        )
    return ""


def _comparable(train: Tensor, *sets: Tensor) -> list[Tensor]:
    """Sets of rows without gaps, and in units that can be added."""
    mean = train.nanmean(0).nan_to_num()
    filled = [torch.where(rows.isnan(), mean, rows) for rows in sets]
    if train.shape[1] > FEW_ELEMENTS:
        return filled
    deviation = torch.where(train.isnan(), mean, train).std(0)
    return [rows / torch.where(deviation > 0, deviation, 1.0) for rows in filled]


MEMORY_TEST = Check(
    "does it make anything new",
    ("memory", "training rows"),
    memory,
    lambda subject: Cost(f"the nearest of the rows of the fit to {min(subject.rows, MOST):,} rows"),
    "full",
)
