"""A folder of images."""

import warnings
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
        return Observations(_stacked(loose, folder))
    files = [file for found in classes.values() for file in found]
    codes = [code for code, found in enumerate(classes.values()) for _ in found]
    return Observations(_stacked(files, folder), torch.tensor(codes), tuple(classes))


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def _stacked(files: list[Path], folder: Path) -> Tensor:
    images = [_image(file, folder) for file in files]
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


def _image(file: Path, folder: Path) -> Tensor:
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
