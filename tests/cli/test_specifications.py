"""Dotted options: what ``--prior.components 5`` says, and what is said of it."""

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import SMALL, Command

import ppl_gen as pg
from ppl_gen.cli.fitting import all_groups, chosen_by_data
from ppl_gen.cli.options import options_of
from ppl_gen.cli.specifications import folded, specified
from ppl_gen.errors import StoryError
from ppl_gen.models import STORIES

KNOWN = {"prior": "standard-normal", "likelihood": None, "network": "mlp", "scale_prior": None}
WINE = ("--data", "wine", "--standardise")

FOLDED: dict[str, tuple[list[str], list[str]]] = {
    "two words": (
        ["--prior", "mixture", "--prior.components", "5"],
        ["--prior", "mixture(components=5)"],
    ),
    "one word": (
        ["--prior=mixture", "--prior.components=5"],
        ["--prior", "mixture(components=5)"],
    ),
    "before what it belongs to": (
        ["--prior.df", "5", "--seed", "1", "--prior", "student-t"],
        ["--seed", "1", "--prior", "student-t(df=5)"],
    ),
    "beside brackets": (
        ["--prior", "laplace(scale=2)", "--prior.radius", "shared", "--prior.learned", "true"],
        ["--prior", "laplace(scale=2, radius='shared', learned=True)"],
    ),
    "a word with a dash": (
        ["--likelihood", "gaussian", "--likelihood.scale", "per-pixel"],
        ["--likelihood", "gaussian(scale='per-pixel')"],
    ),
    "a word in quotes": (
        ["--likelihood", "gaussian", "--likelihood.scale", "'per-pixel'"],
        ["--likelihood", "gaussian(scale='per-pixel')"],
    ),
    "quotes and brackets in a word": (
        ["--likelihood", "gaussian", "--likelihood.scale", "it's) # so"],
        ["--likelihood", 'gaussian(scale="it\'s) # so")'],
    ),
    "a negative number": (
        ["--prior", "uniform", "--prior.low", "-2.5", "--prior.high", "1e1"],
        ["--prior", "uniform(low=-2.5, high=10.0)"],
    ),
    "several numbers": (
        ["--network.hidden", "64, 32"],
        ["--network", "mlp(hidden=(64, 32))"],
    ),
    "a name with a dash": (
        ["--scale_prior", "half-normal", "--scale-prior.scale", "2"],
        ["--scale_prior", "half-normal(scale=2)"],
    ),
    "the last of two": (
        ["--prior", "flower", "--prior", "mixture", "--prior.components", "5"],
        ["--prior", "flower", "--prior", "mixture(components=5)"],
    ),
    "a name for the story to refuse": (
        ["--prior", "mixtur", "--prior.components", "5"],
        ["--prior", "mixtur"],
    ),
    "no specification": (
        ["--latent.size", "5", "--prior.a.b", "2", "a.b", "--out", "runs/x.y"],
        ["--latent.size", "5", "--prior.a.b", "2", "a.b", "--out", "runs/x.y"],
    ),
}


@pytest.mark.parametrize("kind", FOLDED)
def test_dotted_options_become_brackets(kind: str) -> None:
    given, expected = FOLDED[kind]
    assert folded(given, KNOWN) == expected


def test_a_value_arrives_as_python_would_read_it() -> None:
    """Whatever a string holds: it is put into brackets, and comes out of them as it was."""
    for text in ("5", "-1e-3", "(1, 2)", "True", "None", "a b", "a'b", 'a"b', "a,b)", "#", "\\n"):
        _, spec = folded(["--likelihood", "gaussian", f"--likelihood.scale={text}"], KNOWN)
        value = ast.literal_eval(spec.removeprefix("gaussian(scale=").removesuffix(")"))
        try:
            assert value == ast.literal_eval(text)
        except (SyntaxError, ValueError):
            assert value == text


MISTAKES = {
    "no value": (
        ["--prior", "mixture", "--prior.components"],
        "--prior.components must have a value: give it, as in --prior.components=VALUE",
    ),
    "an option for a value": (
        ["--prior", "mixture", "--prior.components", "--seed", "1"],
        "--prior.components must have a value: give it, as in --prior.components=VALUE",
    ),
    "an empty value": (
        ["--prior", "mixture", "--prior.components="],
        "--prior.components must have a value: give it, as in --prior.components=VALUE",
    ),
    "a slip": (
        ["--prior", "mixture", "--prior.componets", "5"],
        "the prior mixture does not take 'componets': did you mean components?",
    ),
    "of another": (
        ["--prior", "uniform", "--prior.components", "5"],
        "the prior uniform does not take 'components': there are low, high",
    ),
    "a size that the story knows": (
        ["--prior", "uniform", "--prior.features", "5"],
        "the prior uniform does not take 'features': there are low, high",
    ),
    "of one that takes none": (
        ["--prior", "standard-normal", "--prior.components", "5"],
        "the prior standard-normal does not take 'components': name one that does, as in "
        "--prior mixture",
    ),
    "of the default": (
        ["--prior.components", "5"],
        "the prior standard-normal, the default, does not take 'components': name one that does, "
        "as in --prior mixture",
    ),
    "of one that nobody has": (
        ["--prior.petls", "5"],
        "the prior standard-normal, the default, does not take 'petls': it takes no arguments",
    ),
    "of none": (
        ["--likelihood.scale", "per-pixel"],
        "--likelihood.scale must go with --likelihood: name one that takes it, as in "
        "--likelihood gaussian",
    ),
    "of none, a slip": (
        ["--likelihood.scle", "per-pixel"],
        "no likelihood takes 'scle': did you mean scale?",
    ),
    "twice": (
        ["--prior", "mixture", "--prior.components", "5", "--prior.components=6"],
        "--prior.components is given twice: leave one out",
    ),
    "in brackets as well": (
        ["--prior", "mixture(components=5)", "--prior.components", "6"],
        "components is given twice, by --prior.components and in 'mixture(components=5)': "
        "leave one out",
    ),
    "brackets that stay open": (
        ["--prior", "mixture(components", "--prior.components", "6"],
        "prior must be a name or name(argument=value, ...), got 'mixture(components'",
    ),
    "a word for a truth value": (
        ["--prior", "normal", "--prior.learned", "no"],
        "--prior.learned must be True or False, got 'no'",
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_sentence(kind: str) -> None:
    given, sentence = MISTAKES[kind]
    with pytest.raises(StoryError) as caught:
        folded(given, KNOWN)
    assert str(caught.value).startswith(sentence)


def specified_of(name: str) -> dict[str, str | None]:
    options = options_of(STORIES[name], hints=dict.fromkeys(chosen_by_data(name), "by the data"))
    return specified(*all_groups({name: options}).values())


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("vae", {"prior", "likelihood", "posterior", "network"}),
        ("cvae", {"prior", "likelihood", "posterior", "network", "condition"}),
        ("autoencoder", {"likelihood", "network"}),
        ("gmm", {"loc_prior", "scale_prior", "covariance_prior", "df_prior"}),
        ("ppca", set()),
    ],
)
def test_options_whose_values_are_specifications_are_known(name: str, names: set[str]) -> None:
    """The posterior of a mixture is none: map, or the name of an autoguide."""
    assert specified_of(name).keys() == names | {"optimizer", "mask"}


def test_dotted_options_fit_the_story_that_brackets_fit(command: Command) -> None:
    fit = ("fit", "vae", *WINE, *SMALL, "--quiet")
    brackets = ("--prior", "mixture(components=3)", "--likelihood", "gaussian(scale='per-pixel')")
    dots = ("--prior", "mixture", "--prior.components=3", "--likelihood.scale", "per-pixel")
    optimizer = ("--optimizer", "sgd(momentum=0.5)"), ("--optimizer.momentum", "0.5")

    assert command(*fit, *brackets, *optimizer[0], "--out", "a").status == 0
    more = ("--likelihood", "gaussian", "--optimizer", "sgd")
    assert command(*fit, *dots, *optimizer[1], *more, "--out", "b").status == 0

    records = [json.loads(Path(run, "run.json").read_text()) for run in ("a", "b")]
    assert records[0]["story"] == records[1]["story"]
    assert records[0]["settings"] == records[1]["settings"]
    weights = [Path(run, "weights.safetensors").read_bytes() for run in ("a", "b")]
    assert weights[0] == weights[1]


def test_masks_and_conditions_take_them_too(command: Command) -> None:
    data = ("--data", "digits", "--mask", "quadrants", "--mask.seen", "1")
    assert command("fit", "cvae", *data, *SMALL, "--epochs", "1", "--out", "a").status == 0
    source = json.loads(Path("a", "run.json").read_text())["data"]["source"]
    assert source["mask"] == "quadrants(seen=1)"


def test_a_mistake_ends_before_anything_is_read(command: Command) -> None:
    said = command("fit", "vae", *WINE, "--prior", "mixture", "--prior.componets", "3")
    assert said.status == 2
    assert said.complaint.endswith("did you mean components?")
    assert list(Path.cwd().iterdir()) == []


def _components(run: str) -> int:
    return pg.load(run).story.prior.arguments["components"]


def _scale(run: str) -> float:
    return pg.load(run).story.prior.arguments["scale"]


@pytest.mark.parametrize(
    ("options", "read", "found"),
    [
        (
            ("--prior", "mixture", "--vary", "prior.components=2,4"),
            _components,
            {"prior.components-2": 2, "prior.components-4": 4},
        ),
        (
            ("--vary", "prior=normal,laplace", "--prior.scale", "2"),
            _scale,
            {"prior-normal": 2, "prior-laplace": 2},
        ),
        (
            ("--prior", "mixture", "--prior.components", "3", "--vary", "seed=0:1"),
            _components,
            {"seed-0": 3, "seed-1": 3},
        ),
    ],
)
def test_an_argument_of_a_part_is_varied_or_kept(
    command: Command,
    options: tuple[str, ...],
    read: Callable[[str], float],
    found: dict[str, float],
) -> None:
    fit = ("compare", "vae", *WINE, *SMALL, "--draws", "5", "--out", "runs")
    assert command(*fit, *options).status == 0
    assert {name: read(f"runs/{name}") for name in found} == found


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--vary", "latent.x=1,2"), "vae has no option 'latent.x' to vary: did you mean latent?"),
        (("--vary", "prior.components=2,3"), "the prior standard-normal, the default, does not"),
        (
            ("--vary", "prior.components=2,3", "--prior", "mixture", "--prior.components", "3"),
            "prior.components is varied: leave out --prior.components",
        ),
        (("--vary", "prior=mixture,uniform", "--prior.components", "3"), "the prior uniform does"),
    ],
)
def test_what_cannot_be_varied_is_named(
    command: Command, options: tuple[str, ...], sentence: str
) -> None:
    said = command("compare", "vae", *WINE, *options)
    assert said.status == 2
    assert said.complaint.startswith(sentence)
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", STORIES)
def test_the_help_of_fit_shows_the_form_once(name: str, command: Command) -> None:
    said = command("fit", name, "--help")
    assert said.out.count("as options with a dot") == 1
    example = "prior mixture --prior.components 50"
    assert (example in said.out) is ("prior" in specified_of(name))
