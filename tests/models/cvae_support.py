"""What the tests of the conditional variational autoencoder share."""

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

import ppl_gen as pg
from ppl_gen.likelihoods import LIKELIHOODS
from ppl_gen.models.cvae import CVAE

SHAPE = (1, 5, 6)
SPECS = {**{name: name for name in LIKELIHOODS}, "categorical": "categorical(categories=2)"}
CONDITIONS = ["label(classes=3)", "vector(features=2)", "seen"]


def small(condition: str = "label(classes=3)", **arguments: Any) -> CVAE:
    """A small story in evaluation mode, its first weights always the same."""
    torch.manual_seed(0)
    given = {"shape": SHAPE, "latent": 2, "hidden": (4,), "activation": "tanh", **arguments}
    return CVAE(condition=condition, **given).eval()


def rows_of(condition: str, rows: int = 4) -> tuple[Tensor, Tensor]:
    """Binary images and a column of conditions for them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(2, (rows, *SHAPE), generator=generator).float()
    columns = {
        "label(classes=3)": torch.arange(rows) % 3,
        "vector(features=2)": torch.randn(rows, 2, generator=generator),
        "seen": torch.rand(rows, *SHAPE, generator=generator) < 0.4,
    }
    return x, columns[condition]


def traces(story: CVAE, x: Tensor, condition: Tensor) -> tuple[Any, Any]:
    """The guide, and the model on its draws, with their log-densities."""
    guide: Any = poutine.trace(story.guide).get_trace(x, condition)
    model: Any = poutine.trace(poutine.replay(story.model, guide)).get_trace(x, condition)
    model.compute_log_prob()
    guide.compute_log_prob()
    return guide, model


def untrained(story: Any, data: Any) -> pg.Run:
    """A run of a story with the weights it has: one step of no length."""
    settings = {"warm_start": True, "epochs": 1, "learning_rate": 1e-30, "progress": False}
    return pg.fit(story, data, **settings)
