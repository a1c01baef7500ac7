"""EM reaches maxima that are known, never falls, and leaves a run like any other."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.data import Part
from ppl_gen.inference.em import Expectation
from ppl_gen.inference.settings import Settings
from ppl_gen.models import PPCA
from ppl_gen.story import Maximisable, OpenEnded

QUIET = {"method": "em", "progress": False}


class Poissons(pg.Story):
    """A count comes from one of a few Poisson laws; with "auto" from at most five."""

    def __init__(self, components: int | str = 2) -> None:
        super().__init__()
        self.count = 5 if components == "auto" else int(components)
        self.open_ended = components == "auto"
        self.weights = nn.Parameter(torch.full((self.count,), 1 / self.count).double())
        self.rates = nn.Parameter(torch.arange(1.0, self.count + 1).double())

    def start(self, x: Tensor) -> None:
        with torch.no_grad():
            chosen = x[torch.randperm(len(x))[: self.count]].double()
            self.rates.copy_(chosen.sort().values + torch.rand(self.count).double())
            self.weights.fill_(1 / self.count)

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            law = dist.Poisson(self.rates.expand(len(x), -1))
            choice = dist.Categorical(self.weights.expand(len(x), -1))
            pyro.sample("x", dist.MixtureSameFamily(choice, law), obs=x)

    def guide(self, x: Tensor) -> None:
        pass

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        joint = self.weights.log() + dist.Poisson(self.rates).log_prob(x.double()[:, None])
        share = joint.softmax(-1)
        return {
            "rows": torch.tensor(float(len(x))).double(),
            "log_likelihood": joint.logsumexp(-1).sum(),
            "share": share.sum(0),
            "counts": share.T @ x.double(),
        }

    def maximise(self, statistics: Mapping[str, Tensor]) -> None:
        share = statistics["share"]
        self.weights.copy_(share / share.sum())
        self.rates.copy_(statistics["counts"] / share)

    def score(self, log_likelihood: float, rows: int) -> float:
        return (2 * self.count - 1) / 2 * math.log(rows) - log_likelihood

    def smaller(self) -> Self | None:
        if self.count == 1:
            return None
        return self._with(self.weights.argsort(descending=True)[:-1], "auto")

    def settled(self) -> Self:
        return self._with(torch.arange(self.count), self.count)

    def _with(self, kept: Tensor, components: int | str) -> Self:
        made = type(self)(components)
        made.count = len(kept)
        with torch.no_grad():
            made.weights = nn.Parameter(self.weights[kept] / self.weights[kept].sum())
            made.rates = nn.Parameter(self.rates[kept].clone())
        return made


def death_notices() -> Tensor:
    """Deaths of women over 80 in The Times, by day: the classical mixture of two Poissons."""
    days = torch.tensor([162, 267, 271, 185, 111, 61, 27, 8, 3, 1])
    return torch.arange(10.0).repeat_interleave(days)


def three_laws(rows: int = 300) -> Tensor:
    """Counts of three Poisson laws far from each other, in random order."""
    generator = torch.Generator().manual_seed(0)
    rates = torch.tensor([2.0, 30.0, 120.0]).repeat(rows // 3)
    return torch.poisson(rates, generator=generator)


def log_likelihood(story: Poissons, x: Tensor) -> float:
    """By the story's own program, in nats per datum."""
    trace = pyro.poutine.trace(story.model).get_trace(x)
    return trace.log_prob_sum().item() / len(x)


def test_a_story_with_the_three_methods_is_maximisable() -> None:
    assert isinstance(Poissons(), Maximisable)
    assert isinstance(Poissons("auto"), OpenEnded)
    assert not isinstance(PPCA((3,)), Maximisable)


def test_the_maximum_is_the_published_one() -> None:
    """Titterington et al. (1985), Lange (2010, section 13.4): -1989.946 nats in all."""
    run = pg.fit(Poissons(), death_notices(), tolerance=1e-9, restarts=1, **QUIET)

    order = run.story.rates.argsort()
    assert run.story.weights[order][0].item() == pytest.approx(0.3599, abs=0.01)
    assert run.story.rates[order].tolist() == pytest.approx([1.2561, 2.6634], abs=0.01)
    assert run.history[-1].elbo * 1096 == pytest.approx(-1989.946, abs=1e-3)


def test_the_history_ends_with_the_likelihood_of_the_story_that_is_kept() -> None:
    for options in ({"epochs": 1}, {"epochs": 4}, {}):
        run = pg.fit(Poissons(), death_notices(), **options, **QUIET)
        last = run.history[-1]

        assert last.elbo == pytest.approx(log_likelihood(run.story, death_notices()), abs=1e-6)
        assert last.bits_per_dim == pytest.approx(-last.elbo / math.log(2))
        assert math.isnan(last.kl)
        assert math.isnan(last.reconstruction)


def test_the_likelihood_never_falls_and_stops_at_the_tolerance() -> None:
    run = pg.fit(Poissons(3), three_laws(), tolerance=1e-5, **QUIET)
    rises = torch.tensor(run.history["elbo"]).double().diff()

    assert (rises > -1e-6).all()
    assert rises[-1] <= 1e-5
    assert (rises[:-1] > 1e-5 - 1e-7).all()
    assert run.history["steps"] == list(range(1, len(run.history) + 1))


@pytest.mark.parametrize("memory", [1, 10_000, 2**30])
def test_sums_over_chunks_are_the_sums_over_all(memory: int) -> None:
    story, x = Poissons(3), three_laws(30)

    found = Expectation((x,), memory)(story)

    expected = story.statistics(x)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value)


def test_of_several_starts_the_highest_is_kept() -> None:
    """Most starts find all three laws; the first from this seed does not."""
    x = three_laws()
    one, many = (pg.fit(Poissons(3), x, restarts=n, seed=5, **QUIET) for n in (1, 5))
    best = (torch.tensor([2.0, 30.0, 120.0]), torch.full((3,), 1 / 3))

    assert many.history[-1].elbo > one.history[-1].elbo + 0.1
    assert_close(many.story.rates.sort().values.float(), best[0], rtol=0.1, atol=0)
    assert_close(many.story.weights.float(), best[1], rtol=0.01, atol=0)
    assert many.history["epoch"] == list(range(1, len(many.history) + 1))


@pytest.mark.parametrize("options", [{}, {"batch_size": 50, "epochs": 3}, {"restarts": 3}])
def test_the_same_seed_gives_the_same_bits(options: dict[str, int]) -> None:
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        runs.append(pg.fit(Poissons(3), three_laws(), seed=5, **options, **QUIET))

    assert torch.equal(runs[0].story.rates, runs[1].story.rates)
    assert runs[0].history["elbo"] == runs[1].history["elbo"]


def test_mini_batches_come_near_the_maximum() -> None:
    """Stepwise, with steps that fade: within a hundredth of a nat a datum."""
    x = three_laws(3000)
    full = pg.fit(Poissons(3), x, restarts=5, **QUIET)
    start = pg.fit(Poissons(3), x, restarts=5, epochs=3, **QUIET).story

    run = pg.fit(start, x, warm_start=True, batch_size=100, epochs=10, **QUIET)

    assert log_likelihood(run.story, x) == pytest.approx(full.history[-1].elbo, abs=0.01)
    assert run.history["steps"] == [30 * n - 9 for n in range(1, 11)]
    assert run.settings.batch_size == 100


def test_the_m_step_of_a_mini_batch_speaks_for_all_rows() -> None:
    """So that what a story says of numbers of rows, such as a floor, means the same."""
    seen = []

    class Heard(Poissons):
        def maximise(self, statistics: Mapping[str, Tensor]) -> None:
            seen.append((float(statistics["rows"]), float(statistics["share"].sum())))
            super().maximise(statistics)

    pg.fit(Heard(), death_notices(), batch_size=100, epochs=2, restarts=1, **QUIET)

    assert torch.tensor(seen).allclose(torch.tensor(1096.0))


def test_validation_rows_are_watched_and_change_nothing() -> None:
    x = death_notices()[torch.randperm(1096, generator=torch.Generator().manual_seed(7))]
    alone = pg.fit(Poissons(), x[:1000], restarts=1, **QUIET)
    run = pg.fit(Poissons(), x[:1000], validation=x[1000:], restarts=1, **QUIET)

    assert torch.equal(run.story.rates, alone.story.rates)
    held_out = log_likelihood(run.story, x[1000:])
    assert run.history[-1].valid_elbo == pytest.approx(held_out, abs=1e-6)
    assert max(run.history["valid_elbo"]) > run.history[-1].valid_elbo


def test_a_warm_start_goes_on_where_the_story_stands() -> None:
    x = death_notices()
    half = pg.fit(Poissons(), x, epochs=20, **QUIET)
    whole = pg.fit(Poissons(), x, epochs=30, **QUIET)

    run = pg.fit(half.story, x, warm_start=True, epochs=10, **QUIET)

    assert torch.equal(run.story.rates, whole.story.rates)


def test_svi_starts_from_where_em_ends() -> None:
    x = death_notices()
    top = pg.fit(Poissons(), x, **QUIET)

    run = pg.fit(top.story, x, warm_start=True, epochs=1, learning_rate=1e-9, progress=False)

    assert_close(run.story.rates, top.story.rates)


def test_a_run_of_em_is_saved_loaded_checked_and_made_again(tmp_path: Path) -> None:
    x = death_notices()
    run = pg.fit(Poissons(), x, tolerance=1e-5, out=tmp_path / "run", **QUIET)

    loaded = pg.load(tmp_path / "run", story=Poissons())
    verdict = pg.check(loaded, x)

    assert torch.equal(loaded.story.rates, run.story.rates)
    assert loaded.settings == run.settings
    assert (loaded.settings.method, loaded.settings.batch_size) == ("em", 1096)
    assert loaded.history["elbo"] == run.history["elbo"]
    assert {f.check: f.status for f in verdict.findings}["settled"] == "pass"


def test_a_run_that_knows_nothing_of_em_is_still_read(tmp_path: Path) -> None:
    pg.fit(PPCA((2,), 1), torch.randn(20, 2), epochs=1, out=tmp_path / "run", progress=False)
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    for name in ("method", "restarts", "tolerance"):
        del record["settings"][name]
    file.write_text(json.dumps(record))

    assert pg.load(tmp_path / "run").settings.method == "svi"


def test_the_number_of_components_is_found_and_kept(tmp_path: Path) -> None:
    x = three_laws()
    run = pg.fit(Poissons("auto"), x, restarts=5, out=tmp_path / "run", **QUIET)

    assert not run.story.open_ended
    assert run.story.count == 3
    assert run.history[-1].elbo == pytest.approx(log_likelihood(run.story, x), abs=1e-6)
    loaded = pg.load(tmp_path / "run", story=Poissons(3))
    assert torch.equal(loaded.story.rates, run.story.rates)
    assert pg.check(run, x).findings


def test_svi_settles_the_number_first_and_goes_on_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = three_laws()
    starts = []
    original = Poissons.start
    monkeypatch.setattr(
        Poissons, "start", lambda self, x: (starts.append(self.count), original(self, x))[1]
    )

    run = pg.fit(
        Poissons("auto"), x, validation=x[:30], epochs=2, restarts=5, learning_rate=1e-9,
        progress=False,
    )  # fmt: skip

    assert starts == [5] * 5
    assert run.story.count == 3
    assert len(run.history) == 2
    assert_close(
        run.story.rates.sort().values.float(), torch.tensor([2.0, 30.0, 120.0]), rtol=0.1, atol=0
    )


def test_probabilities_that_are_redrawn_are_drawn_once() -> None:
    """A likelihood can only rise if its data stay."""

    class Coins(Poissons):
        def start(self, x: Tensor) -> None:
            super().start(torch.poisson(5 * x.squeeze(1)))

        def model(self, x: Tensor) -> None:
            super().model(x.squeeze(1))

        def statistics(self, x: Tensor) -> dict[str, Tensor]:
            return super().statistics(x.squeeze(1))

    part = Part((torch.rand(200, 1, generator=torch.Generator().manual_seed(0)),), redraw=True)

    run = pg.fit(Coins(), part, **QUIET)

    x = part.fixed(run.settings.seed).x.squeeze(1)
    assert run.history[-1].elbo == pytest.approx(log_likelihood(run.story, x[:, None]), abs=1e-6)


class Falling(Poissons):
    """A story whose M-step goes the wrong way from the fourth on."""

    def maximise(self, statistics: Mapping[str, Tensor]) -> None:
        super().maximise(statistics)
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps > 3:
            self.rates.mul_(1.5)


def test_a_likelihood_that_falls_stops_the_fit_and_leaves_the_last_good_state() -> None:
    with pytest.raises(pg.FitError, match=r"must not fall, got .* in epoch 4") as caught:
        pg.fit(Falling(), death_notices(), **QUIET)

    run = caught.value.run
    assert len(run.history) == 3
    assert run.history[-1].elbo == pytest.approx(
        log_likelihood(run.story, death_notices()), abs=1e-6
    )


@pytest.mark.parametrize("batch_size", [None, 100])
def test_a_statistic_that_is_not_finite_is_named(batch_size: int | None) -> None:
    class Broken(Poissons):
        def statistics(self, x: Tensor) -> dict[str, Tensor]:
            return super().statistics(x) | {"squares": (x - x).sum() / 0 * torch.ones(2)}

    with pytest.raises(pg.FitError, match="statistic 'squares' of the E-step must be finite"):
        pg.fit(Broken(), death_notices(), batch_size=batch_size, **QUIET)


def test_an_interrupted_fit_leaves_whole_epochs_of_the_best_start(tmp_path: Path) -> None:
    class Stopped(Poissons):
        def maximise(self, statistics: Mapping[str, Tensor]) -> None:
            self.steps = getattr(self, "steps", 0) + 1
            super().maximise(statistics)
            if self.steps == 8:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pg.fit(Stopped(), death_notices(), restarts=3, epochs=5, out=tmp_path / "run", **QUIET)

    run = pg.load(tmp_path / "run", story=Stopped())
    assert len(run.history) in (2, 5)
    assert run.history[-1].elbo == pytest.approx(
        log_likelihood(run.story, death_notices()), abs=1e-6
    )


def test_a_story_without_em_is_refused_with_a_remedy() -> None:
    with pytest.raises(pg.StoryError, match="got PPCA: fit it with method='svi'"):
        pg.fit(PPCA((1,)), torch.randn(10, 1), **QUIET)
    with pytest.raises(pg.StoryError, match="got no data"):
        pg.fit(Poissons(), **QUIET)


def test_an_e_step_without_its_likelihood_is_refused() -> None:
    class Silent(Poissons):
        def statistics(self, x: Tensor) -> dict[str, Tensor]:
            return {"rows": super().statistics(x)["rows"]}

    with pytest.raises(pg.StoryError, match=r"must hold the tensor 'log_likelihood'.*got 'rows'"):
        pg.fit(Silent(), death_notices(), **QUIET)


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0.1), ("kl_weight", 0.5), ("particles", 2), ("patience", 3), ("clip", 1.0)],
)
def test_what_only_gradients_have_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be left out with method='em'"):
        Settings(method="em", **{name: value})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "vi"}, "method must be svi or em, got 'vi'"),
        ({"restarts": 0}, "restarts must be at least 1, got 0"),
        ({"tolerance": -1.0}, "tolerance must be at least 0, got -1.0"),
    ],
)
def test_a_setting_of_em_out_of_range_is_named(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        pg.fit(Poissons(), death_notices(), **settings)
