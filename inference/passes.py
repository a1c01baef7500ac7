"""Many draws over many data in batched passes, within a stated amount of memory."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyro
import torch
from opt_einsum import shared_intermediates
from pyro import poutine
from pyro.distributions import Independent
from pyro.infer import TraceEnum_ELBO
from pyro.infer.discrete import _sample_posterior_from_trace
from pyro.infer.traceenum_elbo import _compute_model_factors
from pyro.ops.contract import contract_tensor_tree
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ppl_gen.errors import StoryError
from ppl_gen.inference.batches import rows_of, some_rows
from ppl_gen.inference.evidence import Evidence, log_evidence
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.structure import (
    Batch,
    Indices,
    Nodes,
    PlateSizes,
    Structure,
    blame,
    trace_nodes,
)

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

DRAWS = "_draws"
MEMORY = 64 * 2**20


@dataclass
class Draws:
    """Draws of the guide on one batch, weighed under both programs.

    Batch dimensions of every tensor: the draws first, then those of the plates around the site.

    Attributes:
        latents: Values of the latent sites and of what derives from them, ``(S, *plates, *event)``.
        log_p: Log-density of the model, ``(S, N)`` for what is inside the data plate, latents and
            data together; zero where there is no data plate.
        log_q: The same of the guide.
        log_p_global: Log-density of what stands outside, ``(S,)``.
        log_q_global: The same of the guide.
        log_likelihood: Of each observed site, summed to ``(S, N)``, or ``(S,)`` if global.
        predicted: Values of the observed sites drawn anew, ``(S, *plates, *event)``.
        means: Their expectations given the latents, where the law has one.
    """

    latents: dict[str, Tensor]
    log_p: Tensor
    log_q: Tensor
    log_p_global: Tensor
    log_q_global: Tensor
    log_likelihood: dict[str, Tensor]
    predicted: dict[str, Tensor]
    means: dict[str, Tensor]

    @property
    def log_weights(self) -> Tensor:
        """Importance weights of the local latents, in nats, ``(S, N)``."""
        return self.log_p - self.log_q


class Sampler:
    """Draws from guide and model in batches of draws times rows.

    All draws of a batch are made at once, under one more plate to the left of the program's own.
    A program that does not bear it (one that reshapes without regard to batch dimensions, say) is
    found out on the first batch, by replaying two of the draws alone, and is then run draw by draw.

    A program that picks its own mini-batch is shown one block of indices after the other, by
    :meth:`showing`, so that every datum has its turn.

    Args:
        pair: The programs, whose parameter store has to be in force.
        structure: Their sites and plates.
        kwargs: Further arguments of both.
    """

    def __init__(self, pair: Pair, structure: Structure, kwargs: Mapping[str, Any]) -> None:
        self.pair = pair
        self.structure = structure
        self.kwargs = dict(kwargs)
        self.at_once: bool | None = None
        self.summed = any(site.summed for site in structure.latents)
        self._window: tuple[str, int, int] | None = None
        self._block: tuple[int, slice] | None = None

    def size(self, batch: Batch) -> int:
        """How many data there are: rows of the batch, or what the program draws indices from."""
        if self.structure.subsamples:
            return self._subsampled(batch)[1]
        return rows_of(batch)

    def step(self, batch: Batch, rows: int) -> int:
        """How many data to show at a time, if ``rows`` would be best."""
        return self._subsampled(batch)[2] if self.structure.subsamples else rows

    @contextmanager
    def showing(self, batch: Batch, part: slice) -> Iterator[Batch]:
        """Show the programs some of the data: a part of the batch, or all with chosen indices."""
        if not self.structure.subsamples:
            yield some_rows(batch, part)
            return
        plate, size, taken = self._subsampled(batch)
        start, stop, _ = part.indices(size)
        # A plate takes as many indices as it asks for: the last block reaches back.
        first = min(start, size - taken)
        self._block = (taken, slice(start - first, stop - first))
        try:
            with Indices({plate: torch.arange(first, first + taken, device=_device(batch))}):
                yield batch
        finally:
            self._block = None

    def _subsampled(self, batch: Batch) -> tuple[str, int, int]:
        """The plate by which the program picks a mini-batch, its size, and how many it takes."""
        if self._window is None:
            sizes = PlateSizes()
            with torch.no_grad(), torch.random.fork_rng(), blame("story"), sizes:
                self.pair.guide(*batch, **self.kwargs)
                self.pair.model(*batch, **self.kwargs)
            plates = sorted(sizes.drawn)
            if len(plates) != 1 or plates[0] not in self.structure.data_plates:
                raise StoryError(
                    "to show a program every datum, the plate that picks its mini-batch must be "
                    f"one and vectorised, got {', '.join(map(repr, plates))}, several or a loop: "
                    "leave out subsample_size to draw from the posterior"
                )
            size, taken = sizes.seen[plates[0]]
            assert taken is not None
            self._window = (plates[0], size, taken)
        return self._window

    def draw(
        self,
        batch: Batch,
        draws: int,
        fixed: Mapping[str, Tensor] | None = None,
        predict: bool = False,
    ) -> Draws:
        """Draw from the guide and weigh the draws.

        Args:
            batch: Rows of data.
            draws: How many draws of each latent.
            fixed: Values of global sites of the guide to keep, from :meth:`draw_globals`.
            predict: Whether to draw the observed sites anew as well.
        """
        with torch.no_grad(), pyro.validation_enabled(False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.at_once is None:
                self.at_once = self._bears_plate(batch)
            if self.at_once:
                return self._shown(self._draw(batch, draws, fixed, predict))
            parts = []
            for s in range(draws):
                one = {n: v[s : s + 1] for n, v in (fixed or {}).items()}
                parts.append(self._draw(batch, 1, one, predict))
            return self._shown(_joined(parts))

    def draw_globals(self, batch: Batch, draws: int) -> dict[str, Tensor]:
        """Values of the guide's sites outside the data plate, as :meth:`draw` takes them back."""
        with torch.no_grad(), pyro.validation_enabled(False):
            if self.at_once is None:
                self.at_once = self._bears_plate(batch)
            found: list[dict[str, Tensor]] = []
            for _ in range(1 if self.at_once else draws):
                nodes = self._guide(batch, draws if self.at_once else 1, None)
                found.append(
                    {
                        n: node["value"] if self.at_once else node["value"][None]
                        for n, node in _sample_sites(nodes).items()
                        if not self._is_local(node)
                    }
                )
            return {n: torch.cat([f[n] for f in found]) for n in found[0]}

    def draw_prior(self, batch: Batch, draws: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Draws of latents and of observations from the model, ``(S, *plates, *event)`` each."""
        with torch.no_grad(), pyro.validation_enabled(False):
            if self.at_once is None:
                self.at_once = self._bears_plate(batch)
            parts = []
            for _ in range(1 if self.at_once else draws):
                model = self._plated(poutine.uncondition(self.pair.model), draws)
                with blame("model"):
                    trace = poutine.trace(model).get_trace(*batch, **self.kwargs)
                parts.append(_sample_sites(trace))
                self._complete(parts[-1])
        each = draws if self.at_once else 1
        sites = self.structure.sites
        values = [{n: self._value(p[n], each) for n in p if n in sites} for p in parts]
        joined = {n: self._cut(n, torch.cat([v[n] for v in values])) for n in values[0]}
        latents = {n: v for n, v in joined.items() if not sites[n].observed}
        return latents, {n: v for n, v in joined.items() if sites[n].observed}

    def codes(self, batch: Batch) -> dict[str, tuple[Tensor | None, Tensor | None]]:
        """Of each local site of the guide: posterior means, and KL from the prior per dimension.

        Both have shape ``(N, dimensions)``; None where the law has no mean, or where guide and
        prior do not factorise over dimensions. The KL is analytic where Pyro has it, else of one
        draw.
        """
        with torch.no_grad(), pyro.validation_enabled(False):
            guide, model = trace_nodes(self.pair, batch, self.kwargs)
            found = {}
            for name, node in guide.items():
                if node["is_observed"] or not self._is_local(node):
                    continue
                mean = self._mean(node, 1)
                divergence = _kl_per_dimension(node, model[name]) if name in model else None
                if divergence is not None:
                    divergence = self._value({**node, "value": divergence}, 1)
                found[name] = (self._by_row(name, mean), self._by_row(name, divergence))
        return found

    def _by_row(self, name: str, draws: Tensor | None) -> Tensor | None:
        """One draw of a local site as ``(N, dimensions)``."""
        if draws is None:
            return None
        rows = self._cut(name, draws).movedim(self._row_axis(name), 0)
        return rows.reshape(len(rows), -1)

    def observed(self, batch: Batch) -> dict[str, Tensor]:
        """The data as the model binds them to its sites, ``(*plates, *event)`` each."""
        found: dict[str, list[Tensor]] = {}
        for part in row_slices(self, batch, self.step(batch, self.size(batch))):
            with torch.no_grad(), self.showing(batch, part) as shown, blame("model"):
                trace = poutine.trace(self.pair.model).get_trace(*shown, **self.kwargs)
                nodes = _sample_sites(trace)
                self._complete(nodes)
                for site in self.structure.observed:
                    value = self._cut(site.name, self._value(nodes[site.name], 1))[0]
                    found.setdefault(site.name, []).append(value)
        return {
            s.name: torch.cat(found[s.name], self._row_axis(s.name) - 1)
            if s.local
            else found[s.name][0]
            for s in self.structure.observed
        }

    def _row_axis(self, name: str) -> int:
        """The axis of a local site's draws ``(S, *plates, *event)`` along which the data lie."""
        plates = self.structure.sites[name].plates
        return 1 + next(i for i, p in enumerate(plates) if p in self.structure.data_plates)

    def _cut(self, name: str, value: Tensor) -> Tensor:
        """Of a site's draws those of the rows that are shown."""
        site = self.structure.sites.get(name)
        if self._block is None or site is None or not site.local:
            return value
        _, kept = self._block
        return value.narrow(self._row_axis(name), kept.start, kept.stop - kept.start)

    def _shown(self, drawn: Draws) -> Draws:
        """The draws of the rows that are shown, without what a block of indices has besides."""
        if self._block is None:
            return drawn
        _, kept = self._block
        return replace(
            drawn,
            latents={n: self._cut(n, v) for n, v in drawn.latents.items()},
            log_p=drawn.log_p[:, kept],
            log_q=drawn.log_q[:, kept],
            log_likelihood={
                n: v[:, kept] if v.dim() == 2 else v for n, v in drawn.log_likelihood.items()
            },
            predicted={n: self._cut(n, v) for n, v in drawn.predicted.items()},
            means={n: self._cut(n, v) for n, v in drawn.means.items()},
        )

    def _count(self, batch: Batch) -> int:
        """How many data the programs have before them."""
        if self._block is not None:
            return self._block[0]
        return rows_of(batch) if self.structure.data_plates else 1

    def _plated(self, program: Any, draws: int) -> Any:
        if not self.at_once:
            return program
        return pyro.plate(DRAWS, draws, dim=-1 - self.structure.nesting)(program)

    def _guide(self, batch: Batch, draws: int, fixed: Mapping[str, Tensor] | None) -> Any:
        guide = self.pair.guide
        if fixed:
            guide = _Fix(fixed, self.at_once or False)(guide)
        guide = poutine.infer_config(guide, lambda site: {"enumerate": None})
        with blame("guide"):
            return poutine.trace(self._plated(guide, draws)).get_trace(*batch, **self.kwargs)

    def _draw(
        self, batch: Batch, draws: int, fixed: Mapping[str, Tensor] | None, predict: bool
    ) -> Draws:
        guide_trace = self._guide(batch, draws, fixed)
        guide = _sample_sites(guide_trace)
        # What the guide observes shapes the fit, but is no part of the latents' density.
        drawn_nodes = {n: node for n, node in guide.items() if not node["is_observed"]}
        log_q, log_q_global = self._sums(drawn_nodes.values(), batch, draws)
        latents = {
            n: self._value(node, draws)
            for n, node in drawn_nodes.items()
            if n in self.structure.sites
        }
        replayed = poutine.replay(self.pair.model, trace=guide_trace)
        if self.summed:
            enumerated, sums = self._summed_out(guide_trace, batch, draws)
            log_p, log_p_global, likelihood = sums
            with blame("model"), poutine.trace() as tracing:
                _sample_posterior_from_trace(
                    self._plated(replayed, draws), enumerated, 1, False, *batch, **self.kwargs
                )
            replayed_trace = tracing.trace
            model = _sample_sites(replayed_trace)
            self._complete(model)
            latents.update(
                (site.name, self._value(model[site.name], draws))
                for site in self.structure.latents
                if site.summed
            )
        else:
            with blame("model"):
                replayed_trace = poutine.trace(self._plated(replayed, draws)).get_trace(
                    *batch, **self.kwargs
                )
            model = _sample_sites(replayed_trace)
            log_p, log_p_global = self._sums(model.values(), batch, draws)
            self._complete(model)
            likelihood = {}
            for name in (s.name for s in self.structure.observed):
                inner, outer = self._sums([model[name]], batch, draws)
                likelihood[name] = inner if self._is_local(model[name]) else outer
        latents.update(
            (site.name, self._value(model[site.name], draws))
            for site in self.structure.sites.values()
            if site.derived
        )
        predicted = {}
        if predict:
            again = poutine.replay(
                poutine.uncondition(self.pair.model), trace=_latent(replayed_trace)
            )
            with blame("model"):
                drawn = poutine.trace(self._plated(again, draws)).get_trace(*batch, **self.kwargs)
            nodes = _sample_sites(drawn)
            predicted = {s.name: self._value(nodes[s.name], draws) for s in self.structure.observed}
        means = {
            s.name: mean
            for s in self.structure.observed
            if (mean := self._mean(model[s.name], draws)) is not None
        }
        return Draws(
            latents, log_p, log_q, log_p_global, log_q_global, likelihood, predicted, means
        )

    def _complete(self, model: Nodes) -> None:
        missing = next((name for name in self.structure.sites if name not in model), None)
        if missing is not None:
            raise StoryError(
                f"site {missing!r} is there for some data or draws only, so that its draws fit no "
                "table: give the program a fixed set of sites, masked where they do not apply"
            )

    def _is_local(self, node: Mapping[str, Any]) -> bool:
        return any(f.name in self.structure.data_plates for f in node["cond_indep_stack"])

    def _value(self, node: Mapping[str, Any], draws: int) -> Tensor:
        """A site's value as ``(S, *plates, *event)``, plates from the outermost dimension in."""
        events = len(node["fn"].event_shape)
        dims = sorted(f.dim for f in node["cond_indep_stack"] if f.vectorized and f.name != DRAWS)
        value = node["value"].detach()
        batch = [1] * (1 + self.structure.nesting)
        own = value.shape[: value.dim() - events]
        for i, size in enumerate(reversed(own)):
            batch[-1 - i] = size
        value = value.reshape(*batch, *value.shape[value.dim() - events :])
        sizes = {f.dim: f.size for f in node["cond_indep_stack"] if f.vectorized}
        for dim in range(-self.structure.nesting, 0):
            if dim not in dims:
                continue
            target = sizes[dim] if sizes[dim] > 0 else batch[dim]
            shape = list(value.shape)
            shape[1 + self.structure.nesting + dim] = target
            value = value.expand(shape)
        keep = [1 + self.structure.nesting + dim for dim in dims]
        drop = [i for i in range(1, 1 + self.structure.nesting) if i not in keep]
        for i in reversed(drop):
            value = value.squeeze(i)
        return value.expand(draws, *value.shape[1:])

    def _mean(self, node: Mapping[str, Any], draws: int) -> Tensor | None:
        try:
            mean = node["fn"].mean
        except (NotImplementedError, AttributeError):
            return None
        if not isinstance(mean, Tensor) or mean.isnan().any():
            return None
        events = len(node["fn"].event_shape)
        shape = torch.broadcast_shapes(
            mean.shape[: mean.dim() - events], node["value"].shape[: node["value"].dim() - events]
        )
        mean = mean.expand(*shape, *mean.shape[mean.dim() - events :])
        return self._value({**node, "value": mean}, draws)

    def _sums(self, nodes: Any, batch: Batch, draws: int) -> tuple[Tensor, Tensor]:
        """Log-densities inside the data plate, summed to ``(S, N)``, and outside, to ``(S,)``."""
        rows = self._count(batch)
        device = _device(batch)
        inner = torch.zeros(draws, rows, device=device)
        outer = torch.zeros(draws, device=device)
        for node in nodes:
            term = _log_prob(node)
            axes = 1 + self.structure.nesting
            term = term.reshape((1,) * (axes - term.dim()) + term.shape)
            dim = next(
                (
                    f.dim
                    for f in node["cond_indep_stack"]
                    if f.name in self.structure.data_plates and f.vectorized
                ),
                None,
            )
            full = self._expanded(term, node)
            if dim is None:
                outer = outer + full.reshape(len(full), -1).sum(1)
            else:
                others = [i for i in range(1, axes) if i != axes + dim]
                inner = inner + (full.sum(others) if others else full)
        return inner, outer

    def _expanded(self, term: Tensor, node: Mapping[str, Any]) -> Tensor:
        """A log-density with the full size of each of its plates, even if it is constant there."""
        shape = list(term.shape)
        for frame in node["cond_indep_stack"]:
            if frame.vectorized and frame.name != DRAWS and frame.size > 0:
                shape[1 + self.structure.nesting + frame.dim] = frame.size
        return term.expand(shape)

    def _summed_out(
        self, guide_trace: Any, batch: Batch, draws: int
    ) -> tuple[Any, tuple[Tensor, Tensor, dict[str, Tensor]]]:
        """As :meth:`_sums`, with enumerated sites summed out; before it, the enumerated trace."""
        nesting = self.structure.nesting + bool(self.at_once)
        elbo = TraceEnum_ELBO(max_plate_nesting=nesting, strict_enumeration_warning=False)
        fixed = poutine.replay(
            poutine.infer_config(self.pair.guide, _plain_site), trace=guide_trace
        )
        with blame("model"):
            model, guide = next(
                elbo._get_traces(
                    self._plated(self.pair.model, draws),
                    self._plated(fixed, draws),
                    batch,
                    self.kwargs,
                )
            )
        costs, factors, _, sum_dims, _scale = _compute_model_factors(model, guide)
        with shared_intermediates() as cache:
            summed = contract_tensor_tree(OrderedDict(factors), set(sum_dims), cache=cache)
        symbols = model.plate_to_symbol
        draw = symbols.get(DRAWS)
        data = next((symbols[p] for p in self.structure.data_plates if p in symbols), None)
        rows = self._count(batch)
        sizes = {draw: draws, data: rows}
        inner, outer = torch.zeros(draws, rows), torch.zeros(draws)
        for ordinal, terms in [*costs.items(), *summed.items()]:
            local = data is not None and data in ordinal
            for term in terms:
                kept = [symbol for symbol in (draw, data if local else None) if symbol]
                total = _sum_to(term, kept, sizes)
                total = total if draw else total[None]
                total = total.expand(draws, *total.shape[1:])
                if local:
                    inner = inner + total
                else:
                    outer = outer + total
        names = [s.name for s in self.structure.observed]
        latent, _ = self._sums(
            [n for n in _sample_sites(model).values() if n["name"] in guide.nodes], batch, draws
        )
        name = names[0] if len(names) == 1 else "log_likelihood"
        return model, (inner, outer, {name: inner - latent})

    def _bears_plate(self, batch: Batch) -> bool:
        """Whether draws made at once are weighed as each would be alone."""
        self.at_once = True
        with torch.random.fork_rng():
            try:
                together = self._guide(batch, 3, None)
                model = poutine.replay(self.pair.model, trace=together)
                with blame("model"):
                    both = poutine.trace(self._plated(model, 3)).get_trace(*batch, **self.kwargs)
                nodes = {"guide": _sample_sites(together), "model": _sample_sites(both)}
                if self.summed:
                    return all(self._shape_fits(n) for p in nodes.values() for n in p.values())
                return all(self._agrees(nodes, batch, s) for s in (0, 2))
            except (StoryError, RuntimeError, ValueError, IndexError, KeyError):
                return False
            finally:
                self.at_once = None

    def _shape_fits(self, node: dict[str, Any]) -> bool:
        return _log_prob(node).dim() <= 1 + self.structure.nesting

    def _agrees(self, nodes: dict[str, Nodes], batch: Batch, draw: int) -> bool:
        chosen = {}
        for name, node in nodes["guide"].items():
            value, events = node["value"], len(node["fn"].event_shape)
            axis = value.dim() - events - 1 - self.structure.nesting
            chosen[name] = (
                value.select(axis, draw) if axis >= 0 and value.shape[axis] > 1 else value
            )
        for program, own in (("guide", self.pair.guide), ("model", self.pair.model)):
            condition = poutine.condition(own, data=chosen)
            alone = _sample_sites(poutine.trace(condition).get_trace(*batch, **self.kwargs))
            for name, node in nodes[program].items():
                if not self._shape_fits(node):
                    return False
                term, single = _log_prob(node), _log_prob(alone[name])
                if term.dim() == 1 + self.structure.nesting:
                    term = term[draw if len(term) > 1 else 0]
                term, single = torch.broadcast_tensors(term, single)
                if not torch.allclose(term, single, rtol=1e-3, atol=1e-3, equal_nan=True):
                    return False
        return True


class _Fix(poutine.messenger.Messenger):
    """Give sites the values of an earlier run of the same program."""

    def __init__(self, values: Mapping[str, Tensor], at_once: bool) -> None:
        super().__init__()
        self.values = values
        self.at_once = at_once

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values and not site_is_subsample(msg):  # type: ignore[arg-type]
            value = self.values[msg["name"]]
            msg["value"] = value if self.at_once else value[0]
            msg["done"] = True


class _Bytes(TorchDispatchMode):
    """Count the bytes of everything that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.total += leaf.numel() * leaf.element_size()
        return result


def plan(sampler: Sampler, batch: Batch, draws: int, memory: int, predict: bool) -> tuple[int, int]:
    """How many rows and draws to take at once so that a pass stays within ``memory`` bytes.

    A small pass is run and everything it computes is counted, an upper bound of what it holds.
    """
    rows = sampler.size(batch) if sampler.structure.splits_rows else 1
    few = sampler.step(batch, min(rows, 4))
    part = next(row_slices(sampler, batch, few))
    with torch.random.fork_rng(), sampler.showing(batch, part) as shown:
        sampler.draw(shown, 2)
        with _Bytes() as counted:
            sampler.draw(shown, 4, predict=predict)
    cell = max(1, counted.total // (4 * few))
    cells = max(1, memory // cell)
    together = min(draws, max(1, cells // sampler.step(batch, min(rows, 64))))
    return sampler.step(batch, max(1, min(rows, cells // together))), together


def row_slices(sampler: Sampler, batch: Batch, rows: int) -> Iterator[slice]:
    """Slices of the rows, or one of everything where the programs need all the data."""
    if not sampler.structure.splits_rows:
        yield slice(None)
        return
    size = sampler.size(batch)
    for start in range(0, size, rows):
        yield slice(start, min(start + rows, size))


def evidence_of(
    run: Run, x: Any, draws: int = 1000, *, memory: int = MEMORY, seed: int = 0, khat: bool = True
) -> Evidence:
    """Importance-sampled evidence of each row, as in :func:`ppl_gen.inference.log_evidence`.

    Args:
        run: The fitted story.
        x: Rows of data.
        draws: Draws of the guide a row.
        memory: Bytes that a pass may take.
        seed: Of the draws.
        khat: Whether to fit the Pareto tails as well.
    """
    parts = [
        log_evidence(local, khat) for local, _ in _weighed(run, run.batch(x), draws, memory, seed)
    ]
    joined = {
        name: torch.cat([getattr(p, name) for p in parts])
        for name in ("nats", "error", "ess", "elbo", "khat")
    }
    return Evidence(**joined, draws=draws)


def joint_evidence_of(
    run: Run, x: Any, draws: int = 1000, *, memory: int = MEMORY, seed: int = 0
) -> Evidence:
    """Evidence of all rows together, global latents included: one figure, shape ``(1,)``.

    Only on the data of the fit do the guide's global latents belong to these rows.
    """
    batch = () if x is None else run.batch(x)
    total = torch.zeros(draws, dtype=torch.float64)
    outer = torch.zeros(draws, dtype=torch.float64)
    for local, outer in _weighed(run, batch, draws, memory, seed):  # noqa: B007
        total += local.double().sum(1)
    return log_evidence((total + outer.double())[:, None])


def _weighed(
    run: Run, batch: Batch, draws: int, memory: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Log-weights of a few rows at a time, ``(S, rows)``, and of the global sites, ``(S,)``."""
    with run.pair.active(), seeded(seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        rows, together = plan(sampler, batch, draws, memory, predict=False)
        first = next(row_slices(sampler, batch, rows))
        with sampler.showing(batch, first) as shown:
            fixed = sampler.draw_globals(shown, draws)
        for part in row_slices(sampler, batch, rows):
            local, outer = [], []
            for start in range(0, draws, together):
                stop = min(draws, start + together)
                held = {n: v[start:stop] for n, v in fixed.items()}
                with sampler.showing(batch, part) as shown:
                    drawn = sampler.draw(shown, stop - start, held)
                local.append(drawn.log_weights.cpu())
                outer.append((drawn.log_p_global - drawn.log_q_global).cpu())
            yield torch.cat(local), torch.cat(outer)


def sample_prior(run: Run, rows: int, seed: int = 0, data: Any = None) -> dict[str, Tensor]:
    """Draw whole observations from the model; see :meth:`ppl_gen.Run.sample`."""
    batch = run.data.blank(rows, run.device) if data is None else run.batch(data)
    with run.pair.active(), seeded(seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        latents, observed = sampler.draw_prior(batch, 1)
    return {name: value[0] for name, value in {**latents, **observed}.items()}


def encode(run: Run, x: Any) -> dict[str, Tensor]:
    """Posterior means of the local latents; see :meth:`ppl_gen.Run.encode`."""
    batch = run.batch(x)
    with run.pair.active(), seeded(run.settings.seed), torch.no_grad():
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        with blame("guide"):
            trace = poutine.trace(run.pair.guide).get_trace(*batch, **run.kwargs)
        return {
            name: mean[0]
            for name, node in _sample_sites(trace).items()
            if sampler._is_local(node) and (mean := sampler._mean(node, 1)) is not None
        }


def decode(run: Run, latents: Mapping[str, Tensor], data: Any = None) -> dict[str, Tensor]:
    """Expected observations given local latents; see :meth:`ppl_gen.Run.decode`."""
    rows = len(next(iter(latents.values())))
    batch = run.data.blank(rows, run.device) if data is None else run.batch(data)
    with run.pair.active(), seeded(run.settings.seed), torch.no_grad():
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        model = poutine.condition(run.pair.model, data=dict(latents))
        with pyro.validation_enabled(False), blame("model, given these latents,"):
            nodes = _sample_sites(poutine.trace(model).get_trace(*batch, **run.kwargs))
        means = {s.name: sampler._mean(nodes[s.name], 1) for s in run.structure.observed}
    return {name: mean[0] for name, mean in means.items() if mean is not None}


def _device(batch: Batch) -> torch.device | None:
    return next((column.device for column in batch if isinstance(column, Tensor)), None)


def _sample_sites(trace: Any) -> Nodes:
    return {
        name: node
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not site_is_subsample(node)
    }


def _latent(trace: Any) -> Any:
    """The trace without its observed sites, to replay the rest."""
    kept = trace.copy()
    for name, node in list(trace.nodes.items()):
        if node["type"] == "sample" and node["is_observed"]:
            kept.remove_node(name)
    return kept


def _log_prob(node: Mapping[str, Any]) -> Tensor:
    term = node["fn"].log_prob(node["value"])
    mask = node["mask"]
    if mask is None:
        return term
    if isinstance(mask, bool):
        return term if mask else torch.zeros_like(term)
    return torch.where(mask, term, torch.zeros_like(term))


def _kl_per_dimension(guide: Mapping[str, Any], model: Mapping[str, Any]) -> Tensor | None:
    q, p = guide["fn"], model["fn"]
    if not (isinstance(q, Independent) and isinstance(p, Independent)):
        return None
    if q.base_dist.event_shape or p.base_dist.event_shape:
        return None
    value = guide["value"]
    try:
        divergence = kl_divergence(q.base_dist, p.base_dist)
    except NotImplementedError:
        divergence = q.base_dist.log_prob(value) - p.base_dist.log_prob(value)
    return divergence.expand_as(value) if value.dim() >= divergence.dim() else None


def _plain_site(site: Mapping[str, Any]) -> dict[str, Any]:
    return {"enumerate": None}


def _sum_to(term: Any, kept: list[str], sizes: Mapping[str, int]) -> Tensor:
    """Sum a packed tensor over all dimensions but the named ones, in their order."""
    dims = term._pyro_dims
    away = [i for i, symbol in enumerate(dims) if symbol not in kept]
    total = term.sum(away) if away else term
    left = [symbol for symbol in dims if symbol in kept]
    total = total.reshape([total.shape[left.index(s)] if s in left else 1 for s in kept])
    return total.expand([sizes[s] for s in kept])


def _joined(parts: list[Draws]) -> Draws:
    def cat(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], dict):
            return {key: torch.cat([value[key] for value in values]) for key in values[0]}
        return torch.cat(values)

    return Draws(**{name: cat(name) for name in Draws.__dataclass_fields__})
