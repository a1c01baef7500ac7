"""What the tests of the command line share: a small run, and one way to run commands."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli_support import SMALL, Command, Said

from ppl_gen.cli import main


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the command line in a directory of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Said:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Said(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def _digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "digits"
    data = ("--data", "digits", "--binarise", "redraw")
    assert main(["fit", "vae", *data, *SMALL, "--out", str(path), "--quiet"]) == 0
    return path


@pytest.fixture
def digits_run(_digits_run: Path, tmp_path: Path) -> Path:
    """A run of a small VAE on digits, to read and to change."""
    return Path(shutil.copytree(_digits_run, tmp_path / "digits"))


@pytest.fixture
def rows_csv(tmp_path: Path) -> Path:
    """A table of three columns and a label."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 3, generator=generator).tolist()
    lines = [",".join(f"{x:.4f}" for x in row) + f",{i % 2}" for i, row in enumerate(rows)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["a,b,c,kind", *lines]) + "\n")
    return path
