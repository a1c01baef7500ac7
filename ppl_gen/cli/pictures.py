"""Draws of a story as files: arrays, or a grid of images."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ppl_gen.errors import DataError
from ppl_gen.inference.structure import Structure

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
    from PIL import Image

    for site in structure.observed:
        shape = site.event_shape
        if len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3)):
            images = drawn[site.name].float().reshape(-1, *(1, *shape)[-3:])
            break
    else:
        raise DataError("an observation of this story is not an image: let --out end in .npz")
    if site.law in ("Categorical", "Poisson"):
        images = images / images.max().clamp(min=1)
    cells = grid((images.clamp(0, 1) * 255).round().byte())
    factor = max(1, CELL // max(images.shape[-2:]))
    made = Image.fromarray(cells.permute(1, 2, 0).numpy())
    buffer = io.BytesIO()
    made.resize((made.width * factor, made.height * factor), Image.Resampling.NEAREST).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def grid(images: Tensor) -> Tensor:
    """Images side by side, nearly as many across as down.

    Args:
        images: Bytes, shape ``(N, 1 or 3, H, W)``.

    Returns:
        Bytes, shape ``(3, height, width)``, grey where nothing is drawn.
    """
    count, _, height, width = images.shape
    across = math.ceil(math.sqrt(count))
    down = -(-count // across)
    cells = torch.full((3, down * (height + 1) - 1, across * (width + 1) - 1), 128).byte()
    for i, image in enumerate(images):
        top, left = i // across * (height + 1), i % across * (width + 1)
        cells[:, top : top + height, left : left + width] = image
    return cells
