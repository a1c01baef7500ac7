"""The entry point: from arguments to a command, from errors to one sentence."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tyro.extras import subcommand_cli_from_dict

from ppl_gen.cli import commands, fitting
from ppl_gen.cli.console import complain
from ppl_gen.cli.options import MARKERS
from ppl_gen.errors import PplGenError

COMMANDS = {
    "fit": fitting.fit,
    "check": commands.check,
    "sample": commands.sample,
    "posterior": commands.posterior,
    "report": commands.report,
    "new": commands.new,
    "list": commands.list_names,
    "demo": fitting.demo,
}
DESCRIPTION = """Write the story of your data; ppl-gen fits it and says whether to trust the posterior.

Examples:
    ppl-gen demo
    ppl-gen fit vae --data digits --binarise redraw --out runs/a
    ppl-gen check runs/a
    ppl-gen report runs/a
    ppl-gen new my_story.py

Each command explains itself: ppl-gen fit --help"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the name of the program; those of the process unless given.

    Returns:
        The exit status: 0 if all went well, 2 after a mistake, which one sentence on the standard
        error names, 130 after an interrupt, 141 if nobody reads the output any more.
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
    if given == ["--version"]:
        from ppl_gen import __version__

        print(f"ppl-gen {__version__}")
    elif given[0] == "fit":
        fitting.run_fit(given[1:])
    else:
        subcommand_cli_from_dict(
            COMMANDS, prog="ppl-gen", description=DESCRIPTION, args=given, config=MARKERS
        )


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
