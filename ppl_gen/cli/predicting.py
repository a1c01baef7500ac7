"""``ppl-gen predict``: the class or component of every row, as a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated

import torch

from ppl_gen.cli.commands import target_file
from ppl_gen.cli.console import note, show, shown
from ppl_gen.cli.sources import Input, Unset
from ppl_gen.data import Dataset, Part, concat
from ppl_gen.errors import StoryError
from ppl_gen.inference.files import write_file


def predict(
    fitted: Input,
    out: Annotated[Path | None, Unset] = None,
    overwrite: bool = False,
) -> None:
    """Write the most probable class or component of every row, and the probability of each.

    All rows are taken, in the order in which they stand in the file, unless --part chooses some.

    Examples:
        ppl-gen predict runs/clusters --out labels.csv
        ppl-gen predict runs/few --part test

    Args:
        out: A .csv file; by default predicted.csv in the directory of the run.
        overwrite: Replace a file that is there already.
    """
    target = target_file(out, overwrite, fitted.run / "predicted.csv", (".csv",))
    run = fitted.open()
    probabilities = getattr(run.story, "predict_proba", None)
    data = fitted.dataset(run)
    if probabilities is None or data is None:
        raise StoryError(
            "the story has no classes or components to predict: gmm and m2 have, or a story of "
            "your own with a method predict_proba(x)"
        )
    part, rows = _chosen(data, fitted.part)
    note(f"predicting {len(part)} rows of {data.name!r}")
    x = part.fixed(run.settings.seed).in_memory().x.to(run.device)
    found = probabilities(x).cpu()
    order = rows.argsort()
    counted = getattr(run.story, "exchangeable", None)  # components have no names
    names = list(data.label_names or ()) if counted is None else []
    titles = names if len(names) == found.shape[1] else [str(k) for k in range(found.shape[1])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "predicted", *(f"p({title})" for title in titles)])
    for i in order.tolist():
        best = titles[int(found[i].argmax())]
        writer.writerow([int(rows[i]), best, *(f"{p:.6g}" for p in found[i].tolist())])
    write_file(target, text.getvalue().encode())
    show(f"{shown(target)}: {len(part)} rows, {found.shape[1]} probabilities each")


def _chosen(data: Dataset, name: str | None) -> tuple[Part, torch.Tensor]:
    """Rows of a part, or all, and which rows of the source they are."""
    names = ("train", "valid", "test")
    chosen = [i for i, part in enumerate(names) if name in (None, "all", part)]
    parts = [data.parts[i] for i in chosen]
    whole = concat(*parts)
    if data.rows is None:
        return whole, torch.arange(len(whole))
    return whole, torch.cat([data.rows[i] for i in chosen])
