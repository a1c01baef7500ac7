"""What can be asked of the run of a story with a condition."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from ppl_gen.cli import pictures
from ppl_gen.cli.commands import at_least_one, target_file
from ppl_gen.cli.console import show, shown
from ppl_gen.cli.sources import Input, Unset
from ppl_gen.data import Dataset, Part
from ppl_gen.data.images import image as read_image
from ppl_gen.errors import DataError
from ppl_gen.inference import Run
from ppl_gen.inference.files import write_file


def redraw(
    fitted: Input,
    image: Annotated[Path | None, Unset] = None,
    label: Annotated[str | None, Unset] = None,
    centre: bool = False,
    rows: int = 10,
    out: Annotated[Path | None, Unset] = None,
    overwrite: bool = False,
) -> None:
    """Redraw observations under every class: the style kept, the class changed.

    In the picture each row begins with the original.

    Examples:
        ppl-gen redraw runs/cvae --out redrawn.png
        ppl-gen redraw runs/cvae --image my_four.png --label 4 --out mine.png

    Args:
        image: An image of your own; by default rows of the data are redrawn.
        label: The class of that image, by its name or its number.
        centre: Cut what is drawn in that image out and centre it, for runs of MNIST and its like.
        rows: How many rows of the data to redraw.
        out: A .png grid, or a .npz file of arrays; by default redrawn.png in the run.
        overwrite: Replace a file that is there already.
    """
    at_least_one("rows", rows)
    if image is None and (label is not None or centre):
        raise DataError("--label and --centre are of an image of your own: give --image")
    target = target_file(out, overwrite, fitted.run / "redrawn.png", (".png", ".npz"))
    run = fitted.open()
    data = fitted.dataset(run)
    classes = _classes(data)
    if image is not None:
        if label is None:
            raise DataError("an image needs its class to be redrawn under others: give --label")
        x = read_image(image, run.data.columns[0][0], centre=centre)
        y = torch.tensor([_class(label, classes, data)])
    else:
        part = fitted.rows(run, data, "redrawing")
        x, y = _some_of_each(part, rows)
    redrawn = run.redraw((x, y), classes).cpu()
    if target.suffix == ".npz":
        content = pictures.arrays({"x": x, "y": y, "redrawn": redrawn, "classes": classes})
    else:
        cells = torch.cat([x[:, None].to(redrawn), redrawn], 1).flatten(0, 1)
        content = pictures.image_grid(cells, across=1 + len(classes))
    write_file(target, content)
    show(f"{shown(target)}: {len(x)} rows, the original and then {len(classes)} classes each")


def complete(
    fitted: Input,
    rows: int = 10,
    draws: int = 8,
    seed: int = 0,
    out: Annotated[Path | None, Unset] = None,
    overwrite: bool = False,
) -> None:
    """Complete observations of which a part was seen, several times each.

    In the picture each row has the truth, what was seen, the mean completion, and draws.

    Examples:
        ppl-gen complete runs/quadrants --out completed.png

    Args:
        rows: How many rows of the data to complete.
        draws: How many times.
        seed: Of the draws.
        out: A .png grid, or a .npz file of arrays; by default completed.png in the run.
        overwrite: Replace a file that is there already.
    """
    at_least_one("rows", rows)
    at_least_one("draws", draws)
    target = target_file(out, overwrite, fitted.run / "completed.png", (".png", ".npz"))
    run = fitted.open()
    part = fitted.rows(run, fitted.dataset(run), "completing")
    x, mask = _pair(run, part)
    x, mask = x[:rows], mask[:rows].bool()
    found = run.complete(x, mask, draws=max(draws, 100), seed=seed)
    if target.suffix == ".npz":
        kept = {"x": x, "seen": mask, "draws": found.draws[:draws].cpu()}
        content = pictures.arrays({**kept, "mean": found.mean.cpu(), "spread": found.spread.cpu()})
    else:
        # Grey for what was not seen, so that it is neither ink nor ground.
        seen = torch.where(mask, x, torch.full_like(x, 0.5))
        columns = [x, seen, found.mean.cpu(), *found.draws[:draws].cpu()]
        content = pictures.image_grid(torch.stack(columns, 1).flatten(0, 1), across=len(columns))
    write_file(target, content)
    show(f"{shown(target)}: {len(x)} rows: truth, seen, mean completion, {draws} draws")


def _pair(run: Run, part: Part | None) -> tuple[Tensor, Tensor]:
    if part is None or part.y is None:
        raise DataError("the data have no second column, which the story is conditioned on")
    part = part.in_memory()
    return part.fixed(run.settings.seed).x, part.y


def _classes(data: Dataset | None) -> Tensor:
    """The labels that occur in the training data, in order."""
    y = None if data is None else data.train.y
    if y is None or y.is_floating_point() or y.ndim != 1:
        raise DataError("to be redrawn, data must have class labels, which these do not")
    return y[y >= 0].unique()


def _class(label: str, classes: Tensor, data: Dataset | None) -> int:
    names = list(data.label_names or ()) if data is not None else []
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) in classes.tolist():
        return int(label)
    known = ", ".join(names or map(str, classes.tolist()))
    raise DataError(f"label must be one of {known}, got {label!r}")


def _some_of_each(part: Part | None, rows: int) -> tuple[Tensor, Tensor]:
    """Rows of as many different classes as there are."""
    if part is None or part.y is None:
        raise DataError("to be redrawn, data must have class labels, which these do not")
    part = part.in_memory()
    part, y = part.fixed(), part.y
    ranks = torch.zeros(len(y))
    for label in y.unique():
        ranks[y == label] = torch.arange(int((y == label).sum()), dtype=torch.float)
    chosen = (ranks + y / (y.max() + 1)).argsort()[:rows]
    return part.x[chosen], y[chosen]
