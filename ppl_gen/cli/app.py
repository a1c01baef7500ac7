"""The entry point: from arguments to a command, from errors to one sentence."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ppl_gen as pg
from ppl_gen.cli import commands, comparing, conditional, doctoring, fitting, predicting, sweeping
from ppl_gen.cli.console import complain, show
from ppl_gen.cli.demo import demo
from ppl_gen.cli.listing import list_names
from ppl_gen.cli.options import first_line, nearest, run_command, show_choices
from ppl_gen.errors import PplGenError

COMMANDS = {
    "fit": fitting.fit,
    "check": commands.check,
    "doctor": doctoring.doctor,
    "compare": comparing.compare,
    "sweep": sweeping.run_sweep,
    "predict": predicting.predict,
    "sample": commands.sample,
    "redraw": conditional.redraw,
    "complete": conditional.complete,
    "posterior": commands.posterior,
    "report": commands.report,
    "new": commands.new,
    "list": list_names,
    "demo": demo,
}
# What these take depends on the story that is named.
BY_STORY = ("doctor", "fit", "compare", "sweep")
HELP = """Write the story of your data; ppl-gen fits it and says whether to trust it.

Examples:
    ppl-gen demo
    ppl-gen doctor my_story.py --data measurements.csv
    ppl-gen fit vae --data digits --binarise redraw --out runs/a
    ppl-gen check runs/a
    ppl-gen compare ppca --data wine --standardise --vary latent=1:6
    ppl-gen sweep vae --data digits --space space.toml
    ppl-gen report runs/a
    ppl-gen new my_story.py

Each command explains itself, as in: ppl-gen fit --help"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the name of the program; those of the process unless given.

    Returns:
        The exit status: 0 if all went well, 1 if the doctor finds a fault or a check fails, 2 after
        a mistake, which one sentence on the standard error names, 130 after an interrupt, 141 if
        nobody reads the output any more.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _warnings_in_one_line():
            _run(given or ["--help"])
            sys.stdout.flush()
    except PplGenError as error:
        complain(_one_line(error))
        return 2
    except KeyboardInterrupt as interrupt:
        complain(str(interrupt) or "interrupted")
        return 130
    except BrokenPipeError:
        # Python flushes the standard output once more when it ends, which would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def _run(given: list[str]) -> None:
    first, *rest = given
    if given == ["--version"]:
        show(f"ppl-gen {pg.__version__}")
    elif first in BY_STORY:
        COMMANDS[first](rest)
    elif first in COMMANDS:
        run_command(COMMANDS[first], f"ppl-gen {first}", rest)
    elif first in ("-h", "--help"):
        show_choices("ppl-gen", HELP, {name: first_line(run) for name, run in COMMANDS.items()})
    else:
        raise PplGenError(f"there is no command {first!r}: {nearest(first, COMMANDS)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show warnings that are meant for users, and only those, as sentences."""

    def sentence(message: Warning | str, *where: Any, **more: Any) -> None:
        complain(f"note: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        for library in ("torch", "pyro", "arviz", "xarray", "matplotlib", "tyro"):
            warnings.filterwarnings("ignore", module=rf"{library}\b")
        warnings.showwarning = sentence
        yield
