"""What is climbed where a prior cannot be scored: codes are matched to its draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from ppl_gen.errors import StoryError
from ppl_gen.inference.estimators.two_sample import SPREADS, mmd
from ppl_gen.inference.objective import Objective, RecordedTrace, Terms
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.structure import Site, Structure
from ppl_gen.inference.tracing import Batch, trace_nodes

Kind = Literal["adversarial", "avb", "mmd"]

# Units of a critic's layers, and how far the angles of its waves turn over a standard deviation.
WIDTH, WAVES = 128, 3.0
# Weight of the critic's squared slope at the prior's draws, without which adversaries circle each
# other (Mescheder et al. 2018, https://arxiv.org/abs/1801.04406).
SMOOTH = 0.01
# Nats that a unit of each divergence counts for. Of the adversarial one, which leaves out what a
# code tells of its datum, four: with one, the reconstruction outweighs the last tenths of a nat by
# which the codes miss the prior; with ten, less is reconstructed. An MMD is a number below 7.
NATS: dict[Kind, float] = {"adversarial": 4.0, "avb": 1.0, "mmd": 50.0}
# The figure of each, as it is told.
NAMES: dict[Kind, str] = {
    "adversarial": "KL of all codes from the prior, by a critic",
    "avb": "KL of guide from prior, by a critic",
    "mmd": "squared MMD of codes and prior",
}
# A critic that is right so often has won: the codes do not follow the prior.
WON = 0.95
# Draws by which the prior's place and scale are known.
LOOKED_AT = 2000


def matched_sites(structure: Structure, objective: str) -> list[Site]:
    """The latents whose codes are matched to draws of their prior, given what was asked for.

    Those whose prior has no density; or, if a match is asked for and all have one, every latent
    that each datum has. None where an ELBO is climbed.

    Raises:
        StoryError: If densities are asked for that there are not, or there is no code to match.
    """
    implicit = [site for site in structure.latents if site.implicit]
    if objective == "elbo" and implicit:
        raise StoryError(
            f"objective='elbo' needs the density of {implicit[0].name!r}, whose prior "
            f"({implicit[0].law}) can only be drawn from: leave it out, or take 'adversarial', "
            "'avb' or 'mmd'"
        )
    if objective in ("auto", "elbo"):
        chosen = implicit
    else:
        chosen = implicit or [s for s in structure.latents if s.local and not s.summed]
        if not chosen:
            raise StoryError(
                f"objective={objective!r} matches the codes of data to a prior, but this story "
                "has no latent for each datum: leave it out"
            )
    for site in chosen:
        if not site.local:
            raise StoryError(
                "a prior without a density must be of a code that each datum has, but "
                f"{site.name!r} stands outside the plate of the data: give it one that is scored"
            )
    if chosen and structure.enumerated:
        raise StoryError(
            "codes that are matched to a prior must be drawn with a gradient, but a site is "
            "enumerated: take a posterior that is drawn, as 'straight-through'"
        )
    return chosen


class Unscored(Messenger):
    """Leave the density of some sites out of every sum."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.names:
            msg["fn"] = MaskedDistribution(msg["fn"], False)


class Critic(nn.Module):
    r"""Tells codes from draws of their prior: how much more probable under the prior, in nats.

    .. math:: c(z) \approx \log p(z) - \log q(z)

    Its first layer is of waves, for a prior can have parts that are narrow: of a plain network of
    this size the gaps between a flower's petals go unseen (Tancik et al. 2020,
    https://arxiv.org/abs/2006.10739).

    Args:
        features: Size of what it looks at.
        loc: What to take off it, ``(features,)``.
        scale: What to divide it by, of the same shape.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, features: int, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)
        self.waves = nn.Linear(features, WIDTH)
        nn.init.normal_(self.waves.weight, std=WAVES / math.sqrt(features))
        nn.init.uniform_(self.waves.bias, -math.pi, math.pi)
        self.second = nn.Linear(WIDTH + features, WIDTH)
        self.third = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Log-odds of each, ``(n,)`` of ``(n, features)``."""
        place = (z - self.loc) / self.scale
        hidden = silu(self.second(torch.cat([self.waves(place).sin(), place], -1)))
        hidden = hidden + silu(self.third(hidden))
        return self.last(hidden).squeeze(-1)


class Matched(Objective):
    r"""Reconstruction, less a divergence between codes and draws of a prior.

    It is no bound on the evidence, and is not called one. The divergence is one of:

    - *adversarial*: a critic learns to tell codes from draws of the prior, and its log-odds
      estimate :math:`\mathrm{KL}(q(z) \Vert p(z))` of all codes together (Makhzani et al. 2016,
      https://arxiv.org/abs/1511.05644).
    - *avb*: the critic sees the datum as well, and its log-odds estimate
      :math:`\mathrm{KL}(q(z \mid x) \Vert p(z))`, so that reconstruction less divergence estimates
      the ELBO (Mescheder et al. 2017, https://arxiv.org/abs/1701.04722).
    - *mmd*: the squared maximum mean discrepancy of codes and draws (Tolstikhin et al. 2018,
      https://arxiv.org/abs/1711.01558).

    Latents with a prior that is scored keep their KL beside it.

    Args:
        pair: The programs.
        structure: Their sites and plates.
        sites: The latents that are matched.
        kind: The divergence.
        example: A batch, to learn sizes and the prior's scale from.
        kwargs: Further arguments of both programs.
        size: Number of observations.
        particles: Draws of the guide a step.

    Raises:
        StoryError: If the guide draws a code without a gradient.
    """

    def __init__(
        self,
        pair: Pair,
        structure: Structure,
        sites: Sequence[Site],
        kind: Kind,
        example: Batch,
        kwargs: dict[str, Any],
        size: int,
        particles: int = 1,
    ) -> None:
        super().__init__(pair, structure, RecordedTrace(num_particles=particles), size)
        self.kind: Kind = kind
        self.names = [site.name for site in sites]
        guide, model = trace_nodes(pair, example, kwargs)
        for name in self.names:
            if name not in guide or not guide[name]["fn"].has_rsample:
                raise StoryError(
                    f"the guide must draw {name!r} with a gradient to match it to a prior, got "
                    f"{type(guide[name]['fn']).__name__ if name in guide else 'no such site'}"
                )
        self.laws = [model[name]["fn"] for name in self.names]
        self.critic: Critic | None = None
        draws = self.draw(LOOKED_AT)
        # Two draws are so far apart on average, squared.
        self.scales = 2 * draws.var(0).sum() * torch.tensor(SPREADS).to(draws)
        if kind != "mmd":
            loc, scale = draws.mean(0), draws.std(0).clamp(min=1e-3)
            if kind == "avb":
                seen = _flat(example[0]).to(loc)
                loc = torch.cat([loc, seen.mean(0)])
                scale = torch.cat([scale, torch.ones_like(seen[0]) * seen.std().clamp(min=1e-3)])
            self.critic = Critic(len(loc), loc, scale).to(loc.device)

    @property
    def reason(self) -> str:
        """What is climbed and why, in a line."""
        named = " and ".join(repr(name) for name in self.names)
        implicit = any(self.structure.sites[name].implicit for name in self.names)
        why = "its prior has no density" if implicit else "that was asked for"
        return (
            f"climbing the reconstruction less the divergence of {named} from its prior "
            f"({self.kind}: {NAMES[self.kind]}), since {why}: this is no ELBO"
        )

    @property
    def opponents(self) -> list[Tensor]:
        """What learns against the story: the critic's parameters."""
        return [] if self.critic is None else list(self.critic.parameters())

    def state(self) -> dict[str, Tensor]:
        """The critic and the scales, which are not the story's."""
        critic = {} if self.critic is None else self.critic.state_dict()
        return {"scales": self.scales, **{f"critic.{n}": v for n, v in critic.items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self.scales = state["scales"].to(self.scales)
        if self.critic is not None:
            named = {n.removeprefix("critic."): v for n, v in state.items() if n != "scales"}
            self.critic.load_state_dict(named)

    def draw(self, rows: int) -> Tensor:
        """Draws of the priors, ``(rows, D)`` of all matched sites together."""
        parts = []
        for law in self.laws:
            each = max(1, law.batch_shape.numel())
            drawn = law.sample(torch.Size([-(-rows // each)]))
            parts.append(drawn.reshape(-1, law.event_shape.numel())[:rows])
        return torch.cat(parts, -1).detach()

    def __call__(
        self, batch: Batch, kwargs: dict[str, Any], kl_weight: float | Tensor = 1.0, *given: Tensor
    ) -> Terms:
        """Estimate the terms on one batch.

        Args:
            batch: Rows.
            kwargs: Further arguments of both programs.
            kl_weight: Factor on the divergence, and on the KL of latents that are scored.
            *given: Draws of the prior, ``(n, D)``.
        """
        (draws,) = given
        traces: list[Any] = self.elbo.traces  # pyright: ignore[reportAttributeAccessIssue]
        traces.clear()
        silent = Unscored(frozenset(self.names))
        elbo: Any = self.elbo
        model, guide = (silent(program) for program in self.weighted(batch, kl_weight))
        rest = elbo(model, guide)(*batch, **kwargs)
        if not isinstance(rest, Tensor):
            rest = torch.tensor(float(rest))
        rest, reconstruction = rest / self.size, self._reconstruction(traces, rest) / self.size
        codes = torch.cat([self._codes(guide) for _, guide in traces])
        traces.clear()
        seen = _flat(batch[0]).to(codes) if self.kind == "avb" else None
        divergence, against, accuracy = self._divergence(codes, draws, seen)
        loss = rest + kl_weight * NATS[self.kind] * divergence
        unknown = torch.full_like(reconstruction, torch.nan)
        return Terms(loss, unknown, reconstruction, divergence.detach(), accuracy, against)

    def _codes(self, guide: Any) -> Tensor:
        values = [guide.nodes[name]["value"] for name in self.names]
        pairs = zip(values, self.laws, strict=True)
        return torch.cat([v.reshape(-1, law.event_shape.numel()) for v, law in pairs], -1)

    def _divergence(
        self, codes: Tensor, draws: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The divergence, what the critic minimises, and how often the critic is right."""
        unknown = codes.new_full((), math.nan)
        if self.critic is None:
            return mmd(codes, draws, self.scales), None, unknown
        fixed = codes.detach()
        if seen is not None:
            of_codes = seen.repeat(len(codes) // len(seen), 1)
            codes, fixed = (torch.cat([z, of_codes], -1) for z in (codes, fixed))
            draws = torch.cat([draws, seen[torch.arange(len(draws)) % len(seen)]], -1)
        divergence = -_frozen(self.critic, codes).mean()
        draws = draws.detach().requires_grad_()
        ours, theirs = self.critic(fixed), self.critic(draws)
        (slope,) = torch.autograd.grad(theirs.sum(), draws, create_graph=True)
        size = codes.shape[-1] if seen is None else codes.shape[-1] - seen.shape[-1]
        steep = (slope[:, :size] * self.critic.scale[:size]).square().sum(1).mean()
        against = softplus(ours).mean() + softplus(-theirs).mean() + SMOOTH * steep / 2
        right = ((ours < 0).double().mean() + (theirs > 0).double().mean()) / 2
        return divergence, against, right.to(divergence).detach()


def _frozen(critic: Critic, codes: Tensor) -> Tensor:
    """What the critic says, as a function of the codes alone."""
    values = {n: v.detach() for n, v in critic.named_parameters()}
    return torch.func.functional_call(critic, values, (codes,))


def _flat(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1).to(torch.get_default_dtype())
