"""Do the data pull against the priors of what they share?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_gen.inference.checks.observations import observed_rows
from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.estimators.sensitivity import power_scaling
from ppl_gen.inference.passes import plan
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.tracing import Batch, trace_nodes
from ppl_gen.inference.verdict import Finding

NAME = "prior sensitivity"
SENSITIVE = 0.05
FAR = 2.0, 3.0  # prior deviations, of what the data move and of what they do not
# Prior deviations that are far enough where both move a latent by so much of them, and more.
FAR_OF_STRONG, STRONG = 1.0, 0.5
CHANCE = 0.05  # in which one of many numbers is as far from its prior
DRAWS, LEAST_DRAWS = 1000, 100
ROWS = 2000
ELEMENTS = 100  # numbers of latents that are looked at
EXPECTED_ROWS, EXPECTED_DRAWS = 64, 200  # of which data are drawn from the priors
QUANTILE = 1_000_000  # numbers of which quantiles are taken
ATTEMPTS = 2  # runs of the model at which a prior that hangs on no other latent is the same


@dataclass(frozen=True)
class Shared:
    """Draws of the latents that all data share, and what their densities are there.

    Attributes:
        values: Draws of numbers, ``(S, D)``.
        names: What each is called, D of them.
        prior: Mean and deviation of the prior of each, ``(D, 2)``, NaN where it has none.
        log_prior: Of priors that hang on no other latent, in nats, ``(S,)``.
        log_likelihood: Of all rows, in nats, ``(S,)``.
        elsewhere: Where the data lie and where the priors let one expect them, in words, if most of
            them are beyond 99 % of what is drawn from the priors; empty if not.
    """

    values: Tensor
    names: tuple[str, ...]
    prior: Tensor
    log_prior: Tensor
    log_likelihood: Tensor
    elsewhere: str = ""


def prior_sensitivity(subject: Subject) -> list[Finding]:
    """Whether prior and data say different things of a latent that all data share.

    The figure is the largest sensitivity of a latent's posterior to the power of the priors, of
    those that the data move as well: what both pull at, they pull apart. It passes up to 0.05, the
    limit of the source; beyond, only what has its mean more than two prior deviations from that of
    the prior counts, three where data move it by way of others alone, more of many numbers, one of
    what both move by half (ours). It then warns, as a prior that was meant may speak against few
    data. It fails if most of the data lie beyond 99 % of what the priors make, as they do beyond
    priors that were written for numbers near 0 (our limit). Where the prior moves a latent
    and the data do not, these have little to say of it, which is no fault.

    Reference:
        Kallioinen et al. (2024), section 3, https://doi.org/10.1007/s11222-023-10366-5
    """
    structure = subject.run.structure
    own = any(site.local and not site.summed for site in structure.latents)
    shared = [s for s in structure.latents if not (s.local or s.point or s.summed)]
    draws = min(subject.draws, DRAWS)
    if own or not shared or not subject.batch:
        reason = (
            "Each datum has latents of its own: see the prior predictive."
            if own
            else "No latent that all data share has a posterior."
        )
        return [subject.skipped(NAME, reason, "not applicable")]
    if structure.unscored:
        return [subject.skipped(NAME, f"There are no densities: {structure.unscored}.")]
    if draws < LEAST_DRAWS:
        return [subject.skipped(NAME, f"Needs at least {LEAST_DRAWS} draws, got {draws}.")]
    found = _shared(subject, draws)
    if found is None:
        reason = "The prior of every latent hangs on another."
        return [subject.skipped(NAME, reason, "not applicable")]
    if not (found.log_prior.isfinite().all() and found.log_likelihood.isfinite().all()):
        return [subject.skipped(NAME, "Densities at the draws are not finite.")]
    return [
        pulled(
            found,
            power_scaling(found.values, found.log_prior),
            power_scaling(found.values, found.log_likelihood),
        )
    ]


def pulled(found: Shared, by_prior: Tensor, by_data: Tensor) -> Finding:
    """The finding from both sensitivities of each number, ``(D,)``; see :func:`prior_sensitivity`.

    Args:
        found: The draws.
        by_prior: To the power of the priors.
        by_data: To that of the likelihood.
    """
    # What never varies, as the corner of a triangular matrix, is moved by nothing.
    by_prior, by_data = by_prior.nan_to_num(), by_data.nan_to_num()
    means = found.values.mean(0)
    away = ((means - found.prior[:, 0]).abs() / found.prior[:, 1]).nan_to_num(0.0, 0.0, 0.0)
    known = found.prior.isfinite().all(1) & (found.prior[:, 1] > 0)
    away = torch.where(known, away, math.inf)
    of_site = [name.split("[")[0] for name in found.names]
    chance = torch.tensor([CHANCE / of_site.count(site) for site in of_site]).double()
    far = torch.where(by_data >= SENSITIVE, *FAR).maximum(-torch.special.ndtri(chance / 2))
    strong = (by_prior >= STRONG) & (by_data >= STRONG)
    pulled_apart = (away > far) | (strong & (away > FAR_OF_STRONG))
    both = torch.where(pulled_apart, by_prior, 0.0)
    figure = both.max().item()
    weak = [n for n, p, d in zip(found.names, by_prior, by_data, strict=True)
            if p >= SENSITIVE > d]  # fmt: skip
    details = {
        n: [p.item(), d.item()] for n, p, d in zip(found.names, by_prior, by_data, strict=True)
    }
    good = f"at most {SENSITIVE:g} per doubling"
    source = "Kallioinen et al. 2024"
    if figure <= SENSITIVE:
        more = f" Of {_listed(weak)} the priors tell more than the data." if weak else ""
        meaning = f"Prior and data do not pull apart the latents that all data share.{more}"
        return Finding(NAME, figure, "", good, "pass", meaning, "", source, details)
    worst = int(torch.where(both > SENSITIVE, away.clamp(max=1e6) + 1e-9 * both, -1.0).argmax())
    name, at = found.names[worst], means[worst].item()
    mean, scale = found.prior[worst].tolist()
    where = (
        f": its posterior has its mean at {at:.3g}, {abs(at - mean) / scale:.2g} prior deviations "
        f"from that of the prior ({mean:.3g}, deviation {scale:.3g})"
        if math.isfinite(mean) and 0 < scale < math.inf
        else ""
    )
    return Finding(
        NAME,
        figure,
        "",
        good,
        "fail" if found.elsewhere else "warn",
        f"{found.elsewhere}Prior and data pull {name} apart{where}. The posterior is a compromise.",
        "Bring the data near to where the priors are, as by subtracting their mean and dividing by "
        "their deviation, or write priors for numbers of their size."
        if found.elsewhere
        else f"Widen the prior of {name.split('[')[0]}, or leave it if it is meant.",
        source,
        details,
        of_story=bool(found.elsewhere),
    )


def _shared(subject: Subject, draws: int) -> Shared | None:
    """Draws of what the rows share; None if no prior stands alone."""
    run = subject.run
    _, batch = subject.some(ROWS)
    with run.pair.active(), seeded(subject.seed), pyro.validation_enabled(False):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        window = sampler.window
        rows, together = plan(sampler, batch, draws, subject.memory, predict=False)
        rows = max(1, rows * together // draws)
        with window.showing(batch, next(window.slices(batch, rows))) as shown:
            fixed = sampler.draw_globals(shown, draws)
            priors = _standing_alone(sampler, shown)
        if not priors:
            return None
        part = next(window.slices(batch, EXPECTED_ROWS))
        with window.showing(batch, part) as shown:
            expected = sampler.draw_prior(shown, EXPECTED_DRAWS)[1]
        total, done = torch.zeros(draws, dtype=torch.float64), 0
        latents: dict[str, Tensor] = {}
        for part in window.slices(batch, rows):
            with window.showing(batch, part) as shown:
                drawn = sampler.draw(shown, draws, fixed)
            total += drawn.log_p.double().sum(1).cpu()
            done += drawn.log_p.shape[1]
            latents = drawn.latents
        log_prior, values, names, laws = torch.zeros(draws, dtype=torch.float64), [], [], []
        for name, node in priors.items():
            law, value = node["fn"], latents[name]
            terms = law.log_prob(sampler.layout.placed(value, node))
            log_prior += terms.double().reshape(draws, -1).sum(1).cpu()
            numbers = value.reshape(draws, -1).double().cpu()
            values.append(numbers)
            names += [name] if numbers.shape[1] == 1 else [
                f"{name}{list(place)}" for place in _places(tuple(value.shape[1:]))
            ]  # fmt: skip
            laws.append(_of_law(law, numbers.shape[1]))
    whole = subject.run.data.rows / done if done else 1.0
    some = torch.arange(len(names))[:ELEMENTS]
    return Shared(
        torch.cat(values, 1)[:, some],
        tuple(names[i] for i in some.tolist()),
        torch.cat(laws)[some],
        log_prior,
        total * whole,
        _elsewhere(observed_rows(subject, batch, counted=True), expected),
    )


def _elsewhere(data: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    """The sentence on the first site most of whose numbers the priors do not let one expect."""
    for name, values in data.items():
        made, seen = expected[name].double().flatten(), values[~values.isnan()].double().flatten()
        if not len(seen) or not made.isfinite().all():
            continue
        low, high = made.quantile(torch.tensor([0.005, 0.995], dtype=torch.float64)).tolist()
        if ((seen < low) | (seen > high)).double().mean() > 0.5:
            ends = seen[:QUANTILE].quantile(torch.tensor([0.05, 0.95], dtype=torch.float64))
            return (
                f"The priors let one expect {name} from {low:.3g} to {high:.3g}, and the data lie "
                f"from {ends[0]:.3g} to {ends[1]:.3g}. "
            )
    return ""


def _standing_alone(sampler: Sampler, shown: Batch) -> dict[str, dict[str, Any]]:
    """Nodes of shared latents of real numbers whose prior hangs on no other latent."""
    sites = sampler.structure.sites
    runs = [trace_nodes(sampler.pair, shown, sampler.kwargs)[1] for _ in range(ATTEMPTS)]
    found = {}
    for name, node in runs[0].items():
        site = sites.get(name)
        if site is None or site.observed or site.local or site.point or site.derived:
            continue
        value = node["value"]
        if value.is_floating_point() and all(
            torch.equal(node["fn"].log_prob(value), other[name]["fn"].log_prob(value))
            for other in runs[1:]
        ):
            found[name] = node
    return found


def _of_law(law: Any, count: int) -> Tensor:
    """Mean and deviation of a prior, ``(count, 2)``; NaN where it has none."""
    try:
        both = [torch.as_tensor(v).double().cpu() for v in (law.mean, law.variance**0.5)]
        whole = law.batch_shape + law.event_shape
        return torch.stack([v.expand(whole).reshape(-1) for v in both], 1).expand(count, 2)
    except (NotImplementedError, AttributeError, RuntimeError):
        return torch.full((count, 2), math.nan, dtype=torch.float64)


def _places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(product(*map(range, shape)))


def _listed(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


PRIORS = Check(
    "do prior and data agree",
    (NAME,),
    prior_sensitivity,
    lambda subject: Cost(
        f"{min(subject.draws, DRAWS):,} draws of {min(subject.rows, ROWS):,} rows",
        min(subject.draws, DRAWS) * min(subject.rows, ROWS),
    ),
    concerns=lambda structure: structure.has_globals and not structure.has_codes,
)
