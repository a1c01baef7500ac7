"""Draws of a guide on some data, and their weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Draws:
    """Draws of the guide on one batch, weighed under both programs.

    Batch dimensions of every tensor: the draws first, then those of the plates around the site.

    Attributes:
        latents: Values of the latent sites and of what derives from them, ``(S, *plates, *event)``.
        log_p: Log-density of the model, ``(S, N)`` for what is inside the data plate, latents and
            data together; zero where there is no data plate.
        log_q: The same of the guide.
        log_prior: The part of ``log_p`` that the latents have, ``(S, N)``.
        log_p_global: Log-density of what stands outside, ``(S,)``.
        log_q_global: The same of the guide.
        log_likelihood: Of each observed site, ``(S, *plates)``; if sites were summed out, of each
            datum, ``(S, N)``, under the name of the one observed site or ``log_likelihood``.
        predicted: Values of the observed sites drawn anew, ``(S, *plates, *event)``, if asked for.
        expected: What their laws expect there, of the same shapes; NaN where a law has no mean;
            if asked for.
    """

    latents: dict[str, Tensor]
    log_p: Tensor
    log_q: Tensor
    log_prior: Tensor
    log_p_global: Tensor
    log_q_global: Tensor
    log_likelihood: dict[str, Tensor]
    predicted: dict[str, Tensor]
    expected: dict[str, Tensor]

    @property
    def log_weights(self) -> Tensor:
        """Importance weights of the local latents, in nats, ``(S, N)``."""
        return self.log_p - self.log_q

    @property
    def divergence(self) -> Tensor:
        """Of the guide from the prior of the local latents, at each draw, in nats, ``(S, N)``."""
        return self.log_q - self.log_prior
