"""The verdict on a page: a table by question, sentences by status, a figure for each finding."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_report import EVIL, Page
from torch import Tensor

import ppl_gen as pg
from ppl_gen.data import Part
from ppl_gen.inference import Finding, Run, Verdict
from ppl_gen.inference.checks import CHECKS
from ppl_gen.inference.checks.weights import khat
from ppl_gen.inference.estimators import Evidence
from ppl_gen.inference.verdict import Status
from ppl_gen.models import PPCA, VAE
from ppl_gen.report import codes, page, write_report

ROWS = 40
HEADINGS = {
    "k-hat": "Trust, datum by datum",
    "calibration": "Calibration",
    "coverage": "Calibration",
    "divergence": "Distance from the posterior",
    "reference": "Beside Hamiltonian chains",
    "posterior predictive": "Beside replicates",
    "prior predictive": "Beside replicates",
    "settled": "Coming to rest",
}
QUESTIONS = {name: check.question for check in CHECKS for name in check.findings}


@pytest.fixture(autouse=True, scope="module")
def verdict_alone() -> Iterator[None]:
    """Without the sections that are made of the run itself, which take their time."""
    kept = {"Verdict", "Learning curves", *HEADINGS.values()}
    sections = {name: made for name, made in page.SECTIONS.items() if name in kept}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "SECTIONS", sections)
        yield


def finding(check: str, status: Status, details: dict[str, list[float]] | None = None) -> Finding:
    figure = math.nan if status in ("skipped", "not applicable") else 0.123
    remedy = "" if status == "pass" else f"Mend {check}."
    meaning = f"{check} says so. And it says more."
    question = QUESTIONS.get(check, "")
    return Finding(
        *(check, figure, "nats", f"below {check}", status, meaning, remedy, f"Source of {check}"),
        details or {},
        question,
    )


def statistics(**named: list[float]) -> dict[str, list[float]]:
    """Two statistics: one off by four times what warns, one that chance explains."""
    return {
        "mean of x": [1.0, 0.8, 0.2, 0.01],
        "sd of x": [0.9, 1.0, 0.1, 0.6],
        "chance and limits of mean of x": [-0.02, 0.02, 0.05, 0.2],
        "chance and limits of sd of x": [-0.1, 0.1, 0.5, math.inf],
        **named,
    }


DETAILS: dict[str, dict[str, list[float]]] = {
    "k-hat": {
        "threshold": [0.67],
        "draws": [1000.0],
        "rows": [float(row) for row in range(ROWS)],
        "k-hat": [-10.0, *(row / 40 for row in range(1, ROWS))],
        "ess": [1000.0 - 24.9 * row for row in range(ROWS)],
    },
    "calibration": {
        "ECDF of z[0]": [0.2, 0.6, 0.8],
        "ECDF of log-likelihood": [0.3, 0.5, 0.7],
        "ECDF at": [0.25, 0.5, 0.75],
        "band from": [0.2, 0.45, 0.7],
        "band to": [0.3, 0.55, 0.8],
    },
    "coverage": {
        "levels": [0.5, 0.8, 0.9, 0.95],
        "share of z[0]": [0.4, 0.7, 0.8, 0.9],
        "share of z[1]": [0.5, 0.8, 0.9, 0.95],
    },
    "divergence": {
        "error": [0.01],
        "ELBO": [-3.0],
        "importance-weighted": [-2.5],
        "annealed": [-2.4],
        "errors of the three": [0.01, math.inf, 0.02],
        "slack on simulated data": [0.05],
    },
    "amortisation gap": {"error": [0.01]},
    "approximation gap": {"error": [0.01]},
    "reference": {
        "shift, stretch and distance of z[0]": [0.05, 0.97, 0.06],
        "shift, stretch and distance of z[1]": [-0.3, 0.6, 0.4],
    },
    "posterior predictive": statistics(),
    "prior predictive": statistics(),
    "settled": {"error": [0.01]},
}


def whole() -> Verdict:
    """A finding of every name, and of every status."""
    order: tuple[Status, ...] = ("pass", "warn", "fail")
    left: dict[str, Status] = {
        "components": "skipped",
        "agreement with EM": "skipped",
        "R-hat": "not applicable",
    }
    names = [name for check in CHECKS for name in check.findings]
    findings = [
        finding(name, left.get(name) or order[i % 3], DETAILS.get(name))
        for i, name in enumerate(names)
    ]
    return Verdict(tuple(findings), ROWS, 1000, "full")


@pytest.fixture(scope="module")
def images() -> Part:
    """Each label is its row's number."""
    generator = torch.Generator().manual_seed(0)
    return Part((torch.rand(ROWS, 4, 4, generator=generator), torch.arange(ROWS).float()))


@pytest.fixture(scope="module")
def run(images: Part) -> Run:
    return pg.fit(VAE((4, 4), 2, hidden=(4,)), images, epochs=40, batch_size=20, progress=False)


def written(run: Run, verdict: Verdict, folder: Path, data: Part | Tensor) -> str:
    return write_report(replace(run, verdict=verdict), folder / "a.html", data).read_text()


@pytest.mark.parametrize("name", HEADINGS)
def test_a_figure_is_drawn_where_its_finding_is_and_only_there(
    name: str, run: Run, images: Part, tmp_path: Path
) -> None:
    alone = Verdict((finding(name, "warn", DETAILS[name]),), ROWS, 1000)
    bare = Verdict((finding(name, "skipped", DETAILS[name]),), ROWS, 1000)
    before = Page(written(run, bare, tmp_path, images)).sections
    after = Page(written(run, alone, tmp_path, images)).sections

    assert set(after) - set(before) == {HEADINGS[name]}
    assert "svg" in after[HEADINGS[name]]
    assert not set(HEADINGS.values()) & set(before)


def test_the_whole_verdict_is_the_same_page_from_disk(
    run: Run, images: Part, tmp_path: Path
) -> None:
    """What is not finite comes back from JSON as NaN."""
    checked = replace(run, verdict=replace(whole(), fingerprint=images.fingerprint))
    path = checked.save(tmp_path / "run")
    pages = [
        write_report(one, tmp_path / f"{i}.html", images).read_text()
        for i, one in enumerate((checked, pg.load(path)))
    ]

    assert pages[0] == pages[1]
    shown = Page(pages[0])
    assert list(shown.sections)[:8] == [
        *("Verdict", "Trust, datum by datum", "Calibration", "Distance from the posterior"),
        *("Beside Hamiltonian chains", "Beside replicates", "Learning curves", "Coming to rest"),
    ]
    labels = [a["aria-label"] for tag, a in shown.tags if tag == "svg" and "aria-label" in a]
    assert len(labels) == len(set(labels))
    names = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_findings_stand_below_their_question_and_the_worst_is_told_first(
    run: Run, images: Part, tmp_path: Path
) -> None:
    verdict = whole()
    text = written(run, verdict, tmp_path, images)
    section = text[text.index('<section id="verdict"') : text.index("</section>")]

    table = section[: section.index("</table>")]
    told = section[len(table) :]
    places = [table.index(f"<td>{f.check}</td>") for f in verdict.of("pass", "warn", "fail")]
    assert places == sorted(places)
    questions = re.findall(r'scope="rowgroup">(.*?)\?<', table)
    assert questions == [q[0].upper() + q[1:] for q in verdict.answers]
    for f in verdict.findings:
        left = f.status in ("skipped", "not applicable")
        assert (f"<td>{f.check}</td>" in table) != left
        assert (f.source in table) != left
        assert (f"Mend {f.check}." in told) == (f.status != "pass")
        assert ("And it says more" in told.split(f"{f.check} says so.")[1][:30]) == (
            f.status != "pass"
        )
    heads = ["What fails", "What warns", "What passes", "Skipped", "Not applicable"]
    assert re.findall(r"<h3>(.*?)</h3>", told) == heads
    parts = re.split(r"<h3>.*?</h3>", told)[1:]
    for part, status in zip(
        parts, ("fail", "warn", "pass", "skipped", "not applicable"), strict=True
    ):
        assert part.count("<li>") == len(verdict.of(status))
        assert all(f"{f.check} says so." in part for f in verdict.of(status))


def test_the_verdict_begins_with_what_others_may_follow_from(
    run: Run, images: Part, tmp_path: Path
) -> None:
    guide, fit = finding("k-hat", "fail"), finding("longer fit", "fail")
    story = replace(finding("posterior predictive", "fail"), of_story=True)
    programs, slight = finding("doctor", "fail"), finding("doctor", "warn")

    def of(*findings: Finding) -> Verdict:
        return Verdict(findings, 1, 1)

    assert of(slight, guide, story).by_cause("fail") == (story, guide)
    assert of(slight, guide, replace(story, of_story=False)).first == guide
    assert of(guide, fit, story).first == fit
    assert of(guide, replace(story, status="warn")).first == guide
    assert of(guide, story, programs).first == programs
    assert of(slight).first == slight
    told, symptom = replace(slight, of_story=True), finding("LOO-PIT", "fail")
    assert of(guide, fit, told).first == told
    assert of(symptom, replace(story, status="warn")).first == replace(story, status="warn")
    assert of(symptom, replace(story, status="warn", of_story=False)).first == symptom
    assert of(symptom, guide).by_cause("fail") == (guide, symptom)
    short = replace(finding("settled", "skipped"), remedy="Raise epochs.")
    assert of(guide, story, short).first == short
    assert of(guide, programs, short).first == programs
    assert of(short, finding("gap", "pass")).first is None
    assert of(finding("k-hat", "pass"), finding("doctor", "skipped")).first is None
    both = of(guide, story)
    assert "begin with posterior predictive: Mend posterior predictive." in str(both)
    assert json.loads(both.to_json())["first"] == "posterior predictive"
    assert Verdict.from_json(both.to_json()) == both
    text = written(run, both, tmp_path, images)
    assert "Begin with <b>posterior predictive</b>: Mend posterior predictive." in text
    assert "Begin with" not in written(run, of(finding("k-hat", "pass")), tmp_path, images)


def test_checks_left_out_for_one_reason_are_told_together() -> None:
    same = finding("a", "skipped")
    verdict = Verdict((same, replace(same, check="b"), finding("c", "skipped")), 1, 1)

    assert list(verdict.left_out.values()) == [("a", "b"), ("c",)]


def test_a_verdict_without_questions_still_shows(run: Run, images: Part, tmp_path: Path) -> None:
    old = whole().to_json().replace('"question"', '"meant"')
    with pytest.raises(pg.RunError):
        Verdict.from_json(old)
    old = re.sub(r',\s*"question": "[^"]*"', "", whole().to_json())
    old = re.sub(r',\s*"fingerprint": null', "", old)
    verdict = Verdict.from_json(old)

    assert "question" not in old
    text = written(run, verdict, tmp_path, images)
    assert 'class="question"' not in text
    for f in verdict.findings:
        assert f.check in text
        assert f.check in str(verdict)


def test_the_worst_data_are_shown_if_they_are_at_hand_and_named_else(
    run: Run, images: Part, tmp_path: Path
) -> None:
    """Each label is its row's number, so that both must agree beside every picture."""
    known = replace(whole(), fingerprint=images.fingerprint)
    for verdict, at_hand in ((known, True), (whole(), False)):
        text = written(run, verdict, tmp_path, images)
        section = text[text.index('<section id="trust-datum-by-datum"') :]
        section = section[: section.index("</section>")]

        assert section.count("<img") == (codes.WORST if at_hand else 0)
        assert ("are not at hand here" in section) != at_hand
        if at_hand:
            rows = re.findall(r">row (\d+)<br>label (\d+)", section)
            assert rows == [(str(r), str(r)) for r in range(39, 39 - codes.WORST, -1)]
        else:
            assert "<td>39</td>" in section


def test_small_vectors_are_shown_as_rows_and_numbered_as_in_their_source(tmp_path: Path) -> None:
    x = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
    run = pg.fit(PPCA((3,), 2), x, epochs=2, progress=False)
    part = pg.data.as_part(x)
    run.verdict = replace(whole(), fingerprint=part.fingerprint)
    numbers = torch.arange(ROWS) + 100
    path = write_report(run, tmp_path / "a.html", part, row_numbers=numbers)
    text = path.read_text()

    assert "<td>39 (139 of the source)</td>" in text
    assert f"<td>{x[39, 0]:.3g}</td>".replace("-", "−") in text


def test_names_from_outside_stay_text(run: Run, images: Part, tmp_path: Path) -> None:
    named = f"chance and limits of {EVIL}"
    details = {
        **DETAILS,
        "calibration": {**DETAILS["calibration"], f"ECDF of {EVIL}": [0.2, 0.6, 0.8]},
        "coverage": {**DETAILS["coverage"], f"share of {EVIL}": [0.5, 0.8, 0.9, 0.95]},
        "reference": {f"shift, stretch and distance of {EVIL}": [0.0, 1.0, 0.0]},
        "prior predictive": statistics(**{EVIL: [1.0, 0.8, 0.2, 0.01], named: [-1, 1, 0.1, 0.2]}),
    }
    findings = tuple(finding(name, "fail", found) for name, found in details.items())
    shown = Page(written(run, Verdict(findings, ROWS, 1000), tmp_path, images))

    assert "script" not in {tag for tag, _ in shown.tags}
    assert sum(EVIL in words for words in shown.words) == 3  # coverage names no scalar


def test_what_is_kept_of_many_data_has_the_worst_and_their_shares() -> None:
    values = torch.randn(2500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[7] = -math.inf
    found = Evidence(*(values,) * 4, values, 1000)
    kept = khat(found).details

    assert len(kept["k-hat"]) == len(kept["ess"]) == len(kept["rows"]) == 1000
    assert kept["rows"] == sorted(set(kept["rows"]))
    assert int(values.argmax()) in kept["rows"]
    assert min(kept["k-hat"]) == -10
    share = sum(k > 0.67 for k in kept["k-hat"]) / 1000
    assert share == pytest.approx((values > 0.67).double().mean().item(), abs=2e-3)
    for row, k in zip(kept["rows"], kept["k-hat"], strict=True):
        assert k == pytest.approx(max(values[int(row)].item(), -10), abs=1e-3)


def test_a_check_leaves_what_its_figures_need_and_not_much_more(
    run: Run, images: Part, tmp_path: Path
) -> None:
    checked = replace(run)
    verdict = pg.check(checked, images, draws=60, progress=False)

    assert verdict.fingerprint == images.fingerprint
    assert all(f.question == QUESTIONS[f.check] for f in verdict.findings)
    assert len(verdict.to_json()) < 50_000
    sections = Page(written(checked, verdict, tmp_path, images)).sections
    for heading in (
        *("Trust, datum by datum", "Calibration", "Beside replicates", "Coming to rest"),
    ):
        assert "svg" in sections[heading]


def lines_of(verdict: Verdict, width: int) -> list[str]:
    from rich.console import Console

    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(verdict)
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("width", [80, 110, 200])
def test_the_table_on_a_terminal_fits_and_tells_the_worst_first(width: int) -> None:
    verdict = whole()
    lines = lines_of(verdict, width)

    assert lines[0] == f"verdict: fail  ({verdict.counts})"
    assert max(map(len, lines)) <= min(width, 110)
    for f in verdict.of("fail", "warn"):
        mark = "!!" if f.status == "fail" else "!"
        row = next(line for line in lines if re.search(rf"^ +{mark} +{f.status} +{f.check} ", line))
        assert lines.index(row) < lines.index("What fails")
    heads = ["What fails", "What warns", "What passes", "Skipped", "Not applicable"]
    assert [line for line in lines if line in heads] == heads
    questions = [line for line in lines if line.endswith("?")]
    assert questions == [q[0].upper() + q[1:] + "?" for q in verdict.answers]
    columns = {line.index("below ") for line in lines if "  below " in line}
    assert len(columns) == 1  # that of what is good stands below itself all along


def test_counts_are_in_words_and_leave_out_what_there_is_none_of() -> None:
    some: Callable[..., Verdict] = lambda *s: Verdict(  # noqa: E731
        tuple(finding(str(i), status) for i, status in enumerate(s)), 1, 1
    )
    assert some("pass").counts == "1 passes"
    assert some("pass", "fail", "warn", "warn").counts == "1 fails, 2 warn, 1 passes"
    assert some("skipped", "not applicable").counts == "1 skipped, 1 not applicable"


def test_what_the_story_leaves_is_drawn_where_it_was_kept(
    run: Run, images: Part, tmp_path: Path
) -> None:
    left = {
        "drawn against hours": [0.1 * i for i in range(40)],
        "left of score": [math.sin(i) for i in range(40)],
        "marked rows: school 3": [float(i % 4 == 0) for i in range(40)],
    }
    strange = {"drawn against $^\u4e16": left["drawn against hours"], **left}
    del strange["drawn against hours"]
    for details, told in ((left, "against hours:"), (strange, "against $^\u4e16:"), ({}, "")):
        found = finding("posterior predictive", "fail", statistics(**details))
        shown = Page(written(run, Verdict((found,), ROWS, 1000), tmp_path, images))
        figures = shown.sections["Beside replicates"].count("figure")
        assert figures == bool(details)
        assert ("What the story leaves of score" in shown.text) == bool(details)
        assert told in shown.text
        assert ("a line of their own, are school 3." in shown.text) == bool(details)
