"""Engines that find the exact posterior agree; those that do not are told by how much."""

import json
import math
from typing import Any

import programs
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import ppl_gen as pg
from ppl_gen.models import GMM, PPCA

FAST: dict[str, Any] = {"draws": 400, "warmup": 100, "learning_rate": 0.02}
AS_IT_IS: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-12}
X = 1 + torch.randn(40, generator=torch.Generator().manual_seed(0))


def mean_model(x: Tensor) -> None:
    """A mean that all rows share: its posterior is N(sum x / (n + 1/4), 1 / (n + 1/4))."""
    m = pyro.sample("m", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(m, 1.0), obs=x)


def mean_guide(x: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(0.3), constraint=constraints.positive)
    pyro.sample("m", dist.Normal(loc, scale))


def code_model(x: Tensor) -> None:
    """A code for each row: its posterior is N(x / 2, 1 / 2)."""
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def code_guide(shift: float = 0.0, factor: float = 1.0) -> Any:
    """The exact posterior, moved by so many of its deviations, and stretched."""

    def guide(x: Tensor) -> None:
        moved = pyro.param("moved", torch.tensor(shift))
        scale = math.sqrt(0.5)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + moved * scale, factor * scale))

    return guide


def test_all_engines_find_the_exact_posterior_of_a_mean() -> None:
    told = pg.compare_engines(
        (mean_model, mean_guide), X, ["amortised", "auto", "nuts", "hmc"], epochs=1000, **FAST
    )

    variance = 1 / (1 / 4 + len(X))
    mean, deviation = variance * X.sum().item(), math.sqrt(variance)
    joint = dist.MultivariateNormal(torch.zeros(40), torch.eye(40) + 4.0)
    evidence = joint.log_prob(X).item() / len(X)
    assert told.reference == "nuts"
    assert told.reference_error < 0.15
    for engine in told.engines:
        latent = engine.latents["m"]
        assert latent.mean[0] == pytest.approx(mean, abs=4 * told.reference_error * deviation)
        assert latent.deviation[0] == pytest.approx(deviation, rel=0.2)
        assert engine.distance < 4 * told.reference_error
        if engine.name != "nuts":
            assert engine.evidence == pytest.approx(evidence, abs=5e-3)
    assert told["auto"].elbo == pytest.approx(evidence, abs=5e-3)
    assert math.isnan(told["nuts"].evidence)
    # The likelihood of the mean, spread by its posterior.
    spread = (X - mean).square().mean().item() + variance
    exact = -0.5 * (math.log(2 * math.pi) + spread)
    assert told["hmc"].log_likelihood == pytest.approx(exact, abs=0.01)
    assert told["nuts"].log_likelihood == pytest.approx(exact, abs=0.01)


def test_codes_are_compared_row_by_row_with_their_exact_posteriors() -> None:
    """Every engine is shown the same rows."""
    told = pg.compare_engines(
        (code_model, code_guide()), X, ["amortised", "nuts", "hmc"], rows=4, draws=200, **AS_IT_IS
    )
    fitted = pg.compare_engines((code_model, code_guide()), X, ["auto"], rows=4, epochs=800, **FAST)

    assert told.rows == 4
    exact = torch.tensor(told["amortised"].latents["z"].mean)
    chosen = [float((2 * exact - x).abs().min()) for x in X]
    assert sum(distance < 0.25 for distance in chosen) >= 4
    for engine in (told["nuts"], told["hmc"], fitted["auto"]):
        found = torch.tensor(engine.latents["z"].mean)
        assert (found - exact).abs().max() < 0.25
        assert torch.tensor(engine.latents["z"].deviation).mean() == pytest.approx(
            math.sqrt(0.5), rel=0.15
        )
    assert told["amortised"].elbo == pytest.approx(told["amortised"].evidence, abs=1e-3)
    assert fitted["auto"].evidence == pytest.approx(told["amortised"].evidence, abs=0.02)
    assert told["hmc"].evidence == pytest.approx(told["amortised"].evidence, abs=0.1)


@pytest.mark.parametrize(("shift", "factor"), [(0.5, 1.0), (0.0, 0.5), (-0.5, 1.25)])
def test_a_guide_that_is_off_is_off_by_as_much(shift: float, factor: float) -> None:
    told = pg.compare_engines(
        (code_model, code_guide(shift, factor)), X, ["amortised"], rows=10, **AS_IT_IS
    )

    found = told["amortised"]
    assert told.reference == "hmc"
    assert found.shift[1] == pytest.approx(shift, abs=0.05)
    assert found.stretch[1] == pytest.approx(factor, rel=0.05)
    # Of two normals, by their quantiles.
    u = (torch.arange(2000) + 0.5) / 2000
    exact = (shift + (factor - 1) * dist.Normal(0.0, 1.0).icdf(u)).abs().mean().item()
    assert found.distance == pytest.approx(exact, abs=0.05)


def test_the_chains_of_ppca_agree_with_its_own_guide() -> None:
    """Which holds the exact posterior; the others take the parameters that it was fitted with."""
    generator = torch.Generator().manual_seed(0)
    weight = 2 * torch.randn(4, 2, generator=generator)
    x = torch.randn(100, 2, generator=generator) @ weight.T
    x = x + 0.5 * torch.randn(100, 4, generator=generator)
    engines = ["amortised", "auto", "auto:AutoMultivariateNormal", "em", "nuts"]

    told = pg.compare_engines(PPCA((4,), 2), x, engines, rows=3, epochs=300, batch_size=100, **FAST)

    assert told["amortised"].distance < 0.12
    assert told["amortised"].stretch[1] == pytest.approx(1.0, abs=0.12)
    assert told["auto"].evidence == pytest.approx(told["amortised"].evidence, abs=0.05)
    assert told["auto"].before == told["amortised"].seconds
    assert math.isnan(told["auto:AutoMultivariateNormal"].evidence)
    assert told["em"].reason.startswith("the story has no statistics()")
    said = "\n".join(told.sentences)
    assert "'auto:AutoMultivariateNormal' has no bounds: its guide has one law for all rows" in said
    assert "The seconds of 'nuts' are for 3 rows, not for all 100." in said
    assert "The model has parameters of its own" in said
    assert "'em' was not run: the story has no statistics()" in said


def test_parameters_of_pyros_store_are_held_too() -> None:
    """A guide that is far off calls for noise that an autoguide left to itself would not."""

    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, scale), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(6.0, 0.1))

    told = pg.compare_engines((model, guide), X, ["auto"], rows=40, epochs=300, **FAST)

    run = pg.fit((model, guide), X, epochs=300, learning_rate=0.02, progress=False)
    scale = run.parameters()["scale"]
    exact = dist.Normal(0.0, (1 + scale**2).sqrt()).log_prob(X).mean().item()
    assert scale > 2
    assert told["auto"].before > 0
    assert told["auto"].evidence == pytest.approx(exact, abs=0.03)


def blobs() -> Tensor:
    """Rows about 0 and 6, more of the latter."""
    generator = torch.Generator().manual_seed(0)
    centres = 6.0 * (torch.arange(60) % 3 > 0)
    return (centres + torch.randn(60, generator=generator))[:, None]


def test_engines_agree_on_a_mixture_once_its_labels_are_aligned() -> None:
    """Chains that come from the prior name the components as they like."""
    story = GMM((1,), 2, covariance="spherical", posterior="normal")

    told = pg.compare_engines(
        story,
        blobs(),
        ["em", "nuts", "amortised", "hmc"],
        epochs=500,
        **{**FAST, "draws": 120, "warmup": 50},
    )

    assert told.reference == "nuts"
    assert told["amortised"].distance < 0.25
    assert told["hmc"].distance < 0.25
    locs = [told["em"].latents[f"loc[{k}]"] for k in range(2)]
    assert [loc.deviation for loc in locs] == [[0.0], [0.0]]
    for k, loc in enumerate(locs):
        exact = told["nuts"].latents[f"loc[{k}]"]
        assert loc.mean[0] == pytest.approx(exact.mean[0], abs=0.5 * exact.deviation[0])
        assert math.isnan(loc.wasserstein)
    assert told["em"].log_likelihood > told["nuts"].log_likelihood
    assert "'em' gives a point and no posterior" in "\n".join(told.sentences)


def test_what_does_not_apply_is_a_row_with_its_reason() -> None:
    """Chains cannot walk among whole numbers, so that there is no reference."""
    story = GMM((1,), 2, covariance="spherical", assignment="amortised")

    told = pg.compare_engines(story, blobs(), ["amortised", "nuts"], epochs=5, draws=20)

    assert "'assignment' is discrete" in told["nuts"].reason
    assert told.reference == ""
    assert told.nearest is None
    assert told.fastest is told["amortised"]
    assert any(sentence.startswith("There are no distances") for sentence in told.sentences)


def test_chains_that_would_walk_too_far_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppl_gen.inference.engines.MOST_COORDINATES", 5)
    told = pg.compare_engines((code_model, code_guide()), X, ["nuts"], rows=6, **AS_IT_IS)
    assert told["nuts"].reason.startswith("its chains would walk in 6 coordinates at once")


def test_of_many_rows_an_autoguide_is_fitted_to_those_that_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exact posterior scores each row alike, so that its neighbours make no difference."""
    given: dict[str, Any] = {"rows": 5, "epochs": 600, **FAST}
    whole = pg.compare_engines((code_model, code_guide()), X, ["auto"], **given)["auto"]
    monkeypatch.setattr("ppl_gen.inference.engines.MOST_AT_A_STEP", 10)
    told = pg.compare_engines((code_model, code_guide()), X, ["auto"], **given)

    assert (whole.rows, told["auto"].rows) == (40, 5)
    assert told["auto"].evidence == pytest.approx(whole.evidence, abs=0.02)
    assert "The seconds of 'auto' are for 5 rows, not for all 40." in told.sentences


def test_it_prints_as_a_table_and_as_json() -> None:
    told = pg.compare_engines(
        (code_model, code_guide()), X, ["amortised", "em"], rows=3, **AS_IT_IS
    )

    assert "comparison of 2 engines  (40 rows, 1000 draws each; nats a row" in str(told)
    plain = json.loads(told.to_json())
    assert plain["nearest"] == plain["fastest"] == "amortised"
    assert plain["reference"] == "hmc"
    assert [one["name"] for one in plain["engines"]] == ["amortised", "em"]
    assert plain["engines"][1]["seconds"] is None
    assert plain["engines"][0]["distance"] == told["amortised"].distance
    with pytest.raises(KeyError, match="there is no engine 'nuts'"):
        told["nuts"]


@pytest.mark.parametrize(
    ("engines", "options", "sentence"),
    [
        (["nutz"], {}, "engines must be among amortised, auto, em, nuts, hmc"),
        (["nuts:AutoNormal"], {}, "engines must be among"),
        (["auto:AutoNorml"], {}, "the guide must be one of Pyro's"),
        (["nuts", "nuts"], {}, "engines must be names that differ"),
        ([], {}, "engines must be names that differ, got none"),
        (["nuts"], {"rows": 0}, "rows must be at least 1"),
        (["nuts"], {"draws": 1}, "draws must be at least 4"),
        (["em"], {"method": "em"}, "method must be left out"),
    ],
)
def test_mistakes_are_named(engines: list[str], options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(pg.PplGenError) as error:
        pg.compare_engines((mean_model, mean_guide), X, engines, **options)
    assert str(error.value).startswith(sentence)


def test_data_are_needed_and_a_program_may_not_pick_some() -> None:
    with pytest.raises(pg.DataError, match="data must be given"):
        pg.compare_engines((mean_model, mean_guide), None)
    with pytest.raises(pg.StoryError, match="picks its own mini-batch"):
        pg.compare_engines((programs.subsampled, "AutoNormal"), (programs.X, programs.Y))
