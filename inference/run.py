"""A run: a fitted story, how it was fitted, and what can be asked of it."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from ppl_gen.component import Component
from ppl_gen.data import Dataset, Part, as_part
from ppl_gen.errors import DataError
from ppl_gen.inference import disk
from ppl_gen.inference.history import History
from ppl_gen.inference.iterates import Iterates
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.structure import Structure
from ppl_gen.inference.tracing import Batch

if TYPE_CHECKING:
    from xarray import DataTree

    from ppl_gen.inference.estimators import Evidence
    from ppl_gen.inference.passes import Completion
    from ppl_gen.inference.verdict import Verdict


@dataclass(frozen=True)
class DataRecord:
    """What a run remembers of the data it was fitted to.

    Attributes:
        fingerprint: SHA-256 of their values; None for a program that holds its data itself.
        rows: How many there were.
        columns: Shape of a row and dtype of each column that the programs take.
        source: Arguments with which :func:`ppl_gen.data.load` gives the data again, if known.
        column_names: What the entries of an observation are called, if the data say so.
    """

    fingerprint: str | None
    rows: int
    columns: tuple[tuple[tuple[int, ...], str], ...]
    source: Mapping[str, Any] | None = None
    column_names: tuple[str, ...] | None = None

    def blank(self, rows: int, device: torch.device) -> Batch:
        """A batch of zeros of the same form."""
        return tuple(
            torch.zeros((rows, *shape), dtype=getattr(torch, dtype), device=device)
            for shape, dtype in self.columns
        )


def record_of(data: Any, part: Part | None, arguments: int) -> DataRecord:
    """Describe data so that they can be recognised."""
    if part is None:
        return DataRecord(None, 1, ())
    columns = tuple(
        (tuple(row.shape[1:]), str(row.dtype).removeprefix("torch."))
        for row in part[:1].columns[:arguments]
    )
    source = data.source if isinstance(data, Dataset) else None
    return DataRecord(part.fingerprint, len(part), columns, source, _column_names(data))


def _column_names(data: Any) -> tuple[str, ...] | None:
    if isinstance(data, Dataset):
        return data.column_names
    names = getattr(data, "columns", None)  # of a table of pandas
    return None if names is None or isinstance(data, Part) else tuple(map(str, names))


def versions() -> dict[str, str]:
    """Versions of what a fit depends on."""
    names = ("ppl-gen", "torch", "pyro-ppl", "numpy")
    found = {name: _version(name) for name in names}
    return {"python": platform.python_version(), **found}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def configuration_of(pair: Pair) -> dict[str, Any]:
    """What rebuilds a story: class and arguments, the path of its file, or its type."""
    if pair.origin is not None:
        return dict(pair.origin)
    if isinstance(pair.story, Component) and type(pair.story).__module__.startswith("ppl_gen."):
        return pair.story.configuration
    programs = {"model": pair.model, "guide": pair.guide}
    return {"object": type(pair.story).__qualname__} | {
        name: getattr(program, "__qualname__", type(program).__qualname__)
        for name, program in programs.items()
    }


@dataclass(repr=False)
class Run:
    """A fitted story. :func:`ppl_gen.fit` returns one, :func:`ppl_gen.load` reads one from disk.

    Attributes:
        pair: The fitted programs with their parameters.
        structure: Their sites and plates.
        settings: How the story was fitted.
        history: What happened meanwhile, an epoch a record.
        data: What is remembered of the data.
        kwargs: Further arguments of both programs.
        versions: Versions of the libraries at work.
        verdict: The outcome of the last check, if there was one.
        iterates: What the steps of a fit by SVI left behind, by which one can tell whether it had
            come to rest; None for EM, and for runs of before it was recorded.
    """

    pair: Pair
    structure: Structure
    settings: Settings
    history: History
    data: DataRecord
    kwargs: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    verdict: Verdict | None = None
    iterates: Iterates | None = None

    def __repr__(self) -> str:
        name = self.configuration()
        told = name.get("class", name.get("file", name.get("object")))
        shown = f"Run of {told}, {len(self.history)} epochs, {self.data.rows} rows"
        if len(self.history):
            shown += f", {self.headline}"
        return f"<{shown}, verdict: {self.verdict.status if self.verdict else 'not checked'}>"

    @property
    def headline(self) -> str:
        """How the fit ended, in figures of the training data: an ELBO, or what stands for it."""
        last = self.history[-1]
        if math.isnan(last.divergence):
            return f"ELBO {last.elbo:.3f} nats a datum"
        kind = self.settings.objective
        told = f"reconstruction {last.reconstruction:.3f} nats a datum"
        if kind == "avb":
            return f"{told}, {last.climbed:.3f} less the KL that a critic estimates"
        unit = "" if kind == "mmd" else " nats"
        return f"{told}, codes {last.divergence:.4f}{unit} from the prior ({kind})"

    @property
    def story(self) -> Any:
        """The fitted story: the same kind of object that was given to ``fit``."""
        return self.pair.story

    @property
    def guide(self) -> Any:
        """The fitted guide, for instance to ask an autoguide for its medians."""
        return self.pair.guide

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        with self.pair.active():
            parameters = list(self.pair.parameters().values())
        return parameters[0].device if parameters else torch.device("cpu")

    def parameters(self) -> dict[str, Tensor]:
        """Parameters by name, in their own (constrained) space.

        Those of modules carry the names of :meth:`torch.nn.Module.named_parameters`, those of
        ``pyro.param`` the names given there.
        """
        with self.pair.active():
            store = pyro.get_param_store()
            found = {name: store[name].detach().clone() for name in store.keys()}  # noqa: SIM118
            stored = {id(value) for _, value in store.named_parameters()}
            for name, value in self.pair.parameters().items():
                if id(value) not in stored:
                    found[name.partition(".")[2]] = value.detach().clone()
        return found

    def batch(self, data: Any, *, read: bool = True) -> Batch:
        """Rows in the form that the programs take.

        Args:
            data: The rows.
            read: Whether rows on disk are read now; else when some are taken.

        Raises:
            DataError: If their number of columns or shape is not that of the fitted data.
        """
        part = as_part(data).fixed(self.settings.seed)
        part = part.in_memory() if read else part
        columns = part.columns[: len(self.data.columns)]
        if len(columns) < len(self.data.columns):
            raise DataError(
                f"the story takes {len(self.data.columns)} columns, got {len(columns)}: give the "
                "others too, as a tuple"
            )
        moved = []
        for column, (shape, dtype) in zip(columns, self.data.columns, strict=True):
            if tuple(column.shape[1:]) != shape:
                raise DataError(
                    f"the run was fitted to observations of shape {shape}, got "
                    f"{tuple(column.shape[1:])}: give data of the same form"
                )
            moved.append(column.to(device=self.device, dtype=getattr(torch, dtype)))
        return tuple(moved)

    def posterior(
        self, x: Any = None, draws: int = 1000, *, out: str | Path | None = None, **options: Any
    ) -> DataTree:
        """Draws of the posterior and of what follows from it, in ArviZ's schema.

        Args:
            x: Rows to infer the latents of.
            draws: How many draws of each.
            out: A ``.nc`` or ``.zarr`` path to write to in chunks, when memory is too small.
            **options: See :func:`ppl_gen.to_arviz`.
        """
        from ppl_gen.inference.arviz import pair_to_arviz

        with self.pair.active():
            return pair_to_arviz(
                self.pair,
                self.structure,
                () if x is None else self.batch(x, read=False),
                draws=draws,
                out=out,
                kwargs=self.kwargs,
                seed=options.pop("seed", self.settings.seed),
                coords={**self._coords(), **(options.pop("coords", None) or {})},
                **options,
            )

    def _coords(self) -> dict[str, Any]:
        """Names of the columns of a table, as labels of the dimensions they stand along."""
        names, site = self.data.column_names, self.structure.observation
        if names is None or site is None or site.event_shape != (len(names),):
            return {}
        dims = getattr(self.story, "dims", {})
        (dim,) = dims.get(site.name, (f"{site.name}_dim_0",))
        return {dim: list(names), f"{dim}_2": list(names)}

    def evidence(self, x: Any, draws: int = 1000, **options: Any) -> Evidence:
        """Estimate ``log p(x)`` of each row by importance sampling with the guide.

        See :func:`ppl_gen.inference.log_evidence`. For a story with global latents the
        figure is the log predictive density under their posterior.
        """
        from ppl_gen.inference.passes import evidence_of

        return evidence_of(self, x, draws, **options)

    def sample(self, rows: int = 1, seed: int = 0, data: Any = None) -> dict[str, Tensor]:
        """Draw from the story: every latent from its prior, every observation from its law.

        Args:
            rows: How many observations.
            seed: Of the draws.
            data: Rows for what the story conditions on; zeros of the right shape otherwise, which
                for a label is class 0.
        """
        from ppl_gen.inference.passes import sample_prior

        return sample_prior(self, rows, seed, data)

    def encode(self, x: Any) -> dict[str, Tensor]:
        """Posterior means of the latents of each row, by site, ``(N, *event)`` each."""
        from ppl_gen.inference.passes import encode

        return encode(self, x)

    def decode(self, latents: Mapping[str, Tensor], data: Any = None) -> dict[str, Tensor]:
        """Expected observations given the latents of each row, by site, ``(N, *event)`` each.

        Args:
            latents: Values of local latent sites, ``(N, *event)`` each.
            data: Rows for what the story conditions on; zeros of the right shape otherwise.
        """
        from ppl_gen.inference.passes import decode

        return decode(self, latents, data)

    def redraw(self, x: Any, conditions: Any) -> Tensor:
        """What each row would be under other conditions: its code kept, the condition changed.

        The code is the mean of its posterior, given the row and its own condition::

            run.redraw((images, labels), range(10))  # every image as each of ten digits

        Args:
            x: Rows with their own conditions: a part, or a tuple of columns.
            conditions: What to put in place of the second column, ``(C, *condition)``.

        Returns:
            Expected observations, ``(N, C, *shape)``.

        Raises:
            StoryError: If the story takes no condition.
            DataError: If the conditions have another shape than those of the rows.
        """
        from ppl_gen.inference.passes import redraw

        return redraw(self, x, conditions)

    def complete(self, seen: Any, mask: Any, draws: int = 100, **options: Any) -> Completion:
        """Complete observations of which a part was seen, many times.

        Args:
            seen: Observations, ``(N, *shape)``; what they hold where they were not seen is ignored.
            mask: Where they were seen: booleans, ``(N, *shape)``, or ``shape`` for all alike.
            draws: Draws of the code, each giving one completion.
            **options: ``seed`` (of the draws, 0), ``memory`` (bytes a pass may take).

        Raises:
            StoryError: If the story is not conditioned on the seen part of an observation.
            DataError: If the mask has another shape.
        """
        from ppl_gen.inference.passes import complete

        return complete(self, seen, mask, draws, **options)

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the run to a directory; see :func:`ppl_gen.load`.

        Raises:
            RunError: If something is there already and ``overwrite`` is not set.
        """
        return disk.save(self, Path(path), overwrite)

    def configuration(self) -> dict[str, Any]:
        """What rebuilds the story: class and arguments, the path of its file, or its type."""
        return configuration_of(self.pair)
