"""Does every parameter learn?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ppl_gen.inference.looks.patient import Patient
from ppl_gen.inference.looks.sentences import fault, names, skipped, upper, well
from ppl_gen.inference.objective import Objective, choose_elbo
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.tracing import blame
from ppl_gen.inference.verdict import Finding
from ppl_gen.story import Maximisable

# Rows of a gradient.
GRADED = 64


def gradients(patient: Patient) -> list[Finding]:
    """Whether the loss gives every parameter a gradient, and a finite one.

    One step's gradient in training mode, of up to 64 rows, and where one is missing of as many
    others. A parameter that moves the loss and gets no gradient is never learned: that fails. One
    that does not move it, because nothing uses it or a ReLU before it is shut for all rows, warns.
    Parameters with ``requires_grad=False`` are meant to stay.
    """
    name, structure = "gradients", patient.structure
    if structure.unscored:
        return [skipped(name, f"{upper(structure.unscored)}, so that a critic is learned too.")]
    own = patient.pair.parameters()
    if not own:
        if isinstance(patient.pair.story, Maximisable):
            return [skipped(name, "EM takes no gradient.", "not applicable")]
        return [
            fault(
                name,
                0,
                "parameters",
                "Neither model nor guide has a parameter, so that there is nothing to fit.",
                "Give one by pyro.param or in a module; for draws from them as they are, use "
                "to_arviz(model, guide, data).",
            )
        ]
    _, raw = _gradient(patient, own)
    findings = []
    broken = [n for n, g in raw.items() if g is not None and not g.isfinite().all()]
    if broken:
        findings.append(
            fault(
                name,
                len(broken),
                "parameters",
                f"The gradient of {names(broken)} is not finite at the first weights.",
                "Keep square roots, logs, norms and divisions away from 0, where their slope is "
                "infinite, in both branches of a torch.where too.",
            )
        )
    with patient.stirred():
        loss, found = _gradient(patient, own)
        idle = [n for n in own if _is_idle(found[n])]
        if idle:
            _, again = _gradient(patient, own, 1)
            idle = [n for n in idle if _is_idle(again[n])]
        moving = [n for n in idle if _moves(patient, own, n, loss)] if idle else []
    if moving:
        findings.append(
            fault(
                name,
                len(moving),
                "parameters",
                f"The loss depends on {names(moving)}, which gets no gradient from it, and so is "
                "never learned.",
                "Look for .detach(), .data, torch.no_grad(), rounding or argmax between it and the "
                "sites; or freeze it by requires_grad_(False), if that is meant.",
            )
        )
    unused = [n for n in idle if n not in moving]
    if unused:
        findings.append(
            fault(
                name,
                len(unused),
                "parameters",
                f"The loss does not depend on {names(unused)}, which gets no gradient.",
                "Use it, or leave it out; if the ReLU after it is shut for all rows, or the tanh "
                "saturated, take smaller first weights or data in standard units.",
                status="warn",
            )
        )
    return findings or [well(name, "Every parameter gets a finite gradient.", "parameters")]


def _gradient(
    patient: Patient, own: Mapping[str, Tensor], block: int = 0
) -> tuple[float, dict[str, Tensor | None]]:
    """Loss and gradients of a block of rows, as a step of the fit takes them."""
    pair, structure, kwargs, window = (
        patient.pair,
        patient.structure,
        patient.kwargs,
        patient.window,
    )
    parts = list(window.slices(patient.batch, GRADED))
    part = parts[min(block, len(parts) - 1)]
    with patient.training(), seeded(patient.seed), window.showing(patient.batch, part) as shown:
        elbo = choose_elbo(pair, structure, shown, kwargs)
        with torch.enable_grad(), blame("story"):
            loss = Objective(pair, structure, elbo, patient.size)(shown, kwargs).loss
            if not loss.requires_grad:
                return loss.item(), dict.fromkeys(own)
            found = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
    return loss.item(), dict(zip(own, found, strict=True))


def _is_idle(gradient: Tensor | None) -> bool:
    return gradient is None or not bool(gradient.any())


def _moves(patient: Patient, own: Mapping[str, Tensor], name: str, loss: float) -> bool:
    """Whether the loss moves with a parameter, the noise being the same."""
    parameter = own[name]
    before = parameter.detach().clone()
    try:
        with torch.no_grad(), seeded(patient.seed + 1):
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
        moved, _ = _gradient(patient, {name: parameter})
    finally:
        with torch.no_grad():
            parameter.copy_(before)
    return not math.isclose(moved, loss, rel_tol=1e-6, abs_tol=1e-6)
