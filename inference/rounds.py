"""A fit that ends by itself: rounds of a constant learning rate, whose iterates are averaged.

A rate that is held leads to iterates that scatter about the optimum. Their mean lies far nearer to
it than any of them, and says when the optimum is reached: it stops moving. Then a lower rate tells
whether there was anything left to gain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim.swa_utils import get_swa_multi_avg_fn

from ppl_gen.inference.estimators import best_window
from ppl_gen.inference.estimators.settled import AT_REST, LEAST
from ppl_gen.inference.iterates import Iterates, Recorder

# What may still be gained when a fit ends: nats per datum, and standard deviations of the posterior
# of the latents that all data share (ours).
NATS, MOVED = 0.01, 0.05
# Steps of the first stretch, and by how much the rate is lowered from round to round.
FIRST, LOWERED = 200, 0.3
# Means that the objective of a round is cut into, of which windows are made.
MEANS = 64

Decision = Literal["go on", "lower the rate", "stop"]


class Stretch(NamedTuple):
    """What is known at the end of some steps of a round, twice as many as those before.

    Attributes:
        value: What is climbed, at the mean of the weights over these steps, on the validation data
            or else those of the fit, always with the same noise; nats per datum.
        rhat: Largest R-hat of what the round recorded, over the best window.
        moved: By how many standard deviations the posterior of the shared latents at that mean
            differs from the one before; NaN without.
        moved_since: The same, from the end of the round before.
    """

    value: float
    rhat: float
    moved: float = math.nan
    moved_since: float = math.nan


def decide(rounds: Sequence[Sequence[Stretch]]) -> Decision:
    """How a fit goes on, by what it recorded and by nothing else.

    A round is over when R-hat is at most 1.1, and the mean of the weights over its last stretch is
    no better than over the one before: by at most 0.01 nats per datum, and the posterior of the
    shared latents moved by at most 0.05 of its standard deviations (our limits). The fit is over
    when a lower rate has brought no more than that. Where validation data are watched, it is over
    as well when they lose by a lower rate.

    Processes that are given the same numbers decide the same.

    Args:
        rounds: The stretches of every round, in order.

    References:
        R-hat, and means of iterates: Dhaka et al. (2020), https://arxiv.org/abs/2009.00666; rounds
        of lower rates until they bring nothing: Welandawe et al. (2022),
        https://arxiv.org/abs/2203.15945
    """
    *earlier, present = rounds
    if len(present) < 2:
        return "go on"
    before, last = present[-2:]
    if last.rhat > AT_REST or last.value - before.value > NATS or last.moved > MOVED:
        return "go on"
    if not earlier:
        return "lower the rate"
    brought = last.value - earlier[-1][-1].value
    return "lower the rate" if brought > NATS or last.moved_since > MOVED else "stop"


class Rounds:
    """Keeps the means of the weights and the figures that :func:`decide` needs.

    Args:
        shared: Names of the parameters that the posterior of shared latents depends on.

    Attributes:
        factor: On the learning rate in the present round.
        means: Of the weights, over the steps of the present stretch.
    """

    def __init__(self, shared: Sequence[str]) -> None:
        self.shared = tuple(shared)
        self.factor = 1.0
        self.means: list[Tensor] = []
        self.rounds: list[list[Stretch]] = [[]]
        self._averaged = 0
        self._length = FIRST
        self._average = get_swa_multi_avg_fn()
        self._recorder = Recorder(self.shared)

    def state(self, names: Sequence[str]) -> dict[str, Any]:
        """All that it holds, as plain values and tensors; of the parameters these are the names."""
        return {
            "factor": self.factor,
            "means": dict(zip(names, self.means, strict=False)),
            "rounds": self.rounds,
            "averaged": self._averaged,
            "length": self._length,
            "recorder": self._recorder.state(),
        }

    def load_state(
        self, state: Mapping[str, Any], names: Sequence[str], device: torch.device
    ) -> None:
        """Go on from what :meth:`state` gave."""
        self.factor = state["factor"]
        means = state["means"]
        self.means = [means[name].to(device) for name in names if name in means]
        self.rounds = [[Stretch(*stretch) for stretch in of_one] for of_one in state["rounds"]]
        self._averaged, self._length = state["averaged"], state["length"]
        self._recorder.load_state(state["recorder"], device)
        self.shared = self._recorder.shared

    def step(self, climbed: float, reconstruction: float) -> None:
        """Take note of the figures of one more step."""
        self._recorder.step(climbed, reconstruction, self.factor, 1.0)

    @property
    def looks(self) -> bool:
        """Whether the shared parameters are to be looked at after this step."""
        return bool(self.shared) and self._recorder.due

    def look(self, parameters: Mapping[str, Tensor]) -> None:
        """Take note of the values of the shared parameters."""
        self._recorder.look({name: parameters[name] for name in self.shared})

    def average(self, parameters: Sequence[Tensor]) -> None:
        """Take the weights after a step into their means."""
        present = [p.detach() for p in parameters]
        if len(present) != len(self.means):
            self.means, self._averaged = [p.clone() for p in present], 1
            return
        self._average(self.means, present, self._averaged)
        self._averaged += 1

    @property
    def due(self) -> bool:
        """Whether the stretch is long enough to be looked at."""
        return self._averaged >= self._length

    def rhat(self) -> float:
        """Largest R-hat of the objective and of the shared parameters in this round."""
        return largest_rhat(self._recorder.result())

    def end(self, stretch: Stretch) -> Decision:
        """Close a stretch; the next is twice as long, or the first of a round of a lower rate."""
        self.rounds[-1].append(stretch)
        decision = decide(self.rounds)
        self.means, self._averaged = [], 0
        self._length *= 2
        if decision == "lower the rate":
            self.rounds.append([])
            self.factor *= LOWERED
            self._length = FIRST
            self._recorder = Recorder(self.shared)
        return decision


def largest_rhat(iterates: Iterates) -> float:
    """Largest R-hat, over the best window, of objective, reconstruction, and shared parameters."""
    figures = torch.stack([iterates.climbed, iterates.reconstruction], 1)
    figures = figures[:, figures.isfinite().all(0)]
    parts = figures.tensor_split(min(MEANS, len(figures)))
    found = [best_window(torch.stack([part.mean(0) for part in parts])).rhat]
    shared = iterates.of(iterates.shared)
    if shared.shape[1] and len(shared) >= LEAST:
        found.append(best_window(shared).rhat)
    return max(found)
