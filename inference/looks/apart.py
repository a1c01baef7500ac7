"""Do the terms of a datum depend on that datum alone?"""

from __future__ import annotations

import torch

from ppl_gen.inference.looks.patient import Patient, Sites, other_row, permuted
from ppl_gen.inference.looks.sentences import fault, in_words, skipped, well
from ppl_gen.inference.verdict import Finding

# By what share of 1 and itself a term may differ in rounding; where rows change places, sums are
# taken in another order.
ROUNDING, REORDERED = 1e-4, 1e-3


def apart(patient: Patient) -> list[Finding]:
    """Whether each datum's terms depend on that datum alone.

    One row is given another's data and latents, the rest being held: no term of a third may move,
    in evaluation mode. Then all rows change places, and their terms with them. A leak in training
    mode alone, as batch normalisation has, warns. Terms that move by less than a ten-thousandth
    (a thousandth where rows change places) are taken for rounding. For points, as of a maximum or
    an autoencoder, the point is compared.

    Reference:
        Ioffe and Szegedy (2015), https://arxiv.org/abs/1502.03167, for the leak in training mode
    """
    name = "rows apart"
    rows = patient.count()
    if rows < 3 and patient.batch:
        return [skipped(name, f"Needs at least 3 rows, got {rows}.")]
    if reason := patient.without_rows:
        return [skipped(name, reason, "not applicable")]
    chosen, unlike = other_row(patient.batch, rows)
    if chosen == unlike:
        return [skipped(name, f"Needs rows that differ, got {rows} alike.")]
    findings, number = [], patient.numbers[chosen]
    with patient.stirred():
        sites = patient.draw()
        leaks = _leaks(patient, sites, chosen, unlike)
        if leaks:
            findings.append(
                fault(
                    name,
                    len(leaks),
                    "sites",
                    f"When data row {number} alone is changed, terms of other rows move, at "
                    f"{in_words(leaks)}: each is made of several rows.",
                    "Let no operation run over rows: give means, sums and softmax their dim=-1, "
                    "normalise with constants, and see that no (N,) meets an (N, 1), which would "
                    "be broadcast to (N, N).",
                )
            )
        elif not patient.structure.keeps_rows:
            strays = _strays(patient, sites)
            if strays:
                findings.append(
                    fault(
                        name,
                        len(strays),
                        "sites",
                        f"When rows change places, their terms do not go with them, at "
                        f"{in_words(strays)}.",
                        "Let no operation look at the place of a row in its batch: a reshape must "
                        "keep the rows first, and the rows of a batch are drawn anew at each step.",
                    )
                )
        if not leaks:
            with patient.training():
                trained = _leaks(patient, sites, chosen, unlike)
            if trained:
                findings.append(
                    fault(
                        name,
                        len(trained),
                        "sites",
                        f"In training mode alone, terms of other data move when data row {number} "
                        f"is changed, at {in_words(trained)}, as batch normalisation has it.",
                        "Take nn.LayerNorm or nn.GroupNorm, which keep rows apart, for a bound "
                        "that is the same in training and after.",
                        status="warn",
                        source="Ioffe and Szegedy 2015",
                    )
                )
    return findings or [well(name, "The terms of each datum depend on that datum alone.", "sites")]


def _leaks(patient: Patient, sites: Sites, chosen: int, unlike: int) -> list[tuple[str, str]]:
    """Sites whose terms of other rows move when one row gets another's data and latents."""
    index = patient.every_row()
    index[chosen] = unlike
    before, again = patient.held(sites), patient.held(sites)
    after = patient.held(patient.moved(sites, index), permuted(patient.batch, index))
    others = torch.arange(patient.count()) != chosen
    by_itself = patient.changed(before, again, others, ROUNDING)
    moved = patient.changed(before, after, others, ROUNDING)
    return [site for site in moved if site not in by_itself]


def _strays(patient: Patient, sites: Sites) -> list[tuple[str, str]]:
    """Sites whose terms do not change places with the rows; none if a program draws by itself."""
    before = patient.held(sites)
    every = torch.ones(patient.count(), dtype=torch.bool)
    if patient.changed(before, patient.held(sites, seed=patient.seed + 1), every, ROUNDING):
        return []
    index = patient.rolled()
    after = patient.held(patient.moved(sites, index), permuted(patient.batch, index))
    return patient.changed(before, after, every, REORDERED, index[: len(every)])
