"""The report: one page that needs nothing else and hides nothing."""

import html.parser
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppl_gen as pg
from ppl_gen.data import Dataset, Part, Support
from ppl_gen.errors import DataError, RunError, StoryError
from ppl_gen.inference import Finding, Run, Verdict
from ppl_gen.models import PPCA, VAE, AutoEncoder
from ppl_gen.report import codes, write_report
from ppl_gen.report import page as page_module

HEADINGS = [  # of a story with codes that is neither a mixture nor conditional
    *("Verdict", "Learning curves", "Samples", "Reconstructions", "Codes", "Traversals"),
    *("Interpolations", "Where the guide is wrong")]  # fmt: skip
EVIL = """<script>alert("1")</script>'&$\\frac{$ 数字"""


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codes, "DRAWS", 40)
        patch.setattr(codes, "JUDGED", 40)
        yield


class Page(html.parser.HTMLParser):
    """What a browser would make of the file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.sections: dict[str, list[str]] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if self.sections:
            self.sections[list(self.sections)[-1]].append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._inside == "h2":
            self.sections[data] = []
        self._inside = ""

    @property
    def text(self) -> str:
        return " ".join(self.words)


def report(run: Run, folder: Path, data: Any = None, **options: Any) -> Page:
    path = write_report(run, folder / "report.html", data, **options)
    return Page(path.read_text())


def fitted(story: Any, data: Any, epochs: int = 2) -> Run:
    return pg.fit(story, data, epochs=epochs, learning_rate=0.01, progress=False)


def labelled(x: Tensor, y: Tensor | None = None) -> Part:
    return Part((x, torch.arange(len(x)) % 3 if y is None else y))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = pg.data.load("digits", binarise="threshold")
    few = (part[:60] for part in data.parts)
    return replace(data, **dict(zip(("train", "valid", "test"), few, strict=True)))


@pytest.fixture(scope="module")
def run(digits: Dataset) -> Run:
    return fitted(VAE((1, 8, 8), 3, likelihood="bernoulli", hidden=(8,)), digits)


@pytest.fixture(scope="module")
def written(run: Run, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(run, path, digits).read_text()


def test_the_file_needs_nothing_but_itself(written: str) -> None:
    shown = Page(written)
    inline = "data:image/png;base64,"
    fetching = {"script", "link", "iframe", "object", "embed", "base", "form", "audio", "video"}
    assert not fetching & {tag for tag, _ in shown.tags}
    for _, attributes in shown.tags:
        assert (attributes.get("src") or inline).startswith(inline)
        assert (attributes.get("href") or "#").startswith("#")
        assert (attributes.get("xlink:href") or "#").startswith(("#", inline))
    assert "http://" not in written
    assert "https://" not in written
    assert "@import" not in written
    assert "url(" not in written.replace("url(#", "")
    assert ("meta", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in [
        (tag, attributes.get("content")) for tag, attributes in shown.tags
    ]


def test_every_section_is_there_and_holds_a_picture(written: str) -> None:
    sections = Page(written).sections
    assert list(sections) == HEADINGS
    for heading, tags in sections.items():
        assert heading == "Verdict" or {"img", "svg"} & set(tags), heading


def test_every_picture_has_words_for_those_who_cannot_see_it(written: str) -> None:
    for tag, attributes in Page(written).tags:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


def test_identifiers_in_the_page_stand_for_one_thing(written: str) -> None:
    """Figures are inlined into one document, where a repeated identifier means the first."""
    names = [attributes["id"] for _, attributes in Page(written).tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_the_same_run_gives_the_same_bytes_whatever_the_settings_of_matplotlib(
    run: Run, digits: Dataset, written: str, tmp_path: Path
) -> None:
    changed = {"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path", "axes.grid": False}
    with matplotlib.rc_context(changed):
        again = write_report(run, tmp_path / "again.html", digits).read_text()
    assert again == written


def test_nothing_global_is_touched(run: Run, digits: Dataset, tmp_path: Path) -> None:
    def state() -> list[Any]:
        return [
            dict(matplotlib.rcParams),
            torch.random.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            random.getstate(),
            torch.get_default_dtype(),
            pyro.infer.is_validation_enabled(),
            list(pyro.get_param_store().keys()),
            {name: value.tolist() for name, value in run.parameters().items()},
            run.story.training,
        ]

    before = state()
    write_report(run, tmp_path / "report.html", digits)
    assert state() == before


@pytest.mark.parametrize("x", [torch.rand(30, 4, 4), torch.rand(30, 3)])
def test_text_from_outside_stays_text(x: Tensor, tmp_path: Path) -> None:
    parts = (labelled(x), labelled(x), labelled(x))
    data = Dataset(EVIL, Support.REAL, *parts, label_names=(EVIL, "b", "c"))
    run = fitted(type("<script>", (VAE,), {})(tuple(x.shape[1:]), 3, hidden=(4,)), data)
    finding = Finding(EVIL, 1.0, EVIL, EVIL, "fail", EVIL, EVIL, f"{EVIL} https://a.org/<script>.")
    run.verdict = Verdict((finding,), 30, 10)
    shown = report(run, tmp_path, data)
    assert "script" not in {tag for tag, _ in shown.tags}
    assert not any(name.startswith("on") for _, attributes in shown.tags for name in attributes)
    assert sum(EVIL in words for words in shown.words) >= 6
    links = [attributes["href"] for tag, attributes in shown.tags if tag == "a"]
    assert [link for link in links if link and not link.startswith("#")] == ["https://a.org/"]


def test_an_unchecked_run_says_how_to_check_it(written: str) -> None:
    assert "ppl-gen check RUN" in written


def test_the_verdict_is_told_in_full(run: Run, digits: Dataset, tmp_path: Path) -> None:
    findings = tuple(
        Finding(f"check-{status}", 0.123, "nats", f"threshold-{status}", status, "m.", "r.", "s.")
        for status in ("pass", "warn", "fail", "skipped")
    )
    checked = replace(run, verdict=Verdict(findings, 7, 9))
    shown = report(checked, tmp_path, digits)
    for finding in findings:
        assert finding.check in shown.words
        assert "m. r." in shown.text
    for finding in findings[:3]:
        assert finding.threshold in shown.words
        assert finding.status in shown.words
    assert shown.words.count("0.123 nats") == 3
    assert {"✓", "!", "✕"} <= set(shown.words)


def globals_only(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 10.0).to_event(1))
    with pyro.plate("observations", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def test_a_story_with_global_latents_only_shows_draws_and_no_codes(tmp_path: Path) -> None:
    x = torch.randn(40, 3)
    shown = report(fitted((globals_only, "AutoNormal"), x), tmp_path, x)
    assert list(shown.sections) == ["Verdict", "Learning curves", "Samples"]
    assert "svg" in shown.sections["Samples"]
    assert "globals_only and AutoNormal on data" in shown.words


class Scalar(pg.Story):
    """A scalar seen through noise."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(1, 2)

    def model(self, x: Tensor) -> None:
        with pyro.plate("observations", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x.squeeze(-1))

    def guide(self, x: Tensor) -> None:
        loc, log_scale = self.encoder(x).unbind(-1)
        with pyro.plate("observations", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))


class Conditional(pg.Story):
    """Three columns, given a class."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 4)
        self.decoder = nn.Linear(5, 3)

    def model(self, x: Tensor, y: Tensor) -> None:
        given = nn.functional.one_hot(y, 3).float()
        with pyro.plate("observations", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = self.decoder(torch.cat([z, given.expand(*z.shape[:-1], 3)], -1))
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor) -> None:
        given = nn.functional.one_hot(y, 3).float()
        loc, log_scale = self.encoder(torch.cat([x, given], -1)).chunk(2, -1)
        with pyro.plate("observations", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def shared_weights(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2, 4), 1.0).to_event(2))
    with pyro.plate("observations", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ w, 1.0).to_event(1), obs=x)


def own_batches(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    with pyro.plate("observations", len(x), subsample_size=5) as index:
        pyro.sample("x", dist.Normal(loc, 1.0).expand([2]).to_event(1), obs=x[index])


def no_plate(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    pyro.sample("x", dist.Normal(loc, 1.0).expand(x.shape).to_event(2), obs=x)


# Story, data, and the sections that have only a sentence.
STORIES: dict[str, tuple[Callable[[], Any], Any, list[str]]] = {
    "colour images": (lambda: VAE((3, 5, 6), 3, hidden=(4,)), torch.rand(20, 3, 5, 6), []),
    "images without channels": (lambda: VAE((5, 6), 2, hidden=(4,)), torch.rand(20, 5, 6), []),
    "points of the plane": (lambda: VAE((2,), 2, hidden=(4,)), labelled(torch.randn(20, 2)), []),
    "binary columns": (
        lambda: VAE((9,), 3, likelihood="bernoulli", hidden=(4,)),
        torch.randint(2, (20, 9)).float(),
        [],
    ),
    "a continuous label": (
        lambda: VAE((4,), 1, hidden=(4,)),
        labelled(torch.randn(20, 4), torch.rand(20)),
        [],
    ),
    "a scalar": (Scalar, labelled(torch.randn(20, 1)), []),
    "a condition": (Conditional, labelled(torch.randn(20, 3)), []),
    "local and shared latents": (lambda: (shared_weights, "AutoNormal"), torch.randn(20, 4), []),
    "codes without a law": (
        lambda: AutoEncoder((5,), 2, hidden=(4,)),
        torch.randn(20, 5),
        ["Where the guide is wrong"],
    ),
    "categories": (
        lambda: VAE((4, 4), 2, likelihood="categorical(categories=3)", hidden=(4,)),
        torch.randint(3, (20, 4, 4)),
        ["Reconstructions", "Traversals", "Interpolations"],
    ),
    "its own mini-batches": (
        lambda: (own_batches, "AutoNormal"),
        torch.randn(20, 2),
        ["Samples"],
    ),
    "no plate": (lambda: (no_plate, "AutoNormal"), torch.randn(20, 2), ["Samples"]),
}


@pytest.mark.parametrize("name", STORIES)
def test_each_section_has_a_picture_or_a_reason(name: str, tmp_path: Path) -> None:
    make, data, empty = STORIES[name]
    torch.manual_seed(0)
    sections = report(fitted(make(), data), tmp_path, data).sections
    without = {heading for heading, tags in sections.items() if not {"img", "svg"} & set(tags)}
    words = ", ".join(heading.lower() for heading in without).replace(" and ", ", ").split(", ")
    assert sorted(words) == sorted(["verdict", *(heading.lower() for heading in empty)])


def test_a_refusal_becomes_a_sentence_and_a_bug_does_not(
    run: Run, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(view: Any) -> Any:
        raise StoryError("the guide <b> raised")

    def fail(view: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(page_module, "SECTIONS", {"Samples": page_module.Section(refuse)})
    assert "The guide <b> raised." in report(run, tmp_path, digits).words
    monkeypatch.setattr(page_module, "SECTIONS", {"Samples": page_module.Section(fail)})
    with pytest.raises(ZeroDivisionError):
        report(run, tmp_path, digits)


def test_without_data_those_of_the_fit_are_loaded_again(tmp_path: Path) -> None:
    data = pg.data.load("iris")
    run = fitted(PPCA((4,), 2), data)
    with_data = write_report(run, tmp_path / "a.html", data).read_text()
    assert write_report(run, tmp_path / "b.html").read_text() == with_data
    assert "setosa" in with_data
    assert "22 rows, test part" in with_data


def test_without_any_data_the_report_asks_for_them(tmp_path: Path) -> None:
    run = fitted(PPCA((4,), 2), torch.randn(20, 4))
    shown = report(run, tmp_path)
    assert "the run cannot load its own again" in shown.text
    assert "svg" in shown.sections["Learning curves"]
    images = fitted(VAE((4, 4), 2, hidden=(4,)), torch.rand(20, 4, 4))
    assert "img" in report(images, tmp_path).sections["Samples"]


def test_data_of_another_shape_are_refused_in_words(run: Run, tmp_path: Path) -> None:
    assert "fitted to observations of shape (1, 8, 8)" in report(run, tmp_path, torch.rand(9)).text
    with pytest.raises(DataError):
        report(run, tmp_path, "digits")


def test_the_file_appears_whole_or_not_at_all(
    run: Run, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("before")

    def broken(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(RunError, match="No space left"):
        write_report(run, path, digits)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_is_not_there_is_refused_before_the_work(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no directory"):
        write_report(run, tmp_path / "missing" / "report.html", "not even data")


def test_rows_are_named_by_their_number_in_the_data(tmp_path: Path) -> None:
    """Each label is its row's number, so both must agree beside every picture."""
    x = torch.rand(60, 4, 4)
    part = labelled(x, torch.arange(60).float())
    words = report(fitted(VAE((4, 4), 2, hidden=(4,)), part), tmp_path, part).words
    rows = [word.removeprefix("row ") for word in words if word.startswith("row ")]
    labels = [word.removeprefix("label ") for word in words if word.startswith("label ")]
    assert len(rows) == 12
    assert rows == labels


def test_at_most_500_rows_are_shown_in_little_space(tmp_path: Path) -> None:
    x = torch.rand(510, 3, 50, 50)
    run = fitted(VAE((3, 50, 50), 8, hidden=(4,)), x, epochs=1)
    path = write_report(run, tmp_path / "report.html", x)
    assert "500 of 510 rows" in path.read_text()
    assert path.stat().st_size < 3e6
