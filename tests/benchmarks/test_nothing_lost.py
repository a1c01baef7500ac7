"""Kills, damaged files and what checkpoints cost, in a short form."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def said(*arguments: str) -> str:
    """What a benchmark prints, once it has ended well."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_fits_that_are_killed_come_to_the_same_end() -> None:
    told = said("benchmarks/kills.py", "--kills", "5", "--only", "functions")
    assert "0 could not go on, 0 differ" in told


def test_damaged_files_are_read_or_refused() -> None:
    told = said("benchmarks/fuzz.py", "--files", "100")
    assert told.count("100 files changed\n") == 2
