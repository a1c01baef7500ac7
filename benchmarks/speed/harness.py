"""Contenders in processes of their own, commanded round by round over a pipe."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from benchmarks.speed.contender import Contender, Effort, Peer
from benchmarks.speed.lines import Line, ratio_line

# A forked child would share the thread pools of its parent, which do not survive that.
_PROCESSES = multiprocessing.get_context("spawn")
PATIENCE = 1800.0
logger = logging.getLogger("benchmarks.speed")


class Seconds(NamedTuple):
    """Time by the clock, and of all threads of the process."""

    wall: float
    cpu: float


class ContenderError(RuntimeError):
    """A contender that could not do its work; the message is the last line it said."""


class Worker:
    """A process that holds something and answers calls of its methods.

    Args:
        held: What is sent there.
    """

    def __init__(self, held: Any) -> None:
        self.pipe, other = _PROCESSES.Pipe()
        self.process = _PROCESSES.Process(target=_serve, args=(other, held), daemon=False)
        self.process.start()
        other.close()

    def ask(self, method: str, *arguments: Any) -> tuple[Any, Seconds]:
        """What the method returned, and the time it took there.

        Raises:
            ContenderError: If it raised, or the process has ended.
        """
        try:
            self.pipe.send((method, arguments))
            if not self.pipe.poll(PATIENCE):
                raise ContenderError(f"no answer within {PATIENCE:.0f} s")
            told, seconds, value = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise ContenderError("its process ended") from error
        if told is not None:
            raise ContenderError(told)
        return value, seconds

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(pipe: Connection, held: Any) -> None:
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            value = getattr(held, method)(*arguments)
            taken = Seconds(time.perf_counter() - wall, time.process_time() - cpu)
            answer = (None, taken, value)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            answer = (f"{type(error).__name__}: {error}".split("\n")[0], Seconds(0.0, 0.0), None)
        pipe.send(answer)


@dataclass(frozen=True)
class Call:
    """A function with its arguments, to be called in a process of its own."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def value(self) -> Any:
        """Call it."""
        return self.function(*self.arguments)


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The value of a function called in a fresh process.

    Raises:
        ContenderError: If it raised.
    """
    worker = Worker(Call(function, arguments))
    try:
        return worker.ask("value")[0]
    finally:
        worker.close()


@contextmanager
def cold_compiler() -> Iterator[None]:
    """Give processes that start inside an empty cache of compiled code."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


@dataclass
class Rounds:
    """What the contenders of a comparison took.

    Attributes:
        seconds: Seconds a step, one a round, by name.
        failed: Why a contender has none, by name.
        facts: What the contenders had to say at the end, by name.
    """

    seconds: dict[str, list[float]]
    failed: dict[str, str]
    facts: dict[str, dict[str, float]]


def interleave(
    contenders: Mapping[str, Contender], steps: Mapping[str, int], effort: Effort
) -> Rounds:
    """Let every contender take its steps once a round, in random order.

    Args:
        contenders: By name. One that lacks a module, or fails, is left out and says so.
        steps: How many steps each takes a round.
        effort: How many rounds, and the seed of the order.
    """
    rounds = Rounds({}, {}, {})
    workers: dict[str, Worker] = {}
    order = random.Random(effort.seed)
    try:
        for name, contender in contenders.items():
            if missing := contender.missing():
                rounds.failed[name] = f"{', '.join(missing)} not installed"
                continue
            workers[name] = Worker(contender)
            with _dropping(name, workers, rounds):
                workers[name].ask("prepare")
        for _ in range(effort.rounds):
            for name in order.sample(list(workers), len(workers)):
                with _dropping(name, workers, rounds):
                    _, taken = workers[name].ask("run", steps[name])
                    seconds = getattr(taken, effort.clock) / steps[name]
                    rounds.seconds.setdefault(name, []).append(seconds)
        for name in list(workers):
            with _dropping(name, workers, rounds):
                rounds.facts[name] = workers[name].ask("facts")[0]
    finally:
        for worker in workers.values():
            worker.close()
    return rounds


@contextmanager
def _dropping(name: str, workers: dict[str, Worker], rounds: Rounds) -> Iterator[None]:
    """Leave a contender out from here on if it fails."""
    try:
        yield
    except ContenderError as error:
        rounds.failed[name] = f"failed: {error}"
        rounds.seconds.pop(name, None)
        workers.pop(name).close()


def contest(
    work: str, ours: Contender, peers: Sequence[Peer], steps: int, effort: Effort
) -> list[Line]:
    """One line for each peer, all measured in the same rounds."""
    contenders = {"": ours, **{peer.against: peer.contender for peer in peers}}
    rounds = interleave(contenders, dict.fromkeys(contenders, steps), effort)
    lines = [_line(work, peer, rounds) for peer in peers]
    for line in lines:
        logger.info("%s, against %s: %s", line.work, line.against, line.told)
    return lines


def _line(work: str, peer: Peer, rounds: Rounds) -> Line:
    for name in ("", peer.against):
        if name in rounds.failed:
            whose = "" if name else "ours "
            return Line(work, peer.against, bar=peer.bar, note=whose + rounds.failed[name])
    ours, theirs = rounds.seconds[""], rounds.seconds[peer.against]
    return ratio_line(work, peer.against, ours, theirs, bar=peer.bar)


def shortened(effort: Effort, rounds: int) -> Effort:
    """The same effort with fewer rounds, for work that takes long."""
    return replace(effort, rounds=min(effort.rounds, rounds))
