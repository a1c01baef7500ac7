"""Images on disk: a folder of them, or one."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_gen.data.observations import Observations, cause, tensor_of
from ppl_gen.errors import DataError

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
GREY = ("1", "L", "LA", "La")
DEEP_GREY = ("I;16", "I;16B", "I;16L", "I")


def images_of(folder: Path) -> tuple[list[Path], Tensor | None, tuple[str, ...] | None]:
    """The images of a folder, their classes, and what these are called, as of `read_images`.

    Raises:
        DataError: If there are none, or some lie beside class folders.
    """
    loose = _images_in(folder)
    classes = {
        sub.name: found
        for sub in sorted(folder.iterdir())
        if sub.is_dir() and not sub.name.startswith(".") and (found := _images_in(sub))
    }
    if not loose and not classes:
        known = ", ".join(sorted(SUFFIXES))
        raise DataError(f"folder {folder.name!r} holds no images; the known kinds are {known}")
    if loose and classes:
        raise DataError(
            f"folder {folder.name!r} holds images both beside and in subfolders, such as "
            f"{loose[0].name!r} and {next(iter(classes))!r}; give every image a class, or none"
        )
    if loose:
        return loose, None, None
    files = [file for found in classes.values() for file in found]
    codes = [code for code, found in enumerate(classes.values()) for _ in found]
    return files, torch.tensor(codes), tuple(classes)


def read_images(folder: Path) -> Observations:
    """Read all images of a folder, in the order of their names.

    Subfolders that hold images are classes, in the order of their names. Grey images have shape
    ``(1, height, width)``, all others become RGB, ``(3, height, width)``; transparency is dropped.

    Args:
        folder: The folder. Hidden files and folders are passed over.

    Returns:
        uint8, or float32 in ``[0, 1]`` for 16-bit images, shape ``(N, channels, height, width)``.

    Raises:
        DataError: If there are no images, some lie beside class folders, one cannot be read, or
            two differ in size or in being grey.
    """
    files, codes, names = images_of(folder)
    return Observations(_stacked(files, folder), codes, names)


def image(
    path: str | os.PathLike[str],
    shape: Sequence[int],
    *,
    invert: bool | None = None,
    centre: bool = False,
) -> Tensor:
    """Read one image as an observation of a given shape, for a story that was fitted to others.

    Args:
        path: The image.
        shape: Shape of an observation: (channels, height, width) with 1 or 3 channels, or (height,
            width).
        invert: Whether to swap dark and light. Unless told, what is light at its edge is taken for
            ink on paper and swapped, as data such as MNIST are light on dark.
        centre: Whether to cut out what stands on the ground and put it in the middle as in MNIST:
            its longer side 20/28 of the frame, its centre of mass in the centre.

    Returns:
        Intensities in ``[0, 1]``, shape ``(1, *shape)``.

    Raises:
        DataError: If the file is no readable image, or ``shape`` is not that of an image.

    Reference:
        LeCun et al. (1998), section III.A, for the frame, https://doi.org/10.1109/5.726791
    """
    from torch.nn.functional import interpolate

    path = Path(path)
    shape = tuple(shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3)):
        raise DataError(
            f"shape must be that of an image, (1 or 3, height, width) or (height, width), got "
            f"{shape}"
        )
    if not path.is_file():
        raise DataError(f"there is no image {str(path)!r}; check the path")
    pixels = pixels_of(path, path.parent)
    pixels = pixels.float() / (255 if pixels.dtype is torch.uint8 else 1)
    channels, height, width = (1, *shape)[-3:]
    if channels == 1 and len(pixels) == 3:  # luma, as Pillow makes grey of colours
        pixels = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
    pixels = pixels.expand(channels, *pixels.shape[1:])
    edge = torch.cat([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], 1)
    if invert or (invert is None and edge.median() > 0.5):
        pixels = 1 - pixels
    if centre:
        return _centred(pixels, height, width, path).reshape(1, *shape)
    resized = interpolate(pixels[None], (height, width), mode="bilinear", antialias=True)
    return resized.clamp(0, 1).reshape(1, *shape)


def _centred(pixels: Tensor, height: int, width: int, path: Path) -> Tensor:
    from torch.nn.functional import interpolate

    pixels = (pixels - pixels.median()).clamp(min=0)
    pixels = pixels / pixels.max().clamp(min=1e-6)
    ink = pixels.amax(0) > 0.5
    if not ink.any() or ink.all():
        raise DataError(f"nothing stands out from the ground of image {path.name!r}: crop it")
    rows, columns = (ink.any(axis).nonzero()[:, 0] for axis in (1, 0))
    cut = pixels[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = 20 / 28 * min(height / cut.shape[1], width / cut.shape[2])
    size = [max(1, round(side * scale)) for side in cut.shape[1:]]
    cut = interpolate(cut[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    mass = cut.sum(0)
    frame = torch.zeros(len(pixels), height, width)
    corner = []
    for axis, (side, room) in enumerate(zip(size, (height, width), strict=True)):
        middle = (mass.sum(1 - axis) * torch.arange(side)).sum() / mass.sum()
        corner.append(int(min(max(round((room - 1) / 2 - middle.item()), 0), room - side)))
    top, left = corner
    frame[:, top : top + size[0], left : left + size[1]] = cut
    return frame


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def _stacked(files: list[Path], folder: Path) -> Tensor:
    images = [pixels_of(file, folder) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise DataError(
                "images must all have one size and be all grey or all coloured, but "
                f"{str(files[0].relative_to(folder))!r} is {_size(images[0])} and "
                f"{str(file.relative_to(folder))!r} is {_size(image)}; resize or convert them"
            )
    if len({image.dtype for image in images}) > 1:
        images = [image / 255 if image.dtype is torch.uint8 else image for image in images]
    return torch.stack(images)


def _size(image: Tensor) -> str:
    channels, height, width = image.shape
    return f"{width} x {height} {'grey' if channels == 1 else 'RGB'}"


def pixels_of(file: Path, folder: Path) -> Tensor:
    """The pixels of one image, ``(channels, height, width)``.

    Raises:
        DataError: If it cannot be read; it is called as it lies in the folder.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                return _pixels(image)
    # A broken PNG is a SyntaxError to Pillow.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        name = str(file.relative_to(folder))
        raise DataError(
            f"image {name!r} cannot be read: {cause(error)}; mend or remove it"
        ) from error


def _pixels(image: Any) -> Tensor:
    import numpy as np

    if image.mode in DEEP_GREY:
        return tensor_of(np.array(image, dtype=np.float32) / 65535, "the image")[None]
    if image.mode == "F":
        raise ValueError("its pixels are floats of unknown range")
    if image.mode in GREY:
        return tensor_of(np.array(image.convert("L")), "the image")[None]
    # Through RGBA, because Pillow warns of palettes whose transparency is given in bytes.
    coloured = image.convert("RGBA").convert("RGB") if image.mode in ("P", "PA") else image
    return tensor_of(np.array(coloured.convert("RGB")), "the image").movedim(-1, 0).contiguous()
