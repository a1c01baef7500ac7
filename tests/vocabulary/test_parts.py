"""Promises that every part keeps: it remembers how it was built, and can be built again."""

import re
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from ppl_gen.component import Component, built, by_name, from_configuration, whole_sizes
from ppl_gen.likelihoods import Bernoulli, Categorical, Gaussian, Poisson
from ppl_gen.models import PPCA, VAE, AutoEncoder
from ppl_gen.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from ppl_gen.posteriors import DiagonalNormal, Flow, FullNormal, Point
from ppl_gen.priors import (
    PRIORS,
    FlowPrior,
    Image,
    MixturePrior,
    OneHot,
    Product,
    StandardNormal,
)

PARTS: dict[str, Callable[[], Component]] = {
    "standard normal": lambda: StandardNormal(3),
    "mixture": lambda: MixturePrior(3, components=4),
    "bernoulli": lambda: Bernoulli((2, 3)),
    "gaussian, learned": lambda: Gaussian((2, 3)),
    "gaussian, per pixel": lambda: Gaussian((2, 3), scale="per-pixel", floor=0.1),
    "gaussian, fixed": lambda: Gaussian((2, 3), 0.5),
    "categorical": lambda: Categorical((2, 3), categories=5),
    "poisson": lambda: Poisson((2, 3)),
    "diagonal": lambda: DiagonalNormal(5, 3),
    "full": lambda: FullNormal(5, 3),
    "point": lambda: Point(5, 3),
    "mlp encoder": lambda: MLPEncoder((2, 3), hidden=(7,), activation="gelu"),
    "mlp decoder": lambda: MLPDecoder(3, 2, (2, 3), hidden=(7,)),
    "conv encoder": lambda: ConvEncoder((2, 5, 6), hidden=(4, 5), width=7),
    "conv decoder": lambda: ConvDecoder(3, 2, (2, 5, 6), hidden=(4, 5), width=7),
    "product": lambda: Product(4, (OneHot(3), StandardNormal(1))),
    "flow": lambda: FlowPrior(3, "maf", hidden=(5,)),
    "picture": lambda: Image(2, [[0.0, 1.0], [2.0, 3.0]]),
    "flow posterior": lambda: Flow(5, 3, hidden=(7,)),
    "vae with pseudo-inputs": lambda: VAE((6,), 2, prior="vamp(components=3)", hidden=(7,)),
    "vae": lambda: VAE((6,), 2, prior=MixturePrior(2, 3), hidden=(7,)),
    "autoencoder": lambda: AutoEncoder((6,), 2, likelihood=Gaussian((6,), 0.5), hidden=(7,)),
    "ppca": lambda: PPCA((6,), 2),
}
parts = pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)


@parts
def test_a_configuration_rebuilds_the_same_part(make: Callable[[], Component]) -> None:
    part = make()
    again = from_configuration(part.configuration)
    assert type(again) is type(part)
    assert again.configuration == part.configuration
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in part.state_dict().items()
    }


@parts
def test_a_rebuilt_part_has_the_fresh_weights_of_its_seed(make: Callable[[], Component]) -> None:
    part = make()
    torch.manual_seed(1)
    first = part.rebuild()
    torch.manual_seed(1)
    second = part.rebuild()
    assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert all(a is not b for a, b in zip(first.parameters(), part.parameters(), strict=True))


@parts
def test_a_part_works_in_double_precision(make: Callable[[], Component]) -> None:
    part = make().double()
    assert all(tensor.dtype == torch.float64 for tensor in part.parameters())


def test_numbers_of_numpy_are_remembered_as_plain_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    part = MixturePrior(numpy.int64(3), numpy.int32(4))
    assert part.configuration["arguments"] == {"features": 3, "components": 4}
    assert type(part.configuration["arguments"]["features"]) is int


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("daisy", f"prior must be one of {', '.join(PRIORS)}, got 'daisy'"),
        ("mixture(5)", "every argument needs its name"),
        ("mixture(components=2)(components=3)", "nothing may follow the closing bracket"),
        ("mixture(components=", "prior must be a name or name"),
        ("mixture(component=5)", "unexpected keyword argument 'component'"),
        ("mixture(features=5)", "multiple values for argument 'features'"),
        ("mixture(components='many')", "components must be a whole number, got 'many'"),
        ("mixture(components=0)", "components must be at least 1, got 0"),
    ],
)
def test_a_wrong_specification_is_named_in_a_sentence(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        built(spec, PRIORS, "prior", 2)


def test_a_specification_gives_constructor_and_arguments() -> None:
    assert by_name(" mixture (components=50)", PRIORS, "prior") == (
        MixturePrior,
        {"components": 50},
    )


@pytest.mark.parametrize("shape", [(), (0,), (3, -1)])
def test_a_shape_holds_at_least_one_positive_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape must"):
        whole_sizes("shape", shape)


@pytest.mark.parametrize("shape", [64, "64", (2.5,), None])
def test_a_shape_is_a_sequence_of_whole_numbers(shape: object) -> None:
    with pytest.raises(TypeError, match=r"shape must be a (sequence|whole number)"):
        whole_sizes("shape", shape)  # pyright: ignore[reportArgumentType]
