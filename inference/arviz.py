"""From a fitted model and guide to ArviZ: an ``xarray.DataTree`` in its schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ppl_gen.data import Dataset, Part
from ppl_gen.errors import DataError
from ppl_gen.inference.batches import on_disk, rows_of, some_rows
from ppl_gen.inference.dims import event_dims
from ppl_gen.inference.draws import Draws
from ppl_gen.inference.labels import Labels, component_table, relabelling
from ppl_gen.inference.memory import MEMORY
from ppl_gen.inference.pair import Pair, Program
from ppl_gen.inference.passes import Blocks, plan
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.sinks import Sink, sink_for
from ppl_gen.inference.structure import Structure, examine
from ppl_gen.inference.tracing import Batch

if TYPE_CHECKING:
    from xarray import DataTree

GROUPS = (
    "posterior",
    "posterior_predictive",
    "log_likelihood",
    "sample_stats",
    "prior",
    "prior_predictive",
    "observed_data",
)
# Observed rows of data on disk that are written at a time.
OBSERVED = 10_000


def to_arviz(
    model: Program,
    guide: Program,
    data: Any = (),
    *,
    draws: int = 1000,
    kwargs: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> DataTree:
    """Turn a fitted Pyro model and guide into what ArviZ takes.

    Works on any pair, fitted by whatever means; parameters are those in the modules and in Pyro's
    parameter store as they are now, and stay so::

        svi = SVI(model, guide, Adam({"lr": 0.01}), Trace_ELBO())
        ...
        tree = ppl_gen.to_arviz(model, guide, data)
        az.summary(tree)

    Groups: ``posterior``, ``posterior_predictive``, ``prior``, ``prior_predictive``,
    ``log_likelihood``, ``observed_data``, and ``sample_stats`` with ``log_p`` and ``log_q``, the
    log-densities of every draw under model and guide. Draws have dimensions ``(chain, draw)``, one
    chain; plates give the others their names; those of one value are named by ``dims``, or
    ``z_dim_0`` and so on. A name that stands in several places is one dimension.
    Sites enumerated in the model are drawn from their exact posterior given the rest, and
    ``log_likelihood`` has them summed out.

    Args:
        model: The model.
        guide: Its fitted guide.
        data: What both are called with: a tensor, or a tuple of arguments.
        draws: Draws of the guide.
        kwargs: Further arguments of both.
        out: A path ending in ``.nc`` or ``.zarr``. Written in chunks, so that the tree need not
            fit in memory; what is returned then reads from it.
        **options: ``seed`` (of the draws, 0); ``groups`` (a choice of the above); ``prior_draws``
            (100, or ``draws`` if fewer); ``dims`` (names of a site's event dimensions, outermost
            first, by site; those of a :class:`ppl_gen.Story` unless given); ``coords`` (labels for
            dimensions, by name); ``align`` (whether draws of what the story says is exchangeable
            are relabelled to agree, True: see :func:`ppl_gen.align_labels`; their densities stay as
            they were drawn); ``memory`` (bytes a pass may take, 128 MiB).

    Raises:
        StoryError: If the programs do not fit each other or the data.
        DataError: If ``out`` ends otherwise, a group is unknown, a label's length is wrong, or
            ``dims`` are too few, too many or of two sizes.
    """
    pair = Pair((model, guide), model, guide, borrowed=True)
    batch = _arguments(data)
    size = rows_of(batch)
    given = dict(kwargs or {})
    seed = options.pop("seed", 0)
    with pair.evaluating(), seeded(seed):
        structure = examine(pair, lambda rows: some_rows(batch, slice(0, rows)), size, size, given)
        return pair_to_arviz(
            pair, structure, batch, draws=draws, kwargs=given, out=out, seed=seed, **options
        )


def pair_to_arviz(
    pair: Pair,
    structure: Structure,
    batch: Batch,
    *,
    draws: int,
    kwargs: Mapping[str, Any],
    out: str | Path | None = None,
    seed: int = 0,
    groups: Collection[str] = GROUPS,
    prior_draws: int | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    align: bool = True,
    memory: int = MEMORY,
) -> DataTree:
    """As :func:`to_arviz`, for a pair whose structure is known and whose store is in force."""
    if draws < 1:
        raise DataError(f"draws must be at least 1, got {draws}")
    for group in groups:
        if group not in GROUPS:
            raise DataError(f"groups must be among {', '.join(GROUPS)}, got {group!r}")
    named = event_dims(structure, dict(getattr(pair.story, "dims", {})), dict(dims or {}))
    with seeded(seed):
        sampler = Sampler(pair, structure, kwargs)
        sink = sink_for(out)
        try:
            size = sampler.window.size(batch)
            writer = _Writer(sink, structure, size, named, dict(coords or {}))
            if align:
                writer.exchangeable = getattr(pair.story, "exchangeable", None)
                numbered = getattr(pair.story, "indices", ())
                writer.indices = tuple(name for name in numbered if name in structure.sites)
            _write_posterior(sampler, batch, draws, memory, set(groups), writer)
            if {"prior", "prior_predictive"} & set(groups):
                count = min(draws, 100) if prior_draws is None else prior_draws
                _write_prior(sampler, batch, count, memory, set(groups), writer)
            if "observed_data" in groups:
                _write_observed(sampler, batch, writer)
            attributes = {
                "inference_library": "ppl-gen",
                "inference_library_version": _version(),
                "creation_library": "ppl-gen",
            }
            if writer.labels is not None and writer.indices:
                attributes["indices"] = " ".join(writer.indices)
            return sink.finish(attributes)
        except BaseException:
            sink.discard()
            raise


def _write_posterior(
    sampler: Sampler, batch: Batch, draws: int, memory: int, groups: set[str], writer: _Writer
) -> None:
    predict = "posterior_predictive" in groups
    rows, together = plan(sampler, batch, draws, memory, predict)
    first = next(sampler.window.slices(batch, rows))
    with sampler.window.showing(batch, first) as shown:
        fixed = sampler.draw_globals(shown, draws)
    writer.labels = _labels(sampler, batch, draws, together, fixed, writer)
    blocks = Blocks(sampler, batch, rows, draws, together)
    for part in sampler.window.slices(batch, rows):
        for start in range(0, draws, together):
            stop = min(draws, start + together)
            held = {n: v[start:stop] for n, v in fixed.items()}
            with sampler.window.showing(batch, part) as shown:
                drawn = blocks.draw(shown, stop - start, held, predict)
            place = (slice(start, stop), part, draws, together, rows)
            for group, values in _grouped(drawn, sampler.structure).items():
                if group in groups:
                    for name, value in values.items():
                        writer.put(group, name, value, *place)


def _labels(
    sampler: Sampler,
    batch: Batch,
    draws: int,
    together: int,
    fixed: Mapping[str, Tensor],
    writer: _Writer,
) -> Labels | None:
    """The order of the components of every draw, found before any draw is written.

    It is that of the global latents alone, which are the same for all rows: few rows show them.
    """
    dim, structure = writer.exchangeable, sampler.structure
    axes = {
        site.name: 1 + writer.site_dims(site.name).index(dim)
        for site in structure.sites.values()
        if dim in writer.site_dims(site.name) and not (site.observed or site.local)
    }
    if dim is None or not axes:
        return None
    part = next(sampler.window.slices(batch, sampler.window.step(batch, 1)))
    found: dict[str, list[Tensor]] = {}
    with torch.random.fork_rng():  # the draws that are written are those without labels
        for start in range(0, draws, together):
            stop = min(draws, start + together)
            held = {n: v[start:stop] for n, v in fixed.items()}
            with sampler.window.showing(batch, part) as shown:
                drawn = sampler.draw(shown, stop - start, held).latents
            for name in axes:
                if drawn[name].is_floating_point():
                    found.setdefault(name, []).append(drawn[name].cpu())
    if not found:
        return None
    values = {name: torch.cat(parts) for name, parts in found.items()}
    return Labels(dim, writer.indices, relabelling(component_table(values, axes))[0])


def _grouped(drawn: Draws, structure: Structure) -> dict[str, dict[str, Tensor]]:
    stats = {}
    if structure.data_plates:
        stats = {"log_p": drawn.log_p, "log_q": drawn.log_q}
        if structure.has_globals:
            stats["log_p_global"] = drawn.log_p_global
            stats["log_q_global"] = drawn.log_q_global
    else:
        stats = {"log_p": drawn.log_p_global, "log_q": drawn.log_q_global}
    return {
        "posterior": drawn.latents,
        "posterior_predictive": drawn.predicted,
        "log_likelihood": drawn.log_likelihood,
        "sample_stats": stats,
    }


def _write_prior(
    sampler: Sampler, batch: Batch, draws: int, memory: int, groups: set[str], writer: _Writer
) -> None:
    rows, together = plan(sampler, batch, draws, memory, predict=True)
    globals_kept: dict[int, dict[str, Tensor]] = {}
    for part in sampler.window.slices(batch, rows):
        for start in range(0, draws, together):
            stop = min(draws, start + together)
            with sampler.window.showing(batch, part) as shown:
                latents, observed = sampler.draw_prior(shown, stop - start)
            kept = globals_kept.setdefault(start, {})
            for name, value in latents.items():
                if not sampler.structure.sites[name].local:
                    latents[name] = kept.setdefault(name, value)
            place = (slice(start, stop), part, draws, together, rows)
            for group, values in (("prior", latents), ("prior_predictive", observed)):
                if group in groups:
                    for name, value in values.items():
                        writer.put(group, name, value, *place)


def _write_observed(sampler: Sampler, batch: Batch, writer: _Writer) -> None:
    """What is observed; of rows on disk some at a time."""
    stored = on_disk(batch)
    for part in sampler.window.slices(batch, OBSERVED) if stored else [slice(None)]:
        some = some_rows(batch, part) if stored else batch
        for name, value in sampler.observed(some).items():
            writer.put_observed(name, value, part)


class _Writer:
    """Knows the dimensions of every site, and hands pieces to a sink."""

    def __init__(
        self,
        sink: Sink,
        structure: Structure,
        size: int,
        dims: dict[str, tuple[str, ...]],
        coords: dict[str, Any],
    ) -> None:
        self.sink = sink
        self.structure = structure
        self.size = size
        self.dims = dims
        self.coords = coords
        self.exchangeable: str | None = None
        self.indices: tuple[str, ...] = ()
        self.labels: Labels | None = None
        self.made: set[tuple[str, str]] = set()
        self.sizes: dict[tuple[str, str], tuple[int, str]] = {}

    def put(
        self,
        group: str,
        name: str,
        value: Tensor,
        draws: slice,
        rows: slice,
        all_draws: int,
        some_draws: int,
        some_rows: int,
    ) -> None:
        """Write draws of a site, ``(S, *plates, *event)``, into their place."""
        dims = self._dims(name, group, value.dim() - 1)
        value = value.cpu()
        if self.labels is not None and not group.startswith("prior"):
            value = self.labels.applied(name, value, dims, draws)
        array = value.numpy()
        shape, chunks, where = [1, all_draws], [1, some_draws], [slice(0, 1), draws]
        for dim, size in zip(dims, array.shape[1:], strict=True):
            streamed = dim in self.structure.data_plates and rows != slice(None)
            shape.append(self.size if streamed else size)
            chunks.append(min(some_rows, self.size) if streamed else size)
            where.append(rows if streamed else slice(0, size))
        self._create(group, name, ["chain", "draw", *dims], shape, array.dtype, chunks)
        self.sink.write(group, name, tuple(where), array[None])

    def put_observed(self, name: str, value: Tensor, rows: slice) -> None:
        """Write observed values, ``(*plates, *event)``, of some rows or of all."""
        array = value.cpu().numpy()
        dims = self._dims(name, "observed_data", array.ndim)
        shape, chunks, where = [], [], []
        for dim, size in zip(dims, array.shape, strict=True):
            streamed = dim in self.structure.data_plates and rows != slice(None)
            shape.append(self.size if streamed else size)
            chunks.append(min(OBSERVED, self.size) if streamed else max(1, size))
            where.append(rows if streamed else slice(0, size))
        self._create("observed_data", name, dims, shape, array.dtype, chunks)
        self.sink.write("observed_data", name, tuple(where), array)

    def _dims(self, name: str, group: str, count: int) -> list[str]:
        if name not in self.structure.sites or group == "sample_stats":
            return [self._data_plate()][:count]
        if count < len(self.structure.sites[name].plates):  # sites were summed out, and all plates
            return [self._data_plate()][:count]
        return self.site_dims(name)[:count]

    def site_dims(self, name: str) -> list[str]:
        """Names of the dimensions of a site: its plates, then those of one value."""
        return [*self.structure.sites[name].plates, *self.dims[name]]

    def _data_plate(self) -> str:
        return next(
            (p for s in self.structure.sites.values() for p in s.plates
             if p in self.structure.data_plates),
            "observations",
        )  # fmt: skip

    def _create(
        self,
        group: str,
        name: str,
        dims: list[str],
        shape: list[int],
        dtype: Any,
        chunks: list[int],
    ) -> None:
        if (group, name) in self.made:
            return
        for dim, size in zip(dims, shape, strict=True):
            known, first = self.sizes.setdefault((group, dim), (size, name))
            if size != known:
                raise DataError(
                    f"dimension {dim!r} must have one size, got {known} in {first!r} and {size} in "
                    f"{name!r}: give one of them another name with dims="
                )
        self.made.add((group, name))
        self.sink.create(group, name, dims, shape, dtype, chunks)
        for dim, size in zip(dims, shape, strict=True):
            if (group, dim) in self.made:
                continue
            self.made.add((group, dim))
            labels = np.asarray(self.coords.get(dim, np.arange(size)))
            if len(labels) != size:
                raise DataError(f"coords of {dim!r} must have {size} labels, got {len(labels)}")
            self.sink.create(group, dim, [dim], [size], labels.dtype, [max(1, size)])
            self.sink.write(group, dim, (slice(None),), labels)


def _arguments(data: Any) -> Batch:
    if isinstance(data, Dataset):
        data = data.train
    if isinstance(data, Part):
        return (data.fixed().x,)
    arguments = data if isinstance(data, tuple) else (data,)
    return tuple(torch.as_tensor(a) if isinstance(a, np.ndarray) else a for a in arguments)


def _version() -> str:
    try:
        return metadata.version("ppl-gen")
    except metadata.PackageNotFoundError:
        return "unknown"
