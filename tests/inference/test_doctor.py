"""The doctor finds each planted fault, names site and remedy, and leaves what is well in peace."""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs import PROGRAMS
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import constraints

import ppl_gen as pg
from ppl_gen.inference.verdict import Finding
from ppl_gen.models import CVAE, GMM, M2, PPCA, VAE, AutoEncoder

G = torch.Generator().manual_seed(0)
X = torch.randn(40, 6, generator=G)
Y = torch.randn(40, generator=G)
LABELS = torch.arange(40) % 3
SEEN = torch.rand(40, 6, generator=G) < 0.5
HOLED = torch.where(torch.rand(40, 6, generator=G) < 0.1, torch.nan, X)
ZERO, ONE = torch.zeros(2), torch.ones(2)


class Codes(nn.Module):
    """A linear VAE, each of whose steps a fault can be planted in."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
            pyro.sample("x", dist.Normal(self.mean(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", self.law(x))

    def mean(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def law(self, x: Tensor) -> Any:
        loc, raw = self.encoder(x).chunk(2, -1)
        return dist.Normal(loc, raw.exp()).to_event(1)


class LeaksInTheGuide(Codes):
    """Data are centred by the mean of their batch."""

    def law(self, x: Tensor) -> Any:
        return super().law(x - x.mean(0))


class LeaksInTheModel(Codes):
    """A softmax over rows, where one over columns was meant."""

    def mean(self, z: Tensor) -> Tensor:
        return self.decoder(z.softmax(0))


class OutOfOrder(Codes):
    """Each row knows its place in the batch."""

    def law(self, x: Tensor) -> Any:
        return super().law(x + torch.arange(len(x))[:, None])


class Normed(Codes):
    """Batch normalisation: a leak in training mode alone."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))


class Broadcast(Codes):
    """A factor in which (N,) meets (N, 1)."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
            first = self.mean(z)[:, :1]
            pyro.factor("seen", dist.Normal(first, 1.0).log_prob(x[:, 0]).mean(-1))


class Outside(Codes):
    """The data stand outside the plate."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
        pyro.sample("x", dist.Normal(self.mean(z), 1.0).to_event(2), obs=x)


class CountsRows(Codes):
    """A penalty outside the plate that grows with the batch."""

    def model(self, x: Tensor) -> None:
        super().model(x)
        pyro.factor("penalty", torch.tensor(-0.1 * len(x)))


class ScaledByHand(Codes):
    """The classic weight of a mini-batch, besides that of the fit."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
            with poutine.scale(scale=40 / len(x)):
                pyro.sample("x", dist.Normal(self.mean(z), 1.0).to_event(1), obs=x)


class Tempered(Codes):
    """Half of the KL, by hand."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            with poutine.scale(scale=0.5):
                z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
            pyro.sample("x", dist.Normal(self.mean(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with poutine.scale(scale=0.5):
            super().guide(x)


class PicksRows:
    """A mini-batch chosen by hand, and not weighted."""

    def model(self, x: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        x = x[torch.randperm(len(x))[:10]]
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        mean = pyro.param("mean", torch.zeros(6))
        pyro.sample("loc", dist.Normal(mean, 1.0).to_event(1))


class PlateTooSmall(PicksRows):
    """A plate that draws from 30 of 40 rows."""

    def model(self, x: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        with pyro.plate("rows", 30, subsample_size=10) as rows:
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x[rows])


class Detached(Codes):
    """The encoder moves the loss and cannot learn."""

    def law(self, x: Tensor) -> Any:
        loc, raw = self.encoder(x).detach().chunk(2, -1)
        return dist.Normal(loc, raw.exp()).to_event(1)


class Unused(Codes):
    """A layer that nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Frozen(Unused):
    """A layer that nothing calls, and that is meant to stay."""

    def __init__(self) -> None:
        super().__init__()
        self.spare.requires_grad_(False)


class Shut(Codes):
    """A ReLU that no row opens."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 4))
        nn.init.constant_(self.encoder[0].bias, -100.0)

    def law(self, x: Tensor) -> Any:
        loc, raw = (self.encoder(x) + x[:, :4] + x[:, 2:]).chunk(2, -1)
        return dist.Normal(loc, raw.exp()).to_event(1)


class InfiniteSlope(Codes):
    """A norm at 0."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.encoder.weight)
        nn.init.zeros_(self.encoder.bias)

    def law(self, x: Tensor) -> Any:
        loc, raw = self.encoder(x).chunk(2, -1)
        return dist.Normal(loc, 1.0 + raw.square().sum(-1, True).sqrt()).to_event(1)


class Blind(Codes):
    """One law for all rows."""

    def law(self, x: Tensor) -> Any:
        return super().law(torch.ones_like(x))


class HalfBlind(Codes):
    """The encoder is given the first half."""

    def law(self, x: Tensor) -> Any:
        half = torch.arange(6) < 3
        return super().law(torch.where(half, x, torch.zeros(())))


class HalfBlindBits(HalfBlind):
    """The same without slopes: it only sees whether a value is positive."""

    def law(self, x: Tensor) -> Any:
        return super().law((x > 0).float())


class Conditional(Codes):
    """A guide that reads the condition alone."""

    def model(self, x: Tensor, *condition: Tensor) -> None:
        super().model(x)

    def guide(self, x: Tensor, *condition: Tensor) -> None:
        (c,) = condition
        with pyro.plate("rows", len(x)):
            pyro.sample("z", self.law(c.float()[:, None].expand(-1, 6)))


class Reaches(Codes):
    """A positive latent, and a guide that can be negative."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.LogNormal(ZERO, ONE).to_event(1))
            pyro.sample("x", dist.Normal(self.mean(z), 1.0).to_event(1), obs=x)

    def law(self, x: Tensor) -> Any:
        return dist.Normal(50 + self.encoder(x)[:, :2], 0.1 + ONE).to_event(1)


class Strays(Reaches):
    """It is, for one row in a few hundred draws, and so passes the look at one draw."""

    def law(self, x: Tensor) -> Any:
        return dist.Normal(6 + 0.1 * self.encoder(x)[:, :2], 2 * ONE).to_event(1)


class LooksAtTheAnswer(Codes):
    """A way from the data to their own law, past the code."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
            pyro.sample("x", dist.Normal(self.mean(z) + 0.3 * x, 1.0).to_event(1), obs=x)


class InACircle(Codes):
    """Each column is told by its neighbour, and the last by the first."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
            law = dist.Normal(self.mean(z) + 0.3 * x.roll(1, -1), 1.0)
            pyro.sample("x", law.to_event(1), obs=x)


class TotalsOfCounts(Codes):
    """Rates are shares of a total that is made of the counts themselves."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
            rates = self.mean(z).softmax(-1) * x.sum(-1, keepdim=True)
            pyro.sample("counts", dist.Poisson(rates).to_event(1), obs=x)


class OneAfterTheOther(Codes):
    """Each column is told by those before it."""

    def model(self, x: Tensor) -> None:
        before = 0.3 * torch.cat([torch.zeros(len(x), 1), x.cumsum(-1)[:, :-1]], -1)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
            pyro.sample("x", dist.Normal(self.mean(z) + before, 1.0).to_event(1), obs=x)


class TwoSites(Codes):
    """What is observed first is given to what is observed next."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
            left = pyro.sample(
                "left", dist.Normal(self.mean(z)[:, :3], 1.0).to_event(1), obs=x[:, :3]
            )
            law = dist.Normal(self.mean(z)[:, 3:] + left, 1.0).to_event(1)
            pyro.sample("right", law, obs=x[:, 3:])


class Overflows(Codes):
    """The scale of the likelihood vanishes for large data."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
            scale = (x[:, :1] < 50).float() + 0 * self.mean(z)
            law = dist.Normal(self.mean(z), scale, validate_args=False).to_event(1)
            pyro.sample("x", law, obs=x)


def as_the_prior(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))


def of_another_shape(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(0.0, 1.0))


def spoilt(row: int, column: int, value: float) -> Tensor:
    x = X.clone()
    x[row, column] = value
    return x


FAULTS: dict[str, tuple[Callable[[], Any], Any, str, str, str, str]] = {
    "a leak in the guide": (LeaksInTheGuide, X, "rows apart", "fail", "'z' of the guide", "dim=-1"),
    "a leak in the model": (LeaksInTheModel, X, "rows apart", "fail", "'x' of the model", "dim=-1"),
    "a broadcast": (Broadcast, X, "rows apart", "fail", "'seen' of the model", "(N, 1)"),
    "rows out of order": (OutOfOrder, X, "rows apart", "fail", "'z' of the guide", "place"),
    "batch normalisation": (Normed, X, "rows apart", "warn", "'z' of the guide", "LayerNorm"),
    "data outside the plate": (Outside, X, "weights", "fail", "'x' of the model", "'rows'"),
    "a term that counts rows": (CountsRows, X, "weights", "warn", "'penalty'", "'rows'"),
    "a weight by hand": (ScaledByHand, X, "weights", "fail", "'x' of the model", "poutine.scale"),
    "a tempered KL": (Tempered, X, "weights", "warn", "'z' of the guide", "kl_weight"),
    "rows picked by hand": (
        PicksRows,
        X,
        "weights",
        "fail",
        "'rows' of site 'x'",
        "subsample_size",
    ),
    "a plate too small": (PlateTooSmall, X, "weights", "fail", "from 30, but the data", "len(x)"),
    "a detached encoder": (Detached, X, "gradients", "fail", "story.encoder.weight", "detach"),
    "a layer not used": (Unused, X, "gradients", "warn", "spare.weight", "leave it out"),
    "a ReLU that is shut": (Shut, X, "gradients", "warn", "encoder.0.weight", "ReLU"),
    "an infinite slope": (InfiniteSlope, X, "gradients", "fail", "encoder.weight", "where"),
    "a blind guide": (Blind, X, "encoder", "fail", "'z' from the same law", "outside"),
    "the prior for a guide": (
        lambda: (decoded, as_the_prior),
        X,
        "encoder",
        "warn",
        "'z' from the same law",
        "outside",
    ),
    "half the columns": (HalfBlind, X, "encoder", "fail", "columns 3 to 5 of x", "slice"),
    "half without slopes": (HalfBlindBits, X, "encoder", "fail", "columns 3 to 5 of x", "slice"),
    "the condition alone": (
        Conditional,
        (X, LABELS),
        "encoder",
        "fail",
        "read x,",
        "compute its law from x",
    ),
    "a way past the code": (
        LooksAtTheAnswer,
        X,
        "likelihood",
        "fail",
        "reads columns 0 to 5 of x for it",
        "an argument of its own",
    ),
    "a circle": (InACircle, X, "likelihood", "fail", "'x' is made of the very", "of latents"),
    "a total": (
        TotalsOfCounts,
        1.0 + (X > 0),
        "likelihood",
        "fail",
        "'counts' is made of the very",
        "a total",
    ),
    "a support too wide": (Reaches, X, "supports", "warn", "'z' reaches", "LogNormal"),
    "draws outside": (Strays, X, "supports", "fail", "draws of 'z' lie outside", "LogNormal"),
    "a NaN in the data": (
        Codes,
        spoilt(17, 3, torch.nan),
        "finite",
        "fail",
        "row 17, column 3",
        "",
    ),
    "an infinity": (Codes, spoilt(2, 5, torch.inf), "finite", "fail", "row 2, column 5", "Drop"),
    "a vanishing scale": (Overflows, spoilt(9, 0, 99.0), "finite", "fail", "row 9", "Bound"),
    "programs that do not fit": (
        lambda: (Codes().model, of_another_shape),
        X,
        "programs",
        "fail",
        "Site 'z' must have event shape",
        "",
    ),
}


def faults(verdict: pg.Verdict) -> list[Finding]:
    return [finding for finding in verdict.findings if finding.status in ("warn", "fail")]


@pytest.mark.parametrize(
    ("story", "data", "look", "status", "said", "remedy"), FAULTS.values(), ids=FAULTS
)
def test_a_planted_fault_is_found_and_named(
    story: Callable[[], Any], data: Any, look: str, status: str, said: str, remedy: str
) -> None:
    found = faults(pg.doctor(story(), data, batch_size=20))

    assert [(finding.check, finding.status) for finding in found] == [(look, status)], found
    assert said.lower() in found[0].meaning.lower()
    assert remedy in found[0].remedy


def amortised_globals(x: Tensor) -> None:
    """A law of a global latent that all rows decide."""
    loc = pyro.param("weight", torch.ones(6)) * x.mean(0)
    pyro.sample("loc", dist.Normal(loc, 0.3).to_event(1))


def common_mean(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(torch.zeros(6), 3.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def decoded(x: Tensor) -> None:
    decoder = pyro.param("decoder", torch.ones(2, 6))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
        pyro.sample("x", dist.Normal(z @ decoder, 1.0).to_event(1), obs=x)


def per_row(x: Tensor) -> None:
    loc = pyro.param("loc", lambda: torch.zeros(len(x), 2))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(loc, 0.3).to_event(1))


def mean_over_data(program: Callable[..., Any]) -> Callable[..., Any]:
    return poutine.scale(program, scale=1 / 40)


def one_event(x: Tensor) -> None:
    """All rows as one value: nothing is weighted, as every step takes them all."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(loc, 1.0).expand(x.shape).to_event(2), obs=x)


def autoregression(x: Tensor) -> None:
    """Each value is explained by the one before, so that the plate has one less."""
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("times", len(x) - 1):
        pyro.sample("x", dist.Normal(slope * x[:-1], 1.0), obs=x[1:])


def indexed(x: Tensor, row: Tensor) -> None:
    decoder = pyro.param("decoder", torch.ones(2, 6))
    with pyro.plate("rows", 40, subsample=row):
        z = pyro.sample("z", dist.Normal(ZERO, ONE).to_event(1))
        pyro.sample("x", dist.Normal(z @ decoder, 1.0).to_event(1), obs=x)


def indexed_guide(x: Tensor, row: Tensor) -> None:
    loc = pyro.param("loc", torch.randn(40, 2))
    with pyro.plate("rows", 40, subsample=row):
        pyro.sample("z", dist.Normal(loc[row], 0.3).to_event(1))


def gamma_codes(x: Tensor) -> None:
    """Its draws take as many random numbers as they happen to need."""
    rate = pyro.param("rate", torch.ones(6, 2), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Gamma(2.0, (x @ rate).exp().clamp(0.1, 10)).to_event(1))


def gamma_model(x: Tensor) -> None:
    decoder = pyro.param("decoder", torch.ones(2, 6))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Gamma(2 * ONE, ONE).to_event(1))
        pyro.sample("x", dist.Normal(z @ decoder, 1.0).to_event(1), obs=x)


HIDDEN: Any = {"latent": 2, "hidden": (8,)}
COUNTS = torch.poisson(torch.rand(40, 6, generator=G) * 3, generator=G)
BITS = (X > 0).float()
WELL: dict[str, Callable[[], tuple[Any, Any]]] = {
    "codes": lambda: (Codes(), X),
    "a frozen layer": lambda: (Frozen(), X),
    "units of a table": lambda: (VAE((6,), **HIDDEN), X * torch.tensor([1e3, 1, 1, 1, 1, 1])),
    "ppca": lambda: (PPCA((6,)), X),
    "autoencoder": lambda: (AutoEncoder((6,), **HIDDEN), X),
    "bernoulli": lambda: (VAE((6,), likelihood="bernoulli", **HIDDEN), BITS),
    "bits as whole numbers": lambda: (VAE((6,), likelihood="bernoulli", **HIDDEN), BITS.long()),
    "poisson": lambda: (VAE((6,), likelihood="poisson", **HIDDEN), COUNTS),
    "categories": lambda: (
        VAE((6,), likelihood="categorical(categories=12)", **HIDDEN),
        COUNTS.clamp(max=11).long(),
    ),
    "a grey image": lambda: (
        VAE((1, 8, 8), 2, network="conv", hidden=(4, 8), likelihood="bernoulli(grey=True)"),
        torch.rand(40, 1, 8, 8, generator=G),
    ),
    **{
        f"prior {name}": lambda name=name: (VAE((6,), prior=name, **HIDDEN), X)
        for name in ("vamp", "mixture", "flow", "flower-sampler", "sphere", "bernoulli", "uniform")
    },
    **{
        f"posterior {name}": lambda name=name: (VAE((6,), posterior=name, **HIDDEN), X)
        for name in ("full", "flow", "point")
    },
    "cvae of labels": lambda: (CVAE((6,), "label(classes=3)", **HIDDEN), (X, LABELS)),
    "cvae of rows in order": lambda: (
        CVAE((6,), "label(classes=3)", **HIDDEN),
        (X, LABELS.sort().values),
    ),
    "cvae of masks": lambda: (CVAE((6,), "seen", baseline=True, **HIDDEN), (X, SEEN)),
    "cvae with gsnn": lambda: (CVAE((6,), "seen", gsnn=0.3, **HIDDEN), (X, SEEN)),
    "m2": lambda: (M2((6,), 3, **HIDDEN), (X, torch.where(LABELS == 2, -1, LABELS))),
    "gmm": lambda: (GMM((6,), 2), X),
    "gmm of maximum likelihood": lambda: (GMM((6,), 2, posterior="ml", covariance="tied"), X),
    "gmm with a posterior": lambda: (GMM((6,), 2, posterior="normal", law="student-t"), X),
    "gmm enumerated": lambda: (GMM((6,), 2, assignment="enumerated"), X),
    "gmm amortised": lambda: (GMM((6,), 2, assignment="amortised"), X),
    "gmm with missing values": lambda: (GMM((6,), 2, missing="integrate"), HOLED),
    "gmm, amortised and missing": lambda: (
        GMM((6,), 2, missing="integrate", assignment="amortised"),
        HOLED,
    ),
    "amortised globals": lambda: ((common_mean, amortised_globals), X),
    "an autoguide of codes": lambda: ((decoded, "AutoNormal"), X),
    "a maximum": lambda: ((common_mean, "AutoDelta"), X),
    "parameters for every row": lambda: ((decoded, per_row), X),
    "parameters found by index": lambda: ((indexed, indexed_guide), (X, torch.arange(40))),
    "a mean over data": lambda: (
        (mean_over_data(common_mean), mean_over_data(amortised_globals)),
        X,
    ),
    "one column after the other": lambda: (OneAfterTheOther(), X),
    "one site after the other": lambda: (TwoSites(), X),
    "all rows as one value": lambda: ((one_event, "AutoNormal"), X),
    "draws by rejection": lambda: ((gamma_model, gamma_codes), X),
    "an autoregression": lambda: ((autoregression, "AutoNormal"), Y),
    "no data": lambda: ((lambda: one_event(X), "AutoNormal"), None),
    **PROGRAMS,
}
MEANT_TO_WARN = {"batch normalisation and dropout"}


@pytest.mark.parametrize("name", WELL)
def test_what_is_well_is_left_in_peace(name: str) -> None:
    story, data = WELL[name]()
    for seed in (0, 1):
        verdict = pg.doctor(story, data, seed=seed)

        said = [f"{f.check}: {f.meaning}" for f in verdict.findings if f.status == "skipped"]
        assert all("critic" in f or "at least" in f for f in said), said
        assert not [f for f in faults(verdict) if name not in MEANT_TO_WARN], verdict
        assert all(finding.status != "fail" for finding in verdict.findings), verdict


class Counted(Codes):
    """It counts how often its programs are run."""

    calls = 0

    def model(self, x: Tensor) -> None:
        Counted.calls += 1
        super().model(x)


def test_what_is_looked_at_costs_a_few_steps() -> None:
    """That is some tens of milliseconds for a VAE on digits; how often it is run does not vary."""
    Counted.calls = 0
    pg.doctor(Counted(), X, batch_size=20)
    assert Counted.calls < 40


def redrawn() -> tuple[Any, Any]:
    """Bits that every visit draws anew."""
    train = pg.data.load("digits", binarise="redraw").train[:60]
    return VAE((1, 8, 8), likelihood="bernoulli", **HIDDEN), train


@pytest.mark.parametrize(
    "make",
    [WELL["codes"], WELL["m2"], WELL["batch normalisation and dropout"], redrawn],
    ids=["codes", "m2", "batch normalisation and dropout", "bits drawn anew"],
)
def test_looking_changes_nothing_of_a_fit(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed gives the same bits, looked over or not; nor does the world outside change."""
    story, data = make()

    def weights() -> dict[str, Tensor]:
        run = pg.fit(story, data, epochs=2, batch_size=20, seed=3, progress=False)
        return run.pair.state()

    before = torch.get_rng_state()
    looked_over = weights()
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr("ppl_gen.inference.training.before_a_fit", lambda *arguments: None)
    alone = weights()

    assert looked_over.keys() == alone.keys()
    assert all(torch.equal(looked_over[n], alone[n]) for n in alone)


def test_what_cannot_be_copied_is_as_it_was_afterwards() -> None:
    """Weights are stirred while it is looked at, and put back to the bit."""

    class Uncopied(Codes):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("it holds a socket")

    story = Uncopied()
    before = {name: value.clone() for name, value in story.state_dict().items()}
    assert pg.doctor(story, X).status == "pass"
    assert all(torch.equal(before[name], value) for name, value in story.state_dict().items())


def test_a_fit_warns_once_of_the_worst_and_goes_on() -> None:
    with pytest.warns(UserWarning, match="'x' of the model depends on the rows") as caught:
        run = pg.fit(Outside(), X, epochs=2, progress=False)
    assert len(caught) == 1
    assert len(run.history) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pg.fit(Normed(), X, epochs=1, progress=False)
        pg.fit(Unused(), X, epochs=1, progress=False)


def test_nan_rows_are_told_before_the_fit_stops_at_them() -> None:
    """Beyond the rows that the structure is traced with, and numbered as in the data."""
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    x[[17 + 128, 240], 2] = torch.nan
    with (
        pytest.warns(UserWarning, match="NaN or infinite in data rows 145, 240, column 2"),
        pytest.raises(pg.PplGenError),
    ):
        pg.fit(Codes(), x, epochs=1, progress=False)


def test_the_checks_of_a_run_have_a_row_of_the_doctors() -> None:
    well = pg.check(pg.fit(Codes(), X, epochs=1, progress=False), X, draws=30, progress=False)
    assert (well["doctor"].status, well["doctor"].figure) == ("pass", 0.0)
    with pytest.warns(UserWarning, match="'z' of the guide"):
        run = pg.fit(LeaksInTheGuide(), X, epochs=1, progress=False)
    finding = pg.check(run, X, draws=30, progress=False)["doctor"]
    assert (finding.status, finding.figure) == ("fail", 1.0)
    assert "'z' of the guide" in finding.meaning
    assert "dim=-1" in finding.remedy


def test_a_run_that_keeps_parameters_for_its_rows_is_looked_over_on_those_alone() -> None:
    run = pg.fit((decoded, per_row), X, epochs=1, progress=False)
    assert pg.check(run, X, draws=30, progress=False)["doctor"].status == "pass"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = pg.check(run, X + 1, draws=30, progress=False)["doctor"]
    assert other.status == "skipped"
    assert "data.train" in other.meaning


def test_too_few_or_equal_rows_are_skipped_and_never_pass() -> None:
    for x, said in ((X[:2], "at least 3 rows, got 2"), (X[:1].expand(9, -1), "rows that differ")):
        verdict = pg.doctor(Codes(), x)
        assert verdict["rows apart"].status == "skipped"
        assert said in verdict["rows apart"].meaning
    held = pg.doctor((lambda: one_event(X), "AutoNormal"))
    assert held["rows apart"].status == "not applicable"
    assert "hold their data themselves" in held["rows apart"].meaning


def test_a_fault_beside_another_is_found_too() -> None:
    class Both(LeaksInTheGuide, Unused):
        pass

    x = spoilt(17, 3, torch.nan)
    found = {finding.check: finding for finding in faults(pg.doctor(Both(), x))}
    assert found.keys() == {"finite", "rows apart", "gradients"}
    assert "'story.spare.weight', 'story.spare.bias'" in found["gradients"].meaning
