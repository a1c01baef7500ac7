"""What the README tells a newcomer to type works."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = {
    heading: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for heading, text in re.findall(
        r"^#+ (.*?)\n(.*?)(?=^#+ |\Z)", README, re.DOTALL | re.MULTILINE
    )
}


def run(code: str, folder: Path) -> str:
    """Run code in a fresh interpreter, without windows."""
    if sys.version_info >= (3, 12):
        code = code.replace("arviz.preview", "arviz")
    code = (
        f"import matplotlib\nmatplotlib.use('Agg')\nimport torch\ntorch.set_num_threads(1)\n{code}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def typed(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """What a module does with the words of a command line."""
    return subprocess.run(
        [sys.executable, "-m", *command.split()],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=600,
    )


def test_every_block_of_python_is_tried_here() -> None:
    tried = {
        "ppl-gen",
        "Clusters",
        "Priors",
        "Conditions",
        "Your own story",
        "ArviZ, for any Pyro program",
        "Runs",
    }
    assert {heading for heading, blocks in BLOCKS.items() if blocks} == tried


def test_the_first_example_runs_twice(tmp_path: Path) -> None:
    for _ in range(2):
        assert "verdict:" in run(BLOCKS["ppl-gen"][0], tmp_path)

    assert (tmp_path / "runs" / "first" / "run.json").is_file()


def test_a_fit_that_is_over_is_not_resumed(tmp_path: Path) -> None:
    begin, go_on = BLOCKS["Runs"][0].strip().splitlines()
    before = "import ppl_gen as pg\nfrom ppl_gen.models import PPCA\n"
    before += "x, story = torch.randn(50, 3), PPCA((3,))\n"
    caught = f"try:\n    {go_on}\nexcept pg.RunError as error:\n    print(error)\n"

    said = run(f"{before}{begin.replace('5000', '3')}\n{caught}", tmp_path)

    assert "its fit is over" in said


def test_clusters_are_found(tmp_path: Path) -> None:
    code = "\n".join(["import ppl_gen as pg", *BLOCKS["Clusters"]])
    assert "learning_rate=0.01" in code
    said = run(code.replace("learning_rate=0.01", "epochs=500"), tmp_path)

    assert "tensor" in said


def test_a_prior_of_ones_own_is_fitted_checked_sampled_and_reported(tmp_path: Path) -> None:
    heart, contract = BLOCKS["Priors"]
    (tmp_path / "heart.py").write_text(heart)
    (tmp_path / "test_heart.py").write_text(f"from heart import Heart\n{contract}")
    for command in (
        "pytest -q test_heart.py",
        "ppl_gen fit heart.py --data digits --epochs 3 --out runs/heart",
        "ppl_gen check runs/heart --story heart.py --draws 50",
        "ppl_gen sample runs/heart --story heart.py",
        "ppl_gen report runs/heart --story heart.py",
    ):
        done = typed(command, tmp_path)
        # What was fitted for three epochs may fail its checks, and check then says so.
        well = (0, 1) if " check " in command else (0,)
        assert done.returncode in well, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "runs" / "heart" / "report.html").is_file()
    assert len(heart.splitlines()) < 20


def test_conditions_are_changed_and_seen_parts_completed(tmp_path: Path) -> None:
    code = "\n".join(["import ppl_gen as pg", *BLOCKS["Conditions"]])
    code += "\nprint(tuple(redrawn.shape), tuple(completion.draws.shape))"

    assert "(5, 10, 1, 8, 8) (50, 5, 1, 8, 8)" in run(code, tmp_path)


def test_the_own_story_and_the_tree_for_arviz_run(tmp_path: Path) -> None:
    """The second builds on the first, as a reader would type them."""
    blocks = [BLOCKS["Your own story"][0], *BLOCKS["ArviZ, for any Pyro program"]]
    said = run("\n".join(blocks), tmp_path)

    assert "verdict:" in said
    assert "weight[0]" in said
    assert (tmp_path / "story.html").is_file()


def test_a_table_is_fitted_by_commands_and_what_the_story_lacks_is_named(tmp_path: Path) -> None:
    """Schools have slopes of their own, of which the story knows nothing."""
    (tmp_path / "scores.py").write_text(BLOCKS["Your own story"][1])
    chance = np.random.default_rng(0)
    hours, school = chance.normal(size=300), np.arange(300) % 8
    score = 1.5 * (school % 2) * hours + chance.normal(size=300)
    rows = [f"{h:.4f},{s},{y:.4f}" for h, s, y in zip(hours, school, score, strict=True)]
    (tmp_path / "scores.csv").write_text("\n".join(["hours,school,score", *rows]) + "\n")
    said = ""
    for command in (
        "fit scores.py --data scores.csv --target score --learning-rate 0.02 --epochs 200 "
        "--out runs/scores",
        "check runs/scores --story scores.py",
        "report runs/scores --story scores.py",
    ):
        done = typed(f"ppl_gen {command}", tmp_path)
        assert done.returncode == int(command.startswith("check")), done.stdout + done.stderr
        said += " ".join(done.stdout.split())

    assert "Let each school have a slope of its own, by which score follows hours." in said
    assert (tmp_path / "runs" / "scores" / "report.html").is_file()


def test_a_sweep_is_made_checked_and_gone_on_with(tmp_path: Path) -> None:
    text = README.split("## Searching for options")[1].split("\n## ")[0]
    space, commands = re.findall(r"```(?:toml)?\n(.*?)```", text, re.DOTALL)
    (tmp_path / "space.toml").write_text(space)
    told = ""
    for line in commands.strip().splitlines():
        command = line.split("#")[0].replace("digits", "iris").replace("--trials 20", "--trials 2")
        command = command.replace("--trials 40", "--trials 3").replace("--epochs 200", "--epochs 3")
        done = typed(command.replace("ppl-gen", "ppl_gen"), tmp_path)
        well = (0, 1) if " check " in command else (0,)
        assert done.returncode in well, done.stdout + done.stderr
        told = done.stdout
    assert "3 trials" in told
    assert (tmp_path / "runs" / "sweep" / "sweep.html").is_file()
