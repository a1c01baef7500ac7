"""Which values an observation may take: what a likelihood has to cover."""

from collections.abc import Sequence
from enum import StrEnum

import torch
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


def inferred_support(x: Tensor) -> Support:
    """Infer the support of a user's observations from their values.

    The first of these that holds: only 0 and 1 are binary; whole numbers from 0 on are counts;
    numbers in ``[0, 1]`` are the unit interval when one observation has two or more axes, as an
    image has; all else is real. Rows of a table that happen to lie in ``[0, 1]`` stay real,
    because such a table seldom means pixel intensities.

    Args:
        x: Observations, shape ``(N, *shape)``.
    """
    if Support.BINARY.contains(x).all():
        return Support.BINARY
    if Support.COUNTS.contains(x).all():
        return Support.COUNTS
    if x.ndim >= 3 and Support.UNIT_INTERVAL.contains(x).all():
        return Support.UNIT_INTERVAL
    return Support.REAL


def check_support(tensors: Sequence[Tensor], support: Support, name: str) -> None:
    """Refuse a support that the values contradict; those that are missing (NaN) do not.

    Args:
        tensors: The observations of each part, shape ``(N, *shape)`` each.
        support: The support asked for.
        name: The data, as the sentence should call them.

    Raises:
        DataError: If any value lies outside, with how many do and the first of them.
    """
    outside = torch.cat([x[~(support.contains(x) | x.isnan())] for x in tensors])
    if len(outside):
        total = sum(x.numel() for x in tensors)
        raise DataError(
            f"support {support.value!r} does not fit {name!r}: {len(outside)} of {total} values "
            f"lie outside it, the first is {outside[0].item():g}; "
            "leave support out, or transform the data"
        )
