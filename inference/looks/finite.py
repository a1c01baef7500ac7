"""Are the data finite, and every term of them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ppl_gen.errors import StoryError
from ppl_gen.inference.layout import log_prob
from ppl_gen.inference.looks.patient import Patient, Sites, is_column
from ppl_gen.inference.looks.sentences import arguments, columns, counted, fault, upper, well
from ppl_gen.inference.mismatch import plates_of
from ppl_gen.inference.tracing import Batch
from ppl_gen.inference.verdict import Finding

# Rows that are weighed at a time.
WEIGHED = 1000


def finite(patient: Patient) -> list[Finding]:
    """Whether data and terms are finite, and if not, at which site and which rows that begins.

    A law may take NaN as a value that is missing: then its log-density is finite, and all is well.
    The first site whose value or log-density is not finite, guide before model, is named with its
    rows; or, where the data of these rows are not finite themselves, their argument, rows and
    columns. Weights are as they are.
    """
    window, batch = patient.window, patient.batch
    spoilt = not_finite(batch)
    first: tuple[str, str] | None = None
    rows: set[int] = set()
    for part in window.slices(batch, WEIGHED):
        try:
            sites, start = _weighed(patient, part)
        except StoryError as error:
            if not spoilt:
                return [fault("finite", 1, "terms", f"{upper(str(error))}.", "", {"rows": []})]
            return [_of_data(patient, spoilt, f": {error}")]
        for program, name, node in sites.each():
            if first is not None and (program, name) != first:
                continue
            bad = _bad_rows(patient, node)
            if bad is not None:
                first = (program, name)
                rows |= {row + start for row in bad}
                break
    if first is None:
        return [well("finite", "Data, draws and log-densities are finite.", "terms")]
    program, name = first
    begins = f"site {name!r} in the {program}"
    at_fault = {place: bad & rows if rows else bad for place, bad in spoilt.items()}
    if any(at_fault.values()):
        found = {place: bad for place, bad in at_fault.items() if bad}
        return [_of_data(patient, found, f", and {begins} does not take that as missing")]
    numbers = [patient.numbers[row] for row in sorted(rows)]
    where = f" for data {counted('row', numbers)}" if numbers else ""
    return [
        fault(
            "finite",
            len(numbers) or 1,
            "rows" if numbers else "terms",
            f"The first that is not finite is {begins}{where}.",
            "Bound the scales of its law, keep logs and divisions away from 0, and see that the "
            "data lie in its support.",
            {"rows": [float(number) for number in numbers]},
        )
    ]


def not_finite(batch: Batch) -> dict[int, set[int]]:
    """Rows of each column of the batch that hold NaN or infinite numbers, if there are any."""
    found = {}
    for place, column in enumerate(batch):
        if is_column(column, batch) and column.is_floating_point() and not column.sum().isfinite():
            bad = ~column.reshape(len(column), -1).isfinite().all(1)
            if bad.any():
                found[place] = set(bad.nonzero().flatten().tolist())
    return found


def spoilt_data(
    model: Any, batch: Batch, numbers: Sequence[int], spoilt: Mapping[int, set[int]], what: str
) -> Finding:
    """Data that are not finite, by argument, row and column."""
    place = min(spoilt)
    rows = sorted(spoilt[place])
    bad = (~batch[place][rows].isfinite()).any(0)
    which = bad.flatten().nonzero().flatten().tolist()
    at = f", {columns(which, tuple(bad.shape))}" if bad.numel() > 1 else ""
    numbered = [numbers[row] for row in rows]
    return fault(
        "finite",
        len(rows),
        "rows",
        f"{arguments(model, len(batch))[place]} is NaN or infinite in data "
        f"{counted('row', numbered)}{at}{what}.",
        "Drop these rows or fill them in, or take a guide and a law that know of missing values.",
        {"rows": [float(number) for number in numbered], "columns": [float(i) for i in which]},
    )


def _weighed(patient: Patient, part: slice) -> tuple[Sites, int]:
    """Both programs on some rows, and which row of the batch their first is."""
    window = patient.window
    with window.showing(patient.batch, part) as shown:
        start = part.start or 0
        if window.kept is not None:
            start -= window.kept.start
        return patient.draw_shown(shown), start


def _bad_rows(patient: Patient, node: Mapping[str, Any]) -> set[int] | None:
    """Rows of a site that are not finite, none of one outside the data plates; None if all are."""
    value = torch.as_tensor(node["value"])
    try:
        node["fn"].log_prob(node["value"])
        term = log_prob(node)
    except NotImplementedError:
        term = None
    except (ValueError, RuntimeError):
        term = torch.full((), torch.nan)
    # Data may be NaN where a law takes that for a value that is missing.
    spoilt = not node["is_observed"] and not bool(value.isfinite().all())
    if not spoilt and (term is None or bool(term.isfinite().all())):
        return None
    names = plates_of(dict(node), vectorized=True)
    axes = [i for i, name in enumerate(names) if name in patient.structure.data_plates]
    if len(axes) != 1:
        return set()
    bad = torch.zeros(1, dtype=torch.bool)
    if term is not None and term.dim():
        terms = patient.layout.terms(node, 1).movedim(1 + axes[0], 0)
        bad = ~terms.reshape(len(terms), -1).isfinite().all(1)
    if spoilt:
        values = patient.layout.value(node, 1).movedim(1 + axes[0], 0)
        bad = bad.to(values.device) | ~values.reshape(len(values), -1).isfinite().all(1)
    return set(bad.nonzero().flatten().tolist())


def _of_data(patient: Patient, spoilt: Mapping[int, set[int]], what: str) -> Finding:
    return spoilt_data(patient.pair.model, patient.batch, patient.numbers, spoilt, what)
