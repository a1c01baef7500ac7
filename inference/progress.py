"""How a fit tells what it is doing: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ppl_gen.inference.history import Epoch
from ppl_gen.inference.seeds import seeded

if TYPE_CHECKING:
    from rich.console import Console

LINES = 10


class Reporter(Protocol):
    """Is told of every epoch."""

    def __call__(self, epoch: Epoch) -> None:
        """Take note of one more epoch."""
        ...

    @property
    def say(self) -> Callable[[str], None]:
        """Tells, in a sentence, what is not about an epoch."""
        ...


@dataclass(frozen=True)
class _Teller:
    """Tells of epochs and of the rest by two functions."""

    tell: Callable[[Epoch], None]
    say: Callable[[str], None]

    def __call__(self, epoch: Epoch) -> None:
        self.tell(epoch)


@contextmanager
def reporter(epochs: int, shown: bool, console: Console | None = None) -> Iterator[Reporter]:
    """Show the epochs of a fit as they pass.

    Args:
        epochs: How many there will be.
        shown: Whether to show anything.
        console: Where; the standard error by default, so that output can be piped.
    """
    if not shown:
        yield _Teller(lambda epoch: None, lambda sentence: None)
        return
    # Importing rich draws from Python's random module.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = console or Console(stderr=True)
    printed = console

    def say(sentence: str) -> None:
        printed.print(sentence, soft_wrap=True, highlight=False)

    if console.is_terminal:
        with Progress(
            TextColumn("fit"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            transient=False,
        ) as progress:
            task = progress.add_task("fit", total=epochs, figures="")
            yield _Teller(
                lambda epoch: progress.update(task, completed=epoch.epoch, figures=_figures(epoch)),
                say,
            )
    else:
        every = max(1, epochs // LINES)
        first: Epoch | None = None

        def line(epoch: Epoch) -> None:
            nonlocal first
            # The first of a climb finds out how the steps are run: it tells of no other.
            if first is not None and epoch.epoch > first.epoch:
                each = (epoch.seconds - first.seconds) / (epoch.epoch - first.epoch)
                left = f"  {each * (epochs - epoch.epoch):.0f} s left"
            else:
                first, left = epoch, ""
            if epoch.epoch in (1, epochs) or epoch.epoch % every == 0:
                text = f"epoch {epoch.epoch}/{epochs}  {_figures(epoch)}{left}"
                console.print(text, soft_wrap=True, highlight=False)

        yield _Teller(line, say)


def _figures(epoch: Epoch) -> str:
    figures = {"ELBO": epoch.elbo, "KL": epoch.kl, "validation": epoch.valid_elbo}
    if not math.isnan(epoch.divergence):  # which no ELBO is made of
        figures = {"reconstruction": epoch.reconstruction, "divergence": epoch.divergence}
    shown = [f"{name} {value:.3f}" for name, value in figures.items() if not math.isnan(value)]
    if not math.isnan(epoch.active_units):
        shown.append(f"active units {epoch.active_units:.0f}")
    rate = epoch.steps / epoch.seconds if epoch.seconds else 0.0
    return "  ".join([*shown, f"{rate:.0f} steps/s"])


class Steps:
    """Tells which of a number of steps is taken, and what share of it is done.

    Args:
        begin: Is told what a step is going to do.
        tell: Is told what share of it is done, from 0 to 1.
    """

    def __init__(self, begin: Callable[[str], None], tell: Callable[[float], None]) -> None:
        self._begin = begin
        self._tell = tell

    def begin(self, sentence: str) -> Callable[[float], None]:
        """Say what comes next; what is returned is to be told how far it is."""
        self._begin(sentence)
        return self._tell


@contextmanager
def steps(count: int, shown: bool, console: Console | None = None) -> Iterator[Steps]:
    """Show how far a number of steps are: a bar on a terminal, a line each elsewhere.

    Args:
        count: How many there will be.
        shown: Whether to show anything.
        console: Where; the standard error by default.
    """
    if not shown:
        yield Steps(lambda sentence: None, lambda share: None)
        return
    with seeded(0):  # importing rich draws from Python's random module
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = console or Console(stderr=True)
    begun = 0
    if not console.is_terminal:

        def line(sentence: str) -> None:
            nonlocal begun
            begun += 1
            console.print(f"{begun}/{count}  {sentence}", soft_wrap=True, highlight=False)

        yield Steps(line, lambda share: None)
        return
    columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=count)

        def begin(sentence: str) -> None:
            nonlocal begun
            begun += 1
            progress.update(task, completed=begun - 1, description=sentence)

        yield Steps(begin, lambda share: progress.update(task, completed=begun - 1 + share))
