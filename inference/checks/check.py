"""From a run to its verdict: every question of a level, one after the other."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ppl_gen.data import Dataset, as_part, load
from ppl_gen.errors import DataError, PplGenError
from ppl_gen.inference.checks.calibration import CALIBRATION
from ppl_gen.inference.checks.closeness import CLOSENESS
from ppl_gen.inference.checks.codes import ACTIVE_UNITS, AGGREGATE_POSTERIOR, PARTS_OF_KL
from ppl_gen.inference.checks.components import COMPONENTS
from ppl_gen.inference.checks.doctor import DOCTOR
from ppl_gen.inference.checks.generated import GENERATED
from ppl_gen.inference.checks.longer import LONGER
from ppl_gen.inference.checks.memory import MEMORY_TEST
from ppl_gen.inference.checks.pit import LOO_PIT
from ppl_gen.inference.checks.predictive import POSTERIOR_PREDICTIVE, PRIOR_PREDICTIVE
from ppl_gen.inference.checks.priors import PRIORS
from ppl_gen.inference.checks.reference import REFERENCE
from ppl_gen.inference.checks.settled import SETTLED
from ppl_gen.inference.checks.subject import Check, Level, Subject
from ppl_gen.inference.checks.weights import WEIGHTS
from ppl_gen.inference.memory import MEMORY
from ppl_gen.inference.progress import Steps, steps
from ppl_gen.inference.verdict import Finding, Verdict

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

ENDED_NEAR = 0.125  # nats from the posterior, at which it does not matter how the fit came there

logger = logging.getLogger("ppl_gen")

CHECKS: tuple[Check, ...] = (
    DOCTOR,
    SETTLED,
    LONGER,
    WEIGHTS,
    CLOSENESS,
    REFERENCE,
    CALIBRATION,
    ACTIVE_UNITS,
    PARTS_OF_KL,
    AGGREGATE_POSTERIOR,
    PRIORS,
    POSTERIOR_PREDICTIVE,
    PRIOR_PREDICTIVE,
    LOO_PIT,
    GENERATED,
    MEMORY_TEST,
    COMPONENTS,
)


def check(
    run: Run,
    data: Any = None,
    *,
    level: Level = "quick",
    train: Any = None,
    test: Any = None,
    statistics: Mapping[str, Callable[[Tensor], Any]] | None = None,
    draws: int = 1000,
    budget: float = 120.0,
    row_numbers: Tensor | None = None,
    memory: int = MEMORY,
    seed: int = 0,
    progress: bool = True,
) -> Verdict:
    """Look at a fitted run from several sides and say whether to believe it.

    The questions are those of :data:`CHECKS`; each is answered by a function in
    :mod:`ppl_gen.inference.checks` that says how to read its figure, what the threshold is and
    where both come from. A check that cannot be made is skipped with the reason, and lets nothing
    pass unseen.

    Args:
        run: The fitted story.
        data: Rows to check it on, best ones it has not seen. Of a data set the test part is
            taken, or the train part if all latents are global and have a posterior, which belongs
            to it. By default the data that the run was fitted to, if they can be loaded again.
        level: quick, for what a look at the weights of the draws says; full, for everything.
        train: Rows of the fit, to which what the story draws is compared; a data set brings them.
        test: Rows that it has not seen, where those it is checked on are of the fit, as they must
            be where all latents are global; a data set brings them.
        statistics: Statistics of your own for data and replicates to be compared by, with their
            names: functions of observations ``(N, *event)``, NaN where missing, that give a number,
            such as ``{"skewness": lambda x: ((x - x.mean()) / x.std()).pow(3).mean()}``.
        draws: Draws of the guide a row.
        budget: Seconds that fits made by the way may take, at level full: those that go on from the
            run, and those of simulated data where all latents are global; each has so many.
        row_numbers: Which row of its source each row of ``data`` is, where these were divided at
            random; a data set brings them. What comes back or is alike in that order is found.
        memory: Bytes that a pass may take.
        seed: Of the draws.
        progress: Whether to show what each check is going to do, and how far it is.

    Returns:
        The verdict, which is also kept as ``run.verdict``.

    Raises:
        DataError: If there are no data, or they have another form than those of the fit, or
            ``row_numbers`` are not one for each row.
        ValueError: If the level is unknown, or the budget negative.
        TypeError: If a statistic is no function.
        KeyboardInterrupt: If it is interrupted; what was done is kept as ``run.verdict``.
    """
    if level not in ("quick", "full"):
        raise ValueError(f"level must be quick or full, got {level!r}")
    if not budget >= 0:
        raise ValueError(f"budget must be 0 or a positive number of seconds, got {budget}")
    for name, statistic in (statistics or {}).items():
        if not callable(statistic):
            raise TypeError(
                f"the statistic {name!r} must be a function of observations, got "
                f"{type(statistic).__name__}"
            )
    data = _at_hand(run) if data is None else data
    if isinstance(data, Dataset):
        train = data.train if train is None else train
        test = data.test if test is None else test
        if data.rows is not None:
            row_numbers = data.rows[2 if run.structure.takes_new_rows else 0]
        data = data.test if run.structure.takes_new_rows else data.train
    if row_numbers is not None:
        row_numbers = torch.as_tensor(row_numbers)
        rows = 0 if data is None else len(as_part(data))
        if row_numbers.shape != (rows,) or row_numbers.is_floating_point():
            raise DataError(
                f"row_numbers must be a whole number for each of the {rows} rows of the data, got "
                f"shape {tuple(row_numbers.shape)}, {str(row_numbers.dtype).removeprefix('torch.')}"
            )
    subject = Subject(
        run,
        data,
        draws,
        memory,
        seed,
        level,
        train=train,
        test=test,
        budget=budget,
        statistics=statistics or {},
        places=row_numbers,
    )
    asked = [c for c in CHECKS if level == "full" or c.level == "quick"]
    findings: list[Finding] = []
    left = list(asked)
    announced = sum(question.concerns(run.structure) for question in asked)
    with steps(announced, progress) as shown:
        try:
            while left:
                findings += _answers(left[0], subject, shown)
                if left.pop(0) is DOCTOR:  # which has seen all rows, and says what is wrong
                    subject = _sound(subject)
        except KeyboardInterrupt as interrupt:
            findings += [f for question in left for f in _skipped(question, "It was interrupted.")]
            interrupt.args = ("interrupted: what was checked until then is kept",)
            raise
        finally:
            findings = reconciled(findings)
            run.verdict = Verdict(tuple(findings), subject.rows, draws, level, subject.fingerprint)
    return run.verdict


def _sound(subject: Subject) -> Subject:
    try:
        return subject.sound()
    except PplGenError:  # which the checks will say themselves
        return subject


def reconciled(findings: list[Finding]) -> list[Finding]:
    """Findings that do not speak against each other.

    What the curves of the steps let one fear of the rest of the way is seen where the way was gone:
    'settled' passes if 'longer fit' does. What steps still moved of latents that all data share is
    seen where the draws are weighed: 'R-hat' passes if these lie as near to the posterior as a mean
    that is off by half a deviation does, :math:`0.5^2 / 2` nats, and k-hat lets one believe that.
    """
    found = {finding.check: finding for finding in findings}

    def answers(check: str, most: float = math.inf) -> bool:
        return check in found and found[check].status == "pass" and found[check].figure <= most

    but = {}
    if answers("longer fit"):
        but["settled"] = " But going on does not raise it: see 'longer fit'."
    if answers("gap", ENDED_NEAR) and answers("k-hat"):
        but["R-hat"] = " But the guide lies near the posterior where it ended: see 'gap'."
    return [
        replace(f, status="pass", meaning=f.meaning + but[f.check], remedy="")
        if f.check in but and f.status in ("warn", "fail")
        else f
        for f in findings
    ]


def _at_hand(run: Run) -> Any:
    """The data of the fit, if the run knows where they come from; None if it takes none."""
    if not run.data.columns:
        return None
    if run.data.source is None:
        raise DataError(
            "check needs rows to hold the run against, as it does not know where those of its fit "
            "come from: check(run, x), best with rows that it has not seen"
        )
    return load(**run.data.source)


def _answers(question: Check, subject: Subject, shown: Steps) -> Iterable[Finding]:
    """The findings of one check; skipped ones if it cannot be made."""
    try:
        if question.concerns(subject.run.structure):
            cost = question.cost(subject)
            seconds = cost.evaluations * subject.seconds_each if cost.evaluations else 0.0
            about = f", about {seconds:.0f} s" if seconds >= 1 else ""
            work = f": {cost.work}{about}" if cost.work else ""
            subject.tell = shown.begin(f"{question.question}{work}")
        return [replace(f, question=question.question) for f in question.look(subject)]
    except PplGenError as error:
        return _skipped(question, f"It could not be made: {error}.")
    except Exception as error:  # what one check did not foresee must not cost the others
        logger.exception("a check broke: %s", question.question)
        return _skipped(
            question, f"It broke on this story, which is a mistake in the check: {error!r}."
        )


def _skipped(question: Check, reason: str) -> list[Finding]:
    """What a check would have found."""
    skipped = Finding("", math.nan, "", "", "skipped", reason, "", "", question=question.question)
    return [replace(skipped, check=name) for name in question.findings]
