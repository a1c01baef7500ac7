"""``ppl-gen compare``: runs on disk, fits with an option varied, or engines on one story."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import ppl_gen as pg
from ppl_gen.cli.commands import at_least_one
from ppl_gen.cli.console import note, show, shown
from ppl_gen.cli.fitting import (
    BY_DATA,
    Output,
    all_groups,
    built,
    chosen_by_data,
    group_of,
    parsed_groups,
    parsed_options,
    settings_of,
    summary,
)
from ppl_gen.cli.options import nearest, options_of, run_command, values_of
from ppl_gen.cli.sources import Fitted, Source, Unset
from ppl_gen.cli.specifications import apart, specified
from ppl_gen.data import Dataset
from ppl_gen.errors import DataError, FitError, RunError, StoryError
from ppl_gen.inference import Comparison, Run, Settings, disk
from ppl_gen.inference.seeds import seeded
from ppl_gen.models import STORIES
from ppl_gen.story import Story
from ppl_gen.story_file import read_story_file

HeldOut = Literal["valid", "test"]
# As many fits as anybody means to make; more are a slip of the keyboard.
MOST = 1000


@dataclass(frozen=True)
class Varied:
    """What is varied, and how the fits are compared.

    Attributes:
        vary: An option and its values: components=1:10, both ends included, or
            covariance=full,diagonal. Any option of the story or of the fit serves, and any
            argument of a part that is named: optimizer.eps=1e-8,1e-4.
        part: The rows to compare on. Choices are made on valid, so that test stays for the report.
        draws: Draws of the guide for each row.
        json: Print JSON instead of a table.
    """

    vary: str
    part: HeldOut = "valid"
    draws: int = 1000
    json: bool = False


@dataclass(frozen=True)
class Engines:
    """Which engines fit the story, and what they are compared on.

    Attributes:
        engines: Their names, with commas between: amortised, the story's own guide by SVI; auto,
            Pyro's AutoNormal, or another of its autoguides as in auto:AutoMultivariateNormal; em;
            nuts; hmc, batched chains. All look at the train part.
        rows: On how many rows latents of single rows are compared.
        draws: Draws of each posterior.
        chains: How many chains of nuts share its draws.
        warmup: How many draws of each go before.
        json: Print JSON instead of a table.
        quiet: Print nothing but the result.
    """

    engines: str
    rows: int = 20
    draws: int = 1000
    chains: int = 2
    warmup: int = 300
    json: bool = False
    quiet: bool = False


def compare(arguments: list[str]) -> None:
    """Rank runs by the evidence of rows they were not fitted to, and by LOO."""
    names, rest = _taken("--engines", arguments)
    if names is not None:
        compare_engines(names, rest)
    elif arguments and arguments[0] in STORIES:
        vary(arguments[0], arguments[1:])
    elif any(argument.split("=")[0] == "--vary" for argument in arguments):
        raise StoryError(
            f"name one of ppl-gen's stories first to vary its options, got {arguments[0]!r}: "
            f"{nearest(arguments[0], STORIES)}"
        )
    else:
        run_command(compare_runs, "ppl-gen compare", arguments or ["--help"])


def compare_runs(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    story: Annotated[Path | None, Unset] = None,
    data: Annotated[str | None, Unset] = None,
    data_root: Annotated[Path | None, Unset] = None,
    part: HeldOut = "valid",
    draws: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Rank runs by the evidence of rows they were not fitted to, and by LOO.

    Takes runs of the same data; or the name of a story, which is then fitted once for each value
    of an option, or by several engines. Each run's figures stand beside those of the best, with the
    error of their difference, and a sentence says which of them to take.

    Examples:
        ppl-gen compare runs/a runs/b
        ppl-gen compare runs/a runs/b --part test --json
        ppl-gen compare ppca --data wine --standardise --vary latent=1:6
        ppl-gen compare vae --data digits --vary prior=standard-normal,mixture --epochs 200
        ppl-gen compare gmm --data iris --engines em,nuts,auto,amortised

    Args:
        runs: The directories of the runs.
        story: The story file that was fitted, for runs of your own story.
        data: Other data than those the stories were fitted to: a data set or a path.
        data_root: The folder of the image data sets, if it is elsewhere now.
        part: The rows to compare on. Choices are made on valid, so that test stays for the report.
        draws: Draws of the guide for each row.
        seed: Of the draws.
        device: Where to compute: cpu, cuda, cuda:1, or auto.
        json: Print JSON instead of a table.
    """
    at_least_one("draws", draws)
    names = _names(runs)
    found: dict[str, Run] = {}
    rows, train = None, None
    for name, path in names.items():
        of_file = "file" in disk.read_record(path)["story"]
        fitted = Fitted(path, story if of_file else None, data, data_root, part, device)
        found[name] = run = fitted.open()
        if rows is None:
            whole = fitted.dataset(run)
            rows = fitted.rows(run, whole, "comparing")
            train = None if whole is None or data is not None else whole.train
    if rows is None:
        raise DataError("runs of programs that hold their data themselves cannot be compared")
    told = pg.compare(found, rows, draws=draws, train=train, seed=seed)
    _tell(told, names, found, json)


def vary(name: str, arguments: list[str]) -> None:
    """Fit one of ppl-gen's own stories once for each value of an option, and compare the fits.

    Args:
        name: A key of ``STORIES``.
        arguments: What follows it.
    """
    hints = dict.fromkeys(chosen_by_data(name), "(default: the one for the data)")
    choices = options_of(STORIES[name], leave_out=BY_DATA, hints=hints)
    groups = {"compare": Varied, group_of(name): choices}
    description = (
        f"Fit the story {name!r} once for each value of an option, and compare the fits.\n\n"
        f"Examples:\n    ppl-gen compare {name} --data wine --vary latent=1:6\n"
        f"    ppl-gen compare {name} --data wine --vary seed=0:4 --out runs/restarts\n\n"
        "Each fit becomes a run in a directory of its own, named by the value."
    )

    def parsed(given: list[str]) -> Any:
        return parsed_options(f"ppl-gen compare {name}", description, given, groups)

    parts = specified(*all_groups(groups).values())
    # What they belong to may be what is varied.
    first = parsed(apart(arguments, parts)[0])
    varied: Varied = first.compare
    at_least_one("draws", varied.draws)
    known = [field.name for cls in (choices, Settings) for field in fields(cls)]
    option, values = _values(varied.vary, name, known, parts)
    if any(a.split("=")[0].replace("_", "-") == f"--{option}" for a in arguments):
        raise StoryError(f"{option} is varied: leave out --{option}")
    dotted = "." in option
    each = {
        value: parsed(
            [*arguments, *([f"--{option}={value}"] if dotted else [f"--{option}", *value.split()])]
        )
        for value in values
    }
    settings = {value: settings_of(one.fit) for value, one in each.items()}
    folder = _folder(first.output, name, first.data.data)
    places = {value: folder / _plain(f"{option}-{value}") for value in values}
    for place in places.values():
        disk.check_target(place, first.output.overwrite)
    first_fit = each[values[0]]
    data = first_fit.data.load()
    if data is None:
        raise DataError(f"{name} needs data: name them, as in: ppl-gen compare {name} --data wine")
    runs, failures = {}, []
    for value, one in each.items():
        options = values_of(getattr(one, group_of(name)))
        try:
            say = one.output.note if one is first_fit else _nothing
            story, shaped = built(name, options, data, say)
            runs[value] = _fitted(story, shaped, settings[value], places[value], one.output)
        except (FitError, StoryError) as error:
            note(f"{places[value].name} is left out: {error}")
            failures.append(error)
    if len(runs) < 2 and failures:
        raise failures[0]
    rows = getattr(data, varied.part)
    if not first.output.quiet:
        note(f"comparing on the {varied.part} part of {data.name!r}: {len(rows)} rows")
    names = {places[value].name: places[value] for value in runs}
    found = dict(zip(names, runs.values(), strict=True))
    told = pg.compare(found, rows, draws=varied.draws, train=data.train)
    _tell(told, names, found, varied.json)


def compare_engines(names: str, arguments: list[str]) -> None:
    """Fit one story by several engines, and tabulate distance, evidence and seconds.

    Args:
        names: Of the engines, with commas between.
        arguments: The story, one of ppl-gen's or a file, and options.
    """
    first, *rest = arguments or [""]
    if first not in STORIES and not first.endswith(".py"):
        hint = nearest(first, STORIES) if first and not first.startswith("-") else "as in gmm"
        raise StoryError(
            "name a story before its options, one of ppl-gen's or a .py file, got "
            f"{first or 'none'!r}: {hint}"
        )
    if any(argument.split("=")[0] == "--vary" for argument in rest):
        raise StoryError("--vary and --engines compare different things: leave one out")
    own = first in STORIES
    called = first if own else shown(Path(first))
    description = (
        f"Fit the story {called!r} by several engines, and tabulate distance, evidence and "
        f"seconds.\n\nExamples:\n"
        f"    ppl-gen compare {called} --data iris --engines em,nuts,auto,amortised\n"
        f"    ppl-gen compare {called} --data iris --engines auto:AutoMultivariateNormal,nuts\n\n"
        "The distance is that from nuts, or from batched chains where nuts is not among them."
    )
    groups: dict[str, type] = {"compare": Engines}
    if own:
        hints = dict.fromkeys(chosen_by_data(first), "(default: the one for the data)")
        groups[group_of(first)] = options_of(STORIES[first], leave_out=BY_DATA, hints=hints)
    groups |= {"data": Source, "fit": options_of(Settings, leave_out=("method",))}
    # As one word: names may begin with what looks like an option.
    program, given = f"ppl-gen compare {called}", [f"--engines={names}", *rest]
    parsed = parsed_groups(program, description, given, groups)
    asked: Engines = parsed.compare
    settings = {n: v for n, v in asdict(settings_of(parsed.fit)).items() if n != "method"}
    say = _nothing if asked.quiet else note
    data = parsed.data.load()
    if data is None:
        raise DataError(
            f"{called} needs data: name them, as in: {program} --data iris --engines {names}"
        )
    if own:
        story, data = built(first, values_of(getattr(parsed, group_of(first))), data, say)
    else:
        with seeded(settings["seed"]):
            story = read_story_file(Path(first), data)
    told = pg.compare_engines(
        story,
        data,
        [name.strip() for name in names.split(",")],
        rows=asked.rows,
        draws=asked.draws,
        chains=asked.chains,
        warmup=asked.warmup,
        tell=say,
        **settings,
    )
    show(told.to_json().rstrip() if asked.json else told)


def _taken(flag: str, arguments: list[str]) -> tuple[str | None, list[str]]:
    """The value of an option, None if it is not given, and the arguments without it.

    Raises:
        StoryError: If it has no value.
    """
    places = [i for i, argument in enumerate(arguments) if argument.split("=")[0] == flag]
    if not places:
        return None, arguments
    place, (_, equals, value) = places[-1], arguments[places[-1]].partition("=")
    after = place + (1 if equals else 2)
    value = value if equals else "".join(arguments[place + 1 : after])
    if not value or value.startswith("-"):
        raise StoryError(f"{flag} must have names, as in {flag} em,nuts,auto,amortised, got none")
    return value, [*arguments[:place], *arguments[after:]]


def _fitted(story: Story, data: Dataset, settings: Settings, out: Path, output: Output) -> Run:
    """Fit a story and save the run; it says in one line how it went."""
    run = pg.fit(
        story, data, out=out, overwrite=output.overwrite, progress=False, **asdict(settings)
    )
    output.note(summary(run, out).split("\n")[0])
    return run


def _nothing(sentence: str) -> None:
    """What was said of the first fit goes for the others."""


def _tell(told: Comparison, places: dict[str, Path], runs: dict[str, Run], json: bool) -> None:
    """Print a comparison, and what to do next."""
    if json:
        show(told.to_json().rstrip())
        return
    show(told)
    name = told.recommended.name
    origin = runs[name].pair.origin
    story = f" --story {shown(Path(origin['file']))}" if origin else ""
    show(f"next: ppl-gen report {shown(places[name])}{story}")


def _values(
    vary: str, story: str, known: Iterable[str], parts: Iterable[str] = ()
) -> tuple[str, list[str]]:
    """The option that is varied, as it is typed, and its values.

    Of an option among ``parts``, which names a part, an argument can be varied: prior.components.

    Raises:
        StoryError: If there is no such option.
        DataError: If values are missing, or it is none or one.
    """
    option, equals, text = vary.partition("=")
    option = option.strip().lstrip("-").replace("_", "-")
    names = [name.replace("_", "-") for name in known]
    part, dot, _ = option.partition(".")
    if option not in names and not (dot and part.replace("-", "_") in parts):
        raise StoryError(f"{story} has no option {option!r} to vary: {nearest(option, names)}")
    ends = re.fullmatch(r"\s*(-?\d+)\s*:\s*(-?\d+)\s*", text)
    if ends:
        first, last = int(ends[1]), int(ends[2])
        if last - first >= MOST:
            raise DataError(f"vary must be at most {MOST} values, got {vary!r}")
        values = [str(value) for value in range(first, last + 1)]
    else:
        # A comma inside brackets belongs to a value, as in mixture(components=3, ...).
        values = [value.strip() for value in re.split(r",(?![^(]*\))", text)]
    if not equals or "" in values or len(values) < 2:
        raise DataError(
            f"vary must be an option and at least two values, as in {option}=1:6 or {option}=1,2,4"
            f", got {vary!r}"
        )
    if len({_plain(value) for value in values}) < len(values):
        raise DataError(f"vary must be values that differ, got {vary!r}")
    return option, values


def _folder(output: Output, story: str, data: str | None) -> Path:
    """Where the runs go, one a directory.

    Raises:
        RunError: If it is a run itself.
    """
    named = "-".join(["compare", story, *([Path(data).stem] if data else [])])
    folder, number = output.out or Path("runs", _plain(named)), 1
    while output.out is None and not output.overwrite and folder.exists():
        number += 1
        folder = Path("runs", f"{_plain(named)}-{number}")
    if (folder / disk.RECORD).exists():
        raise RunError(f"{str(folder)!r} is a run itself: choose another directory")
    return folder


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("_")


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """Runs by the names of their directories, or by their paths where these are the same.

    Raises:
        DataError: If there are fewer than two, or one is named twice.
    """
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        given = " ".join(map(str, paths)) or "none"
        raise DataError(f"runs must be at least two different ones to compare, got {given}")
    short = [path.resolve().name for path in paths]
    if len(set(short)) < len(short):
        return {str(path): path for path in paths}
    return dict(zip(short, paths, strict=True))
