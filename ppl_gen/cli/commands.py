"""What can be asked of a run, and a story to start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

import ppl_gen as pg
from ppl_gen.cli import pictures
from ppl_gen.cli.console import complain, note, show, shown
from ppl_gen.cli.sources import Input, Unset
from ppl_gen.cli.template import write_template
from ppl_gen.data import Dataset, Part
from ppl_gen.errors import DataError, RunError
from ppl_gen.inference import Run, Verdict, disk
from ppl_gen.inference.checks import Level
from ppl_gen.inference.files import write_file


def check(
    fitted: Input,
    level: Level = "quick",
    draws: int = 1000,
    budget: float = 120.0,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Say whether a run may be believed.

    Prints a table of checks, each with its figure and what follows from it, and puts the verdict
    into the run. The exit status is 1 if something fails, 0 otherwise. After an interrupt (Ctrl-C)
    it is 130; what was checked until then is shown and kept.

    Examples:
        ppl-gen check runs/a
        ppl-gen check runs/b --story my_story.py --data new.csv
        ppl-gen check runs/a --json > verdict.json

    Args:
        level: How much is asked for: quick, or full for everything.
        draws: Draws of the guide for each row.
        budget: Seconds that refits may take, at level full.
        seed: Of the draws.
        json: Print JSON instead of a table.
    """
    at_least_one("draws", draws)
    run = fitted.open()
    data = fitted.dataset(run)
    rows = fitted.rows(run, data, "checking")
    options: dict[str, Any] = {
        "level": level,
        "budget": budget,
        "train": fitted.train(run, data),
        "test": None if data is None else data.test,
        "row_numbers": source_rows(data, rows),
    }
    before = run.verdict
    try:
        verdict = make_verdict(fitted.run, run, rows, draws, seed, **options)
    except KeyboardInterrupt:
        if run.verdict is not None and run.verdict is not before:
            show_verdict(run.verdict, json)
        raise
    conclude(verdict, json)


def make_verdict(
    path: Path, run: Run, rows: Part | None, draws: int = 1000, seed: int = 0, **options: Any
) -> Verdict:
    """Check a run, and put the verdict into it in memory and on disk.

    After an interrupt that is what was checked until then, if anything was.
    """
    before = run.verdict
    try:
        verdict = pg.check(run, rows, draws=draws, seed=seed, **options)
    except KeyboardInterrupt:
        if run.verdict is not None and run.verdict.answers:
            _keep_verdict(run, path)
        else:
            run.verdict = before
        raise
    _keep_verdict(run, path)
    return verdict


def _keep_verdict(run: Run, path: Path) -> None:
    """Put a verdict into the run, or say that it cannot be, as into one of somebody else."""
    try:
        disk.save_verdict(run, path)
    except RunError as error:
        complain(f"note: the verdict is not kept: {error}")


def show_verdict(verdict: Verdict, json: bool) -> None:
    """Print a verdict as a table or as JSON."""
    show(verdict.to_json().rstrip() if json else verdict)


def conclude(verdict: Verdict, json: bool) -> None:
    """Print a verdict.

    Raises:
        SystemExit: With status 1, if something fails.
    """
    show_verdict(verdict, json)
    if verdict.status == "fail":
        raise SystemExit(1)


def sample(
    fitted: Input,
    rows: int = 16,
    seed: int = 0,
    out: Annotated[Path | None, Unset] = None,
    overwrite: bool = False,
) -> None:
    """Draw latents and observations from a fitted story.

    Examples:
        ppl-gen sample runs/a
        ppl-gen sample runs/a --rows 64 --out digits.png

    Args:
        rows: How many observations.
        seed: Of the draws.
        out: A .npz file of one array a site, or a .png grid if an observation is an image; by
            default samples.npz in the directory of the run.
        overwrite: Replace a file that is there already.
    """
    at_least_one("rows", rows)
    target = target_file(out, overwrite, fitted.run / "samples.npz", (".npz", ".png"))
    run = fitted.open()
    conditions = None
    if len(run.data.columns) > 1:
        part = fitted.rows(run, fitted.dataset(run), "conditioning")
        assert part is not None
        if len(part) < rows:
            raise DataError(f"rows must be at most {len(part)} here, got {rows}")
        conditions = part[:rows]
    drawn = {name: value.cpu() for name, value in run.sample(rows, seed, conditions).items()}
    as_picture = target.suffix == ".png"
    write_file(
        target, pictures.picture(run.structure, drawn) if as_picture else pictures.arrays(drawn)
    )
    shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in drawn.items())
    show(f"{shown(target)}: {shapes}")


def posterior(
    fitted: Input,
    draws: int = 1000,
    seed: int = 0,
    out: Annotated[Path | None, Unset] = None,
    overwrite: bool = False,
) -> None:
    """Write draws of the posterior, in ArviZ's schema.

    Examples:
        ppl-gen posterior runs/a --out post.nc
        ppl-gen posterior runs/a --draws 200 --part train --out post.zarr

    Args:
        draws: Draws of each latent, for each row.
        seed: Of the draws.
        out: A .nc or .zarr path; by default posterior.nc in the directory of the run.
        overwrite: Replace what is there already.
    """
    at_least_one("draws", draws)
    target = target_file(out, overwrite, fitted.run / "posterior.nc", (".nc", ".zarr"))
    run = fitted.open()
    rows = fitted.rows(run, fitted.dataset(run), "drawing")
    tree = run.posterior(rows, draws, out=target, seed=seed)
    groups = ", ".join(sorted(tree.children))
    tree.close()
    show(f"{shown(target)}: {draws} draws a row, groups {groups}")


def report(
    fitted: Input,
    seed: int = 0,
    out: Annotated[Path | None, Unset] = None,
    overwrite: bool = False,
) -> None:
    """Write a page with figures on a run; checks it first if that was not done yet.

    Examples:
        ppl-gen report runs/a
        ppl-gen report runs/a --out report.html

    Args:
        seed: Of the draws.
        out: A .html file; by default report.html in the directory of the run.
        overwrite: Replace a file that is there already.
    """
    target = target_file(out, overwrite, fitted.run / "report.html", (".html",))
    run = fitted.open()
    data = fitted.dataset(run)
    rows = fitted.rows(run, data, "reporting")
    labels = None if data is None else data.label_names
    numbers = source_rows(data, rows)
    show(f"report: {shown(make_report(fitted.run, run, rows, labels, target, seed, numbers))}")


def make_report(
    path: Path,
    run: Run,
    rows: Part | None,
    label_names: Sequence[str] | None,
    target: Path,
    seed: int = 0,
    row_numbers: Tensor | None = None,
) -> Path:
    """Write the report of a run, after a check if there was none."""
    from ppl_gen.report import write_report

    if run.verdict is None:
        note("the run has not been checked yet: checking it first")
        make_verdict(path, run, rows, seed=seed)
    return write_report(
        run, target, rows, label_names=label_names, row_numbers=row_numbers, seed=seed
    )


def source_rows(data: Dataset | None, part: Part | None) -> Tensor | None:
    """Which row of the source each row of a part, or of all of them joined, is; None if unknown."""
    if data is None or part is None or data.rows is None:
        return None
    own = [rows for rows, held in zip(data.rows, data.parts, strict=True) if held is part]
    return own[0] if own else torch.cat(data.rows)


def new(file: tyro.conf.Positional[Path]) -> None:
    """Write a small story to start from, and its test.

    Examples:
        ppl-gen new my_story.py

    Args:
        file: The story file to write; its test goes beside it.
    """
    test = write_template(file)
    run = shown(Path("runs", file.stem))
    show(
        f"wrote {shown(file)} and {shown(test)}; next:\n"
        f"  python -m pytest {shown(test)}\n"
        f"  ppl-gen fit {shown(file)} --data wine --out {run}\n"
        f"  ppl-gen check {run} --story {shown(file)}"
    )


def at_least_one(name: str, value: int) -> None:
    """Refuse a number below 1.

    Raises:
        DataError: If it is.
    """
    if value < 1:
        raise DataError(f"{name} must be at least 1, got {value}")


def target_file(out: Path | None, overwrite: bool, usual: Path, kinds: tuple[str, ...]) -> Path:
    """Where to write; what is in the run's own directory may always be replaced.

    Raises:
        RunError: If the path ends otherwise, or something is there already.
    """
    if out is None:
        return usual
    if out.suffix not in kinds:
        raise RunError(f"out must end in {' or '.join(kinds)}, got {out.name!r}")
    if out.exists() and not overwrite:
        raise RunError(f"{str(out)!r} exists: choose another name, or replace it with --overwrite")
    if not out.parent.is_dir():
        raise RunError(f"there is no directory {str(out.parent)!r} to write {out.name!r} to")
    return out
