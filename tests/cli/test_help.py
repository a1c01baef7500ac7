"""Finding one's way: help, names, versions, and what is said of a command that there is not."""

import subprocess
import sys

import pytest
from cli_support import Command

import ppl_gen as pg
from ppl_gen.cli.app import COMMANDS
from ppl_gen.data import CATALOGUE
from ppl_gen.likelihoods import LIKELIHOODS
from ppl_gen.models import STORIES
from ppl_gen.posteriors import POSTERIORS
from ppl_gen.priors import PRIORS


def test_the_overview_names_every_command_with_and_without_help(command: Command) -> None:
    alone, asked = command(), command("--help")
    assert alone == asked
    assert alone.status == 0
    assert "ppl-gen fit vae --data digits" in alone.out
    for name in COMMANDS:
        assert f"• {name}" in alone.out


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "fit"])
def test_each_command_explains_itself_with_an_example(name: str, command: Command) -> None:
    said = command(name, "--help")
    assert said.status == 0
    assert f"usage: ppl-gen {name}" in said.out
    assert f"\n    ppl-gen {name}" in said.out.partition("Examples:")[2]


def test_the_help_of_fit_names_every_story(command: Command) -> None:
    said = command("fit", "--help")
    assert said == command("fit")
    assert said.status == 0
    assert "ppl-gen fit --config runs/a/run.json" in said.out
    for name in STORIES:
        assert f"• {name} " in said.out


@pytest.mark.parametrize("name", STORIES)
def test_each_story_has_its_own_options_and_those_of_a_fit(name: str, command: Command) -> None:
    said = command("fit", name, "--help")
    assert said.status == 0
    assert f"\n    ppl-gen fit {name} --data digits" in said.out
    for option in ("--data", "--binarise", "--epochs", "--seed", "--device", "--out", "--quiet"):
        assert f"{option} " in said.out
    assert "--shape" not in said.out
    assert "``" not in said.out
    assert ":func:" not in said.out


def test_options_of_a_story_are_explained_from_its_docstring(command: Command) -> None:
    said = command("fit", "vae", "--help")
    assert "--latent INT" in said.out
    assert "Size of the latent code. (default: 8)" in said.out
    assert "z ~ prior()" in said.out


def test_the_version_is_the_packages(command: Command) -> None:
    assert command("--version").out == f"ppl-gen {pg.__version__}\n"


def test_list_names_everything_there_is_with_a_line_each(command: Command) -> None:
    said = command("list")
    assert said.status == 0
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.startswith("  ")}
    for names in (STORIES, CATALOGUE, PRIORS, LIKELIHOODS, POSTERIORS):
        for name in names:
            assert len(lines[name].split()) > 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("chekc",), "there is no command 'chekc': did you mean check?"),
        (("xyz",), "there is no command 'xyz': there are fit, check, "),
        (("fit", "vea"), "there is no story 'vea', and it is no .py file: did you mean vae?"),
        (("fit", "--data", "digits"), "name the story before its options, as in: ppl-gen fit vae"),
    ],
)
def test_a_name_that_is_unknown_is_answered_with_the_nearest(
    arguments: tuple[str, ...], sentence: str, command: Command
) -> None:
    said = command(*arguments)
    assert said.status == 2
    assert said.complaint.startswith(sentence)


def test_an_unknown_option_is_answered_with_the_nearest(command: Command) -> None:
    said = command("fit", "vae", "--epohcs", "3")
    assert said.status == 2
    assert "--epochs" in said.err


def test_help_and_list_import_nothing_heavy() -> None:
    code = (
        "import sys; from ppl_gen.cli import main\n"
        "for arguments in (['--help'], ['list'], ['fit', 'vae', '--help']):\n"
        "    assert main(arguments) == 0\n"
        "heavy = {'torchvision', 'sklearn', 'matplotlib', 'arviz', 'pandas', 'xarray', 'PIL',"
        " 'torch._dynamo'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_output_that_nobody_reads_ends_quietly() -> None:
    """As in ``ppl-gen list | head -1``."""
    with subprocess.Popen(
        [sys.executable, "-m", "ppl_gen", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read()
    assert process.returncode == 141
    assert complaint == b""
