"""Draws of a story as files: arrays, or a grid of images."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ppl_gen.errors import DataError
from ppl_gen.inference.structure import Structure

NOT_AN_IMAGE = "an observation of this story is not an image: let --out end in .npz"
CELL = 64  # pixels that a small image is magnified to, so that it can be seen


def arrays(drawn: Mapping[str, Tensor]) -> bytes:
    """A ``.npz`` file of one array a site.

    Unlike ``numpy.savez``, this takes a site of any name, ``file`` included.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in drawn.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, value.numpy(), allow_pickle=False)
    return buffer.getvalue()


def picture(structure: Structure, drawn: Mapping[str, Tensor]) -> bytes:
    """A ``.png`` file with the observations as a grid of images, grey lines between them.

    Raises:
        DataError: If no observed site is an image: ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)``.
    """
    for site in structure.observed:
        if _is_image(site.event_shape):
            images = drawn[site.name].float()
            if site.law in ("Categorical", "Poisson"):
                images = images / images.max().clamp(min=1)
            return image_grid(images)
    raise DataError(NOT_AN_IMAGE)


def image_grid(images: Tensor, across: int | None = None) -> bytes:
    """A ``.png`` file with images as a grid.

    Args:
        images: Intensities, ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``; what lies outside
            ``[0, 1]`` is drawn at its ends.
        across: How many side by side; by default nearly as many as down.

    Raises:
        DataError: If they are no images.
    """
    from PIL import Image

    if not _is_image(images.shape[1:]):
        raise DataError(NOT_AN_IMAGE)
    images = images.float().reshape(-1, *(1, *images.shape[1:])[-3:])
    cells = grid((images.clamp(0, 1) * 255).round().byte(), across)
    factor = max(1, CELL // max(images.shape[-2:]))
    made = Image.fromarray(cells.permute(1, 2, 0).numpy())
    buffer = io.BytesIO()
    made.resize((made.width * factor, made.height * factor), Image.Resampling.NEAREST).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def _is_image(shape: Sequence[int]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))


def grid(images: Tensor, across: int | None = None) -> Tensor:
    """Images side by side.

    Args:
        images: Bytes, shape ``(N, 1 or 3, H, W)``.
        across: How many side by side; by default nearly as many as down.

    Returns:
        Bytes, shape ``(3, height, width)``, grey where nothing is drawn.
    """
    count, _, height, width = images.shape
    across = across or math.ceil(math.sqrt(count))
    down = -(-count // across)
    cells = torch.full((3, down * (height + 1) - 1, across * (width + 1) - 1), 128).byte()
    for i, image in enumerate(images):
        top, left = i // across * (height + 1), i % across * (width + 1)
        cells[:, top : top + height, left : left + width] = image
    return cells
