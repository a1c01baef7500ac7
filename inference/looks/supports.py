"""Does the guide stay where its prior is?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import Delta

from ppl_gen.inference.looks.patient import Patient
from ppl_gen.inference.looks.sentences import fault, well
from ppl_gen.inference.mismatch import base_of, unchecked
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.verdict import Finding

_Transformed: type = dist.TransformedDistribution  # pyright: ignore[reportAttributeAccessIssue]

# Draws of each latent that are held against the support of its prior.
DRAWS = 200
# Values that are in one support or another; whole ones for discrete laws.
PROBES = (-1e3, -2.5, -0.5, 0.25, 0.75, 1.5, 2.5, 1e3)
WHOLE_PROBES = (-1.0, 0.0, 1.0, 2.0, 100.0)


def supports(patient: Patient) -> list[Finding]:
    """Whether the guide stays inside the prior's support.

    It fails if some of 200 draws of a row lie outside, where the prior's density is 0, and warns if
    the support of the guide's law reaches beyond the prior's, though no draw did by now. Laws that
    were asked not to be validated are left alone.
    """
    with pyro.validation_enabled(True):  # without, no law says whether it asked for none
        sites = patient.draw()
    findings = []
    for site in patient.structure.latents:
        if site.name not in sites.guide:
            continue
        q, p = sites.guide[site.name]["fn"], sites.model[site.name]["fn"]
        support = _support(p)
        if support is None or unchecked(p):
            continue
        outside, worst = _share_outside(patient, sites.guide[site.name], support)
        remedy = (
            f"Let the guide draw from the support of {site.law}: of a positive latent LogNormal or "
            "Gamma, of one in an interval a transformed normal, or take an autoguide."
        )
        if outside > 0:
            findings.append(
                fault(
                    "supports",
                    outside,
                    "of the draws",
                    f"{outside:.1%} of the guide's draws of {site.name!r} lie outside the support "
                    f"of its prior, {site.law}, one is {worst:g}.",
                    remedy,
                )
            )
        elif (beyond := _reaches_beyond(q, p)) is not None:
            findings.append(
                fault(
                    "supports",
                    0.0,
                    "of the draws",
                    f"The guide's {type(base_of(q)).__name__} of {site.name!r} reaches beyond the "
                    f"support of its prior, {site.law}, as far as {beyond:g}.",
                    remedy,
                    status="warn",
                )
            )
    inside = "The guide draws from within the prior's support."
    return findings or [well("supports", inside, "of the draws")]


def _support(law: Any) -> Any:
    try:
        return law.support
    except (NotImplementedError, AttributeError):
        return None


def _share_outside(patient: Patient, node: Mapping[str, Any], support: Any) -> tuple[float, float]:
    """Share of draws outside a support, and the first value that is."""
    law = node["fn"]
    try:
        with seeded(patient.seed):
            drawn = law.sample(torch.Size([DRAWS]))
        inside = support.check(drawn)
    except (NotImplementedError, RuntimeError, ValueError, TypeError):
        return 0.0, 0.0
    if inside.all():
        return 0.0, 0.0
    outside = ~inside.reshape(inside.shape + (1,) * (drawn.dim() - inside.dim()))
    return (~inside).double().mean().item(), drawn[outside.expand_as(drawn)][0].item()


def _reaches_beyond(q: Any, p: Any) -> float | None:
    """A value that is in the support of one law and not in that of another; None if none is known.

    Points reach nowhere, and a continuous law beside a discrete one is meant to be rounded. What a
    transformed law says of its support may be wrong: an interval is real where its last transform
    is affine.
    """
    mine, other = _support(q), _support(p)
    if mine is None or other is None or type(base_of(q)) in (Delta, _Transformed):
        return None
    if mine.is_discrete != other.is_discrete:
        return None
    for probe in WHOLE_PROBES if mine.is_discrete else PROBES:
        value = torch.full(p.event_shape, probe)
        try:
            if mine.check(value).all() and not other.check(value).all():
                return probe
        except (RuntimeError, NotImplementedError, ValueError):
            return None
    return None
