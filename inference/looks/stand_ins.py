"""Do numbers stand for something else, as -999 for what is missing?"""

from __future__ import annotations

from ppl_gen.inference.estimators.replicates import FEW_ELEMENTS, apart_from_all
from ppl_gen.inference.looks.patient import Patient, is_column
from ppl_gen.inference.looks.sentences import arguments, columns, fault, well
from ppl_gen.inference.verdict import Finding

NAME = "stand-ins"


def stand_ins(patient: Patient) -> list[Finding]:
    """Whether an outermost number of many rows stands farther off than all others are apart.

    See :func:`ppl_gen.inference.estimators.replicates.apart_from_all`. Such a number is a code for
    what is missing, or out of range, more often than it was measured; as a number it outweighs all
    others. It only warns: it may be one. Columns of more than 20 elements are not looked at.
    """
    found = []
    called = arguments(patient.pair.model, len(patient.batch))
    for place, column in enumerate(patient.batch):
        if not is_column(column, patient.batch) or not column.is_floating_point():
            continue
        table = column.reshape(len(column), -1)
        for element in range(table.shape[1]) if table.shape[1] <= FEW_ELEMENTS else ():
            values = table[:, element].cpu()
            for code in apart_from_all(values).tolist():
                rest = values[(values != code) & ~values.isnan()]
                which = (
                    f"{columns([element], tuple(column.shape[1:]))} of " if column.dim() > 1 else ""
                )
                count = int((values == code).sum())
                found.append(
                    fault(
                        NAME,
                        count,
                        "rows",
                        f"{count} rows have {code:g} in {which}{called[place]}, and all others "
                        f"from {rest.min():g} to {rest.max():g}.",
                        "If it stands for what is missing, as codes such as -999 do, drop these "
                        "rows or fill them in, or give the story a column that says so.",
                        status="warn",
                    )
                )
    return found or [well(NAME, "No number stands apart from all others.", "rows")]
