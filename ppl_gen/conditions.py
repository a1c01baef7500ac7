"""Conditions: what an observation is given, as numbers, and the network that reads them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ppl_gen import networks
from ppl_gen.component import Component, built, by_name, whole, whole_sizes
from ppl_gen.errors import StoryError, refuse_if


class Condition(Component, ABC):
    """What each observation is given: a module that turns a column of data into numbers.

    Args:
        shape: Shape of the numbers that one row gives.

    Raises:
        ValueError: If a size is below 1.
        TypeError: If ``shape`` is not a sequence of whole numbers.
    """

    shape: tuple[int, ...]

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = whole_sizes("shape", shape)

    @property
    def features(self) -> int:
        """How many numbers one row gives."""
        return math.prod(self.shape)

    @abstractmethod
    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The numbers.

        Args:
            x: Observations, shape ``(N, *)``, in floating point.
            condition: The column of conditions, ``N`` rows.

        Returns:
            Shape ``(N, *shape)``, of the type of ``x``.

        Raises:
            StoryError: If the column has another form, or holds what cannot be conditioned on.
        """

    def unseen(self, x: Tensor, condition: Tensor) -> Tensor | None:
        """Which elements of ``x`` the condition does not tell, ``(N, *)``; None if it tells none.

        Args:
            x: Observations, shape ``(N, *)``.
            condition: The column of conditions, ``N`` rows.
        """
        return None


class Label(Condition):
    """One of some classes, as a 1 among zeros.

    Which labels occur in training is remembered. One that never did leads to weights that were
    never trained, so that it is refused when the story is asked about it.

    Args:
        classes: Number of classes; labels go from 0 to ``classes - 1``.

    Raises:
        ValueError: If ``classes`` is below 2.
        TypeError: If ``classes`` is not a whole number.
    """

    occurred: Tensor
    numbers: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__((whole("classes", classes, least=2),))
        self.classes = classes
        self.register_buffer("occurred", torch.zeros(classes, dtype=torch.bool))
        self.register_buffer("numbers", torch.arange(classes), persistent=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        if condition.shape not in ((len(x),), (len(x), 1)):
            raise StoryError(
                f"the condition must be one label for each row, shape {(len(x),)}, got "
                f"{tuple(condition.shape)}: give the labels as the second column of the data"
            )
        chosen = condition.reshape(-1, 1) == self.numbers
        if self.training:
            # Whole rows of zeros, from labels out of range, were refused before the first step.
            self.occurred.logical_or_(chosen.any(0))
        else:
            self._check(x, condition.reshape(-1), chosen)
        return chosen.to(x.dtype)

    def _check(self, x: Tensor, labels: Tensor, chosen: Tensor) -> None:
        outside = ~chosen.any(1)
        refuse_if(
            outside,
            lambda: StoryError(
                f"labels must be whole numbers from 0 to {self.classes - 1}, got "
                f"{labels[outside][0].item():g} (in {int(outside.sum())} of {len(labels)} rows): "
                "number the classes from 0, or build the story with more classes"
            ),
        )
        strange = chosen.any(0) & ~self.occurred
        # Blank rows stand for data of this form, and ask nothing of label 0.
        shown = labels.any() | x.any()
        refuse_if(
            strange & self.occurred.any() & shown,
            lambda: StoryError(
                f"label {(label := int(strange.nonzero()[0]))} never occurred in training, so that "
                f"the story knows nothing of it, got it in {int(chosen[:, label].sum())} of "
                f"{len(labels)} rows: leave these rows out, or fit to data in which it occurs"
            ),
        )


class Vector(Condition):
    """Some real numbers, as they are.

    Args:
        features: How many.

    Raises:
        ValueError: If ``features`` is below 1.
        TypeError: If ``features`` is not a whole number.
    """

    def __init__(self, features: int) -> None:
        super().__init__((whole("features", features),))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        expected = (len(x), self.features)
        if condition.shape != expected and (self.features > 1 or condition.shape != expected[:1]):
            raise StoryError(
                f"the condition must have shape {expected}, one vector for each row, got "
                f"{tuple(condition.shape)}: reshape it, or build the story with its size"
            )
        wrong = ~condition.isfinite()
        refuse_if(
            wrong,
            lambda: StoryError(
                f"the condition must be finite, got {int(wrong.sum())} values "
                "that are not: leave those rows out, or fill the values in"
            ),
        )
        return condition.reshape(expected).to(x.dtype)


class Seen(Condition):
    """The seen part of the observation itself: its seen elements, 0 elsewhere, and the mask.

    The column of conditions is the mask, True or 1 where an element is seen. Any mask will do,
    also one that sees nothing, or everything.

    Args:
        shape: Shape of one observation.

    Raises:
        ValueError: If ``shape`` is empty or holds a size below 1.
        TypeError: If ``shape`` is not a sequence of whole numbers.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        shape = whole_sizes("shape", shape)
        # Channels of an image stay channels, so that convolutions can read them.
        image = len(shape) == 3
        super().__init__((2 * shape[0], *shape[1:]) if image else (2, *shape))
        self.observation = shape

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        mask = self._mask(x, condition)
        both = torch.stack([torch.where(mask, x, 0), mask.to(x.dtype)], dim=1)
        return both.reshape(-1, *self.shape)

    def unseen(self, x: Tensor, condition: Tensor) -> Tensor:
        return ~self._mask(x, condition)

    def _mask(self, x: Tensor, condition: Tensor) -> Tensor:
        if condition.shape != (len(x), *self.observation):
            raise StoryError(
                f"the condition must be a mask of shape {(len(x), *self.observation)}, True where "
                f"an element is seen, got {tuple(condition.shape)}: make one with "
                "pg.data.masked, or load the data with mask='quadrants(seen=1)'"
            )
        if condition.dtype == torch.bool:
            return condition
        wrong = (condition != 0) & (condition != 1)
        refuse_if(
            wrong,
            lambda: StoryError(
                f"a mask must hold True and False, or 1 and 0, got {condition[wrong][0].item():g}: "
                "give 1 where an element is seen and 0 elsewhere"
            ),
        )
        return condition != 0


CONDITIONS: dict[str, type[Condition]] = {"label": Label, "vector": Vector, "seen": Seen}


def condition(spec: str | Condition, shape: Sequence[int]) -> Condition:
    """The condition that a specification names, or the given one.

    Args:
        spec: A name from ``CONDITIONS`` with its arguments: ``"label(classes=10)"``,
            ``"vector(features=3)"`` or ``"seen"``; or a condition.
        shape: Shape of one observation.

    Raises:
        ValueError: If the specification cannot be read, or a given mask has another shape.
        TypeError: If ``spec`` is neither a string nor a condition.
    """
    if not isinstance(spec, Condition):
        seen = isinstance(spec, str) and by_name(spec, CONDITIONS, "condition")[0] is Seen
        return built(spec, CONDITIONS, "condition", *([shape] if seen else []))
    if isinstance(spec, Seen) and spec.observation != tuple(shape):
        raise ValueError(
            f"condition must have the shape of an observation, {tuple(shape)}, got "
            f"{spec.observation}"
        )
    return spec


class JointEncoder(nn.Module):
    """Features of several tensors that belong together, such as an image and its label.

    Fully connected layers take them as one vector. Convolutions take them as channels of one
    image, in which a vector fills one channel with each of its numbers. Where there is no image
    among them, fully connected layers stand in for convolutions.

    Args:
        spec: A name from ``networks.ENCODERS``, with arguments if any.
        shapes: Shape of each tensor: images of one height and width, and vectors.
        hidden: Units (mlp) or channels (conv) of each layer, from the observation inwards;
            the network's default if not given.
        activation: A name from ``networks.ACTIVATIONS``; the network's default if not given.

    Attributes:
        width: Number of features.

    Raises:
        ValueError: If the specification cannot be read or the network cannot be built.
        TypeError: If ``spec`` is not a string.
    """

    def __init__(
        self,
        spec: str,
        shapes: Sequence[tuple[int, ...]],
        hidden: Sequence[int] | None = None,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(spec, str):
            raise TypeError(f"network must be one of {', '.join(networks.ENCODERS)}, got {spec!r}")
        flat = issubclass(by_name(spec, networks.ENCODERS, "network")[0], networks.MLPEncoder)
        images = [] if flat else [shape[-2:] for shape in shapes if len(shape) > 1]
        self.image = images[0] if images else None
        sizes = [math.prod(shape) for shape in shapes]
        if self.image is not None:
            pixels = math.prod(self.image)
            each = (n if len(s) == 1 else n // pixels for s, n in zip(shapes, sizes, strict=True))
            self.encoder = networks.encoder(spec, (sum(each), *self.image), hidden, activation)
        elif flat:
            self.encoder = networks.encoder(spec, (sum(sizes),), hidden, activation)
        else:
            self.encoder = networks.encoder("mlp", (sum(sizes),), None, activation)
        self.width = self.encoder.width

    def forward(self, *tensors: Tensor) -> Tensor:
        """The features, shape ``(N, width)``, of tensors of shape ``(N, *shape)`` each."""
        if self.image is None:
            return self.encoder(torch.cat([tensor.flatten(1) for tensor in tensors], dim=1))
        return self.encoder(torch.cat([self._channels(tensor) for tensor in tensors], dim=1))

    def _channels(self, tensor: Tensor) -> Tensor:
        assert self.image is not None
        if tensor.ndim == 2:
            return tensor[:, :, None, None].expand(-1, -1, *self.image)
        return tensor.reshape(len(tensor), -1, *self.image)
