"""What the command line says, and where."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

WIDTH = 110


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave it to ``main``, which ends quietly as other programs do in ``... | head``."""
        raise BrokenPipeError


def show(result: Any) -> None:
    """Print a result, a text or a table, to the standard output."""
    console = _Console(highlight=False)
    if not console.is_terminal:
        console = _Console(highlight=False, width=WIDTH)
    text = isinstance(result, str)
    console.print(Text(result) if text else result, soft_wrap=text)


def note(sentence: str) -> None:
    """Print a remark to the standard error."""
    console = _Console(stderr=True, highlight=False)
    console.print(sentence, markup=False, soft_wrap=True, style="dim")


def complain(sentence: str) -> None:
    """Print what went wrong to the standard error."""
    console = _Console(stderr=True, highlight=False)
    console.print(f"ppl-gen: {sentence}", markup=False, soft_wrap=True)


def shown(path: Path) -> str:
    """A path as a shell would take it."""
    return shlex.quote(str(path))
