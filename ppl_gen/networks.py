"""Networks: encoders from observations to features, decoders from codes to observations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ppl_gen.component import Component, built, whole, whole_sizes

# By how much codes move the first units of a decoder at the start, see Decoder.receive.
MOVED = 1.0
# Draws of a prior by which its place and scale are known.
DRAWN = 2000
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "leaky-relu": nn.LeakyReLU,
}


class Encoder(Component, ABC):
    """Features of an observation.

    Args:
        shape: Shape of one observation.
        width: Number of features.

    Raises:
        ValueError: If ``shape`` is empty or a size is below 1.
        TypeError: If ``shape`` is not a sequence of whole numbers.
    """

    shape: tuple[int, ...]
    width: int

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        self.shape = whole_sizes("shape", shape)
        self.width = whole("width", width)

    @abstractmethod
    def encode(self, rows: Tensor) -> Tensor:
        """The features, shape ``(B, width)``, of floating-point rows of shape ``(B, *shape)``."""

    def forward(self, x: Tensor) -> Tensor:
        """The features, for any number of leading dimensions.

        Args:
            x: Shape ``(*, *shape)``; integers are read as floating-point numbers.

        Returns:
            Shape ``(*, width)``.

        Raises:
            ValueError: If ``x`` does not end in ``shape``.
        """
        leading = x.shape[: max(x.ndim - len(self.shape), 0)]
        if x.shape != leading + self.shape:
            raise ValueError(f"x must end in the shape {self.shape}, got {tuple(x.shape)}")
        default = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        dtype = next((parameter.dtype for parameter in self.parameters()), default)
        rows = x.reshape(-1, *self.shape).to(dtype)
        return self.encode(rows).reshape(*leading, self.width)


class Decoder(Component, ABC):
    """The numbers that a likelihood needs, from a code.

    Args:
        latent: Size of the code.
        outputs: Numbers for each element of the observation.
        shape: Shape of one observation.

    Raises:
        ValueError: If ``shape`` is empty or a size is below 1.
        TypeError: If ``shape`` is not a sequence of whole numbers.
    """

    latent: int
    outputs: int
    shape: tuple[int, ...]

    def __init__(self, latent: int, outputs: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.latent = whole("latent", latent)
        self.outputs = whole("outputs", outputs)
        self.shape = whole_sizes("shape", shape)

    @abstractmethod
    def shift(self, offset: Tensor) -> None:
        """Let the numbers begin around ``offset``, shape ``(outputs, *shape)``."""

    def receive(self, prior: Distribution) -> None:
        """Let codes of a law move each of the first units by about one.

        Layers begin for inputs of mean 0 and deviation 1, and those of a few inputs and many units
        with small weights: then a decoder hardly moves with its code, and learns to use it late.
        On the digits a better start is worth 3 nats with a standard normal code of 8 features, and
        14 with directions.

        Args:
            prior: Law of a code, batch shape ``()``, event shape ``(latent,)``.
        """
        with torch.no_grad():
            codes = prior.sample(torch.Size([DRAWN]))
        layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        if len(layers) < 2:  # the first is the last one, too, which gives the numbers
            return
        lower, middle, upper = (codes.quantile(q, 0) for q in (0.25, 0.5, 0.75))
        scale = (upper - lower) / 1.349  # as of a normal law, and known of any
        # Values that are one of a few stay: each has a unit's weight to itself.
        few = torch.tensor([len(column.unique()) < len(codes) / 10 for column in codes.mT])
        few = few.to(codes.device) | (scale <= 0)
        # A law about 0 has a median beside it by chance.
        loc = torch.where(few | (middle.abs() < scale / 10), torch.zeros_like(middle), middle)
        with torch.no_grad():
            weight = layers[0].weight
            size = weight.square().mean().sqrt() * math.sqrt(self.latent) * scale
            weight.mul_(torch.where(few, torch.ones_like(size), MOVED / size))
            layers[0].bias.sub_(weight @ loc)

    @abstractmethod
    def decode(self, rows: Tensor) -> Tensor:
        """The numbers for rows of shape ``(B, latent)``: ``outputs * prod(shape)`` for each."""

    def forward(self, z: Tensor) -> Tensor:
        """The numbers, for any number of leading dimensions.

        Args:
            z: Shape ``(*, latent)``.

        Returns:
            Shape ``(*, outputs, *shape)``.

        Raises:
            ValueError: If ``z`` does not end in ``latent``.
        """
        if z.shape[-1:] != (self.latent,):
            raise ValueError(f"z must end in the shape {(self.latent,)}, got {tuple(z.shape)}")
        decoded = self.decode(z.reshape(-1, self.latent))
        return decoded.reshape(*z.shape[:-1], self.outputs, *self.shape)


class MLPEncoder(Encoder):
    """Fully connected layers, an activation after each.

    Args:
        shape: Shape of one observation, which is flattened.
        hidden: Units of each layer, from the observation inwards; the last is ``width``.
            Without a layer the features are the observation itself.
        activation: A name from ``ACTIVATIONS``.

    Raises:
        ValueError: If a size is below 1 or the activation is unknown.
    """

    def __init__(
        self, shape: Sequence[int], hidden: Sequence[int] = (200, 200), activation: str = "tanh"
    ) -> None:
        shape, hidden = whole_sizes("shape", shape), whole_sizes("hidden", hidden, least=0)
        super().__init__(shape, width=hidden[-1] if hidden else math.prod(shape))
        self.layers = mlp(math.prod(shape), hidden, activation=activation)

    def encode(self, rows: Tensor) -> Tensor:
        return self.layers(rows.flatten(1))


class MLPDecoder(Decoder):
    """Fully connected layers, an activation after each but the last.

    Args:
        latent: Size of the code.
        outputs: Numbers for each element of the observation.
        shape: Shape of one observation.
        hidden: Units of each layer, from the observation inwards, as in the encoder: the last
            one is next to the code. Without a layer the decoder is linear.
        activation: A name from ``ACTIVATIONS``.

    Raises:
        ValueError: If a size is below 1 or the activation is unknown.
    """

    def __init__(
        self,
        latent: int,
        outputs: int,
        shape: Sequence[int],
        hidden: Sequence[int] = (200, 200),
        activation: str = "tanh",
    ) -> None:
        super().__init__(latent, outputs, shape)
        hidden = whole_sizes("hidden", hidden, least=0)
        self.layers = mlp(latent, hidden[::-1], outputs * math.prod(self.shape), activation)

    def shift(self, offset: Tensor) -> None:
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(offset.flatten())

    def decode(self, rows: Tensor) -> Tensor:
        return self.layers(rows)


class ConvEncoder(Encoder):
    """Convolutions that each halve the image, then one fully connected layer.

    Args:
        shape: ``(channels, height, width)`` or ``(height, width)`` of one observation.
        hidden: Channels after each halving, from the image inwards.
        width: Number of features.
        activation: A name from ``ACTIVATIONS``.

    Raises:
        ValueError: If ``shape`` is not that of an image, the image is too small for the number
            of halvings, a size is below 1, or the activation is unknown.
    """

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int] = (32, 64),
        width: int = 256,
        activation: str = "relu",
    ) -> None:
        super().__init__(shape, width)
        hidden = whole_sizes("hidden", hidden)
        self.image, *_, (height, width_inside) = _image_and_sizes(self.shape, len(hidden))
        layers: list[nn.Module] = []
        for before, after in pairwise((self.image[0], *hidden)):
            layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1)]
            layers += [_activation(activation)]
        layers += [nn.Flatten(), nn.Linear(hidden[-1] * height * width_inside, width)]
        self.layers = nn.Sequential(*layers, _activation(activation))

    def encode(self, rows: Tensor) -> Tensor:
        return self.layers(rows.reshape(-1, *self.image))


class ConvDecoder(Decoder):
    """The mirror of :class:`ConvEncoder`: transposed convolutions that each double the image.

    Args:
        latent: Size of the code.
        outputs: Numbers for each element of the observation.
        shape: ``(channels, height, width)`` or ``(height, width)`` of one observation.
        hidden: Channels before each doubling, from the image inwards, as in the encoder.
        width: Units of the fully connected layer next to the code.
        activation: A name from ``ACTIVATIONS``.

    Raises:
        ValueError: If ``shape`` is not that of an image, the image is too small for the number
            of doublings, a size is below 1, or the activation is unknown.
    """

    def __init__(
        self,
        latent: int,
        outputs: int,
        shape: Sequence[int],
        hidden: Sequence[int] = (32, 64),
        width: int = 256,
        activation: str = "relu",
    ) -> None:
        super().__init__(latent, outputs, shape)
        hidden = whole_sizes("hidden", hidden)
        image, *sizes = _image_and_sizes(self.shape, len(hidden))
        inside = (hidden[-1], *sizes[-1])
        layers = [*mlp(latent, (whole("width", width), math.prod(inside)), activation=activation)]
        layers += [nn.Unflatten(1, inside)]
        channels = pairwise((*hidden[::-1], outputs * image[0]))
        for (before, after), (small, large) in zip(channels, pairwise(sizes[::-1]), strict=True):
            layers += [_doubling(before, after, small, large), _activation(activation)]
        self.layers = nn.Sequential(*layers[:-1])

    def shift(self, offset: Tensor) -> None:
        last = self.layers[-1]
        assert isinstance(last, nn.ConvTranspose2d)
        assert last.bias is not None
        with torch.no_grad():
            last.bias.copy_(offset.reshape(len(last.bias), -1).mean(1))

    def decode(self, rows: Tensor) -> Tensor:
        return self.layers(rows)


ENCODERS: dict[str, type[Encoder]] = {"mlp": MLPEncoder, "conv": ConvEncoder}
DECODERS: dict[str, type[Decoder]] = {"mlp": MLPDecoder, "conv": ConvDecoder}


def encoder(
    spec: str,
    shape: Sequence[int],
    hidden: Sequence[int] | None = None,
    activation: str | None = None,
) -> Encoder:
    """The encoder that a specification names.

    Args:
        spec: A name from ``ENCODERS``, with arguments if any, such as ``"conv(width=128)"``.
        shape: Shape of one observation.
        hidden: Units (mlp) or channels (conv) of each layer, from the observation inwards;
            the network's default if not given.
        activation: A name from ``ACTIVATIONS``; the network's default if not given.

    Raises:
        ValueError: If the specification cannot be read or the network cannot be built.
        TypeError: If ``spec`` is not a string.
    """
    return built(spec, ENCODERS, "network", shape, **_given(hidden, activation))


def decoder(
    spec: str,
    latent: int,
    outputs: int,
    shape: Sequence[int],
    hidden: Sequence[int] | None = None,
    activation: str | None = None,
) -> Decoder:
    """The decoder that a specification names.

    Args:
        spec: A name from ``DECODERS``, with arguments if any, such as ``"conv(width=128)"``.
        latent: Size of the code.
        outputs: Numbers for each element of the observation.
        shape: Shape of one observation.
        hidden: Units (mlp) or channels (conv) of each layer, from the observation inwards;
            the network's default if not given.
        activation: A name from ``ACTIVATIONS``; the network's default if not given.

    Raises:
        ValueError: If the specification cannot be read or the network cannot be built.
        TypeError: If ``spec`` is not a string.
    """
    return built(spec, DECODERS, "network", latent, outputs, shape, **_given(hidden, activation))


def mlp(
    inputs: int, hidden: Sequence[int], outputs: int | None = None, activation: str = "tanh"
) -> nn.Sequential:
    """Fully connected layers, an activation after each of ``hidden``, none after ``outputs``.

    Between tanh units the weights start as Glorot and Bengio (2010) propose, as in Burda et al.
    (2016), https://arxiv.org/abs/1509.00519; otherwise as torch proposes.

    Args:
        inputs: Size of the input.
        hidden: Units of each hidden layer, from the input on.
        outputs: Units of a last, linear layer, if any.
        activation: A name from ``ACTIVATIONS``.

    Raises:
        ValueError: If a size is below 1 or the activation is unknown.
    """
    widths = (whole("inputs", inputs), *whole_sizes("hidden", hidden, least=0))
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), _activation(activation)]
    if outputs is not None:
        layers += [nn.Linear(widths[-1], whole("outputs", outputs))]
    if activation == "tanh":
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


def _given(hidden: Sequence[int] | None, activation: str | None) -> dict[str, Sequence[int] | str]:
    options = {"hidden": hidden, "activation": activation}
    return {name: value for name, value in options.items() if value is not None}


def _image_and_sizes(shape: tuple[int, ...], stages: int) -> list[tuple[int, ...]]:
    """The shape as ``(C, H, W)``, then ``(H, W)`` after 0, 1, ..., ``stages`` halvings."""
    if len(shape) not in (2, 3):
        raise ValueError(
            "a convolutional network takes observations of shape (channels, height, width) "
            f"or (height, width), got {shape}"
        )
    channels, height, width = (1, *shape)[-3:]
    if min(height, width) < 2**stages:
        raise ValueError(
            f"an image that is halved {stages} times must be at least {2**stages} high and wide, "
            f"got {height} x {width}: give fewer channels in hidden"
        )
    sizes = [(height >> stage, width >> stage) for stage in range(stages + 1)]
    return [(channels, height, width), *sizes]


def _doubling(
    before: int, after: int, small: tuple[int, ...], large: tuple[int, ...]
) -> nn.ConvTranspose2d:
    odd_height, odd_width = (b - 2 * a for a, b in zip(small, large, strict=True))
    return nn.ConvTranspose2d(
        before, after, kernel_size=4, stride=2, padding=1, output_padding=(odd_height, odd_width)
    )
