"""The table in markdown, and its place in a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed import machine
from benchmarks.speed.lines import Line
from benchmarks.speed.reasons import reasons

BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
HEAD = (
    "| work | against | ratio | quartiles | at most | | ours | theirs |",
    "|---|---|---|---|---|---|---|---|",
)


def table(lines: Sequence[Line]) -> str:
    """The lines as a table."""
    return "\n".join((*HEAD, *(_row(line) for line in lines)))


def section(lines: Sequence[Line], effort: str, load: str = "") -> str:
    """The table with what has to be known to read it.

    Args:
        lines: The lines.
        effort: How much was measured, in words.
        load: How busy the machine was before, in words.
    """
    return "\n".join(
        (
            "## Speed against peers",
            "",
            "`make bench`. Ratio of ours to the other's, so below 1 ours is faster or smaller: "
            "median and quartiles",
            f"over interleaved rounds, every contender in a process of its own; {effort}.",
            "",
            f"- device: {machine.device()}",
            f"- threads: {machine.threads()}",
            f"- load of the machine before: {load or 'unknown'}",
            f"- versions: {machine.versions()}",
            "",
            table(lines),
            *_missed(lines),
        )
    )


def _missed(lines: Sequence[Line]) -> list[str]:
    if not (found := reasons(lines)):
        return []
    return ["", "Where a bar is not met:", "", *(f"- {reason}" for reason in found)]


def replaced(text: str, content: str) -> str:
    """The text with what stands between the markers replaced, or appended if there are none.

    Raises:
        ValueError: If the markers are not one pair in order.
    """
    if BEGIN not in text and END not in text:
        return f"{text.rstrip()}\n\n{BEGIN}\n{content}\n{END}\n".lstrip()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise ValueError(f"the file must hold {BEGIN} once and {END} once after it")
    before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def write(path: Path, content: str) -> None:
    """Put the content between the markers of a file, which is replaced in one go."""
    text = path.read_text() if path.is_file() else ""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(replaced(text, content))
        os.chmod(name, path.stat().st_mode if path.is_file() else 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _row(line: Line) -> str:
    cells = [
        line.work,
        line.against,
        _figure(line.ratio, line.unit),
        f"{_figure(line.low)} to {_figure(line.high, line.unit)}" if line.low is not None else "",
        _figure(line.bar, line.unit),
        line.verdict,
        line.ours,
        line.theirs,
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _figure(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    digits = f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
    if 0 < abs(value) < 0.1:
        digits = f"{value:.2g}"
    return f"{digits} {unit}".rstrip()
