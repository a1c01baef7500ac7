"""What all tests share."""

import pyro
import pytest
import torch

# The tensors here are small: more threads gain nothing, and where other programs keep the cores
# busy, threads that wait for each other take many times as long.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test draws the same numbers, whichever others run."""
    pyro.set_rng_seed(0)
