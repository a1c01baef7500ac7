"""Randomness that comes from a seed and leaves no trace outside."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

_on_cpu = torch.default_generator


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw everything inside from ``seed``; outside, every generator goes on as if nothing was.

    Covers the generators of torch (all devices), numpy and Python, which are those that
    :func:`pyro.set_rng_seed` sets.
    """
    python, array = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        # On a CPU alone torch.manual_seed does no more, but imports torch's compiler.
        seed_all = torch.manual_seed if torch.accelerator.is_available() else _on_cpu.manual_seed
        seed_all(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)  # noqa: NPY002


def generators() -> dict[str, Any]:
    """States of the generators of torch, numpy and Python, as plain values and tensors."""
    version, words, gauss = random.getstate()
    kind, key, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "torch": list(noise_to_come()),
        "python": [version, torch.tensor(words), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(key).astype(np.int64)), *rest],
    }


def set_generators(states: Mapping[str, Any]) -> None:
    """Go on with the random numbers that followed when :func:`generators` gave these."""
    on_cpu, *on_devices = states["torch"]
    torch.set_rng_state(on_cpu)
    for device, state in zip(range(torch.cuda.device_count()), on_devices, strict=False):
        torch.cuda.set_rng_state(state, device)
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, key, *rest = states["numpy"]
    np.random.set_state((kind, key.numpy().astype(np.uint32), *rest))  # noqa: NPY002


def noise_to_come() -> tuple[Tensor, ...]:
    """States of torch's generators, from which all further random numbers follow."""
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), *on_devices


def set_noise(states: tuple[Tensor, ...]) -> None:
    """Go on with the random numbers that followed when :func:`noise_to_come` gave these."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(list(states[1:]))
