"""Does the guide read the data?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.layout import element_mask, log_prob
from ppl_gen.inference.looks.patient import (
    Patient,
    Sites,
    is_column,
    is_derived,
    is_factor,
    other_row,
    permuted,
)
from ppl_gen.inference.looks.sentences import arguments, columns, fault, names, skipped, well
from ppl_gen.inference.mismatch import base_of
from ppl_gen.inference.structure import Site
from ppl_gen.inference.verdict import Finding

# Runs of a guide without slopes in which elements that it does not read are looked for.
SEARCHES = 60


def encoder(patient: Patient) -> list[Finding]:
    """Whether the guide of the latents of each datum reads that datum, and all of it.

    A latent whose law stays the same when rows change places ignores them; that fails if the
    log-density of the data depends on it, and warns if other latents read them or no parameter
    decides the law, so that it was chosen to be as it is.

    An element of an observation is read if the guide's draws (or densities, where draws have no
    slope) have a slope in it for some row, or, without slopes, if they move with it. It is a fault
    not to read an element whose log-density depends on the latents where others of the same
    argument are read; an argument that is not read at all warns if another is, as a guide may be
    meant to do without it, or if the guide is the prior.
    """
    name, structure = "encoder", patient.structure
    latents = [s for s in structure.latents if s.local and not s.summed]
    if not latents:
        return [skipped(name, "The story has no latent of each datum.", "not applicable")]
    if reason := patient.without_rows:
        return [skipped(name, reason, "not applicable")]
    if structure.keeps_rows:
        reason = "The guide has parameters for every datum."
        return [skipped(name, reason, "not applicable")]
    rows = patient.count()
    if rows < 2 or len(set(other_row(patient.batch, rows))) < 2:
        return [skipped(name, "Needs rows that differ.")]
    plain = patient.guide(patient.batch)
    with patient.stirred():
        sites = patient.draw()
        latents = [s for s in latents if s.name in sites.guide]
        blind = _blind(patient, sites, latents)
        if len(blind) < len(latents):
            findings = _unread(patient, sites)
        elif _has_own_laws(patient, sites, latents):
            reason = "The guide has parameters for every datum."
            return [skipped(name, reason, "not applicable")]
        else:
            findings = []
        idle = [s for s in blind if _matters(patient, sites, s)]
    # A law without a parameter, as that of a guide that is the prior, was chosen to be so.
    learned = any(not _alike(sites.guide[s.name], plain.get(s.name)) for s in idle)
    if not idle and len(blind) == len(latents):
        reason = "The data do not depend on latents."
        return [skipped(name, reason, "not applicable")]
    if idle:
        plate = next(p for p in idle[0].plates if p in structure.data_plates)
        findings.append(
            fault(
                name,
                len(idle),
                "sites",
                f"The guide draws {names([s.name for s in idle])} from the same law for every "
                "row, whatever the data.",
                "Let the guide compute its law from the data; or, if one value for all data is "
                f"meant, sample it outside pyro.plate({plate!r}) in both programs.",
                status="fail" if learned and len(blind) == len(latents) else "warn",
            )
        )
    return findings or [well(name, "The guide reads all of each datum.", "columns")]


def _blind(patient: Patient, sites: Sites, latents: Sequence[Site]) -> list[Site]:
    """Latents that the guide draws alike when rows are in other places."""
    index = patient.rolled()
    seen = patient.guide(permuted(patient.batch, index))
    return [s for s in latents if _alike(sites.guide[s.name], seen.get(s.name))]


def _alike(node: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    """Whether two runs of a site with the same noise have the same value and density."""
    if other is None or node["value"].shape != other["value"].shape:
        return False
    if not torch.equal(node["value"], other["value"]):
        return False
    if type(base_of(node["fn"])) is Delta:
        return True
    return torch.equal(log_prob(node), log_prob(other))


def _has_own_laws(patient: Patient, sites: Sites, latents: Sequence[Site]) -> bool:
    """Whether laws differ from row to row though no data are read: each has its own parameters."""
    for site in latents:
        node = sites.guide[site.name]
        same = {**node, "value": torch.full_like(node["value"], 0.5)}
        terms = patient.terms(same)
        if terms is not None and not torch.allclose(terms, terms[:1].expand_as(terms)):
            return True
    return False


def _matters(patient: Patient, sites: Sites, site: Site) -> bool:
    """Whether the density of the data depends on a latent."""
    values = {n: node["value"] for _, n, node in sites.each() if not node["is_observed"]}
    again = patient.draw(seed=patient.seed + 1).guide[site.name]["value"]
    if torch.equal(again, values[site.name]) and again.is_floating_point():  # a point
        again = again + torch.randn_like(again)
    before = patient.model_at(values)
    after = patient.model_at({**values, site.name: again})
    every = torch.ones(patient.count(), dtype=torch.bool)
    observed = {n: v for n, v in before.items() if v["is_observed"]}
    return bool(patient.changed(Sites({}, observed), Sites({}, after), every, 1e-6))


def _unread(patient: Patient, sites: Sites) -> list[Finding]:
    """Arguments, or elements of one, that the guide does not read though it ought to."""
    names = arguments(patient.pair.model, len(patient.batch))
    needed, unread = {}, {}
    for place, column in enumerate(patient.batch):
        if is_column(column, patient.batch):
            wanted = _needed(patient, sites, place)
            if wanted is not None and wanted.any():
                needed[place] = wanted
                unread[place] = wanted & ~_read(patient, sites, place)
    whole = [place for place in needed if torch.equal(needed[place], unread[place])]
    if needed and len(whole) == len(needed) and _is_indexed(patient):
        return []
    every = len(whole) == len(needed) and not _is_prior(patient, sites)
    findings = []
    for place in needed:
        named, which = names[place], unread[place].flatten().nonzero().flatten().tolist()
        if place in whole:
            findings.append(
                fault(
                    "encoder",
                    len(which),
                    "columns",
                    f"The guide does not read {named}, which the model says depends on latents.",
                    f"Let the guide compute its law from {named} too; leave it so if draws must be "
                    "had without it.",
                    status="fail" if every else "warn",
                )
            )
        elif which:
            findings.append(
                fault(
                    "encoder",
                    len(which),
                    "columns",
                    f"The guide does not read {columns(which, tuple(unread[place].shape))} of "
                    f"{named}, which the model says depend on latents.",
                    f"Give the guide's network all {unread[place].numel()} of them: look for a "
                    "slice, an index or a mask before it.",
                    {"columns": [float(i) for i in which]},
                )
            )
    return findings


def _is_prior(patient: Patient, sites: Sites) -> bool:
    """Whether the guide is the prior given the condition, which is meant so if it is so exactly."""
    for site in patient.structure.latents:
        q, p = sites.guide.get(site.name), sites.model.get(site.name)
        if q is None or p is None or not site.local:
            continue
        own, prior = patient.terms(q), patient.terms(p)
        if own is None or prior is None or not torch.allclose(own, prior):
            return False
    return True


def _is_indexed(patient: Patient) -> bool:
    """Whether an argument numbers the rows, by which the guide may find parameters of each."""
    columns = [c for c in patient.batch if is_column(c, patient.batch) and c.dim() == 1]
    whole = [c for c in columns if not c.is_floating_point() and c.dtype != torch.bool]
    return any(len(column.unique()) == len(column) for column in whole)


def _needed(patient: Patient, sites: Sites, place: int) -> Tensor | None:
    """Which elements of an argument are observed, and have a density that the latents decide."""
    column = patient.batch[place]
    values = {n: node["value"] for _, n, node in sites.each() if not node["is_observed"]}
    others = patient.draw(seed=patient.seed + 1)
    again = {n: node["value"] for _, n, node in others.each() if not node["is_observed"]}
    if not column.is_floating_point():
        return _needed_whole(patient, column, values, again)
    slopes = []
    observed = torch.zeros_like(column, dtype=torch.bool)
    for held in (values, again):
        x = column.detach().clone().requires_grad_()
        batch = (*patient.batch[:place], x, *patient.batch[place + 1 :])
        with torch.enable_grad():
            nodes = [v for v in patient.model_at(held, batch).values() if v["is_observed"]]
            nodes = [v for v in nodes if not (is_factor(v) or is_derived(v))]
            shown = [v["value"] for v in nodes if v["value"].requires_grad]
            if not shown:
                return None
            binding = torch.stack([(v * torch.randn_like(v)).sum() for v in shown]).sum()
            (bound,) = torch.autograd.grad(binding, x, retain_graph=True)
            density = torch.stack([log_prob(node).sum() for node in nodes]).sum()
            (slope,) = torch.autograd.grad(density, x, allow_unused=True)
        observed |= bound != 0
        slopes.append(torch.zeros_like(x) if slope is None else slope)
    decided = ~torch.isclose(*slopes, rtol=1e-5, atol=1e-7, equal_nan=True)
    return (observed & decided).any(0)


def _needed_whole(
    patient: Patient, column: Tensor, values: dict[str, Tensor], again: dict[str, Tensor]
) -> Tensor | None:
    """The same of an argument without slopes: all of it, if a site's density is decided."""
    nodes, other = patient.model_at(values), patient.model_at(again)
    part = column[: patient.count()]
    for name, node in nodes.items():
        value = node["value"]
        if not node["is_observed"] or is_factor(node) or value.numel() != part.numel():
            continue
        if not torch.equal(value.reshape(-1).double(), part.reshape(-1).double()):
            continue
        if not torch.allclose(log_prob(node), log_prob(other[name]), equal_nan=True):
            mask = element_mask(node["fn"])
            return None if mask is not None else torch.ones_like(part[0], dtype=torch.bool)
    return None


class _Slopes(Messenger):
    """Collect numbers that have a slope in what the guide reads: draws, or densities of draws."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self.names = names
        self.sums: list[Tensor] = []

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] not in self.names or msg["is_observed"]:
            return
        value = msg["value"]
        if not value.requires_grad:
            value = msg["fn"].log_prob(value)
        if value.requires_grad:
            self.sums.append((value * torch.randn_like(value)).sum())


def _read(patient: Patient, sites: Sites, place: int) -> Tensor:
    """Which elements of an argument some draw of the guide depends on."""
    latents = frozenset(s.name for s in patient.structure.latents if s.local)
    column = patient.batch[place]
    read = torch.zeros(column.shape[1:], dtype=torch.bool, device=column.device)
    if column.is_floating_point():
        # Of numbers that shut a tanh, as those of tables in their own units, there is no slope.
        largest = column.detach().abs().nan_to_num(0.0, 0.0, 0.0).max().item()
        for scale in (1.0, 3 / largest) if largest > 5 else (1.0,):
            x = (column.detach() * scale).requires_grad_()
            batch = (*patient.batch[:place], x, *patient.batch[place + 1 :])
            with torch.enable_grad(), _Slopes(latents) as slopes:
                patient.guide(batch)
                if slopes.sums:
                    total = torch.stack(slopes.sums).sum()
                    (slope,) = torch.autograd.grad(total, x, allow_unused=True)
                    if slope is not None:
                        read |= (slope != 0).any(0)
            if read.all():
                return read
    return _searched(patient, sites, place, read)


def _searched(patient: Patient, sites: Sites, place: int, read: Tensor) -> Tensor:
    """Look for further elements that are read, by changing groups of them, ever smaller ones.

    What is left when that has taken long enough counts as read.
    """
    column, rows = patient.batch[place], patient.count()
    flat = read.flatten().clone()
    groups = [(~flat).nonzero().flatten()]
    chosen, unlike = other_row(patient.batch, rows)
    finite = column[column.isfinite()] if column.is_floating_point() else column
    for _ in range(SEARCHES):
        if not groups:
            break
        group = groups.pop(0)
        if not _moves_with(patient, sites, place, group, finite, (chosen, unlike)):
            continue
        if len(group) == 1:
            flat[group] = True
            continue
        half = len(group) // 2
        groups += [group[:half], group[half:]]
    for group in groups:
        flat[group] = True
    return flat.reshape(read.shape)


def _moves_with(
    patient: Patient,
    sites: Sites,
    place: int,
    group: Tensor,
    finite: Tensor,
    pair: tuple[int, int],
) -> bool:
    """Whether the guide's draws move when elements of all rows are given other values."""
    column, rows = patient.batch[place], patient.count()
    flat = column.reshape(len(column), -1)
    others = [flat.roll(1, 0)[:, group], flat[pair[1]].expand_as(flat)[:, group]]
    if finite.numel():
        others += [finite.max().expand(len(flat), len(group))]
        others += [finite.min().expand(len(flat), len(group))]
    for values in others:
        changed = flat.clone()
        changed[:rows, group] = values[:rows]
        x = changed.reshape(column.shape)
        try:
            seen = patient.guide((*patient.batch[:place], x, *patient.batch[place + 1 :]))
        except StoryError:
            return True
        if any(not _alike(sites.guide[n], seen.get(n)) for n in sites.guide):
            return True
    return False
