"""Pure functions of two sets of points: whether one law can have drawn both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Those of Tolstikhin et al., around the squared distance that two points have on average.
SPREADS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
LEAST_POINTS = 20  # our limit: with fewer in either set no test finds more than gross faults


def mmd(x: Tensor, y: Tensor, scales: Sequence[float] | Tensor | None = None) -> Tensor:
    r"""Estimate the squared maximum mean discrepancy of two laws from draws of each.

    .. math::
        \frac{1}{n (n - 1)} \sum_{i \ne j} k(x_i, x_j)
        + \frac{1}{m (m - 1)} \sum_{i \ne j} k(y_i, y_j)
        - \frac{2}{n m} \sum_{i, j} k(x_i, y_j),
        \qquad k(a, b) = \sum_C \frac{C}{C + \lVert a - b \rVert^2}

    It is 0 in expectation if and only if both laws are one, and may fall below 0 by chance: it is
    unbiased. Its gradient is that of a training objective: no value decides what is computed, so
    that it can be captured as a graph. The tails of the kernel are heavy, so that points far from
    all others are pulled, too.

    Args:
        x: Draws of one law, shape ``(n, D)``.
        y: Draws of the other, shape ``(m, D)``.
        scales: Values of :math:`C`, in squared units of the points; by default
            :math:`2 D \, (0.1, 0.2, 0.5, 1, 2, 5, 10)`, for laws of about unit variance, as
            :math:`2 D` is then the mean squared distance of two points.

    Returns:
        The estimate, a number without unit, shape ``()``.

    Raises:
        ValueError: If a set has another shape than ``(n, D)`` and ``(m, D)``, or fewer than 2
            points.

    References:
        Gretton et al. (2012), lemma 6, https://jmlr.org/papers/v13/gretton12a.html; the kernel:
        Tolstikhin et al. (2018), section 4, https://arxiv.org/abs/1711.01558
    """
    _check_shapes(x, y, least=2)
    # Distances are those of the points moved to the origin, where products lose no digits.
    centre = y.detach().mean(0)
    x, y = x - centre, y - centre
    if scales is None:
        scales = [2 * x.shape[1] * spread for spread in SPREADS]
    within = [_mean_off_diagonal(_kernel(_squared_distances(z, z), scales)) for z in (x, y)]
    return within[0] + within[1] - 2 * _kernel(_squared_distances(x, y), scales).mean()


@dataclass(frozen=True)
class TwoSample:
    """A test of whether one law has drawn two sets of points.

    Attributes:
        statistic: The squared maximum mean discrepancy.
        p_value: How often sets that one law has drawn lie as far apart or further.
        points: How many of each set were looked at.
    """

    statistic: float
    p_value: float
    points: tuple[int, int]


def mmd_test(
    x: Tensor, y: Tensor, permutations: int = 500, seed: int = 0, *, points: int = 1000
) -> TwoSample:
    r"""Test by the maximum mean discrepancy whether one law has drawn two sets of points.

    If so, it does not matter which point is of which set: the statistic is compared with its values
    after so many random exchanges, :math:`p = (1 + \#\{T_\pi \ge T\}) / (1 + \pi)`. That holds its
    level exactly, for sets of any size. The scales of the kernel are those of :func:`mmd` with the
    median squared distance of all points in place of :math:`2 D`, which no exchange changes.

    Args:
        x: Points, shape ``(n, D)``.
        y: Points, shape ``(m, D)``.
        permutations: How many exchanges; the p-value is never below one over one more than these.
        seed: Of the exchanges, and of the choice of points.
        points: At most so many of either set are looked at, chosen by chance; memory grows with
            their square, to about 100 MB for 1,000.

    Raises:
        ValueError: If a set has another shape than ``(n, D)`` and ``(m, D)``, fewer than 20
            points, or a value that is not finite; or if there are no exchanges.

    Reference:
        Gretton et al. (2012), https://jmlr.org/papers/v13/gretton12a.html
    """
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    _check_values(x, y)
    generator = torch.Generator().manual_seed(seed)
    x, y = (_chosen(z, points, generator) for z in (x, y))
    n, m = len(x), len(y)
    pooled = torch.cat([x, y])
    distances = _squared_distances(*[pooled - pooled.mean(0)] * 2)
    typical = _typical(distances)
    kernel = _kernel(distances, [typical * spread for spread in SPREADS])
    kernel.fill_diagonal_(0.0)
    # Of each exchange one row says which points are of the first set; the first row is that of x.
    orders = torch.rand(permutations, n + m, generator=generator).argsort(1)
    first = torch.cat([torch.arange(n + m)[None], orders]).argsort(1) < n
    inside = first.double()
    own = (inside @ kernel).mul_(inside).sum(1)
    both = inside @ kernel.sum(1) - own  # with the points of the other set
    other = kernel.sum() - own - 2 * both
    statistics = own / (n * (n - 1)) + other / (m * (m - 1)) - 2 * both / (n * m)
    # An exchange that changes nothing may differ from x and y by the rounding of its sums.
    above = (statistics[1:] >= statistics[0] - 1e-10).sum().item()
    return TwoSample(statistics[0].item(), (1 + above) / (1 + permutations), (n, m))


@dataclass(frozen=True)
class ClassifierTest:
    """How well a classifier tells two sets of points apart.

    Attributes:
        accuracy: Share of held-out points of which it knows the set; 0.5 is chance.
        p_value: How often guesses do as well or better.
        points: How many points it was held against, of both sets together.
    """

    accuracy: float
    p_value: float
    points: int


def classifier_test(x: Tensor, y: Tensor, seed: int = 0, *, points: int = 2500) -> ClassifierTest:
    r"""Test by a classifier whether one law has drawn two sets of points.

    Half of each set trains it, the other half is told apart by it. If one law has drawn both, it
    can but guess: the p-value is that of a one-sided binomial test against chance. Of two normal
    laws of unit variance, :math:`\delta` apart, no classifier knows more than
    :math:`\Phi(\delta / 2)` of the points.

    The classifier is a small network and boosted trees that vote, each with a probability: over
    shifts, scales, correlations, tails and clusters in 2 and 10 dimensions that was the most
    accurate of what scikit-learn has, since the trees see what single columns show, and the network
    what only many together do. The network sees the normal scores of each column and their squares,
    so that heavy tails do not blind it.

    Args:
        x: Points, shape ``(n, D)``.
        y: Points, shape ``(m, D)``.
        seed: Of the halves and of the training.
        points: At most so many of either set are taken, and as many of each, chosen by chance.

    Raises:
        ValueError: If a set has another shape than ``(n, D)`` and ``(m, D)``, fewer than 20
            points, or a value that is not finite.

    Reference:
        Lopez-Paz and Oquab (2017), https://arxiv.org/abs/1610.06545
    """
    _check_values(x, y)
    from scipy.stats import binomtest

    generator = torch.Generator().manual_seed(seed)
    points = min(points, len(x), len(y))
    both = torch.stack([_chosen(z, points, generator) for z in (x, y)])
    half = points // 2
    train, held_out = both[:, :half], both[:, half:]
    second = _probability_of_second(train, held_out.flatten(0, 1), seed)
    right = (second.reshape(2, -1) > 0.5) == torch.tensor([[False], [True]])
    hits, asked = int(right.sum()), right.numel()
    p_value = binomtest(hits, asked, 0.5, alternative="greater").pvalue
    return ClassifierTest(hits / asked, float(p_value), asked)


def _probability_of_second(train: Tensor, asked: Tensor, seed: int) -> Tensor:
    """That points ``(N, D)`` are of the second of two sets ``(2, n, D)``."""
    import numpy as np
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import QuantileTransformer

    known, new = train.flatten(0, 1).numpy(), asked.numpy()
    labels = np.repeat([0, 1], train.shape[1])
    normal = QuantileTransformer(
        n_quantiles=min(200, len(known)), output_distribution="normal", random_state=seed
    ).fit(known)

    def scores(points: np.ndarray) -> np.ndarray:
        found = np.asarray(normal.transform(points))
        return np.hstack([found, found**2])

    trees = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_leaf_nodes=15,
        early_stopping=True,  # pyright: ignore[reportArgumentType]
        random_state=seed,
    )
    network = MLPClassifier(
        (64, 64), alpha=1e-3, learning_rate_init=5e-3, early_stopping=True, random_state=seed
    )
    told = trees.fit(known, labels).predict_proba(new)
    told = told + network.fit(scores(known), labels).predict_proba(scores(new))
    return torch.from_numpy(told[:, 1] / 2)


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Between all points of both, ``(n, m)``."""
    squares = x.square().sum(1)[:, None] + y.square().sum(1)
    return (squares - 2 * x @ y.T).clamp_min(0)


def _kernel(distances: Tensor, scales: Sequence[float] | Tensor) -> Tensor:
    """A sum of inverse multiquadratics of squared distances, of their shape."""
    # One after the other: all at once would take the memory of all.
    return sum((c / (c + distances) for c in scales), torch.zeros_like(distances))


def _mean_off_diagonal(matrix: Tensor) -> Tensor:
    n = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))


def _typical(distances: Tensor) -> float:
    """The median of the distances that are not 0; 1 if all are."""
    above = distances[distances > 1e-12 * distances.max()]
    return above.median().item() if len(above) else 1.0


def _chosen(points: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """At most so many points, in random order and double precision."""
    order = torch.randperm(len(points), generator=generator)[:most]
    return points.detach().cpu()[order].double()


def _check_shapes(x: Tensor, y: Tensor, least: int) -> None:
    for name, points in (("x", x), ("y", y)):
        if points.dim() != 2 or not points.shape[1]:
            shape = tuple(points.shape)
            raise ValueError(f"{name} must have shape (points, dimensions), got {shape}")
        if len(points) < least:
            raise ValueError(f"{name} must have at least {least} points, got {len(points)}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"y must have as many dimensions as x, {x.shape[1]}, got {y.shape[1]}")


def _check_values(x: Tensor, y: Tensor) -> None:
    _check_shapes(x, y, LEAST_POINTS)
    for name, points in (("x", x), ("y", y)):
        wrong = int((~points.isfinite()).sum())
        if wrong:
            raise ValueError(f"{name} must be finite, got {wrong} values that are not")
