"""``ppl-gen doctor``: what is wrong with a story and its data, before a fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import ppl_gen as pg
from ppl_gen.cli.commands import at_least_one, conclude
from ppl_gen.cli.console import note, shown
from ppl_gen.cli.fitting import (
    BY_DATA,
    DOTTED,
    built,
    chosen_by_data,
    group_of,
    parsed_groups,
)
from ppl_gen.cli.options import first_line, nearest, options_of, show_choices, values_of
from ppl_gen.cli.sources import Source, Unset
from ppl_gen.errors import DataError, StoryError
from ppl_gen.inference.seeds import seeded
from ppl_gen.models import STORIES
from ppl_gen.story_file import read_story_file

HELP = """Look a story and its data over before a fit: yours by its file, or one of ppl-gen's own.

Prints a table: what was looked at, and of each fault the site and what to do. The exit status is 1
if something fails, 0 otherwise. A fit looks at the same, and warns of what fails.

Examples:
    ppl-gen doctor my_story.py --data measurements.csv
    ppl-gen doctor my_story.py --data digits --json
    ppl-gen doctor vae --data digits --latent 2

Each story has options of its own, as in: ppl-gen doctor vae --help"""


@dataclass(frozen=True)
class Asked:
    """How to look.

    Attributes:
        batch_size: Rows that a step of the fit is to take; by default 128.
        seed: Of first weights and draws.
        json: Print JSON instead of a table.
    """

    batch_size: Annotated[int | None, Unset] = None
    seed: int = 0
    json: bool = False


def doctor(arguments: list[str]) -> None:
    """Look a story and its data over before a fit."""
    first, *rest = arguments or ["--help"]
    if first in STORIES:
        story, data, asked = _named(first, rest)
    elif first.endswith(".py"):
        story, data, asked = _of_file(Path(first), rest)
    elif first in ("-h", "--help"):
        lines = {name: first_line(cls) for name, cls in STORIES.items()}
        show_choices("ppl-gen doctor", HELP, lines)
        return
    elif first.startswith("-"):
        raise StoryError(
            "name the story before its options, as in: ppl-gen doctor vae --data digits"
        )
    else:
        hint = nearest(first, STORIES)
        raise StoryError(f"there is no story {first!r}, and it is no .py file: {hint}")
    verdict = pg.doctor(story, data, batch_size=asked.batch_size, seed=asked.seed)
    conclude(verdict, asked.json)


def _named(name: str, arguments: list[str]) -> tuple[Any, Any, Asked]:
    """One of ppl-gen's stories, built for the data, and the data."""
    hints = dict.fromkeys(chosen_by_data(name), "(default: the one for the data)")
    options = options_of(STORIES[name], leave_out=BY_DATA, hints=hints)
    parsed = _parsed(name, arguments, {group_of(name): options})
    data = parsed.data.load()
    if data is None:
        raise DataError(f"{name} needs data: name them, as in: ppl-gen doctor {name} --data digits")
    story, data = built(name, values_of(getattr(parsed, group_of(name))), data, note)
    return story, data, parsed.asked


def _of_file(path: Path, arguments: list[str]) -> tuple[Any, Any, Asked]:
    """The story of a user's own file, and the data."""
    parsed = _parsed(shown(path), arguments, {})
    data = parsed.data.load()
    with seeded(parsed.asked.seed):
        return read_story_file(path, data), data, parsed.asked


def _parsed(story: str, arguments: list[str], groups: dict[str, type]) -> Any:
    description = (
        f"Look the story {story} and its data over before a fit.\n\nExamples:\n"
        f"    ppl-gen doctor {story} --data digits\n"
        f"    ppl-gen doctor {story} --data measurements.csv --json\n\n"
        f"{DOTTED}"
    )
    every = {**groups, "data": Source, "asked": Asked}
    parsed = parsed_groups(f"ppl-gen doctor {story}", description, arguments, every)
    if parsed.asked.batch_size is not None:
        at_least_one("batch_size", parsed.asked.batch_size)
    return parsed
