"""The page: sections in their order, each a picture or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ppl_gen.errors import PplGenError, RunError
from ppl_gen.inference.files import write_file
from ppl_gen.inference.run import Run
from ppl_gen.report import codes, conditional, facts, mixture, pictures, trust, verdict
from ppl_gen.report.document import document
from ppl_gen.report.html import Markup, tag
from ppl_gen.report.view import View, data_to_show


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        draw: Makes it, or raises why there is nothing to show, in a sentence that is then shown.
        applies: Whether a story is of the kind that it is for; to others it is not mentioned.
    """

    draw: Callable[[View], Markup]
    applies: Callable[[View], bool] = lambda _: True


def _has_codes(view: View) -> bool:
    """Whether each datum has latents of its own; the number of a component is no code."""
    numbers = getattr(view.run.story, "indices", ())
    return any(s.local and s.name not in numbers for s in view.run.structure.latents)


SECTIONS: dict[str, Section] = {
    "Verdict": Section(verdict.verdict),
    "Trust, datum by datum": Section(trust.trust_map, trust.has_map),
    "Calibration": Section(trust.calibration, trust.has_ranks),
    "Distance from the posterior": Section(trust.sandwich, trust.has_bounds),
    "Beside Hamiltonian chains": Section(trust.reference, trust.has_reference),
    "Beside replicates": Section(trust.predictive, trust.has_statistics),
    "Learning curves": Section(facts.curves),
    "Coming to rest": Section(trust.settling, trust.has_steps),
    "Components": Section(mixture.components, mixture.is_mixture),
    "Weights": Section(mixture.weights, mixture.is_mixture),
    "Responsibilities": Section(mixture.responsibilities, mixture.is_mixture),
    "Samples": Section(pictures.samples),
    "Completions": Section(conditional.completions, conditional.can_complete),
    "Reconstructions": Section(pictures.reconstructions, _has_codes),
    "Redrawn": Section(conditional.redrawn, conditional.can_redraw),
    "Codes": Section(codes.codes, _has_codes),
    "Traversals": Section(pictures.traversals, _has_codes),
    "Interpolations": Section(pictures.interpolations, _has_codes),
    "Where the guide is wrong": Section(codes.khat, _has_codes),
}


def write_report(
    run: Run,
    path: str | Path,
    data: Any = None,
    *,
    label_names: Sequence[str] | None = None,
    row_numbers: Tensor | None = None,
    seed: int = 0,
) -> Path:
    """Write what a run can show to one HTML file that needs nothing else.

    Verdict, and what can be drawn of its findings: trust datum by datum, calibration, the distance
    from the posterior, the guide beside chains, the data beside replicates; learning curves and how
    the steps came to rest, samples beside data, reconstructions, the plane of codes, traversals,
    interpolations, and where the guide is wrong; of a mixture its components among the data, their
    weights, and which datum is in doubt; of a story with a condition, what it makes of a datum
    under others, and how it completes what a mask shows in part. What to show is found by tracing
    and by what a story can do: no story is known by name. A section that finds nothing to show says
    so in a sentence. The same run, data and seed give the same file, since it bears no date.

    Args:
        run: The fitted story.
        path: The file to write; it appears whole or not at all.
        data: Rows to show: a data set, of which the test part is taken; one of its parts; a tensor,
            an array, a table or a tuple of columns. By default the data of the fit are loaded
            again, if they came from :func:`ppl_gen.data.load`. Up to 500 rows are shown.
        label_names: What the classes are called, class 0 first; a data set brings its own.
        row_numbers: Which row of its source each row of ``data`` is, ``(N,)``; a data set brings
            its own.
        seed: Of the choice of rows and of every draw.

    Returns:
        The path.

    Raises:
        RunError: If the file cannot be written.
        DataError: If the data are of no known kind.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise RunError(
            f"{str(path)!r} cannot be written: there is no directory {str(path.parent)!r}"
        )
    shown = data_to_show(run, data)
    if row_numbers is not None:
        shown = replace(shown, rows=row_numbers)
    view = View(run, shown, seed, label_names)
    write_file(path, page(view).encode())
    return path


def page(view: View) -> str:
    """The report as one HTML document."""
    title = f"{facts.story_name(view.run)} on {view.shown.name}"
    return document(title, facts.header(view), _sections(view))


def _sections(view: View) -> list[tuple[str, Markup]]:
    """Headings and bodies; neighbours with the same reason to be empty become one."""
    found: list[tuple[list[str], Markup, bool]] = []
    for heading, section in SECTIONS.items():
        if not section.applies(view):
            continue
        try:
            body, empty = section.draw(view), False
        except PplGenError as error:
            body, empty = tag("p", _sentence(error), class_="note"), True
        if empty and found and found[-1][2] and found[-1][1] == body:
            found[-1][0].append(heading)
        else:
            found.append(([heading], body, empty))
    return [(_listed(headings), body) for headings, body, _ in found]


def _sentence(error: PplGenError) -> str:
    text = str(error).strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _listed(headings: Sequence[str]) -> str:
    first, *others = headings
    lower = [heading[0].lower() + heading[1:] for heading in others]
    return first if not lower else ", ".join([first, *lower[:-1]]) + f" and {lower[-1]}"
