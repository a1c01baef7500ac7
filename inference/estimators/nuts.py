"""The no-U-turn sampler of Pyro on a density of free coordinates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

# Up to so many coordinates the sampler learns how they hang together.
DENSE = 50
# Steps a draw are at most two to this power; where more are needed, so few draws say little.
DEPTH = 7


def nuts(
    density: Callable[[Tensor], Tensor],
    position: Tensor,
    draws: int,
    warmup: int,
    tell: Callable[[float], None] = lambda share: None,
    seconds: float = math.inf,
) -> Tensor:
    """Positions of chains of Pyro's NUTS, one after the other.

    Args:
        density: Log-densities, ``(1, 1)``, at points ``(1, 1, D)``, in nats; they carry a gradient.
        position: Where the chains begin, ``(C, D)``.
        draws: How many positions each gives.
        warmup: How many go before.
        tell: Is told what share is done.
        seconds: How long they may take.

    Returns:
        Positions, ``(K, C, 1, D)``.

    Raises:
        TimeoutError: If they take longer.

    Reference:
        Hoffman and Gelman (2014), https://jmlr.org/papers/v15/hoffman14a.html
    """
    total, found = len(position) * (draws + warmup), []
    done, begun = 0, time.perf_counter()

    def told(kernel: object, samples: object, stage: str, number: int) -> None:
        nonlocal done
        done += 1
        tell(min(1.0, done / total))
        if time.perf_counter() - begun > seconds:
            raise TimeoutError(f"{done} of {total} draws took {seconds:.0f} seconds")

    for begin in position:
        kernel = NUTS(
            potential_fn=lambda values: -density(values["position"][None, None]).sum(),
            full_mass=len(begin) <= DENSE,
            max_tree_depth=DEPTH,
        )
        chain = MCMC(
            kernel,
            num_samples=draws,
            warmup_steps=warmup,
            initial_params={"position": begin.detach().clone()},
            hook_fn=told,
            disable_progbar=True,
        )
        chain.run()
        found.append(chain.get_samples()["position"])
    return torch.stack(found, 1)[:, :, None]
