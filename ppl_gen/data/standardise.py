"""Bringing columns of different units to one scale."""

from dataclasses import replace

from ppl_gen.data.dataset import Dataset, Part
from ppl_gen.data.support import Support
from ppl_gen.errors import DataError


def standardised(data: Dataset) -> Dataset:
    """Give every entry of an observation mean 0 and standard deviation 1 over the train part.

    An entry that does not vary is only centred; values that are missing (NaN) stay so.
    Log-densities of the result are in nats of the standardised data.

    Args:
        data: Real observations.

    Raises:
        DataError: If the observations are not real, or an entry is missing in all of train.
    """
    if data.support is not Support.REAL:
        raise DataError(
            f"standardise is for real data, but {data.name!r} has support "
            f"{data.support.value!r}; leave it out, or say that they are real numbers with "
            "support='real' (--support real)"
        )
    x = data.train.x
    loc = x.nanmean(0)
    scale = (x - loc).square().nanmean(0).sqrt()
    if loc.isnan().any():
        raise DataError(
            f"every column of {data.name!r} must have a value in the train part, but column "
            f"{int(loc.isnan().flatten().nonzero()[0])} has none there: drop it"
        )
    scale[scale < 1e-6 * (1 + loc.abs())] = 1.0

    def moved(part: Part) -> Part:
        return Part(((part.x - loc) / scale, *part.stored[1:]))

    train, valid, test = map(moved, data.parts)
    return replace(data, train=train, valid=valid, test=test)
