"""Pure functions of points drawn, held out and trained on: copies among them, and what is new."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEAR = 0.05
FAR = 0.01


@dataclass(frozen=True)
class CopyTest:
    """How near to the training points draws lie, beside held-out points.

    Attributes:
        nearer: Share of pairs of a draw and a held-out point in which the draw is nearer to its
            nearest training point; 0.5 where both are as near.
        p_value: How often draws as near as held-out points are found at least as near.
        copies: Share of draws beyond those of a fair law that lie nearer than 95 % of held-out
            points do: about that share are copies. From 0 to 1.
        copies_p_value: How often that many draws of a fair law do.
        nearest: Of each draw the training point next to it, ``(n,)``.
        distances: And how far that is, ``(n,)``.
    """

    nearer: float
    p_value: float
    copies: float
    copies_p_value: float
    nearest: Tensor
    distances: Tensor


def copy_test(drawn: Tensor, held_out: Tensor, train: Tensor) -> CopyTest:
    r"""Test whether draws lie nearer to the training points than held-out points do.

    With :math:`d(\cdot)` the distance to the nearest training point, ``nearer`` is the
    Mann-Whitney statistic :math:`P(d(\mathrm{drawn}) < d(\mathrm{held\ out}))`, ties counted half.
    A model that has learned the law of the data draws as new points as the data hold out; one that
    has learned the data by heart draws nearer ones. One that blurs lies below 0.5 or above,
    according to whether its draws have too much or too little noise.

    Args:
        drawn: Points that a model has drawn, ``(n, D)``.
        held_out: Points of the data that it has not seen, ``(m, D)``.
        train: Those that it was fitted to, ``(N, D)``.

    Raises:
        ValueError: If shapes disagree, a set is empty, or a value is not finite.

    Reference:
        Meehan et al. (2020), https://arxiv.org/abs/2004.05675
    """
    _check(drawn=drawn, held_out=held_out, train=train)
    from scipy.stats import binomtest, mannwhitneyu

    distances, nearest = _nearest(drawn, train)
    held, _ = _nearest(held_out, train)
    test = mannwhitneyu(distances.numpy(), held.numpy(), alternative="less")
    nearer = 1 - float(test.statistic) / (len(drawn) * len(held_out))
    # A threshold from few points is itself uncertain: the share of draws below it, too.
    limit = held.sort().values[int(NEAR * len(held))]
    near = int((distances < limit).sum())
    share = near / len(drawn)
    expected = (int(NEAR * len(held)) + 1) / (len(held) + 1)
    p_value = float(binomtest(near, len(drawn), expected, alternative="greater").pvalue)
    copies = max(0.0, (share - expected) / (1 - expected))
    return CopyTest(nearer, float(test.pvalue), copies, p_value, nearest, distances)


def _nearest(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each point to the nearest of the others, and which that is, ``(n,)`` each."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=1).fit(others.double().numpy())
    distances, indices = search.kneighbors(points.double().numpy())
    return torch.from_numpy(distances[:, 0]), torch.from_numpy(indices[:, 0])


@dataclass(frozen=True)
class NoveltyTest:
    """How many held-out points lie where there are no training points.

    Attributes:
        share: Of the held-out points, which lie farther from the training points than 99 % of these
            lie from each other; 0.01 where one law has drawn both.
        p_value: How often that many do.
        farthest: Held-out points, the farthest first, up to five.
    """

    share: float
    p_value: float
    farthest: list[int]


def novelty_test(held_out: Tensor, train: Tensor) -> NoveltyTest:
    """Test whether held-out points lie among the training points, as these lie among each other.

    What a part of the data that the training points lack adds to the distances to the nearest
    training point shows in their tail.

    Args:
        held_out: Points, ``(m, D)``.
        train: Points, ``(N, D)``, at least 3.

    Raises:
        ValueError: If shapes disagree, there are too few points, or a value is not finite.

    Reference:
        The distance to the nearest neighbour, of Ramaswamy et al. (2000),
        https://doi.org/10.1145/342009.335437, its threshold left-one-out
    """
    if len(train) < 3:
        raise ValueError(f"train must have at least 3 points, got {len(train)}")
    _check(held_out=held_out, train=train)
    from scipy.stats import binomtest
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=2).fit(train.double().numpy())
    own = torch.from_numpy(search.kneighbors()[0][:, 0]).sort().values
    distances, _ = _nearest(held_out, train)
    above = max(1, round(FAR * len(own)))
    beyond = distances > own[-above]
    expected = above / (len(own) + 1)
    share = beyond.double().mean().item()
    p_value = binomtest(int(beyond.sum()), len(beyond), expected, alternative="greater").pvalue
    farthest = distances.argsort(descending=True)[:5].tolist()
    return NoveltyTest(share, float(p_value), farthest)


def _check(**sets: Tensor) -> None:
    dimensions = sets["train"].shape[-1]
    for name, points in sets.items():
        if points.dim() != 2 or not len(points) or points.shape[1] != dimensions:
            raise ValueError(
                f"{name} must have shape (points, {dimensions}), got {tuple(points.shape)}"
            )
        if not points.isfinite().all():
            raise ValueError(f"{name} must be finite, got values that are not")
