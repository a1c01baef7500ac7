"""Networks."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ppl_gen.networks import (
    ACTIVATIONS,
    ConvDecoder,
    ConvEncoder,
    Decoder,
    Encoder,
    MLPDecoder,
    MLPEncoder,
    decoder,
    encoder,
    mlp,
)

IMAGES = [(4, 4), (1, 4, 5), (3, 7, 9), (2, 8, 8), (1, 13, 4)]
ENCODERS: dict[str, Callable[[tuple[int, ...]], Encoder]] = {
    "mlp": lambda shape: MLPEncoder(shape, hidden=(7, 5)),
    "linear": lambda shape: MLPEncoder(shape, hidden=()),
    "conv": lambda shape: ConvEncoder(shape, hidden=(3, 4), width=6),
}
DECODERS: dict[str, Callable[[int, tuple[int, ...]], Decoder]] = {
    "mlp": lambda outputs, shape: MLPDecoder(3, outputs, shape, hidden=(7, 5)),
    "linear": lambda outputs, shape: MLPDecoder(3, outputs, shape, hidden=()),
    "conv": lambda outputs, shape: ConvDecoder(3, outputs, shape, hidden=(3, 4), width=6),
}


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_an_encoder_reads_a_batch_as_it_reads_each_row(
    make: Callable[[tuple[int, ...]], Encoder], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    part = make(shape)
    x = torch.randn(2, 3, *shape)
    together = part(x)
    alone = torch.stack([torch.stack([part(row) for row in rows]) for rows in x])
    assert together.shape == (2, 3, part.width)
    assert_close(together, alone)
    assert_close(part(x[0]), alone[0])


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS)
def test_a_decoder_reads_a_batch_as_it_reads_each_row(
    make: Callable[[int, tuple[int, ...]], Decoder], shape: tuple[int, ...], outputs: int
) -> None:
    torch.manual_seed(0)
    part = make(outputs, shape)
    z = torch.randn(2, 3, 3)
    together = part(z)
    alone = torch.stack([torch.stack([part(row) for row in rows]) for rows in z])
    assert together.shape == (2, 3, outputs, *shape)
    assert_close(together, alone)
    assert_close(part(z[0]), alone[0])


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_an_empty_batch_stays_empty(make: Callable[[tuple[int, ...]], Encoder]) -> None:
    part = make((1, 4, 4))
    assert part(torch.zeros(0, 1, 4, 4)).shape == (0, part.width)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.long, torch.bool, torch.float64])
@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_an_encoder_reads_other_types_as_the_same_numbers(
    make: Callable[[tuple[int, ...]], Encoder], dtype: torch.dtype
) -> None:
    part = make((1, 4, 4))
    x = torch.randint(2, (3, 1, 4, 4))
    assert_close(part(x.to(dtype)).float(), part(x.float()))


def test_every_pixel_counts_for_a_convolutional_encoder() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 7, 9, requires_grad=True)
    ConvEncoder((1, 7, 9), activation="tanh")(x).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_a_convolutional_decoder_reaches_every_pixel_from_the_code() -> None:
    torch.manual_seed(0)
    decoded = ConvDecoder(3, 1, (7, 9), activation="tanh")(torch.randn(2, 3))
    assert (decoded[0] != decoded[1]).all()


def test_the_decoder_mirrors_the_encoder() -> None:
    """Both count their layers from the observation inwards."""
    inwards = [layer.out_features for layer in _linear(MLPEncoder((9,), hidden=(7, 5)))]
    outwards = [layer.in_features for layer in _linear(MLPDecoder(3, 1, (9,), hidden=(7, 5)))]
    assert inwards == [7, 5]
    assert outwards == [3, 5, 7]


def _linear(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def test_without_a_hidden_layer_the_networks_are_linear() -> None:
    x = torch.randn(4, 2, 3)
    assert_close(MLPEncoder((2, 3), hidden=())(x), x.flatten(1))
    part = MLPDecoder(3, 1, (2, 3), hidden=())
    a, b, zero = torch.randn(3), torch.randn(3), torch.zeros(3)
    assert_close(part(a + b) - part(zero), part(a) + part(b) - 2 * part(zero))


def test_tanh_layers_start_as_glorot_and_bengio_propose() -> None:
    torch.manual_seed(0)
    (layer,) = _linear(mlp(200, (100,), activation="tanh"))
    bound = math.sqrt(6 / 300)
    assert bound * 0.99 < layer.weight.abs().max() <= bound
    assert_close(layer.weight.std().item(), bound / math.sqrt(3), rtol=0.02, atol=0)
    assert_close(layer.bias, torch.zeros(100))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_stands_after_each_hidden_layer_only(name: str) -> None:
    layers = mlp(4, (3, 2), 5, activation=name)
    kinds = [type(layer) for layer in layers]
    between = ACTIVATIONS[name]
    assert kinds == [nn.Linear, between, nn.Linear, between, nn.Linear]
    assert layers(torch.randn(6, 4)).shape == (6, 5)


def test_a_specification_builds_the_two_networks() -> None:
    part = encoder("conv(width=9)", (1, 8, 8), hidden=(2,), activation="elu")
    assert isinstance(part, ConvEncoder)
    assert part.width == 9
    assert part.arguments["activation"] == "elu"
    other = decoder("mlp", 3, 2, (8,), hidden=None, activation=None)
    assert other.arguments["hidden"] == (200, 200)


@pytest.mark.parametrize("shape", [(64,), (2, 1, 8, 8)])
def test_a_convolutional_network_takes_images_only(shape: tuple[int, ...]) -> None:
    for build in (lambda: ConvEncoder(shape), lambda: ConvDecoder(3, 1, shape)):
        with pytest.raises(ValueError, match=r"\(channels, height, width\) or \(height, width\)"):
            build()


def test_an_image_too_small_for_its_halvings_is_refused() -> None:
    with pytest.raises(ValueError, match=r"halved 2 times must be at least 4 .* got 3 x 8"):
        ConvEncoder((1, 3, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spec": "transformer"}, "network must be one of mlp, conv, got 'transformer'"),
        ({"spec": "mlp", "activation": "sine"}, "activation must be one of tanh, .* got 'sine'"),
        ({"spec": "mlp", "hidden": (5, 0)}, "each size of hidden must be at least 1, got 0"),
        ({"spec": "mlp(hidden=7)"}, "hidden must be a sequence of sizes"),
        ({"spec": "mlp(hidden=(7,))", "hidden": (7,)}, "multiple values for keyword .*hidden"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(shape=(8, 8), **arguments)


def test_a_tensor_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must end in the shape \(8,\), got \(2, 4\)"):
        MLPEncoder((8,))(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"x must end in the shape \(2, 8\), got \(8,\)"):
        MLPEncoder((2, 8))(torch.zeros(8))
    with pytest.raises(ValueError, match=r"z must end in the shape \(3,\), got \(3, 2\)"):
        MLPDecoder(3, 1, (8,))(torch.zeros(3, 2))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_first_units_are_moved_alike_wherever_a_prior_lies(kind: str) -> None:
    """Their variance over codes is 1."""
    torch.manual_seed(0)
    for loc, scale in ((0.0, 1.0), (40.0, 0.1), (0.0, 30.0)):
        part = decoder(kind, 50, 1, (1, 8, 8), hidden=(400,), activation="tanh")
        law = torch.distributions.Normal(torch.full((50,), loc), scale)
        part.receive(torch.distributions.Independent(law, 1))
        first = next(m for m in part.modules() if isinstance(m, torch.nn.Linear))
        reached = first(law.sample(torch.Size([1000])))
        assert reached.var(0).mean().item() == pytest.approx(1.0, rel=0.1)
        assert reached.mean(0).abs().mean() < 0.2


def test_values_that_are_one_of_a_few_are_received_as_they_are() -> None:
    part = decoder("mlp", 3, 1, (4,), hidden=(7,))
    before = {name: value.clone() for name, value in part.state_dict().items()}
    part.receive(torch.distributions.OneHotCategorical(torch.ones(3)))
    assert all(torch.equal(value, before[name]) for name, value in part.state_dict().items())
    linear = decoder("mlp", 3, 1, (4,), hidden=())
    before = linear.layers[0].weight.clone()
    linear.receive(
        torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), 9), 1)
    )
    assert torch.equal(linear.layers[0].weight, before)
