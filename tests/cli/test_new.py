"""``ppl-gen new``: a story to start from, which holds together as it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import Command

import ppl_gen as pg
from ppl_gen.story_file import read_story_file


def test_a_new_story_passes_its_test_with_warnings_as_errors(command: Command) -> None:
    said = command("new", "my-story.py")
    assert said.status == 0
    assert "python -m pytest test_my_story.py\n" in said.out
    assert "ppl-gen fit my-story.py --data " in said.out

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(pg.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-W", "error", "-q", "test_my_story.py"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("name", ["my_story.py", 'it\'s "odd".py', "a.b.py", "ümlaut 1.py"])
def test_a_file_of_any_name_is_followed_by_the_commands_that_were_named(
    name: str, command: Command, rows_csv: Path
) -> None:
    assert command("new", name).status == 0
    (test,) = Path().glob("test_*.py")
    assert test.stem.isidentifier()
    compile(test.read_text(), str(test), "exec")
    fit = command("fit", name, "--data", rows_csv, "--epochs", "1", "--out", "run", "--quiet")
    assert fit.status == 0
    assert command("sample", "run", "--story", name).status == 0


def test_a_new_story_fits_rows_of_any_width_and_unit(command: Command) -> None:
    command("new", "s.py")
    for name in ("iris", "wine", "digits"):
        data = pg.data.load(name)
        run = pg.fit(read_story_file("s.py", data), data, epochs=3, progress=False)
        elbo = run.history["elbo"]
        assert elbo[-1] > elbo[0]


@pytest.mark.parametrize("taken", ["s.py", "test_s.py"])
def test_new_replaces_nothing(taken: str, command: Command) -> None:
    Path(taken).write_text("mine")
    said = command("new", "s.py")
    assert said.status == 2
    assert said.complaint == f"'{taken}' exists already: choose another name"
    assert [path.read_text() for path in Path().iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("story", "a story file must end in .py, got 'story'"),
        ("no/s.py", "there is no directory 'no' to write 's.py' to"),
    ],
)
def test_a_name_that_will_not_do_is_refused(name: str, sentence: str, command: Command) -> None:
    said = command("new", name)
    assert (said.status, said.complaint) == (2, sentence)
    assert not list(Path().iterdir())
