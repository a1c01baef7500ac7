"""Whether a fit has come to rest: figures, the check on a run, a fit that ends by itself."""

import math
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.inference.checks.settled import SETTLED, converged, settled
from ppl_gen.inference.checks.subject import Subject
from ppl_gen.inference.estimators import (
    best_window,
    effective_size,
    heading,
    mcse,
    relapse,
    rhat,
    rise,
)
from ppl_gen.inference.history import Epoch, History
from ppl_gen.inference.iterates import Iterates, Recorder
from ppl_gen.inference.rounds import Stretch, decide
from ppl_gen.inference.verdict import Finding
from ppl_gen.models import PPCA, VAE


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def autoregressive(length: int, columns: int, keep: float) -> Tensor:
    """Iterates of variance 1 that remember a share of their last value."""
    steps, found = noise(length, columns), []
    now = steps[0]
    for step in steps:
        now = keep * now + math.sqrt(1 - keep**2) * step
        found.append(now)
    return torch.stack(found)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.8])
def test_the_error_of_the_mean_of_autoregressive_iterates_is_the_known_one(keep: float) -> None:
    r"""Its square is :math:`(1 + \phi) / (1 - \phi) / T` of their variance."""
    iterates = autoregressive(2000, 20, keep)

    exact = math.sqrt((1 + keep) / (1 - keep) / 2000)
    assert mcse(iterates).mean().item() == pytest.approx(exact, rel=0.1)
    expected = 2000 * (1 - keep) / (1 + keep)
    assert effective_size(iterates).mean().item() == pytest.approx(expected, rel=0.15)


def test_rhat_is_that_of_the_two_halves_as_chains() -> None:
    iterates = noise(100, 3) + torch.linspace(0, 2, 100)[:, None]
    first, second = iterates.split(50)

    within = (first.var(0) + second.var(0)) / 2
    between = torch.stack([first.mean(0), second.mean(0)]).var(0)

    assert_close(rhat(iterates), (49 / 50 + between / within).sqrt())


def test_iterates_that_drift_have_an_rhat_above_the_limit_and_those_at_rest_below() -> None:
    still = noise(400, 5)
    drifting = still + torch.linspace(0, 3, 400)[:, None]

    assert rhat(still).max() < 1.02
    assert rhat(drifting).min() > 1.1
    assert_close(rhat(torch.full((20, 1), 3.0)), torch.ones(1, dtype=torch.float64))
    step = torch.cat([torch.zeros(10, 1), torch.ones(10, 1)])
    assert rhat(step).item() == math.inf


def test_the_best_window_leaves_out_the_way_to_the_optimum() -> None:
    way = torch.cat([torch.linspace(-50, 0, 200), torch.zeros(200)])[:, None] + noise(400, 1)

    window = best_window(way)

    assert window.start >= 200
    assert window.rhat < 1.1
    with pytest.raises(ValueError, match="at least 16"):
        best_window(way[:10])


def test_a_gain_that_is_alike_from_doubling_to_doubling_is_found_exactly() -> None:
    """What grows with the logarithm of the way gains log 2 times its slope by going as far again;
    nothing if it rests; and no more where only the scatter falls with the rate."""
    way = torch.arange(1, 2001, dtype=torch.float64)
    held = torch.ones(2000, dtype=torch.float64)

    assert rise(3 * way.log(), way, held).nats == pytest.approx(3 * math.log(2), rel=0.01)
    nats, error = rise(noise(2000), way, held)
    assert abs(nats) < 3 * error
    rate = (1 + (torch.linspace(0, 1, 2000, dtype=torch.float64) * math.pi).cos()) / 2
    assert abs(rise(-rate, rate.cumsum(0), rate).nats) < 0.1
    assert math.isnan(rise(way[:10], way[:10], held[:10]).nats)


def test_a_relapse_is_told_from_noise_and_from_a_single_bad_draw() -> None:
    way = torch.arange(1, 1001, dtype=torch.float64)
    calm = noise(1000)
    single, sustained = calm.clone(), calm.clone()
    single[700] -= 1000
    sustained[700:800] -= 10

    assert relapse(calm, way) == relapse(single, way) == 0.0
    assert relapse(sustained, way) == pytest.approx(10, abs=2.5)


def test_a_straight_way_heads_one_way_and_scatter_does_not() -> None:
    straight = torch.linspace(0, 1, 200)[:, None] * torch.tensor([1.0, 1e6])

    assert heading(straight) == pytest.approx(1.0, abs=0.03)
    assert heading(noise(200, 500)) == pytest.approx(-0.5, abs=0.05)
    assert abs(heading(noise(20000, 50).cumsum(0))) < 0.2
    assert math.isnan(heading(straight[:20]))


def test_a_recorder_keeps_every_step_in_its_means_and_bounds_its_memory() -> None:
    recorder = Recorder(("b",), blocks=16, moments=8, elements=6)
    figures = noise(1000).tolist()

    for step, figure in enumerate(figures, 1):
        recorder.step(figure, 2 * figure, 0.1, 1.0)
        if recorder.due:
            recorder.look({"a": torch.full((50,), step), "b": torch.full((4,), 1.0 * step)})
    found = recorder.result()

    assert len(found.climbed) < 16 >= 2 * len(found.moments)
    assert found.steps[-1] <= 1000
    told = int(found.steps[-1])
    assert_close((found.climbed * found.lengths).sum().item(), sum(figures[:told]))
    assert_close(found.reconstruction, 2 * found.climbed)
    assert found.of(("b",)).shape[1] == 4
    assert_close(found.of(("b",))[:, 0], found.moments.float())
    assert found.moments.diff().unique().numel() == 1


def test_what_was_recorded_comes_back_from_disk_and_an_old_run_has_none(tmp_path: Any) -> None:
    x = linear_data()
    run = pg.fit(PPCA((4,), 2), x, epochs=3, progress=False)

    run.save(tmp_path / "run")
    again = pg.load(tmp_path / "run").iterates

    for name, tensor in run.iterates.to_tensors().items():
        assert_close(again.to_tensors()[name], tensor, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(pg.RunError, match="lacks 'rate'"):
        Iterates.from_tensors(
            {"steps": torch.ones(1), "climbed": torch.ones(1), "reconstruction": torch.ones(1)}
        )
    run.iterates = None
    run.save(tmp_path / "old")
    old = pg.load(tmp_path / "old")
    assert old.iterates is None
    assert {f.status for f in SETTLED.look(Subject(old, x))} == {"skipped"}


def recorded(climbed: Tensor, rate: Tensor | None = None, values: Tensor | None = None) -> Iterates:
    """What a fit leaves behind whose steps climbed so much."""
    count = len(climbed)
    steps = torch.arange(1, count + 1, dtype=torch.float64)
    ones = torch.ones(count, dtype=torch.float64)
    values = noise(count, 20) if values is None else values
    return Iterates(
        steps, climbed.double(), climbed.double(), ones if rate is None else rate, ones,
        steps.long(), values, {"weight": torch.arange(values.shape[1])},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("climbed", "status"),
    [
        (torch.linspace(-100, 0, 400), "fail"),
        (0.5 * torch.arange(1, 401).log(), "warn"),
        (torch.zeros(400), "pass"),
        (0.1 * noise(400), "pass"),
        (20 * noise(400), "warn"),
        (torch.zeros(20), "skipped"),
    ],
)
def test_settled_means_that_what_is_climbed_has_stopped_rising(
    climbed: Tensor, status: str
) -> None:
    assert settled(recorded(climbed), History()).status == status


def test_a_fit_is_under_way_while_noise_hides_what_its_parameters_show() -> None:
    travelling = torch.linspace(0, 1, 400)[:, None].double() * noise(1, 20) + 0.001 * noise(400, 20)

    hidden = settled(recorded(2 * noise(400), values=travelling), History())
    harmless = settled(recorded(1e-3 * noise(400), values=travelling), History())

    assert hidden.status == "fail"
    assert "travelled one way" in hidden.meaning
    assert (hidden.unit, hidden.threshold) == ("cosine", "at most 0.3, or 0.1 nats to gain")
    assert hidden.figure > 0.3, "the figure is the one that decides"
    assert harmless.status == "pass"


def test_steps_that_are_too_long_are_worse_where_no_falling_rate_calms_them() -> None:
    climbed = 0.1 * noise(800)
    climbed[500:560] -= 1.5
    falling = torch.cat([torch.ones(600), torch.full((200,), 0.1)]).double()

    held = settled(recorded(climbed), History())
    calmed = settled(recorded(climbed, falling), History())

    assert (held.status, calmed.status) == ("fail", "warn")
    assert "too long" in held.meaning
    assert held.unit == "nats back"
    assert held.figure > 0.5
    assert "learning_rate" in held.remedy


def test_a_validation_elbo_that_has_peaked_ends_the_matter() -> None:
    def history(valid: Tensor) -> History:
        nan = math.nan
        return History(
            tuple(
                Epoch(i, i, 0.0, 1e-3, 1.0, nan, nan, nan, nan, valid_elbo=value)
                for i, value in enumerate(valid.tolist(), 1)
            )
        )

    rising = recorded(torch.linspace(-100, 0, 400))
    up = torch.linspace(0, 1, 50)

    assert settled(rising, history(torch.cat([up, up.flip(0)]))).status == "pass"
    assert settled(rising, history(up)).status == "fail"
    unchosen = settled(rising, history(torch.cat([up, up.flip(0)])), chosen=False)
    assert unchosen.status == "fail"


def test_of_a_match_to_a_prior_nothing_worse_than_a_warning_is_said() -> None:
    rising = recorded(torch.linspace(-100, 0, 400))

    finding = settled(rising, History(), matched=True)

    assert finding.status == "warn"
    assert "objective" in finding.meaning


def test_em_is_at_rest_when_its_last_rise_is_within_the_tolerance() -> None:
    def climbed(*elbo: float) -> History:
        nan = math.nan
        return History(
            tuple(Epoch(i, i, 0.0, nan, 1.0, e, nan, nan, nan) for i, e in enumerate(elbo, 1))
        )

    assert converged(climbed(-3.0, -2.0, -2.0 + 1e-9), 1e-6).status == "pass"
    assert converged(climbed(-3.0, -2.0), 1e-6).status == "warn"
    assert converged(climbed(-3.0), 1e-6).status == "skipped"


def linear_data(rows: int = 200) -> Tensor:
    """Rows of a linear-Gaussian story with a clear code."""
    generator = torch.Generator().manual_seed(0)
    weight = 2 * torch.randn(2, 4, generator=generator)
    code = torch.randn(rows, 2, generator=generator)
    return code @ weight + 0.5 * torch.randn(rows, 4, generator=generator)


def regression(x: Tensor, y: Tensor) -> None:
    """A line with unknown coefficients and noise."""
    slope = pyro.sample("slope", dist.Normal(torch.zeros(x.shape[1]), 3.0).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ slope, scale), obs=y)


def rows_of_a_line() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 3, generator=generator)
    return x, x.sum(1) + 0.5 * torch.randn(100, generator=generator)


def findings(story: Any, data: Any, **settings: Any) -> dict[str, Finding]:
    run = pg.fit(story, data, progress=False, **settings)
    data = data.test if isinstance(data, pg.data.Dataset) else data
    return {finding.check: finding for finding in SETTLED.look(Subject(run, data))}


STORIES: dict[str, Any] = {
    "ppca": lambda: (PPCA((4,), 2), linear_data(), {"epochs": 1000, "learning_rate": 0.01}),
    "regression": lambda: (
        (regression, "AutoNormal"), rows_of_a_line(), {"epochs": 2000, "learning_rate": 0.01},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
def test_a_fit_that_is_long_enough_passes_and_one_stopped_at_a_twentieth_fails(name: str) -> None:
    story, data, settings = STORIES[name]()

    whole = findings(story, data, **settings)
    stopped = findings(story, data, **settings | {"epochs": settings["epochs"] // 20})

    assert whole["settled"].status == "pass", whole["settled"]
    assert whole["R-hat"].status in ("pass", "warn", "not applicable"), whole["R-hat"]
    assert stopped["settled"].status == "fail", stopped["settled"]
    assert stopped["R-hat"].status in ("fail", "not applicable")


def test_digits_stopped_at_a_twentieth_fail() -> None:
    data = pg.data.load("digits")

    found = findings(VAE(data.shape, latent=8), data, epochs=10)

    assert found["settled"].status == "fail", found["settled"]


def test_a_learning_rate_that_is_too_high_is_found() -> None:
    story, data, settings = STORIES["regression"]()
    bouncing = findings(story, data, **settings | {"learning_rate": 0.2, "schedule": "constant"})
    wild = findings(PPCA((4,), 2), linear_data(), epochs=500, learning_rate=1.0)

    assert bouncing["R-hat"].status == "fail", bouncing["R-hat"]
    assert "too long" in bouncing["R-hat"].meaning
    assert wild["settled"].status == "fail", wild["settled"]
    assert "too long" in wild["settled"].meaning


def test_the_end_of_a_fit_is_decided_by_recorded_numbers_alone() -> None:
    def end(value: float, rhat: float = 1.0, *moved: float) -> Stretch:
        return Stretch(value, rhat, *moved)

    assert decide([[end(-5.0)]]) == "go on"
    assert decide([[end(-5.0), end(-4.0)]]) == "go on"
    assert decide([[end(-4.0), end(-4.0, 1.2)]]) == "go on"
    assert decide([[end(-4.0), end(-4.0, 1.0, 0.2)]]) == "go on"
    first = [end(-4.0), end(-4.0, 1.0, 0.01)]
    assert decide([first]) == "lower the rate"
    assert decide([first, [end(-3.9), end(-3.9)]]) == "lower the rate"
    assert decide([first, [end(-4.0), end(-4.0, 1.0, 0.01, 0.2)]]) == "lower the rate"
    assert decide([first, [end(-4.0), end(-4.0, 1.0, 0.01, 0.01)]]) == "stop"


def test_ppca_ends_by_itself_at_the_maximum_of_the_likelihood() -> None:
    x = linear_data()
    best = PPCA.maximum_likelihood(x, 2).log_evidence(x).mean().item()

    run = pg.fit(PPCA((4,), 2), x, stop="settled", learning_rate=0.01, progress=False)

    with torch.no_grad():
        assert best - run.story.log_evidence(x).mean().item() < 0.01
    assert len(run.history) < (run.settings.epochs or 0) / 2
    assert run.history[-1].learning_rate < 0.01


def conjugate(x: Tensor) -> None:
    """A mean with a normal prior: the posterior is known."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def test_a_conjugate_mean_ends_by_itself_at_its_posterior() -> None:
    x = noise(30, seed=1).float()
    deviation = 31**-0.5

    run = pg.fit((conjugate, "AutoNormal"), x, stop="settled", learning_rate=0.01, progress=False)

    found = run.parameters()
    assert found["AutoNormal.locs.loc"].item() == pytest.approx(
        x.sum().item() / 31, abs=0.05 * deviation
    )
    assert found["AutoNormal.scales.loc"].item() == pytest.approx(deviation, rel=0.05)
    assert len(run.history) < (run.settings.epochs or 0) / 2
    statuses = {f.check: f.status for f in SETTLED.look(Subject(run, x))}
    assert "fail" not in statuses.values()


def test_a_fit_that_ends_by_itself_waits_for_the_end_of_the_warm_up() -> None:
    run = pg.fit(
        PPCA((4,), 2), linear_data(), stop="settled", learning_rate=0.03, epochs=400,
        kl_warmup=250, progress=False,
    )  # fmt: skip

    rates = torch.tensor(run.history["learning_rate"])
    assert (rates[:251] == rates[0]).all()


def test_what_ends_a_fit_by_itself_does_not_go_with_what_ends_or_averages_it_otherwise() -> None:
    for option, value in (("patience", 3), ("ema", 0.9)):
        with pytest.raises(ValueError, match=f"{option} must be left out with stop='settled'"):
            pg.fit(PPCA((4,), 2), linear_data(), stop="settled", progress=False, **{option: value})
    with pytest.raises(ValueError, match="stop must be epochs or settled"):
        pg.fit(PPCA((4,), 2), linear_data(), stop="soon", progress=False)
    with pytest.raises(ValueError, match="stop must be left out with method='em'"):
        pg.fit(PPCA((4,), 2), linear_data(), method="em", stop="settled", progress=False)


def test_what_was_recorded_is_read_with_every_column_where_it_was(tmp_path: Path) -> None:
    """Files of tensors keep no order, and read in another one every time."""

    def model(x: Tensor) -> None:
        values = [pyro.sample(name, dist.Normal(0.0, 10.0**-k)) for k, name in enumerate("abcdefg")]
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(sum(values), 1.0), obs=x)  # type: ignore[arg-type]

    x = torch.randn(40)
    run = pg.fit((model, "AutoNormal"), x, epochs=60, progress=False)
    assert run.iterates is not None
    run.save(tmp_path / "a")
    figures = pg.check(run, x, draws=50, progress=False)["R-hat"]
    for _ in range(5):
        read = pg.load(tmp_path / "a", (model, "AutoNormal"))
        assert read.iterates is not None
        assert list(read.iterates.elements) == list(run.iterates.elements)
        assert read.iterates.shared == run.iterates.shared
        found = pg.check(read, x, draws=50, progress=False)["R-hat"]
        assert found.details == figures.details
