"""The faults, and by which checks each should be found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import Independent, MultivariateNormal, Normal
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

import ppl_gen as pg
from benchmarks.faults.stories import TALES, WEIGHT, Case, Tale, regression, some, tied_responses
from ppl_gen.models import GMM, PPCA, VAE

# What looks at the guide's distance from the posterior, from several sides.
CLOSE = ("reference", "calibration", "coverage", "k-hat", "gap", "divergence", "amortisation gap")
FAMILY = ("reference", "approximation gap", "divergence", "calibration")
RESTS = ("settled", "R-hat", "longer fit")
CODE = ("active units", "mutual information")
MADE = ("prior predictive", "posterior predictive", "generated data", "LOO-PIT")


@dataclass(frozen=True)
class Fault:
    """One fault in one story.

    Attributes:
        tale: The story it is planted in.
        plant: Gives the faulty case, from a seed.
        found_by: Checks of which at least one should fail.
    """

    tale: str
    plant: Callable[[int], Case]
    found_by: tuple[str, ...]


class Moved(Messenger):
    """A guide whose normal laws are shifted and stretched.

    Args:
        factor: On every standard deviation.
        shift: Of every mean, in standard deviations.
    """

    def __init__(self, factor: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def _pyro_sample(self, msg: Any) -> None:
        law = msg["fn"]
        if isinstance(law, MultivariateNormal):
            deviations = law.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
            msg["fn"] = dist.MultivariateNormal(
                law.loc + self.shift * deviations, scale_tril=self.factor * law.scale_tril
            )
        elif isinstance(law, Independent) and isinstance(law.base_dist, Normal):
            base = law.base_dist
            moved = dist.Normal(base.loc + self.shift * base.scale, self.factor * base.scale)
            msg["fn"] = moved.to_event(law.reinterpreted_batch_ndims)


def moved(tale: str, factor: float = 1.0, shift: float = 0.0) -> Fault:
    """A guide that is moved once it is fitted."""

    def plant(seed: int) -> Case:
        case = TALES[tale].case(seed)
        case.run.pair.guide = Moved(factor, shift)(case.run.pair.guide)
        return case

    return Fault(tale, plant, CLOSE)


def refitted(tale: str, found_by: tuple[str, ...], story: Any = None, **changed: Any) -> Fault:
    """A fit with other settings, or of another story to the same data."""

    def plant(seed: int) -> Case:
        return TALES[tale].case(seed, None if story is None else story(), **changed)

    return Fault(tale, plant, found_by)


def as_it_is(story: Any, train: Any, test: Any) -> Case:
    """A run whose story keeps the weights it has."""
    run = pg.fit(story, train, epochs=1, learning_rate=1e-12, warm_start=True, progress=False)
    return Case(run, test, train)


def exact(seed: int) -> tuple[PPCA, Any, Any]:
    """PPCA at its maximum, with the exact posterior."""
    train, test = TALES["ppca"].split(seed)
    return PPCA.maximum_likelihood(train, 2), train, test


def wrong_noise(factor: float) -> Callable[[int], Case]:
    """A likelihood of another scale, and the exact posterior under that."""

    def plant(seed: int) -> Case:
        story, train, test = exact(seed)
        with torch.no_grad():
            story.log_scale += math.log(factor)
        story.set_guide_to_exact_posterior()
        return as_it_is(story, train, test)

    return plant


class KnownDecoder(pg.Story):
    """The linear story with its true weights, a prior of some scale, and the exact posterior."""

    def __init__(self, prior: float) -> None:
        super().__init__()
        self.prior = prior
        self.unused = nn.Parameter(torch.zeros(()))

    def model(self, x: Tensor) -> None:
        """The story."""
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), self.prior).to_event(1))
            pyro.sample("x", dist.Normal(z @ WEIGHT, 0.7).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Exact."""
        precision = torch.eye(2) / self.prior**2 + WEIGHT @ WEIGHT.T / 0.49
        loc = x @ WEIGHT.T / 0.49 @ precision.inverse() + 0 * self.unused
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=precision))


def wrong_prior(scale: float) -> Callable[[int], Case]:
    """Codes were drawn from a standard normal."""
    return lambda seed: as_it_is(KnownDecoder(scale), *TALES["ppca"].split(seed))


class Amortised(pg.Story):
    """One code for each row, read by a network that gives a normal law."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 2))

    def guide(self, x: Tensor) -> None:
        """A normal law for each row."""
        loc, log_scale = self.encoder(x).unbind(-1)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))


class Humps(Amortised):
    """The sign of the code cannot be told from its square."""

    def model(self, x: Tensor) -> None:
        """The story."""
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.square(), 0.3), obs=x[:, 0])


class Skewed(Amortised):
    """Below zero the code leaves hardly a trace."""

    def model(self, x: Tensor) -> None:
        """The story."""
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(nn.functional.softplus(8 * z), 0.5), obs=x[:, 0])


def codes(of: Callable[[Tensor, torch.Generator], Tensor]) -> Callable[..., Tensor]:
    """Data that a standard normal code becomes."""

    def data(rows: int, generator: torch.Generator) -> Tensor:
        return of(torch.randn(rows, 1, generator=generator), generator)

    return data


HUMPS = Tale(
    lambda x: Humps(),
    codes(lambda z, g: z.square() + 0.3 * torch.randn(z.shape, generator=g)),
    {"epochs": 60, "learning_rate": 0.01},
)
SKEWED = Tale(
    lambda x: Skewed(),
    codes(lambda z, g: nn.functional.softplus(8 * z) + 0.5 * torch.randn(z.shape, generator=g)),
    {"epochs": 60, "learning_rate": 0.01},
)


def mirrored(x: Tensor) -> None:
    """Two clouds at a distance of which the sign cannot be told: a posterior of two modes."""
    centre = pyro.sample("centre", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(x)):
        ends = torch.stack([centre, -centre], -1).expand(len(x), 2)
        even = dist.Categorical(torch.ones(2) / 2)
        pyro.sample("x", dist.MixtureSameFamily(even, dist.Normal(ends, 0.5)), obs=x[:, 0])


MIRRORED = Tale(
    lambda x: (mirrored, "AutoNormal"),
    lambda rows, g: (
        torch.randn(rows, 1, generator=g).sign() * 1.5 + 0.5 * torch.randn(rows, 1, generator=g)
    ),
    {"epochs": 2000, "learning_rate": 0.02, "batch_size": 50, "stop": "settled"},
    own=True,
    rows=50,
)
TIED = Tale(
    lambda x: (regression, "AutoNormal"),
    tied_responses,
    {"epochs": 3000, "learning_rate": 0.02, "batch_size": 200, "stop": "settled"},
    own=True,
    rows=200,
)


class Linear(pg.Story):
    """A linear story for faults of its programs."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(2, 5)
        self.encoder = nn.Linear(5, 4)

    def model(self, x: Tensor) -> None:
        """The story."""
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 0.7).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Read backwards."""
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


class Unscaled(Linear):
    """The likelihood stands outside the plate, and is not weighted up to all data."""

    def model(self, x: Tensor) -> None:
        """The story, with the fault."""
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(self.decoder(z), 0.7).to_event(2), obs=x)


class Leaking(Linear):
    """The guide centres each row by the mean of its batch."""

    def guide(self, x: Tensor) -> None:
        """Read backwards, with the fault."""
        super().guide(x - x.mean(0))


class Broadcast(Linear):
    """The noise is measured between every row and every other."""

    def model(self, x: Tensor) -> None:
        """The story, with the fault: (N, 1) against (N,)."""
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = self.decoder(z)
            off = (x[:, :1] - mean[:, 0]).square().sum(-1) / len(x)  # (N, N), summed
            pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=x)
            pyro.factor("more", -off)


class HalfBlind(VAE):
    """An encoder that sees half of each row."""

    def _code(self, x: Tensor) -> Any:
        return super()._code(torch.cat([x[:, :4], torch.zeros_like(x[:, 4:])], -1))


class TooWide(pg.Story):
    """Each number is told by those before it, so that the code has nothing to tell."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(5, 5)
        self.decoder = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 5))
        self.log_scale = nn.Parameter(torch.zeros(5))
        self.encoder = nn.Linear(5, 4)

    def model(self, x: Tensor) -> None:
        """The story."""
        told = x @ self.before.weight.tril(-1).T + self.before.bias
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            law = dist.Normal(told + self.decoder(z), self.log_scale.exp())
            pyro.sample("x", law.to_event(1), obs=x)

    guide = Linear.guide


class Memoriser(pg.Story):
    """Draws are rows of the fit with a little noise."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", rows)
        self.unused = nn.Parameter(torch.zeros(()))

    def model(self, x: Tensor) -> None:
        """The story."""
        with pyro.plate("rows", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(len(self.kept)) / len(self.kept)))
            pyro.sample("x", dist.Normal(self.kept[k], 0.1).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Exact."""
        logits = -torch.cdist(x, self.kept).square() / (2 * 0.1**2) + 0 * self.unused
        with pyro.plate("rows", len(x)):
            pyro.sample("k", dist.Categorical(logits=logits))


def memorised(seed: int) -> Case:
    """An implicit database of the training data."""
    train, test = TALES["ppca"].split(seed)
    return as_it_is(Memoriser(train), train, test)


def permuted(seed: int) -> Case:
    """Labels that belong to other rows."""
    (x, label), test = TALES["cvae"].split(seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return TALES["cvae"].fitted(seed, (x, label[order]), test)


def truncated(tale: str, column: int) -> Callable[[int], Case]:
    """Rows with a large number in one column were left out of the fit."""

    def plant(seed: int) -> Case:
        train, test = TALES[tale].split(seed)
        kept = train[:, column] < train[:, column].quantile(0.6)
        return TALES[tale].fitted(seed, some(train, kept), test)

    return plant


def merged(seed: int) -> Case:
    """A climb from a start that takes two of three clouds for one, and halves the third."""
    tale = TALES["gmm"]
    train, test = tale.split(seed)
    story, seen = GMM((2,), 3, posterior="normal"), train.clone()
    left = train[:, 0] < 0
    seen[left] = train[left].mean(0) + 0.02 * (train[left] - train[left].mean(0))
    story.start(seen)
    return tale.fitted(seed, train, test, story, warm_start=True)


def broken(seed: int) -> Case:
    """A datum that is not a number, in data that the story is checked on."""
    case = TALES["vae"].case(seed)
    test = case.test.clone()
    test[17, 2] = math.nan
    return Case(case.run, test, case.train)


def blind() -> HalfBlind:
    """Of the curved data."""
    return HalfBlind((8,), latent=2, posterior="full", hidden=(64, 64))


FAULTS: dict[str, Fault] = {
    **{
        f"{tale}: guide's scale x {factor:g}": moved(tale, factor=factor)
        for tale in ("ppca", "vae", "regression")
        for factor in (0.5, 0.8, 1.25, 2.0)
    },
    **{
        f"{tale}: guide's mean moved by {shift:g} sd": moved(tale, shift=shift)
        for tale in ("ppca", "counts", "regression")
        for shift in (0.25, 0.5)
    },
    "regression: correlated posterior, diagonal guide": Fault(
        "regression", lambda seed: TIED.case(seed), FAMILY
    ),
    "skewed posterior under a normal": Fault("skewed", lambda seed: SKEWED.case(seed), FAMILY),
    "two-humped posterior under a normal": Fault("humps", lambda seed: HUMPS.case(seed), FAMILY),
    "dropped mode of a global latent": Fault("mirrored", lambda seed: MIRRORED.case(seed), FAMILY),
    "vae: collapsed code": refitted("vae", CODE, kl_weight=20.0),
    "ppca: KL weighted 0.5": refitted("ppca", CLOSE, kl_weight=0.5),
    "ppca: KL weighted 2": refitted("ppca", CLOSE, kl_weight=2.0),
    "vae: KL weighted 0.5": refitted("vae", CLOSE, kl_weight=0.5),
    "vae: KL weighted 2": refitted("vae", CLOSE, kl_weight=2.0),
    "linear: plate scale forgotten": refitted("ppca", ("doctor",), Unscaled),
    "linear: a row leaks into others": refitted("ppca", ("doctor",), Leaking),
    "linear: broadcast (N, 1) against (N,)": refitted("ppca", ("doctor",), Broadcast),
    "ppca: noise x 2": Fault("ppca", wrong_noise(2.0), MADE),
    "ppca: noise x 0.5": Fault("ppca", wrong_noise(0.5), MADE),
    "linear: decoder too wide": refitted("ppca", CODE, TooWide, epochs=300),
    "vae: stopped at 5 % of the way": refitted("vae", RESTS, epochs=6),
    "regression: stopped at 5 % of the way": refitted(
        "regression", RESTS, epochs=75, stop="epochs"
    ),
    "ppca: stopped at 5 % of the way": refitted("ppca", RESTS, epochs=5),
    "vae: learning rate too high": refitted("vae", RESTS, learning_rate=0.2),
    "vae: encoder ignores half of x": refitted("vae", ("doctor", *CLOSE), blind),
    "cvae: labels permuted": Fault("cvae", permuted, ("conditions", *MADE)),
    "linear: prior of twice the scale": Fault(
        "ppca", wrong_prior(2.0), (*MADE, "marginal KL", "aggregate posterior")
    ),
    "linear: prior of half the scale": Fault(
        "ppca", wrong_prior(0.5), (*MADE, "marginal KL", "aggregate posterior")
    ),
    "ppca: truncated training data": Fault("ppca", truncated("ppca", 0), MADE),
    "vae: truncated training data": Fault("vae", truncated("vae", 0), MADE),
    "vae: NaN at one datum": Fault("vae", broken, ("doctor",)),
    "linear: memorising decoder": Fault("ppca", memorised, ("memory",)),
    "gmm: two clouds taken for one": Fault("gmm", merged, ("agreement with EM",)),
    "gmm: too many components": refitted(
        "gmm", ("components", "fit"), lambda: GMM((2,), 8, posterior="normal")
    ),
}
