"""What all tests share."""

import torch

# The tensors here are small: more threads gain nothing, and where other programs keep the cores
# busy, threads that wait for each other take many times as long.
torch.set_num_threads(1)
