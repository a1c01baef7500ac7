"""Work on many rows, a few at a time, so that what is computed stays in a processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import reduce
from typing import TypeVar

import torch

Found = TypeVar("Found")

# Matrices of fewer numbers than these are not worth sharing among threads.
SMALL = 2**16
# How many chunks a thread adds up by itself, at most, and into how many such runs the rows fall at
# least: threads meet after each.
RUN, RUNS = 8, 16


@contextmanager
def one_thread(numbers: int = 0) -> Iterator[None]:
    """Work of few numbers, which torch's threads do not share: each would wait for the others."""
    before = torch.get_num_threads()
    if numbers > SMALL or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_chunks(
    work: Callable[[slice], Found], size: int, rows: int, device: torch.device
) -> Iterator[Found]:
    """What ``work`` gives for some rows after the other, in their order, without gradients.

    On a CPU each of torch's threads takes chunks of its own. Sharing every small operation, as
    torch does by itself, they would wait for each other after each: on a busy machine, twenty times
    as long as the work takes.

    Args:
        work: What is done with a slice of the rows.
        size: How many rows there are.
        rows: How many are taken at a time.
        device: Where they are.
    """

    def without_gradients(part: slice) -> Found:
        with torch.no_grad():
            return work(part)

    parts = _parts(slice(0, size), rows)
    threads = min(torch.get_num_threads(), len(parts))
    if device.type != "cpu":
        yield from map(without_gradients, parts)
        return
    with one_thread():
        if threads < 2:
            yield from map(without_gradients, parts)
            return
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(without_gradients, parts)


def total(
    work: Callable[[slice], Found],
    add: Callable[[Found, Found], Found],
    size: int,
    rows: int,
    device: torch.device,
) -> Found:
    """The sum of what ``work`` gives for some rows after the other, as :func:`in_chunks` has it.

    Terms are added in an order that depends on the number of rows alone.

    Args:
        work: What is done with a slice of the rows.
        add: The sum of two things that it gave.
        size: How many rows there are.
        rows: How many are taken at a time.
        device: Where they are.
    """
    run = rows * max(1, min(RUN, size // (rows * RUNS)))

    def of_run(part: slice) -> Found:
        return reduce(add, map(work, _parts(part, rows)))

    return reduce(add, in_chunks(of_run, size, run, device))


def _parts(whole: slice, rows: int) -> list[slice]:
    starts = range(whole.start, whole.stop, rows)
    return [slice(start, min(start + rows, whole.stop)) for start in starts]
