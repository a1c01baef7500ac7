"""The package as others get it: what is in the wheel, and what importing it does."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python(code: str) -> str:
    """Run a line in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_changes_no_global_state() -> None:
    """Validation flags, settings, parameter store, default type and generators."""
    state = (
        "(pyro.infer.is_validation_enabled(), pyro.distributions.is_validation_enabled(), "
        "pyro.settings.get(), len(pyro.get_param_store()), torch.get_default_dtype(), "
        "torch.get_num_threads(), torch.is_grad_enabled(), torch.initial_seed(), "
        "torch.random.get_rng_state().sum().item(), random.getstate(), "
        "numpy.random.get_state()[1].sum(), warnings.filters[:3])"
    )
    code = (
        "import torch, pyro, random, numpy, warnings; import pyro.infer; "
        f"torch.manual_seed(3); random.seed(3); numpy.random.seed(3); before = {state}; "
        "import ppl_gen, ppl_gen.models, ppl_gen.inference; "
        f"after = {state}; print(before == after)"
    )

    assert python(code) == "True"


def test_importing_takes_no_more_than_torch_and_pyro_do() -> None:
    heavy = ("arviz", "xarray", "sklearn", "matplotlib", "torchvision", "pandas", "tyro", "zarr")
    code = (
        "import torch, pyro, pyro.infer.autoguide, sys; before = set(sys.modules); "
        "import ppl_gen, ppl_gen.models; "
        "print([m for m in sorted(set(sys.modules) - before) if m.split('.')[0] in "
        f"{heavy!r}])"
    )

    assert python(code) == "[]"


def tracked(*folders: str) -> list[str]:
    """The files git knows of."""
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: the tracked files are unknown")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that neither leaves anything in the other."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked("."):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_every_tracked_module_and_nothing_else(wheel: Path) -> None:
    expected = {
        name if name.startswith("ppl_gen/") else f"ppl_gen/{name}"
        for name in tracked("ppl_gen", "models", "inference")
        if not (ROOT / name).is_symlink()
    }

    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert held == expected


def test_stories_and_engine_know_only_what_they_may() -> None:
    """A story imports the vocabulary; the engine receives a story and imports none."""
    for path in (ROOT / "models").glob("*.py"):
        assert "ppl_gen.inference" not in path.read_text(), path.name
    for path in (ROOT / "inference").glob("*.py"):
        text = path.read_text()
        assert "ppl_gen.models" not in text, path.name
        assert not any(f"import {part}" in text for part in ("VAE", "PPCA")), path.name


def test_the_doctests_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--doctest-modules", "-q", "-p", "no:cacheprovider",
         "ppl_gen/__init__.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
