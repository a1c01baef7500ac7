"""What a command left, and what is small enough to fit in a test."""

from collections.abc import Callable
from dataclasses import dataclass

SMALL = ("--latent", "2", "--hidden", "8", "--epochs", "2")


@dataclass(frozen=True)
class Said:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one sentence of an error."""
        lines = [line for line in self.err.splitlines() if line.startswith("ppl-gen: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("ppl-gen: ")


Command = Callable[..., Said]

STORY = """
import pyro, torch
import pyro.distributions as dist

calls = 0

def model(x):
    global calls
    calls += 1
    EVENT
    m = pyro.sample("m", dist.Normal(torch.zeros(x.shape[-1]), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(m, 1.0).to_event(1), obs=x)
"""
