"""Which values an observation may take: what a likelihood has to cover."""

from collections.abc import Iterable
from enum import StrEnum

from torch import Tensor

from ppl_gen.errors import DataError


class Support(StrEnum):
    """The set in which every entry of an observation lies."""

    BINARY = "binary"
    UNIT_INTERVAL = "unit interval"
    REAL = "real"
    COUNTS = "counts"
    CATEGORIES = "categories"

    @classmethod
    def parse(cls, value: str) -> "Support":
        """Read a support from its name.

        Raises:
            DataError: If there is no such support.
        """
        try:
            return cls(value)
        except ValueError:
            known = ", ".join(repr(member.value) for member in cls)
            raise DataError(f"support must be one of {known}, got {value!r}") from None

    def contains(self, x: Tensor) -> Tensor:
        """Say of each entry whether it lies in the support.

        Args:
            x: Numbers, shape ``(*)``.

        Returns:
            Booleans, shape ``(*)``. NaN and infinities lie in no support.
        """
        if self is Support.BINARY:
            return (x == 0) | (x == 1)
        if self is Support.UNIT_INTERVAL:
            return (x >= 0) & (x <= 1)
        if self is Support.REAL:
            return x.isfinite()
        return (x >= 0) & x.isfinite() & (x == x.floor() if x.is_floating_point() else True)


def inferred_support(pieces: Iterable[Tensor]) -> Support:
    """Infer the support of a user's observations from their values.

    The first of these that holds: only 0 and 1 are binary; whole numbers from 0 on are counts;
    numbers in ``[0, 1]`` are the unit interval when one observation has two or more axes, as an
    image has; all else is real. Rows of a table that happen to lie in ``[0, 1]`` stay real,
    because such a table seldom means pixel intensities.

    Args:
        pieces: Observations, some at a time, shape ``(B, *shape)`` each.
    """
    possible = [Support.BINARY, Support.COUNTS, Support.UNIT_INTERVAL]
    for x in pieces:
        if x.ndim < 3 and Support.UNIT_INTERVAL in possible:
            possible.remove(Support.UNIT_INTERVAL)
        possible = [support for support in possible if support.contains(x).all()]
    return possible[0] if possible else Support.REAL


def check_support(pieces: Iterable[Tensor], support: Support, name: str) -> None:
    """Refuse a support that the values contradict; those that are missing (NaN) do not.

    Args:
        pieces: The observations, some at a time, shape ``(B, *shape)`` each.
        support: The support asked for.
        name: The data, as the sentence should call them.

    Raises:
        DataError: If any value lies outside, with how many do and the first of them.
    """
    first, outside, total = None, 0, 0
    for x in pieces:
        wrong = x[~(support.contains(x) | x.isnan())]
        if first is None and len(wrong):
            first = wrong[0].item()
        outside, total = outside + len(wrong), total + x.numel()
    if first is not None:
        raise DataError(
            f"support {support.value!r} does not fit {name!r}: {outside} of {total} values "
            f"lie outside it, the first is {first:g}; "
            "leave support out, or transform the data"
        )
