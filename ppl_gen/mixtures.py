"""Expectation and maximisation for mixtures of elliptical laws, as functions of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_gen.covariances import Form
from ppl_gen.ellipses import Dense, Ellipses, Moments
from ppl_gen.quadratics import packed, unpacked

# Where a search begins: with tails that can grow either way, and no spikes.
FIRST_DF = 10.0
FIRST_FLOOR = 0.01
# A component with fewer rows than this has died: its parameters stay what they were.
LEAST_ROWS = 1e-8
# Beyond the upper end a Student-t law is a normal one; below the lower it has no mean.
DF_RANGE = (1.0, 200.0)


class Maximum(NamedTuple):
    """Parameters of highest likelihood.

    Attributes:
        weights: ``(K,)``.
        loc: ``(K, D)``.
        covariance: As :meth:`ppl_gen.covariances.Form.best` gives it; one if tied.
        df: ``(K,)``; of no meaning to normal laws.
    """

    weights: Tensor
    loc: Tensor
    covariance: Tensor
    df: Tensor


def from_clusters(y: Tensor, labels: Tensor, count: int, form: Form, tied: bool) -> Maximum:
    """First parameters, from a hard assignment of rows to components.

    Each covariance leans towards that of all clusters about their centres as if it had seen
    ``D + 1`` rows more, so that a cluster of a few rows does not begin as a spike.

    Args:
        y: Rows, ``(N, D)``.
        labels: Component of each row, ``(N,)``.
        count: Number of components.
        form: The form of the covariances.
        tied: Whether one covariance serves all components.
    """
    rows = labels.bincount(minlength=count).to(y)
    total = y.new_zeros(count, y.shape[1]).index_add_(0, labels, y)
    loc = total / rows.clamp(min=1).unsqueeze(-1)
    clustered = (y[labels == k] - loc[k] for k in range(count))
    own = torch.stack([c.mT @ c if form.products else c.square().sum(0) for c in clustered])
    wide = (..., *(None,) * (own.dim() - 1))
    pooled = own.sum(0, keepdim=True) / len(y)
    more = y.shape[1] + 1
    covariance = pooled if tied else (own + more * pooled) / (rows + more)[wide]
    df = torch.full_like(rows, FIRST_DF)
    return Maximum(rows / len(y), loc, form.best(covariance, FIRST_FLOOR), df)


def joint_density(y: Tensor, weights: Tensor, components: Ellipses) -> Tensor:
    """Log-densities of rows ``(N, D)`` together with each component, in nats, ``(N, K)``."""
    if components.missing and y.isnan().any():
        return weights.log() + components.log_prob(y)
    quadratics, log_det = components.complete
    distance = quadratics.distance(quadratics.expand(y)).mT
    return components.log_density(distance, log_det - weights.log(), _values(y))


def expectation(
    y: Tensor, weights: Tensor, components: Ellipses, losses: bool = True
) -> dict[str, Tensor]:
    r"""The E-step: sums over rows, each counted as far as a component is responsible for it.

    With :math:`r_{nk}` the responsibilities, :math:`u_{nk}` the expected precision of row
    :math:`n` in a Student-t component (1 in a normal one) and :math:`\hat y_{nk}` the row with
    missing values at their conditional means:

    Args:
        y: Rows, ``(N, D)``.
        weights: Probabilities of the components, ``(K,)``.
        components: The components.
        losses: Whether to say what each component is worth, which takes a logarithm of every
            responsibility.

    Returns:
        ``log_likelihood``, ``()``, in nats; ``rows``, ``()``; ``responsibility``,
        :math:`\sum_n r_{nk}`, ``(K,)``; ``precision``, :math:`\sum_n r_{nk} u_{nk}`, ``(K,)``;
        ``first`` and ``second``, sums of :math:`\hat y` and of its squares or products, with
        these weights, ``(K, D)`` and ``(K, D)`` or, each product once, ``(K, D (D + 1) / 2)`` as
        :func:`ppl_gen.quadratics.packed` has them; for Student-t laws
        ``log_precision``, the expected :math:`\sum_n r_{nk} (\log u_{nk} - u_{nk})`, ``(K,)``;
        and, if asked for, ``loss``, by how many nats the log-likelihood would fall without the
        component, the others as they are, ``(K,)``.

    Reference:
        Ghahramani and Jordan (1994), for missing values; Peel and McLachlan (2000),
        https://doi.org/10.1023/A:1008981510081, for Student-t components.
    """
    if components.missing:
        incomplete = y.isnan().any(-1)
        if incomplete.any():
            table = _of_incomplete(y[incomplete], weights, components, losses)
            if incomplete.all():
                return table
            rest = _of_complete(y[~incomplete], weights, components, losses)
            return added(table, rest)
    return _of_complete(y, weights, components, losses)


def added(table: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`expectation` would give of the rows of two tables together."""
    return {name: value + other[name] for name, value in table.items()}


def maximisation(
    table: Mapping[str, Tensor],
    form: Form,
    tied: bool,
    floor: float,
    before: Maximum,
    lean: float = 0.0,
) -> Maximum:
    """The M-step: the parameters of highest expected likelihood.

    Args:
        table: What :func:`expectation` gave, summed over all rows.
        form: The form of the covariances.
        tied: Whether one covariance serves all components.
        floor: The least standard deviation in any direction.
        before: The parameters of the E-step, which components that have died keep.
        lean: How many more rows, of the covariance that all components have about their centres,
            each counts as having seen; at 0 the likelihood is highest.
    """
    rows, counted = table["responsibility"], table["precision"]
    alive = rows > LEAST_ROWS
    safe = torch.where(alive, rows, 1.0)
    loc = table["first"] / torch.where(alive, counted, 1.0).unsqueeze(-1)
    loc = torch.where(alive.unsqueeze(-1), loc, before.loc)
    second = unpacked(table["second"], loc.shape[1]) if form.products else table["second"]
    wide = (..., *(None,) * (second.dim() - 1))
    outer = loc.unsqueeze(-1) * loc.unsqueeze(-2) if second.dim() == 3 else loc.square()
    scatter = second - counted[wide] * outer
    pooled = (scatter * alive[wide]).sum(0, keepdim=True) / rows.sum()
    if tied:
        covariance = form.best(pooled, floor)
    else:
        own = (scatter + lean * pooled) / (safe + lean)[wide]
        covariance = form.best(torch.where(alive[wide], own, before.covariance), floor)
    df = before.df
    if "log_precision" in table:
        df = torch.where(alive, _best_df(table["log_precision"] / safe), df)
    return Maximum(rows / rows.sum(), loc, covariance, df)


def _of_complete(
    y: Tensor, weights: Tensor, components: Ellipses, losses: bool
) -> dict[str, Tensor]:
    quadratics, log_det = components.complete
    expanded = quadratics.expand(y)
    distance = quadratics.distance(expanded).mT
    table, _, counted = _shares(distance, log_det, _values(y), weights, components, losses)
    names = ("precision", "first", "second")
    return table | dict(zip(names, quadratics.sums(counted, expanded), strict=True))


def _of_incomplete(
    y: Tensor, weights: Tensor, components: Ellipses, losses: bool
) -> dict[str, Tensor]:
    moments, values = components.moments(y)
    distance, log_det = moments.distance, moments.log_det
    table, share, counted = _shares(distance, log_det, values, weights, components, losses)
    rows = components.loc + moments.filled
    sums = _filled_sums(rows, counted.mT, share.mT, components, moments)
    return table | sums | {"precision": counted.sum(1)}


def _shares(
    distance: Tensor,
    log_det: Tensor,
    values: Tensor,
    weights: Tensor,
    components: Ellipses,
    losses: bool,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Sums of the responsibilities; these, and these by the expected precisions, ``(K, N)``."""
    # Rows stand last: sums over the few components are then those of long vectors.
    joint = components.log_density(distance, log_det - weights.log(), values).mT
    share = joint.softmax(0)
    log_likelihood = joint.amax(0) - share.amax(0).log()  # of the likeliest component
    rows = torch.tensor(float(joint.shape[1]), dtype=joint.dtype, device=joint.device)
    table = {
        "log_likelihood": log_likelihood.sum(),
        "rows": rows,
        "responsibility": share.sum(1),
    }
    if losses:
        table["loss"] = rows * _log_rest(weights) - _log_rest(share).sum(1)
    if components.df is None:
        return table, share, share
    df = components.df
    rate = ((df + distance) / 2).mT
    precision = ((df + values) / 2).mT / rate
    log_precision = torch.digamma((df + values) / 2).mT - rate.log()
    table["log_precision"] = (share * (log_precision - precision)).sum(1)
    return table, share, share * precision


def _values(y: Tensor) -> Tensor:
    return y.new_tensor([y.shape[-1]])


def _filled_sums(
    rows: Tensor, counted: Tensor, share: Tensor, components: Ellipses, moments: Moments
) -> dict[str, Tensor]:
    first = torch.einsum("nk,nkd->kd", counted, rows)
    if not isinstance(components.root, Dense):
        second = torch.einsum("nk,nkd->kd", counted, rows.square())
        if moments.spread is not None:
            second = second + torch.einsum("nk,nkd->kd", share, moments.spread.expand_as(rows))
        return {"first": first, "second": second}
    second = torch.einsum("nk,nkd,nke->kde", counted, rows, rows)
    if moments.spread is not None and moments.patterns is not None:
        of_pattern = share.new_zeros(len(moments.spread), share.shape[1])
        of_pattern.index_add_(0, moments.patterns, share)
        spread = moments.spread.expand(-1, share.shape[1], -1, -1)
        second = second + torch.einsum("pk,pkde->kde", of_pattern, spread)
    return {"first": first, "second": packed(second)}


def _log_rest(share: Tensor) -> Tensor:
    return torch.log1p(-share.clamp(max=1 - 1e-15))


def _best_df(log_precision: Tensor) -> Tensor:
    """Where the derivative of the expected likelihood by the degrees of freedom vanishes."""
    low = torch.full_like(log_precision, DF_RANGE[0])
    high = torch.full_like(log_precision, DF_RANGE[1])
    for _ in range(60):  # halves the interval each time: to the last bit of a double
        middle = (low * high).sqrt()
        slope = (middle / 2).log() - torch.digamma(middle / 2) + 1 + log_precision
        low, high = torch.where(slope > 0, middle, low), torch.where(slope > 0, high, middle)
    return (low * high).sqrt()
