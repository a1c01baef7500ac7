"""Do chains that know nothing of the guide's family find the same posterior?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.inference.checks.closeness import looked, unreachable
from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.reference import (
    NUTS_CHAINS,
    NUTS_DRAWS,
    NUTS_WARMUP,
    Reference,
    walked,
)
from ppl_gen.inference.verdict import Finding, Status, grade, worst_of

# Chains that disagree by more have not mixed (Vehtari et al. 2021 advise 1.01 for a final figure;
# these are short, and only rows are left out by it).
MIXED = 1.1
# Gradients that the no-U-turn sampler takes, of about a dozen for each draw.
WALK = 12 * NUTS_CHAINS * (NUTS_DRAWS + NUTS_WARMUP)
# Of chains that stay in their humps: how many must carry the weight, and how far the draws of the
# first half may be from those of the second, in standard deviations. Both are ours.
LEAST_CHAINS = 8
DRIFT = 0.2
SHIFT, STRETCH = (0.1, 0.2), (1.1, 1.2)  # up to the first it passes, beyond the second it fails


@dataclass(frozen=True)
class Distance:
    """How far the guide's draws are from a reference's, for each coordinate, ``(D,)`` each.

    Everything is in standard deviations of the reference, and averaged over rows.

    Attributes:
        shift: Of the mean: positive if the guide's is too large.
        stretch: Factor on the deviation, by the mean of its logarithm: below 1 if the guide is too
            narrow.
        wasserstein: Distance of order 1 between the marginals, less what two samples of one law
            would show.
    """

    shift: Tensor
    stretch: Tensor
    wasserstein: Tensor


def distance(guide: Tensor, reference: Tensor) -> Distance:
    r"""Compare two samples of the same posteriors, coordinate by coordinate.

    .. math:: W_1 = \int_0^1 \lvert F_q^{-1}(u) - F_p^{-1}(u) \rvert \, du

    Args:
        guide: Draws, ``(S, N, D)``.
        reference: Draws, ``(R, N, D)``, of which the halves are independent.
    """
    loc, scale = reference.mean(0), reference.std(0).clamp_min(1e-12)
    half = len(reference) // 2
    apart = _wasserstein(guide, reference)
    noise = _wasserstein(reference[:half], reference[half:]) / 2
    return Distance(
        shift=((guide.mean(0) - loc) / scale).mean(0),
        stretch=(guide.std(0).clamp_min(1e-12) / scale).log().mean(0).exp(),
        wasserstein=((apart - noise) / scale).mean(0).clamp_min(0.0),
    )


def _wasserstein(x: Tensor, y: Tensor) -> Tensor:
    at = (torch.arange(200, dtype=x.dtype, device=x.device) + 0.5) / 200
    return (x.quantile(at, 0) - y.quantile(at, 0)).abs().mean(0)


@dataclass(frozen=True)
class _Way:
    """One way in which a guide may differ from a reference: what is said of it and its figure."""

    sentence: str
    status: Status
    figure: float
    unit: str
    good: str


def agreement(
    found: Distance, names: tuple[str, ...], left: int, rows: int, error: Tensor
) -> Finding:
    r"""Whether the guide's marginals are those that Hamiltonian chains find.

    The figure is the largest distance of a latent's marginal, in posterior standard deviations,
    averaged over rows. It passes up to 0.1 and fails beyond 0.3; it fails, too, if a mean is off by
    more than 0.2 in the same direction over all rows, or a deviation by more than a factor of
    1.2 (our limits: an interval that is to hold 90 % then holds less than 83 %). The figure is then
    that of what decided.

    Args:
        found: The distances.
        names: Of the coordinates.
        left: How many rows were left out, as their chains had not mixed.
        rows: How many were looked at.
        error: Standard error of each shift by chance, ``(D,)``, in posterior deviations, which is
            let pass; of the logarithm of a stretch it is about :math:`1 / \sqrt 2` of that.

    Reference:
        Yao et al. (2018), section 1, https://arxiv.org/abs/1802.02538, of what a variational
        posterior gets wrong
    """
    shifts = (found.shift.abs() - error).clamp_min(0.0)
    stretches = (found.stretch.log().abs() - error / 2**0.5).clamp_min(0.0)
    worst, far, off = (int(v.argmax()) for v in (found.wasserstein, shifts, stretches))
    figure = found.wasserstein[worst].item()
    shift, stretch = found.shift[far].item(), found.stretch[off].item()
    high, narrow = "high" if shift > 0 else "low", "narrow" if stretch < 1 else "wide"
    ways = [
        _Way(
            f"the guide is too {narrow} in {names[off]}, by a factor of {stretch:.2f}",
            grade(stretches[off].item(), *map(math.log, STRETCH)),
            stretch,
            f"of the deviation, {names[off]}",
            f"from {1 / STRETCH[0]:.2f} to {STRETCH[0]:.2f}",
        ),
        _Way(
            f"the guide's mean of {names[far]} is too {high}, by {abs(shift):.2f} deviations",
            grade(shifts[far].item(), *SHIFT),
            abs(shift),
            f"posterior sd, mean of {names[far]}",
            f"at most {SHIFT[0]:g}",
        ),
        _Way(
            f"the guide's draws of {names[worst]} lie {figure:.2f} posterior deviations from those "
            "of Hamiltonian chains",
            grade(figure, 0.1, 0.3),
            figure,
            "posterior sd",
            "at most 0.1",
        ),
    ]
    statuses: list[Status] = [way.status for way in ways]
    status = worst_of(*statuses)
    wrong = ways[-1:] if status == "pass" else [way for way in ways if way.status == status]
    sentence = ", and ".join(way.sentence for way in wrong)
    return Finding(
        "reference",
        wrong[0].figure,
        wrong[0].unit,
        wrong[0].good,
        status,
        f"{sentence[0].upper()}{sentence[1:]}"
        + (f" ({left} of {rows} rows left out: chains had not come to rest)." if left else "."),
        ""
        if status == "pass"
        else "Use the chains, or the guide's draws weighed by log_p - log_q; fit for longer where "
        "it had not come to rest, else see which gap is to blame.",
        "Yao et al. 2018",
        {
            f"shift, stretch and distance of {name}": list(figures)
            for name, *figures in zip(
                names,
                found.shift.tolist(),
                found.stretch.tolist(),
                found.wasserstein.tolist(),
                strict=True,
            )
        },
    )


def reference(subject: Subject) -> list[Finding]:
    """The guide's marginals beside those of chains; see :func:`agreement`."""
    reason, status = unreachable(subject)
    if reason:
        return [subject.skipped("reference", reason, status)]
    found = subject.once(looked)
    chains, kept = found.chains, at_rest(found)
    rows = len(kept)
    if rows == 1 and not kept.all():  # one posterior of everything: worth a better sampler
        seconds = WALK * 3 * max(1, subject.rows) * subject.seconds_each
        if seconds > subject.budget:
            reason = (
                "Chains had not come to rest, and the no-U-turn sampler would take some "
                f"{seconds:.0f} seconds: budget={math.ceil(seconds)} allows for it."
            )
            return [subject.skipped("reference", reason)]
        try:
            chains = walked(
                subject.run,
                subject.batch,
                subject.seed,
                subject.memory,
                subject.tell,
                subject.budget,
            )
        except TimeoutError as error:
            reason = (
                f"Chains had not come to rest, and of the no-U-turn sampler {error}: a larger "
                "budget allows for more."
            )
            return [subject.skipped("reference", reason)]
        kept = rhat(chains).amax(-1) <= MIXED
    left = int((~kept).sum())
    if left > rows / 2:
        reason = f"Chains had not come to rest for {left} of {rows} rows."
        return [subject.skipped("reference", reason)]
    drawn = chains[:, :, kept].transpose(0, 1).flatten(0, 1)  # one chain after the other
    apart = distance(found.guide[:, kept], drawn)
    error = _error(chains[:, :, kept], len(found.guide))
    return [agreement(apart, found.names, left, rows, error)]


def _error(chains: Tensor, draws: int) -> Tensor:
    """Standard error of a shift, ``(D,)``: chains ``(K, C, N, D)`` know nothing of each other."""
    scale = chains.flatten(0, 1).std(0).clamp_min(1e-12)
    means = chains.mean(0).std(0) / chains.shape[1] ** 0.5 / scale
    each = (means.square() + 1 / draws).sum(0).sqrt()
    return each / chains.shape[2]


def at_rest(found: Reference) -> Tensor:
    """For which rows chains give draws of the posterior, ``(N,)``.

    Where they agree with each other; or, as where a posterior has humps that no chain leaves, where
    enough of them were drawn by their weights and their draws together do not drift.
    """
    agree = rhat(found.chains).amax(-1) <= MIXED
    half = len(found.chains) // 2
    early, late = found.chains[:half].flatten(0, 1), found.chains[half:].flatten(0, 1)
    drift = (_wasserstein(early, late) / late.std(0).clamp_min(1e-12)).amax(-1)
    enough = 1 / found.annealed.softmax(0).square().sum(0) >= LEAST_CHAINS
    return agree | (enough & (drift < DRIFT))


def rhat(chains: Tensor) -> Tensor:
    """Rank-normalised split R-hat, ``(N, D)``, of chains ``(K, C, N, D)``, by ArviZ.

    Reference:
        Vehtari et al. (2021), https://arxiv.org/abs/1903.08008
    """
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    found = array_stats.rhat(chains.double().cpu().numpy(), chain_axis=1, draw_axis=0)
    return torch.as_tensor(found)


REFERENCE = Check(
    "do Hamiltonian chains find the same posterior",
    ("reference",),
    reference,
    lambda subject: Cost("the chains of before"),
    level="full",
)
