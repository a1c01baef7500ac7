"""Had the fit come to rest when it ended?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ppl_gen.inference.checks.subject import Check
from ppl_gen.inference.history import History
from ppl_gen.inference.verdict import Finding

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run


def at_rest(run: Run) -> Finding:
    if run.settings.method == "em":
        return converged(run.history, run.settings.tolerance)
    return settled(run.history)


def settled(history: History) -> Finding:
    """Whether the ELBO had stopped rising by itself; or what is climbed in its place.

    A falling learning rate brings any ELBO to rest, so that only the epochs are looked at in which
    it was at least half its largest. The last tenth of them (at least 10) is cut in two; the figure
    is how much the mean ELBO per datum rose from the first half to the second. It passes below 0.1
    nats or within two standard errors of the noise, and fails from 1 nat on (our limits). A climb
    that is slower than this is not seen.
    """
    elbo = torch.tensor([epoch.climbed for epoch in history], dtype=torch.float64)
    name = "ELBO" if any(math.isfinite(e) for e in history["elbo"]) else "objective"
    rate = torch.tensor(history["learning_rate"], dtype=torch.float64)
    if len(rate):
        fast = (rate >= rate.max() / 2).nonzero().max().item() + 1
        elbo = elbo[: int(fast)]
    elbo = elbo[elbo.isfinite()]
    if len(elbo) < 20:
        reason = f"Needs at least 20 epochs before the learning rate falls, got {len(elbo)}."
        return Finding("settled", math.nan, "", "", "skipped", reason, "", "")
    window = max(10, len(elbo) // 10)
    first, second = elbo[-window:].split([window // 2, window - window // 2])
    rise = (second.mean() - first.mean()).item()
    noise = (first.var() / len(first) + second.var() / len(second)).sqrt().item()
    rising = rise > 0.1 and rise > 2 * noise
    when = "" if len(elbo) == len(history) else " before the learning rate had halved"
    verb = "rose" if rise >= 0 else "fell"
    return Finding(
        "settled",
        rise,
        "nats",
        "below 0.1 nats",
        "pass" if not rising else "warn" if rise < 1 else "fail",
        f"Over the last {window} epochs{when} the {name} {verb} by {abs(rise):.3f} nats per datum"
        f" (noise {noise:.3f}).",
        "Fit for more epochs." if rising else "",
        "",
        {"noise": [noise]},
    )


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


SETTLED = Check("had the fit come to rest", ("settled",), lambda subject: [at_rest(subject.run)])
