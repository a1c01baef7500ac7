"""What the README tells a newcomer to type works."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


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


def test_the_first_example_runs_twice(tmp_path: Path) -> None:
    for _ in range(2):
        assert "verdict:" in run(BLOCKS[0], tmp_path)

    assert (tmp_path / "runs" / "first" / "run.json").is_file()


def test_the_own_story_and_the_tree_for_arviz_run(tmp_path: Path) -> None:
    """The second builds on the first, as a reader would type them."""
    said = run("\n".join(BLOCKS[1:]), tmp_path)

    assert "verdict:" in said
    assert "weight[0]" in said
