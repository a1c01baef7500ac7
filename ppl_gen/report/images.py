"""Observations that are images, as pictures of one pixel an element."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ppl_gen.report.html import Markup, tag

LARGEST = 48
CRISP = 32
UNSEEN = ((0.36, 0.47, 0.66), (0.52, 0.62, 0.79))  # blue, as no grey is


@dataclass(frozen=True)
class Greys:
    """The values that are drawn black and white.

    Attributes:
        black: Drawn black (no light, in colour images).
        white: Drawn white (full light).
    """

    black: float
    white: float

    @classmethod
    def of(cls, x: Tensor) -> Greys:
        """0 and 1 for data between them, else the smallest and the largest value."""
        finite = x[x.isfinite()]
        if not len(finite) or (finite.min() >= 0 and finite.max() <= 1):
            return cls(0.0, 1.0)
        return cls(finite.min().item(), finite.max().item())


def picture(
    images: Tensor,
    columns: int,
    alt: str,
    greys: Greys,
    apart: Collection[int] = (),
    unseen: Tensor | None = None,
) -> Markup:
    """Images side by side, row after row, as one inline PNG.

    Args:
        images: Shape ``(N, H, W)`` or ``(N, C, H, W)`` with 1 or 3 channels.
        columns: How many stand in a row.
        alt: What the picture shows, for those who cannot see it.
        greys: Which values are black and white.
        apart: Columns, from 0, before which there is a wider gap.
        unseen: Elements of the images, booleans of their shape, that are hatched in blue.
    """
    from PIL import Image

    tiles = _tiles(images, greys)
    if unseen is not None:
        tiles = _hatched(tiles, _tiles(unseen, Greys(0, 1)))
    count, height, width = tiles.shape[:3]
    columns = min(columns, count)
    gap, lefts = places(columns, width, apart)
    rows = -(-count // columns)
    canvas = torch.zeros(rows * (height + gap) - gap, lefts[-1] + width, 4)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), lefts[i % columns]
        canvas[top : top + height, left : left + width, :3] = tile
        canvas[top : top + height, left : left + width, 3] = 1
    pixels = (255 * canvas).round().to(torch.uint8).numpy()
    image = Image.fromarray(pixels)
    grey = (images.ndim == 3 or images.shape[1] == 1) and unseen is None
    file = io.BytesIO()
    (image.convert("LA") if grey else image).save(file, "PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    size = {"width": str(canvas.shape[1]), "height": str(canvas.shape[0])}
    return tag("img", src=source, alt=alt, class_="crisp" if width <= CRISP else None, **size)


def places(columns: int, width: int, apart: Collection[int] = ()) -> tuple[int, list[int]]:
    """The gap between images of a width, and where each column of them begins, in pixels."""
    gap = max(1, round(width / 14))
    return gap, [c * (width + gap) + 3 * gap * sum(c >= a for a in apart) for c in range(columns)]


def heads(words: Sequence[str], images: Tensor, apart: Collection[int] = ()) -> Markup:
    """Words above the columns of a :func:`picture` that is as wide as what holds both.

    Args:
        words: One for each column.
        images: Some of those of the picture.
        apart: As for the picture.
    """
    width = _smaller(images)[1]
    _, lefts = places(len(words), width, apart)
    whole = lefts[-1] + width
    cells = [
        tag("span", word, style=f"left:{100 * left / whole:.3f}%;width:{100 * width / whole:.3f}%")
        for word, left in zip(words, lefts, strict=True)
    ]
    return tag("div", *cells, class_="heads")


def _hatched(tiles: Tensor, unseen: Tensor) -> Tensor:
    """Tiles ``(N, h, w, 3)`` with stripes where the other, of the same shape, is bright."""
    height, width = tiles.shape[1:3]
    across = torch.arange(height)[:, None] + torch.arange(width)
    light = (across // max(1, width // 14) % 2 == 0)[..., None]
    stripes = torch.where(light, torch.tensor(UNSEEN[0]), torch.tensor(UNSEEN[1]))
    return torch.where(unseen > 0.5, stripes, tiles)


def _smaller(images: Tensor) -> list[int]:
    """Height and width at which images are drawn."""
    shrunk = min(1.0, LARGEST / max(images.shape[-2:]))
    return [max(1, round(side * shrunk)) for side in images.shape[-2:]]


def _tiles(images: Tensor, greys: Greys) -> Tensor:
    """Colours from 0 to 1, shape ``(N, h, w, 3)``, no side longer than 48."""
    images = images.float().nan_to_num()
    if images.ndim == 3:
        images = images[:, None]
    smaller = _smaller(images)
    if smaller != list(images.shape[-2:]):
        images = interpolate(images, size=smaller, mode="area")
    light = (images - greys.black) / max(greys.white - greys.black, 1e-12)
    return light.clamp(0, 1).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
