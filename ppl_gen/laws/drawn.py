"""Laws that can be drawn from and not scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import torch
from pyro.distributions import constraints
from torch import Tensor

from ppl_gen.errors import NoDensityError
from ppl_gen.laws.base import Law


class Drawn(Law):
    """A law of which there are draws alone.

    Args:
        draw: Gives so many draws, ``(n, D)``.
        features: Size of a draw, D.
        name: Of what draws, for the message when a density is asked for.
    """

    batched: ClassVar[dict[str, int]] = {}
    support: Any = constraints.real_vector  # pyright: ignore

    def __init__(
        self,
        draw: Callable[[int], Tensor],
        features: int,
        name: str,
        validate_args: bool | None = None,
    ) -> None:
        self.draw, self.name = draw, name
        super().__init__(torch.Size(), torch.Size([features]), validate_args=validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            return self.draw(shape[:-1].numel()).reshape(shape)

    def log_prob(self, value: Tensor) -> NoReturn:
        raise NoDensityError(
            f"{self.name} can be drawn from and has no density: fit it with "
            "objective='adversarial', 'avb' or 'mmd', or take a prior that is scored"
        )
