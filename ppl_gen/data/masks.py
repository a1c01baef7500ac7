"""Masks: which elements of each observation are seen."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import torch
from torch import Generator, Tensor

from ppl_gen.component import by_name, whole, whole_sizes
from ppl_gen.data.convert import as_part
from ppl_gen.data.dataset import Dataset, Part, seeded
from ppl_gen.errors import DataError


@dataclass(frozen=True)
class Quadrants:
    """Some quarters of an image are seen.

    Args:
        seen: How many: 1 is the lower left; 2 the left half; 3 all but the lower right.

    Reference:
        Sohn et al. (2015), section 5.1; the quarters of Pyro's example ``examples/cvae``.
    """

    seen: int

    def __post_init__(self) -> None:
        if whole("seen", self.seen) > 3:
            raise ValueError(f"seen must be 1, 2 or 3 quadrants, got {self.seen}")

    def __call__(self, height: int, width: int, rows: int, generator: Generator) -> Tensor:
        _at_least(2, height, width, "quadrants")
        mask = torch.zeros(1, height, width, dtype=torch.bool)
        mask[:, height // 2 :, : width // 2] = True
        if self.seen == 2:
            mask[:, :, : width // 2] = True
        if self.seen == 3:
            mask[:, : height // 2] = True
        return mask


@dataclass(frozen=True)
class Half:
    """One half of an image is seen; of an odd size it is the smaller one.

    Args:
        side: left, right, top or bottom.
    """

    side: str = "left"

    def __post_init__(self) -> None:
        if self.side not in ("left", "right", "top", "bottom"):
            raise ValueError(f"side must be left, right, top or bottom, got {self.side!r}")

    def __call__(self, height: int, width: int, rows: int, generator: Generator) -> Tensor:
        across = self.side in ("left", "right")
        _at_least(2, *((2, width) if across else (height, 2)), "halves")
        size = width if across else height
        mask = torch.zeros(1, height, width, dtype=torch.bool)
        part = slice(size // 2) if self.side in ("left", "top") else slice(size - size // 2, None)
        if across:
            mask[:, :, part] = True
        else:
            mask[:, part] = True
        return mask


@dataclass(frozen=True)
class Box:
    """All but a box is seen.

    Args:
        top: Row of its upper edge, from 0.
        left: Column of its left edge, from 0.
        height: How many rows it has.
        width: How many columns it has.
    """

    top: int
    left: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for name, least in (("top", 0), ("left", 0), ("height", 1), ("width", 1)):
            whole(name, getattr(self, name), least)

    def __call__(self, height: int, width: int, rows: int, generator: Generator) -> Tensor:
        bottom, right = self.top + self.height, self.left + self.width
        if bottom > height or right > width:
            raise DataError(
                f"the box must lie inside the image of {height} x {width}, but it goes to row "
                f"{bottom} and column {right}: choose a smaller one"
            )
        mask = torch.ones(1, height, width, dtype=torch.bool)
        mask[:, self.top : bottom, self.left : right] = False
        return mask


@dataclass(frozen=True)
class Random:
    """Each pixel or entry is seen at random, anew for every row.

    Args:
        seen: How likely it is seen, from 0 to 1.
    """

    seen: float

    def __post_init__(self) -> None:
        if isinstance(self.seen, bool) or not isinstance(self.seen, int | float):
            raise TypeError(f"seen must be a number, got {self.seen!r}")
        if not 0 <= self.seen <= 1:
            raise ValueError(f"seen must be from 0 to 1, got {self.seen}")

    def __call__(self, height: int, width: int, rows: int, generator: Generator) -> Tensor:
        return torch.rand(rows, height, width, generator=generator) < self.seen


Drawing = Quadrants | Half | Box | Random

MASKS: dict[str, type[Drawing]] = {
    "quadrants": Quadrants,
    "half": Half,
    "box": Box,
    "random": Random,
}


def mask(spec: str, shape: Sequence[int], rows: int, seed: int = 0) -> Tensor:
    """Draw the masks of some observations.

    The channels of a pixel are seen together. One mask for all rows takes no more memory than one.

    Args:
        spec: quadrants(seen=1), half(side='left'), box(top=4, left=4, height=8, width=8) or
            random(seen=0.3).
        shape: Shape of one observation: (channels, height, width) or (height, width); for random
            any shape will do.
        rows: How many observations there are.
        seed: Of masks that are drawn.

    Returns:
        True where an element is seen, shape ``(rows, *shape)``.

    Raises:
        DataError: If the specification cannot be read, or does not fit the shape.
    """
    return _drawn(_parsed(spec), spec, whole_sizes("shape", shape), rows, seeded(seed))


@overload
def masked(  # pyright: ignore[reportOverlappingOverload]
    data: Dataset, spec: str, seed: int = 0
) -> Dataset: ...
@overload
def masked(data: Any, spec: str, seed: int = 0) -> Part: ...
def masked(data: Any, spec: str, seed: int = 0) -> Dataset | Part:
    """Put masks beside observations, as the second column; labels become the third.

    Args:
        data: A data set, a part of one, or anything that :func:`ppl_gen.data.as_part` takes.
        spec: As in :func:`mask`.
        seed: Of masks that are drawn.

    Returns:
        A data set for a data set, and a part for all else.

    Raises:
        DataError: If the data cannot be read, or the mask does not fit them.
    """
    drawing, generator = _parsed(spec), seeded(seed)

    def beside(part: Part) -> Part:
        x, *rest = part.stored
        drawn = _drawn(drawing, spec, part.shape, len(part), generator).to(part.device)
        return replace(part, stored=(x, drawn, *rest))

    if not isinstance(data, Dataset):
        return beside(as_part(data))
    # Test and valid come first, so that how many rows train has does not change them.
    test, valid, train = beside(data.test), beside(data.valid), beside(data.train)
    # What was loaded with another seed than its masks are drawn with is not to be loaded again.
    again = not isinstance(drawing, Random) or data.source.get("seed") == seed
    source = {**data.source, "mask": spec} if data.source and again else {}
    return replace(data, train=train, valid=valid, test=test, source=source)


def _parsed(spec: str) -> Drawing:
    if not isinstance(spec, str):
        raise DataError(f"mask must be one of {', '.join(MASKS)}, got {spec!r}")
    try:
        cls, arguments = by_name(spec, MASKS, "mask")
        inspect.signature(cls).bind(**arguments)
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"mask {spec!r} cannot be made: {error}; it is given as in quadrants(seen=1), "
            "random(seen=0.3) or half(side='left')"
        ) from error


def _drawn(
    drawing: Drawing, spec: str, shape: tuple[int, ...], rows: int, generator: Generator
) -> Tensor:
    if not shape:
        raise DataError(f"mask {spec!r} needs observations of some elements, got single numbers")
    if len(shape) not in (2, 3):
        if not isinstance(drawing, Random):
            raise DataError(
                f"mask {spec!r} is for images of shape (channels, height, width) or (height, "
                f"width), got observations of shape {shape}: take random(seen=0.3), or give your "
                "own mask as the second column of the data"
            )
        flat = drawing(1, torch.Size(shape).numel(), rows, generator)
        return flat.reshape(-1, *shape).expand(rows, *shape)
    height, width = shape[-2:]
    drawn = drawing(height, width, rows, generator)
    return (drawn[:, None] if len(shape) == 3 else drawn).expand(rows, *shape)


def _at_least(least: int, height: int, width: int, what: str) -> None:
    if min(height, width) < least:
        raise DataError(
            f"an image with {what} must be at least {least} high and wide, got "
            f"{height} x {width}: take larger images"
        )
