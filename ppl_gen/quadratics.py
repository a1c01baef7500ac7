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
        precision = white.mT @ white if self.dense else (white**2).diag_embed()
        self.far = range(len(loc)) if self.wide else self._cancelling(precision)
        slope = torch.einsum("kde,ke->kd", precision, loc)
        parts = [(slope * loc).sum(-1, keepdim=True), -2 * slope]
        if not self.wide:
            row, column = self._pairs()
            both = torch.where(row == column, 1.0, 2.0).to(loc)
            parts.append(both * precision[:, row, column])
        self.coefficients = torch.cat(parts, -1)

    def expand(self, y: Tensor) -> Tensor:
        r""":math:`\phi` of rows ``(n, D)``, ``(F, n)``; without products if there are too many."""
        size, features = self.coefficients.shape[1], self.features
        phi = y.new_empty(size, len(y))
        phi[0] = 1
        y = phi[1 : 1 + features].copy_(y.mT)
        if self.wide:
            return phi
        if not self.dense:
            torch.mul(y, y, out=phi[1 + features :])
            return phi
        start = 1 + features
        for i in range(features):
            stop = start + features - i
            torch.mul(y[i:], y[i], out=phi[start:stop])
            start = stop
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
            Of 1, ``(K,)``; of the rows, ``(K, D)``; and of their products ``(K, D, D)``, or of
            their squares ``(K, D)`` where scale matrices are diagonal.
        """
        count, first, second = (share @ phi.mT).tensor_split((1, 1 + self.features), dim=1)
        if self.wide:
            y = phi[1:]
            second = torch.stack([(weight * y) @ y.mT for weight in share])
        elif self.dense:
            row, column = self._pairs()
            square = second.new_empty(len(share), self.features, self.features)
            square[:, row, column] = square[:, column, row] = second
            second = square
        return count[:, 0], first, second

    def _cancelling(self, precision: Tensor) -> list[int]:
        """Components whose distances would be small differences of large terms."""
        root = self.white.inverse() if self.dense else (1 / self.white).diag_embed()
        extent = self.loc.abs() + root.square().sum(-1).sqrt()
        terms = torch.einsum("kd,kde,ke->k", extent, precision.abs(), extent)
        return (terms > CANCELLED).nonzero()[:, 0].tolist()

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """Which features are multiplied with which."""
        index = torch.arange(self.features, device=self.loc.device)
        if not self.dense:
            return index, index
        row, column = torch.triu_indices(self.features, self.features, device=self.loc.device)
        return row, column
