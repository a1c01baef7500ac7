"""Pyro's own loop: ``SVI.step`` with Pyro's Adam, as its tutorials have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyro
import torch
from pyro.infer import SVI
from pyro.optim import Adam
from torch import Tensor

from benchmarks.speed.contender import Contender
from benchmarks.speed.machine import torch_device, wait
from benchmarks.speed.stories import Told


@dataclass
class Stock(Contender):
    """``SVI.step`` on batches taken by an index permutation.

    Args:
        make: Gives the story.
        batch_size: Rows a step; None for all of them.
    """

    make: Callable[[], Told]
    batch_size: int | None = None

    def prepare(self) -> None:
        torch.manual_seed(0)
        pyro.clear_param_store()
        told = self.make()
        self.columns = tuple(column.to(torch_device()) for column in told.columns)
        self.rows = self.batch_size or len(self.columns[0])
        self.svi = SVI(told.model, told.guide, Adam({"lr": told.rate}), told.elbo)
        for _ in range(3):
            self.run(1)

    def run(self, steps: int) -> None:
        loss, done = 0.0, 0
        while done < steps:
            for batch in self._batches():
                loss += self.svi.step(*batch)
                done += 1
                if done == steps:
                    break
        wait()

    def _batches(self) -> Iterable[tuple[Tensor, ...]]:
        size = len(self.columns[0])
        if self.rows == size:
            return [self.columns]
        order = torch.randperm(size, device=self.columns[0].device)
        return (tuple(column[i] for column in self.columns) for i in order.split(self.rows))
