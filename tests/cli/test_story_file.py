"""Reading a user's story file: what counts as a story, and what is said when there is none."""

import hashlib
import os
import sys
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import ppl_gen as pg
from ppl_gen.errors import StoryError
from ppl_gen.story_file import read_story_file

HEAD = """
import pyro, torch
import pyro.distributions as dist
import ppl_gen as pg
"""
MODEL = """
def model(x):
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(m, 1.0).expand([3]).to_event(1), obs=x)
"""
GUIDE = """
def guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    pyro.sample("m", dist.Normal(loc, 0.5))
"""
CLASS = """
class Mean(pg.Story):
    def __init__(self, ARGUMENTS):
        super().__init__()
        self.shape = SHAPE
        self.loc = torch.nn.Parameter(torch.tensor(0.0))

    def model(self, x):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(m, 1.0).expand([3]).to_event(1), obs=x)

    def guide(self, x):
        pyro.sample("m", dist.Normal(self.loc, 0.5))
"""
PLAIN_CLASS = CLASS.replace("ARGUMENTS", "").replace("SHAPE", "None")
SHAPED_CLASS = CLASS.replace("ARGUMENTS", "shape").replace("SHAPE", "shape")

TELLS = {
    "model and guide": MODEL + GUIDE,
    "model and the name of an autoguide": MODEL + "guide = 'AutoDelta'",
    "model alone": MODEL,
    "a pair": MODEL + GUIDE + "story = (model, guide)",
    "a class without arguments": PLAIN_CLASS,
    "a class that asks for the shape": SHAPED_CLASS,
    "an object": PLAIN_CLASS + "story = Mean()",
    "a class by name": PLAIN_CLASS + "class Other(Mean): pass\nstory = Other",
    "a function of the data": SHAPED_CLASS + "def story(data): return Mean(data.shape)",
    "a function of nothing": MODEL + GUIDE + "def story(): return model, guide",
    "an abstract class beside": (
        "class Base(pg.Story):\n    def twice(self): pass\n" + PLAIN_CLASS
    ),
    "a story of ppl-gen": "from ppl_gen.models import PPCA\ndef story(data):\n"
    "    return PPCA(data.shape, latent=1)",
}


@pytest.fixture
def data() -> pg.data.Dataset:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    rows = pg.data.Part((x,))
    return pg.data.Dataset("made up", pg.data.Support.REAL, rows[:20], rows[20:30], rows[30:])


def written(folder: Path, text: str, name: str = "my_story.py") -> Path:
    path = folder / name
    path.write_text(HEAD + text)
    return path


@pytest.mark.parametrize("kind", TELLS)
def test_what_tells_a_story_can_be_fitted_and_knows_its_file(
    kind: str, tmp_path: Path, data: pg.data.Dataset
) -> None:
    path = written(tmp_path, TELLS[kind])
    story = read_story_file(path, data)

    run = pg.fit(story, data, epochs=1, progress=False)

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert run.pair.origin == {"file": str(path), "sha256": digest}
    assert run.configuration() == run.pair.origin


def test_without_a_guide_pyro_writes_one(tmp_path: Path) -> None:
    assert isinstance(read_story_file(written(tmp_path, MODEL)).guide, AutoNormal)


WRONG = {
    "no .py": ("story.txt", "", "a story file must end in .py, got"),
    "a syntax error": ("s.py", "def model(:\n    pass", "s.py, line 5: "),
    "an error": ("s.py", "\nraise KeyError('a')", "s.py, line 6, raised KeyError: 'a'"),
    "an exit": ("s.py", "raise SystemExit", "s.py, line 5, raised SystemExit"),
    "nothing": ("s.py", "x = 1", "s.py tells no story: define story, or model and guide"),
    "a number": ("s.py", "story = 3", "story in s.py must be a story, a pair (model, guide), or"),
    "a bad guide": ("s.py", MODEL + "guide = 'AutoNone'", "s.py: the guide must be one of Pyro's"),
    "two classes": (
        "s.py",
        PLAIN_CLASS + "class Other(Mean): pass",
        "s.py defines Mean, Other: say which by story = Other",
    ),
    "unknown arguments": (
        "s.py",
        CLASS.replace("ARGUMENTS", "depth").replace("SHAPE", "None"),
        "Mean in s.py asks for depth: define story = Mean(...), or a function story(data)",
    ),
    "an error in story()": (
        "s.py",
        "def story(data):\n    return 1 / 0",
        "s.py, line 6, raised ZeroDivisionError: division by zero",
    ),
    "a story() that gives no story": (
        "s.py",
        "def story(data):\n    return 1",
        "s.py: a story must have .model and .guide",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_tells_no_story_is_refused_in_one_sentence(
    kind: str, tmp_path: Path, data: pg.data.Dataset
) -> None:
    name, text, sentence = WRONG[kind]
    with pytest.raises(StoryError) as caught:
        read_story_file(written(tmp_path, text, name), data)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [SHAPED_CLASS, "def story(data): return None"])
def test_a_story_that_asks_for_data_says_how_to_name_them(text: str, tmp_path: Path) -> None:
    with pytest.raises(StoryError, match="with --data"):
        read_story_file(written(tmp_path, text))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoryError, match=r"there is no story file '.*gone\.py'"):
        read_story_file(tmp_path / "gone.py")


def test_a_file_finds_its_neighbours_but_leaves_no_trace(tmp_path: Path) -> None:
    name = f"neighbour_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text("scale = 2.0\n")
    path = written(tmp_path, f"from {name} import scale\n" + PLAIN_CLASS)
    before = list(sys.path), sys.dont_write_bytecode

    story = read_story_file(path).story

    assert (list(sys.path), sys.dont_write_bytecode) == before
    assert type(story).__module__ in sys.modules
    with pytest.raises(StoryError):
        read_story_file(written(tmp_path, "raise ValueError"))
    assert list(sys.path) == before[0]


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first = read_story_file(written(tmp_path / "a", PLAIN_CLASS + "NAME = 'a'"))
    second = read_story_file(written(tmp_path / "b", PLAIN_CLASS + "NAME = 'b'"))
    names = [sys.modules[type(pair.story).__module__].NAME for pair in (first, second)]
    assert names == ["a", "b"]


def test_what_is_run_is_what_is_hashed_even_after_a_quick_change(tmp_path: Path) -> None:
    """A cache of bytecode beside the file would still be thought fresh here."""
    values = []
    for value in (1, 2):
        path = written(tmp_path, PLAIN_CLASS + f"VALUE = {value}")
        os.utime(path, (0, 0))
        story = read_story_file(path).story
        values.append(sys.modules[type(story).__module__].VALUE)
    assert values == [1, 2]


def test_dataclasses_and_laws_defined_in_the_file_survive_a_copy(
    tmp_path: Path, data: pg.data.Dataset
) -> None:
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        + HEAD
        + "@dataclass\nclass Width:\n    value: float = 1.0\n"
        + PLAIN_CLASS
        + "story = Mean()\nstory.width = Width()\n"
    )
    path = tmp_path / "copied.py"
    path.write_text(text)
    run = pg.fit(read_story_file(path, data), data, epochs=1, progress=False)
    assert isinstance(run.sample(2)["m"], torch.Tensor)
    assert dist.Normal(0.0, 1.0).log_prob(run.sample(2)["m"]).isfinite()
