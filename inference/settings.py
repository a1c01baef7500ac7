"""The options of a fit, checked before anything runs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from ppl_gen.component import by_name
from ppl_gen.inference.capture import Compile

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}

# What only steps along a gradient have, which EM does not take.
OF_GRADIENTS = frozenset(
    {
        "learning_rate",
        "optimizer",
        "schedule",
        "clip",
        "particles",
        "objective",
        "kl_weight",
        "kl_warmup",
        "free_bits",
        "patience",
        "stop",
        "ema",
    }
)


@dataclass(frozen=True)
class Way:
    """How far a fit goes unless told.

    Attributes:
        steps: How many there are, at least.
        rate: Learning rate at the start.
    """

    steps: int
    rate: float


# Networks that read codes off rows climb by small steps; the posterior of what all rows share has
# few parameters, and some of them far to go.
OF_CODES, OF_SHARED = Way(3_000, 3e-3), Way(10_000, 2e-2)


@dataclass(frozen=True)
class Settings:
    """How a story is fitted.

    Attributes:
        method: svi, stochastic variational inference, or em, expectation and maximisation, for
            stories that have it, as mixtures do: maximum likelihood, in far fewer passes.
        epochs: Passes over the data; by default as many as make 3,000 steps, or 10,000 where all
            latents are shared by all data, and at least 20; of EM 1,000 at most where a step takes
            all rows, and with stop="settled" ten times as many.
        seed: Draws everything: first weights of a story of ppl-gen, order of rows, noise.
        batch_size: Rows a step; by default 128, or all of them with EM or where the story needs
            all.
        restarts: Starts of EM, of which the one that ends best is kept; by default 5, or 1 where
            the number of components is sought, which begins with more than enough of them.
        tolerance: EM stops when the log-likelihood rises by no more than this, in nats per datum.
        learning_rate: Of the optimiser, at the start; by default 0.003, or 0.02 where all latents
            are shared by all data.
        optimizer: One of torch's: adam, adamw, sgd, rmsprop, adagrad; with options of its own as
            in "adam(eps=1e-4)" or "sgd(momentum=0.9)".
        schedule: How the learning rate goes on: cosine, down to 1 % of it at the end, or constant.
        clip: Largest norm of the gradient of the loss per datum; none by default.
        particles: Draws of the guide a step, over which the ELBO is averaged.
        objective: What is climbed: elbo; or reconstruction less a divergence of codes from draws
            of their prior: adversarial (by a critic of codes), avb (by a critic of codes and data)
            or mmd. By default, auto, the ELBO, or where a prior has no density adversarial.
        kl_weight: Factor on the KL term of every latent, or on the divergence in its place; below
            1 it trades fit of the prior for reconstruction. The ELBO that is shown stays
            unweighted.
        kl_warmup: Epochs over which that factor grows from near 0; by default none, or a quarter
            of all where codes are matched to draws, which otherwise match before they tell of data.
        free_bits: Nats per datum of each latent site's KL that cost nothing.
        patience: Stop after so many epochs without a better validation ELBO; never by default, and
            never during the warm-up.
        stop: When to end: epochs, when so many are over; or settled, as soon as the fit has come to
            rest, so many being the most. The learning rate is then held, whatever the schedule,
            and the weights of the steps are averaged; once these means are at rest, the rate is
            lowered, and again, for as long as that brings anything.
        device: auto, cpu, cuda, or cuda:1.
        compile: How steps are run: auto, as a graph that is compiled where that pays; graph, as a
            graph whose results are those of eager Pyro to the last bit (but for the rounding of
            sums over values that are enumerated and impossible); eager, by Pyro itself.
        precision: Of products of matrices, in torch's words: highest; high (TF32) or medium
            (bfloat16) where the device is faster with it.
        ema: Keep a running mean of the weights, of which each step leaves this share, such as
            0.999: it is what is validated and kept. None by default.
    """

    method: Literal["svi", "em"] = "svi"
    epochs: int | None = None
    seed: int = 0
    batch_size: int | None = None
    restarts: int | None = None
    tolerance: float = 1e-6
    learning_rate: float | None = None
    optimizer: str = "adam"
    schedule: Literal["constant", "cosine"] = "cosine"
    clip: float | None = None
    particles: int = 1
    objective: Literal["auto", "elbo", "adversarial", "avb", "mmd"] = "auto"
    kl_weight: float = 1.0
    kl_warmup: int | None = None
    free_bits: float = 0.0
    patience: int | None = None
    stop: Literal["epochs", "settled"] = "epochs"
    device: str = "auto"
    compile: Compile = "auto"
    precision: Literal["highest", "high", "medium"] = "highest"
    ema: float | None = None

    def __post_init__(self) -> None:
        _check("method", self.method in ("svi", "em"), "svi or em", self.method)
        _check("particles", self.particles >= 1, "at least 1", self.particles)
        for name in ("learning_rate", "kl_weight"):
            value = getattr(self, name)
            _check(name, value is None or 0 < value < math.inf, "positive", value)
        for name in ("kl_warmup", "free_bits", "tolerance"):
            value = getattr(self, name)
            _check(name, value is None or value >= 0, "at least 0", value)
        for name in ("epochs", "batch_size", "restarts", "patience"):
            value = getattr(self, name)
            whole = value is None or (value >= 1 and not isinstance(value, bool))
            _check(name, whole, "at least 1", value)
        _check("clip", self.clip is None or self.clip > 0, "positive", self.clip)
        _check("ema", self.ema is None or 0 < self.ema < 1, "between 0 and 1", self.ema)
        named = ("highest", "high", "medium")
        _check("precision", self.precision in named, "highest, high or medium", self.precision)
        objectives = ("auto", "elbo", "adversarial", "avb", "mmd")
        _check("objective", self.objective in objectives, _or(objectives), self.objective)
        _check("seed", 0 <= self.seed < 2**32, "from 0 to 2**32 - 1", self.seed)
        _check("compile", self.compile in get_args(Compile), "auto, graph or eager", self.compile)
        _check(
            "schedule", self.schedule in ("constant", "cosine"), "constant or cosine", self.schedule
        )
        _check("stop", self.stop in ("epochs", "settled"), "epochs or settled", self.stop)
        for name in ("patience", "ema"):
            if self.stop == "settled" and getattr(self, name) is not None:
                raise ValueError(
                    f"{name} must be left out with stop='settled', which ends the fit and averages "
                    f"the weights by itself, got {getattr(self, name)!r}: leave out one of the two"
                )
        if self.optimizer != type(self).optimizer:  # to make one imports torch's compiler
            self.make_optimizer([torch.zeros(1, requires_grad=True)])
        if self.method == "em":
            self._check_no_gradient_is_set()

    @property
    def rate(self) -> float:
        """The learning rate at the start."""
        return self.learning_rate or OF_CODES.rate

    def epochs_of(self, batches: int, way: Way = OF_CODES) -> int:
        """How many passes there are over so many batches, at most."""
        if self.method == "em" and batches == 1:
            return self.epochs or 1000
        times = 10 if self.stop == "settled" else 1
        return self.epochs or times * max(20, -(-way.steps // batches))

    def chooses_by_validation(self, has_codes: bool) -> bool:
        """Whether rows that are held out tell which weights are best and are kept.

        They do of networks, which can learn rows by heart. A posterior of latents that all rows
        share has a KL that grows with what was learned, and is best when the climb is over; and EM
        ends at its best.

        Args:
            has_codes: Whether each datum has latents of its own.
        """
        return self.method == "svi" and (has_codes or self.patience is not None)

    def kl_weight_at(self, epoch: int) -> float:
        """Factor on the KL term in an epoch, counted from 1."""
        return self.kl_weight * min(1.0, epoch / ((self.kl_warmup or 0) + 1))

    def rate_at(self, progress: float) -> float:
        """Factor on the learning rate when ``progress`` of the fit, from 0 to 1, is done."""
        if self.schedule == "constant":
            return 1.0
        return 0.01 + 0.99 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2

    def make_optimizer(self, parameters: list[Tensor]) -> Optimizer:
        """The optimiser, fused into one kernel where torch can.

        Raises:
            ValueError: If its name is unknown or it does not take these options.
        """
        cls, options = by_name(self.optimizer, OPTIMIZERS, "optimizer")
        if "fused" in inspect.signature(cls).parameters and _can_fuse(parameters):
            options = {"fused": True, **options}
        try:
            return cls(parameters, **{"lr": self.rate, **options})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"optimizer must take its options, got {self.optimizer!r}: {error}"
            ) from error

    def _check_no_gradient_is_set(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in OF_GRADIENTS and value != field.default:
                raise ValueError(
                    f"{field.name} must be left out with method='em', which takes no steps along "
                    f"a gradient, got {value!r}: leave it out, or take method='svi'"
                )

    @contextmanager
    def with_precision(self) -> Iterator[None]:
        """Multiply matrices with the chosen precision inside, and as before outside."""
        outside = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.precision)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(outside)

    def torch_device(self) -> torch.device:
        """The device to work on.

        Raises:
            ValueError: If it is not there.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).split("\n")[0]
            raise ValueError(
                f"device must be auto, cpu or one this machine has, got {self.device!r}: {reason}"
            ) from error
        return device


def _check(name: str, holds: bool, how: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {how}, got {value!r}")


def _or(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _can_fuse(parameters: list[Tensor]) -> bool:
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
