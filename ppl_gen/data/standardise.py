"""Bringing columns of different units to one scale."""

from dataclasses import replace

from ppl_gen.data.dataset import Dataset, Part
from ppl_gen.data.support import Support
from ppl_gen.errors import DataError


def standardised(data: Dataset) -> Dataset:
    """Give every entry of an observation mean 0 and standard deviation 1 over the train part.

    An entry that does not vary is only centred. Log-densities of the result are in nats of the
    standardised data.

    Args:
        data: Real observations.

    Raises:
        DataError: If the observations are not real.
    """
    if data.support is not Support.REAL:
        raise DataError(
            f"standardise is for real data, but {data.name!r} has support "
            f"{data.support.value!r}; leave it out"
        )
    x = data.train.x
    loc, scale = x.mean(0), x.std(0, correction=0)
    scale[scale < 1e-6 * (1 + loc.abs())] = 1.0

    def moved(part: Part) -> Part:
        return Part(((part.x - loc) / scale, *part.columns[1:]))

    train, valid, test = map(moved, data.parts)
    return replace(data, train=train, valid=valid, test=test)
