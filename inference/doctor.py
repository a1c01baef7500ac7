"""Before the first step: whether model, guide and data can be what they are meant to be."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger

from ppl_gen.errors import PplGenError, StoryError
from ppl_gen.inference import looks
from ppl_gen.inference.batches import Batches, prepare, rows_of
from ppl_gen.inference.looks import Patient, copied, permuted
from ppl_gen.inference.pair import Pair, as_pair
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.structure import Structure, examine
from ppl_gen.inference.tracing import Batch
from ppl_gen.inference.verdict import Finding, Verdict
from ppl_gen.story import OpenEnded, Story

# Rows that the programs are run on before a fit, besides those that are not finite.
BEFORE_A_FIT = 64
# Rows of a step, as a fit has it unless asked otherwise.
ROWS_A_STEP = 128

LOOKS: dict[str, Callable[[Patient], list[Finding]]] = {
    "finite": looks.finite,
    "stand-ins": looks.stand_ins,
    "copies": looks.copies,
    "rows apart": looks.apart,
    "weights": looks.weights,
    "gradients": looks.gradients,
    "encoder": looks.encoder,
    "likelihood": looks.likelihood,
    "supports": looks.supports,
}
NEVER_FAIL = ("copies",)  # so that a fit does not ask


def doctor(
    story: Any,
    data: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> Verdict:
    """Look a story and its data over before a fit: at what would go wrong without a word.

    Nothing is fitted, and what is given stays as it was: copies of the programs are run on some
    rows. The questions are those of :data:`LOOKS`, answered in :mod:`ppl_gen.inference.looks`, and
    whether the programs fit together at all. There is one finding for each fault, or one that says
    that there is none. :func:`ppl_gen.fit` looks at the same, and warns of what fails.

    Args:
        story: As for :func:`ppl_gen.fit`.
        data: As for :func:`ppl_gen.fit`; of a data set the train part. Rows are numbered from 0.
        kwargs: Further arguments of both programs.
        batch_size: Rows that a step of the fit is to take; by default 128.
        seed: Of first weights and draws.

    Returns:
        The verdict, with the names of the looks as those of its findings.

    Raises:
        StoryError: If ``story`` is none.
        DataError: If the data cannot be read.
    """
    given = dict(kwargs or {})
    with seeded(seed):
        pair = as_pair(story).fresh()
        part, arguments = prepare(data, pair.model, given)
        size = 1 if part is None else len(part)
        rows = min(batch_size or ROWS_A_STEP, size)
        batches = Batches(part, arguments, rows, torch.device("cpu"))
        with pair.active():
            pair.train(False)
            found = _examined(pair, batches, given, seed)
    return Verdict(found, size if part is not None else 0, 1, "doctor")


def look_over(
    pair: Pair,
    structure: Structure,
    batch: Batch,
    kwargs: Mapping[str, Any],
    *,
    size: int,
    rows_a_step: int = ROWS_A_STEP,
    seed: int = 0,
    numbers: Sequence[int] = (),
    whole: Batch = (),
    questions: Mapping[str, Callable[[Patient], list[Finding]]] = LOOKS,
) -> tuple[Finding, ...]:
    """Every look at a pair that fits together, and at rows of data.

    The pair is copied; no weight, buffer or random number of it changes.

    Args:
        pair: The programs, before a fit or after.
        structure: Their sites and plates.
        batch: Rows in the form that the programs take.
        kwargs: Further arguments of both.
        size: How many data the fit has, or had.
        rows_a_step: How many of them a step of the fit takes.
        seed: Of the draws.
        numbers: Which row of the data each row of the batch is; from 0 on by default.
        whole: All rows, if the batch has but some, where they are in memory.
        questions: Some of :data:`LOOKS`.

    Returns:
        At least one finding of each look.
    """
    if isinstance(poutine.unwrap(pair.guide), Messenger):
        return _not_made("The guide is made of handlers around the model, not to be run alone.")
    found: list[Finding] = []
    with warnings.catch_warnings(), seeded(seed), copied(pair) as copy:
        warnings.simplefilter("ignore")
        patient = Patient(
            copy, structure, batch, dict(kwargs), size, rows_a_step, seed, numbers, whole
        )
        try:
            patient.window.size(batch)
        except PplGenError as error:  # a loop that picks its rows, of which not all can be shown
            return _not_made(f"{str(error)[:1].upper()}{str(error)[1:]}.")
        for name, look in questions.items():
            found += _answer(name, look, patient)
            if name == "finite" and found[-1].status == "fail":
                patient = _without(patient, {int(row) for row in found[-1].details["rows"]})
    return tuple(found)


def before_a_fit(
    pair: Pair, structure: Structure, batches: Batches, kwargs: Mapping[str, Any], seed: int
) -> None:
    """Warn of what fails, in one sentence: the worst, and how many more there are."""
    with seeded(seed):  # a visit may draw its rows
        batch, numbers = _some(structure, batches)
    found = look_over(
        pair,
        structure,
        batch,
        kwargs,
        size=batches.size,
        rows_a_step=batches.batch_size,
        seed=seed,
        numbers=numbers,
        whole=_whole(batches),
        questions={name: look for name, look in LOOKS.items() if name not in NEVER_FAIL},
    )
    # Where there is nothing to fit, the fit says so itself.
    failed = [finding for finding in found if finding.status == "fail" and finding.figure > 0]
    if failed:
        more = f" ({len(failed) - 1} more: see ppl_gen.doctor)" if len(failed) > 1 else ""
        warnings.warn(f"{failed[0].meaning} {failed[0].remedy}{more}", UserWarning, stacklevel=2)


def _whole(batches: Batches) -> Batch:
    """All rows as they are kept; nothing of those on disk, or of images kept as bytes."""
    part = batches.part
    return () if part is None or batches.on_disk or part.levels is not None else batches.columns


def _some(structure: Structure, batches: Batches) -> tuple[Batch, list[int]]:
    """The first rows and those that are not finite, as a visit shows them, and their numbers."""
    if batches.part is None or not structure.takes_batches:
        return batches.whole(), []
    if batches.on_disk:
        return batches.example(BEFORE_A_FIT), list(range(min(batches.size, BEFORE_A_FIT)))
    spoilt = sorted(set().union(*looks.not_finite(batches.columns).values()))[:BEFORE_A_FIT]
    numbers = sorted({*range(min(batches.size, BEFORE_A_FIT)), *spoilt})
    index = torch.tensor(numbers, device=batches.device)
    return batches.part.batch(index)[: batches.arguments], numbers


def _examined(
    pair: Pair, batches: Batches, kwargs: dict[str, Any], seed: int
) -> tuple[Finding, ...]:
    """The programs by themselves, and if they fit together, every look."""
    whole = batches.columns if batches.on_disk else batches.whole()
    try:
        structure = _structure(pair, batches, whole, kwargs)
        story = pair.story
        open_ended = isinstance(story, OpenEnded) and story.open_ended
        if isinstance(story, Story) and batches.part is not None and not open_ended:
            story.start(*batches.columns)
    except StoryError as error:
        said = f"{str(error)[:1].upper()}{str(error)[1:]}."
        wrong = Finding("programs", 1.0, "faults", "none", "fail", said, "", "")
        return (wrong, *_of_data_alone(pair, whole))
    fit = "Model and guide have the same sites, shapes and plates."
    return (
        Finding("programs", 0.0, "faults", "none", "pass", fit, "", ""),
        *look_over(
            pair,
            structure,
            whole,
            kwargs,
            size=batches.size,
            rows_a_step=batches.batch_size if structure.takes_batches else batches.size,
            seed=seed,
        ),
    )


def _structure(pair: Pair, batches: Batches, whole: Batch, kwargs: Mapping[str, Any]) -> Structure:
    """Sites and plates; found without rows that are not finite, if these are all that is wrong."""
    try:
        return examine(pair, batches.example, batches.size, batches.batch_size, kwargs)
    except StoryError:
        spoilt = set().union(*looks.not_finite(whole).values())
        kept = torch.tensor([row for row in range(batches.size) if row not in spoilt])
        if not spoilt or len(kept) < 3:
            raise
        some = permuted(whole, kept)
        rows = min(batches.batch_size, len(kept))
        try:
            return examine(
                pair, lambda count: permuted(some, torch.arange(count)), len(kept), rows, kwargs
            )
        except StoryError:
            pass
        raise


def _of_data_alone(pair: Pair, whole: Batch) -> list[Finding]:
    """What can be said of data whose programs do not fit together."""
    spoilt = looks.not_finite(whole)
    rest = list(_not_made("The programs do not fit together yet."))
    if spoilt:
        rest[0] = looks.spoilt_data(pair.model, whole, range(rows_of(whole)), spoilt, "")
    return rest


def _not_made(reason: str) -> tuple[Finding, ...]:
    return tuple(Finding(name, math.nan, "", "", "skipped", reason, "", "") for name in LOOKS)


def _answer(name: str, look: Callable[[Patient], list[Finding]], patient: Patient) -> list[Finding]:
    """What a look finds; that it could not be made, if a program does not bear it."""
    try:
        return look(patient)
    except (PplGenError, RuntimeError, ValueError, LookupError) as error:
        said = str(error).strip().split("\n")[0] or type(error).__name__
        return [
            Finding(name, math.nan, "", "", "skipped", f"It could not be made: {said}.", "", "")
        ]


def _without(patient: Patient, numbers: set[int]) -> Patient:
    """The patient without these data, so that one fault is not found twice."""
    kept = [row for row, number in enumerate(patient.numbers) if number not in numbers]
    if not numbers or len(kept) < 3 or not patient.structure.takes_batches:
        return patient
    return replace(
        patient,
        batch=permuted(patient.batch, torch.tensor(kept)),
        numbers=[patient.numbers[row] for row in kept],
    )
