"""Labels for some of the data only: -1 stands for a label that is not known."""

from dataclasses import replace

import torch

from ppl_gen.data.dataset import Dataset, seeded
from ppl_gen.errors import DataError

UNKNOWN = -1


def partly_labelled(data: Dataset, labelled: int, seed: int = 0) -> Dataset:
    """Keep so many labels of the train part, of every class as many, and forget the others.

    The other parts keep theirs, so that what was learned can be held against them.

    Args:
        data: Observations with class labels in the second column.
        labelled: How many labels of the train part to keep.
        seed: The seed of the choice.

    Returns:
        The same observations; -1 in place of a label that is forgotten.

    Raises:
        DataError: If the data have no class labels, or ``labelled`` is below the number of
            classes or above that of rows.
    """
    y = data.train.y
    if y is None or y.is_floating_point() or y.ndim != 1:
        raise DataError(f"labelled needs class labels, which {data.name!r} does not have")
    classes = y[y != UNKNOWN].unique()
    known = int((y != UNKNOWN).sum())
    if not len(classes) <= labelled <= known:
        raise DataError(
            f"labelled must be from {len(classes)}, one a class, to {known}, the labelled rows of "
            f"the train part, got {labelled}"
        )
    order = torch.randperm(len(y), generator=seeded(seed))
    ranks = torch.full_like(y, len(y))
    for label in classes:  # the how-manieth of its class each row is, in random order
        rows = order[y[order] == label]
        ranks[rows] = torch.arange(len(rows))
    kept = ranks[order].argsort(stable=True)[:labelled]
    labels = torch.full_like(y, UNKNOWN)
    labels[order[kept]] = y[order[kept]]
    x, _, *rest = data.train.stored
    return replace(data, train=replace(data.train, stored=(x, labels, *rest)))
