"""Where a code can lie: torch's constraints, told apart and in words."""

from __future__ import annotations

from typing import Any

from pyro.distributions import constraints
from torch.distributions.constraints import Constraint

POSITIVE = (
    type(constraints.positive),
    type(constraints.nonnegative),
    constraints.greater_than,
    constraints.greater_than_eq,
)


def of_one(support: Constraint) -> Any:
    """The support of a feature, where each has the same; else of the whole."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
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
    """What is in a support, as in "positive numbers"."""
    one = of_one(support)
    if is_joined(one):
        counted = zip(one.cseq, one.lengths, strict=True)
        return ", then ".join(f"{in_words(part)} ({length})" for part, length in counted)
    if isinstance(one, constraints.integer_interval):
        return f"whole numbers from {one.lower_bound} to {one.upper_bound}"
    if isinstance(one, constraints.interval):
        return f"numbers from {float(one.lower_bound):g} to {float(one.upper_bound):g}"
    if isinstance(one, POSITIVE):
        return "positive numbers"
    named = {
        is_real: "real numbers",
        is_shares: "shares of a whole",
        is_sphere: "directions (vectors of length 1)",
        is_one_hot: "one of several",
        is_binary: "zeros and ones",
    }
    return next((words for holds, words in named.items() if holds(one)), str(one))
