"""Had the fit come to rest when it ended?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ppl_gen.inference.checks.subject import Check, Subject
from ppl_gen.inference.estimators import (
    best_window,
    effective_size,
    heading,
    relapse,
    rise,
)
from ppl_gen.inference.estimators.settled import AT_REST, LEAST, before_the_fall
from ppl_gen.inference.history import History
from ppl_gen.inference.iterates import Iterates
from ppl_gen.inference.shared import moved, shared_draws
from ppl_gen.inference.verdict import Finding, Status, grade

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

# Fewest blocks of steps: less than this tells nothing of a slope.
STEPS = 32
# Share of the epochs at the end in which none may have the best validation, for it to have peaked.
PEAKED = 0.15


def at_rest(subject: Subject) -> list[Finding]:
    """Whether the fit had come to rest: see :func:`settled` and :func:`posterior_at_rest`."""
    run = subject.run
    if run.settings.method == "em":
        rest = "EM has no iterates that scatter."
        found = converged(run.history, run.settings.tolerance)
        return [found, subject.skipped("R-hat", rest, "not applicable")]
    if run.iterates is None:
        reason = "The run was made before the steps of a fit were recorded: fit it again."
        return [subject.skipped(name, reason) for name in ("settled", "R-hat")]
    matched = run.settings.objective not in ("auto", "elbo")
    chosen = run.settings.chooses_by_validation(run.structure.has_codes)
    found = [
        settled(run.iterates, run.history, matched, chosen),
        posterior_at_rest(subject, run.iterates),
    ]
    return [_told_the_end(finding, run) for finding in found]


def _told_the_end(finding: Finding, run: Run) -> Finding:
    """The finding; of a fit that was to stop by itself and did not, it says so as well."""
    ran_out = run.settings.stop == "settled" and len(run.history) == run.settings.epochs
    if not ran_out or finding.status not in ("warn", "fail"):
        return finding
    end = f" It was to stop once it had settled, and had not after {len(run.history)} epochs."
    return replace(finding, meaning=finding.meaning + end)


def settled(
    iterates: Iterates, history: History, matched: bool = False, chosen: bool = True
) -> Finding:
    r"""Whether what is climbed had stopped rising by itself, and was not thrown back on its way.

    The figure is the one that decides: most often what going as far again would bring, in nats per
    datum: :func:`~ppl_gen.inference.estimators.rise`, at the slope before the learning rate fell,
    for a falling rate brings anything to rest. It passes up to 0.1 nats or two standard errors, and
    fails from 1 nat on (our limits). Where noise hides more than 0.1 nats, the parameters have the
    word: while they still travel one way, :func:`~ppl_gen.inference.estimators.heading` above 0.3
    (our limit; fits that were stopped at a twentieth of their way had above 0.4, those that were
    not below 0.2), the fit is not at rest, and fails. Where validation data were watched and no
    epoch of the last 15 % was better than the best before, the weights that were kept gain nothing
    more.

    Steps that are too long are told by :func:`~ppl_gen.inference.estimators.relapse`: it warns from
    0.5 nats on, and fails from 2 nats on, or from 0.5 if the learning rate never fell to calm it
    (our limits). A rate that fell may have mended what was kept; that it did is not known.

    Where codes are matched to a prior, two parties climb against each other, and what they climb
    need not rise at all: what would fail only warns.

    Args:
        iterates: What the steps left behind.
        history: The epochs.
        matched: Whether codes are matched to a prior, in place of an ELBO.
        chosen: Whether validation data, where there were some, chose the weights that were kept.

    References:
        Dhaka et al. (2020), https://arxiv.org/abs/2009.00666; Welandawe et al. (2022),
        https://arxiv.org/abs/2203.15945; Pflug (1990), https://doi.org/10.1137/0328026
    """
    kept = (iterates.kl_weight == iterates.kl_weight[-1:]) & iterates.climbed.isfinite()
    climbed, rate = iterates.climbed[kept], iterates.rate[kept]
    way = (rate * iterates.lengths[kept]).cumsum(0)
    name = "objective" if matched else "ELBO"
    if len(climbed) < STEPS:
        weighted = " with the KL term at its full weight" if len(climbed) < len(kept) else ""
        reason = f"Needs at least {STEPS} steps{weighted}, got {len(climbed)}."
        return Finding("settled", math.nan, "", "", "skipped", reason, "Raise epochs.", "")
    gain, error = rise(climbed, way, rate)
    fast = before_the_fall(rate)
    back = relapse(climbed[:fast], way[:fast])
    travel = heading(iterates.values[: _fast_moments(iterates)])
    peak = _peaked(history) if chosen else 0
    details = {"gain": [gain], "error": [error], "relapse": [back], "heading": [travel]}
    calmed = rate[-1] < rate.max() / 2

    def finding(
        status: Status,
        sentence: str,
        remedy: str = "",
        figure: float = gain,
        unit: str = "nats",
        good: str = "at most 0.1 nats, or by chance",
    ) -> Finding:
        if matched and status == "fail":
            status = "warn"
        sources = "Dhaka et al. 2020; Welandawe et al. 2022"
        return Finding("settled", figure, unit, good, status, sentence, remedy, sources, details)

    as_far = "going as far again, at the slope before the learning rate fell,"
    bound = gain + 2 * error
    if travel > 0.3 and not (peak or bound <= 0.1):
        return finding(
            "fail",
            "The fit was still under way: the parameters travelled one way (cosine "
            f"{travel:.2f} from one stretch to the next); {as_far} the {name} would rise by up to "
            f"{bound:.2g} nats per datum.",
            "Fit for more epochs.",
            travel,
            "cosine",
            "at most 0.3, or 0.1 nats to gain",
        )
    if back > 0.5:
        froze = "what is kept is where the falling rate froze it"
        froze = froze if calmed else "the rate never fell to calm it"
        return finding(
            grade(back, 0.5, 2.0 if calmed else 0.5),
            f"The steps were too long: the {name} fell back by {back:.3g} nats per datum below "
            f"what it had reached; {froze}.",
            "Lower learning_rate, or set clip.",
            back,
            "nats back",
            "at most 0.5 nats back",
        )
    if peak:
        return finding(
            "pass",
            f"The validation ELBO was best in epoch {peak} of {len(history)} and did not rise any "
            "more; the weights of that epoch are kept.",
        )
    if gain > max(0.1, 2 * error):
        return finding(
            "warn" if gain < 1 else "fail",
            f"The {name} was still rising: {as_far} it would gain {gain:.2g} nats per datum (error "
            f"{error:.2g}).",
            "Fit for more epochs, best with validation data, which say whether it is worth it.",
        )
    if not bound <= 1:
        return finding(
            "warn",
            f"The steps are too few or too noisy to tell: {as_far} the {name} could gain up to "
            f"{bound:.2g} nats per datum.",
            "Fit for more epochs.",
            bound,
            good="at most 1 nat, errors included",
        )
    return finding(
        "pass",
        f"The {name} had stopped rising: {as_far} it would gain {gain:.2g} nats per datum (error "
        f"{error:.2g}).",
    )


def posterior_at_rest(subject: Subject, iterates: Iterates) -> Finding:
    r"""Whether the posterior of the latents that all data share was at rest.

    One of a thousand data weighs a thousandth there, so that the ELBO per datum hardly shows them;
    their parameters do. The figure is the one that decides: the largest R-hat of these over the
    best window before the learning rate had halved, which passes up to 1.1. R-hat knows no effect:
    of small scatter the smallest drift is found out. So above 1.1 it counts how far the posterior
    moved meanwhile, from one half of the last iterates to the other, in its own standard
    deviations: up to 0.25 it passes all the same, beyond 0.5 it fails (our limits). Where no means
    of the weights are kept, the last step must lie near the mean of the last eighth of all, as
    steps that are too long leave it anywhere: beyond 0.5 standard deviations it warns, beyond 1 it
    fails (our limits).

    References:
        Dhaka et al. (2020), section 3, https://arxiv.org/abs/2009.00666; Welandawe et al. (2022),
        section 3.2, https://arxiv.org/abs/2203.15945
    """
    name, values = "R-hat", iterates.of(iterates.shared)
    if not values.shape[1]:
        reason = "No latent that all data share has a posterior with parameters of its own."
        return subject.skipped(name, reason, "not applicable")
    fast = _fast_moments(iterates)
    if fast < 2 * LEAST:
        reason = f"Needs at least {2 * LEAST} iterates before the learning rate falls, got {fast}."
        return subject.skipped(name, reason)
    window = best_window(values[:fast])
    first, second = values[fast // 2 : fast].tensor_split(2)
    ends = values[-1:], values[-max(LEAST, len(values) // 8) :]
    drift, off = (_apart(subject, iterates, *pair) for pair in ((first, second), ends))
    ess = effective_size(values[window.start : fast]).min().item()
    if subject.run.settings.stop == "settled" or subject.run.settings.ema is not None:
        off = math.nan
    rest = window.rhat <= AT_REST
    status: Status = "pass" if rest else "warn" if math.isnan(drift) else grade(drift, 0.25, 0.5)
    details = {"R-hat": [window.rhat], "moved": [drift], "last step": [off], "ess": [ess]}
    figure, unit, good = window.rhat, "", f"at most {AT_REST}, or moved by at most 0.25 sd"
    if not rest and not math.isnan(drift):
        figure, unit, good = drift, "sd moved", f"at most 0.25 sd, or R-hat at most {AT_REST}"
    remedy = "" if status == "pass" else "Fit for more epochs."
    whose = "The posterior of the latents that all data share"
    sentence = (
        f"{whose} was at rest before the learning rate fell."
        if rest
        else f"{whose} had not come to rest; how far it moved is not known, as only some of its "
        "parameters were recorded."
        if math.isnan(drift)
        else f"{whose} moved by {drift:.2g} of its deviation from one half of the last iterates to "
        "the other."
    )
    if off > 0.5 and status != "fail":
        status, remedy = ("warn" if off <= 1 else "fail"), "Lower learning_rate, or let it fall."
        figure, unit, good = off, "sd off", "at most 0.5 sd"
        sentence = (
            f"{whose} was left {off:.2g} of its deviation from the mean of the last iterates: the "
            "steps were too long for it."
        )
    sources = "Dhaka et al. 2020; Welandawe et al. 2022"
    return Finding(name, figure, unit, good, status, sentence, remedy, sources, details)


def _apart(subject: Subject, iterates: Iterates, first: Tensor, second: Tensor) -> float:
    """How far the posteriors at the means of some iterates lie apart; NaN if that is not known."""
    run = subject.run
    with run.pair.active():
        sizes = {n: p.numel() for n, p in run.pair.parameters().items()}
        if any(sizes.get(n) != len(iterates.elements[n]) for n in iterates.shared):
            return math.nan  # only some elements were recorded
        drawn = [
            shared_draws(
                run.pair,
                run.structure,
                subject.batch,
                run.kwargs,
                _named(iterates, values.double().mean(0).to(run.device)),
            )
            for values in (first, second)
        ]
    return moved(*drawn)


def _named(iterates: Iterates, values: Tensor) -> Mapping[str, Tensor]:
    """Values of the shared parameters, which are in the order of the elements."""
    names = [name for name in iterates.elements if name in iterates.shared]
    parts = values.split([len(iterates.elements[name]) for name in names])
    return dict(zip(names, parts, strict=True))


def _fast_moments(iterates: Iterates) -> int:
    """How many looks at the parameters were before the learning rate had halved."""
    if not len(iterates.rate):
        return 0
    last = iterates.steps[before_the_fall(iterates.rate) - 1]
    return int((iterates.moments <= last).sum())


def _peaked(history: History) -> int:
    """The epoch of the best validation ELBO, if it came before the last ones; else 0."""
    elbo = torch.tensor(history["valid_elbo"], dtype=torch.float64)
    if len(elbo) < 20 or not elbo.isfinite().all():
        return 0
    best = int(elbo.argmax()) + 1
    return best if best <= (1 - PEAKED) * len(elbo) else 0


def converged(history: History, tolerance: float) -> Finding:
    """Whether the likelihood had stopped rising when EM ended, in nats per datum.

    It passes if the last rise was below the tolerance that EM was asked for. That it has come to
    rest does not say that there is no higher maximum elsewhere: more restarts look for one.

    Reference:
        Dempster et al. (1977), https://doi.org/10.1111/j.2517-6161.1977.tb01600.x
    """
    elbo = history["elbo"]
    if len(elbo) < 2:
        reason = f"Needs at least 2 iterations, got {len(elbo)}."
        return Finding("settled", math.nan, "", "", "skipped", reason, "Raise epochs.", "")
    rise = elbo[-1] - elbo[-2]
    settled = rise <= tolerance
    return Finding(
        "settled",
        rise,
        "nats",
        f"at most {tolerance:g} nats",
        "pass" if settled else "warn",
        f"In the last of {len(elbo)} iterations the log-likelihood rose by {rise:.2g} nats per "
        "datum.",
        "" if settled else "Raise epochs: EM was stopped before it had come to rest.",
        "Dempster et al. 1977",
    )


SETTLED = Check("had the fit come to rest", ("settled", "R-hat"), at_rest)
