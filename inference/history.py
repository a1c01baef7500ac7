"""What happened during a fit: one record an epoch, as plain numbers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any, overload

import torch
from torch import Tensor

from ppl_gen.errors import RunError

# Columns that histories of before did not have.
SINCE = ("divergence", "critic_accuracy", "valid_divergence", "active_units")


@dataclass(frozen=True)
class Epoch:
    """One pass over the data. Figures are means per datum, in nats unless said.

    With ``method="em"`` an epoch is one iteration, and what has no meaning there is NaN.

    Attributes:
        epoch: Its number, from 1.
        steps: Optimiser steps or M-steps taken by its end, in all.
        seconds: Wall time by its end.
        learning_rate: At its end; of mini-batch EM the weight of the last batch's statistics.
        kl_weight: Factor on the KL term.
        elbo: Evidence lower bound (training data, unweighted); NaN where a weight hides it. Of EM
            the log-likelihood, at the parameters that the epoch ends with; in mini-batches at
            those each batch met.
        reconstruction: Expected log-likelihood; NaN where latents are enumerated.
        kl: Divergence of guide from prior.
        bits_per_dim: Negative ELBO in bits per observed number.
        valid_elbo, valid_reconstruction, valid_kl: The same on the validation data; NaN without.
        divergence: Of codes from a prior that they are matched to, in place of ELBO and KL; NaN
            where an ELBO is climbed.
        critic_accuracy: How often a critic tells codes from draws of the prior, from 0 to 1: 0.5
            if they are alike. NaN without a critic.
        valid_divergence: As divergence, on the validation data.
        active_units: How many dimensions of the code answer to the data, of some validation rows or
            else of the fit's, at some ten epochs; NaN at the others, and where there is no code.
    """

    epoch: int
    steps: int
    seconds: float
    learning_rate: float
    kl_weight: float
    elbo: float
    reconstruction: float
    kl: float
    bits_per_dim: float
    valid_elbo: float = math.nan
    valid_reconstruction: float = math.nan
    valid_kl: float = math.nan
    divergence: float = math.nan
    critic_accuracy: float = math.nan
    valid_divergence: float = math.nan
    active_units: float = math.nan

    @property
    def climbed(self) -> float:
        """The ELBO; where codes are matched to a prior, reconstruction less divergence."""
        matched = self.reconstruction - self.divergence
        return self.elbo if math.isnan(matched) else matched


@dataclass(frozen=True)
class History:
    """The epochs of a fit, in order; of several starts of EM, those of the one that was kept.

    ``history["elbo"]`` is one figure of every epoch, ``history[-1]`` the last epoch's record.
    """

    epochs: tuple[Epoch, ...] = ()

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self.epochs)

    @overload
    def __getitem__(self, key: int) -> Epoch: ...

    @overload
    def __getitem__(self, key: str) -> list[float]: ...

    def __getitem__(self, key: int | str) -> Epoch | list[float]:
        if isinstance(key, int):
            return self.epochs[key]
        return [getattr(epoch, key) for epoch in self.epochs]

    def to_csv(self) -> str:
        """A table with one row an epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [f.name for f in fields(Epoch)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in self.epochs)
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str) -> History:
        """Read what :meth:`to_csv` wrote.

        Raises:
            RunError: If a column is missing or a cell is not a number.
        """
        try:
            return cls(tuple(map(_epoch, csv.DictReader(io.StringIO(text)))))
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise RunError(f"the history is not a table of epochs: {error}") from error


def table_of(epochs: Sequence[Epoch]) -> Tensor:
    """Epochs as a table with one row each, in the order of their fields, ``(E, .)``."""
    return torch.tensor([astuple(epoch) for epoch in epochs], dtype=torch.float64)


def epochs_of(table: Tensor) -> list[Epoch]:
    """What :func:`table_of` was given."""
    return [Epoch(int(epoch), int(steps), *rest) for epoch, steps, *rest in table.tolist()]


def _epoch(row: dict[str, Any]) -> Epoch:
    whole = {"epoch", "steps"}
    figures: dict[str, Any] = {
        f.name: (int if f.name in whole else float)(row[f.name])
        for f in fields(Epoch)
        if f.name in row or f.name not in SINCE
    }
    return Epoch(**figures)
