"""``python -m benchmarks.speed``: run comparisons and write their table."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import tyro

from benchmarks.speed import evidence, gmm, growth, machine, table, users, vae, whole
from benchmarks.speed.contender import Effort
from benchmarks.speed.lines import Line

Name = Literal["vae", "prior", "users", "gmm", "em", "evidence", "first-step", "memory", "growth"]
ROWS: dict[Name, Callable[[Effort], list[Line]]] = {
    "vae": vae.rows,
    "prior": vae.priors,
    "users": users.rows,
    "gmm": gmm.by_svi,
    "em": gmm.by_em,
    "evidence": evidence.rows,
    "first-step": whole.rows,
    "memory": whole.memory,
    "growth": growth.rows,
}
RESULTS = Path(__file__).parent.parent / "RESULTS.md"


@dataclass
class Options:
    """What to compare, and how long.

    Attributes:
        rows: Which comparisons; all of them by default.
        quick: Take a short form of each.
        rounds: How many interleaved rounds; 9 by default, 3 in the short form.
        threads: Threads of every contender; by default as many as its library takes. Where other
            programs keep the cores busy, 1 is the number to compare with: threads that wait for
            each other were seen to take 20 times as long.
        seed: Of the order within the rounds.
        clock: wall, or cpu for the time of a process's threads, which others disturb less; with
            one thread on a quiet machine the two agree.
        out: A file whose section is replaced. By default benchmarks/RESULTS.md if all comparisons
            are run in full, else none.
    """

    rows: tuple[Name, ...] = ()
    quick: bool = False
    rounds: int | None = None
    threads: int | None = None
    seed: int = 0
    clock: Literal["wall", "cpu"] = "wall"
    out: Path | None = None


def main(options: Options) -> None:
    """Run, print, write."""
    if options.threads is not None:
        os.environ["OMP_NUM_THREADS"] = os.environ["NPROC"] = str(options.threads)
    rounds = options.rounds or (3 if options.quick else 9)
    effort = Effort(options.quick, rounds, options.seed, options.clock)
    load = machine.load()
    lines: list[Line] = []
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in options.rows or get_args(Name):
        begun = time.perf_counter()
        lines += _found(name, effort)
        logging.info("%s: %.0f s", name, time.perf_counter() - begun)
    told = f"{rounds} rounds, {effort.clock} clock{', short form' if effort.quick else ''}"
    text = table.section(lines, told, load)
    print(text)
    out = options.out
    if out is None and not options.rows and not options.quick:
        out = RESULTS
    if out is not None:
        table.write(out, text)


def _found(name: Name, effort: Effort) -> list[Line]:
    """The lines of a comparison; one that fails says so and costs no other."""
    try:
        return ROWS[name](effort)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return [Line(name, "", note=f"failed: {type(error).__name__}: {error}")]


if __name__ == "__main__":
    main(tyro.cli(Options))
