"""How ppl-gen is stepped from outside, in one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch

from benchmarks.speed.contender import Contender
from benchmarks.speed.machine import wait
from ppl_gen.inference.pair import as_pair
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.svi import GradientAscent
from ppl_gen.inference.training import quiet

# A long fit, whose length leaves no doubt that compiling is repaid.
LONG = 100_000
# Steps by which a step is compiled.
COMPILED = 3
# A graph is held against eager Pyro again at steps 64, 128 and so on: few of those that are timed.
SETTLED = 33


@dataclass
class Ours(Contender):
    """A fit by ``ppl_gen.fit``, epoch by epoch.

    Args:
        make: Gives the story and its data.
        settings: Of the fit, which is a long one unless they say how many epochs; None epochs are
            the default.
    """

    make: Callable[[], tuple[Any, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        self.begin()
        self.settle(SETTLED)

    def settle(self, steps: int) -> None:
        """Take so many steps at least, and more than the first epoch, which has checks."""
        while self.epoch < 2 or self.training.steps < steps:
            self.one_epoch()

    def begin(self) -> None:
        """Everything of a fit that comes before its first epoch."""
        story, data = self.make()
        torch.manual_seed(0)
        pair = as_pair(story).fresh(False)
        settings = Settings(**{"epochs": LONG, "schedule": "constant", **self.settings})
        pair.to(settings.torch_device())
        self.stack = ExitStack()
        self.stack.enter_context(pair.active())
        self.training = GradientAscent(pair, data, None, {}, settings, False, elbo=None)
        self.training.begin()
        self.epoch = 0

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


def seconds_to_settle(make: Callable[[], tuple[Any, Any]], settings: Mapping[str, Any]) -> float:
    """Seconds from story and data to the end of the first step that is compiled.

    The data should be one batch, so that an epoch is a step.
    """
    made = make()
    ours = Ours(lambda: made, settings)
    begun = time.perf_counter()
    ours.begin()
    ours.settle(COMPILED)
    return time.perf_counter() - begun


def graph_alone(ours: Ours) -> Callable[[], None] | None:
    """The graphs of a step of a prepared fit, of gradient and optimiser, with nothing around them.

    None where steps are not captured.
    """
    training = ours.training
    shapes = training.step.shapes.values()
    graph = next((shape.plain for shape in shapes if shape.plain is not None), None)
    if graph is None:
        return None
    (rows,) = next(training.batches.passing(training.batches.order()))

    def both() -> None:
        _, *gradients = graph(rows)
        training.update(training.gradient.used(rows), gradients)

    return both
