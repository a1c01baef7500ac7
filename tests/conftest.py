"""What all tests share."""

import os
import signal

import pyro
import pytest
import torch

# The tensors here are small: more threads gain nothing, and where other programs keep the cores
# busy, threads that wait for each other take many times as long.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the programs that tests start

# A shell has what it starts in the background ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test draws the same numbers, whichever others run."""
    pyro.set_rng_seed(0)
