"""One VAE under every prior: a table, and a picture of each prior beside the codes of the data.

    python benchmarks/priors.py                     # digits, every prior, 10 minutes
    python benchmarks/priors.py --quick             # the same, few epochs
    python benchmarks/priors.py --study twins       # draws of a flower, and its density
    python benchmarks/priors.py --study spheres     # directions against normal codes
    python benchmarks/priors.py --data mnist --root DATA --latent 40 --epochs 100 \\
        --priors standard-normal "vamp(components=500)" "flow(kind='nsf')"

Network, budget and seed are the same for all. With two features the picture shows the priors
themselves; with more, their first two features.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ppl_gen as pg
from ppl_gen import supports
from ppl_gen.data import Dataset
from ppl_gen.errors import FitError
from ppl_gen.inference import classifier_test, drawn_codes
from ppl_gen.models import VAE
from ppl_gen.priors import PRIORS, Flower, prior

mpl.use("Agg")
import matplotlib.pyplot as plt

# What a prior needs to be told where two features are the whole code.
TOLD = {
    "product": "product(parts=('bernoulli(features=1)', 'standard-normal'))",
    "image": "image(picture=FACE)",
    "categorical": "categorical(categories=10)",
}
# A face, row by row.
FACE = tuple(
    tuple(int(mark) for mark in row)
    for row in (
        "001111100",
        "010000010",
        "100000001",
        "101101101",
        "100000001",
        "101000101",
        "100111001",
        "010000010",
        "001111100",
    )
)


@dataclass
class Options:
    """What to fit and how long.

    Attributes:
        data: digits, mnist or binarized-mnist.
        root: Directory with MNIST in torchvision's layout; PPL_GEN_DATA by default.
        latent: Size of the code.
        hidden: Units of each layer.
        epochs: Passes over the training data, for every prior.
        batch_size: Rows a step.
        learning_rate: At the start; it falls along a cosine.
        draws: Importance draws of each test row.
        rows: Test rows that the evidence is of; all by default.
        priors: Which priors, as specifications; by default every one that the library has.
        seed: Of everything.
        seeds: How many seeds, from 0 on, the studies of twins and spheres are of.
        out: Where table and picture go.
        quick: Few epochs and draws, to see that it runs.
        study: The gallery; the flower that is known by its draws, scored with its density; or
            codes on spheres against normal ones with as many degrees of freedom.
    """

    data: str = "digits"
    root: Path | None = None
    latent: int = 2
    hidden: tuple[int, ...] = (200, 200)
    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 3e-3
    draws: int = 1000
    rows: int | None = None
    priors: tuple[str, ...] = ()
    seed: int = 0
    out: Path = Path("runs/priors")
    quick: bool = False
    seeds: int = 4
    study: Literal["gallery", "twins", "spheres"] = "gallery"


@dataclass
class Row:
    """What was measured under one prior; NaN where a figure has no meaning.

    Attributes:
        name: The specification.
        climbed: What the fit climbed.
        evidence: Of the test rows, mean, in nats.
        error: Standard error of that by the draws.
        gap: Evidence less ELBO, in nats.
        reconstruction: Of the validation rows at the end, in nats.
        active: Active units.
        accuracy: Of a classifier that tells test codes from draws of the prior.
        seconds: Of the fit.
        codes: Draws of guide and prior, ``(N, D)`` each.
        law: The prior as it is after the fit.
    """

    name: str
    climbed: str
    evidence: float
    error: float
    gap: float
    reconstruction: float
    active: str
    accuracy: float
    seconds: float
    codes: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    law: Any = field(default=None, repr=False)


def main(options: Options) -> None:
    """Fit under every prior, and write what was found."""
    if options.quick:
        options.epochs, options.draws = 3, 50
    data = _data(options)
    if options.study == "twins":
        twins(data, options)
        return
    if options.study == "spheres":
        spheres(data, options)
        return
    names = options.priors or tuple(TOLD.get(name, name) for name in PRIORS)
    rows = []
    for name in names:
        row = measured(name, data, options)
        if row is not None:
            rows.append(row)
            print(_line(row), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "priors.md").write_text(as_markdown(rows))
    picture(rows, options.out / "priors.png")
    Console().print(as_table(rows))


def _data(options: Options) -> Dataset:
    if options.data == "digits":
        return pg.data.load("digits")
    binarise: Any = {"binarise": "redraw"} if options.data == "mnist" else {}
    return pg.data.load(options.data, options.root, **binarise)


def measured(name: str, data: Dataset, options: Options) -> Row | None:
    """Fit under one prior, and look at it from all sides; None if the size does not suit it."""
    spec = name.replace("FACE", repr(FACE))
    try:
        chosen = prior(spec, options.latent)
    except ValueError as error:
        print(f"{name}: left out: {error}")
        return None
    likelihood = "gaussian" if options.data == "digits" else "bernoulli"
    torch.manual_seed(options.seed)
    story = VAE(
        data.shape, options.latent, prior=chosen, likelihood=likelihood, hidden=options.hidden
    )
    begun = time.perf_counter()
    try:
        run = pg.fit(
            story,
            data,
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            seed=options.seed,
            progress=False,
        )
    except FitError as error:
        print(f"{name}: {error}")
        return None
    seconds = time.perf_counter() - begun
    test = data.test if options.rows is None else data.test[: options.rows]
    evidence = error = gap = math.nan
    if not run.structure.unscored:
        found = run.evidence(test, draws=options.draws, khat=False)
        evidence, error = found.mean, found.mean_error
        gap = evidence - found.elbo.mean().item()
    codes = drawn_codes(run, run.batch(data.test), options.seed).get("z")
    shown: Any = None
    if codes is not None:  # several of each row, for the picture
        several = [drawn_codes(run, run.batch(data.test[:500]), seed)["z"] for seed in range(8)]
        shown = tuple(torch.cat(part) for part in zip(*several, strict=True))
    active = next(f for f in pg.check(run, test, draws=50).findings if f.check == "active units")
    return Row(
        name.partition("(")[0] if not options.priors else name,
        run.settings.objective if run.settings.objective != "auto" else "ELBO",
        evidence,
        error,
        gap,
        run.history[-1].valid_reconstruction,
        f"{active.figure:.0f} {active.unit}",
        math.nan if codes is None else classifier_test(*codes, seed=options.seed).accuracy,
        seconds,
        shown,
        run.story.prior,
    )


HEADINGS = (
    "prior",
    "climbed",
    "evidence",
    "gap",
    "reconstruction",
    "active",
    "two-sample",
    "seconds",
)


def _cells(row: Row) -> tuple[str, ...]:
    def number(value: float, digits: int = 2) -> str:
        return "" if math.isnan(value) else f"{value:.{digits}f}"

    evidence = number(row.evidence) + (f" ± {row.error:.2f}" if math.isfinite(row.error) else "")
    return (
        row.name,
        row.climbed,
        evidence,
        number(row.gap),
        number(row.reconstruction),
        row.active,
        number(row.accuracy),
        number(row.seconds, 0),
    )


def _line(row: Row) -> str:
    return "  ".join(f"{h} {c}" for h, c in zip(HEADINGS, _cells(row), strict=True) if c)


def as_table(rows: list[Row]) -> Table:
    """For a terminal."""
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def as_markdown(rows: list[Row]) -> str:
    """For a page."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(_cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def picture(rows: list[Row], path: Path) -> None:
    """For each prior its density, or its draws, beside the codes of the test rows."""
    shown = [row for row in rows if row.codes is not None]
    across = 4
    down = -(-len(shown) // across)
    figure, axes = plt.subplots(
        down, 2 * across, figsize=(4.4 * across, 2.5 * down), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for number, row in enumerate(shown):
        left, right = axes[number // across, 2 * (number % across) :][:2]
        assert row.codes is not None
        codes, draws = (np.asarray(z[:, :2]) for z in row.codes)
        low, high = np.quantile(draws, [0.002, 0.998], axis=0)
        margin = 0.15 * (high - low).clip(min=1e-3)
        limits = np.stack([low - margin, high + margin])
        density(left, row, limits, draws)
        right.plot(codes[:, 0], codes[:, 1], ".", markersize=2, color="#b5552f")
        left.set_title(row.name, loc="left", fontsize=10)
        right.set_title("codes of data", loc="left", fontsize=8, color="#555555")
        for axis in (left, right):
            axis.set_axis_on()
            axis.set(xlim=limits[:, 0], ylim=limits[:, 1], xticks=[], yticks=[])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def density(axis: Any, row: Row, limits: np.ndarray, draws: np.ndarray) -> None:
    """The prior itself: its density where it has one in the plane, else its draws."""
    law = row.law
    planar = law.features == 2 and law.scored and supports.is_real(law.support)
    if not planar:
        axis.plot(draws[:, 0], draws[:, 1], ".", markersize=2, color="#27567b")
        return
    x, y = (torch.linspace(low, high, 200) for low, high in limits.T.tolist())
    grid = torch.cartesian_prod(x, y)
    with torch.no_grad():
        height = law().log_prob(grid).exp().reshape(200, 200).T
    # The root, so that tails are seen.
    shade = height.clamp(max=height.quantile(0.999)).sqrt().numpy()
    extent = (*limits[:, 0].tolist(), *limits[:, 1].tolist())
    axis.imshow(shade, origin="lower", extent=extent, aspect="auto", cmap="Blues")


def _fitted(data: Dataset, options: Options, latent: int, spec: str, seed: int) -> pg.Run:
    story = VAE(data.shape, latent, prior=spec, hidden=options.hidden)
    return pg.fit(
        story,
        data,
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=seed,
        progress=False,
    )


def twins(data: Dataset, options: Options) -> None:
    """What is matched to the flower's draws, scored with the flower's density.

    Prints, for every seed: the classifier's accuracy on one code of each test row; the share of
    codes where fewer than 1 in 100 of the flower's own draws are; the median log-density of codes
    and of draws; and the squared error of reconstructions, beside that of a standard normal prior.
    """
    law = Flower(2)()
    ratios = []
    for seed in range(options.seeds):
        runs = [_fitted(data, options, 2, s, seed) for s in ("flower-sampler", "standard-normal")]
        x = runs[0].batch(data.test)[0]
        errors = [
            (run.decode(run.encode(data.test))["x"] - x).square().sum().item() / len(x)
            for run in runs
        ]
        drawn = [drawn_codes(runs[0], (x,), s)["z"] for s in range(20)]
        codes, draws = (law.log_prob(torch.cat(part)) for part in zip(*drawn, strict=True))
        outside = (codes < draws.quantile(0.01)).double().mean().item()
        accuracy = np.mean([classifier_test(*pair).accuracy for pair in drawn[:5]])
        ratios.append(errors[0] / errors[1])
        print(
            f"seed {seed}: accuracy {accuracy:.3f}, outside {outside:.1%}, median log-density "
            f"{codes.median():.2f} (draws {draws.median():.2f}), squared error {errors[0]:.3f}, "
            f"of the standard normal {errors[1]:.3f}, ratio {ratios[-1]:.3f}",
            flush=True,
        )
    print(f"mean ratio of squared errors: {np.mean(ratios):.3f}")


def spheres(data: Dataset, options: Options) -> None:
    """Evidence of test rows with codes on spheres, less that with normal codes, by dimension."""
    for free in (2, 3, 5, 10):
        found = []
        for seed in range(options.seeds):
            normal = _fitted(data, options, free, "standard-normal", seed)
            sphere = _fitted(data, options, free + 1, "sphere", seed)
            found.append(
                [r.evidence(data.test, options.draws, khat=False).mean for r in (normal, sphere)]
            )
        normal, sphere = np.array(found).T
        better = sphere - normal
        error = better.std(ddof=1) / math.sqrt(len(better)) if len(better) > 1 else math.nan
        print(
            f"{free} degrees of freedom: normal {normal.mean():.3f}, sphere {sphere.mean():.3f} "
            f"nats a row, difference {better.mean():+.3f} (standard error over seeds {error:.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
