"""Mixtures of ellipses seen from a side: in two columns, or along any two directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mixed:
    """Components whose contours are ellipses: normal, or Student-t.

    Attributes:
        weights: Shape ``(K,)``.
        means: Shape ``(K, D)``.
        covariances: Shape ``(K, D, D)``; scale matrices of Student-t components.
        df: Degrees of freedom of Student-t components, ``(K,)``; None if they are normal.
    """

    weights: Array
    means: Array
    covariances: Array
    df: Array | None = None

    def along(self, directions: Array, origin: Array) -> Mixed:
        """The law of ``(x - origin) @ directions``, which is exact: it is of the same kind.

        Args:
            directions: Shape ``(D, P)``.
            origin: Shape ``(D,)``.
        """
        means = (self.means - origin) @ directions
        return Mixed(self.weights, means, directions.T @ self.covariances @ directions, self.df)

    def columns(self, chosen: list[int]) -> Mixed:
        """The marginal law of some columns."""
        size = self.means.shape[1]
        return self.along(np.eye(size)[:, chosen], np.zeros(size))

    def log_joint(self, points: Array) -> Array:
        """Log-density of points ``(N, D)`` with each component, weights included, ``(N, K)``."""
        size = self.means.shape[1]
        values, vectors = np.linalg.eigh(self.covariances)
        # An eigenvalue of 0 is a direction in which nothing varies: a very thin ellipse.
        values = np.maximum(values, 1e-12 * np.maximum(values[:, -1:], 1e-300))
        turned = np.einsum("nkd,kde->nke", points[:, None] - self.means, vectors)
        squares = (turned**2 / values).sum(2)
        log_volume = 0.5 * np.log(values).sum(1)
        with np.errstate(divide="ignore"):
            weights = np.log(self.weights)
        if self.df is None:
            return weights - log_volume - 0.5 * (squares + size * math.log(2 * math.pi))
        df, ends = self.df, np.array([[math.lgamma((d + size) / 2), math.lgamma(d / 2)]
                                      for d in self.df])  # fmt: skip
        constant = ends[:, 0] - ends[:, 1] - 0.5 * size * np.log(df * math.pi)
        return weights + constant - log_volume - 0.5 * (df + size) * np.log1p(squares / df)

    def log_density(self, points: Array) -> Array:
        """Log-density of points ``(N, D)``, in nats, ``(N,)``."""
        joint = self.log_joint(points)
        top = joint.max(1)
        return top + np.log(np.exp(joint - top[:, None]).sum(1))

    @property
    def separation(self) -> Array:
        """How far each column tells the components apart, from 0 to 1, ``(D,)``.

        It is the share of the column's variance that lies between components.
        """
        between = self.weights @ (self.means - self.weights @ self.means) ** 2
        within = self.weights @ np.diagonal(self.covariances, axis1=1, axis2=2)
        total = between + within
        return np.divide(between, total, out=np.zeros_like(total), where=total > 0)


def full_covariances(given: Array, components: int, features: int) -> Array:
    """Covariances ``(K, D, D)`` of any of the forms in which stories give them.

    Args:
        given: Shape ``(K, D, D)``, ``(D, D)`` of all, ``(K, D)`` of diagonals, or ``(K,)`` of
            variances.
        components: Their number, K.
        features: Their size, D.
    """
    unit = np.eye(features)
    if given.shape == (components, features, features):
        return given
    # A table of diagonals is symmetric by rare chance only, and a covariance always.
    square = given.shape == (features, features)
    if square and (components != features or np.allclose(given, given.T)):
        return np.broadcast_to(given, (components, features, features))
    if given.shape == (components, features):
        return given[:, :, None] * unit
    return given.reshape(components, 1, 1) * unit


@dataclass(frozen=True)
class Principal:
    """The plane in which data vary most, each column in units of its standard deviation.

    Attributes:
        directions: Shape ``(D, 2)``: a point of the plane is ``(x - origin) @ directions``.
        origin: Mean of the data, ``(D,)``.
        share: Of the variance of all columns.
    """

    directions: Array
    origin: Array
    share: float

    @classmethod
    def of(cls, x: Array) -> Principal:
        """That of the rows ``(N, D)``, of which none is missing."""
        origin, spread = x.mean(0), x.std(0)
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        standard = (x - origin) * scale
        values, vectors = np.linalg.eigh(standard.T @ standard)
        chosen = vectors[:, :-3:-1]
        largest = chosen[np.abs(chosen).argmax(0), [0, 1]]
        directions = scale[:, None] * chosen * np.where(largest < 0, -1, 1)
        return cls(directions, origin, float(values[-2:].sum() / max(values.sum(), 1e-300)))


def outline(mean: Array, covariance: Array, radius: float, points: int = 96) -> Array:
    """The ellipse of a law at so many standard deviations, ``(points + 1, 2)``, closed.

    Its half-axes are ``radius`` times the roots of the eigenvalues of ``covariance``; the first
    point and those a quarter, a half and three quarters of the way on are their ends.
    """
    values, vectors = np.linalg.eigh(covariance)
    angle = np.linspace(0, 2 * np.pi, points + 1)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    return mean + radius * (circle * np.sqrt(np.maximum(values, 0))) @ vectors.T


def levels(log_density: Array, shares: list[float]) -> Array:
    """The log-densities above which the given shares of a law lie, lowest level first.

    Args:
        log_density: On a regular grid that holds nearly all of the law.
        shares: From 0 to 1.

    Reference:
        Hyndman (1996), highest density regions, https://doi.org/10.2307/2684423
    """
    falling = np.sort(log_density, axis=None)[::-1]
    mass = np.cumsum(np.exp(falling - falling[0]))
    found = np.searchsorted(mass, np.array(shares) * mass[-1]).clip(max=len(falling) - 1)
    return np.unique(falling[found])
