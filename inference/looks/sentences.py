"""How findings of a look are put."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ppl_gen.inference.verdict import Finding, Status


def fault(
    name: str,
    figure: float,
    unit: str,
    meaning: str,
    remedy: str,
    details: dict[str, list[float]] | None = None,
    *,
    status: Status = "fail",
    source: str = "",
) -> Finding:
    """A fault that was found, how many times, and what to do."""
    return Finding(
        name, float(figure), unit, "none", status, meaning, remedy, source, details or {}
    )


def well(name: str, meaning: str, unit: str) -> Finding:
    """That no fault was found."""
    return Finding(name, 0.0, unit, "none", "pass", meaning, "", "")


def skipped(name: str, reason: str, status: Status = "skipped") -> Finding:
    """Why it was not looked."""
    return Finding(name, math.nan, "", "", status, reason, "", "")


def in_words(sites: Sequence[tuple[str, str]]) -> str:
    """Sites in words, of many the first three."""
    shown = ", ".join(f"{name!r} of the {program}" for program, name in sites[:3])
    return shown + (f" and {len(sites) - 3} more" if len(sites) > 3 else "")


def names(names: Sequence[str]) -> str:
    """Names in quotes, of many the first four."""
    shown = ", ".join(repr(name.removeprefix("param.")) for name in names[:4])
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def columns(which: Sequence[int], shape: tuple[int, ...] = ()) -> str:
    """Columns in words; elements of what has several axes, the first by its place."""
    if len(shape) < 2:
        return counted("column", which)
    place = [int(i) for i in torch.unravel_index(torch.tensor(which[0]), shape)]
    return f"{len(which)} of {math.prod(shape)} elements, such as {place},"


def counted(noun: str, numbers: Sequence[int]) -> str:
    """Numbers as ranges: "columns 0, 32 to 63"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [str(a) if a == b else f"{a} to {b}" for a, b in ranges[:5]]
    rest = sum(b - a + 1 for a, b in ranges[5:])
    more = f" and {rest} more" if rest else ""
    return f"{noun}{'s' * (len(numbers) > 1)} {', '.join(shown)}{more}"


def upper(sentence: str) -> str:
    """A sentence that begins with a capital."""
    return sentence[:1].upper() + sentence[1:]


def arguments(program: Any, count: int) -> list[str]:
    """What a program calls the columns of the data."""
    try:
        signature = inspect.signature(
            program.forward if isinstance(program, nn.Module) else program
        )
        names = [
            p.name
            for p in signature.parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        names = []
    return (names + [f"column {place} of the data" for place in range(len(names), count)])[:count]
