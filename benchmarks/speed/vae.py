"""The same VAE by hand in PyTorch, under Pyro's stock loop, and as its matrix products alone.

One hidden layer of 400 tanh units on either side, a code of 20, 784 binary elements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.speed.contender import Contender, Effort, Peer
from benchmarks.speed.harness import contest
from benchmarks.speed.lines import Line
from benchmarks.speed.machine import torch_device, wait
from benchmarks.speed.numpyro_vae import NumPyroVAE
from benchmarks.speed.ours import Ours
from ppl_gen.models import VAE

# A multiple of every batch size, so that no contender has a short last batch.
ROWS = 10_240
PIXELS, HIDDEN, LATENT = 784, 400, 20
RATE = 1e-3
# Steps a round by batch size, of some tenths of a second.
STEPS = {64: 160, 256: 80, 1024: 20}


def images(rows: int) -> np.ndarray:
    """Binary rows, one element in eight lit, as in MNIST; shape ``(rows, 784)``, float32."""
    lit = np.random.default_rng(0).random((rows, PIXELS), dtype=np.float32) < 0.13
    return lit.astype(np.float32)


def story(rows: int = ROWS) -> tuple[VAE, Tensor]:
    """Our VAE and its data."""
    return _vae(), torch.from_numpy(images(rows))


def _vae() -> VAE:
    return VAE((PIXELS,), latent=LATENT, likelihood="bernoulli", hidden=(HIDDEN,))


class WrittenOut(VAE):
    """Our VAE with the law of its code written into the story."""

    def model(self, x: Tensor) -> None:
        """As :meth:`VAE.model`, but for the prior."""
        with pyro.plate("observations", len(x)):
            law = dist.Normal(x.new_zeros(self.latent), x.new_ones(self.latent)).to_event(1)
            z = pyro.sample("z", law)
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)


def written_out(rows: int = ROWS) -> tuple[VAE, Tensor]:
    """The story with the law in it, and its data."""
    made = WrittenOut((PIXELS,), latent=LATENT, likelihood="bernoulli", hidden=(HIDDEN,))
    return made, torch.from_numpy(images(rows))


def priors(effort: Effort) -> list[Line]:
    """What a prior costs through its contract, compiled and in eager Pyro."""
    lines = []
    for how, steps in (("auto", STEPS[256]), ("eager", STEPS[256] // 2)):
        settings = {"batch_size": 256, "learning_rate": RATE, "compile": how}
        peers = [Peer("the same law written into the story", Ours(written_out, settings), 1.03)]
        work = f"StandardNormal through the contract, a step, compile={how}"
        lines += contest(work, Ours(story, settings), peers, steps, effort)
    return lines


class HandVAE(nn.Module):
    """Encoder and decoder, and the loss of a batch, as short as they can be."""

    def __init__(self, hidden: tuple[int, ...] = (HIDDEN,), latent: int = LATENT) -> None:
        super().__init__()
        self.encoder = _tanh_layers(PIXELS, *hidden, 2 * latent)
        self.decoder = _tanh_layers(latent, *reversed(hidden), PIXELS)

    def forward(self, x: Tensor) -> Tensor:
        """Negative ELBO a row, with the divergence in closed form."""
        loc, log_scale = self.encoder(x).chunk(2, -1)
        scale = log_scale.exp()
        z = loc + scale * torch.randn_like(loc)
        error = binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = 0.5 * (scale * scale + loc * loc - 1 - 2 * log_scale).sum()
        return (error + kl) / len(x)


def _tanh_layers(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


@dataclass
class ByHand(Contender):
    """PyTorch with fused Adam; data on the device, batches by an index permutation.

    Args:
        batch_size: Rows a step.
        compiled: Whether ``torch.compile`` takes the loss.
        rows: How many there are.
    """

    batch_size: int
    compiled: bool = False
    rows: int = ROWS

    def prepare(self) -> None:
        torch.manual_seed(0)
        self.x = torch.from_numpy(images(self.rows)).to(torch_device())
        module = HandVAE().to(self.x.device)
        self.loss: Callable[[Tensor], Tensor] = torch.compile(module) if self.compiled else module
        self.optimizer = torch.optim.Adam(module.parameters(), RATE, fused=True)
        self.run(3)

    def run(self, steps: int) -> None:
        total, done = torch.zeros((), device=self.x.device), 0
        while done < steps:
            order = torch.randperm(self.rows, device=self.x.device)
            for index in order.split(self.batch_size)[: steps - done]:
                loss = self.loss(self.x[index])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                total += loss.detach()
                done += 1
        if not total.isfinite():
            raise ArithmeticError(f"the loss must stay finite, got {float(total)}")


class StockVAE(nn.Module):
    """The programs of Pyro's VAE example, its Bernoulli by logits."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(PIXELS, HIDDEN)
        self.loc, self.log_scale = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
        self.decoder = _tanh_layers(LATENT, HIDDEN, PIXELS)

    def model(self, x: Tensor) -> None:
        """Code, then image."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], LATENT)
            z = pyro.sample("latent", dist.Normal(zeros, zeros + 1).to_event(1))
            law = dist.Bernoulli(logits=self.decoder(z), validate_args=False)
            pyro.sample("obs", law.to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Code from image."""
        pyro.module("encoder", nn.ModuleList([self.hidden, self.loc, self.log_scale]))
        with pyro.plate("data", x.shape[0]):
            h = torch.tanh(self.hidden(x))
            law = dist.Normal(self.loc(h), self.log_scale(h).exp()).to_event(1)
            pyro.sample("latent", law)


@dataclass
class StockLoop(Contender):
    """The loop of Pyro's VAE example: its data loader, ``SVI.step``, ``Trace_ELBO``, Pyro's Adam.

    Args:
        batch_size: Rows a step.
    """

    batch_size: int

    def prepare(self) -> None:
        torch.manual_seed(0)
        pyro.clear_param_store()
        data = TensorDataset(torch.from_numpy(images(ROWS)), torch.zeros(ROWS))
        self.loader = DataLoader(data, batch_size=self.batch_size, shuffle=True, num_workers=0)
        vae = StockVAE().to(torch_device())
        self.svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": RATE}), loss=Trace_ELBO())
        self.run(3)

    def run(self, steps: int) -> None:
        loss, done = 0.0, 0
        while done < steps:
            for x, _ in self.loader:
                loss += self.svi.step(x.to(torch_device()))
                done += 1
                if done == steps:
                    break
        wait()


@dataclass
class Products(Contender):
    """The eleven matrix products of a step, forward and backward, and nothing else.

    Location and scale of the code come from one product.

    Args:
        batch_size: Rows a step.
    """

    batch_size: int

    def prepare(self) -> None:
        sizes = ((PIXELS, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, PIXELS))
        make = partial(torch.randn, device=torch_device())
        self.products = []
        for i, (inputs, outputs) in enumerate(sizes):
            x, weight = make(self.batch_size, inputs), make(outputs, inputs)
            y = make(self.batch_size, outputs)
            self.products.append((x, weight.T, torch.empty_like(y)))
            self.products.append((y.T, x, torch.empty_like(weight)))
            if i:
                self.products.append((y, weight, torch.empty_like(x)))
        self.run(3)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            for left, right, out in self.products:
                torch.mm(left, right, out=out)
        wait()


def steps_of(batch_size: int, effort: Effort) -> list[Line]:
    """Ours against everybody, at one batch size."""
    stock_bar = {64: 0.30, 256: 0.40}.get(batch_size)
    peers = [
        Peer("PyTorch by hand, eager, fused Adam, logits", ByHand(batch_size), 0.85),
        Peer("PyTorch by hand, torch.compile", ByHand(batch_size, compiled=True)),
        Peer("NumPyro, jitted epoch", NumPyroVAE(batch_size, ROWS), 0.90),
        Peer("Pyro's stock loop", StockLoop(batch_size), stock_bar),
    ]
    if batch_size == 256:
        peers.append(Peer("its eleven matrix products alone", Products(batch_size), 1.35))
    settings: dict[str, Any] = {"batch_size": batch_size, "learning_rate": RATE}
    ours = Ours(story, settings)
    return contest(f"VAE step, batch {batch_size}", ours, peers, STEPS[batch_size], effort)


def rows(effort: Effort) -> list[Line]:
    """Lines of every batch size."""
    return [line for batch_size in STEPS for line in steps_of(batch_size, effort)]
