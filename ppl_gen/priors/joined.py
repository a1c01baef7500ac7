"""Priors made of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyro.distributions.torch_distribution import TorchDistribution
from torch import nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from ppl_gen import laws
from ppl_gen.component import by_name, whole
from ppl_gen.priors.base import Prior


class Product(Prior):
    r"""Parts of the code with priors of their own, such as a class beside a style.

    .. math:: p(z) = \prod_i p_i(z_i), \quad z = (z_1, z_2, \dots)

    Args:
        features: Size of ``z``.
        parts: The priors: their names with ``features``, which one of them may leave out to have
            the rest, or priors; as in ``("one-hot(features=10)", "standard-normal")``.

    Raises:
        ValueError: If there are no parts, or their features do not add up to those of the code.
    """

    def __init__(self, features: int, parts: Sequence[str | Prior]) -> None:
        super().__init__(features)
        if isinstance(parts, str) or not parts:
            raise ValueError(f"parts must be several priors, got {parts!r}")
        sizes = [_size(part) for part in parts]
        rest = self.features - sum(size or 0 for size in sizes)
        if sizes.count(None) == 1 and rest >= 1:
            sizes[sizes.index(None)] = rest
        elif None in sizes or rest:
            raise ValueError(
                f"parts must have {self.features} features in all, as the code has, got "
                f"{' + '.join('?' if size is None else str(size) for size in sizes)}: name the "
                "features of all but one"
            )
        made = zip(parts, sizes, strict=True)
        self.parts = nn.ModuleList(_made(part, size or 0) for part, size in made)

    def forward(self) -> TorchDistribution:
        return laws.Joined([part() for part in self.parts])

    @property
    def support(self) -> Constraint:
        lengths = [part.features for part in self._priors]
        return constraints.cat([part.support for part in self._priors], -1, lengths)

    @property
    def _priors(self) -> list[Prior]:
        return [part for part in self.parts if isinstance(part, Prior)]


def _table() -> Mapping[str, type[Prior]]:
    from ppl_gen.priors import PRIORS

    return PRIORS


def _size(part: str | Prior) -> int | None:
    if isinstance(part, Prior):
        return part.features
    _, arguments = by_name(part, _table(), "prior")
    return whole("features", arguments["features"]) if "features" in arguments else None


def _made(part: str | Prior, size: int) -> Prior:
    if isinstance(part, Prior):
        return part
    cls, arguments = by_name(part, _table(), "prior")
    return cls(**{**arguments, "features": size})
