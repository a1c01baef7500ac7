"""Redraw MNIST digits under every label, and measure whether they are what they should be.

A CVAE that is told the label is fitted to MNIST, or read from a run. The codes of some test images,
given their own labels, are decoded under all ten. Two questions are put to the redrawn images:

- Does a convolutional classifier, trained on real MNIST, read the label that was asked for?
- Do they keep the hand? Stroke thickness and slant of a redrawn image are correlated with those of
  its source, over all pairs. Some digits are written thinner or more upright than others, so the
  figure is also given with the mean of each asked class taken off the redrawn images, and then with
  that of each source's own class taken off the sources as well.

Run::

    python benchmarks/cvae_redraw.py --root DATA                    # fits first: half an hour
    python benchmarks/cvae_redraw.py --root DATA --run runs/label   # two minutes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import ppl_gen as pg
from ppl_gen.cli.pictures import image_grid
from ppl_gen.data import Dataset
from ppl_gen.models.cvae import CVAE

CLASSES = 10
ENLARGED = 4  # times an image is enlarged before its strokes are measured, below the pixel


@dataclass(frozen=True)
class Options:
    """What to redraw.

    Attributes:
        root: Directory with MNIST in torchvision's layout; PPL_GEN_DATA by default.
        run: A fitted CVAE with the condition label(classes=10); fitted here if there is none.
        epochs: Passes of that fit.
        images: How many test images are redrawn, as many of each class.
        reader_epochs: Passes of the classifier that reads.
        threads: Of torch.
        seed: Of everything.
        out: The picture: a row for each of ten styles, first the source, then ten labels.
    """

    root: Path | None = None
    run: Path | None = None
    epochs: int = 50
    images: int = 100
    reader_epochs: int = 4
    threads: int = 1
    seed: int = 0
    out: Path = Path("redrawn.png")


def main(options: Options) -> None:
    """Redraw, read, measure, print a table."""
    torch.set_num_threads(options.threads)
    data = pg.data.load("mnist", options.root)
    run = pg.load(options.run) if options.run else fitted(options)
    reader = trained_reader(data, options.reader_epochs, options.seed)
    x, y = chosen(data, options.images, options.seed)
    redrawn = run.redraw((x, y), range(CLASSES))
    read = classify(reader, redrawn.flatten(0, 1)).reshape(len(x), CLASSES)
    asked = torch.arange(CLASSES)
    right = (read == asked).double()
    real = (classify(reader, data.test.x) == data.test.y).double().mean()
    print(f"| what | {len(x)} images under {CLASSES} labels |")
    print("|---|---|")
    print(f"| classifier on real test images | {real:.2%} |")
    print(f"| redrawn images read as asked | {right.mean():.2%} |")
    worst = int(right.mean(0).argmin())
    print(f"| least of the labels, {worst} | {right.mean(0)[worst]:.2%} |")
    for name, measure in (("thickness", thickness), ("slant", slant)):
        figures = correlations(measured(x[:, None], measure), measured(redrawn, measure), y)
        for how, value in figures.items():
            print(f"| {name}, correlation {how} | {value:.3f} |")
    grid = torch.cat([x[:, None], redrawn], 1)[:: max(1, len(x) // 10)][:10]
    options.out.write_bytes(image_grid(grid.flatten(0, 1), across=1 + CLASSES))
    print(f"\npicture: {options.out}")


def fitted(options: Options) -> pg.Run:
    """A CVAE that is told the label, fitted to MNIST binarised at every visit."""
    data = pg.data.load("mnist", options.root, binarise="redraw")
    story = CVAE(
        data.shape,
        "label(classes=10)",
        16,
        prior="standard-normal",
        likelihood="bernoulli",
        hidden=(400, 400),
        activation="elu",
    )
    return pg.fit(
        story,
        data,
        epochs=options.epochs,
        batch_size=128,
        learning_rate=2e-3,
        seed=options.seed,
    )


def chosen(data: Dataset, images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Test images and their labels, as many of each class, class after class."""
    y = data.test.y
    assert y is not None
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    each = -(-images // CLASSES)
    rows = torch.cat([order[y[order] == k][:each] for k in range(CLASSES)])
    return data.test.x[rows], y[rows]


def trained_reader(data: Dataset, epochs: int, seed: int) -> nn.Module:
    """A convolutional classifier of real images, about 99 % right."""
    torch.manual_seed(seed)
    reader = nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 7 * 7, 128), nn.ReLU()),
        nn.Linear(128, CLASSES),
    )
    x, y = data.train.columns[:2]
    batches = -(-len(x) // 128)
    optimizer = torch.optim.Adam(reader.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs * batches)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            cross_entropy(reader(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return reader.eval()


def classify(reader: nn.Module, images: Tensor) -> Tensor:
    """The class read in each of ``(N, 1, 28, 28)`` images, ``(N,)``."""
    with torch.no_grad():
        return torch.cat([reader(rows).argmax(1) for rows in images.split(1000)])


def measured(images: Tensor, measure: Callable[[np.ndarray], float]) -> Tensor:
    """A figure for each image, ``(N, C)``, of images ``(N, C, 1, 28, 28)``."""
    flat = images.flatten(0, -4).squeeze(1).double().numpy()
    return torch.tensor([measure(image) for image in flat]).reshape(images.shape[:2])


def thickness(image: np.ndarray) -> float:
    """Width of the strokes in pixels: four times the mean distance of ink from its edge.

    Across a stroke of width w that distance rises to w / 2 and falls again: its mean is w / 4.

    Reference:
        Castro et al. (2019), who measure the distance transform as well, on an enlarged image,
        https://jmlr.org/papers/v20/19-033.html
    """
    from scipy import ndimage

    large = np.asarray(ndimage.zoom(image, ENLARGED, order=1))
    ink = large > large.max() / 2
    distance = np.asarray(ndimage.distance_transform_edt(ink))
    return float(4 * distance[ink].mean() / ENLARGED)


def slant(image: np.ndarray) -> float:
    """Columns that the strokes move to the left for each row down: mu_11 / mu_02 of the moments."""
    rows, columns = np.indices(image.shape)
    ink = image / image.sum()
    rows = rows - (ink * rows).sum()
    columns = columns - (ink * columns).sum()
    return float(-(ink * rows * columns).sum() / (ink * rows**2).sum())


def correlations(source: Tensor, redrawn: Tensor, y: Tensor) -> dict[str, float]:
    """Correlation of sources ``(N, 1)``, of classes ``y``, with what was redrawn, ``(N, C)``."""
    within = redrawn - redrawn.mean(0)
    own = torch.stack([source[y == k].mean() for k in range(CLASSES)])
    spread = source - own[y][:, None]

    def correlation(a: Tensor, b: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a.expand_as(b).flatten(), b.flatten()]))[0, 1])

    return {
        "over all pairs": correlation(source, redrawn),
        "within asked classes": correlation(source, within),
        "within asked and own classes": correlation(spread, within),
    }


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
