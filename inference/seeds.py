"""Randomness that comes from a seed and leaves no trace outside."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw everything inside from ``seed``; outside, every generator goes on as if nothing was.

    Covers the generators of torch (all devices), numpy and Python, which are those that
    :func:`pyro.set_rng_seed` sets.
    """
    python, array = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        pyro.set_rng_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)  # noqa: NPY002
