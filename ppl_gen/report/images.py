"""Observations that are images, as pictures of one pixel an element."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ppl_gen.report.html import Markup, tag

LARGEST = 48
CRISP = 32


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
    images: Tensor, columns: int, alt: str, greys: Greys, apart: Collection[int] = ()
) -> Markup:
    """Images side by side, row after row, as one inline PNG.

    Args:
        images: Shape ``(N, H, W)`` or ``(N, C, H, W)`` with 1 or 3 channels.
        columns: How many stand in a row.
        alt: What the picture shows, for those who cannot see it.
        greys: Which values are black and white.
        apart: Columns, from 0, before which there is a wider gap.
    """
    from PIL import Image

    tiles = _tiles(images, greys)
    count, height, width = tiles.shape[:3]
    columns = min(columns, count)
    gap = max(1, round(width / 14))
    lefts = [c * (width + gap) + 3 * gap * sum(c >= a for a in apart) for c in range(columns)]
    rows = -(-count // columns)
    canvas = torch.zeros(rows * (height + gap) - gap, lefts[-1] + width, 4)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), lefts[i % columns]
        canvas[top : top + height, left : left + width, :3] = tile
        canvas[top : top + height, left : left + width, 3] = 1
    pixels = (255 * canvas).round().to(torch.uint8).numpy()
    image = Image.fromarray(pixels)
    grey = images.ndim == 3 or images.shape[1] == 1
    file = io.BytesIO()
    (image.convert("LA") if grey else image).save(file, "PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    size = {"width": str(canvas.shape[1]), "height": str(canvas.shape[0])}
    return tag("img", src=source, alt=alt, class_="crisp" if width <= CRISP else None, **size)


def _tiles(images: Tensor, greys: Greys) -> Tensor:
    """Colours from 0 to 1, shape ``(N, h, w, 3)``, no side longer than 48."""
    images = images.float().nan_to_num()
    if images.ndim == 3:
        images = images[:, None]
    largest = max(images.shape[-2:])
    if largest > LARGEST:
        smaller = [max(1, round(side * LARGEST / largest)) for side in images.shape[-2:]]
        images = interpolate(images, size=smaller, mode="area")
    light = (images - greys.black) / max(greys.white - greys.black, 1e-12)
    return light.clamp(0, 1).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
