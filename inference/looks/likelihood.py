"""Does the model look at the answer, the very numbers whose law it gives?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pyro.distributions import Independent
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.looks.patient import Patient, is_column, is_factor
from ppl_gen.inference.looks.sentences import arguments, columns, fault, names, skipped, well
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
        observed = [n for n, v in sites.model.items() if v["is_observed"] and not is_factor(v)]
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
    before = _laws(patient, held, observed, patient.batch)
    column = patient.batch[place]
    rows, flat = patient.count(), column.reshape(len(column), -1)

    def changed(elements: Tensor) -> tuple[Places, Places]:
        """Where values and where laws move with these elements."""
        other = flat.clone()
        other[:rows, elements] = flat[:rows].roll(1, 0)[:, elements]
        batch = (
            *patient.batch[:place],
            other.reshape(column.shape),
            *patient.batch[place + 1 :],
        )
        shown = patient.model_at(held, batch)
        values = {n: ~_same(held[n], shown[n]["value"]) for n in observed}
        laws = _laws(patient, held, observed, batch)
        return values, {n: ~_close(before[n], laws[n]) for n in observed}

    every = torch.arange(flat.shape[1])
    bound, moved = changed(every)
    read = {n for n in observed if moved[n].any()}
    if not read or not any(m.any() for m in bound.values()):
        return [], set()
    some = every[:: max(1, -(-len(every) // ELEMENTS))]
    seen = [changed(element[None]) for element in some]
    leads = torch.tensor(
        [[any(bool((m[n] & b[n]).any()) for n in observed) for b, _ in seen] for _, m in seen]
    )
    return some[_in_a_circle(leads)].tolist(), read


def _in_a_circle(leads: Tensor) -> Tensor:
    """Which nodes of a graph, ``(E, E)``, lead back to themselves."""
    reach = leads
    for _ in range(len(leads).bit_length()):
        reach = reach | (reach.double() @ reach.double() > 0)
    return reach.diagonal()


def _laws(
    patient: Patient, held: Mapping[str, Tensor], observed: Sequence[str], batch: Any
) -> Places:
    """Log-densities of the same observations, whatever the arguments now are."""
    nodes = patient.model_at(held, batch, unconditioned=True)
    return dict(_densities(nodes, held, observed))


def _densities(
    nodes: Nodes, held: Mapping[str, Tensor], observed: Sequence[str]
) -> Iterator[tuple[str, Tensor]]:
    for name in observed:
        if name not in nodes:
            raise StoryError(f"site {name!r} is not always there")
        law, value = nodes[name]["fn"], held[name]
        while isinstance(law, Independent):
            law = law.base_dist
        terms = law.log_prob(value)
        yield name, terms.reshape(terms.shape + (1,) * (value.dim() - terms.dim())).expand_as(value)


def _same(value: Tensor, other: Tensor) -> Tensor:
    return (value == other) | (value.isnan() & other.isnan())


def _close(terms: Tensor, other: Tensor) -> Tensor:
    return torch.isclose(terms, other, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)
