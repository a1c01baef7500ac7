"""Every law of the code that can be scored scores what it draws."""

import math
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch.testing import assert_close

from ppl_gen.posteriors import DiagonalNormal, FullNormal
from ppl_gen.priors import MixturePrior, StandardNormal

LAWS: dict[str, Callable[[], TorchDistribution]] = {
    "standard normal": lambda: StandardNormal(2)(),
    "mixture": lambda: _shaken(MixturePrior(2, 3))(),
    "diagonal": lambda: _shaken(DiagonalNormal(4, 2))(torch.ones(4)),
    "full": lambda: _shaken(FullNormal(4, 2))(torch.ones(4)),
}


Module = TypeVar("Module", bound=torch.nn.Module)


def _shaken(module: Module) -> Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module


@pytest.mark.parametrize("make", LAWS.values(), ids=LAWS)
def test_a_law_scores_what_it_draws(make: Callable[[], TorchDistribution]) -> None:
    """Its density integrates to 1, and has the characteristic function of its draws."""
    torch.manual_seed(0)
    law = make()
    axis = torch.linspace(-15, 15, 601)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = law.log_prob(grid).double().exp() * (axis[1] - axis[0]) ** 2
        draws = law.sample((20_000,))
    angles = torch.linspace(0, math.pi, 5)[:-1]
    directions = torch.stack([angles.cos(), angles.sin()])

    assert_close(mass.sum().item(), 1.0, rtol=0, atol=1e-4)
    for wave in (torch.cos, torch.sin):
        expected = mass @ wave(grid @ directions).double()
        drawn = wave(draws @ directions).double()
        standard_error = drawn.std(0) / math.sqrt(len(drawn))
        assert ((drawn.mean(0) - expected).abs() <= 5 * standard_error).all()
