"""Running a user's programs: their sites, the handlers around them, the blame when they fail."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from ppl_gen.errors import PplGenError, StoryError
from ppl_gen.inference.pair import Pair

Batch = tuple[Any, ...]
Nodes = dict[str, dict[str, Any]]


class Weights(Messenger):
    """Multiply the terms of data plates by one factor and those of latents by another."""

    def __init__(
        self, plates: frozenset[str], factor: float = 1.0, latent: float | Tensor = 1.0
    ) -> None:
        super().__init__()
        self.plates = plates
        self.factor = factor
        self.latent = latent

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if site_is_subsample(msg):  # type: ignore[arg-type]
            return
        if self.factor != 1.0 and any(f.name in self.plates for f in msg["cond_indep_stack"]):
            msg["scale"] = msg["scale"] * self.factor
        if not is_one(self.latent) and not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.latent


def is_one(weight: float | Tensor) -> bool:
    """Whether a weight is 1 whatever the values of tensors."""
    return not isinstance(weight, Tensor) and weight == 1.0


class Indices(Messenger):
    """Choose the rows that plates with these names take."""

    def __init__(self, chosen: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.chosen = chosen

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if site_is_subsample(msg) and msg["name"] in self.chosen:  # type: ignore[arg-type]
            msg["value"] = self.chosen[msg["name"]]


class Fix(Messenger):
    """Give sites the values of an earlier run of the same program."""

    def __init__(self, values: Mapping[str, Tensor], at_once: bool) -> None:
        super().__init__()
        self.values = values
        self.at_once = at_once

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values and not site_is_subsample(msg):  # type: ignore[arg-type]
            value = self.values[msg["name"]]
            value = msg["value"] = value if self.at_once else value[0]
            msg["done"] = True
            law = msg["fn"]
            if isinstance(law, Delta):
                # Computed again from other sites, its point may differ in the last bit, which would
                # make the density of the value it gave before 0.
                batch = value.shape[: value.dim() - law.event_dim]
                density: Any = torch.as_tensor(law.log_density).expand(batch)
                msg["fn"] = Delta(value, density, event_dim=law.event_dim)


class PlateSizes(Messenger):
    """Collect the size of every plate and how many indices it takes, None for all of them.

    Attributes:
        seen: Both, by the plate's name.
        drawn: Plates that draw their indices, rather than taking all or those they are given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, tuple[int, int | None]] = {}
        self.drawn: set[str] = set()

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if site_is_subsample(msg):  # type: ignore[arg-type]
            law, given = msg["fn"], msg["value"]
            taken = len(given) if given is not None else law.subsample_size
            if msg["name"] not in self.seen or taken is not None:
                self.seen[msg["name"]] = (law.size, taken)
            if given is None and taken not in (None, law.size):
                self.drawn.add(msg["name"])

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        """A plate without a size has that of what is in it."""
        for frame in msg["cond_indep_stack"]:
            if frame.vectorized and frame.size < 0:
                law = msg["fn"].batch_shape
                size = law[frame.dim] if len(law) >= -frame.dim else 1
                known, _ = self.seen.get(frame.name, (1, None))
                self.seen[frame.name] = (max(size, known), None)


class ProgramRaised(StoryError):
    """A program raised what is none of our errors; it may be the data's fault."""


def guide_of(pair: Pair) -> str:
    """What to blame for what the guide raises: the model, if the guide is made of it."""
    own = isinstance(pair.guide, AutoGuide) or isinstance(poutine.unwrap(pair.guide), Messenger)
    return "model" if own else "guide"


@contextmanager
def blame(program: str) -> Iterator[None]:
    """Turn what a user's program raises into one sentence that names the line in it."""
    try:
        yield
    except PplGenError as error:
        error.args = (_first_line(error),)  # Pyro appends the shapes of the trace so far
        raise
    except Exception as error:
        where = ""
        for frame in traceback.extract_tb(error.__traceback__):
            if not _is_library(frame.filename):
                where = f" ({Path(frame.filename).name}, line {frame.lineno})"
        text = _first_line(error)
        cause = "" if error.__cause__ is None else _first_line(error.__cause__)
        if text.endswith(":") and cause not in ("", text):
            text = f"{text} {cause}"
        text = text.removesuffix(":")
        kind = type(error).__name__
        raise ProgramRaised(f"the {program} raised {kind}{where}: {text}") from error


def argument_names(program: Any, count: int) -> list[str]:
    """What a program calls its first arguments; ``column 1`` and so on where it does not say."""
    inner = poutine.unwrap(program)
    inner = inner.forward if isinstance(inner, nn.Module) else inner
    try:
        parameters = inspect.signature(inner).parameters.values()
    except (TypeError, ValueError):
        parameters = []
    places = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    told = [parameter.name for parameter in parameters if parameter.kind in places][:count]
    return told + [f"column {i + 1}" for i in range(len(told), count)]


def place_of(frame: FrameType | None) -> str:
    """The line of a user's program from which a frame was called, in brackets, if there is one."""
    while frame is not None and not _is_own(frame.f_code.co_filename):
        if not _is_library(frame.f_code.co_filename):
            return f" ({Path(frame.f_code.co_filename).name}, line {frame.f_lineno})"
        frame = frame.f_back
    return ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _is_library(filename: str) -> bool:
    parts = Path(filename).parts
    named = "torch" in parts or "pyro" in parts or "contextlib.py" in parts
    return named or _is_own(filename)


def _is_own(filename: str) -> bool:
    return Path(__file__).resolve().parent in Path(filename).resolve().parents


def trace_nodes(pair: Pair, batch: Batch, kwargs: Mapping[str, Any]) -> tuple[Nodes, Nodes]:
    """The sample sites of the guide, and of the model replayed on its draws.

    Raises:
        StoryError: If one of the programs raises; it names the line.
    """
    with torch.no_grad():
        unwrapped = poutine.unwrap(pair.guide)
        with blame(guide_of(pair)):
            if isinstance(unwrapped, Messenger):  # a guide written as handlers around the model
                pair.guide(*batch, **kwargs)
                model, guide = unwrapped.get_traces()  # type: ignore[attr-defined]
                return sample_sites(guide), sample_sites(model)
            guide = poutine.trace(pair.guide).get_trace(*batch, **kwargs)
        with blame("model, given the guide's draws,"):
            model = poutine.trace(poutine.replay(pair.model, trace=guide)).get_trace(
                *batch, **kwargs
            )
    return sample_sites(guide), sample_sites(model)


def sample_sites(trace: Any) -> Nodes:
    """The nodes of a trace that are sampled, without the indices that plates draw."""
    return {
        name: node
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not site_is_subsample(node)
    }
