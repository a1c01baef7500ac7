"""Draws from guide and model, weighed under both."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.infer.discrete import _sample_posterior_from_trace
from torch import Tensor
from torch.utils._pytree import tree_map

from ppl_gen.errors import StoryError
from ppl_gen.inference.draws import Draws
from ppl_gen.inference.layout import (
    DRAWS,
    Layout,
    counted_mask,
    element_mask,
    kl_per_dimension,
    log_prob,
)
from ppl_gen.inference.mapping import mapped
from ppl_gen.inference.marginal import summed_out
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.structure import Structure
from ppl_gen.inference.tracing import (
    Batch,
    Fix,
    Nodes,
    blame,
    guide_of,
    sample_sites,
    trace_nodes,
)
from ppl_gen.inference.window import Window

MEAN_DRAWS = 500


class Sampler:
    """Draws from guide and model in batches of draws times rows.

    All draws of a batch are made at once, under one more plate to the left of the program's own.
    A program that does not bear it (one that reshapes without regard to batch dimensions, say) is
    found out on the first batch, by replaying two of the draws alone. It is then mapped over draws,
    or run draw by draw if it does what cannot be mapped.

    Which of the data the programs see is chosen by its :class:`Window`.

    Args:
        pair: The programs, whose parameter store has to be in force.
        structure: Their sites and plates.
        kwargs: Further arguments of both.
        at_once: Whether draws are made at once; by default this is found out, for which densities
            are needed.
    """

    def __init__(
        self,
        pair: Pair,
        structure: Structure,
        kwargs: Mapping[str, Any],
        at_once: bool | None = None,
    ) -> None:
        self.pair = pair
        self.structure = structure
        self.layout = Layout(structure)
        self.kwargs = dict(kwargs)
        self.at_once = at_once
        self._maps = not structure.subsamples
        self.summed = any(site.summed for site in structure.latents)
        self.window = Window(pair, structure, self.kwargs)

    def draw(
        self,
        batch: Batch,
        draws: int,
        fixed: Mapping[str, Tensor] | None = None,
        predict: bool = False,
        expected: bool = False,
    ) -> Draws:
        """Draw from the guide and weigh the draws.

        Args:
            batch: Rows of data.
            draws: How many draws of each latent.
            fixed: Values of global sites of the guide to keep, from :meth:`draw_globals`.
            predict: Whether to draw the observed sites anew as well.
            expected: Whether to say what their laws expect, too.
        """
        with torch.no_grad(), pyro.validation_enabled(False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.at_once is None:
                self.at_once = self._bears_plate(batch)
            if self.at_once:
                return self._shown(self._draw(batch, draws, fixed, predict, expected))
            found = self._each(
                lambda held: vars(self._draw(batch, 1, held, predict, expected)), draws, fixed or {}
            )
            return self._shown(Draws(**found))

    def draw_globals(self, batch: Batch, draws: int) -> dict[str, Tensor]:
        """Values of the guide's sites outside the data plate, as :meth:`draw` takes them back."""
        with torch.no_grad(), pyro.validation_enabled(False):
            if self.at_once is None:
                self.at_once = self._bears_plate(batch)

            def drawn(count: int) -> dict[str, Tensor]:
                return {
                    n: node["value"] if self.at_once else node["value"][None]
                    for n, node in sample_sites(self._guide(batch, count, None)).items()
                    if not self.layout.is_local(node)
                }

            return drawn(draws) if self.at_once else self._each(lambda _: drawn(1), draws, {})

    def draw_guide(self, batch: Batch, fixed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One draw of each latent of the guide, ``(1, *plates, *event)``, which is not weighed.

        Args:
            batch: Rows of data.
            fixed: Values of global sites to keep, from :meth:`draw_globals`.
        """
        with torch.no_grad(), pyro.validation_enabled(False):
            nodes = sample_sites(self._guide(batch, 1, fixed))
        kept = {n: node for n, node in nodes.items() if n in self.structure.sites}
        return {n: self.window.cut(n, self.layout.value(node, 1)) for n, node in kept.items()}

    def draw_prior(
        self,
        batch: Batch,
        draws: int,
        expected: bool = False,
        fixed: Mapping[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Draws of latents and of observations from the model, ``(S, *plates, *event)`` each.

        Args:
            batch: Rows for what the model conditions on.
            draws: How many draws of each.
            expected: Whether to give what the laws of the observations expect in place of draws;
                NaN where a law has no mean.
            fixed: Values of global sites to keep, from :meth:`draw_globals`.
        """
        with torch.no_grad(), pyro.validation_enabled(False):
            if self.at_once is None:
                self.at_once = self._bears_plate(batch)

            def drawn(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
                model = poutine.uncondition(self.pair.model)
                if held:
                    model = Fix(held, bool(self.at_once))(model)
                with blame("model"):
                    plated = self._plated(model, draws)
                    trace = poutine.trace(plated).get_trace(*batch, **self.kwargs)
                nodes = sample_sites(trace)
                self._complete(nodes)
                each = draws if self.at_once else 1
                return {n: self._drawn(nodes[n], each, expected) for n in nodes if n in sites}

            sites, held = self.structure.sites, fixed or {}
            values = drawn(held) if self.at_once else self._each(drawn, draws, held)
        joined = {n: self.window.cut(n, value) for n, value in values.items()}
        latents = {n: v for n, v in joined.items() if not sites[n].observed}
        return latents, {n: v for n, v in joined.items() if sites[n].observed}

    def _each(
        self, one: Callable[[dict[str, Tensor]], Any], draws: int, fixed: Mapping[str, Tensor]
    ) -> Any:
        """What a function makes of each draw, of those that cannot be made at once.

        Args:
            one: Given values of sites, ``(1, ...)`` by name, a tree of tensors ``(1, ...)``.
            draws: How many.
            fixed: What it is given of each, ``(S, ...)`` by name.
        """
        if self._maps and draws > 1:
            try:
                return mapped(one, draws, fixed)
            except (RuntimeError, StoryError):  # what a program may do that cannot be mapped
                self._maps = False
        parts = [one({n: v[s : s + 1] for n, v in fixed.items()}) for s in range(draws)]
        return tree_map(lambda *values: torch.cat(values), *parts)

    def means(self, batch: Batch, draws: int = MEAN_DRAWS) -> dict[str, Tensor]:
        """Posterior means of the local latents, ``(N, *event)`` each.

        That of the guide's law where it has one; the mean of some draws where the guide computes
        the latent from another, as autoguides do.
        """
        with torch.no_grad(), pyro.validation_enabled(False):
            guide, _ = trace_nodes(self.pair, batch, self.kwargs)
        sites = [s for s in self.structure.latents if s.local and s.name in guide]
        found = {}
        for site in sites:
            node = guide[site.name]
            if site.point or type(node["fn"]) is not Delta:
                mean = self.layout.mean(node, 1)
                if mean is not None:
                    found[site.name] = mean[0]
        if len(found) < len(sites):
            drawn = self.draw(batch, draws).latents
            rest = {s.name: drawn[s.name] for s in sites if s.name not in found}
            found.update((n, v.mean(0)) for n, v in rest.items() if v.is_floating_point())
        return found

    def codes(self, batch: Batch) -> dict[str, Tensor]:
        """How far the means of the posterior lie from those of the prior, ``(N, dimensions)``.

        A prior that a condition decides differs from datum to datum, whatever the code has learned.
        """
        with torch.no_grad(), pyro.validation_enabled(False):
            _, model = trace_nodes(self.pair, batch, self.kwargs)
        found = {}
        for name, mean in self.means(batch).items():
            prior = self.layout.mean(model[name], 1) if name in model else None
            moved = mean if prior is None else mean - prior[0]
            found[name] = self.by_row(name, moved[None])
        return found

    def kl(self, batch: Batch) -> dict[str, Tensor]:
        """KL of guide from prior in each dimension of the local latents, ``(N, dimensions)``.

        Of the sites whose guide and prior factorise over dimensions; analytic where Pyro has it,
        else of one draw. In nats.
        """
        with torch.no_grad(), pyro.validation_enabled(False):
            guide, model = trace_nodes(self.pair, batch, self.kwargs)
            found = {}
            for name, node in guide.items():
                if node["is_observed"] or name not in model or not self.layout.is_local(node):
                    continue
                divergence = kl_per_dimension(node, model[name])
                if divergence is not None:
                    value = self.layout.value({**node, "value": divergence}, 1)
                    found[name] = self.by_row(name, self.window.cut(name, value))
        return found

    def by_row(self, name: str, draws: Tensor) -> Tensor:
        """One draw of a local site, ``(1, *plates, *event)``, as ``(N, dimensions)``."""
        rows = draws.movedim(self.window.row_axis(name), 0)
        return rows.reshape(len(rows), -1)

    def observed(self, batch: Batch, counted: bool = False) -> dict[str, Tensor]:
        """The data as the model binds them to its sites, ``(*plates, *event)`` each.

        Args:
            batch: Rows of data.
            counted: Whether to give NaN for values that a mask keeps from being counted.
        """
        found: dict[str, list[Tensor]] = {}
        for part in self.window.slices(batch, self.window.size(batch)):
            with torch.no_grad(), self.window.showing(batch, part) as shown, blame("model"):
                trace = poutine.trace(self.pair.model).get_trace(*shown, **self.kwargs)
                nodes = sample_sites(trace)
                self._complete(nodes)
                for site in self.structure.observed:
                    node = nodes[site.name]
                    value = self.layout.value(node, 1)
                    if counted and (mask := counted_mask(node)) is not None:
                        kept = self.layout.value({**node, "value": mask}, 1)
                        value = torch.where(kept, value.double(), torch.nan)
                    value = self.window.cut(site.name, value)[0]
                    found.setdefault(site.name, []).append(value)
        return {
            s.name: torch.cat(found[s.name], self.window.row_axis(s.name) - 1)
            if s.local
            else found[s.name][0]
            for s in self.structure.observed
        }

    def _shown(self, drawn: Draws) -> Draws:
        """The draws of the rows that are shown, without what a block of indices has besides."""
        kept = self.window.kept
        if kept is None:
            return drawn
        return replace(
            drawn,
            latents={n: self.window.cut(n, v) for n, v in drawn.latents.items()},
            log_p=drawn.log_p[:, kept],
            log_q=drawn.log_q[:, kept],
            log_prior=drawn.log_prior[:, kept],
            log_likelihood={
                n: self.window.cut(n, v) if n in self.structure.sites else v[:, kept]
                for n, v in drawn.log_likelihood.items()
            },
            predicted={n: self.window.cut(n, v) for n, v in drawn.predicted.items()},
            expected={n: self.window.cut(n, v) for n, v in drawn.expected.items()},
        )

    def _plated(self, program: Any, draws: int) -> Any:
        if not self.at_once:
            return program
        return pyro.plate(DRAWS, draws, dim=-1 - self.structure.nesting)(program)

    def _guide(self, batch: Batch, draws: int, fixed: Mapping[str, Tensor] | None) -> Any:
        guide = self.pair.guide
        if fixed:
            guide = Fix(fixed, self.at_once or False)(guide)
        guide = poutine.infer_config(guide, _not_enumerated)
        with blame(guide_of(self.pair)):
            return poutine.trace(self._plated(guide, draws)).get_trace(*batch, **self.kwargs)

    def _draw(
        self,
        batch: Batch,
        draws: int,
        fixed: Mapping[str, Tensor] | None,
        predict: bool,
        expected: bool,
    ) -> Draws:
        layout, structure, rows = self.layout, self.structure, self.window.count(batch)
        guide_trace = self._guide(batch, draws, fixed)
        guide = sample_sites(guide_trace)
        # What the guide observes shapes the fit, but is no part of the latents' density.
        drawn = {n: node for n, node in guide.items() if not node["is_observed"]}
        log_q, log_q_global = layout.sums(drawn.values(), draws, rows)
        weigh = self._weigh_summed if self.summed else self._weigh
        trace, log_p, log_prior, log_p_global, likelihood = weigh(guide_trace, batch, draws)
        model = sample_sites(trace)
        self._complete(model)
        latents = {
            n: layout.value(node, draws) for n, node in drawn.items() if n in structure.sites
        }
        latents.update(
            (site.name, layout.value(model[site.name], draws))
            for site in structure.sites.values()
            if site.derived or (site.summed and not site.observed)
        )
        predicted, means = self._predict(trace, batch, draws, expected) if predict else ({}, {})
        return Draws(
            latents,
            log_p,
            log_q,
            log_prior,
            log_p_global,
            log_q_global,
            likelihood,
            predicted,
            means,
        )

    def _weigh(
        self, guide_trace: Any, batch: Batch, draws: int
    ) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """The model on the guide's draws, and its log-densities."""
        replayed = poutine.replay(self.pair.model, trace=guide_trace)
        with blame("model"):
            trace = poutine.trace(self._plated(replayed, draws)).get_trace(*batch, **self.kwargs)
        inner, outer = self.layout.sums((), draws, self.window.count(batch))
        prior, likelihood = inner, {}
        for name, node in sample_sites(trace).items():
            terms = self.layout.terms(node, draws)
            inner, outer = self.layout.added(inner, outer, node, terms)
            site = self.structure.sites.get(name)
            if site is not None and site.observed:
                likelihood[name] = terms
            elif site is not None:
                prior, _ = self.layout.added(prior, outer, node, terms)
        return trace, inner, prior, outer, likelihood

    def _weigh_summed(
        self, guide_trace: Any, batch: Batch, draws: int
    ) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """As :meth:`_weigh`, enumerated sites summed out, and drawn from their posterior."""
        guide = poutine.replay(
            poutine.infer_config(self.pair.guide, _not_enumerated),
            trace=guide_trace,
        )
        rows = self.window.count(batch)
        enumerated, inner, outer = summed_out(
            self._plated(self.pair.model, draws),
            self._plated(guide, draws),
            batch,
            self.kwargs,
            self.structure.nesting + bool(self.at_once),
            self.structure.data_plates,
            (draws, rows),
        )
        replayed = poutine.replay(self.pair.model, trace=guide_trace)
        with blame("model"), poutine.trace() as tracing:
            _sample_posterior_from_trace(
                self._plated(replayed, draws), enumerated, 1, False, *batch, **self.kwargs
            )
        drawn = [n for n in sample_sites(enumerated).values() if n["name"] in guide_trace.nodes]
        latent, _ = self.layout.sums(drawn, draws, rows)
        names = [site.name for site in self.structure.observed]
        name = names[0] if len(names) == 1 else "log_likelihood"
        return tracing.trace, inner, latent, outer, {name: inner - latent}

    def _predict(
        self, trace: Any, batch: Batch, draws: int, expected: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Observed sites drawn anew, given the latents of a trace of the model; and expected."""
        latent = trace.copy()
        for name, node in list(trace.nodes.items()):
            if node["type"] == "sample" and node["is_observed"]:
                latent.remove_node(name)
        again = poutine.replay(poutine.uncondition(self.pair.model), trace=latent)
        with blame("model"):
            drawn = poutine.trace(self._plated(again, draws)).get_trace(*batch, **self.kwargs)
        nodes = sample_sites(drawn)
        names = [site.name for site in self.structure.observed]
        means = {n: self._drawn(nodes[n], draws, expected=True) for n in names if expected}
        return {n: self._drawn(nodes[n], draws) for n in names}, means

    def _drawn(self, node: dict[str, Any], draws: int, expected: bool = False) -> Tensor:
        """A site's draws. Elements that its law masks, and so says nothing of, are as observed."""
        value = self.layout.value(node, draws)
        observed = node["infer"].get("was_observed")
        if expected and observed:
            mean = self.layout.expected(node, draws)
            unknown = value.new_full(value.shape, torch.nan, dtype=torch.get_default_dtype())
            value = unknown if mean is None else mean
        mask = element_mask(node["fn"]) if observed else None
        if mask is None:
            return value
        masked = {**node, "value": mask.expand_as(node["value"])}
        given = {**node, "value": node["infer"]["obs"].expand_as(node["value"])}
        return torch.where(
            self.layout.value(masked, draws), value, self.layout.value(given, draws).to(value)
        )

    def _complete(self, model: Nodes) -> None:
        missing = next((name for name in self.structure.sites if name not in model), None)
        if missing is not None:
            raise StoryError(
                f"site {missing!r} is there for some data or draws only, so that its draws fit no "
                "table: give the program a fixed set of sites, masked where they do not apply"
            )

    def _bears_plate(self, batch: Batch) -> bool:
        """Whether draws made at once are weighed as each would be alone."""
        self.at_once = True
        with torch.random.fork_rng():
            try:
                together = self._guide(batch, 3, None)
                model = poutine.replay(self.pair.model, trace=together)
                with blame("model"):
                    both = poutine.trace(self._plated(model, 3)).get_trace(*batch, **self.kwargs)
                nodes = {"guide": sample_sites(together), "model": sample_sites(both)}
                if self.summed:
                    return all(self.layout.fits(n) for p in nodes.values() for n in p.values())
                return all(self._agrees(nodes, batch, s) for s in (0, 2))
            except (StoryError, RuntimeError, ValueError, IndexError, KeyError):
                return False
            finally:
                self.at_once = None

    def _agrees(self, nodes: dict[str, Nodes], batch: Batch, draw: int) -> bool:
        chosen = {}
        for name, node in nodes["guide"].items():
            value, events = node["value"], len(node["fn"].event_shape)
            axis = value.dim() - events - 1 - self.structure.nesting
            chosen[name] = (
                value.select(axis, draw) if axis >= 0 and value.shape[axis] > 1 else value
            )
        for program, own in (("guide", self.pair.guide), ("model", self.pair.model)):
            held = Fix({name: value[None] for name, value in chosen.items()}, at_once=False)(own)
            alone = sample_sites(poutine.trace(held).get_trace(*batch, **self.kwargs))
            for name, node in nodes[program].items():
                if not self.layout.fits(node):
                    return False
                term, single = log_prob(node), log_prob(alone[name])
                if term.dim() == 1 + self.structure.nesting:
                    term = term[draw if len(term) > 1 else 0]
                if term.numel() != single.numel():
                    return False  # draws stand where the program's own plates should
                term, single = torch.broadcast_tensors(term, single)
                if not torch.allclose(term, single, rtol=1e-3, atol=1e-3, equal_nan=True):
                    return False
        return True


def _not_enumerated(site: Any) -> Any:
    return {"enumerate": None}
