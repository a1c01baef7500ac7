"""Pure functions of points with labels: whether points that were made for a label show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl_gen.inference.estimators.two_sample import LEAST_POINTS


@dataclass(frozen=True)
class LabelTest:
    """How often a classifier reads the right label off a point.

    Attributes:
        real: Off points of the data that it has not seen.
        made: Off points made for the same labels.
        chance: How often the most frequent label would be right.
        p_value: How often points that show their label as well as those of the data are read
            wrongly as often.
        points: How many of either were read.
    """

    real: float
    made: float
    chance: float
    p_value: float
    points: int

    @property
    def kept(self) -> float:
        """How much of what the data say of their label the made points say, 1 for all of it."""
        return (self.made - self.chance) / max(self.real - self.chance, 1e-12)


def label_test(real: Tensor, made: Tensor, labels: Tensor, seed: int = 0) -> LabelTest:
    """Test whether points made for a label show it as those of the data do.

    Half of the data's points train a classifier of labels, a random forest; it then reads
    the other half, and the points made for the labels of that half. The p-value is that of Fisher's
    exact test of both numbers of errors.

    Args:
        real: Points of the data, ``(N, D)``.
        made: Points made for the same labels, ``(N, D)``.
        labels: Whole numbers, ``(N,)``.
        seed: Of the halves.

    Raises:
        ValueError: If shapes disagree, there are fewer than 20 points, all labels are equal, or a
            value is not finite.

    Reference:
        Shmelkov et al. (2018), the GAN-test, https://arxiv.org/abs/1807.09499
    """
    if real.dim() != 2 or real.shape != made.shape or labels.shape != real.shape[:1]:
        raise ValueError(
            "real, made and labels must have shapes (N, D), (N, D) and (N,), got "
            f"{tuple(real.shape)}, {tuple(made.shape)} and {tuple(labels.shape)}"
        )
    if len(real) < LEAST_POINTS:
        raise ValueError(f"there must be at least {LEAST_POINTS} points, got {len(real)}")
    if not (real.isfinite().all() and made.isfinite().all()):
        raise ValueError("points must be finite, got values that are not")
    from scipy.stats import fisher_exact
    from sklearn.ensemble import RandomForestClassifier

    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    known, asked = order.chunk(2)
    if len(labels[known].unique()) < 2:
        raise ValueError("labels must differ, got one label in half of the points")
    # Trees do not mind noise on elements that are constant in the data, as the pixels of a corner.
    reader = RandomForestClassifier(200, random_state=seed)
    reader.fit(real[known].double().numpy(), labels[known].numpy())
    truth = labels[asked]
    right = [
        int((torch.from_numpy(reader.predict(points[asked].double().numpy())) == truth).sum())
        for points in (real, made)
    ]
    count = len(asked)
    table = [[right[1], count - right[1]], [right[0], count - right[0]]]
    tested: Any = fisher_exact(table, alternative="less")
    chance = (truth == labels[known].mode().values).double().mean().item()
    return LabelTest(right[0] / count, right[1] / count, chance, float(tested.pvalue), count)
