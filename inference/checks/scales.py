"""Does a story learn the scale of what it observes?"""

from __future__ import annotations

from contextlib import suppress

import pyro
import torch
from pyro import poutine

from ppl_gen.inference.checks.subject import Subject
from ppl_gen.inference.mismatch import base_of
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.tracing import sample_sites
from ppl_gen.inference.window import Window

ROWS = 64
# What laws call the parameters that tell how far values lie from their mean.
SCALES = ("scale", "scale_tril", "covariance_matrix", "concentration", "total_count", "df")


def learns_scale(subject: Subject, site: str) -> bool | None:
    """Whether a parameter or a latent has a part in the scale of a site's law.

    Found by what a scale has a gradient for.

    Args:
        subject: The run, and the rows.
        site: The observed site.

    Returns:
        None if its law has no scale, or it is not found out.
    """
    run = subject.run
    # What cannot be run here is told of by other checks.
    unvalidated = pyro.validation_enabled(False)
    with suppress(Exception), run.pair.active(), seeded(subject.seed), run.pair.scratch():
        window = Window(run.pair, run.structure, run.kwargs)
        part = next(window.slices(subject.batch, ROWS))
        with window.showing(subject.batch, part) as shown, torch.enable_grad(), unvalidated:
            guide = poutine.trace(run.pair.guide).get_trace(*shown, **run.kwargs)
            for node in sample_sites(guide).values():
                if node["value"].is_floating_point():
                    node["value"] = node["value"].detach().requires_grad_()
            model = poutine.trace(poutine.replay(run.pair.model, trace=guide))
            law = base_of(sample_sites(model.get_trace(*shown, **run.kwargs))[site]["fn"])
            told = [value for n in SCALES if (value := getattr(law, n, None)) is not None]
            return any(value.requires_grad for value in told) if told else None
    return None
