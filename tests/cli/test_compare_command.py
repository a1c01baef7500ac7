"""``ppl-gen compare``: it fits what is varied, ranks runs as Python does, and loses none."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_support import Command

import ppl_gen as pg
from ppl_gen.models import PPCA

FIT = ("--data", "wine", "--standardise", "--epochs", "3")


@pytest.fixture
def varied(command: Command) -> dict[str, Any]:
    """What is printed of three fits in runs/compare-ppca-wine."""
    said = command("compare", "ppca", *FIT, "--vary", "latent=1:3", "--draws", "40", "--json")
    assert said.status == 0, said.err
    return json.loads(said.out)


def test_an_option_is_varied_as_python_would(varied: dict[str, Any]) -> None:
    data = pg.data.load("wine", standardise=True)
    runs = {
        f"latent-{latent}": pg.fit(PPCA(data.shape, latent), data, epochs=3, progress=False)
        for latent in (1, 2, 3)
    }
    found = json.loads(pg.compare(runs, data, draws=40).to_json())
    for comparison in (varied, found):
        for candidate in comparison["candidates"]:
            assert candidate.pop("seconds") > 0
    assert varied == found


def test_every_fit_becomes_a_run_and_runs_compare_alike(
    command: Command, varied: dict[str, Any]
) -> None:
    runs = [Path("runs", "compare-ppca-wine", f"latent-{latent}") for latent in (1, 2, 3)]

    said = command("compare", *runs, "--draws", "40", "--json")

    assert json.loads(said.out) == varied
    assert said.err == "comparing on the valid part of 'wine': 27 rows\n"
    table = command("compare", *runs, "--draws", "40", "--part", "test")
    best = json.loads(command("compare", *runs, "--draws", "40", "--part", "test", "--json").out)
    assert "comparison of 3 runs  (27 rows, 40 draws each; nats a row)" in table.out
    recommended = Path("runs", "compare-ppca-wine", best["recommended"])
    assert table.out.endswith(f"next: ppl-gen report {recommended}\n")
    assert "verdict: " in command("check", recommended, "--draws", "20").out


def test_runs_are_replaced_only_if_that_is_asked_for(command: Command) -> None:
    """It is found out before anything is fitted."""
    options = ("compare", "ppca", *FIT, "--draws", "5", "--out", "k", "--quiet")
    assert command(*options, "--vary", "latent=2,3").status == 0
    written = Path("k", "latent-2", "run.json").stat().st_mtime_ns

    refused = command(*options, "--vary", "latent=1:2")
    assert refused.status == 2
    assert "'k/latent-2' already holds a run" in refused.complaint
    assert not Path("k", "latent-1").exists()
    assert command(*options, "--vary", "latent=1:2", "--overwrite").status == 0
    assert Path("k", "latent-2", "run.json").stat().st_mtime_ns > written
    inside = command(*options[:-2], "k/latent-2", "--vary", "latent=1:2")
    assert "'k/latent-2' is a run itself" in inside.complaint


def test_options_of_the_fit_and_values_of_several_words_can_be_varied(command: Command) -> None:
    """Restarts, and layers: the words of a value are those of a command line."""
    said = command("compare", "ppca", *FIT, "--vary", "seed=0:1", "--draws", "5")
    assert said.status == 0
    assert pg.load("runs/compare-ppca-wine/seed-1").settings.seed == 1
    lines = [line for line in said.err.splitlines() if "3 epochs in" in line]
    assert [line.split(":")[0] for line in lines] == [
        "runs/compare-ppca-wine/seed-0",
        "runs/compare-ppca-wine/seed-1",
    ]
    layers = ("--vary", "hidden=4 4,8", "--draws", "5", "--out", "layers")
    assert command("compare", "vae", *FIT, *layers).status == 0
    assert pg.load("layers/hidden-4_4").story.encoder.configuration["arguments"]["hidden"] == [4, 4]


def test_a_value_that_cannot_be_fitted_is_left_out(command: Command) -> None:
    said = command("compare", "ppca", *FIT, "--vary", "latent=0:2", "--draws", "5")
    assert said.status == 0
    assert "latent-0 is left out: ppca cannot be built: latent must be at least 1" in said.err
    assert "comparison of 2 runs" in said.out
    refused = command("compare", "ppca", *FIT, "--vary", "latent=-1:1", "--out", "b")
    assert refused.complaint.startswith("ppca cannot be built: latent must be at least 1")


def test_a_story_of_vectors_and_one_of_images_are_compared(command: Command) -> None:
    """Whichever comes first decides how the rows are read."""
    fit = ("--data", "digits", "--quiet", "--epochs", "1")
    vae = ("--latent", "2", "--hidden", "8", "--likelihood", "gaussian")
    assert command("fit", "vae", *fit, *vae, "--out", "images").status == 0
    assert command("fit", "ppca", *fit, "--out", "vectors").status == 0
    found = [
        json.loads(command("compare", *runs, "--draws", "5", "--json").out)["candidates"]
        for runs in (("images", "vectors"), ("vectors", "images"))
    ]
    assert found[0] == found[1]
    assert {candidate["name"] for candidate in found[0]} == {"images", "vectors"}


@pytest.mark.parametrize(
    ("vary", "sentence"),
    [
        ("latnt=1:3", "ppca has no option 'latnt' to vary: did you mean latent?"),
        ("latent", "vary must be an option and at least two values, as in latent=1:6"),
        ("latent=3:1", "vary must be an option and at least two values"),
        ("latent=2,,3", "vary must be an option and at least two values"),
        ("latent=2,3,2", "vary must be values that differ, got 'latent=2,3,2'"),
        ("latent=1:1000000", "vary must be at most 1000 values"),
        ("epochs=1,2", "epochs is varied: leave out --epochs"),
    ],
)
def test_what_cannot_be_varied_is_named(command: Command, vary: str, sentence: str) -> None:
    said = command("compare", "ppca", *FIT, "--vary", vary)
    assert said.status == 2
    assert said.complaint.startswith(sentence)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("a",), "runs must be at least two different ones to compare, got a"),
        (("a", "a"), "runs must be at least two different ones to compare, got a a"),
        (("a", "b"), "there is no run at 'a'"),
        (("pcca", "--vary", "latent=1:2"), "got 'pcca': did you mean ppca?"),
        (("ppca", "--vary", "latent=1:2"), "ppca needs data: name them, as in: ppl-gen compare"),
    ],
)
def test_what_is_missing_is_named(
    command: Command, arguments: tuple[str, ...], sentence: str
) -> None:
    said = command("compare", *arguments)
    assert said.status == 2
    assert sentence in said.complaint


def test_commas_inside_brackets_belong_to_a_value() -> None:
    from ppl_gen.cli.comparing import _values

    asked = "prior=standard-normal, mixture(components=3, scale=2)"
    assert _values(asked, "vae", ["prior"])[1] == [
        "standard-normal",
        "mixture(components=3, scale=2)",
    ]
