"""``ppl-gen sweep``: a search for the options under which held-out rows have the highest ELBO."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

from ppl_gen.cli.commands import at_least_one
from ppl_gen.cli.console import note, show, shown
from ppl_gen.cli.fitting import (
    BY_DATA,
    built,
    chosen_by_data,
    given_to_story,
    group_of,
    parsed_groups,
    settings_of,
)
from ppl_gen.cli.options import nearest, options_of, run_command, show_choices, values_of
from ppl_gen.cli.sources import Source, Unset
from ppl_gen.cli.specifications import apart, specified
from ppl_gen.data import Dataset
from ppl_gen.errors import DataError, FitError, RunError, StoryError
from ppl_gen.inference import Settings, sweep
from ppl_gen.inference.files import write_file
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.space import Space, plain_space, read_space
from ppl_gen.inference.sweep import Tried
from ppl_gen.models import STORIES
from ppl_gen.report.sweep import counted, table_of, write_sweep
from ppl_gen.story_file import read_story_file

HELP = """Search for the options under which held-out rows have the highest ELBO.

Examples:
    ppl-gen sweep vae --data digits --space space.toml --trials 40
    ppl-gen sweep my_story.py --data measurements.csv --space space.toml --processes 2
    ppl-gen sweep --resume runs/sweep-vae-digits --trials 80

The space is a TOML file, a line for each option of the story or of the fit, with a list of values
or a range:

    latent = [2, 4, 8]
    learning_rate = {low = 1e-4, high = 1e-2, log = true}
    prior = ["standard-normal", "mixture(components=20)"]
    story.width = [32, 64]

The last is for a story of your own: story(data, width=32). Fits that are behind are given up. The
best run is kept, in the folder best, as any other; a page shows all trials.

Each story has options of its own, as in: ppl-gen sweep vae --help"""


@dataclass(frozen=True)
class Swept:
    """What is searched, for how long, and where it goes.

    Attributes:
        space: A TOML file of options and what is tried of each.
        trials: How many fits there are to be in all.
        processes: How many of them at a time, each in a process of its own.
        out: A directory for the sweep; by default a new one under runs/.
        overwrite: Replace a sweep that is there already.
        quiet: Print nothing but the result.
        checkpoint_seconds: How often to keep a checkpoint of each fit.
    """

    space: Path
    trials: int = 20
    processes: int = 1
    out: Annotated[Path | None, Unset] = None
    overwrite: bool = False
    quiet: bool = False
    checkpoint_seconds: float = 60.0


def run_sweep(arguments: list[str]) -> None:
    """Search for the options under which held-out rows have the highest ELBO."""
    first, *rest = arguments or ["--help"]
    if first in STORIES or first.endswith(".py"):
        _begin(first, rest)
    elif first in ("-h", "--help"):
        show_choices("ppl-gen sweep", HELP, dict.fromkeys(STORIES, ""))
    elif first.split("=")[0] == "--resume":
        run_command(go_on, "ppl-gen sweep", arguments)
    elif first.startswith("-"):
        raise StoryError(
            "name the story before its options, as in: ppl-gen sweep vae --data digits"
        )
    else:
        hint = nearest(first, STORIES)
        raise StoryError(f"there is no story {first!r}, and it is no .py file: {hint}")


def go_on(
    resume: Path,
    trials: Annotated[int | None, Unset] = None,
    processes: int = 1,
    quiet: bool = False,
) -> None:
    """Go on with a sweep, or help another process with it.

    Examples:
        ppl-gen sweep --resume runs/sweep-vae-digits
        ppl-gen sweep --resume runs/sweep-vae-digits --trials 80

    Args:
        resume: The directory of the sweep.
        trials: How many fits there are to be in all; by default as many as it was begun for.
        processes: How many of them at a time, each in a process of its own.
        quiet: Print nothing but the result.
    """
    record = sweep.read_record(resume)
    try:
        story, given = str(record["story"]), [str(argument) for argument in record["arguments"]]
        space = read_space(record["space"])
    except (KeyError, TypeError, DataError) as error:
        raise RunError(f"{str(resume / sweep.RECORD)!r} is no sweep: {error!r}") from error
    plan = _Plan(story, given, space)
    asked = replace(
        plan.asked, trials=trials or plan.asked.trials, processes=processes, quiet=quiet
    )
    _search(resume, plan, asked)


class _Plan:
    """What a command line says is to be searched, looked through before anything is fitted.

    Args:
        story: The name of one of ppl-gen's stories, or a file.
        arguments: What follows it.
        space: What is tried, if it is known already.

    Raises:
        StoryError: If an option is unknown, or given and searched at once.
        DataError: If the space cannot be read.
    """

    def __init__(self, story: str, arguments: list[str], space: Space | None = None) -> None:
        self.story, self.arguments = story, arguments
        self.ours = story in STORIES
        self.choices: type | None = None
        self.groups: dict[str, type] = {"sweep": Swept}
        if self.ours:
            hints = dict.fromkeys(chosen_by_data(story), "(default: the one for the data)")
            self.choices = options_of(STORIES[story], leave_out=BY_DATA, hints=hints)
            self.groups[group_of(story)] = self.choices
        self.groups |= {"data": Source, "fit": options_of(Settings)}
        parts = specified(*self.groups.values())
        # What they belong to may be what is searched.
        bare = arguments if self.ours else given_to_story(arguments)[1]
        self.first = self._read(apart(bare, parts)[0])
        self.asked: Swept = self.first.sweep
        for name in ("trials", "processes"):
            at_least_one(name, getattr(self.asked, name))
        self.space = _space(self.asked.space) if space is None else space
        self._check_names(parts)
        self._check_values()

    def parsed(self, values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The options with some values, and what is given to the maker of a story."""
        typed = [word for name, value in values.items() for word in self._typed(name, value)]
        given, rest = given_to_story([*self.arguments, *typed])
        return self._read(rest), given

    def _read(self, arguments: list[str]) -> Any:
        description = HELP.split("\n\nEach story")[0]
        return parsed_groups(f"ppl-gen sweep {self.story}", description, arguments, self.groups)

    def _typed(self, name: str, value: Any) -> list[str]:
        option = f"--{name if name.startswith('story.') else name.replace('_', '-')}"
        if "." in name:
            return [f"{option}={value}"]
        if isinstance(value, bool):
            return [option] if value else []
        words = str(value).split()
        return [f"{option}={words[0]}"] if len(words) == 1 else [option, *words]

    def _check_names(self, parts: Any) -> None:
        known = [f.name for cls in (self.choices, Settings) if cls for f in fields(cls)]
        typed = [a.split("=")[0] for a in self.arguments if a.startswith("--")]
        given = {option.lstrip("-").replace("-", "_") for option in typed}
        for name in self.space:
            part, dot, rest = name.partition(".")
            if not self.ours and part == "story" and rest:
                continue
            if name not in known and not (dot and part in parts):
                own = "" if self.ours else f" (of what makes your story it would be story.{name})"
                raise StoryError(
                    f"{self.story} has no option {name!r} to search{own}: {nearest(name, known)}"
                )
            if name in given:
                raise StoryError(f"{name} is searched: leave out --{name.replace('_', '-')}")

    def _check_values(self) -> None:
        """Parse every value once, so that a slip is found before the first fit."""
        ends = {
            name: tried if isinstance(tried, tuple) else (tried.low, tried.high)
            for name, tried in self.space.items()
        }
        firsts = {name: values[0] for name, values in ends.items()}
        for name, values in ends.items():
            for value in values:
                parsed, _ = self.parsed({**firsts, name: value})
                settings_of(parsed.fit)


def _space(path: Path) -> Space:
    try:
        return read_space(tomllib.loads(path.read_text()))
    except OSError as error:
        raise DataError(f"the space {str(path)!r} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"the space {str(path)!r} is no TOML: {error}") from error


def _begin(story: str, arguments: list[str]) -> None:
    plan = _Plan(story, arguments)
    data = plan.first.data.data
    folder = _folder(plan.asked, story, data)
    told = {"story": story, "arguments": arguments, "space": plain_space(plan.space)}
    if data is None:
        raise DataError(f"a sweep needs data: ppl-gen sweep {story} --data digits, say")
    sweep.begin(folder, told, plan.asked.overwrite)
    _search(folder, plan, plan.asked)


def _folder(asked: Swept, story: str, data: str | None) -> Path:
    if asked.out is not None:
        return asked.out
    name = "-".join(["sweep", Path(story).stem, *([Path(data).stem] if data else [])])
    folder, number = Path("runs", name), 1
    while not asked.overwrite and folder.exists():
        number += 1
        folder = Path("runs", f"{name}-{number}")
    return folder


def _search(folder: Path, plan: _Plan, asked: Swept) -> None:
    """Search, and say what was found."""
    at_least_one("trials", asked.trials)
    at_least_one("processes", asked.processes)
    say = _nothing if asked.quiet else note
    try:
        if asked.processes > 1:
            _by_others(folder, asked)
            found = sweep.trials_of(folder)
        else:
            found = sweep.search(
                folder,
                plan.space,
                _maker(plan, say),
                trials=asked.trials,
                seed=plan.first.fit.seed,
                checkpoint_seconds=asked.checkpoint_seconds,
                tell=say,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; to go on: ppl-gen sweep --resume {shown(folder)}"
        ) from None
    _tell(folder, plan, found)


def _maker(
    plan: _Plan, say: Callable[[str], None]
) -> Callable[[dict[str, Any]], tuple[Any, Settings, Dataset]]:
    """What makes story, settings and data of the values of a trial. It reads the data once."""
    read: dict[str, Dataset] = {}

    def make(values: dict[str, Any]) -> tuple[Any, Settings, Dataset]:
        parsed, given = plan.parsed(values)
        settings = settings_of(parsed.fit)
        first = not read
        data = read.get("data") or parsed.data.load()
        read["data"] = data
        if plan.ours:
            options = values_of(getattr(parsed, group_of(plan.story)))
            story, shaped = built(plan.story, options, data, say if first else _nothing)
            return story, settings, shaped
        with seeded(settings.seed):
            return read_story_file(Path(plan.story), data, given), settings, data

    return make


def _by_others(folder: Path, asked: Swept) -> None:
    """Let processes search, each with its share of the cores, and wait for them.

    Raises:
        FitError: If all of them have failed.
        KeyboardInterrupt: If it is interrupted; they end as well.
    """
    command = [sys.executable, "-m", "ppl_gen", "sweep", "--resume", str(folder)]
    command += ["--trials", str(asked.trials), *(["--quiet"] if asked.quiet else [])]
    threads = max(1, (os.cpu_count() or 1) // asked.processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    workers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        for _ in range(asked.processes)
    ]
    try:
        codes = [worker.wait() for worker in workers]
    except BaseException:
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        for worker in workers:
            with suppress(KeyboardInterrupt):
                worker.wait()
        raise
    if all(codes):
        raise FitError(f"none of the {len(workers)} processes ended well: see what they said")


def _tell(folder: Path, plan: _Plan, found: list[Tried]) -> None:
    """Print the best trials and write the page and the table of all."""
    page = write_sweep(folder, plan.story, list(plan.space), found)
    write_file(folder / "trials.csv", table_of(found, list(plan.space)).encode())
    best = sweep.best_of(found)
    told = counted(found)
    if best is None:
        raise FitError(f"no trial in {shown(folder)} is complete: {told}; see {shown(page)}")
    file = "" if plan.ours else f" --story {shown(Path(plan.story))}"
    show(
        f"{shown(folder)}: {len(found)} trials: {told}\n"
        f"best: trial {best.number}, validation ELBO {best.elbo:.3f}: {sweep.told(best.values)}\n"
        f"all: {shown(page)}\n"
        f"next: ppl-gen check {shown(folder / sweep.BEST)}{file}"
    )


def _nothing(sentence: str) -> None:
    """For those who asked for quiet."""
