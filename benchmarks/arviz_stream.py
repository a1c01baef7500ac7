"""Stream the posterior of 10,000 observations, 1,000 draws each, 16 latents, to disk.

Prints the time and the largest resident memory of the process, which must stay within 1 GiB.

    python benchmarks/arviz_stream.py --out post.nc
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import torch
import tyro

import ppl_gen as pg
from ppl_gen.models import VAE


def main(out: Path, rows: int = 10_000, draws: int = 1_000, latent: int = 16) -> None:
    """Stream every group of the tree, replicated data included, 64 numbers an observation.

    Args:
        out: A path ending in .nc or .zarr.
        rows: Observations.
        draws: Draws of each.
        latent: Size of the code.
    """
    x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(0))
    story = VAE((64,), latent=latent)
    before = _peak()
    begun = time.perf_counter()
    tree = pg.to_arviz(story.model, story.guide, x, draws=draws, out=out)
    seconds = time.perf_counter() - begun
    size = sum(f.stat().st_size for f in ([out] if out.is_file() else out.rglob("*")))
    print(f"{tree['posterior']['z'].shape} written to {out.name}: {size / 2**30:.2f} GiB")
    print(f"{seconds:.0f} s, peak memory {_peak():.2f} GiB ({before:.2f} GiB before)")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    tyro.cli(main)
