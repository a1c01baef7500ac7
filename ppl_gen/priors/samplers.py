"""Priors in the shape of something, of which there are draws alone."""

from __future__ import annotations

import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_gen.component import positive, whole
from ppl_gen.priors.base import ImplicitPrior
from ppl_gen.priors.shapes import Flower


class FlowerSampler(ImplicitPrior):
    """The law of :class:`Flower`, as draws only.

    What is matched to these draws can be scored with the flower's density: the twins show how well
    a match without a density does.

    Args:
        features: Size of ``z``, an even number.
        petals: How many.
        depth: How far the outline goes in between them, from 0 to below 1.
        edge: 1 is as soft as a normal law, more is sharper.
        scale: Mean radius of the outline.

    Raises:
        ValueError: As :class:`Flower` does.
    """

    def __init__(
        self,
        features: int,
        petals: int = 6,
        depth: float = 0.6,
        edge: float = 2.0,
        scale: float = 2.0,
    ) -> None:
        super().__init__(features)
        self.flower = Flower(features, petals, depth, edge, scale)

    def sample(self, n: int) -> Tensor:
        return self.flower().sample(torch.Size((n,)))


class Planar(ImplicitPrior):
    """Draws in the plane; of more than two features each pair is drawn by itself.

    Args:
        features: Size of ``z``, an even number.
        scale: Standard deviation, about, of every feature.

    Raises:
        ValueError: If ``features`` is not even, or ``scale`` is not positive.
    """

    scale: Tensor

    def __init__(self, features: int, scale: float = 1.0) -> None:
        super().__init__(features)
        if self.features % 2:
            raise ValueError(
                f"features must be even, two for each plane, got {features}: take one more or less"
            )
        # A buffer, for it says on which device to draw.
        self.register_buffer("scale", torch.tensor(positive("scale", scale)), persistent=False)

    def sample(self, n: int) -> Tensor:
        return self.scale * self.planar(n * self.features // 2).reshape(n, self.features)

    @abstractmethod
    def planar(self, n: int) -> Tensor:
        """So many points in the plane, of unit scale, ``(n, 2)``."""

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, dtype=self.scale.dtype, device=self.scale.device)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=self.scale.dtype, device=self.scale.device)


class SwissRoll(Planar):
    r"""Points along a spiral, in the shape of a rolled cake.

    .. math:: z = \frac{t}{7} (\cos t, \sin t) + 0.05 \, \epsilon, \quad
        t = \tfrac{3 \pi}{2} (1 + 2 u), \; u \sim \mathrm{U}(0, 1)

    Args:
        features: Size of ``z``, an even number.
        scale: Standard deviation, about, of every feature.

    Raises:
        ValueError: If ``features`` is not even, or ``scale`` is not positive.

    Reference:
        Makhzani et al. (2016), figure 2, https://arxiv.org/abs/1511.05644
    """

    def planar(self, n: int) -> Tensor:
        turn = 1.5 * math.pi * (1 + 2 * self._uniform(n))
        curve = turn.unsqueeze(1) * torch.stack([turn.cos(), turn.sin()], 1)
        return curve / 7.0 + 0.05 * self._normal(n, 2)


class Pinwheel(Planar):
    """Arms that are bent around a centre.

    Args:
        features: Size of ``z``, an even number.
        arms: How many.
        scale: Standard deviation, about, of every feature.

    Raises:
        ValueError: If ``features`` is not even, ``arms`` is below 1, or ``scale`` is not positive.

    Reference:
        Johnson et al. (2016), section 2, https://arxiv.org/abs/1603.06277
    """

    def __init__(self, features: int, arms: int = 5, scale: float = 1.0) -> None:
        super().__init__(features, scale)
        self.arms = whole("arms", arms)

    def planar(self, n: int) -> Tensor:
        along = 1 + 0.3 * self._normal(n)
        across = 0.06 * self._normal(n)
        arm = (self._uniform(n) * self.arms).floor()
        angle = 2 * math.pi * arm / self.arms + 0.25 * along.exp()
        sine, cosine = angle.sin(), angle.cos()
        turned = torch.stack([along * cosine - across * sine, along * sine + across * cosine], 1)
        return 1.35 * turned


class EightGaussians(Planar):
    """Eight narrow normal laws on a circle.

    Args:
        features: Size of ``z``, an even number.
        spread: Standard deviation of each, with the circle's radius 1.4.
        scale: Standard deviation, about, of every feature.

    Raises:
        ValueError: If ``features`` is not even, or another number is not positive.
    """

    def __init__(self, features: int, spread: float = 0.1, scale: float = 1.0) -> None:
        super().__init__(features, scale)
        self.spread = positive("spread", spread)

    def planar(self, n: int) -> Tensor:
        angle = (self._uniform(n) * 8).floor() * math.pi / 4
        centre = 1.4 * torch.stack([angle.cos(), angle.sin()], 1)
        return centre + self.spread * self._normal(n, 2)


class Checkerboard(Planar):
    """The black squares of a board of four by four.

    Args:
        features: Size of ``z``, an even number.
        scale: Standard deviation, about, of every feature.

    Raises:
        ValueError: If ``features`` is not even, or ``scale`` is not positive.
    """

    def planar(self, n: int) -> Tensor:
        column = (self._uniform(n) * 4).floor()
        row = 2 * (self._uniform(n) * 2).floor() + column % 2
        corner = torch.stack([column, row], 1) - 2
        return 0.87 * (corner + self._uniform(n, 2))


class Image(Planar):
    """A grey picture: the brighter a place, the more draws are there.

    Args:
        features: Size of ``z``, an even number.
        picture: Brightness, ``(height, width)``, rows from the top: an array, a tensor, nested
            lists, or the path of a picture.
        scale: Half of the picture's longer side.

    Raises:
        ValueError: If ``features`` is not even, ``scale`` is not positive, or ``picture`` is no
            grey picture with some brightness.
    """

    def __init__(self, features: int, picture: Any, scale: float = 2.0) -> None:
        super().__init__(features, scale)
        self.register_buffer("brightness", _grey(picture), persistent=False)
        # What is remembered is the picture itself: its file may be elsewhere when a run is loaded.
        self.arguments["picture"] = self.brightness.tolist()

    brightness: Tensor

    def planar(self, n: int) -> Tensor:
        height, width = self.brightness.shape
        chosen = torch.multinomial(self.brightness.flatten(), n, replacement=True)
        row, column = chosen // width, chosen % width
        # Anywhere within the pixel, the first row on top.
        place = torch.stack([column - width / 2, height / 2 - 1 - row], 1) + self._uniform(n, 2)
        return place / (max(height, width) / 2)


def _grey(picture: Any) -> Tensor:
    """Brightness as a tensor ``(height, width)``.

    Raises:
        ValueError: If it cannot be read, or has another number of dimensions, or is no brightness.
    """
    if isinstance(picture, str | Path):
        from PIL import Image as Pillow

        try:
            with Pillow.open(picture) as opened:
                picture = opened.convert("L")
        except OSError as error:
            raise ValueError(f"picture {str(picture)!r} cannot be read: {error}") from error
    try:
        if not isinstance(picture, Tensor):
            picture = torch.from_numpy(np.array(picture, dtype=np.float32))
        grey = picture.to(torch.get_default_dtype())
    except (TypeError, ValueError) as error:
        raise ValueError(f"picture must be grey, of numbers, got {type(picture)}") from error
    if grey.ndim != 2:
        raise ValueError(f"picture must be of shape (height, width), got {tuple(grey.shape)}")
    if not grey.isfinite().all() or (grey < 0).any() or grey.sum() <= 0:
        raise ValueError("picture must be finite, nowhere below 0 and somewhere above it")
    if grey.numel() >= 2**24:
        raise ValueError(f"picture must have fewer than 2**24 pixels, got {grey.numel()}")
    return grey
