"""``ppl-gen demo``: a first story, fitted, checked and reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ppl_gen.cli.commands import make_report, make_verdict
from ppl_gen.cli.console import note, show, shown
from ppl_gen.cli.fitting import Output, built, fit_and_tell
from ppl_gen.data import Dataset, load
from ppl_gen.errors import RunError
from ppl_gen.inference import Settings, disk
from ppl_gen.story import Story

STORY = {"latent": 8, "prior": "mixture", "likelihood": "bernoulli", "posterior": "full"}
SETTINGS: dict[str, Any] = {
    "epochs": 400,
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "device": "cpu",
}


def demo(out: Path = Path("runs/demo"), overwrite: bool = False) -> None:
    """Fit a first story, check it and write its report: a VAE of handwritten digits.

    Examples:
        ppl-gen demo

    Args:
        out: A directory for the run; an earlier demo there is replaced.
        overwrite: Replace another run that is there.
    """
    data = load("digits", binarise="redraw")
    story, data = built("vae", STORY, data, note)
    output = Output(out, overwrite or _is_demo(out, story, data))
    disk.check_target(out, output.overwrite)
    options = ", ".join(f"{name} {value}" for name, value in STORY.items())
    note(f"fitting a VAE ({options}) to 8 x 8 digits, drawn anew as 0 and 1 at every visit")
    with _one_thread():
        run = fit_and_tell(story, data, Settings(**SETTINGS), out, output)
        note("checking it on digits it has not seen")
        show(make_verdict(out, run, data.test))
        report = make_report(out, run, data.test, data.label_names, out / "report.html")
    show(f"report: {shown(report)}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread.

    Steps this small gain nothing from more, and where other programs keep the cores busy, threads
    that wait for each other were seen to take 20 times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _is_demo(out: Path, story: Story, data: Dataset) -> bool:
    """Whether a demo was run here before, so that nothing else is lost."""
    if not (out / disk.RECORD).is_file():
        return False
    try:
        record = disk.read_record(out)
    except RunError:
        return False
    # What the fit fills in is not compared.
    settings = {k: v for k, v in asdict(Settings(**SETTINGS)).items() if v is not None}
    return (
        record["story"] == _plain(story.configuration)
        and record["data"]["source"] == _plain(dict(data.source))
        and {k: v for k, v in record["settings"].items() if k in settings} == settings
    )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
