"""Ours is faster than stock Pyro, whatever the machine: ratios with much room, never seconds."""

import statistics
import time
from collections.abc import Iterator

import pyro
import pytest
import torch

from benchmarks.speed.ours import Ours
from benchmarks.speed.stock import Stock
from benchmarks.speed.stories import USERS, mixture
from benchmarks.speed.users import ForOurs

STEPS = 20


@pytest.fixture(autouse=True)
def _empty_store() -> Iterator[None]:
    yield
    pyro.clear_param_store()


def test_an_enumerated_mixture_steps_faster_than_under_stock_pyro() -> None:
    """The time of this thread alone, which other programs on the same cores hardly change."""
    told = mixture()
    settings = {"batch_size": told.batch_size, "epochs": None}
    contenders = (Ours(ForOurs(mixture), settings), Stock(mixture, told.batch_size))
    for contender in contenders:
        contender.prepare()

    ratios = []
    for _ in range(7):
        taken = []
        for contender in contenders:
            begun = time.thread_time()
            contender.run(STEPS)
            taken.append(time.thread_time() - begun)
        ratios.append(taken[0] / taken[1])

    assert statistics.median(ratios) < 0.8


@pytest.mark.parametrize("name", USERS)
def test_the_stories_of_users_are_taken_as_they_are(name: str) -> None:
    """Programs with nothing of ppl-gen in them fit, and a step changes what is learned."""
    told = USERS[name]()
    ours = Ours(ForOurs(USERS[name]), {"batch_size": told.batch_size, "epochs": None})
    ours.prepare()
    before = {n: p.detach().clone() for n, p in ours.training.pair.parameters().items()}

    ours.run(ours.training.batches.count)

    after = ours.training.pair.parameters()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    ours.stack.close()
