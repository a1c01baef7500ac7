"""Which bound is climbed, chosen from the sites that were traced, and the terms it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_gen.errors import StoryError
from ppl_gen.inference.pair import Pair
from ppl_gen.inference.processes import Processes
from ppl_gen.inference.structure import Structure
from ppl_gen.inference.tracing import Batch, Nodes, Weights, blame, guide_of, is_one


class _Recording:
    """Keep the traces of the last evaluation, so that its terms can be read off them."""

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        traces = super()._get_trace(model, guide, args, kwargs)  # type: ignore[misc]
        self.traces.append(traces)
        return traces

    @property
    def traces(self) -> list[Any]:
        return self.__dict__.setdefault("_traces", [])


class RecordedTrace(_Recording, Trace_ELBO):
    """``Trace_ELBO`` that keeps the traces of its last evaluation."""


class _MeanField(_Recording, TraceMeanField_ELBO):
    pass


class _Enum(_Recording, TraceEnum_ELBO):
    pass


def choose_elbo(
    pair: Pair,
    structure: Structure,
    batch: Batch,
    kwargs: dict[str, Any],
    particles: int = 1,
    by_draws: bool = False,
) -> ELBO:
    """Choose the class of ELBO that the traced sites call for.

    ``TraceEnum_ELBO`` where a site is marked for enumeration; ``TraceMeanField_ELBO``, whose KL is
    analytic, where every latent is reparametrised, model and guide name them in the same order and
    Pyro knows the divergence of one of them at least; ``Trace_ELBO`` otherwise, or if the KL is
    asked for ``by_draws``.
    """
    if structure.enumerated:
        return _Enum(num_particles=particles, max_plate_nesting=structure.nesting)
    analytic = not by_draws and _has_analytic_kl(pair, structure, batch, kwargs)
    return (_MeanField if analytic else RecordedTrace)(num_particles=particles)


def _has_analytic_kl(
    pair: Pair, structure: Structure, batch: Batch, kwargs: dict[str, Any]
) -> bool:
    if not structure.same_order or isinstance(
        poutine.unwrap(pair.guide), poutine.messenger.Messenger
    ):
        return False
    known = False
    with torch.no_grad():
        with blame(guide_of(pair)):
            guide = poutine.trace(pair.guide).get_trace(*batch, **kwargs)
        with blame("model"):
            replayed = poutine.replay(pair.model, trace=guide)
            model = poutine.trace(replayed).get_trace(*batch, **kwargs)
    for site in structure.latents:
        if site.name not in guide.nodes or site.name not in model.nodes:
            return False
        q, p = _law(guide, site.name), _law(model, site.name)
        if not q.has_rsample:
            return False
        try:
            divergence = kl_divergence(q, p)
        except NotImplementedError:
            continue
        if divergence.isinf().any():  # q reaches beyond p's support: its draws may not
            return False
        known = True
    return known


def _law(trace: Any, name: str) -> Any:
    return trace.nodes[name]["fn"]


@dataclass(frozen=True)
class Terms:
    """One estimate of the bound, per datum, in nats.

    Attributes:
        loss: What is minimised; carries the gradient.
        elbo: The bound itself, without weights and free bits; NaN if they hide it.
        reconstruction: Expected log-likelihood of the observed sites; NaN where latents are
            enumerated, which leaves no such split.
        divergence: Of codes from a prior that they are matched to, where that takes the KL's
            place.
        accuracy: How often a critic tells them apart, where there is one.
        against: What the critic minimises; carries its gradient.
    """

    loss: Tensor
    elbo: Tensor
    reconstruction: Tensor
    divergence: Tensor | None = None
    accuracy: Tensor | None = None
    against: Tensor | None = None

    @property
    def figures(self) -> Tensor:
        """Loss, ELBO and reconstruction, ``(3,)``, and divergence and accuracy if there are."""
        all_five = (self.loss, self.elbo, self.reconstruction, self.divergence, self.accuracy)
        return torch.stack([term.detach() for term in all_five if term is not None])

    @property
    def kl(self) -> Tensor:
        """Divergence of the guide from the prior: reconstruction less ELBO."""
        return self.reconstruction - self.elbo


class Objective:
    """The negative ELBO per datum of a pair, as a function of a batch.

    Terms inside the data plate count for ``size`` observations whatever the batch, so that every
    mini-batch estimates, without bias, the ELBO of the whole data set; dividing by ``size`` gives
    nats per datum.

    Args:
        pair: The programs.
        structure: Their sites and plates.
        elbo: An estimator of Pyro's.
        size: Number of observations the ELBO is of.
        free_bits: Nats per datum below which the KL of a latent site costs nothing: each site's
            mean over the batch counts as at least that (Kingma et al. 2016, appendix C.8,
            https://arxiv.org/abs/1606.04934, with the sites as groups).

    Raises:
        StoryError: If free bits are asked for where latents are enumerated or not in the guide.
    """

    def __init__(
        self, pair: Pair, structure: Structure, elbo: ELBO, size: int, free_bits: float = 0.0
    ) -> None:
        if free_bits and not isinstance(elbo, RecordedTrace):
            raise StoryError(
                "free_bits needs the KL of every latent site, which "
                f"{type(elbo).__name__.strip('_')} does not keep apart: leave it at 0"
            )
        self.pair = pair
        self.structure = structure
        self.elbo = elbo
        self.size = size
        self.free_bits = free_bits
        self.processes = Processes()

    @property
    def reason(self) -> str:
        """What is climbed and why, in a line."""
        chosen = {
            "Enum": "the ELBO, summed over the values of enumerated sites",
            "MeanField": "the ELBO, with the KL of guide from prior in closed form",
            "RecordedTrace": "the ELBO, with the KL of guide from prior by draws",
        }
        name = type(self.elbo).__name__.strip("_")
        told = chosen.get(name, f"the bound that was given, {name}")
        if name == "RecordedTrace" and not self.structure.latents:
            told = "the log-likelihood, since there is no latent"
        elif name == "RecordedTrace":
            told += ": Pyro has no closed form for it" if not self.free_bits else ", for free_bits"
        return f"climbing {told}"

    @property
    def opponents(self) -> list[Tensor]:
        """Parameters that learn against the story: none."""
        return []

    def __call__(
        self, batch: Batch, kwargs: dict[str, Any], kl_weight: float | Tensor = 1.0, *given: Tensor
    ) -> Terms:
        """Estimate the terms on one batch."""
        traces: list[Any] = getattr(self.elbo, "traces", [])
        traces.clear()
        total = self.elbo(*self.weighted(batch, kl_weight))(*batch, **kwargs)
        if not isinstance(total, Tensor):
            total = torch.tensor(float(total))
        if traces and not self.structure.enumerated:
            reconstruction = self._reconstruction(traces, total)
            elbo = reconstruction - (total.detach() + reconstruction) / kl_weight
        else:
            reconstruction = torch.full_like(total.detach(), torch.nan)
            elbo = -total.detach() if is_one(kl_weight) else reconstruction
        if self.free_bits:
            total = total + self._shortfall(traces, kl_weight)
        traces.clear()
        return Terms(total / self.size, elbo / self.size, reconstruction / self.size)

    def weighted(self, batch: Batch, kl_weight: float | Tensor) -> tuple[Any, Any]:
        """Model and guide with the weights of data plate and KL term applied."""
        factor = self.size / len(batch[0]) if self.structure.batch_plates else 1.0
        guide = self.processes.joint(self.pair.guide, self.structure.data_plates)
        if factor == 1.0 and is_one(kl_weight):
            return self.pair.model, guide
        weights = Weights(self.structure.batch_plates, factor, kl_weight)
        return weights(self.pair.model), weights(guide)

    def _reconstruction(self, traces: list[Any], total: Tensor) -> Tensor:
        terms = [
            node["log_prob_sum"]
            for model, _ in traces
            for node in model.nodes.values()
            if node["type"] == "sample" and node["is_observed"]
        ]
        if not terms:
            return torch.zeros_like(total.detach())
        return torch.stack([torch.as_tensor(t).detach() for t in terms]).sum() / len(traces)

    def _shortfall(self, traces: list[Any], kl_weight: float | Tensor) -> Tensor:
        lack = torch.zeros(())
        for site in self.structure.latents:
            kl = torch.zeros(())
            for model, guide in traces:
                q, p = guide.nodes.get(site.name), model.nodes[site.name]
                if q is not None:
                    kl = kl + (q["log_prob_sum"] - p["log_prob_sum"]) / len(traces)
            lack = lack + torch.relu(kl_weight * self.free_bits * self.size - kl)
        return lack


def culprit(model: Nodes, guide: Nodes) -> str | None:
    """Name the first site whose value or log-density is not finite, guide before model."""
    for program, nodes in (("guide", guide), ("model", model)):
        for name, node in nodes.items():
            given = torch.as_tensor(node["value"])
            try:
                log_prob = node["fn"].log_prob(given)
            except ValueError:
                log_prob = None
            scored = log_prob is not None and bool(log_prob.isfinite().all())
            # Data may be NaN where a law takes that for a value that is missing.
            if not given.isfinite().all() and not (scored and node["is_observed"]):
                return f"the value of site {name!r} in the {program}"
            if log_prob is None:
                return f"the distribution of site {name!r} in the {program}"
            if not scored:
                return f"the log-density of site {name!r} in the {program}"
    return None
