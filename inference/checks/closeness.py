"""How far is the guide from the posterior, who loses it: the encoder, or the family?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.errors import StoryError
from ppl_gen.inference.checks.advice import Advice, sentence
from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.estimators import log_evidence
from ppl_gen.inference.estimators.refinement import Refinement
from ppl_gen.inference.reference import (
    CHAINS,
    GUIDE_DRAWS,
    KEPT,
    MOVES,
    WARMUP,
    Reference,
    look,
    look_both_ways,
    refine,
)
from ppl_gen.inference.simulated import simulate
from ppl_gen.inference.verdict import Finding, Status, grade

# Rows that are looked at; what is said of their mean is said with its error.
LOOKED = 100
SIMULATED = 50
# Beyond so many coordinates a triangular map has too many numbers for the draws that find it.
TURNED = 32
NAMES = ("divergence", "amortisation gap", "approximation gap")
LIMITS = {NAMES[0]: (0.5, 2.0), NAMES[1]: (0.25, 1.0), NAMES[2]: (0.5, 2.0)}  # in nats
WORST = 5
# Shape of a tail below which there is a fourth moment; and by how many nats chains may lie below
# draws, which chance makes once in 150 times at most (Markov).
FOURTH, STUCK = 0.25, 5.0


@dataclass(frozen=True)
class Bounds:
    """What lies below the log evidence of some rows, in nats, ``(N,)`` each.

    Attributes:
        elbo: Of the guide.
        elbo_error: Its standard error.
        importance: By importance sampling with the guide.
        importance_error: Its standard error.
        khat: Shape of the tail of its weights.
        annealed: By annealed importance sampling.
        annealed_error: Its standard error.
        slack: By how much chains there and chains back disagree on data that the story made, in
            nats a datum: annealing is off by no more, on such data. NaN where it made none.
    """

    elbo: Tensor
    elbo_error: Tensor
    importance: Tensor
    importance_error: Tensor
    khat: Tensor
    annealed: Tensor
    annealed_error: Tensor
    slack: float = math.nan

    @property
    def _by_draws(self) -> Tensor:
        """Where the draws of the guide say it best.

        Their spread tells their error where it can be told itself: where weights have a fourth
        moment, with a k-hat below 1/4. To choose by the errors would favour rows whose largest
        weights were not drawn. And chains that stay far below have not found what the draws have.
        """
        return (self.khat < FOURTH) | (self.importance - self.annealed > STUCK)

    @property
    def evidence(self) -> Tensor:
        """The best estimate of the log evidence of each row, in nats.

        To second order, where a logarithm of a mean lies below by half its squared error.
        """
        best = torch.where(self._by_draws, self.importance, self.annealed)
        return best + self.evidence_error.square().clamp_max(1.0) / 2

    @property
    def divergence(self) -> Tensor:
        """KL(q(z|x) || p(z|x)) of each row, in nats."""
        return self.evidence - self.elbo

    @property
    def error(self) -> Tensor:
        """Standard error of :attr:`divergence`, in nats."""
        return (self.elbo_error.square() + self.evidence_error.square()).sqrt()

    @property
    def evidence_error(self) -> Tensor:
        """Standard error of the evidence, in nats."""
        return torch.where(self._by_draws, self.importance_error, self.annealed_error)


def bounds(found: Reference, slack: float = math.nan) -> Bounds:
    """The sandwich of each row: ELBO, importance-weighted bound, annealed bound."""
    weighed = log_evidence(found.log_weights)
    chained = log_evidence(found.annealed, khat=False)
    spread = found.log_weights.double().std(0) / weighed.draws**0.5
    return Bounds(
        weighed.elbo,
        spread,
        weighed.nats,
        weighed.error,
        weighed.khat,
        chained.nats,
        chained.error,
        slack,
    )


def closeness(subject: Subject) -> list[Finding]:
    """Divergence of the guide from the posterior, and what encoder and family lose of it."""
    reason, status = unreachable(subject)
    if reason:
        return [subject.skipped(name, reason, status) for name in NAMES]
    run, (rows, batch) = subject.run, looked_rows(subject)
    found = subject.once(looked)
    between = bounds(found, _slack(subject))
    tied = bool(_correlation(found.guide) > 0.15)
    gains = {}
    for full in (False, True):
        if full <= tied or (full and found.guide.shape[-1] <= TURNED):
            gains[full] = refine(run, batch, full, subject.seed, subject.memory, subject.tell)
    advice = Advice.of(run)
    local = found.annealed.shape[1] > 1 or any(s.local for s in run.structure.latents)
    return [
        divergence(between, rows, local),
        amortisation_gap(gains[tied], local, found.names, advice),
        approximation_gap(between, gains[tied], gains.get(True) if not tied else None, advice),
    ]


def divergence(found: Bounds, rows: Tensor, local: bool = True) -> Finding:
    r"""KL of the guide from the posterior, in nats per datum, by annealed importance sampling.

    The evidence lies above three bounds, each sharper than the last: the ELBO, the importance-
    weighted bound and the annealed one. The last less the first is the divergence,
    :math:`\log p(x) - \mathrm{ELBO} = \mathrm{KL}(q(z|x) \,\|\, p(z|x))`, erring downwards. By how
    much annealing may err is seen on data that the story made itself, where chains that come back
    from the true latents give an upper bound. It passes up to 0.5 nats, where guide and posterior
    differ by at most 0.5 in total variation (Pinsker), and fails beyond 2, where that says nothing
    any more (our limits, as of ``gap``).

    Args:
        found: The bounds.
        rows: The numbers of the rows, ``(N,)``.
        local: Whether each datum has a guide of its own.

    References:
        Wu et al. (2017), https://arxiv.org/abs/1611.04273; Grosse et al. (2015),
        https://arxiv.org/abs/1511.02543
    """
    value = found.divergence
    figure, error = value.mean().item(), _error_of_mean(found.error)
    understated = (found.annealed - found.importance).mean().item()
    worst = value.argsort(descending=True)[:WORST]
    status = grade(figure - 2 * error, *LIMITS["divergence"])
    if not math.isfinite(figure):
        status = "fail"
    unsure = found.slack > max(0.5, figure)
    if unsure and status == "pass":
        status = "warn"
    return Finding(
        "divergence",
        figure,
        "nats",
        "at most 0.5 nats, or by chance",
        status,
        f"The guide lies {figure:.2f} ± {error:.2g} nats from the posterior: ELBO "
        f"{found.elbo.mean():.2f}, importance-weighted {found.importance.mean():.2f}, annealed "
        f"{found.annealed.mean():.2f}"
        + (
            ""
            if math.isnan(found.slack)
            else f", which chains back bring to {found.slack:.2f} from above on data it made"
        )
        + "."
        + (
            f" Importance sampling alone understates the evidence by {understated:.2f} nats."
            if understated > 0.1
            else ""
        ),
        ""
        if status == "pass"
        else "Annealing itself has not come near: take the figure for a bound."
        if unsure
        else "See which gap below is the larger: one asks for "
        f"{'a better encoder' if local else 'a longer fit'}, the other for a richer guide.",
        "Wu et al. 2017; Grosse et al. 2015",
        {
            "error": [error],
            "ELBO": [found.elbo.mean().item()],
            "importance-weighted": [found.importance.mean().item()],
            "annealed": [found.annealed.mean().item()],
            "errors of the three": [
                _error_of_mean(errors)
                for errors in (found.elbo_error, found.importance_error, found.annealed_error)
            ],
            "slack on simulated data": [found.slack],
            "worst rows": rows[worst].double().tolist() if len(rows) == len(value) else [],
            "worst divergences": value[worst].tolist(),
        },
    )


def amortisation_gap(
    found: Refinement, local: bool, names: tuple[str, ...], advice: Advice
) -> Finding:
    """What a guide of the same family would win if it were fitted to each datum, in nats.

    It passes up to 0.25 nats and fails beyond 1 (our limits), and never fails within three standard
    errors. Where one and the same move would serve all rows, the encoder is not merely short of
    room: something that all rows share is wrong, and the sentence says what.

    Args:
        found: The refinement within the family.
        local: Whether each datum has a guide of its own.
        names: Of the coordinates.
        advice: What can be changed of the guide.

    Reference:
        Cremer et al. (2018), https://arxiv.org/abs/1801.03558
    """
    figure, error = found.gain.mean().item(), _error_of_mean(found.error)
    status = grade(figure - 3 * error, *LIMITS["amortisation gap"])
    shift, stretch = found.shift.mean(0), found.stretch.log().mean(0).exp()
    worst = int((shift.abs() + stretch.log().abs()).argmax())
    common = (
        f" Of {names[worst]} the mean would move by {shift[worst]:+.2f} deviations, the deviation "
        f"by a factor of {stretch[worst]:.2f}"
        + (", over all rows." if len(found.gain) > 1 else ".")
    )
    encoder = local and advice.amortised
    how = "to each datum" if local else "anew"
    whose = (
        "an encoder that all data share" if encoder else "a fit that has not found the best guide"
    )
    return Finding(
        "amortisation gap",
        figure,
        "nats",
        "at most 0.25 nats, or by chance",
        status,
        f"A guide of the same family, fitted {how}, would win {figure:.2f} ± {error:.2g} "
        f"nats, which {whose} has lost." + (common if status != "pass" else "")
        if figure > -3 * error
        else "A guide of the same family that was fitted anew ended no better than this one.",
        ""
        if status == "pass"
        else f"{sentence(advice.better_means)}; with kl_weight=1 and without free bits at the end."
        if local
        else f"{sentence(advice.better_means)}.",
        "Cremer et al. 2018",
        {
            "error": [error],
            "shift": shift.tolist(),
            "stretch": stretch.tolist(),
            "rms shift": found.shift.square().mean(0).sqrt().tolist(),
        },
    )


def approximation_gap(
    found: Bounds, same: Refinement, turned: Refinement | None, advice: Advice
) -> Finding:
    """What the family of the guide cannot say even if fitted to each datum, in nats.

    The divergence less the amortisation gap. It passes up to 0.5 nats and fails beyond 2, as the
    divergence does (our limits).

    Args:
        found: The bounds.
        same: The refinement within the family.
        turned: The refinement of a diagonal guide by maps that correlate the latents, if any.
        advice: What can be changed of the guide.

    Reference:
        Cremer et al. (2018), https://arxiv.org/abs/1801.03558
    """
    # A refinement that ends lower than it began has found nothing: the guide itself is as good.
    rest = found.divergence - same.gain * (same.gain.mean() > 0)
    figure, error = rest.mean().item(), _error_of_mean((found.error**2 + same.error**2).sqrt())
    status = grade(figure - 2 * error, *LIMITS["approximation gap"])
    if not math.isfinite(figure):
        status = "fail"
    won = (turned.gain - same.gain).mean().item() if turned is not None else 0.0
    tied = won > max(0.1, figure / 2)
    return Finding(
        "approximation gap",
        figure,
        "nats",
        "at most 0.5 nats, or by chance",
        status,
        f"The family of the guide misses {figure:.2f} ± {error:.2g} nats of the posterior even at "
        "its best" + (f"; {won:.2f} of them are correlations of the latents." if tied else "."),
        ""
        if status == "pass"
        else f"Let the guide say how its latents go together: {advice.correlations}."
        if tied
        else f"The posterior has another shape than the guide's laws: {advice.another_shape}.",
        "Cremer et al. 2018",
        {"error": [error], "won by correlations": [won]},
    )


def unreachable(subject: Subject) -> tuple[str, Status]:
    """Why there are no chains to compare the guide with, and what that makes of the checks."""
    structure = subject.run.structure
    free = [s for s in structure.latents if not s.summed]
    local = [s for s in free if s.local]
    points = [s.name for s in (local or free) if s.point]
    if not structure.latents:
        return "The story has no latents.", "not applicable"
    if not free:
        return "All latents are summed out, which leaves no guide.", "not applicable"
    if points:
        return f"The guide gives one value of {points[0]!r} and no posterior.", "not applicable"
    if structure.unscored:
        return f"There is no density to follow: {structure.unscored}.", "skipped"
    if local and not structure.splits_rows:
        return "The story takes its data whole, so no datum has a posterior of its own.", "skipped"
    if (structure.keeps_rows or not local) and not subject.is_of_the_fit:
        reason = "What the guide knows belongs to the data of the fit: check(run, data.train)."
        return reason, "skipped"
    return "", "pass"


def looked_rows(subject: Subject) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The rows that chains are run for: all of them together where latents are global."""
    if subject.run.structure.has_codes:
        return subject.some(LOOKED)
    return torch.zeros(1, dtype=torch.long), subject.batch


def looked(subject: Subject) -> Reference:
    """Chains beside the guide's draws, run once for all checks that ask."""
    _, batch = looked_rows(subject)
    return look(subject.run, batch, subject.seed, subject.memory, subject.tell)


def _slack(subject: Subject) -> float:
    """How far the bounds lie apart on data that the story made; NaN if it can make none."""
    if not subject.run.structure.has_codes:
        return math.nan
    _, batch = subject.some(SIMULATED)
    run, seed, memory = subject.run, subject.seed, subject.memory
    try:
        latents, made = simulate(run, batch, seed, memory=memory)
        there, back = look_both_ways(run, made, latents, seed, memory, subject.tell)
    except StoryError:
        return math.nan
    lower = log_evidence(there, khat=False).nats
    upper = -log_evidence(-back, khat=False).nats
    return (upper - lower).mean().item()


def _correlation(draws: Tensor) -> Tensor:
    """The largest correlation of two coordinates of draws ``(S, N, D)``, averaged over rows."""
    unit = (draws - draws.mean(0)) / draws.std(0).clamp_min(1e-12)
    products = torch.einsum("snd,sne->nde", unit, unit).abs().mean(0) / len(draws)
    return (products - torch.diag(products.diag())).max()


def _error_of_mean(errors: Tensor) -> float:
    return errors.square().sum().sqrt().item() / len(errors)


def _cost(subject: Subject) -> Cost:
    """Gradients count for three evaluations."""
    if unreachable(subject)[0]:
        return Cost("")
    rows = len(looked_rows(subject)[0])
    gradients = CHAINS * (1.5 * MOVES * 5 + (WARMUP + KEPT) * 8)
    data = max(1, subject.rows) if rows == 1 else rows
    work = f"{CHAINS} chains of {MOVES} moves for {rows:,} rows, there and back"
    return Cost(work, data * (3 * gradients + 3 * 300 * 16 + GUIDE_DRAWS))


CLOSENESS = Check("how far is the guide from the posterior", NAMES, closeness, _cost, level="full")
