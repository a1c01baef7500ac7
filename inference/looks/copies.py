"""Are rows there twice, number for number?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ppl_gen.inference.looks.patient import Patient, is_column
from ppl_gen.inference.looks.sentences import fault, well
from ppl_gen.inference.verdict import Finding

NAME = "copies"
ROWS, NUMBERS = 100_000, 100  # rows that are looked at, and numbers of a row
LEAST, SHARE = 5, 0.02  # copies, and their share of the rows, from which on it warns
TIMES = 10  # as often as independent columns would make them
REAL = 0.5  # share of its rows that have a number of their own in a column of real numbers


def copies(patient: Patient) -> list[Finding]:
    """Whether more rows than chance makes are the same as others in all that is known of them.

    Real numbers do not come twice. A table that was joined or entered twice has them all the same,
    and what is learned from copies looks surer than it is. It warns from five copies and 2 % of the
    rows on, if one column has mostly numbers of its own, and ten times as many rows are copies as
    would be if columns knew nothing of each other (our limits).
    """
    batch = [column for column in patient.whole if is_column(column, patient.whole)]
    if not batch or sum(math.prod(column.shape[1:]) for column in batch) > NUMBERS:
        return [
            well(NAME, "Rows were not compared: they are not at hand, or of many numbers.", "rows")
        ]
    shown = [column.detach()[:ROWS].flatten(1) if column.dim() > 1 else column.detach()[:ROWS, None]
             for column in batch]  # fmt: skip
    rows = torch.cat([numbers.cpu().double() for numbers in shown], 1).nan_to_num(math.pi)
    unlike = len(rows.unique(dim=0))
    same = len(rows) - unlike
    if same < max(LEAST, SHARE * len(rows)) or not _has_real(rows, unlike):
        return [well(NAME, "Hardly a row is a copy of another.", "rows")]
    if same < TIMES * _by_chance(rows):
        return [well(NAME, "Rows are alike no more often than their columns make them.", "rows")]
    return [
        fault(
            NAME,
            same,
            "rows",
            f"{same} of {len(rows)} rows are copies of others, number for number.",
            "If they were entered or joined twice, leave them out: they count as more data than "
            "there are.",
            status="warn",
        )
    ]


def _has_real(rows: Tensor, unlike: int) -> bool:
    """Whether some column has hardly two rows with one number, but for copies."""
    return any(len(column.unique()) > REAL * unlike for column in rows.T)


def _by_chance(rows: Tensor) -> float:
    """How many pairs of rows would be alike if columns knew nothing of each other."""
    pairs = len(rows) * (len(rows) - 1) / 2
    for column in rows.T:
        often = column.unique(return_counts=True)[1].double()
        pairs *= float((often * (often - 1)).sum() / (len(rows) * (len(rows) - 1)))
    return pairs
