"""What a check costs, what it holds in memory, and the published trap of importance sampling.

    python benchmarks/checks.py                 # a VAE on digits: seconds of quick, full and SBC
    python benchmarks/checks.py --root DATA     # and of MNIST the three bounds of one evidence
    python benchmarks/checks.py --coverage 200  # errors of bounds against exact evidences

Wu et al. (2017, https://arxiv.org/abs/1611.04273) found that importance sampling understates the
evidence of a VAE of 50 features on MNIST by about a nat: -86.46 against -85.62 by annealing.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

import ppl_gen as pg
from ppl_gen.data import concat
from ppl_gen.inference.checks import CHECKS, Subject
from ppl_gen.inference.checks.calibration import CALIBRATION
from ppl_gen.inference.checks.closeness import bounds
from ppl_gen.inference.reference import look
from ppl_gen.models import PPCA, VAE

MEMORY = 128 * 2**20


@dataclass
class Options:
    """What to measure.

    Attributes:
        root: Directory with MNIST in torchvision's layout; without it MNIST is left out.
        epochs: Passes over MNIST's training images.
        rows: Test images of MNIST whose evidence is bounded.
        coverage: Seeds of the exact evidence, each with 100 rows; 0 for none.
    """

    root: Path | None = None
    epochs: int = 40
    rows: int = 100
    coverage: int = 0


def digits() -> None:
    """Seconds of each level, and of each check of the full one, on 1,000 digits."""
    data = pg.data.load("digits", binarise="redraw")
    run = pg.fit(
        VAE(data.shape, latent=8, likelihood="bernoulli"), data, epochs=200, progress=False
    )
    rows = concat(data.train, data.valid, data.test)[:1000]
    for level in ("quick", "full"):
        begun = time.perf_counter()
        verdict = pg.check(run, rows, level=level, train=data.train, progress=False)
        print(f"{level}: {time.perf_counter() - begun:.1f} s, {len(verdict.findings)} findings")
    subject = Subject(run, rows, train=data.train)
    for check in CHECKS:
        begun = time.perf_counter()
        list(check.look(subject))
        print(f"  {time.perf_counter() - begun:5.1f} s  {check.question}")
    begun = time.perf_counter()
    list(CALIBRATION.look(Subject(run, rows)))
    print(f"10,000 simulations: {time.perf_counter() - begun:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"most memory of the process: {peak:.2f} GiB")


def mnist(options: Options) -> None:
    """Three bounds of the evidence of test images, each sharper than the last."""
    data = pg.data.load("mnist", options.root, binarise="redraw")
    story = VAE(data.shape, latent=50, likelihood="bernoulli", hidden=(200, 200))
    run = pg.fit(story, data.train, epochs=options.epochs, batch_size=100, seed=0)
    batch = run.batch(data.test[: options.rows])
    begun = time.perf_counter()
    found = bounds(look(run, batch, 0, MEMORY))
    weighed = run.evidence(data.test[: options.rows], draws=5000, khat=False)
    print(
        f"ELBO {found.elbo.mean():.2f}, importance-weighted (5,000 draws) {weighed.mean:.2f}, "
        f"annealed {found.annealed.mean():.2f} nats over {options.rows} images: importance "
        f"sampling lies {found.annealed.mean() - weighed.mean:.2f} below; "
        f"{time.perf_counter() - begun:.0f} s"
    )


def coverage(seeds: int) -> None:
    """How often intervals of the stated error hold the exact evidence of PPCA."""
    held = dict.fromkeys((1, 2, 3), 0)
    means, rows = dict.fromkeys((1, 2, 3), 0), 0
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        weight = 2 * torch.randn(2, 4, generator=generator)
        code = torch.randn(100, 2, generator=generator)
        x = code @ weight + 0.5 * torch.randn(100, 4, generator=generator)
        story = PPCA.maximum_likelihood(x, 2)
        with torch.no_grad():
            story.guide_raw_tril += 0.2 * torch.randn(2, 2, generator=generator)
        run = pg.fit(story, x, epochs=1, learning_rate=1e-12, warm_start=True, progress=False)
        found = bounds(look(run, run.batch(x), seed, MEMORY))
        off = found.evidence - run.story.log_evidence(x).double()
        error = found.evidence_error
        rows += len(x)
        whole = error.square().sum().sqrt() / len(x)
        for width in held:
            held[width] += int((off.abs() <= width * error + 1e-5).sum())
            means[width] += int(off.mean().abs() <= width * whole + 1e-5)
    for width, count in held.items():
        print(
            f"within {width} errors: {count / rows:.1%} of {rows} rows, "
            f"{means[width] / seeds:.1%} of {seeds} means"
        )


def main(options: Options) -> None:
    """Measure and print."""
    if options.coverage:
        coverage(options.coverage)
        return
    digits()
    if options.root is not None:
        mnist(options)


if __name__ == "__main__":
    main(tyro.cli(Options))
