"""``ppl-gen sweep`` as it is typed: by name and by file, killed and resumed, by two processes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ppl_gen as pg
from ppl_gen.cli import main
from ppl_gen.inference import sweep
from ppl_gen.story_file import read_story_file

pytest.importorskip("optuna")

OWN = """
import pyro, torch
import pyro.distributions as dist

class Mean(torch.nn.Module):
    def __init__(self, shape, width=1.0):
        super().__init__()
        self.width, self.shape = width, shape
        self.loc = torch.nn.Parameter(torch.zeros(shape))

    def model(self, x):
        pyro.module("mean", self)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, self.width))
            pyro.sample("x", dist.Normal(self.loc + z[:, None], 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(x.mean(1), 0.5))
"""


def written(folder: Path, space: str) -> Path:
    (folder / "own.py").write_text(OWN)
    (folder / "space.toml").write_text(space)
    return folder


def test_a_story_of_ones_own_is_searched_killed_and_gone_on_with_by_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, "learning_rate = {low = 1e-3, high = 1e-1, log = true}\n[story]\n"
                      "width = [0.5, 1.0, 2.0]\n")  # fmt: skip
    monkeypatch.chdir(tmp_path)
    command = "sweep own.py --data iris --space space.toml --trials 40 --epochs 60 --out s"
    killed = subprocess.Popen(
        [sys.executable, "-m", "ppl_gen", *command.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    second = tmp_path / "s" / "trials" / "0001.lock"  # which begins once the first is handed in
    while not second.exists() and time.monotonic() < until:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = [t for t in sweep.trials_of(tmp_path / "s") if t.state == "complete"]
    assert before

    assert main(["sweep", "--resume", "s", "--trials", str(len(before) + 3), "--processes=2"]) == 0

    found = sweep.trials_of(tmp_path / "s")
    assert [t for t in found if t.state == "complete"][: len(before)] == before
    assert len(found) == len(before) + 3
    assert not any(t.state in ("running", "failed") for t in found)
    said = capsys.readouterr()
    best = sweep.best_of(found)
    assert best is not None
    assert f"best: trial {best.number}, validation ELBO" in said.out
    assert "next: ppl-gen check s/best --story own.py" in said.out
    told = pg.load("s/best", read_story_file("own.py", pg.data.load("iris"))).configuration()
    assert told["file"] == "own.py"
    assert main(["check", "s/best", "--story", "own.py", "--draws", "50"]) in (0, 1)
    checked = pg.load("s/best", read_story_file("own.py", pg.data.load("iris"), {"width": 2.0}))
    assert checked.verdict is not None
    for name in ("sweep.html", "trials.csv"):
        assert (tmp_path / "s" / name).is_file()


@pytest.mark.parametrize(
    ("space", "more", "sentence"),
    [
        ("latnet = [1, 2]", "", "ppca has no option 'latnet' to search: did you mean latent?"),
        ("latent = [1, 2]", "--latent 3", "latent is searched: leave out --latent"),
        ("latent = [1, 2", "", "is no TOML"),
        ("learning_rate = [-1.0]", "", "learning_rate must be positive, got -1.0"),
        ("latent = [1]", "--trials 0", "trials must be at least 1"),
    ],
)
def test_a_slip_is_found_before_the_first_fit(
    space: str,
    more: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written(tmp_path, space)
    monkeypatch.chdir(tmp_path)
    command = f"sweep ppca --data iris --space space.toml --out s {more}"
    assert main(command.split()) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_an_argument_of_a_part_that_is_searched_goes_with_each_of_its_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, 'prior = ["mixture", "vamp"]')
    monkeypatch.chdir(tmp_path)
    command = "sweep vae --data iris --space space.toml --trials 1 --epochs 1 --quiet --out s"
    assert main([*command.split(), "--prior.components", "3"]) == 0
    assert pg.load("s/best").story.prior.components == 3


def test_what_makes_ones_own_story_is_told_by_options_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, "latent = [1]")
    monkeypatch.chdir(tmp_path)
    fit = "fit own.py --data iris --story.width 2 --epochs 1 --quiet --out a"
    assert main(fit.split()) == 0
    run = pg.load("a", read_story_file("own.py", pg.data.load("iris"), {"width": 2}))
    assert run.configuration()["arguments"] == {"width": 2}
    assert main(["fit", "--config", "a", "--story", "own.py", "--quiet", "--out", "b"]) == 0
    assert main(["sweep", "own.py", "--data", "iris", "--space", "space.toml"]) == 2
    assert "of what makes your story it would be story.latent" in capsys.readouterr().err
    assert main(["fit", "own.py", "--data", "iris", "--story.wdith", "2"]) == 2
    assert "takes no argument 'wdith': it takes width" in capsys.readouterr().err
    (tmp_path / "made.py").write_text(OWN + "\nstory = Mean((4,))\n")
    assert main(["fit", "made.py", "--data", "iris", "--story.width", "2"]) == 2
    assert "must have a function story(data, ...) or a class" in capsys.readouterr().err
