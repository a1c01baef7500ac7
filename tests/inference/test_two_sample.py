"""Two sets of points are told apart where their laws differ, and no more often than promised."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

from ppl_gen.inference.estimators.two_sample import SPREADS, classifier_test, mmd, mmd_test


def points(n: int, features: int, seed: int, shift: float = 0.0) -> Tensor:
    """Normal points of unit variance, moved along the first axis."""
    drawn = torch.randn(n, features, generator=torch.Generator().manual_seed(seed))
    drawn[:, 0] += shift
    return drawn.double()


def by_hand(x: Tensor, y: Tensor, scales: list[float]) -> float:
    """The estimate of Gretton et al. (2012), lemma 6, pair by pair."""

    def kernel(a: Tensor, b: Tensor) -> float:
        distance = (a - b).square().sum().item()
        return sum(c / (c + distance) for c in scales)

    n, m = len(x), len(y)
    own = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j)
    other = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    both = sum(kernel(a, b) for a in x for b in y)
    return own / (n * (n - 1)) + other / (m * (m - 1)) - 2 * both / (n * m)


@pytest.mark.parametrize("features", [1, 3])
def test_the_discrepancy_is_its_sum_over_all_pairs(features: int) -> None:
    """Far from the origin too, where products of single precision would lose it."""
    x, y = points(7, features, 0), points(5, features, 1, shift=1.0)
    default = [2 * features * spread for spread in SPREADS]

    assert mmd(x, y).item() == pytest.approx(by_hand(x, y, default), abs=1e-12)
    assert mmd(x, y, [0.3, 4.0]).item() == pytest.approx(by_hand(x, y, [0.3, 4.0]), abs=1e-12)
    moved = mmd((x + 1000).float(), (y + 1000).float()).item()
    assert moved == pytest.approx(by_hand(x, y, default), abs=2e-3)


def test_the_discrepancy_is_symmetric() -> None:
    x, y = points(30, 2, 0), points(40, 2, 1, shift=0.5)
    assert_close(mmd(x, y), mmd(y, x), atol=1e-12, rtol=0)
    there, back = mmd_test(x, y), mmd_test(y, x)
    assert there.points == back.points[::-1] == (30, 40)
    assert there.statistic == pytest.approx(back.statistic, abs=1e-12)
    assert there.p_value == pytest.approx(back.p_value, abs=4 * math.sqrt(0.25 / 500))


def test_the_discrepancy_of_one_law_is_zero_on_average() -> None:
    """Unbiased: the mean of 400 estimates lies within four standard errors of 0."""
    found = torch.stack([mmd(points(8, 2, 2 * i), points(12, 2, 2 * i + 1)) for i in range(400)])
    assert found.mean().abs() < 4 * found.std() / math.sqrt(len(found))
    assert (found < 0).any()


def test_the_gradient_of_the_discrepancy_is_that_of_its_values() -> None:
    x = points(5, 3, 0).requires_grad_()
    y = points(4, 3, 1, shift=0.7).requires_grad_()
    assert torch.autograd.gradcheck(mmd, (x, y))


def test_the_discrepancy_is_captured_as_a_graph() -> None:
    """No value decides what is computed, and the default scales are no values of the points."""
    from torch.fx.experimental.proxy_tensor import make_fx

    x, y = points(6, 2, 0), points(6, 2, 1)
    graph = make_fx(lambda a, b: mmd(a, b))(x, y)
    other = points(6, 2, 2, shift=3.0)
    assert_close(graph(other, y), mmd(other, y))


def test_the_test_takes_the_statistic_of_the_points() -> None:
    """With the median squared distance for its scale."""
    x, y = points(25, 2, 0), points(30, 2, 1, shift=0.5)
    pooled = torch.cat([x, y])
    median = torch.pdist(pooled).square().median().item()
    expected = by_hand(x, y, [median * spread for spread in SPREADS])
    assert mmd_test(x, y, permutations=3).statistic == pytest.approx(expected, abs=1e-9)


def test_points_of_one_law_have_uniform_p_values() -> None:
    """Of the discrepancy; of the classifier they are discrete, and small ones no more frequent."""
    pairs = [(points(40, 2, 2 * i), points(60, 2, 2 * i + 1)) for i in range(150)]
    found = [mmd_test(x, y, permutations=199, seed=i).p_value for i, (x, y) in enumerate(pairs)]
    assert stats.kstest(found, "uniform").pvalue > 0.005

    pairs = [(points(80, 2, 2 * i), points(80, 2, 2 * i + 1)) for i in range(100)]
    found = [classifier_test(x, y, seed=i).p_value for i, (x, y) in enumerate(pairs)]
    for level in (0.05, 0.25):
        hits = sum(p <= level for p in found)
        assert stats.binomtest(hits, len(found), level, alternative="greater").pvalue > 0.005


def test_points_of_laws_that_are_apart_are_told_apart() -> None:
    """100 of each, half a deviation apart: Hotelling's test has a power of 0.9 there."""
    found = [
        mmd_test(points(100, 2, 2 * i), points(100, 2, 2 * i + 1, shift=0.5), 199, seed=i).p_value
        for i in range(40)
    ]
    assert sum(p <= 0.05 for p in found) >= 28
    assert mmd_test(points(300, 2, 0), points(300, 2, 1, shift=1.0)).p_value == 1 / 501


def test_points_that_repeat_are_of_one_law() -> None:
    """All distances are 0, or all statistics equal: the p-value is 1, not a matter of rounding."""
    same = torch.ones(30, 2)
    assert mmd_test(same, same).p_value == 1
    assert classifier_test(same, same).accuracy == pytest.approx(0.5)
    grid = torch.tensor([0.1, 0.7]).repeat(20)[:, None]
    assert mmd_test(grid, grid).p_value > 0.9


@pytest.mark.parametrize(("features", "shift"), [(2, 1.0), (2, 3.0), (10, 1.0)])
def test_the_classifier_comes_near_to_what_can_be_known(features: int, shift: float) -> None:
    """Of two normals the optimum is Phi(delta / 2); it may lose 3 % and its chance of 3 errors."""
    found = classifier_test(points(2500, features, 0), points(2500, features, 1, shift))

    best = stats.norm.cdf(shift / 2)
    error = math.sqrt(best * (1 - best) / found.points)
    assert found.points == 2500
    assert best - 0.03 - 3 * error < found.accuracy < best + 3 * error
    assert found.p_value < 1e-6


@pytest.mark.parametrize("features", [2, 10])
def test_the_classifier_sees_more_than_means(features: int) -> None:
    """Correlation alone, tails, clusters, a narrower radius: of the same mean and symmetric."""
    generator = torch.Generator().manual_seed(3)
    normal, other = points(2500, features, 0), points(2500, features, 1)
    mixed = other.clone()
    mixed[:, 1] = 0.7 * other[:, 0] + math.sqrt(1 - 0.7**2) * other[:, 1]
    signs = 2 * torch.randint(0, 2, other.shape, generator=generator) - 1
    radius = other.norm(dim=1, keepdim=True)
    laws = {
        "correlated": mixed,
        "heavy": other / (points(2500, 3, 2).square().mean(1, keepdim=True)).sqrt(),
        "clusters": 0.9 * signs + math.sqrt(1 - 0.9**2) * other,
        "round": other * (math.sqrt(features) / radius).sqrt(),
    }
    found = {name: classifier_test(normal, law).p_value for name, law in laws.items()}
    assert max(found.values()) < 0.001, found


def test_the_p_value_of_an_accuracy_is_the_chance_that_guesses_do_as_well() -> None:
    found = classifier_test(points(60, 1, 0), points(60, 1, 1, shift=0.3))
    hits = round(found.accuracy * found.points)
    above = sum(math.comb(60, k) for k in range(hits, 61)) / 2**60
    assert found.p_value == pytest.approx(above, rel=1e-6)


def test_equal_numbers_of_both_sets_are_asked() -> None:
    found = classifier_test(points(50, 2, 0), points(1000, 2, 1))
    assert found.points == 50
    assert classifier_test(points(400, 2, 0), points(400, 2, 1), points=100).points == 100
    assert mmd_test(points(90, 2, 0), points(40, 2, 1), points=60).points == (60, 40)


def test_the_same_seed_gives_the_same_figures() -> None:
    x, y = points(100, 2, 0), points(100, 2, 1, 0.2)
    assert mmd_test(x, y, seed=3) == mmd_test(x, y, seed=3) != mmd_test(x, y, seed=4)
    assert classifier_test(x, y, seed=3) == classifier_test(x, y, seed=3)


def test_what_cannot_be_compared_is_refused() -> None:
    x = points(30, 2, 0)
    for test in (mmd_test, classifier_test):
        with pytest.raises(ValueError, match=r"x must have shape \(points, dimensions\), got \(30"):
            test(x[:, 0], x)
        with pytest.raises(ValueError, match="y must have at least 20 points, got 19"):
            test(x, x[:19])
        with pytest.raises(ValueError, match="y must have as many dimensions as x, 2, got 1"):
            test(x, x[:, :1])
        with pytest.raises(ValueError, match="y must be finite, got 2 values that are not"):
            test(x, x.index_fill(0, torch.tensor([4]), math.nan))
    with pytest.raises(ValueError, match="permutations must be at least 1, got 0"):
        mmd_test(x, x, permutations=0)
    with pytest.raises(ValueError, match="x must have at least 2 points, got 1"):
        mmd(x[:1], x)
