"""Turning intensities in the unit interval into 0 and 1."""

from collections.abc import Callable
from dataclasses import replace

from torch import Generator

from ppl_gen.data.dataset import Dataset, Part, seeded
from ppl_gen.data.support import Support
from ppl_gen.errors import DataError

WAYS = ("threshold", "fixed", "redraw")


def binarised(data: Dataset, way: str, seed: int) -> Dataset:
    """Make a data set binary.

    Valid and test hold definite values whichever way is taken, and the same ones under "fixed" and
    "redraw", so that figures on them can be compared.

    Args:
        data: Observations in the unit interval. Binary ones are returned as they are, unless they
            should be redrawn.
        way: "threshold": 1 above one half. "fixed": each intensity is the probability of a 1,
            drawn once. "redraw": the same, but train keeps its probabilities and every visit draws
            anew.
        seed: What is drawn is drawn with this seed.

    Raises:
        DataError: If there is no such way, or the support does not allow it.

    Reference:
        Salakhutdinov and Murray (2008), https://doi.org/10.1145/1390156.1390266; the fixed draws
        follow Larochelle and Murray (2011), https://proceedings.mlr.press/v15/larochelle11a.html
    """
    if way not in WAYS:
        known = ", ".join(repr(known) for known in WAYS)
        raise DataError(f"binarise must be one of {known}, got {way!r}")
    if data.support is Support.BINARY:
        if way == "redraw":
            raise DataError(
                f"{data.name!r} is binary already and has no probabilities to redraw from; "
                "leave binarise out"
            )
        return data
    if data.support is not Support.UNIT_INTERVAL:
        raise DataError(
            f"binarise needs data in the unit interval, but {data.name!r} has support "
            f"{data.support.value!r}; leave binarise out, or scale the data to [0, 1] "
            "and load them with support='unit interval'"
        )
    generator = seeded(seed)
    draw: Callable[[Part], Part] = thresholded if way == "threshold" else _drawn_with(generator)
    # Test and valid come first, so that whether train is drawn does not change them.
    test, valid = draw(data.test), draw(data.valid)
    train = replace(data.train, redraw=True) if way == "redraw" else draw(data.train)
    return replace(data, support=Support.BINARY, train=train, valid=valid, test=test)


def thresholded(part: Part) -> Part:
    """Put a 1 wherever an observation exceeds one half, and a 0 elsewhere."""
    return part.binary(lambda rows: (rows > 0.5).to(rows.dtype))


def _drawn_with(generator: Generator) -> Callable[[Part], Part]:
    return lambda part: part.drawn(generator)
