"""Numbers that are kept as bytes, a quarter of what they take as float32."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Levels:
    r"""The 256 numbers that a byte may stand for.

    .. math:: x = \mathrm{offset} + \mathrm{scale} \cdot b

    Args:
        scale: What one step is worth, such as 1/255.
        offset: What the byte 0 stands for.
    """

    scale: float = 1.0
    offset: float = 0.0
    _high: float = field(init=False, repr=False, compare=False)
    _low: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The high part has 16 bits, so that its product with a byte is exact in float32. The sum
        # is then b / 255 correctly rounded, fused or not, on every device. A product with 1/255,
        # which is also what a GPU makes of a division by 255, misses the last bit of 126 levels.
        mantissa, exponent = math.frexp(self.scale)
        high = math.ldexp(round(math.ldexp(mantissa, 16)), exponent - 16)
        object.__setattr__(self, "_high", high)
        object.__setattr__(self, "_low", self.scale - high)

    def __call__(self, codes: Tensor) -> Tensor:
        """The numbers for which bytes stand.

        Args:
            codes: uint8, shape ``(*)``.

        Returns:
            float32, shape ``(*)``.
        """
        b = codes.to(torch.float32)
        x = b if self._high == 1 else b * self._high
        if self._low:
            x = torch.add(x, b, alpha=self._low)
        return x + self.offset if self.offset else x

    @cached_property
    def ends(self) -> tuple[int, int] | None:
        """The bytes that stand for exactly 0 and 1, if there are such."""
        values = self(torch.arange(256, dtype=torch.uint8)).tolist()
        return (values.index(0.0), values.index(1.0)) if {0.0, 1.0} <= {*values} else None


WHOLE = Levels()
"""Bytes that stand for themselves."""

PIXELS = Levels(1 / 255)
"""Intensities in ``[0, 1]``, 255 the brightest."""

INK = Levels(-1 / 255, 1.0)
"""Intensities of dark ink on light paper, 0 the darkest: ``1 - b / 255``."""
