"""``ppl-gen list KIND``: what there is, what it takes and where it comes from."""

import inspect

import pytest
import torch
from cli_support import Command
from pyro.distributions.torch_distribution import TorchDistribution

from ppl_gen.cli import listing
from ppl_gen.cli.listing import source_of
from ppl_gen.data import CATALOGUE
from ppl_gen.likelihoods import LIKELIHOODS
from ppl_gen.models import STORIES, VAE
from ppl_gen.posteriors import POSTERIORS
from ppl_gen.priors import PRIORS, MixturePrior, Prior, StandardNormal

KINDS = {
    "stories": STORIES,
    "data": CATALOGUE,
    "priors": PRIORS,
    "likelihoods": LIKELIHOODS,
    "posteriors": POSTERIORS,
}


def rows_of(table: str) -> dict[str, str]:
    """Each row of a table by the name it begins with, its lines joined."""
    rows: dict[str, str] = {}
    name = ""
    for line in table.splitlines():
        if line[1:2].strip():
            name = line.split()[0]
        rows[name] = " ".join([*rows.get(name, "").split(), *line.split()])
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_names_each_of_it_and_its_arguments(kind: str, command: Command) -> None:
    said = command("list", kind)
    assert said.status == 0
    rows = rows_of(said.out)
    for name, part in KINDS[kind].items():
        assert len(rows[name].split()) > 3
        if kind in ("priors", "likelihoods"):
            takes = set(inspect.signature(part).parameters) - {"features", "shape"}
            assert all(argument in rows[name] for argument in takes)


def test_the_overview_says_how_to_learn_more(command: Command) -> None:
    assert command("list").out.splitlines()[-1].startswith("More of each: ppl-gen list priors")


def test_a_prior_tells_support_density_options_and_source(command: Command) -> None:
    rows = rows_of(command("list", "priors").out)
    assert "real numbers scored components=10" in rows["mixture"]
    assert "https://arxiv.org/abs/1705.07120" in rows["mixture"]
    assert "numbers scored low=-1.0, high=1.0" in rows["uniform"]
    assert "shares of a scored" in rows["logistic-normal"]
    assert "https" not in rows["standard-normal"]


class OfFour(StandardNormal):
    """A law of four features or more."""

    def __init__(self, features: int) -> None:
        if features < 4:
            raise ValueError("features must be at least 4")
        super().__init__(features)


class Told(OfFour):
    """A law of four features or more, whose support is told."""

    scored = False
    support = torch.distributions.constraints.simplex  # type: ignore[assignment]


class NoLaw(Prior):
    """A law of data."""

    def __init__(self, features: int, data: torch.Tensor) -> None:
        super().__init__(features)

    def forward(self) -> TorchDistribution:
        raise NotImplementedError


def test_priors_of_any_sort_are_listed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two features alone do not tell the support, it is left open, or the class tells it."""
    priors = {"of-four": OfFour, "told": Told, "no-law": NoLaw}
    monkeypatch.setattr(listing, "PRIORS", priors)
    rows = rows_of(command("list", "priors").out)
    assert rows["of-four"] == "of-four A law of four features or more. scored"
    assert "shares of a drawn" in rows["told"]
    assert rows["no-law"] == "no-law A law of data. scored data"


def test_a_source_is_the_reference_of_a_docstring() -> None:
    assert source_of(VAE) == "Kingma and Welling (2014), https://arxiv.org/abs/1312.6114"
    assert source_of(MixturePrior).endswith('the "MoG" prior, https://arxiv.org/abs/1705.07120')
    assert source_of(StandardNormal) == ""


def test_an_unknown_kind_is_answered_with_the_nearest(command: Command) -> None:
    said = command("list", "prior")
    assert said.status == 2
    assert said.complaint == "there are no 'prior' to list: did you mean priors?"
