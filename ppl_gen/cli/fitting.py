"""``ppl-gen fit`` and ``ppl-gen demo``: from data to a run."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from pyro.infer.autoguide import AutoGuide

import ppl_gen as pg
from ppl_gen.cli.console import note, show, shown
from ppl_gen.cli.options import (
    MARKERS,
    first_line,
    nearest,
    options_of,
    run_command,
    show_choices,
    values_of,
)
from ppl_gen.cli.sources import Source, Unset, flattened, load_recorded, story_arguments
from ppl_gen.cli.specifications import folded, specified
from ppl_gen.component import from_configuration
from ppl_gen.data import Dataset, Support
from ppl_gen.errors import DataError, FitError, RunError, StoryError
from ppl_gen.inference import Run, Settings, checkpoint, disk
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.processes import follows
from ppl_gen.inference.seeds import seeded
from ppl_gen.likelihoods import for_support
from ppl_gen.models import STORIES
from ppl_gen.story import Story
from ppl_gen.story_file import read_story_file

# What the data say of a story's arguments, so that they are no options of their own.
BY_DATA = ("shape", "missing")

Omit = tyro.conf.OmitArgPrefixes
Note = Callable[[str], None]

HELP = """Fit a story to data: one of ppl-gen's own by its name, or yours by the path of its file.

Examples:
    ppl-gen fit vae --data digits --prior mixture --out runs/a
    ppl-gen fit my_story.py --data measurements.csv --target species --out runs/b
    ppl-gen fit --config runs/a/run.json --out runs/c
    ppl-gen fit --resume runs/a

The last but one makes the same fit again, from the record of a run; the last goes on with one that
was interrupted.

Each story has options of its own: ppl-gen fit vae --help, ppl-gen fit my_story.py --help"""

DOTTED = """\
What takes arguments takes them in brackets, or as options with a dot: --optimizer "adam(eps=1e-4)"
is --optimizer adam --optimizer.eps 1e-4."""


@dataclass(frozen=True)
class Output:
    """Where the run goes.

    Attributes:
        out: A directory for the run; by default a new one under runs/.
        overwrite: Replace a run that is there already.
        quiet: Print nothing but the result.
        checkpoint_seconds: How often to keep a checkpoint to go on from.
        checkpoint_epochs: How often, in epochs too.
        devices: Processes on each machine that fit together, each with a share of every batch.
        num_nodes: Machines.
        logger: Tell every epoch to tensorboard, into logs in the run, or to mlflow, or to both.
    """

    out: Annotated[Path | None, Unset] = None
    overwrite: bool = False
    quiet: bool = False
    checkpoint_seconds: float = 60.0
    checkpoint_epochs: Annotated[int | None, Unset] = None
    devices: int = 1
    num_nodes: int = 1
    logger: tuple[Literal["tensorboard", "mlflow"], ...] = ()

    def directory(self, story: str, data: str | None) -> Path:
        """Where to save the run of a story.

        Raises:
            RunError: If nothing can be saved there.
        """
        parts = [Path(part).stem for part in (story, data) if part]
        name = re.sub(r"[^\w.-]+", "_", "-".join(parts))
        out, number = self.out or Path("runs", name), 1
        while self.out is None and not self.overwrite and out.exists():
            number += 1
            out = Path("runs", f"{name}-{number}")
        if not follows():
            disk.check_target(out, self.overwrite)
        return out

    def note(self, sentence: str) -> None:
        """Print a remark, unless asked to be quiet."""
        if not self.quiet and not follows():
            note(sentence)


def fit(arguments: list[str]) -> None:
    """Fit a story to data."""
    first, *rest = arguments or ["--help"]
    if first in STORIES:
        fit_named(first, rest)
    elif first.endswith(".py"):
        fit_file(Path(first), rest)
    elif first in ("-h", "--help"):
        lines = {name: first_line(cls) for name, cls in STORIES.items()}
        show_choices("ppl-gen fit", HELP, lines)
    elif first.split("=")[0] == "--config":
        run_command(fit_again, "ppl-gen fit", arguments)
    elif first.split("=")[0] == "--resume":
        run_command(go_on, "ppl-gen fit", arguments)
    elif first.startswith("-"):
        raise StoryError("name the story before its options, as in: ppl-gen fit vae --data digits")
    else:
        hint = nearest(first, STORIES)
        raise StoryError(f"there is no story {first!r}, and it is no .py file: {hint}")


def fit_named(name: str, arguments: list[str]) -> None:
    """Fit one of ppl-gen's own stories.

    Args:
        name: A key of ``STORIES``.
        arguments: What follows it.
    """
    hints = dict.fromkeys(chosen_by_data(name), "(default: the one for the data)")
    options = options_of(STORIES[name], leave_out=BY_DATA, hints=hints)
    description = (
        f"Fit the story {name!r} to data.\n\nExamples:\n"
        f"    ppl-gen fit {name} --data digits --out runs/a\n"
        f"    ppl-gen fit {name} --data measurements.csv --epochs 200 --schedule cosine\n"
        f"    ppl-gen fit {name} --data digits {example_of(options)}\n\n"
        f"{DOTTED}"
    )
    parsed = parsed_options(
        f"ppl-gen fit {name}", description, arguments, {group_of(name): options}
    )
    settings, output = settings_of(parsed.fit), parsed.output
    out = output.directory(name, parsed.data.data)
    data = parsed.data.load()
    if data is None:
        raise DataError(f"{name} needs data: name them, as in: ppl-gen fit {name} --data digits")
    if parsed.data.mask is not None and "condition" not in chosen_by_data(name):
        raise DataError(f"{name} sees whole observations: leave --mask out, or fit cvae")
    story, data = built(name, values_of(getattr(parsed, group_of(name))), data, output.note)
    fit_and_tell(story, data, settings, out, output)


def fit_file(path: Path, arguments: list[str]) -> None:
    """Fit the story of a user's own file.

    Args:
        path: The file.
        arguments: What follows it.
    """
    file = shown(path)
    description = (
        f"Fit the story in {file} to data.\n\nExamples:\n"
        f"    ppl-gen fit {file} --data measurements.csv --out runs/b\n"
        f"    ppl-gen fit {file} --data measurements.csv --target species --epochs 200\n"
        f"    ppl-gen fit {file} --data measurements.csv --story.latent 3\n"
        f"    ppl-gen fit {file} --data measurements.csv {example_of()}\n\n"
        "--story.latent 3 is story(data, latent=3): of the function or class that makes the story. "
        f"{DOTTED}"
    )
    given, arguments = given_to_story(arguments)
    parsed = parsed_options(f"ppl-gen fit {file}", description, arguments, {})
    settings, output = settings_of(parsed.fit), parsed.output
    out = output.directory(path.name, parsed.data.data)
    data = parsed.data.load()
    with seeded(settings.seed):
        pair = read_story_file(path, data, given)
    fit_and_tell(pair, data, settings, out, output)


def given_to_story(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What is given to the maker of a story, ``--story.latent 3``, and the other arguments.

    Raises:
        StoryError: If a value is missing.
    """
    found, rest = dict[str, Any](), list[str]()
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if not name.startswith("--story."):
            rest.append(argument)
            continue
        value = value if equals else next(left, "")
        name = name.removeprefix("--story.").replace("-", "_")
        if not (name.isidentifier() and value):
            raise StoryError(
                f"--story. must have a name and a value, as in --story.latent 3, got {argument!r}"
            )
        found[name] = plain_value(value)
    return found, rest


def plain_value(text: str) -> bool | int | float | str:
    """A number or a truth where the text is one, else the text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, bool | int | float | str) else text


def fit_again(
    config: Path,
    output: Omit[Output],
    story: Annotated[Path | None, Unset] = None,
) -> None:
    """Make the same fit again: story, data, settings and seed come from the record of a run.

    Examples:
        ppl-gen fit --config runs/a/run.json --out runs/c

    Args:
        config: The run.json of a run, or its directory.
        story: The story file, for a run of your own story: a record holds no code.
    """
    record = disk.read_record(config)
    try:
        settings = Settings(**record["settings"])
    except (TypeError, ValueError) as error:
        raise RunError(f"the settings in {str(config)!r} cannot be read: {error}") from error
    settings = settings_of(settings)
    source = record["data"]["source"] or {}
    name = str(record["story"].get("class") or story or "story").rpartition(".")[2].lower()
    out = output.directory(story.name if story else name, source.get("name_or_path"))
    data = load_recorded(record)
    with seeded(settings.seed):
        told = _story_of(config, record["story"], story, data)
    fit_and_tell(told, data, settings, out, output, record["kwargs"])


def go_on(
    resume: Path,
    story: Annotated[Path | None, Unset] = None,
    quiet: bool = False,
    checkpoint_seconds: float = 60.0,
    checkpoint_epochs: Annotated[int | None, Unset] = None,
    devices: int = 1,
    num_nodes: int = 1,
    logger: tuple[Literal["tensorboard", "mlflow"], ...] = (),
) -> None:
    """Go on with a fit that was interrupted, from its last checkpoint.

    Examples:
        ppl-gen fit --resume runs/a
        ppl-gen fit --resume runs/b --story my_story.py

    Args:
        resume: The directory of the run.
        story: The story file, for a run of your own story: a record holds no code.
        quiet: Print nothing but the result.
        checkpoint_seconds: How often to keep a checkpoint to go on from.
        checkpoint_epochs: How often, in epochs too.
        devices: Processes on each machine that fit together; any number may go on.
        num_nodes: Machines.
        logger: Tell every epoch to tensorboard, into logs in the run, or to mlflow, or to both.
    """
    record = checkpoint.read(resume).record
    if record["data"]["columns"] and not record["data"]["source"]:
        raise RunError(
            f"{str(resume)!r} is of data given in Python: go on there, fit(story, x, "
            f"resume={str(resume)!r})"
        )
    data = load_recorded(record)
    often = checkpoint_seconds, checkpoint_epochs
    output = Output(resume, True, quiet, *often, devices, num_nodes, logger)
    with seeded(record["settings"]["seed"]):
        told = _story_of(resume, record["story"], story, data)
    fit_and_tell(told, data, {"resume": resume}, resume, output)


def built(name: str, options: Mapping[str, Any], data: Dataset, say: Note) -> tuple[Story, Dataset]:
    """One of ppl-gen's stories for these data, and the data in the form it takes.

    A likelihood, a condition or a number of classes that was not chosen is chosen by what the
    values are. Observations of several axes are flattened for a story that takes vectors only. It
    says each.

    Raises:
        StoryError: If the story cannot be built with these options for these data.
    """
    options = dict(options)
    for option, choose in chosen_by_data(name).items():
        if options.get(option) is None:
            options[option], reason = choose(data)
            say(f"{option}: {options[option]}, as {reason}")
    takes = inspect.signature(STORIES[name]).parameters
    if "missing" in takes and data.source.get("missing") == "keep":
        options["missing"] = "integrate"
    takes_shape = "shape" in takes

    def of_shape(shape: tuple[int, ...]) -> Story:
        return STORIES[name](**({"shape": shape} if takes_shape else {}), **options)

    try:
        return of_shape(data.shape), data
    except (TypeError, ValueError) as error:
        if len(data.shape) > 1:
            try:
                story = of_shape((math.prod(data.shape),))
            except (TypeError, ValueError):
                pass  # it is not the shape
            else:
                say(f"{name} takes vectors: observations of shape {data.shape} are flattened")
                return story, flattened(data)
        raise StoryError(f"{name} cannot be built: {error}") from error


def chosen_by_data(name: str) -> dict[str, Callable[[Dataset], tuple[Any, str]]]:
    """Options of a story that the data decide unless they are given."""
    takes = inspect.signature(STORIES[name]).parameters
    every = {"likelihood": _likelihood, "condition": _condition, "classes": _classes}
    return {option: choose for option, choose in every.items() if option in takes}


def _likelihood(data: Dataset) -> tuple[str, str]:
    return for_support(data.support, data.categories), f"the values are {data.support}"


def _condition(data: Dataset) -> tuple[str, str]:
    y = data.train.y
    if y is None:
        raise DataError(
            f"{data.name!r} has nothing to condition on: name a column of it with --target, or "
            "hide a part of each image with --mask"
        )
    if y.dtype == torch.bool and y.shape[1:] == data.shape:
        return "seen", "a part of each observation is masked"
    if y.is_floating_point():
        features = math.prod(y.shape[1:])
        return f"vector(features={features})", "the second column holds real numbers"
    classes, reason = _classes(data)
    return f"label(classes={classes})", reason


def _classes(data: Dataset) -> tuple[int, str]:
    columns = [part.y for part in data.parts if part.y is not None]
    if not columns or any(y.is_floating_point() or y.ndim > 1 for y in columns):
        raise DataError(f"{data.name!r} has no class labels: name their column with --target")
    classes = max(2, 1 + max(int(y.max()) for y in columns))
    return classes, f"labels go up to {classes - 1}"


def _scale_ratio(data: Dataset) -> float:
    """How many times the deviation of one column is that of another, of real rows; 1 otherwise."""
    if data.support is not Support.REAL or len(data.shape) != 1:
        return 1.0
    deviations = data.train.sample().x.std(0)
    varied = deviations[deviations > 0]
    return (varied.max() / varied.min()).item() if len(varied) else 1.0


def fit_and_tell(
    story: Any,
    data: Dataset | None,
    settings: Settings | Mapping[str, Any],
    out: Path,
    output: Output,
    kwargs: Mapping[str, Any] | None = None,
) -> Run:
    """Fit, save, and say how it went and what to do next.

    Args:
        story: Of any kind that ``fit`` takes.
        data: Likewise.
        settings: Those of the fit, or what says that it is resumed.
        out: Where the run goes.
        output: How to tell.
        kwargs: Further arguments of both programs.

    Raises:
        FitError: If the fit had to stop; it says where the last good state is.
    """
    if isinstance(story, Pair) and isinstance(story.guide, AutoGuide):
        output.note(f"the guide is Pyro's {type(story.guide).__name__}")
    indifferent = isinstance(story, Story) and story.takes_units
    if data is not None and not indifferent and (ratio := _scale_ratio(data)) > 100:
        how = (
            "see --standardise"
            if isinstance(story, Story)
            else "bring what is measured near to the priors, though not numbers of groups"
        )
        output.note(f"the columns differ in scale by a factor of {ratio:.0f}: {how}")
    before = _stamp(out)
    try:
        run = pg.fit(
            story,
            data,
            kwargs=kwargs,
            out=out,
            overwrite=output.overwrite,
            checkpoint_seconds=output.checkpoint_seconds,
            checkpoint_epochs=output.checkpoint_epochs,
            devices=output.devices,
            num_nodes=output.num_nodes,
            loggers=output.logger,
            progress=not output.quiet,
            **(asdict(settings) if isinstance(settings, Settings) else settings),
        )
    except FitError as error:
        saved = f", in {shown(out)}" if _stamp(out) != before else ""
        raise FitError(f"{error}{saved}") from error
    except KeyboardInterrupt:
        saved = f"; the last whole epoch is in {shown(out)}" if _stamp(out) != before else ""
        if checkpoint.there(out):
            saved += f"; to go on: ppl-gen fit --resume {shown(out)}{_story_option(story)}"
        raise KeyboardInterrupt(f"interrupted{saved}") from None
    if follows():  # the first process says the rest
        raise SystemExit(0)
    if isinstance(story, Story):
        for name, value in run.story.arguments.items():
            if isinstance(value, int) and isinstance(story.arguments.get(name), str):
                output.note(f"{name}: {value}, as many as the data call for")
    show(summary(run, out))
    return run


def summary(run: Run, out: Path) -> str:
    """How a fit went, and what to type next."""
    last = run.history.epochs[-1]
    valid = [e for e in run.history if not math.isnan(e.valid_elbo)]
    held_out = ""
    chosen = run.settings.chooses_by_validation(run.structure.has_codes)
    if valid and not chosen:
        held_out = f", on validation data {last.valid_elbo:.3f}"
    elif valid:
        best = max(valid, key=lambda e: e.valid_elbo)
        held_out = f", best on validation data {best.valid_elbo:.3f} (epoch {best.epoch})"
    return (
        f"{shown(out)}: {last.epoch} epochs in {last.seconds:.1f} s, "
        f"{run.headline.replace('a datum', 'a row')}{held_out}\n"
        f"next: ppl-gen check {shown(out)}{_story_option(run.pair)}"
    )


def _story_option(story: Any) -> str:
    """What a command has to be told of a story besides its run: the file it is in, if it is."""
    origin = story.origin if isinstance(story, Pair) else None
    return "" if origin is None else f" --story {shown(Path(origin['file']))}"


def _stamp(out: Path) -> tuple[int, int] | None:
    try:
        status = (out / disk.RECORD).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _story_of(
    config: Path, recorded: Mapping[str, Any], file: Path | None, data: Dataset | None
) -> Story | Pair:
    if "class" in recorded:
        if file is not None:
            raise RunError(f"{str(config)!r} is of {recorded['class']}: leave --story out")
        return from_configuration(recorded)  # type: ignore[return-value]
    if "file" not in recorded:
        raise RunError(f"{str(config)!r} is of a story fitted in Python: fit it again there")
    if file is None:
        raise RunError(
            f"{str(config)!r} is of your file {recorded['file']!r}, and a record holds no code: "
            f"give it, --story {recorded['file']}"
        )
    pair = read_story_file(file, data, story_arguments(recorded))
    if pair.origin is not None and pair.origin["sha256"] != recorded.get("sha256"):
        note(f"{str(file)!r} has changed since the run was fitted")
    return pair


def settings_of(options: Any) -> Settings:
    """The settings that options ask for, on a device that is there.

    Raises:
        FitError: If a value is out of its range.
    """
    try:
        settings = options if isinstance(options, Settings) else Settings(**values_of(options))
        settings.torch_device()
    except (TypeError, ValueError) as error:
        raise FitError(str(error)) from error
    return settings


def parsed_options(
    program: str, description: str, arguments: list[str], groups: Mapping[str, type]
) -> Any:
    """Read the options of a fit: those of the story, and the three groups all fits have."""
    return parsed_groups(program, description, arguments, all_groups(groups))


def parsed_groups(
    program: str, description: str, arguments: list[str], every: Mapping[str, type]
) -> Any:
    """Read groups of options, none of which shows its name."""
    cls = make_dataclass("Arguments", [(name, Omit[group]) for name, group in every.items()])
    arguments = folded(arguments, specified(*every.values()))
    return tyro.cli(cls, prog=program, description=description, args=arguments, config=MARKERS)


def all_groups(groups: Mapping[str, type]) -> dict[str, type]:
    """Groups of options, and the three that all fits have."""
    return {**groups, "data": Source, "fit": options_of(Settings), "output": Output}


def example_of(*groups: type) -> str:
    """A part and an argument of it, as they are typed."""
    if "prior" in specified(*groups):
        return "--prior mixture --prior.components 50"
    return "--optimizer sgd --optimizer.momentum 0.9"


def group_of(name: str) -> str:
    """The name of a story as that of a group of options."""
    return name.replace("-", "_")
