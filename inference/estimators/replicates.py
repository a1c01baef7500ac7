"""Pure functions of data and of replicates of them: whether one law can have made both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["binary", "categories", "counts", "real"]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FEW_VALUES = 20  # whole numbers of so many values at most are described by the share of each
FEW_ELEMENTS = 20  # so many are columns, each with a unit of its own; more are pixels, of one unit
SORTED = 20_000  # numbers of a replicate that are sorted for its quantiles
# What hardly ever varies, as the median of counts, would else hide all other statistics by the rare
# replicate in which it does.
TOLERANCE = 0.01


@dataclass(frozen=True)
class ReplicateTest:
    """How far statistics of data lie from those of replicates.

    Attributes:
        distance: From their mean over replicates, in the given units, ``(K,)``.
        p_value: How often the replicate that differs most from the others, in whichever statistic,
            does so at least as much, ``(K,)``: corrected for their number.
    """

    distance: Tensor
    p_value: Tensor


def replicate_test(
    observed: Tensor, replicated: Tensor, units: Tensor, inflation: float = 1.0
) -> ReplicateTest:
    r"""Test whether data are one more of their replicates, by many statistics at once.

    Data and replicates are treated alike: each statistic is centred on all of them and divided by
    :math:`\sqrt{s^2 + (0.01 u)^2}`, with its deviation :math:`s` and unit :math:`u`. The p-value
    of a statistic compares it with the largest of every replicate, so that under the null
    hypothesis the smallest of all is uniform, however many statistics there are and however they
    depend on each other.

    Args:
        observed: Statistics of the data, ``(K,)``.
        replicated: The same of replicates, ``(S, K)``.
        units: What a distance of 1 is, ``(K,)``, above 0.
        inflation: By how much more the data may lie from the mean than a replicate does, as
            :math:`\sqrt{1 + n / m}` if the law was estimated from :math:`m` rows and is held
            against :math:`n` others.

    Raises:
        ValueError: If shapes disagree, there are fewer than 2 replicates, a value is not finite, or
            a unit is not above 0.

    Reference:
        Gelman et al. (1996), https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n41/j6n41.htm; the
        correction is that of Westfall and Young (1993), single-step maxT
    """
    if replicated.dim() != 2 or len(replicated) < 2 or replicated.shape[1:] != observed.shape:
        raise ValueError(
            "replicated must have shape (S, K), of at least 2 replicates of the K statistics in "
            f"observed, got {tuple(replicated.shape)} and {tuple(observed.shape)}"
        )
    if not (observed.isfinite().all() and replicated.isfinite().all()):
        raise ValueError("statistics must be finite, got some that are not")
    if not (units > 0).all():
        raise ValueError(f"units must be above 0, got {units.min().item()}")
    both = torch.cat([observed[None], replicated]).double()
    centred = (both - both.mean(0)) / units
    away = centred.abs() / (centred.square().mean(0) + TOLERANCE**2).sqrt()
    largest = away[1:].amax(1)
    above = (largest[:, None] >= away[0] / inflation - 1e-9).double().sum(0)
    distance = (both[0] - both[1:].mean(0)).abs() / units
    return ReplicateTest(distance, (1 + above) / (1 + len(replicated)))


def kind_of(data: Tensor, replicate: Tensor) -> Kind:
    """What the numbers of data and replicate are: 0 and 1, few or many whole numbers, or real.

    Args:
        data: Of any shape, NaN where missing.
        replicate: The same.
    """
    values = torch.cat([rows[~rows.isnan()].double() for rows in (data, replicate)])
    if not values.numel() or not torch.equal(values, values.round()):
        return "real"
    found = values.unique()
    if set(found.tolist()) <= {0.0, 1.0}:
        return "binary"
    return "categories" if len(found) <= FEW_VALUES else "counts"


def pooled_statistics(x: Tensor, kind: Kind, values: Tensor | None = None) -> dict[str, Tensor]:
    """Statistics of all numbers of each replicate together, ``(S,)`` each.

    Mean, standard deviation and, of an observation of several elements, the deviation among rows
    of their mean, which shows whether elements go together. Of real numbers and of many counts
    minimum, maximum and quantiles, of 20,000 numbers chosen by chance where there are more; of
    counts the share of zeros; of categories that of each value.

    Args:
        x: Replicates, ``(S, N, E)``, NaN where missing, in all replicates alike.
        kind: What its numbers are.
        values: Of categories, those whose shares are wanted; of real numbers any.
    """
    flat = x.flatten(1)
    flat = flat[:, ~flat[0].isnan()]
    found = {"mean": flat.mean(1)}
    if kind != "binary":
        found["sd"] = flat.std(1, correction=0)
    if x.shape[2] > 1 and x.shape[1] > 1:
        found["sd of rows' means"] = x.nanmean(2).nan_to_num().std(1, correction=0)
    if kind in ("real", "counts"):
        found["minimum"], found["maximum"] = flat.amin(1), flat.amax(1)
        # torch.quantile refuses more than 16 million numbers.
        ordered = flat[:, some(flat.shape[1])].sort(1).values
        last = ordered.shape[1] - 1
        for q in QUANTILES:
            found[f"{q:.0%} quantile"] = ordered[:, round(q * last)]
    if kind == "counts":
        found["share of 0"] = (flat == 0).double().mean(1)
    if kind == "categories" or (kind == "real" and values is not None):
        shown = flat.unique() if values is None else values
        for value in shown.tolist():
            found[f"share of {value:g}"] = (flat == value).double().mean(1)
    return found


def some(count: int) -> Tensor:
    """Numbers of up to ``SORTED`` of so many, always the same."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:SORTED]


def element_statistics(x: Tensor) -> Tensor:
    """Mean and standard deviation of each element of an observation, ``(S, 2, E)``.

    Args:
        x: Replicates, ``(S, N, E)``, NaN where missing; an element that always is gives 0.
    """
    mean = x.nanmean(1, keepdim=True)
    deviation = (x - mean).square().nanmean(1).sqrt()
    return torch.stack([mean[:, 0], deviation], 1).nan_to_num()


def correlations(x: Tensor) -> Tensor:
    """Correlation of each pair of elements, ``(S, E (E - 1) / 2)``.

    Args:
        x: Replicates, ``(S, N, E)``, NaN where missing, in all alike; one that does not vary goes
            with none.
    """
    away = x.double() - x.double().nanmean(1, keepdim=True)
    scale = away.square().nanmean(1, keepdim=True).sqrt().clamp_min(1e-12)
    unit = (away / scale).nan_to_num()
    products = unit.transpose(1, 2) @ unit / x.shape[1]
    first, second = torch.triu_indices(x.shape[2], x.shape[2], 1)
    return products[:, first, second]


def shape(x: Tensor) -> Tensor:
    r"""L-skewness and L-kurtosis of each element, ``(S, 2, E)``.

    The ratios :math:`\tau_3 = \lambda_3 / \lambda_2` and :math:`\tau_4 = \lambda_4 / \lambda_2`
    of expectations of ordered rows. They know no scale, exist where the mean does, and hang less
    on the outermost rows than moments do. A normal law has 0 and 0.123, a uniform one 0 and 0, an
    exponential one 0.333 and 0.167, Student's t of 2 degrees of freedom 0 and 0.375.

    Args:
        x: Replicates, ``(S, N, E)``, NaN where missing, in all alike; an element of fewer than 4
            rows gives 0.

    Reference:
        Hosking (1990), https://doi.org/10.1111/j.2517-6161.1990.tb01775.x
    """
    found = []
    for element in x.double().unbind(2):
        ordered = element[:, ~element[0].isnan()].sort(1).values
        count = ordered.shape[1]
        if count < 4:
            found.append(x.new_zeros(len(x), 2, dtype=torch.float64))
            continue
        place = torch.arange(count, dtype=torch.float64)
        weight, moments = torch.ones(count, dtype=torch.float64), []
        for order in range(4):
            moments.append((ordered * weight).mean(1))
            weight = weight * (place - order) / max(1, count - 1 - order)
        b0, b1, b2, b3 = moments
        second = (2 * b1 - b0).clamp_min(1e-12)
        third, fourth = 6 * b2 - 6 * b1 + b0, 20 * b3 - 30 * b2 + 12 * b1 - b0
        found.append(torch.stack([third / second, fourth / second], 1))
    return torch.stack(found, 2)


def beyond_chance(value: Tensor, chance: Tensor) -> float:
    """What of a root mean square, ``()``, is more than those of replicates, ``(S,)``, have."""
    return (value.square() - chance.square().mean()).clamp_min(0).sqrt().item()


def element_units(deviation: Tensor, replicated: Tensor) -> Tensor:
    """What a distance of 1 is for each element: its standard deviation, ``(E,)``.

    Up to 20 elements are columns, each with a unit of its own, and a constant one has that of its
    replicates. More are pixels: none has a unit below the root mean square of all.

    Args:
        deviation: Of each element in the data, ``(E,)``.
        replicated: Of each element in replicates, ``(E,)``.
    """
    if len(deviation) > FEW_ELEMENTS:
        return deviation.clamp_min(max(deviation.square().mean().sqrt().item(), 1e-12))
    return torch.where(deviation > 1e-6 * replicated, deviation, replicated).clamp_min(1e-12)


def typical_distance(observed: Tensor, replicated: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """How far elements lie from what replicates have on average: root mean squares.

    Args:
        observed: A statistic of each element, ``(E,)``.
        replicated: The same of replicates, ``(S, E)``.
        units: Of each element, ``(E,)``.

    Returns:
        Of the data, ``()``, and of each replicate, ``(S,)``, chance included: each is compared
        with the mean of all, its own included, so that data and replicates are treated alike.
    """
    both = torch.cat([observed[None], replicated])
    away = ((both - both.mean(0)) / units).square().mean(1).sqrt()
    return away[0], away[1:]
