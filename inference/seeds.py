"""Randomness that comes from a seed and leaves no trace outside."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch
from torch import Tensor


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


def noise_to_come() -> tuple[Tensor, ...]:
    """States of torch's generators, from which all further random numbers follow."""
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), *on_devices


def set_noise(states: tuple[Tensor, ...]) -> None:
    """Go on with the random numbers that followed when :func:`noise_to_come` gave these."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(list(states[1:]))
