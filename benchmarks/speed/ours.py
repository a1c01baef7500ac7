"""How ppl-gen is stepped from outside, in one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from typing import Any

import pyro
import torch

from benchmarks.speed.contender import Contender
from benchmarks.speed.machine import wait
from ppl_gen.inference.pair import as_pair
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.svi import GradientAscent
from ppl_gen.inference.training import quiet

# So many that the length of a fit never decides how it goes.
EPOCHS = 100_000


@dataclass
class Ours(Contender):
    """A fit by ``ppl_gen.fit``, epoch by epoch.

    Args:
        make: Gives the story and its data.
        settings: Of the fit.
    """

    make: Callable[[], tuple[Any, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        story, data = self.make()
        torch.manual_seed(0)
        pair = as_pair(story).fresh(False)
        settings = Settings(**{"epochs": EPOCHS, "schedule": "constant", **self.settings})
        pair.to(settings.torch_device())
        self.stack = ExitStack()
        self.stack.enter_context(pair.active())
        self.training = GradientAscent(pair, data, None, {}, settings, False, elbo=None)
        begin(self.training)
        self.epoch = 0
        for _ in range(2):
            self.one_epoch()

    def run(self, steps: int) -> None:
        count = self.training.batches.count
        if steps % count:
            raise ValueError(f"steps must be a multiple of the {count} of an epoch, got {steps}")
        for _ in range(steps // count):
            self.one_epoch()
        wait()

    def one_epoch(self) -> None:
        """Go once over the data, with the checks that a fit has in its first epoch."""
        self.epoch += 1
        with pyro.validation_enabled(self.epoch == 1), quiet():
            self.training.train(self.epoch)


def begin(training: GradientAscent) -> None:
    """Everything of a fit that comes before its first epoch."""
    if hasattr(training, "begin"):
        training.begin()
        return
    climb, training.climb = training.climb, lambda report: None
    training.run(lambda epoch: None)
    training.climb = climb


def has_option(name: str) -> bool:
    """Whether a fit has this option."""
    return any(option.name == name for option in fields(Settings))


def seconds_to_first_step(
    make: Callable[[], tuple[Any, Any]], settings: Mapping[str, Any]
) -> float:
    """Seconds from nothing but story and data to the end of the first step.

    The data should be one batch, so that the first epoch is the first step.
    """
    made = make()
    ours = Ours(lambda: made, settings)
    begun = time.perf_counter()
    ours.prepare()
    return time.perf_counter() - begun


def graph_alone(ours: Ours) -> Callable[[], None] | None:
    """The computation of one step of a prepared fit without anything around it.

    None where steps are not captured as a graph that can be called by itself.
    """
    return None
