"""Data drawn from a known truth, with the truth as labels."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from ppl_gen.data.dataset import Dataset, Part, divided, seeded
from ppl_gen.data.support import Support
from ppl_gen.errors import DataError

LINES = {
    "moons": "two interleaved half circles in the plane; labels say which",
    "pinwheel": "five bent arms in the plane; labels say which",
    "eight-gaussians": "eight normals on a circle in the plane; labels say which",
    "moon-phases": "16 x 16 pictures of a moon; labels are its phase, from 0.05 to 0.95",
}
DEFAULT_SIZE = 2000
DISC_RADIUS = 0.85
SCAN_LINES = 8


def load_synthetic(name: str, seed: int, size: int | None) -> Dataset:
    """Draw one of the synthetic data sets, divided 70/15/15 at random.

    Args:
        name: A key of ``LINES``.
        seed: The seed of the draws and of the division.
        size: How many observations to draw, 2000 unless told.

    Raises:
        DataError: If ``size`` is below 3.
    """
    size = DEFAULT_SIZE if size is None else size
    if isinstance(size, bool) or not isinstance(size, int) or size < 3:
        raise DataError(f"size must be a whole number of at least 3, got {size!r}")
    draw, support = DRAWS[name]
    generator = seeded(seed)
    whole = Part(draw(size, generator))
    return divided(name, support, whole, generator)


def moons(size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    r"""Draw from two half circles with noise.

    .. math::
        a \sim U(0, \pi), \quad
        x \mid y = 0 \sim \mathcal{N}((\cos a, \sin a), 0.1^2), \quad
        x \mid y = 1 \sim \mathcal{N}((1 - \cos a, 1/2 - \sin a), 0.1^2)

    Returns:
        Points, shape ``(size, 2)``, and the half circle, 0 or 1, shape ``(size,)``.

    Reference:
        ``sklearn.datasets.make_moons`` with ``noise=0.1``.
    """
    y = torch.randint(2, (size,), generator=generator)
    angle = math.pi * torch.rand(size, generator=generator)
    upper = torch.stack([angle.cos(), angle.sin()], -1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], -1)
    noise = 0.1 * torch.randn(size, 2, generator=generator)
    return torch.where(y[:, None] == 0, upper, lower) + noise, y


def pinwheel(size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    r"""Draw from five arms, each a normal bent around the origin.

    .. math::
        (r, s) \sim \mathcal{N}((1, 0), \mathrm{diag}(0.3^2, 0.1^2)), \quad
        x = 2 R(2 \pi y / 5 + e^r / 4) (r, s)

    where :math:`R(a)` rotates by :math:`a` against the clock.

    Returns:
        Points, shape ``(size, 2)``, and the arm, from 0 to 4, shape ``(size,)``.

    Reference:
        Johnson et al. (2016), https://arxiv.org/abs/1603.06277; the constants are those of
        Grathwohl et al. (2019), https://arxiv.org/abs/1810.01367
    """
    y = torch.randint(5, (size,), generator=generator)
    radial, tangential = torch.randn(2, size, generator=generator)
    radial, tangential = 1 + 0.3 * radial, 0.1 * tangential
    angle = 2 * math.pi * y / 5 + 0.25 * radial.exp()
    first = radial * angle.cos() - tangential * angle.sin()
    second = radial * angle.sin() + tangential * angle.cos()
    return 2 * torch.stack([first, second], -1), y


def eight_gaussians(size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    r"""Draw from eight equally likely normals on a circle.

    .. math:: x \mid y \sim \mathcal{N}(\sqrt{8} (\cos(\pi y / 4), \sin(\pi y / 4)), 1/8)

    Returns:
        Points, shape ``(size, 2)``, and the normal, from 0 to 7, shape ``(size,)``.

    Reference:
        Grathwohl et al. (2019), https://arxiv.org/abs/1810.01367
    """
    y = torch.randint(8, (size,), generator=generator)
    angle = math.pi * y / 4
    loc = math.sqrt(8) * torch.stack([angle.cos(), angle.sin()], -1)
    return loc + math.sqrt(1 / 8) * torch.randn(size, 2, generator=generator), y


def moon_phases(size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw phases uniformly from 0.05 to 0.95 and picture each.

    Here the truth is one number, and every picture between two others is known exactly. So what a
    decoder makes of the codes between a crescent and a full moon can be scored, not only looked at:
    a good one passes through the half moon, a bad one fades one picture into the other.

    Returns:
        Pictures, shape ``(size, 1, 16, 16)``, and phases, shape ``(size,)``.
    """
    phase = 0.05 + 0.9 * torch.rand(size, generator=generator)
    return moon_phase(phase), phase


def moon_phase(phase: Tensor, side: int = 16) -> Tensor:
    r"""Picture the moon at a phase.

    The disc has radius 0.85 in a square of half width 1. The sun moves around it: new moon at 0,
    lit from the right while waxing, full at 1/2, lit from the left while waning, new again at 1.
    Waxing, the point :math:`(u, v)` of the unit disc is lit when
    :math:`u > \cos(2 \pi t) \sqrt{1 - v^2}`; the waning moon is the mirror image of that at
    :math:`1 - t`. A pixel is the lit share of 8 scan lines, each exact along its length, so that
    the picture is continuous in the phase and its lit share of the disc is exactly
    :math:`(1 - \cos 2 \pi t) / 2`.

    Args:
        phase: Phases :math:`t` from 0 to 1, shape ``(N,)``.
        side: Pixels along each side.

    Returns:
        Intensities from 0 to 1, shape ``(N, 1, side, side)``, of the type of ``phase``.

    Raises:
        DataError: If ``phase`` is not a floating-point tensor of shape ``(N,)`` with values from 0
            to 1, or ``side`` is below 1.
    """
    if not isinstance(phase, Tensor) or not phase.is_floating_point() or phase.ndim != 1:
        raise DataError("phase must be a floating-point tensor of shape (N,)")
    if not ((phase >= 0) & (phase <= 1)).all():
        raise DataError("phase must lie from 0 to 1")
    if side < 1:
        raise DataError(f"side must be at least 1, got {side}")
    like = {"dtype": phase.dtype, "device": phase.device}
    edge = (2 * torch.arange(side + 1, **like) / side - 1) / DISC_RADIUS
    lines = side * SCAN_LINES
    v = ((2 * torch.arange(lines, **like) + 1) / lines - 1) / DISC_RADIUS
    limb = (1 - v.square()).clamp(min=0).sqrt()[:, None]
    terminator = (2 * math.pi * phase).cos()[:, None, None] * limb
    waxing = (phase <= 0.5)[:, None, None]
    left, right = torch.where(waxing, terminator, -limb), torch.where(waxing, limb, -terminator)
    lit = torch.minimum(right, edge[1:]) - torch.maximum(left, edge[:-1])
    share = lit.clamp(min=0) / (edge[1] - edge[0])
    return share.reshape(-1, 1, side, SCAN_LINES, side).mean(3).clamp(max=1)


DRAWS: dict[str, tuple[Callable[[int, Generator], tuple[Tensor, Tensor]], Support]] = {
    "moons": (moons, Support.REAL),
    "pinwheel": (pinwheel, Support.REAL),
    "eight-gaussians": (eight_gaussians, Support.REAL),
    "moon-phases": (moon_phases, Support.UNIT_INTERVAL),
}
