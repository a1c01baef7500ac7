"""Hold the Gaussian mixture against scikit-learn's EM and against Pyro's NUTS.

python benchmarks/gmm.py                                  # some minutes on one core
"""

from __future__ import annotations

import time
from typing import Any

import pyro
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import init_to_value
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture
from torch import Tensor

import ppl_gen as pg
from ppl_gen.models.gmm import GMM


def iris() -> None:
    """Print the highest likelihoods that EM finds, and those that are known."""
    x = torch.from_numpy(load_iris(return_X_y=True)[0])
    for components, known in ((2, -214.355), (3, -180.185)):
        found = []
        for seed in range(5):
            run = pg.fit(GMM((4,), components), x, method="em", seed=seed, progress=False)
            found.append(run.story.score_samples(x).sum().item())
        print(
            f"iris, {components} components: log-likelihood from five starts {min(found):.3f} to "
            f"{max(found):.3f}; asked: {known} within 0.01"
        )


def clusters(rows: int, components: int, features: int, seed: int) -> Tensor:
    """Rows of normal clusters with covariances of their own, shape ``(rows, features)``."""
    generator = torch.Generator().manual_seed(seed)
    loc = 4 * torch.randn(components, features, generator=generator)
    root = torch.randn(components, features, features, generator=generator) / features**0.5
    root = root + 0.7 * torch.eye(features)
    labels = torch.randint(components, (rows,), generator=generator)
    noise = torch.randn(rows, features, generator=generator)
    return loc[labels] + torch.einsum("nij,nj->ni", root[labels], noise)


def gradients(components: int, features: int) -> None:
    """Print the likelihood that SVI reaches and that of scikit-learn's EM from the same start."""
    x = clusters(10_000, components, features, seed=0)
    torch.manual_seed(0)
    start = GMM((features,), components, posterior="ml")
    start.start(x)
    begun = time.perf_counter()
    run = pg.fit(
        start,
        x,
        epochs=40,
        learning_rate=0.01,
        schedule="cosine",
        warm_start=True,
        seed=0,
        progress=False,
    )
    seconds = time.perf_counter() - begun
    options: Any = {"reg_covar": 0.0, "tol": 1e-8, "max_iter": 1000}
    reference = GaussianMixture(
        components,
        weights_init=start.weights.numpy(),
        means_init=start.means.numpy(),
        precisions_init=start.covariances.inverse().numpy(),
        **options,
    )
    begun = time.perf_counter()
    best = reference.fit(x.double().numpy()).score(x.double().numpy())
    print(
        f"10,000 points, {components} components, {features} features: SVI "
        f"{run.story.score_samples(x).mean():.4f} nats a point in {seconds:.0f} s, scikit-learn's "
        f"EM from the same start {best:.4f} in {time.perf_counter() - begun:.1f} s; asked: within "
        "0.01"
    )


def nuts(x: Tensor, story: GMM, draws: int) -> dict[str, Tensor]:
    """Draws of Pyro's NUTS of the globals, ``(draws, *)`` each, begun at the story's centre."""
    values = {
        "weights": story.weights,
        "loc": story.means,
        "scale": story.covariances.diagonal(dim1=-2, dim2=-1).sqrt(),
    }
    values["correlation"] = torch.linalg.cholesky(story.covariances) / values["scale"][..., None]
    kernel = NUTS(story.model, init_strategy=init_to_value(values=values))
    pyro.set_rng_seed(0)
    chain = MCMC(kernel, num_samples=draws, warmup_steps=draws // 2, disable_progbar=True)
    chain.run(x)
    return chain.get_samples()


def upright(rows: int) -> Tensor:
    """Rows of two clusters whose columns are little correlated, 0.2 and -0.2."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(rows, 2, generator=generator)
    side = torch.where(torch.rand(rows, generator=generator) < 0.6, 1.0, -1.0)
    noise[:, 1] = 0.2 * side * noise[:, 0] + 0.96**0.5 * noise[:, 1]
    return noise * torch.stack([1 + 0.3 * side, 1 - 0.3 * side], 1) + 3 * side[:, None]


def posteriors(x: Tensor, named: str) -> None:
    """Print means and standard deviations of two guides beside those of NUTS."""
    x = x.double()
    exact: dict[str, Tensor] = {}
    for posterior in ("normal", "full"):
        run = pg.fit(
            GMM((2,), 2, posterior=posterior),
            x,
            epochs=2000,
            batch_size=1000,
            learning_rate=0.02,
            schedule="cosine",
            particles=4,
            seed=0,
            progress=False,
        )
        tree = run.posterior(x, draws=4000, groups=["posterior"])
        exact = exact or nuts(x, run.story, draws=1000)
        for name in ("weights", "loc", "scale"):
            ours, theirs = torch.as_tensor(tree["posterior"][name].values)[0], exact[name]
            away = ((ours.mean(0) - theirs.mean(0)).abs() / theirs.std(0)).max()
            relative = (ours.mean(0) / theirs.mean(0) - 1).abs().max()
            ratio = ours.std(0) / theirs.std(0)
            print(
                f"{named}, {posterior} guide against NUTS, {name}: means at most {away:.2f} "
                f"posterior sds apart ({relative:.1%} of themselves), sds {ratio.min():.2f} to "
                f"{ratio.max():.2f} of NUTS's; asked: within 10 %",
                flush=True,
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    iris()
    gradients(components=3, features=2)
    gradients(components=5, features=10)
    posteriors(upright(1000), "little correlated")
    # A guide without correlations cannot be wide enough here; one with all of them is.
    posteriors(clusters(1000, 2, 2, seed=3), "slanted")
