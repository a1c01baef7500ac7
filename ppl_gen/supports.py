"""Where a code can lie: torch's constraints, told apart and in words."""

from __future__ import annotations

import re
from typing import Any

import torch
from pyro.distributions import constraints
from torch.distributions.constraints import Constraint


def of_one(support: Constraint) -> Any:
    """The support of a feature, where each has the same; else of the whole."""
    while isinstance(base := getattr(support, "base_constraint", None), Constraint):
        support = base
    return support


def is_real(support: Constraint) -> bool:
    """Whether all real numbers, or vectors of them, are in a support."""
    return of_one(support) is constraints.real


def is_shares(support: Constraint) -> bool:
    """Whether it is of positive numbers that add up to 1."""
    return of_one(support) is constraints.simplex


def is_sphere(support: Constraint) -> bool:
    """Whether it is of vectors of length 1."""
    return of_one(support) is constraints.sphere


def is_one_hot(support: Constraint) -> bool:
    """Whether it is of vectors with a 1 in one place and 0 in the others."""
    return of_one(support) is constraints.one_hot


def is_binary(support: Constraint) -> bool:
    """Whether it is of vectors of 0 and 1."""
    return of_one(support) is constraints.boolean


def is_whole(support: Constraint) -> bool:
    """Whether it is of whole numbers between two."""
    return isinstance(of_one(support), constraints.integer_interval)


def is_joined(support: Constraint) -> bool:
    """Whether it is of parts that have supports of their own."""
    return isinstance(of_one(support), constraints.cat)


def in_words(support: Constraint) -> str:
    """What a support holds, such as ``"real numbers"`` or ``"numbers between 0 and 1"``.

    Of several independent numbers it says what each of them can be.

    Args:
        support: A constraint of torch or Pyro.
    """
    joined: Any = of_one(support)
    support = joined
    if is_joined(support):
        parts = zip(joined.cseq, joined.lengths, strict=True)
        return ", then ".join(f"{in_words(part)} ({length})" for part, length in parts)
    named = {
        is_real: "real numbers",
        is_shares: "shares of a whole",
        is_sphere: "directions (vectors of length 1)",
        is_one_hot: "one of several",
        is_binary: "0 or 1",
    }
    words = next((words for holds, words in named.items() if holds(support)), "")
    if words:
        return words
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
