"""The evidence of a VAE by importance sampling, against batched torch by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from benchmarks.speed.contender import Contender, Effort, Peer
from benchmarks.speed.harness import interleave, shortened
from benchmarks.speed.lines import Line, figure_line, ratio_line
from benchmarks.speed.machine import peak_bytes, torch_device, wait
from benchmarks.speed.vae import PIXELS, images

HIDDEN, LATENT = (200, 200), 50
GIB = 2**30
# Draws of one image at once, of 784 elements each: what stays in the cache of a core or two.
TOGETHER = 500


def fitted() -> tuple[Any, Tensor]:
    """A run of one epoch, the same weights every time, and images."""
    import ppl_gen as pg
    from ppl_gen.models import VAE

    x = torch.from_numpy(images(1000))
    story = VAE((PIXELS,), latent=LATENT, likelihood="bernoulli", hidden=HIDDEN)
    return pg.fit(story, x, epochs=1, seed=0, progress=False), x


@dataclass
class OurEvidence(Contender):
    """``run.evidence``.

    Args:
        count: How many images.
        draws: Draws of each.
    """

    count: int
    draws: int

    def prepare(self) -> None:
        self.fitted, x = fitted()
        self.x = x[: self.count]
        self.fitted.evidence(self.x[:10], draws=self.draws, khat=False)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.nats = self.fitted.evidence(self.x, draws=self.draws, khat=False).nats

    def facts(self) -> dict[str, float]:
        return {"peak": peak_bytes() / GIB, "nats": float(self.nats.mean())}


@dataclass
class EvidenceByHand(Contender):
    """One image at a time, some hundred of its draws at once.

    Args:
        count: How many images.
        draws: Draws of each.
    """

    count: int
    draws: int

    def prepare(self) -> None:
        run, x = fitted()
        self.story, self.x = run.story, x[: self.count].to(torch_device())
        self.count, whole = 5, self.count
        self.run(1)
        self.count = whole

    @torch.no_grad()
    def run(self, steps: int) -> None:
        for _ in range(steps):
            law = self.story.posterior(self.story.encoder(self.x)).base_dist
            pairs = zip(self.x[: self.count], law.loc, law.scale, strict=False)
            self.nats = torch.stack([self._of(*pair) for pair in pairs])
        wait()

    def _of(self, x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        parts = []
        for begun in range(0, self.draws, TOGETHER):
            noise = torch.randn(min(TOGETHER, self.draws - begun), len(loc), device=x.device)
            z = loc + scale * noise
            logits = self.story.decoder(z).view(len(z), -1)
            seen = logits @ x - softplus(logits).sum(-1)
            parts.append(seen + 0.5 * (noise.square() - z.square()).sum(-1))
        weights = torch.cat(parts) + scale.log().sum()
        return weights.logsumexp(0) - math.log(self.draws)

    def facts(self) -> dict[str, float]:
        return {"peak": peak_bytes() / GIB, "nats": float(self.nats.mean())}


def rows(effort: Effort) -> list[Line]:
    """Lines of time and of memory."""
    count, draws = (100, 1000) if effort.quick else (1000, 5000)
    work = f"evidence, {draws:,} draws, {count:,} images"
    peer = Peer("batched torch by hand, same weights", EvidenceByHand(count, draws), 1.0)
    contenders = {"ours": OurEvidence(count, draws), "theirs": peer.contender}
    rounds = interleave(contenders, dict.fromkeys(contenders, 1), shortened(effort, 3))
    if rounds.failed:
        return [Line(work, peer.against, bar=1.0, note="; ".join(rounds.failed.values()))]
    ours, theirs = rounds.facts["ours"], rounds.facts["theirs"]
    if abs(ours["nats"] - theirs["nats"]) > 0.1:
        said = f"failed: ours says {ours['nats']:.2f} nats, the other {theirs['nats']:.2f}"
        return [Line(work, peer.against, bar=1.0, note=said)]
    time = ratio_line(work, peer.against, rounds.seconds["ours"], rounds.seconds["theirs"], bar=1.0)
    shown = {"ours": f"{ours['peak']:.2f} GiB", "theirs": f"{theirs['peak']:.2f} GiB"}
    peak = figure_line(work, "peak memory of its process", [ours["peak"]], "GiB", bar=2.0, **shown)
    return [time, peak]
