r"""Squared distances to many centres, and sums over many rows, as two thin products.

With :math:`\phi(y) = (1, y, y y^\top)`, every product of two features once, or
:math:`\phi(y) = (1, y, y^2)` where scale matrices are diagonal, the distances of a row to all
centres are linear in :math:`\phi(y)`, and so are the sums that an M-step needs. No array of rows by
components by features is ever made.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A distance is the difference of terms this much larger, at most: it keeps ten digits of sixteen.
# Beyond, a component small for its place is whitened by itself.
CANCELLED = 1e5
# With more features than these their products would be many more numbers than the rows themselves.
WIDE = 64


class Quadratics:
    r"""The squared Mahalanobis distances to K centres.

    .. math:: d_k(y) = \lVert W_k (y - \mu_k) \rVert^2

    Args:
        loc: The centres :math:`\mu_k`, ``(K, D)``.
        white: The whitening matrices :math:`W_k`, ``(K, D, D)``, or their diagonals, ``(K, D)``.
    """

    def __init__(self, loc: Tensor, white: Tensor) -> None:
        self.loc, self.white = loc, white
        self.features = loc.shape[1]
        self.dense = white.dim() == 3
        self.wide = self.dense and self.features > WIDE
        precision = white.mT @ white if self.dense else white.square()
        self.far = range(len(loc)) if self.wide else self._cancelling(precision)
        slope = _times(precision, loc)
        parts = [(slope * loc).sum(-1, keepdim=True), -2 * slope]
        if not self.dense:
            parts.append(precision)
        elif not self.wide:
            # The product of two different features stands for both of their orders.
            diagonal = precision.diagonal(dim1=-2, dim2=-1).diag_embed()
            parts.append(packed(2 * precision - diagonal))
        self.coefficients = torch.cat(parts, -1)

    def expand(self, y: Tensor) -> Tensor:
        r""":math:`\phi` of rows ``(n, D)``, ``(F, n)``; without products if there are too many."""
        phi = y.new_empty(self.coefficients.shape[1], len(y))
        phi[0] = 1
        y = phi[1 : 1 + self.features].copy_(y.mT)
        if self.wide:
            return phi
        if not self.dense:
            torch.mul(y, y, out=phi[1 + self.features :])
            return phi
        # Products of features so far apart, around a circle of them, for all distances at once.
        near, half = (self.features + 1) // 2, self.features // 2
        around = torch.cat([y, y[:half]]).unfold(0, self.features, 1)[:near].mT
        first, last = phi[1 + self.features :].tensor_split([near * self.features])
        torch.mul(around, y, out=first.unflatten(0, (near, self.features)))
        if len(last):
            torch.mul(y[:half], y[half:], out=last)
        return phi

    def distance(self, phi: Tensor) -> Tensor:
        """The squared distances of rows that :meth:`expand` took, ``(K, n)``."""
        found = self.coefficients @ phi
        y = phi[1 : 1 + self.features]
        for k in self.far:
            rest, white = y - self.loc[k, :, None], self.white[k]
            rest = white @ rest if self.dense else white[:, None] * rest
            torch.sum(rest.square_(), 0, out=found[k])
        return found

    def sums(self, share: Tensor, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over rows, each counted by its share.

        Args:
            share: Of each component in each row, ``(K, n)``.
            phi: The rows as :meth:`expand` gave them.

        Returns:
            Of 1, ``(K,)``; of the rows, ``(K, D)``; and of their products as :func:`packed` has
            them, or of their squares ``(K, D)`` where scale matrices are diagonal.
        """
        count, first, second = (share @ phi.mT).tensor_split((1, 1 + self.features), dim=1)
        if self.wide:
            y = phi[1:]
            second = packed(torch.stack([(weight * y) @ y.mT for weight in share]))
        return count[:, 0], first, second

    def _cancelling(self, precision: Tensor) -> list[int]:
        """Components whose distances would be small differences of large terms."""
        variance = self.white.inverse().square().sum(-1) if self.dense else 1 / precision
        extent = self.loc.abs() + variance.sqrt()
        terms = (extent * _times(precision.abs(), extent)).sum(-1)
        return (terms > CANCELLED).nonzero()[:, 0].tolist()


def packed(matrix: Tensor) -> Tensor:
    """Every entry of symmetric matrices once, ``(*, D (D + 1) / 2)`` of ``(*, D, D)``."""
    row, column = _pairs(matrix.shape[-1], matrix.device)
    return matrix[..., row, column]


def unpacked(entries: Tensor, size: int) -> Tensor:
    """The symmetric matrices ``(*, D, D)`` that :func:`packed` was given; ``size``: D."""
    row, column = _pairs(size, entries.device)
    matrix = entries.new_empty(*entries.shape[:-1], size, size)
    matrix[..., row, column] = matrix[..., column, row] = entries
    return matrix


def _pairs(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Every pair of features once: the same, then one apart, and so on, in a circle."""
    entry = torch.arange(size * (size + 1) // 2, device=device)
    return entry % size, (entry + entry // size) % size


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Of matrices ``(K, D, D)``, or of their diagonals, and vectors ``(K, D)``."""
    diagonal = matrix.dim() == vector.dim()
    return matrix * vector if diagonal else (matrix @ vector.unsqueeze(-1)).squeeze(-1)
