"""Several processes that fit one story together, each with a share of every batch."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch import distributed as group

from ppl_gen.errors import FitError
from ppl_gen.inference.checkpoint import Interrupts
from ppl_gen.inference.seeds import noise_to_come, set_noise

# After how long a process that does not answer is given up.
PATIENCE = timedelta(minutes=10)


class Processes:
    """The processes of a fit, of which this is one; alone unless told otherwise.

    Every process has all rows at hand and takes its share of each batch. Gradients are added up, so
    that every process makes the same step, and has the same weights, that one alone would make with
    the whole batch.

    Args:
        rank: Which of them this is, from 0.
        count: How many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """The rows of a batch, ``(B,)``, that are this one's; all, if they are too few to share."""
        return rows if self._whole(len(rows)) else rows.tensor_split(self.count)[self.rank]

    def weight(self, rows: int) -> float:
        """What this one's share of so many rows counts."""
        if self._whole(rows):
            return 1.0 / self.count
        return (rows // self.count + (self.rank < rows % self.count)) / rows

    def mean(
        self, figures: Tensor, gradients: Sequence[Tensor | None], rows: int, like: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Figures and gradients of the whole batch, of those of its shares.

        Args:
            figures: Means over this share.
            gradients: Of each parameter that they have one for.
            rows: How many rows the whole batch has.
            like: The parameters.

        Raises:
            FitError: If another process has ended.
        """
        if self.alone:
            return figures, list(gradients)
        both = zip(gradients, like, strict=True)
        given = [torch.zeros_like(p) if g is None else g for g, p in both]
        used = figures.new_tensor([float(g is not None) for g in gradients])
        weight = self.weight(rows)
        flat = torch.cat([figures * weight, *(g.reshape(-1) * weight for g in given), used])
        self.add(flat)
        figures, rest = flat[: len(figures)], flat[len(figures) :]
        sizes = [g.numel() for g in given]
        *parts, used = rest.split([*sizes, len(used)])
        found = [
            part.view_as(g) if counts else None
            for part, g, counts in zip(parts, given, (used > 0).tolist(), strict=True)
        ]
        return figures, found

    def add(self, values: Tensor) -> None:
        """Put the sum over all processes in the place of what each has.

        Raises:
            FitError: If another process has ended.
        """
        if not self.alone:
            self._asked(lambda: group.all_reduce(values))

    def any(self, one: bool) -> bool:
        """Whether one of the processes says so.

        Raises:
            FitError: If another process has ended.
        """
        told = torch.tensor([float(one)])
        self.add(told)
        return bool(told)

    def agree(self, interrupts: Interrupts | None) -> None:
        """Go on with the same random numbers, and end together if one is asked to.

        Shares of two sizes draw so many numbers each.

        Raises:
            FitError: If another process has ended.
        """
        if self.alone:
            return
        noise = noise_to_come()[0]
        own = noise.double().mul(torch.arange(1.0, len(noise) + 1)).sum() % 1e4
        asked = float(interrupts is not None and interrupts.asked is not None)
        told = torch.tensor([own, own * own, asked], dtype=torch.float64)
        self.add(told)
        mean = told[0] / self.count
        if (told[1] / self.count - mean * mean).abs() > 1e-5:
            self._asked(lambda: group.broadcast(noise, 0))
            set_noise((noise,))
        if told[2] and interrupts is not None and interrupts.asked is None:
            interrupts.asked = signal.SIGTERM

    def joint(self, guide: Any, plates: frozenset[str]) -> Any:
        """A guide that draws for its share what one process would draw for the whole batch."""
        return guide if self.alone else _Joint(plates, self.rank, self.count)(guide)

    def _whole(self, rows: int) -> bool:
        return rows < self.count

    def _asked(self, work: Any) -> None:
        try:
            work()
        except RuntimeError as error:
            raise FitError(
                f"another process of this fit has ended or does not answer ({_first_line(error)}): "
                "start them all again, with resume to go on from the last checkpoint"
            ) from error


class _Joint(Messenger):
    """Draws latents of rows for all shares, and keeps those of one's own.

    Latents that all rows share are drawn alike by all processes, as they draw the same random
    numbers; those of rows must not be.
    """

    def __init__(self, plates: frozenset[str], rank: int, count: int) -> None:
        super().__init__()
        self.plates, self.rank, self.count = plates, rank, count

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        settled = msg["done"] or msg["is_observed"] or msg["value"] is not None
        if settled or site_is_subsample(msg) or msg["infer"].get("enumerate"):  # type: ignore[arg-type]
            return
        if not any(frame.name in self.plates for frame in msg["cond_indep_stack"]):
            return
        law, shape = msg["fn"], torch.Size([self.count])
        drawn = law.rsample(shape) if law.has_rsample else law.sample(shape)
        msg["value"] = drawn[self.rank]


def follows() -> bool:
    """Whether this process was started beside a first one, which writes and tells."""
    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    return int(rank) > 0 or int(os.environ.get("NODE_RANK") or "0") > 0


def joined(devices: int, num_nodes: int, device: torch.device) -> Processes:
    """Start the processes that are asked for, or join those that were started.

    They are started by Lightning Fabric, which runs the present command again for each, or by
    ``torchrun``, Slurm and the like, which Fabric knows.

    Args:
        devices: How many processes on each machine.
        num_nodes: How many machines.
        device: Where each is to compute.

    Raises:
        FitError: If Fabric is not installed, or what is asked for is not what was started.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if group.is_available() and group.is_initialized():
        return Processes(group.get_rank(), group.get_world_size())
    if devices == num_nodes == started == 1:
        return Processes()
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise FitError(
            "several processes need Lightning Fabric: pip install 'ppl-gen[processes]'"
        ) from error
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(devices)))
    nodes = max(num_nodes, started // max(1, here))
    kind: Any = "cuda" if device.type == "cuda" else "cpu"
    # Gradients are added up where they are, what is agreed upon on the CPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    strategy = DDPStrategy(timeout=PATIENCE, process_group_backend=backend)
    try:
        fabric = Fabric(accelerator=kind, devices=here, num_nodes=nodes, strategy=strategy)
        fabric.launch()
    except (RuntimeError, ValueError, TypeError) as error:
        raise FitError(
            f"{here} processes on each of {nodes} machines could not be started: "
            f"{_first_line(error)}"
        ) from error
    atexit.register(_leave)
    if device.type == "cuda":
        torch.cuda.set_device(fabric.device)
    return Processes(fabric.global_rank, fabric.world_size)


def _leave() -> None:
    """Part from the others, before what holds them together is taken down."""
    if group.is_initialized():
        group.destroy_process_group()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
