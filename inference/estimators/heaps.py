"""Pure functions of numbers some of which are had too often to be drawn from a density."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.inference.estimators.replicates import FEW_VALUES, SORTED, some

HEAP = 5  # rows of one value, from which on it is a heap
# Steps by which people round, and by which clocks and calendars do.
EVERY = (2, 5, 7, 10, 12)
LEAST_TURNS = 4  # so often each step must fit between the least and the greatest number
MOST_STEPS = 100_000
FEW_FAR = 0.05  # of all numbers, which may be far from them by mistake
GLANCE = 2000  # numbers that show whether a closer look is due
NEAR = 0.02  # of a step, by which a multiple of it may be off as it was kept


def heaped(x: Tensor) -> Tensor:
    """The least and the largest number if so many rows have it that it is none of a density.

    These are five numbers and more, and three times as many as have the next value. Numbers that
    are cut off stand there, and those that mean something else, such as -999.

    Args:
        x: Data of any shape, NaN where missing.

    Returns:
        None, one or both.
    """
    known = x[~x.isnan()]
    # Sorting takes long, and of most columns one look is enough.
    if not any(
        int((known == end).sum()) >= HEAP for end in (known.aminmax() if len(known) else ())
    ):
        return known[:0]
    values, counts = known.unique(return_counts=True)
    ends = ((0, 1), (-1, -2)) if len(values) > FEW_VALUES else ()
    found = [end for end, next_ in ends if counts[end] >= max(HEAP, 3 * int(counts[next_]))]
    return values[found]


def apart_from_all(x: Tensor) -> Tensor:
    """Those of :func:`heaped` that are farther from all other numbers than these are apart.

    Args:
        x: Data of any shape, NaN where missing.
    """
    heaps, found = heaped(x[x.isfinite()]), []
    values = x[x.isfinite()].unique() if len(heaps) else heaps
    for end in heaps:
        rest = values[values != end]
        if len(rest) >= FEW_VALUES and (rest - end).abs().min() > rest.max() - rest.min():
            found.append(end)
    return torch.stack(found) if found else x.new_zeros(0)


def far_from_all(x: Tensor) -> Tensor:
    """Few numbers that a gap wider than the range of all others parts from them.

    At least two, and at most 5 % of all, at either end: as if they were in another unit, or had
    lost a decimal point. All others must have 20 values.

    Args:
        x: Data of any shape, NaN where missing.

    Returns:
        Them, in order; none or more.
    """
    known = x[x.isfinite()]
    few, found = int(FEW_FAR * len(known)), []
    if few < 2:
        return x.new_zeros(0)
    low, high = known.aminmax()
    # Sorting takes long, and where most fill half of the range no gap is as wide.
    shown = known[:: -(-len(known) // GLANCE)].sort().values
    least = round(2 * FEW_FAR * len(shown))
    if min(shown[-1 - least] - low, high - shown[least]) > (high - low) / 2:
        return x.new_zeros(0)
    ordered = known.sort().values
    for upper in (False, True):
        away = -ordered.flip(0) if upper else ordered
        # What begins with the k-th number reaches to the last.
        apart = away[2 : few + 1] - away[1:few] > away[-1] - away[2 : few + 1]
        if apart.any():
            count = 2 + int(apart.nonzero().max())
            if len(away[count:].unique()) >= FEW_VALUES:
                found.append(-away[:count].flip(0) if upper else away[:count])
    return torch.cat(found) if found else x.new_zeros(0)


@dataclass(frozen=True)
class Grid:
    """What all numbers are whole multiples of, but for the first.

    Attributes:
        step: By which neighbours differ at least.
        origin: From which it counts; 0 if they are multiples of the step themselves.
    """

    step: float
    origin: float

    def places(self, x: Tensor) -> Tensor:
        """How many steps each number is from the origin, rounded."""
        return ((x.double() - self.origin) / self.step).round()


def grid_of(x: Tensor) -> Grid | None:
    """The steps in which numbers were written down; None if they were not, or in very fine ones.

    Args:
        x: Numbers, ``(N,)``, none of them missing.
    """
    values = x.double().unique()
    if len(values) <= FEW_VALUES:
        return None
    step = values.diff().min()
    for origin in (values.new_zeros(()), values[0]):
        turns = ((values - origin) / step).round()
        finer = (turns @ (values - origin)) / (turns @ turns)  # as good as all of them let one know
        off = ((values - origin) / finer - turns).abs().max()
        if turns.abs().max() < MOST_STEPS and off < NEAR:
            return Grid(finer.item(), origin.item())
    return None


def favourite(x: Tensor) -> tuple[float, float]:
    """The number that most exceeds both of its neighbours, and by what share of all it does.

    The outermost ones have one neighbour and are left out, see :func:`heaped`.

    Args:
        x: Numbers, ``(N,)``; of a grid the places.
    """
    values, counts = x[some(len(x))].unique(return_counts=True)
    if len(values) < 3:
        return x[0].item(), 0.0
    above = counts[1:-1] - torch.maximum(counts[:-2], counts[2:])
    most = int(above.argmax())
    return values[1 + most].item() + 0.0, above[most].item() / min(len(x), SORTED)


@dataclass(frozen=True)
class Favoured:
    """Which of every so many steps numbers stand on too often.

    Attributes:
        every: So many steps.
        rest: By how many steps more they stand than a multiple of these.
        share: Of the numbers that do.
        beyond: By how many of its standard deviations their number is above that of steps which
            all are as good.
    """

    every: int
    rest: int
    share: float
    beyond: float


def but_for_one(places: Tensor) -> Tensor:
    """Places without the one that most have, which may stand for itself, as 0 does."""
    values, often = places.unique(return_counts=True)
    return places[places != values[often.argmax()]]


def favoured(places: Tensor) -> Favoured | None:
    """The steps that numbers of a grid favour most, but for one; None if the grid has few.

    Args:
        places: In steps of the grid, ``(N,)``.
    """
    places = but_for_one(places[some(len(places))])
    if not len(places):
        return None
    found, reach = [], places.max() - places.min()
    for every in EVERY:
        if reach < LEAST_TURNS * every:
            continue
        counts = torch.bincount((places % every).long(), minlength=every)
        rest, share = int(counts.argmax()), counts.max().item() / len(places)
        deviation = ((1 - 1 / every) / every / len(places)) ** 0.5
        found.append(Favoured(every, rest, share, (share - 1 / every) / deviation))
    return max(found, key=lambda one: one.beyond, default=None)
