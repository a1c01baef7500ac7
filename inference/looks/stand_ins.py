"""Do numbers stand for something else, as -999 for what is missing, or in another unit?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ppl_gen.inference.estimators.heaps import apart_from_all, far_from_all
from ppl_gen.inference.estimators.replicates import FEW_ELEMENTS
from ppl_gen.inference.looks.patient import Patient, is_column
from ppl_gen.inference.looks.sentences import arguments, columns, fault, well
from ppl_gen.inference.verdict import Finding

NAME = "stand-ins"
ROWS = 100_000
FAR_OFF = 3.0  # in units of the distance that all others keep to


def stand_ins(patient: Patient) -> list[Finding]:
    """Whether outermost numbers stand farther off than all others are apart.

    See :func:`ppl_gen.inference.estimators.heaps.apart_from_all`. Such a number of many rows is a
    code for what is missing, or out of range, more often than it was measured; as a number it
    outweighs all others. It warns, as it may be one, and fails where it is more than three times as
    far off (our limits). Of few numbers that are far off (``far_from_all``) it warns. Asked of what
    the story is given: what it observes may be masked, and is told of by the predictive checks.
    Columns of more than 20 elements are not looked at, and of more than 100,000 rows some.
    """
    found, batch = [], patient.whole
    for place, called in enumerate(arguments(patient.pair.model, len(batch))):
        column = batch[place]
        if not is_column(column, batch) or not column.is_floating_point():
            continue
        shape = tuple(column.shape[1:])
        if math.prod(shape) > FEW_ELEMENTS:
            continue
        rows = column.detach()[:: -(-len(column) // ROWS)].cpu()
        for element, values in enumerate(rows.reshape(len(rows), -1).T):
            codes = apart_from_all(values).tolist()
            if codes and not _is_observed(patient, place):
                which = f"{columns([element], shape)} of {called}" if shape else called
                found += [_said(code, values, which) for code in codes]
            far = [] if codes else far_from_all(values).tolist()
            if far and not _is_observed(patient, place):
                which = f"{columns([element], shape)} of {called}" if shape else called
                found.append(_far_off(far, values, which))
    return found or [well(NAME, "No number stands apart from all others.", "rows")]


def _is_observed(patient: Patient, place: int) -> bool:
    """Whether an argument is what a site of the model observes."""
    shown = patient.batch[place][: patient.count()].flatten()
    return any(
        node["is_observed"] and torch.equal(torch.as_tensor(node["value"]).flatten(), shown)
        for node in patient.draw().model.values()
    )


def _said(code: float, values: Tensor, which: str) -> Finding:
    rest = values[(values != code) & values.isfinite()]
    count = int((values == code).sum())
    off = (rest - code).abs().min() / (rest.max() - rest.min())
    return fault(
        NAME,
        count,
        "rows",
        f"{count} rows have {code:g} in {which}, and all others from {rest.min():g} to "
        f"{rest.max():g}.",
        "If it stands for what is missing, as codes such as -999 do, drop these rows or fill them "
        "in, or give the story a column that says so.",
        status="fail" if off > FAR_OFF else "warn",
    )


def _far_off(far: list[float], values: Tensor, which: str) -> Finding:
    rest = values[values.isfinite() & ~torch.isin(values, values.new_tensor(far))]
    ends = f"from {far[0]:.4g} to {far[-1]:.4g}" if far[0] < far[-1] else f"{far[0]:.4g}"
    return fault(
        NAME,
        len(far),
        "rows",
        f"{len(far)} rows have {ends} in {which}, and all others from {rest.min():.4g} to "
        f"{rest.max():.4g}.",
        "See how they were recorded: in another unit, or without a decimal point? As they are they "
        "outweigh all others.",
        status="warn",
    )
