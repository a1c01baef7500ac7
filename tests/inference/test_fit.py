"""Fitting reaches known answers, repeats itself to the bit, and leaves the world as it was."""

import math
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.data import Part
from ppl_gen.inference.batches import Batches
from ppl_gen.inference.settings import Settings
from ppl_gen.models import PPCA, VAE, AutoEncoder


def linear_data(rows: int = 500, features: int = 5, latent: int = 2) -> Tensor:
    """Rows of a linear-Gaussian story."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(features, latent, generator=generator)
    code = torch.randn(rows, latent, generator=generator)
    return code @ weight.T + 0.5 * torch.randn(rows, features, generator=generator)


@pytest.mark.parametrize("batch_size", [500, 100])
def test_ppca_by_svi_reaches_its_closed_form_evidence(batch_size: int) -> None:
    """The maximum is known (Tipping and Bishop 1999): within 0.01 nats a datum of it."""
    x = linear_data()
    best = PPCA.maximum_likelihood(x, 2).log_evidence(x).mean().item()

    run = pg.fit(
        PPCA((5,), latent=2),
        x,
        epochs=800 * batch_size // 500,
        batch_size=batch_size,
        learning_rate=0.03,
        schedule="cosine",
        progress=False,
    )

    assert run.story.log_evidence(x).mean().item() == pytest.approx(best, abs=0.01)
    assert run.evidence(x, draws=100).elbo.mean().item() == pytest.approx(best, abs=0.01)


def test_the_same_seed_gives_the_same_bits() -> None:
    """Weights and history, whatever torch's generator held before."""
    x = linear_data(200)
    story = VAE((5,), latent=2, hidden=(8,))

    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        runs.append(pg.fit(story, x, epochs=3, batch_size=64, seed=7, progress=False))

    first, second = (run.pair.state() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert runs[0].history["elbo"] == runs[1].history["elbo"]


def test_another_seed_gives_other_weights() -> None:
    x = linear_data(50)
    runs = [pg.fit(VAE((5,)), x, epochs=1, seed=seed, progress=False) for seed in (0, 1)]

    assert runs[0].history["elbo"] != runs[1].history["elbo"]


def test_the_story_given_is_not_changed() -> None:
    story = PPCA((5,), latent=2)
    before = {name: value.clone() for name, value in story.state_dict().items()}

    run = pg.fit(story, linear_data(50), epochs=3, progress=False)

    assert run.story is not story
    assert all(torch.equal(before[name], value) for name, value in story.state_dict().items())


def test_a_warm_start_goes_on_from_the_weights_it_is_given() -> None:
    x = linear_data()
    exact = PPCA.maximum_likelihood(x, 2)

    run = pg.fit(exact, x, epochs=1, learning_rate=1e-9, warm_start=True, progress=False)

    assert_close(run.story.weight, exact.weight)


def test_the_elbo_is_reconstruction_less_kl_and_bits_follow_from_it() -> None:
    run = pg.fit(VAE((5,), latent=2), linear_data(100), epochs=2, progress=False)

    for epoch in run.history:
        assert epoch.elbo == pytest.approx(epoch.reconstruction - epoch.kl, rel=1e-6)
        assert epoch.bits_per_dim == pytest.approx(-epoch.elbo / (5 * math.log(2)))
        assert epoch.kl > 0


def test_the_elbo_shown_is_unweighted_whatever_the_weight() -> None:
    """With an untrainable step, every weight of the KL shows one and the same ELBO."""
    x = linear_data(100)
    shown = [
        pg.fit(
            VAE((5,), latent=2), x, epochs=1, batch_size=100, kl_weight=weight, progress=False
        ).history[0]
        for weight in (1.0, 0.25)
    ]

    assert shown[0].elbo == pytest.approx(shown[1].elbo, rel=1e-5)
    assert shown[0].kl == pytest.approx(shown[1].kl, rel=1e-3)


def test_a_small_kl_weight_lets_the_code_say_more() -> None:
    x = linear_data()
    kl = [
        pg.fit(
            VAE((5,), latent=2), x, epochs=30, kl_weight=weight, learning_rate=5e-3, progress=False
        ).history["kl"][-1]
        for weight in (0.1, 4.0)
    ]

    assert kl[0] > kl[1] + 0.5


def test_free_bits_keep_the_code_from_collapsing() -> None:
    """Pure noise teaches a code nothing; two free nats are then taken all the same."""
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    options = {"epochs": 60, "learning_rate": 5e-3, "progress": False}
    plain = pg.fit(VAE((5,), latent=2), x, **options)
    free = pg.fit(VAE((5,), latent=2), x, free_bits=2.0, **options)

    assert plain.history["kl"][-1] < 0.5
    assert 1.5 < free.history["kl"][-1] < 2.4


def test_the_kl_warms_up_over_the_epochs_it_is_given() -> None:
    run = pg.fit(VAE((5,)), linear_data(50), epochs=5, kl_warmup=3, progress=False)

    assert run.history["kl_weight"] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_early_stopping_waits_for_the_warm_up_and_keeps_the_best_weights() -> None:
    """A rate so large that the validation ELBO soon falls."""
    x = linear_data(200)
    run = pg.fit(
        VAE((5,), latent=2),
        x[:150],
        validation=x[150:],
        epochs=200,
        kl_warmup=4,
        patience=2,
        learning_rate=0.05,
        progress=False,
    )
    history = run.history["valid_elbo"]
    best = max(history[4:])
    kept = run.evidence(x[150:], draws=2000).elbo.mean().item()

    assert 6 <= len(history) < 200
    assert history.index(best) == len(history) - 3
    assert kept == pytest.approx(best, abs=0.5)


def test_an_epoch_visits_every_row_once() -> None:
    part = Part((torch.arange(10.0)[:, None], torch.arange(10)))
    batches = Batches(part, 2, 4, torch.device("cpu"))

    visited = [batches.at(*rows) for rows in batches.passing(batches.order())]
    x, y = (torch.cat(columns) for columns in zip(*visited, strict=True))

    assert sorted(y.tolist()) == list(range(10))
    assert torch.equal(x.squeeze(1).long(), y)
    assert not torch.equal(y, torch.arange(10))


def test_redrawn_data_differ_from_visit_to_visit() -> None:
    part = Part((torch.full((4, 50), 0.5),), redraw=True)
    batches = Batches(part, 1, 4, torch.device("cpu"))

    (first,), (second,) = batches.at(batches.order()), batches.at(batches.order())

    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)


def test_particles_leave_the_bound_where_it_is_and_calm_it() -> None:
    x = linear_data(100)
    options = {"epochs": 40, "batch_size": 100, "learning_rate": 1e-9, "progress": False}
    one, many = (
        torch.tensor(
            pg.fit(VAE((5,), latent=2), x, elbo=Trace_ELBO(num_particles=n), **options).history[
                "elbo"
            ]
        )
        for n in (1, 20)
    )

    assert many.std() < 0.5 * one.std()
    assert many.mean().item() == pytest.approx(one.mean().item(), abs=3 * one.std().item() / 6)


def test_the_rate_falls_along_the_cosine_to_a_hundredth() -> None:
    settings = Settings(schedule="cosine")

    assert settings.rate_at(0.0) == pytest.approx(1.0)
    assert settings.rate_at(0.5) == pytest.approx(0.505)
    assert settings.rate_at(1.0) == pytest.approx(0.01)


class Diverging(pg.Story):
    """A story whose scale turns NaN once its parameter has moved."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))

    def model(self, x: Tensor) -> None:
        import pyro
        import pyro.distributions as dist

        scale = torch.where(self.loc.abs() > 0.25, torch.nan, 1.0)
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(self.loc, scale, validate_args=False), obs=x)

    def guide(self, x: Tensor) -> None:
        pass


def test_a_loss_that_turns_nan_stops_the_fit_and_leaves_the_last_good_state(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    with pytest.raises(pg.FitError, match=r"nan in epoch \d+, step \d+.*site 'x'") as caught:
        pg.fit(Diverging(), torch.ones(20), epochs=50, learning_rate=0.1, out=out, progress=False)

    run = caught.value.run
    assert 0 < run.story.loc.abs() <= 0.25
    assert torch.equal(pg.load(out, story=Diverging()).story.loc, run.story.loc)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be positive, got -1.0"),
        ({"kl_weight": 0.0}, "kl_weight must be positive"),
        ({"optimizer": "lion"}, "optimizer must be one of adam"),
        ({"optimizer": "adam(speed=3)"}, "optimizer must take its options"),
        ({"schedule": "linear"}, "schedule must be constant or cosine"),
        ({"seed": -1}, "seed must be from 0"),
        ({"device": "cuda:99"}, "device must be auto, cpu or one this machine has"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        pg.fit(VAE((5,)), linear_data(20), progress=False, **settings)


def test_an_optimizer_takes_options_of_its_own() -> None:
    made = Settings(optimizer="adam(eps=1e-4)", learning_rate=0.5).make_optimizer(
        [torch.zeros(1, requires_grad=True)]
    )

    assert (made.defaults["eps"], made.defaults["lr"]) == (1e-4, 0.5)


def test_an_unknown_setting_gets_the_nearest_name() -> None:
    with pytest.raises(TypeError, match="no setting 'epoch': did you mean epochs"):
        pg.fit(VAE((5,)), linear_data(20), epoch=3)
    with pytest.raises(TypeError, match="no setting 'steps': did you mean epochs"):
        pg.fit(VAE((5,)), linear_data(20), steps=3)


def test_an_autoencoder_has_no_kl() -> None:
    run = pg.fit(AutoEncoder((5,), latent=2), linear_data(100), epochs=2, progress=False)

    assert run.history["kl"] == pytest.approx([0.0, 0.0], abs=1e-6)


def shared_mean(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 5.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def test_held_out_rows_do_not_choose_the_posterior_of_what_all_rows_share() -> None:
    """Its KL grows with what is learned, so that an early guide may look best on a few rows."""
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) + 1
    options: Any = {"epochs": 60, "batch_size": 20, "learning_rate": 0.05, "progress": False}

    plain = pg.fit((shared_mean, "AutoNormal"), x, **options)
    watched = pg.fit((shared_mean, "AutoNormal"), x, validation=x[:5] + 1, **options)

    for name, value in plain.parameters().items():
        assert torch.equal(watched.parameters()[name], value)


def test_a_posterior_of_what_all_rows_share_is_found_by_a_fit_as_it_is() -> None:
    """Coefficients far from where they begin, of columns of other scales than one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator) * torch.tensor([5.0, 0.2])
    y = 12.0 + x @ torch.tensor([-0.5, 4.0]) + torch.randn(300, generator=generator)

    def model(x: Tensor, y: Tensor) -> None:
        weight = pyro.sample("weight", dist.Normal(torch.zeros(3), 10.0).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(weight[0] + x @ weight[1:], 1.0), obs=y)

    run = pg.fit((model, "AutoMultivariateNormal"), (x, y), progress=False)
    assert run.settings.learning_rate == 0.02
    design = torch.cat([torch.ones(300, 1), x], 1)
    precision = design.mT @ design + 0.01 * torch.eye(3)
    exact = dist.MultivariateNormal(
        torch.linalg.solve(precision, design.mT @ y), precision_matrix=precision
    )
    draws = torch.as_tensor(run.posterior((x, y), draws=4000).posterior["weight"].values[0])
    assert ((draws.mean(0) - exact.mean) / exact.stddev).abs().max() < 0.15
    assert (draws.std(0) / exact.stddev).log().abs().max() < 0.15
