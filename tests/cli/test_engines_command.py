"""``ppl-gen compare --engines``: one story, several engines, whichever order is typed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cli_support import STORY, Command

import ppl_gen as pg
from ppl_gen.models import PPCA

FIT = ("--data", "iris", "--standardise", "--epochs", "3", "--rows", "3", "--draws", "50")


def figures(text: str) -> dict[str, Any]:
    """What is printed as JSON, without what depends on the clock."""
    plain = json.loads(text)
    for engine in plain["engines"]:
        assert engine.pop("seconds") > 0
        engine.pop("before")
    plain.pop("fastest")
    plain["sentences"] = [s for s in plain["sentences"] if not re.search(r"\d s\b", s)]
    return plain


def test_engines_are_compared_as_python_would(command: Command) -> None:
    said = command("compare", "--engines", "auto,amortised", "ppca", *FIT, "--json")
    assert said.status == 0, said.err
    for name in ("auto", "amortised", "hmc, for a reference"):
        assert f"{name}: " in said.err

    data = pg.data.load("iris", standardise=True)
    told = pg.compare_engines(
        PPCA(data.shape), data, ["auto", "amortised"], rows=3, draws=50, epochs=3
    )

    assert figures(said.out) == figures(told.to_json())


def test_a_mixture_is_climbed_by_em_whatever_the_settings_of_gradients(command: Command) -> None:
    mixture = ("--components", "2", "--covariance", "spherical", "--assignment", "amortised")
    said = command("compare", "gmm", *FIT, *mixture, "--engines=em", "--learning-rate", "0.1")
    assert said.status == 0, said.err
    assert "'em' gives a point and no posterior" in said.out
    assert "There are no distances: 'assignment' is discrete" in said.out


def test_a_story_file_is_fitted_by_several_engines(command: Command, rows_csv: Path) -> None:
    """One that says its model alone has Pyro's autoguide for its own."""
    Path("mean.py").write_text(STORY.replace("EVENT", "pass"))
    said = command(
        *("compare", "mean.py", "--data", rows_csv, "--target", "kind", "--epochs", "300"),
        *("--engines", "amortised,em,nuts", "--draws", "100", "--warmup", "50", "--quiet"),
    )
    assert said.status == 0, said.err
    assert said.err == ""
    assert "comparison of 3 engines" in said.out
    assert "'amortised' is nearest to nuts" in said.out
    assert "'em' was not run: the story has no statistics()" in said.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("gmm", "--engines", "em,foo", *FIT), "engines must be among amortised, auto, em, nuts"),
        (("--engines", "em"), "name a story before its options, one of ppl-gen's or a .py file"),
        (("--engines", "em", "--data", "iris", "gmm"), "name a story before its options"),
        (("--engines", "em", "gm"), "name a story before its options, one of ppl-gen's or a .py"),
        (("gmm", "--engines"), "--engines must have names, as in --engines em,nuts"),
        (("gmm", "--engines", "--data", "iris"), "--engines must have names"),
        (("gmm", "--engines", "em"), "gmm needs data: name them, as in: ppl-gen compare gmm"),
        (("gmm", "--engines", "em", "--vary", "components=1:2"), "--vary and --engines compare"),
        (("gmm", "--engines", "em", *FIT, "--rows", "0"), "rows must be at least 1, got 0"),
        (("none.py", "--engines", "em", *FIT), "there is no story file 'none.py'"),
    ],
)
def test_mistakes_are_named(command: Command, arguments: tuple[str, ...], sentence: str) -> None:
    said = command("compare", *arguments)
    assert said.status == 2
    assert said.complaint.startswith(sentence)


def test_the_help_says_what_engines_there_are(command: Command) -> None:
    said = command("compare", "gmm", "--engines", "em", "--help")
    assert said.status == 0
    for word in ("amortised", "auto:AutoMultivariateNormal", "--warmup", "--components"):
        assert word in said.out
    assert "--method" not in said.out
    assert "--engines em,nuts,auto,amortised" in command("compare", "--help").out
