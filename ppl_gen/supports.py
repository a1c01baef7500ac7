"""Supports in words: which values a law can take."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

_NAMED = {
    type(constraints.real): "real numbers",
    type(constraints.simplex): "shares of a whole",
    type(constraints.boolean): "0 or 1",
}


def in_words(support: Constraint) -> str:
    """What a support holds, such as ``"real numbers"`` or ``"numbers between 0 and 1"``.

    Of several independent numbers it says what each of them can be.

    Args:
        support: A constraint of torch or Pyro.
    """
    while isinstance(base := getattr(support, "base_constraint", None), Constraint):
        support = base
    if type(support) in _NAMED:
        return _NAMED[type(support)]
    low, high = (_number(getattr(support, name, None)) for name in ("lower_bound", "upper_bound"))
    numbers = "whole numbers" if support.is_discrete else "numbers"
    if low and high:
        return f"{numbers} between {low} and {high}"
    if isinstance(support, constraints.greater_than):
        return f"positive {numbers}" if low == "0" else f"{numbers} above {low}"
    if low:
        return f"{numbers} from {low} up"
    if high:
        return f"{numbers} up to {high}"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(support).__name__.strip("_")).lower()


def _number(bound: Any) -> str | None:
    """A bound in digits, or in a word if it differs from feature to feature; None for none."""
    if bound is None:
        return None
    values = torch.as_tensor(bound).unique()
    return f"{values.item():g}" if len(values) == 1 else "a bound"
