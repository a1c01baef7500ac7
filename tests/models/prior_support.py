"""What the tests of stories share about priors: each with every head that it can have."""

import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO

from ppl_gen.posteriors import heads
from ppl_gen.priors import PRIORS, prior


def pairs(features: int, *without: str) -> list[tuple[str, str]]:
    """Priors that are scored and can have so many features, with the names of their heads."""
    told = {
        "product": f"product(parts=('bernoulli(features={features // 2})', 'normal'))",
        "categorical": "categorical(categories=3)",
    }
    found = []
    for name, cls in PRIORS.items():
        if cls.scored and name not in without:
            spec = told.get(name, name)
            names = ("auto", *heads(prior(spec, features).support))
            found += [(spec, head) for head in names if (spec, head) != ("vamp", "point")]
    return found


def loss_of(story: object, *batch: torch.Tensor) -> torch.Tensor:
    """The negative ELBO of one draw, enumerated where the guide asks for it."""
    enumerated = story.posterior.infer  # pyright: ignore[reportAttributeAccessIssue]
    elbo = TraceEnum_ELBO(max_plate_nesting=1) if enumerated else Trace_ELBO()
    return elbo.differentiable_loss(story.model, story.guide, *batch)  # pyright: ignore
