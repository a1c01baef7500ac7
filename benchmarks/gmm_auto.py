"""How many components GMM finds by itself: on simulated sets, and on digits beside scikit-learn.

python benchmarks/gmm_auto.py                         # a few minutes on one core
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

import ppl_gen as pg
from ppl_gen.models import GMM

MOST = 20


def clusters(components: int, rows: int, seed: int, apart: float = 3.0) -> Tensor:
    """Rows of a normal mixture in the plane, unequal in weights, shapes and directions.

    Args:
        components: How many there are.
        rows: How many rows.
        seed: Of everything.
        apart: Least distance of two means, in standard deviations: along the line that joins them,
            each component's own deviation counts, and the larger of the two is the unit.

    Returns:
        Rows, ``(rows, 2)``, in random order.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    weights = 0.5 + uniform(components)
    angles, scales = torch.pi * uniform(components), 0.5 + uniform(components, 2)
    turns = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], -1)
    roots = turns.reshape(-1, 2, 2) * scales.unsqueeze(1)
    width = 4.0 * components**0.5
    means = width * uniform(components, 2)
    while not _apart(means, roots, apart):
        means = width * uniform(components, 2)
    labels = torch.multinomial(weights, rows, replacement=True, generator=generator)
    noise = torch.randn(rows, 2, 1, generator=generator)
    return means[labels] + (roots[labels] @ noise).squeeze(-1)


def _apart(means: Tensor, roots: Tensor, least: float) -> bool:
    gaps = means.unsqueeze(0) - means.unsqueeze(1)
    lengths = gaps.norm(dim=-1).fill_diagonal_(1.0)
    along = torch.einsum("jkd,kde->jke", gaps / lengths.unsqueeze(-1), roots).norm(dim=-1)
    distances = lengths / torch.maximum(along, along.T)
    return bool(distances.fill_diagonal_(torch.inf).min() >= least)


def number_found(components: int, rows: int, seed: int) -> int:
    """The number of components that GMM finds among at most 20."""
    x = clusters(components, rows, seed)
    run = pg.fit(GMM((2,), components="auto", most=MOST), x, method="em", seed=seed, progress=False)
    return run.story.components


def simulated(components: int, rows: int, sets: int) -> None:
    """Print the numbers found on simulated sets."""
    begun = time.perf_counter()
    found = [number_found(components, rows, seed) for seed in range(sets)]
    right = sum(number == components for number in found)
    seconds = (time.perf_counter() - begun) / sets
    print(
        f"{components} components, {rows} rows: right in {right} of {sets} sets (asked: 9 of 10), "
        f"found {found}, {seconds:.1f} s each",
        flush=True,
    )


def digits(seed: int) -> None:
    """Print how well clusters agree with the classes of digits, ours and scikit-learn's."""
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA
    from sklearn.metrics import adjusted_rand_score
    from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

    images, labels = load_digits(return_X_y=True)
    x = PCA(10, random_state=seed).fit_transform(images)
    begun = time.perf_counter()
    run = pg.fit(
        GMM((10,), components="auto", most=MOST), x, method="em", seed=seed, progress=False
    )
    seconds = time.perf_counter() - begun
    ours = adjusted_rand_score(labels, run.story.predict(x).numpy())
    fixed = GaussianMixture(10, n_init=10, random_state=seed).fit_predict(x)
    bayesian = BayesianGaussianMixture(
        n_components=MOST, max_iter=1000, random_state=seed
    ).fit_predict(x)
    print(
        f"digits in 10 dimensions, seed {seed}: adjusted Rand index {ours:.3f} with "
        f"{run.story.components} components in {seconds:.1f} s (asked: at least scikit-learn's); "
        f"GaussianMixture of 10, best of 10 starts, {adjusted_rand_score(labels, fixed):.3f}, "
        f"BayesianGaussianMixture of {MOST} {adjusted_rand_score(labels, bayesian):.3f}",
        flush=True,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sets", type=int, default=10, help="simulated sets of each kind")
    parser.add_argument("--rows", type=int, default=1500, help="rows of each")
    options = parser.parse_args()
    for components in (3, 5, 8):
        simulated(components, options.rows, options.sets)
    for seed in range(3):
        digits(seed)
