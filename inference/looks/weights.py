"""Does every term count as often as it should?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_gen.inference.looks.patient import (
    Patient,
    Sites,
    is_derived,
    is_factor,
    other_row,
    permuted,
)
from ppl_gen.inference.looks.sentences import fault, in_words, skipped, well
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.tracing import Batch, PlateSizes
from ppl_gen.inference.verdict import Finding, Status

SVI = "Hoffman et al. 2013"
# Share of itself by which a term may differ in rounding.
ROUNDING = 1e-4


def weights(patient: Patient) -> list[Finding]:
    """Whether every term counts as often as it should, whatever the size of a batch.

    Terms inside the data plates are weighted by the number of data over that of the batch. So what
    depends on the data must stand inside (a factor outside warns, as it may be meant to be of a
    batch); a plate must have the size of the batch or of the data; and nothing may be weighted by
    hand besides. A weight that all sites of both programs share is no fault.

    Reference:
        Hoffman et al. (2013), section 2.4, https://jmlr.org/papers/v14/hoffman13a.html
    """
    name = "weights"
    if not any(isinstance(column, Tensor) for column in patient.batch):
        return [skipped(name, "The programs hold their data themselves.", "not applicable")]
    with patient.stirred():
        findings = [*_sizes(patient), *_outside(patient), *_scaled(patient)]
    return findings or [well(name, "Every term counts once for each datum.", "sites")]


def _sizes(patient: Patient) -> Iterator[Finding]:
    """Plates over data whose size is neither that of the batch nor that of the data."""
    batch, structure = patient.batch, patient.structure
    rows = len(patient.numbers)
    sizes = {length for column in batch if isinstance(column, Tensor) for length in column.shape}
    if structure.subsamples:
        with seeded(patient.seed), PlateSizes() as plates:
            patient.pair.guide(*batch, **patient.kwargs)
            patient.pair.model(*batch, **patient.kwargs)
        for name in sorted(plates.drawn & structure.data_plates):
            size, taken = plates.seen[name]
            if size != patient.size and size not in sizes:
                yield fault(
                    "weights",
                    size,
                    "rows",
                    f"Plate {name!r} draws {taken} rows from {size}, but the data have "
                    f"{patient.size}: terms count for {size}.",
                    f"Give it the size of the data, pyro.plate({name!r}, len(x), "
                    f"subsample_size={taken}).",
                    source=SVI,
                )
        return
    part = patient.part(patient.rows_a_step)
    count = rows if part.stop is None else part.stop
    sites = patient.draw(rows=patient.rows_a_step)
    observed = {n: v for n, v in sites.model.items() if v["is_observed"] and not is_derived(v)}
    frames = [(n, f) for n, v in observed.items() for f in v["cond_indep_stack"] if f.vectorized]
    if any(frame.size < 0 or frame.size >= count for _, frame in frames):
        return
    found = {f.name: (n, f) for n, f in frames if _holds_rows(observed[n], f, batch)}
    if not found:
        return
    again = patient.draw(rows=patient.rows_a_step, seed=patient.seed + 1).model
    for plate, (name, frame) in found.items():
        if torch.equal(observed[name]["value"], again[name]["value"]):
            continue  # always the same rows, as where each is explained by the one before
        yield fault(
            "weights",
            frame.size,
            "rows",
            f"Plate {plate!r} of site {name!r} has size {frame.size}, rows that are picked by "
            f"chance from {count}: they do not count for the others.",
            f"Let it draw its rows, with pyro.plate({plate!r}, len(x), subsample_size="
            f"{frame.size}) as rows and x[rows]; or take all rows, and fit with batch_size.",
            source=SVI,
        )


def _holds_rows(node: Mapping[str, Any], frame: Any, batch: Batch) -> bool:
    """Whether a site's values along a plate are rows of the data."""
    value, events = node["value"], len(node["fn"].event_shape)
    if not isinstance(value, Tensor) or value.dim() - events != 1 or frame.dim != -1:
        return False
    rows = value.reshape(len(value), -1)
    for column in batch:
        if isinstance(column, Tensor) and column.dim() and column.shape[1:] == value.shape[1:]:
            every = column.reshape(len(column), -1).to(rows)
            if all((every == row).all(1).any() for row in rows[:3]):
                return True
    return False


def _outside(patient: Patient) -> Iterator[Finding]:
    """Data outside the data plates of programs that take batches: they are not weighted up."""
    structure, rows = patient.structure, patient.count()
    if not structure.batch_plates or not structure.takes_batches or rows < 3:
        return
    sites = patient.draw()
    before = patient.held(sites)
    chosen, unlike = other_row(patient.batch, rows)
    index = patient.every_row()
    index[chosen] = unlike
    fewer = torch.arange(rows - 1)
    changed = [
        patient.held(sites, permuted(patient.batch, index)),
        patient.held(patient.moved(sites, fewer), permuted(patient.batch, fewer)),
    ]
    found = _of_rows(patient, before, changed, patient.held(sites))
    plate = min(structure.batch_plates)
    # A factor may be meant to be of a batch, as a penalty on its codes is; data never are.
    factors = [site for site in found if is_factor(getattr(before, site[0])[site[1]])]
    told: list[tuple[list[tuple[str, str]], Status]] = [
        ([s for s in found if s not in factors], "fail"),
        (factors, "warn"),
    ]
    for some, status in told:
        if some:
            yield fault(
                "weights",
                len(some),
                "sites",
                f"{in_words(some)} depends on the rows of the batch, but stands outside the plate "
                f"of the data, {plate!r}: it is not weighted up to all data, as other terms are.",
                f"Put it inside pyro.plate({plate!r}, ...), with one term for each row: "
                ".to_event(n) of one less.",
                status=status,
                source=SVI,
            )


def _of_rows(
    patient: Patient, before: Sites, changed: Sequence[Sites], again: Sites
) -> list[tuple[str, str]]:
    """Observed sites outside the data plates whose terms move with the rows, and not without."""
    found = []
    for program, name, node in before.each():
        if not node["is_observed"] or (old := patient.outside(node)) is None:
            continue
        terms = []
        for after in (again, *changed):
            other = getattr(after, program).get(name)
            term = None if other is None else patient.outside(other)
            terms.append(term is None or bool(torch.isclose(old, term.to(old), rtol=ROUNDING)))
        if terms[0] and not all(terms):
            found.append((program, name))
    return found


def _scaled(patient: Patient) -> Iterator[Finding]:
    """Sites that are scaled by hand, unless all are by the same factor, as in a mean over data."""
    sites = patient.draw()
    own = {(p, n): _own_scale(node) for p, n, node in sites.each()}
    inside = {(p, n) for p, n, node in sites.each() if patient.layout.is_local(node)}
    scales = list(own.values())
    usual = 1.0 if 1.0 in scales else max(scales, key=scales.count, default=1.0)
    odd = [site for site in own if not math.isclose(own[site], usual, rel_tol=1e-6)]
    odd = [site for site in odd if site in inside]
    if not odd:
        return
    rows, fewer = patient.count(), own
    if patient.structure.batch_plates and patient.structure.takes_batches and rows > 2:
        half = permuted(patient.batch, torch.arange(rows // 2))
        fewer = {(p, n): _own_scale(node) for p, n, node in patient.draw(half).each()}
    ratio = patient.size / min(patient.rows_a_step, patient.size)
    twice, weighted = [], []
    for site in odd:
        follows = not math.isclose(own[site], fewer.get(site, own[site]), rel_tol=1e-6)
        by_hand = ratio > 1 and math.isclose(own[site] / usual, ratio, rel_tol=0.05)
        (twice if follows or by_hand else weighted).append(site)
    if twice:
        yield fault(
            "weights",
            len(twice),
            "sites",
            f"{in_words(twice)} is scaled by {own[twice[0]]:.4g} by hand, besides the weight that "
            "terms inside the plate of the data get from the fit: it counts twice.",
            "Leave out poutine.scale, or the division by the number of rows.",
            source=SVI,
        )
    if weighted:
        yield fault(
            "weights",
            len(weighted),
            "sites",
            f"{in_words(weighted)} is scaled by {own[weighted[0]]:.4g}, others by {usual:.4g}: "
            "what is climbed is no bound of the evidence.",
            "Leave out poutine.scale; a weight of the KL term is fit's kl_weight, beside which the "
            "plain bound is still told.",
            status="warn",
        )


def _own_scale(node: Mapping[str, Any]) -> float:
    """A site's scale without what its plates give it."""
    scale = float(torch.as_tensor(node["scale"]).double().mean())
    for frame in node["cond_indep_stack"]:
        if frame.size > 0 and frame.full_size:
            scale *= float(frame.size) / float(frame.full_size)
    return 1.0 if math.isclose(scale, 1.0, rel_tol=1e-6) else scale
