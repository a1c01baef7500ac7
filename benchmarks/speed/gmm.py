"""Gaussian mixtures: steps of SVI, and how near a fit comes to the highest likelihood."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor
from torch.distributions import constraints

from benchmarks.speed.contender import Contender, Effort, Peer
from benchmarks.speed.harness import alone, contest, shortened
from benchmarks.speed.lines import Line, figure_line, foreign_line
from benchmarks.speed.ours import Ours
from benchmarks.speed.stock import Stock
from benchmarks.speed.stories import Told, clusters, nothing_hidden
from benchmarks.speed.users import ForOurs
from ppl_gen.models import GMM

ROWS, FEATURES, COMPONENTS = 10_000, 16, 10
BAR = 0.10
# The likelihood of a fit may lie so far below that of EM, in nats a point.
NEAR = 0.001
# Of these fits: with steps three times as long they end ten times as far away.
RATE = 3e-3


def full_mixture(batch_size: int | None) -> Told:
    """Clusters with covariances of their own, the cluster of each point enumerated."""
    x = clusters(ROWS, FEATURES, COMPONENTS)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    return Told(full_clusters, nothing_hidden, (x,), elbo, batch_size, 1e-2)


@config_enumerate
def full_clusters(x: Tensor) -> None:
    """The model of :func:`full_mixture`."""
    count, features = COMPONENTS, x.shape[1]
    weights = pyro.param("weights", x.new_ones(count) / count, constraint=constraints.simplex)
    loc = pyro.param("loc", lambda: 3 * torch.randn(count, features, device=x.device))
    root = pyro.param(
        "scale_tril",
        lambda: torch.eye(features, device=x.device).repeat(count, 1, 1),
        constraint=constraints.lower_cholesky,
    )
    with pyro.plate("points", len(x)):
        k = pyro.sample("k", dist.Categorical(weights))
        pyro.sample("x", dist.MultivariateNormal(loc[k], scale_tril=root[k]), obs=x)


def our_mixture() -> tuple[GMM, Tensor]:
    """Our mixture with as many parameters, and its data."""
    story = GMM((FEATURES,), COMPONENTS, posterior="ml")
    return story, clusters(ROWS, FEATURES, COMPONENTS)


def steps_of(batch_size: int | None, effort: Effort) -> list[Line]:
    """Ours against Pyro's, on the same program and with our own story of mixtures."""
    make = partial(full_mixture, batch_size)
    stock: Contender = Stock(make, batch_size)
    settings: dict[str, Any] = {"batch_size": batch_size or ROWS, "learning_rate": 1e-2}
    shown = f"batches of {batch_size:,}" if batch_size else "full batch"
    steps = 200 if batch_size else 40
    against = "the same under SVI.step, TraceEnum_ELBO"
    lines = []
    for name, told in (("the same program", ForOurs(make)), ("models.GMM", our_mixture)):
        work = f"GMM by SVI, a step, {shown}, {name}"
        ours = Ours(told, settings)
        lines += contest(work, ours, [Peer(against, stock, BAR)], steps, effort)
    return lines


def shortfall(batch_size: int, epochs: int) -> float:
    """Nats a point that a fit by SVI ends below scikit-learn's EM from the same start."""
    import ppl_gen as pg

    start, x = our_mixture()
    torch.manual_seed(0)
    start.start(x)
    run = pg.fit(
        start, x, batch_size=batch_size, epochs=epochs, learning_rate=RATE, warm_start=True,
        seed=0, progress=False,
    )  # fmt: skip
    return _highest(start, x) - run.story.score_samples(x).double().mean().item()


def _highest(start: GMM, x: Tensor) -> float:
    """The mean log-likelihood that scikit-learn's EM reaches from the weights of a story."""
    from sklearn.mixture import GaussianMixture

    options: Any = {"reg_covar": 0.0, "tol": 1e-8, "max_iter": 1000}
    reference = GaussianMixture(
        start.components,
        weights_init=start.weights.numpy(),
        means_init=start.means.numpy(),
        precisions_init=start.covariances.inverse().numpy(),
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reference.fit(x.double().numpy()).score(x.double().numpy())


def by_svi(effort: Effort) -> list[Line]:
    """Lines of steps, and of the likelihood after a fit."""
    lines = []
    for batch_size in (None, 1000):
        lines += steps_of(batch_size, shortened(effort, 7))
    against = "scikit-learn's EM from the same start, nats a point below it"
    for batch_size, epochs in ((ROWS, 3000), (1000, 600)):
        epochs = epochs // 20 if effort.quick else epochs
        gap = alone(shortfall, batch_size, epochs)
        shown = "full batch" if batch_size == ROWS else f"batches of {batch_size:,}"
        work = f"GMM by SVI, {shown}: log-likelihood after {epochs:,} epochs"
        lines.append(figure_line(work, against, [gap], "nats", bar=NEAR))
    return lines


def by_em(effort: Effort) -> list[Line]:
    """Lines of EM, which its own benchmark measures."""
    try:
        compare = import_module("benchmarks.gmm_speed").compare
    except ImportError as error:
        return [Line("GMM by EM", "scikit-learn", note=f"not measured: {error}")]
    found = compare(shortened(effort, 3), 100_000 if effort.quick else 1_000_000)
    return [replace(foreign_line(row), work=f"GMM by EM: {row['work']}") for row in found]
