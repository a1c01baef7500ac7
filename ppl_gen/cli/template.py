"""The story that ``ppl-gen new`` writes for a user to start from, and its test."""

import json
import re
from pathlib import Path

from ppl_gen.errors import RunError, StoryError
from ppl_gen.inference.files import write_file


def write_template(path: Path) -> Path:
    """Write a small story, and a test of it beside it.

    Args:
        path: The file to write, ending in ``.py``.

    Returns:
        The path of the test.

    Raises:
        StoryError: If the path does not end in ``.py``.
        RunError: If one of the two exists already, or cannot be written.
    """
    if path.suffix != ".py":
        raise StoryError(f"a story file must end in .py, got {path.name!r}")
    # A test must have a name that Python can import; its story need not.
    test = path.with_name("test_" + re.sub(r"\W", "_", path.stem) + ".py")
    for file in (path, test):
        if file.exists():
            raise RunError(f"{str(file)!r} exists already: choose another name")
    if not path.parent.is_dir():
        raise RunError(f"there is no directory {str(path.parent)!r} to write {path.name!r} to")
    write_file(path, STORY.encode())
    named = TEST.replace("TEST", test.name).replace('"FILE"', json.dumps(path.name))
    write_file(test, named.encode())
    return test


STORY = '''\
"""Every row is a mixture of a few hidden factors, seen through noise with outliers."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppl_gen as pg
from ppl_gen.networks import MLPEncoder
from ppl_gen.posteriors import DiagonalNormal
from ppl_gen.priors import StandardNormal


class RobustFactors(pg.Story):
    """Factor analysis that forgives outliers.

    The story, for each row::

        z ~ Normal(0, I)                          # factors  (latent,)
        x ~ StudentT(df, loc + weight z, scale)   # row      (columns,)

    The guide, which shares one encoder among all rows::

        z ~ Normal(*encoder(x))

    ``weight``, ``loc``, ``scale`` and ``df`` are the same for all rows, and are learned. Small
    ``df`` means heavy tails: a row far from all others then moves the factors little.

    Args:
        center: Mean of each column, where ``loc`` starts.
        spread: Standard deviation of each column, the unit of ``weight`` and ``scale``.
        latent: How many factors.
    """

    def __init__(self, center: Tensor, spread: Tensor, latent: int = 2) -> None:
        super().__init__()
        columns = len(center)
        # What a story knows of its data is kept in buffers: they are saved with its weights.
        self.register_buffer("center", center)
        self.register_buffer("spread", spread)
        self.loc = nn.Parameter(torch.zeros(columns))
        self.weight = nn.Parameter(torch.randn(columns, latent) / math.sqrt(latent))
        self.log_scale = nn.Parameter(torch.zeros(columns))
        self.log_df = nn.Parameter(torch.tensor(1.0))
        self.prior = StandardNormal(latent)
        self.encoder = MLPEncoder((columns,), hidden=(64,))
        self.posterior = DiagonalNormal(self.encoder.width, latent)

    def model(self, x: Tensor) -> None:
        """How the rows came to be; ``x`` has shape (rows, columns)."""
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", self.prior())
            loc = self.center + self.spread * (self.loc + z @ self.weight.T)
            scale = self.spread * self.log_scale.exp()
            df = 1 + self.log_df.exp()  # above 1, so that the law has a mean
            pyro.sample("x", dist.StudentT(df, loc, scale).to_event(1), obs=x.flatten(1))

    def guide(self, x: Tensor) -> None:
        """The story read backwards: from each row to its factors."""
        rows = (x.flatten(1) - self.center) / self.spread
        with pyro.plate("rows", len(x)):
            pyro.sample("z", self.posterior(self.encoder(rows)))


def story(data: pg.data.Dataset) -> RobustFactors:
    """The story for these data: ppl-gen asks for it by this name."""
    rows = data.train.x.flatten(1)
    spread = rows.std(0).clamp(min=1e-3)  # a column that never varies has none
    return RobustFactors(rows.mean(0), spread, latent=2)
'''

TEST = '''\
"""Does the story hold together? Ask it by: python -m pytest TEST"""

from pathlib import Path

import pytest
import torch

import ppl_gen as pg
from ppl_gen.story_file import read_story_file

STORY = Path(__file__).with_name("FILE")


@pytest.fixture
def data() -> pg.data.Dataset:
    """Rows of five columns that two factors and a little noise make up."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(300, 2, generator=generator)
    weight = torch.randn(2, 5, generator=generator)
    noise = torch.randn(300, 5, generator=generator)
    rows = pg.data.Part((10 + factors @ weight + 0.1 * noise,))
    parts = rows[:200], rows[200:250], rows[250:]
    return pg.data.Dataset("made up", pg.data.Support.REAL, *parts)


def test_model_and_guide_fit_each_other_and_the_elbo_rises(data: pg.data.Dataset) -> None:
    """`fit` refuses programs with different sites, and says which site it is."""
    story = read_story_file(STORY, data)

    run = pg.fit(story, data, epochs=20, batch_size=50, learning_rate=0.01, progress=False)

    elbo = run.history["valid_elbo"]
    assert elbo[-1] > elbo[0] + 1  # nats per row


def test_it_draws_rows_of_the_shape_of_the_data(data: pg.data.Dataset) -> None:
    story = read_story_file(STORY, data)
    run = pg.fit(story, data, epochs=1, progress=False)

    drawn = run.sample(rows=7)

    assert drawn["x"].shape == (7, 5)
    assert drawn["x"].isfinite().all()
'''
