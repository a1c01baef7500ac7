"""What a user can change of a story of this kind, in words that name its own parts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyro.infer.autoguide import AutoGuide, AutoIAFNormal, AutoMultivariateNormal

from ppl_gen.autoguides import Globals
from ppl_gen.component import Component

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

# Laws whose spread follows from their mean, so that there is no scale to learn.
OF_ONE_NUMBER = ("Poisson", "Binomial", "Geometric", "Exponential", "Bernoulli", "Categorical")
COUNTS = ("Poisson", "Binomial", "Geometric", "GammaPoisson", "NegativeBinomial")
WIDER = {
    "Poisson": "GammaPoisson (negative binomial)",
    "Binomial": "BetaBinomial",
    "Geometric": "NegativeBinomial",
    "Exponential": "Gamma",
}

NARROWER = {"Exponential": "Gamma", "Geometric": "NegativeBinomial"}
SYMMETRIC = ("Normal", "StudentT", "Laplace", "Cauchy", "MultivariateNormal")


@dataclass(frozen=True)
class Advice:
    """What can be changed of the guide of some kind of story, as ends of sentences.

    Attributes:
        correlations: By which its latents can go together.
        another_shape: By which it can be skewed, or have several humps.
        better_means: By which it finds the centre of each posterior.
        prior: By which the latents of new rows are more like those of the data.
        labels: What a story with labels can change besides, in brackets; else empty.
        amortised: Whether an encoder reads the latents of a row off its data.
        covariance: By which components of a mixture have shapes of their own; empty if they have.
    """

    correlations: str = "draw its latents together, from a MultivariateNormal or through a flow"
    another_shape: str = "give the guide a mixture or a flow as its law"
    better_means: str = "fit for longer, or give the encoder more units or layers"
    prior: str = "give the latents a prior that can follow the data's, or the scale they have"
    labels: str = ""
    amortised: bool = True
    covariance: str = ""

    @classmethod
    def of(cls, run: Run) -> Advice:
        """That for the guide of a run, and the shapes of its components."""
        tied = asked_for(run, "covariance") not in (None, "full")
        shapes = "take covariance='full', by which each component has a shape of its own"
        return replace(cls._of_guide(run), covariance=shapes * tied)

    @classmethod
    def _of_guide(cls, run: Run) -> Advice:
        posterior, guide = asked_for(run, "posterior"), run.pair.guide
        alone = run.structure.keeps_rows or isinstance(guide, AutoGuide)
        amortised = run.structure.has_codes and not alone
        means, prior = cls.better_means, cls.prior
        if not amortised:
            means = "fit for longer, at a lower learning rate at the end"
        if isinstance(asked_for(run, "prior"), str):
            prior = "take prior='vamp' or prior='flow', or give the prior the scale of the codes"
        if posterior is not None:
            globals_ = isinstance(getattr(run.story, "globals", None), Globals)
            flow = "AutoIAFNormal" if globals_ else "flow"
            fuller = f"take posterior={flow!r}" if posterior == "full" else "take posterior='full'"
            shape = f"take posterior={flow!r}, or a larger one if it is"
            labels = " (of its labels: proportions='learned')" if asked_for(run, "classes") else ""
            return cls(fuller, shape, means, prior, labels, amortised)
        if isinstance(guide, AutoIAFNormal):
            layers = "take a flow of more layers, or write the story with other coordinates"
            return cls(layers, layers, means, amortised=False)
        if isinstance(guide, AutoMultivariateNormal):
            flow = "take AutoIAFNormal, or write the story with other coordinates"
            return cls(flow, flow, means, amortised=False)
        if isinstance(guide, AutoGuide):
            kind = type(guide).__name__
            fuller = f"take AutoMultivariateNormal in place of {kind}"
            shape = f"take AutoMultivariateNormal or AutoIAFNormal in place of {kind}"
            return cls(fuller, shape, means, amortised=False)
        if _is_single(run):  # it has nothing to go together with
            return cls(cls.another_shape, cls.another_shape, means, prior, amortised=amortised)
        return cls(better_means=means, prior=prior, amortised=amortised)


GENERIC = Advice()


def _is_single(run: Run) -> bool:
    """Whether the guide has one number to tell, of each row or of all rows together."""
    free = [site for site in run.structure.latents if not site.summed]
    own = [site for site in free if site.local] or free
    return [math.prod(s.event_shape) for s in own] == [1] and len(own[0].plates) <= own[0].local


def asked_for(run: Run, argument: str) -> Any:
    """What a story of ours was given for an argument; None for any other story."""
    story = run.story
    if not isinstance(story, Component) or not type(story).__module__.startswith("ppl_gen."):
        return None
    return story.arguments.get(argument)


def sentence(end: str) -> str:
    """The end of a sentence as one of its own."""
    return end[:1].upper() + end[1:]


def spread(site: str, law: str, more: bool, codes: bool, learned: bool | None = None) -> str:
    """What lets observations of a site vary more or less than its law does.

    Args:
        site: Its name.
        law: That of its law.
        more: Whether the data vary more.
        codes: Whether rows have latents of their own.
        learned: Whether the scale of its law is learned; None if that is not known.
    """
    if law in OF_ONE_NUMBER:
        known = (
            "let its latents tell more of it" if codes else "tell its mean by more of what is known"
        )
        others = WIDER if more else NARROWER
        if law in others:
            how, such = "more" if more else "less", f"such as {others[law]}"
            return f"Take a law for {site} that varies {how} than {law}, {such}, or {known}."
        return f"How much a {law} law varies follows from its mean: {known}."
    known = (
        "see why its latents do not follow the data"
        if codes
        else "fit for longer, or widen its prior"
    )
    if learned:
        return f"The scale of {site} is learned, and is not yet that of the data: {known}."
    if learned is None:
        return f"Let the scale of {site} be learned, if it is not; if it is, {known}."
    return f"Let the scale of {site} be learned."


def zeros(site: str, law: str) -> str:
    """What makes more zeros than a law of counts does."""
    return (
        f"Take a law for {site} that makes more zeros than {law} does, such as "
        f"{'GammaPoisson (negative binomial) or ' if law == 'Poisson' else ''}a zero-inflated one."
    )
