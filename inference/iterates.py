"""What a fit records on its way, by which one can tell whether it came to rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ppl_gen.errors import RunError

# At most so many blocks of steps, so many moments at which parameters are looked at, and so many of
# their elements: together at most 350 kB, whatever the length of the fit; more where latents that
# all data share have more parameters, without all of which it is not known how far they moved.
BLOCKS, MOMENTS, ELEMENTS, SHARED = 1024, 256, 256, 4096


@dataclass(frozen=True, eq=False)
class Iterates:
    r"""What was climbed at every step, and some parameters at regular steps.

    Weights of networks need never settle: they have directions along which nothing changes, and
    they drift there. What has to settle is what model and guide say, and every step of a fit tells
    it for nothing, in nats per datum, whatever the units of the data: the reconstruction, and the
    KL of guide from prior. So these are kept of every step, as means over blocks of steps. The
    parameters of the posterior of latents that all data share hardly show in them, as they weigh
    :math:`1 / N` there; so these are kept as they are, at regular steps.

    Attributes:
        steps: Number of the last step of each block, ``(B,)``.
        climbed: What the steps climbed: the ELBO as it was weighted, or what takes its place. Means
            over each block, in nats per datum, ``(B,)``.
        reconstruction: Expected log-likelihood, likewise; NaN where it has no meaning.
        rate: Learning rate at the end of each block, ``(B,)``.
        kl_weight: Factor on the KL term at the end of each block, ``(B,)``.
        moments: Number of the step after which parameters were looked at, ``(T,)``.
        values: Unconstrained values of the elements that were looked at, ``(T, E)``.
        elements: Which they are, by the parameter's name: positions in the flattened parameter.
        shared: Names of those parameters that the posterior of the latents that all data share
            depends on.
    """

    steps: Tensor
    climbed: Tensor
    reconstruction: Tensor
    rate: Tensor
    kl_weight: Tensor
    moments: Tensor
    values: Tensor
    elements: Mapping[str, Tensor] = field(default_factory=dict)
    shared: tuple[str, ...] = ()

    @property
    def lengths(self) -> Tensor:
        """How many steps each block has, ``(B,)``."""
        return self.steps.diff(prepend=self.steps.new_zeros(1))

    def of(self, names: Sequence[str]) -> Tensor:
        """The columns of ``values`` that belong to some of the parameters, ``(T, .)``."""
        columns, start = [], 0
        for name, positions in self.elements.items():
            if name in names:
                columns += range(start, start + len(positions))
            start += len(positions)
        return self.values[:, columns]

    def to_tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors; the names keep the order, which safetensors does not."""
        plain = {n: getattr(self, n).contiguous() for n in _TENSORS}
        for place, (name, positions) in enumerate(self.elements.items()):
            kind = "shared" if name in self.shared else "other"
            plain[f"{kind}:{place:06d}:{name}"] = positions
        return plain

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Iterates:
        """What :meth:`to_tensors` gave.

        Raises:
            RunError: If a tensor is missing or has another size than it must.
        """
        keys = [key.split(":", 2) for key in tensors if ":" in key]
        try:
            named = sorted((int(place), name, kind) for kind, place, name in keys)
        except ValueError as error:
            raise RunError("what the fit recorded on its way does not say its order") from error
        try:
            found = cls(
                **{n: tensors[n] for n in _TENSORS},
                elements={n: tensors[f"{kind}:{place:06d}:{n}"] for place, n, kind in named},
                shared=tuple(name for _, name, kind in named if kind == "shared"),
            )
        except KeyError as error:
            raise RunError(f"what the fit recorded on its way lacks {error}") from error
        of_blocks = {len(getattr(found, n)) for n in _TENSORS[:5]}
        width = sum(len(positions) for positions in found.elements.values())
        if len(of_blocks) > 1 or found.values.shape != (len(found.moments), width):
            raise RunError("what the fit recorded on its way has columns of different lengths")
        return found


_TENSORS = tuple(f.name for f in fields(Iterates))[:7]


class Recorder:
    """Records the steps of a fit, drawing nothing and changing nothing.

    Memory is bounded: when it is full, blocks are joined in pairs, every second look at the
    parameters is forgotten, and looks become half as frequent.

    Args:
        shared: Names of the parameters that the posterior of shared latents depends on.
        total: How many steps there will be at most; the parameters are looked at so that this many
            fill the memory.
        blocks, moments, elements: Most of each.
    """

    def __init__(
        self,
        shared: Sequence[str] = (),
        total: int = 1,
        *,
        blocks: int = BLOCKS,
        moments: int = MOMENTS,
        elements: int = ELEMENTS,
    ) -> None:
        self.shared = tuple(shared)
        self.capacity, self.most, self.width = blocks, moments, elements
        self.steps = 0
        self._rows: list[tuple[float, ...]] = []  # steps, sums of two figures, rate, weight
        self._open = [0, 0.0, 0.0]
        self._length = 1
        self._every = max(1, -(-total // moments))
        self._moments: list[int] = []
        self._values: list[Tensor] = []
        self._chosen: dict[str, Tensor] | None = None

    def step(self, climbed: float, reconstruction: float, rate: float, kl_weight: float) -> None:
        """Take note of the figures of one more step."""
        self.steps += 1
        block = self._open
        block[0] += 1
        block[1] += climbed
        block[2] += reconstruction
        if block[0] == self._length:
            self._rows.append((*block, rate, kl_weight))
            self._open = [0, 0.0, 0.0]
            if len(self._rows) == self.capacity:
                self._rows = list(map(_joined, self._rows[::2], self._rows[1::2]))
                self._length *= 2

    @property
    def due(self) -> bool:
        """Whether the parameters are to be looked at after this step."""
        return self.steps % self._every == 0

    def look(self, parameters: Mapping[str, Tensor]) -> None:
        """Take note of the parameters' values, of all if they are few."""
        if self._chosen is None or self._chosen.keys() - parameters.keys():
            self._choose(parameters)
        assert self._chosen is not None
        with torch.no_grad():
            parts = [parameters[n].reshape(-1)[p] for n, p in self._chosen.items()]
            self._values.append(torch.cat([p.float() for p in parts]) if parts else torch.empty(0))
        self._moments.append(self.steps)
        if len(self._moments) == self.most:
            self._every *= 2
            kept = [i for i, step in enumerate(self._moments) if step % self._every == 0]
            self._moments = [self._moments[i] for i in kept]
            self._values = [self._values[i] for i in kept]

    def state(self) -> dict[str, Any]:
        """All that it holds, as plain values and tensors."""
        return {
            "shared": self.shared,
            "steps": self.steps,
            "rows": torch.tensor(self._rows, dtype=torch.float64).reshape(-1, 5),
            "open": self._open,
            "length": self._length,
            "every": self._every,
            "moments": self._moments,
            "values": torch.stack(self._values) if self._values else None,
            "chosen": self._chosen,
        }

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what :meth:`state` gave."""
        self.shared, self.steps = tuple(state["shared"]), state["steps"]
        self._rows = [(int(n), *figures) for n, *figures in state["rows"].tolist()]
        self._open, self._length = state["open"], state["length"]
        self._every, self._moments = state["every"], state["moments"]
        values, chosen = state["values"], state["chosen"]
        self._values = [] if values is None else list(values.to(device))
        self._chosen = None if chosen is None else {n: p.to(device) for n, p in chosen.items()}

    def result(self) -> Iterates:
        """What was recorded."""
        steps, climbed, reconstruction, rate, weight = (
            torch.tensor([*self._rows], dtype=torch.float64).reshape(-1, 5).T
        )
        chosen = self._chosen or {}
        width = sum(map(len, chosen.values()))
        return Iterates(
            steps.cumsum(0),
            climbed / steps,
            reconstruction / steps,
            rate.clone(),
            weight.clone(),
            torch.tensor(self._moments, dtype=torch.int64),
            torch.stack(self._values).cpu() if self._values else torch.empty(0, width),
            {name: positions.cpu() for name, positions in chosen.items()},
            self.shared if all(name in chosen for name in self.shared) else (),
        )

    def _choose(self, parameters: Mapping[str, Tensor]) -> None:
        """Choose elements: those of shared latents first, then of every other parameter some."""
        self._moments, self._values, self._chosen = [], [], {}
        left = self.width
        named = {n: p for n, p in parameters.items() if p.is_floating_point() and p.numel()}
        others = sorted(named.keys() - set(self.shared), key=lambda n: named[n].numel())
        ordered = [n for n in self.shared if n in named] + others
        generator = torch.Generator().manual_seed(0)  # its own, so that nothing else is drawn
        for i, name in enumerate(ordered):
            size = named[name].numel()
            share = left if name in self.shared else max(0, left) // (len(ordered) - i)
            if name in self.shared and self.width == ELEMENTS:
                share = SHARED - sum(len(known) for known in self._chosen.values())
            chosen = torch.randperm(size, generator=generator)[: min(size, share)].sort().values
            if len(chosen):
                self._chosen[name] = chosen.to(named[name].device)
            left -= len(chosen)


def _joined(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[float, ...]:
    return (*(a + b for a, b in zip(first[:3], second[:3], strict=True)), *second[3:])
