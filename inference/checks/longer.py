"""Would it have been better to go on? Tried, where the rows of the fit are at hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from ppl_gen.data import as_part
from ppl_gen.errors import FitError
from ppl_gen.inference.checks.closeness import unreachable
from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.passes import evidence_of
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.verdict import Finding, Status, grade

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

NAME = "longer fit"
# The learning rates that are tried, as shares of the fit's own: one too high shows at a tenth.
RATES = (1.0, 0.1)
ROWS, DRAWS = 500, 64
# A fit is gone on with for as long again. One of fewer seconds than this may have hardly begun, and
# is gone on with for so many seconds, or so many times its length.
SHORT, MOST = 5.0, 10.0
# Less than this share of the fit says little of what all of it again would bring.
LEAST_SHARE = 0.1


def worth_it(gains: dict[float, tuple[float, float]], share: float) -> Finding:
    """By how much the ELBO of held-out rows rises if the fit goes on, in nats per datum.

    The fit goes on from its weights for as long again (or longer, if it took but seconds), as far
    as the budget allows, once at its own learning rate and once at a tenth of it. It passes up to
    0.1 nats and fails beyond 0.3 (our limits); two standard errors are let pass.

    Args:
        gains: Of each rate, as a share of the fit's own: the mean rise over rows, in nats, and its
            standard error.
        share: How long it went on, as a share of the fit.
    """
    rate, (figure, error) = max(gains.items(), key=lambda item: item[1][0])
    status: Status = grade(figure - 2 * error, 0.1, 0.3)
    slower = rate < 1 and figure > gains[1.0][0] + 2 * error
    how = f" at {rate:g} of its learning rate" if slower else ""
    return Finding(
        NAME,
        figure,
        "nats",
        "at most 0.1 nats, or by chance",
        status,
        f"Going on for {share:.0%} of the fit's length{how} raises the ELBO of rows that are not "
        f"of the fit by {figure:.2f} ± {error:.2g} nats.",
        ""
        if status == "pass"
        else "Lower the learning rate."
        if slower
        else "Fit for more epochs, or with stop='settled'.",
        "",
        {f"gain at {r:g} of the rate": list(gain) for r, gain in gains.items()},
    )


def longer(subject: Subject) -> list[Finding]:
    """The fit, gone on with; see :func:`worth_it`."""
    run = subject.run
    reason, status = _unfit(subject)
    if reason:
        return [subject.skipped(NAME, reason, status)]
    share = _share(subject)
    _, batch = subject.some(ROWS)
    rows = as_part(batch)
    before = _elbo(run, rows, subject)
    gains: dict[float, tuple[float, float]] = {}
    for number, rate in enumerate(RATES):
        try:
            after = _elbo(_gone_on(subject, rate, share), rows, subject)
        except FitError:  # its rate is so high that it does not even hold where it was
            after = before
        rise = after - before
        gains[rate] = rise.mean().item(), (rise.std() / len(rise) ** 0.5).item()
        subject.tell((1 + number) / len(RATES))
    return [worth_it(gains, share)]


def _gone_on(subject: Subject, rate: float, share: float) -> Run:
    from ppl_gen.inference.fit import fit

    run, asked = subject.run, subject.run.settings
    settings = replace(
        asked,
        epochs=max(1, round(share * len(run.history))),
        learning_rate=rate * asked.rate,
        seed=(asked.seed + 1) % 2**32,
        patience=None,
        kl_warmup=0,
        stop=Settings().stop,
    )
    return fit(
        run.pair,
        subject.train,
        kwargs=run.kwargs,
        warm_start=True,
        progress=False,
        **vars(settings),
    )


def _elbo(run: Run, rows: object, subject: Subject) -> Tensor:
    """Of each row, in nats."""
    options = {"memory": subject.memory, "seed": subject.seed, "khat": False}
    return evidence_of(run, rows, DRAWS, **options).elbo


def _share(subject: Subject) -> float:
    """How long the fit can go on, as a share of its own length, each time."""
    took = max(subject.run.history[-1].seconds, 1e-9)
    return min(MOST, max(1.0, SHORT / took), subject.budget / len(RATES) / took)


def _unfit(subject: Subject) -> tuple[str, Status]:
    """Why it cannot be tried."""
    run = subject.run
    if run.settings.method == "em" or not len(run.history):
        return "EM says by itself when it has come to rest.", "not applicable"
    if run.settings.objective not in ("auto", "elbo"):
        return "Codes are matched to draws of their prior: there is no ELBO to raise.", "skipped"
    if not run.structure.has_codes:
        reason = "No datum has latents of its own; R-hat says whether shared ones rest."
        return reason, "not applicable"
    reason, status = unreachable(subject)
    if reason:
        return reason, status
    if subject.train is None:
        return "Needs the rows of the fit: check(run, x, train=...).", "skipped"
    share = _share(subject)
    if share < LEAST_SHARE:
        seconds = math.ceil(LEAST_SHARE * len(RATES) * run.history[-1].seconds)
        return f"Would take {seconds} seconds: budget={seconds} allows for it.", "skipped"
    return "", "pass"


def _cost(subject: Subject) -> Cost:
    if _unfit(subject)[0]:
        return Cost("")
    return Cost(f"{len(RATES)} fits of {_share(subject):.0%} of this one's length")


LONGER = Check("would it have been better to go on", (NAME,), longer, _cost, level="full")
