"""Image data sets of the literature, read from a local folder in torchvision's layout."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_gen.data.arrays import read_arrays
from ppl_gen.data.dataset import Dataset, Part, last_sixth
from ppl_gen.data.levels import INK, PIXELS, WHOLE
from ppl_gen.data.observations import cause
from ppl_gen.data.support import Support, check_support
from ppl_gen.errors import DataError

LINES = {
    "mnist": "70,000 handwritten digits, 28 x 28 pixels, in 10 classes",
    "fashion-mnist": "70,000 pieces of clothing, 28 x 28 pixels, in 10 classes",
    "kmnist": "70,000 cursive Japanese characters, 28 x 28 pixels, in 10 classes",
    "emnist": "131,600 handwritten letters and digits, 28 x 28 pixels, in 47 balanced classes",
    "omniglot": "32,460 characters of 50 alphabets, 28 x 28 pixels, in 1,623 classes",
    "usps": "9,298 digits of postal codes, 16 x 16 pixels, in 10 classes",
    "cifar10": "60,000 photographs, 32 x 32 pixels in colour, in 10 classes",
    "svhn": "99,289 digits of house numbers, 32 x 32 pixels in colour, in 10 classes",
    "binarized-mnist": "mnist drawn once as 0 and 1, without labels",
}
# torchvision answers a damaged or missing file with any of these.
FAILURES = (RuntimeError, OSError, ValueError, TypeError, AssertionError, EOFError, LookupError)


def load_vision(name: str, root: str | os.PathLike[str] | None, download: bool) -> Dataset:
    """Load one of the image data sets.

    Images are kept as bytes that stand for float32 in ``[0, 1]``, channels first. The test part is
    the source's own; valid is the last sixth of its training part, for MNIST the usual 10,000.
    EMNIST's images, which are stored on their side, are turned upright. Omniglot is shrunk from
    105 x 105 pixels by averaging over areas and inverted, so that ink is 1; its test part has other
    characters than train, with labels of their own.

    Args:
        name: A key of ``LINES``.
        root: The folder of data sets; the environment variable PPL_GEN_DATA unless told.
        download: Whether torchvision may fetch what is missing, and write it under ``root``.

    Raises:
        DataError: If there is no root, the data do not stand under it, or torchvision is broken.

    Reference:
        The binarised MNIST of Larochelle and Murray (2011),
        https://proceedings.mlr.press/v15/larochelle11a.html
    """
    folder = data_root(name, root)
    if name == "binarized-mnist":
        return _binarized_mnist(folder)
    if not folder.is_dir() and not download:
        raise DataError(
            f"the data root {str(folder)!r} is no folder; correct it, or pass download=True"
        )
    sets = _torchvision_sets(name)
    try:
        trained, tested = (
            OPENERS[name](sets, str(folder), train, download) for train in (True, False)
        )
        train_x, train_y = _tensors(name, trained)
        test_x, test_y = _tensors(name, tested)
    except FAILURES as error:
        verb = "could not be downloaded to" if download else "could not be read under"
        remedy = "" if download else ", or pass download=True to fetch it"
        raise DataError(
            f"{name!r} {verb} {str(folder)!r} ({cause(error)}); "
            f"put it there in torchvision's layout{remedy}"
        ) from error
    if name == "omniglot":
        test_y = test_y + int(train_y.max()) + 1
    levels = INK if name == "omniglot" else PIXELS
    train, valid = last_sixth(Part((train_x, train_y), levels=levels), name)
    test = Part((test_x, test_y), levels=levels)
    names = _label_names(trained)
    return Dataset(name, Support.UNIT_INTERVAL, train, valid, test, label_names=names)


def data_root(name: str, root: str | os.PathLike[str] | None) -> Path:
    """Find the folder of data sets.

    Raises:
        DataError: If neither the argument nor the environment variable PPL_GEN_DATA names one.
    """
    given = root if root is not None else os.environ.get("PPL_GEN_DATA")
    if not given:
        raise DataError(
            f"{name!r} is read from a local folder of data sets; name it with root=, "
            "--data-root, or the environment variable PPL_GEN_DATA"
        )
    return Path(given).expanduser()


def _torchvision_sets(name: str) -> Any:
    try:
        from torchvision import datasets
    # A torchvision built for another torch raises RuntimeError at import.
    except (ImportError, RuntimeError) as error:
        raise DataError(
            f"{name!r} is read by torchvision, which cannot be imported ({cause(error)}); "
            "install builds of both that match: pip install torch torchvision"
        ) from error
    return datasets


def _by_train(class_name: str, **options: Any) -> Callable[[Any, str, bool, bool], Any]:
    return lambda sets, root, train, download: getattr(sets, class_name)(
        root, train=train, download=download, **options
    )


OPENERS: dict[str, Callable[[Any, str, bool, bool], Any]] = {
    "mnist": _by_train("MNIST"),
    "fashion-mnist": _by_train("FashionMNIST"),
    "kmnist": _by_train("KMNIST"),
    "emnist": _by_train("EMNIST", split="balanced"),
    "usps": _by_train("USPS"),
    "cifar10": _by_train("CIFAR10"),
    "omniglot": lambda sets, root, train, download: sets.Omniglot(
        root, background=train, download=download
    ),
    "svhn": lambda sets, root, train, download: sets.SVHN(
        root, split="train" if train else "test", download=download
    ),
}


def _tensors(name: str, images: Any) -> tuple[Tensor, Tensor]:
    if name == "omniglot":
        return _omniglot(images)
    pixels = torch.as_tensor(images.data)
    labels = torch.as_tensor(images.labels if name == "svhn" else images.targets).long()
    if name == "cifar10":
        pixels = pixels.movedim(-1, 1)
    elif name == "emnist":
        pixels = pixels.mT
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    return pixels.contiguous(), labels


def _omniglot(images: Any) -> tuple[Tensor, Tensor]:
    import numpy as np
    from PIL import Image

    pairs = [images[i] for i in range(len(images))]
    shrunk = [np.array(image.resize((28, 28), Image.Resampling.BOX)) for image, _ in pairs]
    return torch.from_numpy(np.stack(shrunk))[:, None], torch.tensor([label for _, label in pairs])


def _label_names(images: Any) -> tuple[str, ...] | None:
    classes = getattr(images, "classes", None)
    # MNIST calls its classes "0 - zero" and so on.
    return None if classes is None else tuple(str(label).split(" - ")[0] for label in classes)


def _binarized_mnist(folder: Path) -> Dataset:
    images = []
    for part in ("train", "valid", "test"):
        path = folder / "binarized_mnist" / f"{part}.npz"
        if not path.is_file():
            raise DataError(
                f"'binarized-mnist' needs the file {str(path)!r}; "
                "store an array x of shape (N, 784) with values 0 and 1 there"
            )
        x = read_arrays(path)["all"].x
        if x.shape[1:] != (784,):
            raise DataError(f"{str(path)!r} must hold shape (N, 784), got {tuple(x.shape)}")
        images.append(x.reshape(-1, 1, 28, 28))
    check_support(images, Support.BINARY, "binarized-mnist")
    train, valid, test = (Part((x.byte(),), levels=WHOLE) for x in images)
    return Dataset("binarized-mnist", Support.BINARY, train, valid, test)
