"""Does the model look at the answer, the very numbers whose law it gives?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_gen.inference.layout import counted_mask
from ppl_gen.inference.looks.patient import Patient, is_column, is_derived, is_factor
from ppl_gen.inference.looks.sentences import arguments, columns, fault, names, skipped, well
from ppl_gen.inference.mismatch import base_of
from ppl_gen.inference.tracing import Nodes
from ppl_gen.inference.verdict import Finding

# Elements of an argument that are changed one at a time, and by what share of 1 and itself a
# density may differ in rounding.
ELEMENTS, ROUNDING = 24, 1e-4

Places = dict[str, Tensor]


def likelihood(patient: Patient) -> list[Finding]:
    """Whether what the model observes is told by its latents, and not by itself.

    The latents and what is observed are held, and elements of an argument are changed, one at a
    time and 24 at most: a law that moves is one that reads the argument. To read what is given
    beside the observations is well, and so is to tell each element by those before it, as an
    autoregressive story does. It is a fault if an element has a part in its own law, at once or by
    way of others: the product of such laws is no density of the data, and the latents are left with
    nothing to tell.

    Reference:
        Besag (1975), section 2, https://doi.org/10.2307/2987782, of products of such laws
    """
    name = "likelihood"
    if reason := patient.without_rows:
        return [skipped(name, reason, "not applicable")]
    with patient.stirred():
        sites = patient.draw()
        held = {n: node["value"] for _, n, node in sites.each()}
        observed = [n for n, node in sites.model.items() if _tells(patient, node)]
        found, readers = list[Finding](), dict[str, set[str]]()
        for place, column in enumerate(patient.batch):
            if is_column(column, patient.batch):
                own, read = _own(patient, place, held, observed)
                called = arguments(patient.pair.model, len(patient.batch))[place]
                readers.setdefault(called, set()).update(read)
                if own:
                    found.append(_fault(name, called, own, sorted(read), column))
    if found:
        return found
    told = [
        f"The law of {names(sorted(read))} reads {called}, each element those before it."
        for called, read in readers.items()
        if read
    ]
    return [well(name, " ".join(told) or "What is observed is told by the latents.", "elements")]


def _tells(patient: Patient, node: Mapping[str, Any]) -> bool:
    """Whether a site observes something of each row."""
    if not node["is_observed"] or is_factor(node) or is_derived(node):
        return False
    frames = [f for f in node["cond_indep_stack"] if f.name in patient.structure.data_plates]
    return len(frames) == 1 and frames[0].vectorized


def _fault(name: str, called: str, own: list[int], read: list[str], column: Tensor) -> Finding:
    which = f"{columns(own, tuple(column.shape[1:]))} of {called}" if column.dim() > 1 else called
    return fault(
        name,
        len(own),
        "elements",
        f"The law of {names(read)} is made of the very numbers that it is the law of: the model "
        f"reads {which} for it.",
        f"Make the law of {names(read)} of latents. What it needs beside them, such as a total, is "
        "to be an argument of its own, on which the story is then conditioned.",
        source="Besag 1975",
    )


def _own(
    patient: Patient, place: int, held: Mapping[str, Tensor], observed: Sequence[str]
) -> tuple[list[int], set[str]]:
    """Elements of an argument that have a part in their own law, and sites whose laws read it."""
    column = patient.batch[place]
    rows, flat = patient.count(), column.reshape(len(column), -1)
    nodes = patient.model_at(held, unconditioned=True)
    before, axes = _laws(nodes, held, observed), {n: _row_axis(patient, nodes[n]) for n in observed}

    def changed(elements: Tensor) -> tuple[Places, Places]:
        """Where observed values and where laws move with these elements, ``(N, *)`` each."""
        other = flat.clone()
        other[:rows, elements] = flat[:rows].roll(1, 0)[:, elements]
        batch = list(patient.batch)
        batch[place] = other.reshape(column.shape)
        after = _laws(patient.model_at(held, tuple(batch), unconditioned=True), held, observed)
        moved = {n: ~_close(before[n], after[n]) for n in observed}
        values = _values_moved(patient.model_at(held, tuple(batch)), held, observed)
        return _by_row(values, axes), _by_row(moved, axes)

    every = torch.arange(flat.shape[1])
    bound, moved = changed(every)
    read = {n for n in observed if moved[n].any()}
    if not read or not any(m.any() for m in bound.values()):
        return [], set()
    some = every[:: max(1, -(-len(every) // ELEMENTS))]
    seen = [changed(element[None]) for element in some]
    # Of each row, whether an element leads to another: what a row does not observe leads nowhere.
    leads = torch.stack([torch.stack([_leads(a, b) for b in seen]) for a in seen])
    return some[_in_a_circle(leads.movedim(-1, 0))].tolist(), read


def _leads(one: tuple[Places, Places], other: tuple[Places, Places]) -> Tensor:
    """In which rows a law of the other element moves with the one, which is observed, ``(N,)``."""
    is_seen = torch.stack([values.any(1) for values in one[0].values()]).any(0)
    meets = torch.stack([(laws & other[0][n]).any(1) for n, laws in one[1].items()]).any(0)
    return is_seen & meets


def _in_a_circle(leads: Tensor) -> Tensor:
    """Which nodes of some of the graphs, ``(N, E, E)``, lead back to themselves, ``(E,)``."""
    reach = leads.double()
    for _ in range(leads.shape[-1].bit_length()):
        reach = ((reach + reach @ reach) > 0).double()
    return reach.diagonal(dim1=-2, dim2=-1).any(0)


def _laws(nodes: Nodes, held: Mapping[str, Tensor], observed: Sequence[str]) -> Places:
    """Log-densities of the held observations, whatever the arguments now are."""
    found = {}
    for name in observed:
        terms, value = base_of(nodes[name]["fn"]).log_prob(held[name]), held[name]
        found[name] = terms.reshape(terms.shape + (1,) * (value.dim() - terms.dim()))
        found[name] = found[name].expand_as(value)
    return found


def _values_moved(nodes: Nodes, held: Mapping[str, Tensor], observed: Sequence[str]) -> Places:
    """Where observed values are others than those held, and count."""
    found = {}
    for name in observed:
        value, counts = nodes[name]["value"], counted_mask(nodes[name])
        moved = (value != held[name]) & ~(value.isnan() & held[name].isnan())
        found[name] = moved if counts is None else moved & counts
    return found


def _by_row(values: Places, axes: Mapping[str, int]) -> Places:
    return {n: v.movedim(axes[n], 0).reshape(v.shape[axes[n]], -1) for n, v in values.items()}


def _row_axis(patient: Patient, node: Mapping[str, Any]) -> int:
    (frame,) = (f for f in node["cond_indep_stack"] if f.name in patient.structure.data_plates)
    return node["value"].dim() - len(node["fn"].event_shape) + frame.dim


def _close(terms: Tensor, other: Tensor) -> Tensor:
    return torch.isclose(terms, other, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)
