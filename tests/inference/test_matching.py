"""Where a prior has no density, codes are matched to its draws; and what is then told."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.errors import FitError, NoDensityError, StoryError
from ppl_gen.inference import classifier_test, drawn_codes
from ppl_gen.models import VAE
from ppl_gen.priors import Flower, FlowerSampler, ImplicitPrior

X = torch.randn(256, 3, generator=torch.Generator().manual_seed(0))


class Ring(ImplicitPrior):
    """A prior of one's own."""

    def sample(self, n: int) -> Tensor:
        return nn.functional.normalize(torch.randn(n, self.features), dim=1)


class Shifted(pg.Story):
    """A guide that cannot move: a code about ``loc`` whatever the data, of a standard normal."""

    law: Any = dist.Normal

    def __init__(self, loc: float = 1.0, scale: float = 0.5, features: int = 1) -> None:
        super().__init__()
        self.width = features
        self.register_buffer("loc", torch.full((features,), loc))
        self.register_buffer("scale", torch.full((features,), scale))
        self.offset = nn.Parameter(torch.zeros(3))

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", self.law(torch.zeros(self.width), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.offset, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(self.loc, self.scale).to_event(1))


class Undensed(dist.Normal):
    """A law of a user's own that can only be drawn from."""

    def log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError


class OwnLaw(Shifted):
    """The same story with such a law."""

    law = Undensed


def quick(story: Any, data: Any = X, **settings: Any) -> pg.Run:
    return pg.fit(story, data, **{"progress": False, "epochs": 2, "seed": 0, **settings})


@pytest.mark.parametrize("objective", ["adversarial", "avb"])
@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (1.0, 1.0), (0.5, 0.6)])
def test_a_critic_finds_the_divergence_that_is_known(
    objective: str, loc: float, scale: float
) -> None:
    """Codes are of one law whatever the data, so that both kinds of KL are the same."""
    run = quick(Shifted(loc, scale), objective=objective, epochs=300, kl_warmup=0)
    exact = kl_divergence(dist.Normal(loc, scale), dist.Normal(0.0, 1.0)).item()
    found = sum(epoch.divergence for epoch in run.history.epochs[-20:]) / 20
    assert found == pytest.approx(exact, abs=0.03 + 0.1 * exact)
    accuracy = sum(epoch.critic_accuracy for epoch in run.history.epochs[-20:]) / 20
    assert (abs(accuracy - 0.5) < 0.05) == (exact == 0)


def test_the_discrepancy_of_one_law_is_zero_on_average() -> None:
    same = quick(Shifted(0.0, 1.0, 2), objective="mmd", epochs=60)
    other = quick(Shifted(0.5, 1.0, 2), objective="mmd", epochs=60)
    values = torch.tensor(same.history["divergence"])
    assert values.mean().abs() < 4 * values.std() / 60**0.5
    assert min(other.history["divergence"]) > 0.05


def test_what_is_scored_keeps_its_divergence_and_what_is_matched_loses_its_density() -> None:
    """Beside a matched site, a scored one counts as in the ELBO of the story without the first."""

    class Both(Shifted):
        def model(self, x: Tensor) -> None:
            with pyro.plate("rows", len(x)):
                if self.law is Undensed:
                    pyro.sample("z", self.law(torch.zeros(1), 1.0).to_event(1))
                w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(w + self.offset, 1.0).to_event(1), obs=x)

        def guide(self, x: Tensor) -> None:
            with pyro.plate("rows", len(x)):
                if self.law is Undensed:
                    pyro.sample("z", dist.Normal(self.loc, self.scale).to_event(1))
                pyro.sample("w", dist.Normal(x / 2, 0.7).to_event(1))

    class Matched(Both):
        law = Undensed

    both, alone = Matched(), Both()
    # The observation alone is in the reconstruction; the rest of the loss has the KL of w.
    run = quick(both, epochs=1, learning_rate=1e-9, batch_size=256, objective="mmd")
    x = run.batch(X)[0]
    elbo = TraceMeanField_ELBO(num_particles=200, vectorize_particles=True)
    kl = kl_divergence(dist.Normal(x / 2, 0.7), dist.Normal(0.0, 1.0)).sum(1).mean()
    loss = elbo.loss(alone.model, alone.guide, x) / 256
    assert run.history[-1].reconstruction - kl.item() == pytest.approx(-loss, abs=0.2)
    assert run.history[-1].elbo != run.history[-1].elbo  # is NaN


@pytest.mark.parametrize("objective", ["adversarial", "avb", "mmd"])
def test_a_graph_gives_the_bits_of_eager(objective: str) -> None:
    story = VAE((3,), 2, prior=Ring(2), hidden=(5,))
    settings = {"epochs": 30, "objective": objective, "kl_weight": 5.0}
    runs = [quick(story, compile=how, **settings) for how in ("graph", "eager")]
    for name in ("reconstruction", "divergence"):
        assert runs[0].history[name] == runs[1].history[name]
    states = [run.pair.state() for run in runs]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_law_of_ones_own_without_a_density_is_found() -> None:
    run = quick(OwnLaw())
    assert run.structure.sites["z"].implicit
    assert run.settings.objective == "adversarial"
    with pytest.raises(NoDensityError, match="the prior of 'z' can be drawn from and has no den"):
        run.evidence(X[:5])


def test_an_elbo_is_climbed_where_there_is_a_density() -> None:
    run = quick(VAE((3,), 2, hidden=(5,)))
    assert not run.structure.unscored
    assert run.settings.objective == "auto"
    assert run.history[-1].divergence != run.history[-1].divergence


def test_the_fit_says_in_a_line_what_it_climbs_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    said = {
        "standard-normal": "climbing the ELBO, with the KL of guide from prior in closed form",
        "mixture": "climbing the ELBO, with the KL of guide from prior by draws: Pyro has no",
        "one-hot": "climbing the ELBO, summed over the values of enumerated sites",
        "flower-sampler": "since its prior has no density: this is no ELBO",
    }
    for prior, sentence in said.items():
        quick(VAE((3,), 2, prior=prior, hidden=(5,)), epochs=1, progress=True)
        assert sentence in capsys.readouterr().err
    quick(VAE((3,), 2, hidden=(5,)), epochs=1, progress=True, objective="mmd")
    assert "(mmd: squared MMD of codes and prior), since that was asked for" in (
        capsys.readouterr().err
    )


def test_nothing_that_is_told_of_a_match_is_called_an_elbo(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    story = VAE((3,), 2, prior="flower-sampler", hidden=(5,))
    run = quick(story, validation=X[:100], out=tmp_path / "run", progress=True)
    said = capsys.readouterr().err.replace("this is no ELBO", "")
    assert "ELBO" not in said + repr(run)
    assert "divergence" in said
    again = pg.load(tmp_path / "run")
    assert again.settings.objective == "adversarial"
    assert again.history.epochs == run.history.epochs or str(again.history) == str(run.history)
    verdict = pg.check(again, X)
    reasons = {f.check: f for f in verdict.findings}
    for name in ("evidence", "gap", "k-hat"):
        assert reasons[name].status == "skipped"
        assert "has no density" in reasons[name].meaning
    assert reasons["aggregate posterior"].status != "skipped"
    assert "ELBO" not in str(verdict)


@pytest.mark.parametrize(
    ("story", "settings", "message"),
    [
        (VAE((3,), 2, prior=Ring(2)), {"objective": "elbo"}, "needs the density of 'z', whose"),
        (VAE((3,), 2, prior=Ring(2)), {"elbo": Trace_ELBO()}, "elbo must be left out where codes"),
        (VAE((3,), 2, prior=Ring(2)), {"free_bits": 1.0}, "free_bits must be left out"),
        (VAE((3,), 2, prior=Ring(2)), {"patience": 3}, "patience must be left out"),
        (VAE((3,), 4, prior="one-hot"), {"objective": "mmd"}, "take a posterior that is drawn"),
        (VAE((3,), 2, prior=Ring(2), posterior="point"), {}, ""),
        (
            (lambda x: pyro.sample("x", dist.Normal(pyro.param("a", torch.zeros(3)), 1.0)
                                   .expand([len(x), 3]).to_event(2), obs=x), lambda x: None),
            {"objective": "mmd"},
            "this story has no latent for each datum",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_match_is_refused(
    story: Any, settings: dict[str, Any], message: str
) -> None:
    if not message:
        quick(story, **settings)  # single codes can be matched as well: the autoencoder's way
        return
    with pytest.raises(StoryError, match=message):
        quick(story, **settings)


def test_a_shared_latent_without_a_density_is_refused() -> None:
    class Shared(OwnLaw):
        def model(self, x: Tensor) -> None:
            z = pyro.sample("z", self.law(torch.zeros(1), 1.0).to_event(1))
            with pyro.plate("rows", len(x)):
                pyro.sample("x", dist.Normal(z + self.offset, 1.0).to_event(1), obs=x)

        def guide(self, x: Tensor) -> None:
            pyro.sample("z", dist.Normal(self.loc, self.scale).to_event(1))

    with pytest.raises(StoryError, match="'z' stands outside the plate of the data"):
        quick(Shared())


def test_a_critic_that_wins_outright_is_no_fit() -> None:
    story = VAE((3,), 2, prior="eight-gaussians(spread=0.01, scale=5.0)", hidden=(5,))
    with pytest.raises(FitError, match=r"tells codes from draws of the prior in (9|10)\d") as told:
        quick(story, epochs=20, kl_weight=1e-6)
    assert len(told.value.run.history) == 20


def test_codes_matched_to_a_flower_are_scored_as_one() -> None:
    """The twins: what never saw the density is judged by it."""
    data = pg.data.load("digits")
    story = VAE(data.shape, 2, prior=FlowerSampler(2))
    run = quick(story, data, epochs=200)
    plain = quick(VAE(data.shape, 2), data, epochs=200)
    codes, draws = (
        torch.cat(part)
        for part in zip(
            *(drawn_codes(run, run.batch(data.test), seed)["z"] for seed in range(4)), strict=True
        )
    )
    law = Flower(2)()
    least = law.log_prob(draws).quantile(0.01)
    normal = draws.std() * torch.randn_like(draws)
    outside = [(law.log_prob(z) < least).float().mean() for z in (codes, normal)]
    assert outside[0] < 0.08  # where 1 in 100 draws is
    assert outside[1] > 0.2
    assert law.log_prob(codes).median() > law.log_prob(draws).median() - 0.2
    assert classifier_test(*drawn_codes(run, run.batch(data.test))["z"]).accuracy < 0.60
    x = run.batch(data.test)[0]
    missed, standard = (
        (r.decode(r.encode(data.test))["x"] - x).square().sum().item() for r in (run, plain)
    )
    # Over seeds it is within 5 %, as benchmarks/priors.py has it; of one there is room for noise.
    assert missed < 1.1 * standard
    assert_close(run.sample(5)["z"].shape, torch.Size((5, 2)))
