"""Pure functions of what rows owe to numbers that are known of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

LEVELS = 20  # numbers of so many values at most are taken for groups
MOST_GROUPS = 0.2  # whole numbers are also taken for groups where five rows a group remain
LEAST = 3  # rows without which a group tells nothing
FIFTHS = 5
MOST_COLUMNS = 6  # of more, pairs are not looked at
MOST_NUMBERS = 20_000_000  # that the functions of one contrast may take
OUTERMOST = 4  # medians, up to which a distance counts
NORMAL = math.sqrt(math.pi / 2)  # by which the deviation of a normal law exceeds its mean distance

Kind = Literal["groups", "stretches", "slopes", "product"]


@dataclass(frozen=True)
class Contrast:
    r"""Functions of what is known of each row, by which observations may differ.

    Attributes:
        kind: Levels of groups or of stretches of a number, slopes along one within the groups of
            another, or the product of two.
        names: Of the numbers that are known.
        functions: Values of each in every row, ``(N, K)``, with
            :math:`\sum_n f_k(n) f_l(n) = N \delta_{kl}`.
        common: What all of them share and is no difference between them, a unit vector ``(K,)``:
            the level of all groups, or one slope for all; empty if nothing.
        beside: Further functions of the same kind, which explain what is no difference of slopes:
            levels of groups, or what each of two numbers explains, ``(N, J)``.
        shares: Of the rows in each group, ``(K,)``.
        labels: What each is called, such as ``school 3``.
    """

    kind: Kind
    names: tuple[str, ...]
    functions: Tensor
    common: Tensor
    beside: Tensor
    shares: Tensor
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """By what observations may differ, in words."""
        if self.kind == "slopes":
            return f"along {self.names[1]} by {self.names[0]}"
        if self.kind == "product":
            return f"along {self.names[0]} times {self.names[1]}"
        return f"{'by' if self.kind == 'groups' else 'along'} {self.names[0]}"


def contrasts_of(columns: Mapping[str, Tensor]) -> list[Contrast]:
    """The ways in which observations may differ by each number, and by pairs of up to six.

    Numbers of up to 20 values are groups, and so are whole numbers of at least five rows a value;
    others are cut at their quintiles. Of a pair the slope along one may differ by the groups of the
    other, or, where neither tells groups apart, they may act by their product. Groups of fewer than
    three rows tell nothing.

    Args:
        columns: What is known of each row, ``(N,)`` each, NaN where it is missing.
    """
    alone = {name: _alone(name, values.double()) for name, values in columns.items()}
    found = [contrast for of_one in alone.values() for contrast in of_one]
    grouped = {name for name, of_one in alone.items() if any(c.kind == "groups" for c in of_one)}
    if len(columns) <= MOST_COLUMNS:
        for one, other in combinations(columns, 2):
            pair = (one, other) if one in grouped else (other, one)
            values = columns[pair[0]].double(), columns[pair[1]].double()
            both = (_slopes if pair[0] in grouped else _product)(pair, *values)
            found += [] if both is None else [both]
    return found


def effects(x: Tensor, contrast: Contrast) -> tuple[Tensor, Tensor]:
    """How strongly rows follow each function, and how strongly their scatter about that does.

    Both are in deviations of what the functions leave open, so that noise of the wrong size is none
    of an effect. Scatter is the distance from what the functions explain, times what makes it the
    deviation of a normal law; a distance counts up to four times the median one, so that no single
    row makes a scatter of its own.

    Args:
        x: Replicates, ``(S, N, E)``, in which what is missing is 0 as the mean is.
        contrast: What they may follow.

    Returns:
        ``(S, K, E)`` each; the sum of their squares is what they explain.
    """
    whole = _projected(x, contrast.functions)
    rest = x - torch.einsum("nk,ske->sne", contrast.functions, whole)
    beside = _projected(x, contrast.beside)
    rest = rest - torch.einsum("nk,ske->sne", contrast.beside, beside)
    scale = rest.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
    far = rest.abs()
    middle = far.median(1, keepdim=True).values
    far = far.minimum(torch.where(middle > 1e-6 * scale, OUTERMOST * middle, scale))
    own = far.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
    far = NORMAL * (far - far.mean(1, keepdim=True))
    return (
        _without_common(whole, contrast) / scale,
        _without_common(_projected(far, contrast.functions), contrast) / own,
    )


def _projected(x: Tensor, functions: Tensor) -> Tensor:
    return torch.einsum("nk,sne->ske", functions, x) / x.shape[1]


def _without_common(found: Tensor, contrast: Contrast) -> Tensor:
    if not len(contrast.common):
        return found
    shared = torch.einsum("k,ske->se", contrast.common, found)
    return found - contrast.common[:, None] * shared[:, None]


def centred(x: Tensor) -> Tensor:
    """Replicates, ``(S, N, E)``, less their mean over rows; 0 where they are NaN."""
    return (x.double() - x.double().nanmean(1, keepdim=True)).nan_to_num()


def explained(observed: Tensor, replicated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What effects explain that replicates have not, as a root mean square over rows.

    Args:
        observed: Effects of the data, ``(K, E)``.
        replicated: Of replicates, ``(S, K, E)``.

    Returns:
        Of the data, ``()``, and of each replicate, ``(S,)``, treated alike; and of each function
        how far the data lie above the replicates, ``(K, E)``.
    """
    both = torch.cat([observed[None], replicated])
    each = (both - both.mean(0)).square().sum(1).mean(1).sqrt()
    return each[0], each[1:], observed - replicated.mean(0)


def _alone(name: str, values: Tensor) -> list[Contrast]:
    """By one column: by its values, along it, or both where whole numbers may be either."""
    levels = values[~values.isnan()].unique()
    joint = " = " if " " in name else " "
    labels = [f"{name}{joint}{level:g}" for level in levels.tolist()]
    of = torch.where(values.isnan(), -1, torch.searchsorted(levels, values.contiguous()))
    by_level = _grouped("groups", (name,), of, labels)
    found = [by_level]
    if len(levels) > LEVELS:
        cuts = levels.new_tensor(range(1, FIFTHS)) / FIFTHS
        cuts = values[~values.isnan()].quantile(cuts)
        fifth = torch.where(values.isnan(), -1, torch.searchsorted(cuts, values.contiguous()))
        stretches = [f"{name} in fifth {i + 1}" for i in range(FIFTHS)]
        whole = bool((levels == levels.round()).all())
        found = found if whole and len(levels) <= MOST_GROUPS * len(values) else []
        found.append(_grouped("stretches", (name,), fifth, stretches))
    return [contrast for contrast in found if contrast is not None]


def _grouped(
    kind: Kind,
    names: tuple[str, ...],
    of: Tensor,
    labels: Sequence[str],
    along: Tensor | None = None,
) -> Contrast | None:
    """Levels of groups, or slopes along a number within them."""
    sizes = torch.bincount(of[of >= 0], minlength=len(labels)).double()
    weight, length = torch.ones(len(of), dtype=torch.float64), sizes
    inside = of >= 0
    if along is not None:

        def summed(value: Tensor) -> Tensor:
            return torch.zeros_like(sizes).index_add(0, of[inside], value[inside])

        weight = along - (summed(along) / sizes.clamp_min(1))[of]
        length = summed(weight.square())
    enough = (sizes >= LEAST) & (length > 1e-12 * length.sum().clamp_min(1e-300))
    kept = enough.nonzero().flatten()
    if len(kept) < 2 or len(kept) * len(of) > MOST_NUMBERS:
        return None
    belongs = (of[:, None] == kept).double()
    common = length[kept].sqrt()
    shares = sizes[kept] / len(of)
    return Contrast(
        kind,
        names,
        belongs * weight[:, None] / (length[kept] / len(of)).sqrt(),
        common / common.norm(),
        belongs[:, :0] if along is None else belongs / shares.sqrt(),
        shares,
        tuple(labels[int(i)] for i in kept),
    )


def _slopes(names: tuple[str, str], group: Tensor, along: Tensor) -> Contrast | None:
    """Slopes along one number that may differ by groups."""
    levels = group[~group.isnan()].unique()
    of = torch.searchsorted(levels, group.contiguous())
    of = torch.where(group.isnan() | along.isnan(), -1, of)
    spread = along[~along.isnan()].std().clamp_min(1e-300)
    along = (along / spread).nan_to_num()
    return _grouped("slopes", names, of, [f"{names[0]} {v:g}" for v in levels.tolist()], along)


def _product(names: tuple[str, str], one: Tensor, other: Tensor) -> Contrast | None:
    """The product of two numbers, less what each of them explains."""
    both = torch.stack([one, other], 1)
    both = ((both - both.nanmean(0)) / both.nan_to_num().std(0).clamp_min(1e-300)).nan_to_num()
    first = torch.cat([torch.ones(len(one), 1, dtype=torch.float64), both], 1)
    first = torch.linalg.qr(first).Q * len(one) ** 0.5
    product = both.prod(1)
    rest = product - first @ (first.T @ product) / len(one)
    size = rest.square().mean().sqrt()
    if not size > 1e-6:
        return None
    functions, nothing = (rest / size)[:, None], torch.zeros(0, dtype=torch.float64)
    label = " times ".join(names)
    return Contrast("product", names, functions, nothing, first, torch.ones(1), (label,))
