"""Every pair that does not fit together is refused in one sentence that names the site."""

import re
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

import ppl_gen as pg
from ppl_gen.errors import DataError, PplGenError, StoryError
from ppl_gen.inference.pair import as_pair
from ppl_gen.inference.structure import Structure, examine

X = torch.randn(20, generator=torch.Generator().manual_seed(0))


def model(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x: Tensor) -> None:
    pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def misses_one(x: Tensor) -> None:
    pyro.sample("mu", dist.Normal(0.0, 1.0))


def adds_one(x: Tensor) -> None:
    guide(x)
    pyro.sample("extra", dist.Normal(0.0, 1.0))


def samples_the_data(x: Tensor) -> None:
    guide(x)
    with pyro.plate("more", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0))


def other_event(x: Tensor) -> None:
    pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def without_plate(x: Tensor) -> None:
    pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("z", dist.Normal(x, 1.0))


def other_plate(x: Tensor) -> None:
    pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def column(x: Tensor) -> None:
    pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, None], torch.ones(len(x), 1)))


def undeclared(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def pixels(x: Tensor) -> None:
    p = pyro.param("p", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("pixel", dist.Bernoulli(p), obs=x)


def counts(x: Tensor) -> None:
    rate = pyro.param("rate", torch.ones(2))
    with pyro.plate("data", len(x)):
        pyro.sample("counts", dist.Poisson(rate).to_event(1), obs=x)


def outside_the_prior(x: Tensor) -> None:
    pyro.sample("scale", dist.Normal(pyro.param("loc", torch.tensor(-9.0)), 0.01))


def positive(x: Tensor) -> None:
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, scale.abs()), obs=x)


def plate_of_another_size(x: Tensor, rows: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 50, subsample=rows):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def raises(x: Tensor) -> None:
    raise LookupError("no such thing")  # this very line is named


def raises_in_the_guide(x: Tensor) -> None:
    _deep(x)


def _deep(x: Tensor) -> None:
    torch.zeros(3).dot(torch.zeros(4))  # and so is this


def of_another_shape(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(3))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def without_parameters(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def just_mu(*batch: Tensor) -> None:
    pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))


def nothing(x: Tensor) -> None:
    """No latents."""


def line_of(program: Callable[..., Any]) -> str:
    return rf"\(test_structure.py, line {program.__code__.co_firstlineno + 1}\)"


GREY = torch.full((20,), 255.0)

BAD: dict[str, tuple[Any, Any, str]] = {
    "the guide misses a site": ((model, misses_one), X, "the guide misses the latent site 'z'"),
    "the guide adds a site": ((model, adds_one), X, "the guide adds the site 'extra'"),
    "the guide samples the data": ((model, samples_the_data), X, "adds the site 'x'.*observes it"),
    "event shapes disagree": (
        (model, other_event),
        X,
        r"site 'mu' must have event shape \(\), as in the model, got \(2,\)",
    ),
    "the guide has no plate": (
        (model, without_plate),
        X,
        r"site 'z' must be in the plates \['data'\], as in the model, got \[\]",
    ),
    "the guide has another plate": (
        (model, other_plate),
        X,
        r"site 'z' must be in the plates \['data'\], as in the model, got \['rows'\]",
    ),
    "batch shapes disagree": (
        (model, column),
        X,
        r"site 'z' must have batch shape \(20,\).*got \(20, 20\)",
    ),
    "no plate at all": ((undeclared, just_mu), X, r"site 'x'.*no plate declares dimension -1"),
    "grey pixels": (
        (pixels, nothing),
        GREY,
        "site 'pixel' is Bernoulli and takes 0 or 1, but 20 of 20 values lie outside, the first "
        "is 255",
    ),
    "fractions as counts": (
        (counts, nothing),
        torch.full((20, 2), 0.5),
        "site 'counts' is Poisson and takes whole numbers from 0",
    ),
    "the guide leaves the prior": (
        (positive, outside_the_prior),
        X,
        "site 'scale' is HalfNormal.*the first is -[89].*let the guide draw from the prior",
    ),
    "a plate of another size": (
        (plate_of_another_size, just_mu),
        (X, torch.arange(20)),
        "plate 'data' must have the size of the data, 20, got 50",
    ),
    "the model raises": (
        (raises, nothing),
        X,
        f"the model raised LookupError {line_of(raises)}: no such thing",
    ),
    "the guide raises": (
        (model, raises_in_the_guide),
        X,
        f"the guide raised RuntimeError {line_of(_deep)}",
    ),
    "data of another shape": (
        (of_another_shape, nothing),
        torch.zeros(20, 4),
        r"site 'x' of the model expects values of shape \(3,\), got \(4,\)",
    ),
    "nothing to fit": ((without_parameters, nothing), X, "neither model nor guide has a parameter"),
}


@pytest.mark.parametrize(("story", "data", "sentence"), BAD.values(), ids=BAD)
def test_a_pair_that_does_not_fit_is_refused_in_one_sentence(
    story: Any, data: Any, sentence: str
) -> None:
    with pytest.raises(StoryError, match=sentence) as caught:
        pg.fit(story, data, epochs=1, progress=False)
    assert "\n" not in str(caught.value)


NO_STORY: dict[str, tuple[Any, str]] = {
    "a number": (3, "must have .model and .guide"),
    "a model alone": (model, "let Pyro write the guide"),
    "a guide that is none": ((model, 3), "the guide must be callable, got int"),
    "a model that is none": (("model", guide), "the model must be callable, got str"),
    "an unknown autoguide": ((model, "AutoMagic"), "AutoNormal.*got 'AutoMagic'"),
}


@pytest.mark.parametrize(("story", "sentence"), NO_STORY.values(), ids=NO_STORY)
def test_what_is_no_story_is_refused(story: Any, sentence: str) -> None:
    with pytest.raises(StoryError, match=sentence):
        pg.fit(story, X, epochs=1, progress=False)


def picks_its_own(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), subsample_size=5) as rows:
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x[rows])


def as_one_event(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(mu, 1.0).expand([len(x)]).to_event(1), obs=x)


SIZES: dict[str, tuple[Any, int, str]] = {
    "larger than the data": ((model, guide), 21, "at most the number of data, 20, got 21"),
    "beside its own subsample": ((picks_its_own, just_mu), 5, "must be left out or 20, got 5"),
    "without a plate": ((as_one_event, just_mu), 5, "no plate of the model has the size"),
    "beside an autoguide of local latents": ((model, AutoNormal), 5, "left out or 20, got 5"),
}


@pytest.mark.parametrize(("story", "batch_size", "sentence"), SIZES.values(), ids=SIZES)
def test_a_batch_size_that_cannot_be_is_refused(story: Any, batch_size: int, sentence: str) -> None:
    with pytest.raises((StoryError, DataError), match=sentence):
        pg.fit(story, X, batch_size=batch_size, epochs=1, progress=False)


def test_grey_pixels_are_taken_by_a_program_that_asks_for_no_validation() -> None:
    """As Pyro's own examples do, also where ``to_event`` stands around the law."""

    def grey(x: Tensor) -> None:
        logits = pyro.param("logits", torch.zeros(3))
        with pyro.plate("data", len(x)):
            law = dist.Bernoulli(logits=logits, validate_args=False).to_event(1)
            pyro.sample("pixel", law, obs=x)

    x = torch.full((20, 3), 0.25)
    run = pg.fit((grey, nothing), x, epochs=300, learning_rate=0.1, progress=False)
    assert run.parameters()["logits"].sigmoid().tolist() == pytest.approx([0.25] * 3, abs=0.01)


def test_an_analytic_kl_that_is_infinite_is_not_taken() -> None:
    """The normal reaches beyond the uniform, its draws do not: Pyro's own tutorial does this."""

    def uniform(x: Tensor) -> None:
        scale = pyro.sample("scale", dist.Uniform(0.0, 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, scale), obs=x)

    def normal(x: Tensor) -> None:
        pyro.sample("scale", dist.Normal(pyro.param("loc", torch.tensor(2.0)), 0.05))

    run = pg.fit((uniform, normal), X, epochs=200, learning_rate=0.05, progress=False)
    exact = X.square().mean().sqrt().item()
    assert run.parameters()["loc"].item() == pytest.approx(exact, abs=0.1)


def structure_of(story: Any, *batch: Tensor, **kwargs: Any) -> Structure:
    pair = as_pair(story)
    size = len(batch[0])
    with pair.active():
        return examine(pair, lambda rows: tuple(c[:rows] for c in batch), size, size, kwargs)


def nested(x: Tensor) -> None:
    """Two plates, a global vector, a site of one's own making and a discrete one."""
    pyro.sample("weights", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(x), dim=-2):
        k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        pyro.deterministic("twice", 2 * k)
        with pyro.plate("columns", 4, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + k, 1.0), obs=x)


def nested_guide(x: Tensor) -> None:
    pyro.sample("weights", dist.Delta(torch.zeros(3), event_dim=1))
    with pyro.plate("rows", len(x), dim=-2), pyro.plate("columns", 4, dim=-1):
        pyro.sample("z", dist.Normal(x, 1.0))


def test_sites_and_plates_are_found_by_running_the_programs() -> None:
    found = structure_of((nested, nested_guide), torch.zeros(6, 4))
    assert found.batch_plates == found.data_plates == {"rows"}
    assert (found.nesting, found.enumerated, found.elements) == (2, True, 4.0)
    assert not found.subsamples
    assert not found.keeps_rows
    assert found.takes_batches
    assert [s.name for s in found.latents] == ["weights", "k", "z"]
    assert [s.name for s in found.observed] == ["x"]
    plates = {name: site.plates for name, site in found.sites.items()}
    assert plates["weights"] == ()
    assert plates["k"] == ("rows",)
    assert plates["z"] == plates["x"] == ("rows", "columns")
    marked = {
        mark: {name for name, site in found.sites.items() if getattr(site, mark)}
        for mark in ("local", "summed", "point", "derived")
    }
    assert marked["local"] == {"k", "twice", "z", "x"}
    assert marked["summed"] == {"k"}
    assert marked["point"] == {"weights"}
    assert marked["derived"] == {"twice"}


def test_a_plate_that_only_looks_like_the_batch_is_not_one() -> None:
    """As many components as there are rows."""

    def components(x: Tensor) -> None:
        pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("components", 20):
            pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    found = structure_of((components, AutoNormal(components)), X)
    assert found.data_plates == {"data"}
    assert not found.sites["mu"].local


@pytest.mark.filterwarnings("ignore:The law of 'x' is made of the very numbers")
def test_looking_at_a_pair_leaves_no_trace_on_it() -> None:
    """Not on buffers, parameters, or autoguides."""
    norm = nn.BatchNorm1d(2)

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.norm(x), 1.0).to_event(1), obs=x)

    pg.fit((Normed(), nothing), torch.randn(20, 2), epochs=1, progress=False)
    assert norm.num_batches_tracked == 0
    assert norm.running_mean is not None
    assert norm.running_mean.eq(0).all()


def test_a_posterior_that_fits_no_table_is_refused_in_one_sentence() -> None:
    """A loop over a random subset has other sites every time; and rows may have their own."""

    def loop(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        for i in pyro.plate("data", len(x), subsample_size=5):
            pyro.sample(f"x_{i}", dist.Normal(mu, 1.0), obs=x[i])

    def uneven(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            for t in range(int(x.max())):
                pyro.sample(f"x_{t}", dist.Normal(mu, 1.0), obs=x)

    run = pg.fit((loop, just_mu), X, epochs=1, progress=False)
    with pytest.raises(PplGenError, match=r"the plate that picks its mini-batch.*'data'"):
        run.posterior(X, draws=2)
    run = pg.fit((uneven, just_mu), torch.arange(20.0), epochs=1, progress=False)
    with pytest.raises(PplGenError, match=re.escape("site 'x_3' is there for some data")):
        run.posterior(torch.arange(4.0), draws=2)


def test_rows_taken_for_one_value_are_named() -> None:
    """One .to_event too many would count the whole batch for every row."""

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).expand([len(x), 2]).to_event(2), obs=x)

    with pytest.raises(pg.StoryError, match=r"'x' takes the 9 rows of plate 'rows' for one value"):
        pg.fit((model, lambda x: None), torch.zeros(9, 2), epochs=1, progress=False)
