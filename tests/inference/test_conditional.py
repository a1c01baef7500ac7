"""What is asked of a story with a condition: codes under other conditions, and completions."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.models import VAE

SHIFT = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [-5.0, 0.0, 5.0]])
WEIGHT = torch.tensor([[1.0, -1.0, 2.0]])


class Shifted(pg.Story):
    """A linear story whose mean is shifted by a label: x = weight z + shift[label] + noise."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = torch.nn.Parameter(torch.zeros(()))

    def model(self, x: Tensor, label: Tensor) -> None:
        """The story."""
        with pyro.plate("observations", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            loc = z @ WEIGHT + SHIFT[label]
            pyro.sample("x", dist.Normal(loc, self.raw.exp()).to_event(1), obs=x)

    def guide(self, x: Tensor, label: Tensor) -> None:
        """Its exact posterior for noise of deviation 1, and weight of squared length 6."""
        loc = (x - SHIFT[label]) @ WEIGHT.T / 7
        with pyro.plate("observations", len(x)):
            pyro.sample("z", dist.Normal(loc, 7**-0.5).to_event(1))


class Halves(pg.Story):
    """Two equal numbers, of which one may be seen: z is the seen one, or anything."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = torch.nn.Parameter(torch.zeros(()))

    def prior(self, x: Tensor, seen: Tensor) -> dist.Normal:
        """Of the common value, given what was seen."""
        known = seen.any(1, keepdim=True)
        loc = torch.where(seen, x, torch.zeros_like(x)).sum(1, keepdim=True)
        return dist.Normal(loc, torch.where(known, 1e-6, 1.0))

    def model(self, x: Tensor, seen: Tensor) -> None:
        """The story."""
        with pyro.plate("observations", len(x)):
            z = pyro.sample("z", self.prior(x, seen).to_event(1))
            law = dist.Normal(z.expand(*z.shape[:-1], 2), 0.1 * self.raw.exp())
            pyro.sample("x", law.mask(~seen).to_event(1), obs=x)

    def guide(self, x: Tensor, seen: Tensor) -> None:
        """The prior, which is good enough here."""
        with pyro.plate("observations", len(x)):
            pyro.sample("z", self.prior(x, seen).to_event(1))


def as_it_is(story: pg.Story, data: tuple[Tensor, Tensor]) -> pg.Run:
    """A run whose story keeps the weights it has."""
    options = {"epochs": 1, "learning_rate": 1e-12, "progress": False}
    return pg.fit(story, data, warm_start=True, **options)


@pytest.fixture(scope="module")
def labelled() -> tuple[pg.Run, tuple[Tensor, Tensor]]:
    """Twenty rows with labels from 0 to 2."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(20, 3, generator=generator), torch.arange(20) % 3
    return as_it_is(Shifted(), data), data


def test_a_redrawn_row_keeps_its_code_and_changes_its_condition(
    labelled: tuple[pg.Run, tuple[Tensor, Tensor]],
) -> None:
    run, (x, label) = labelled
    code = (x - SHIFT[label]) @ WEIGHT.T / 7

    redrawn = run.redraw((x, label), [0, 1, 2])

    assert_close(redrawn, (code @ WEIGHT)[:, None] + SHIFT)
    assert_close(run.redraw((x, label), torch.tensor([2]))[:, 0], redrawn[:, 2])


@pytest.mark.parametrize("conditions", [3, [[0, 1]]])
def test_conditions_of_another_shape_are_named(
    labelled: tuple[pg.Run, tuple[Tensor, Tensor]], conditions: object
) -> None:
    run, data = labelled
    with pytest.raises(pg.DataError, match=r"conditions must have shape \(C\)"):
        run.redraw(data, conditions)


def test_a_story_without_a_condition_cannot_redraw_or_complete() -> None:
    x = torch.randn(8, 2)
    run = pg.fit(VAE((2,), 1, hidden=(4,)), x, epochs=1, progress=False)
    with pytest.raises(pg.StoryError, match="redraw needs a story with a condition"):
        run.redraw(x, [0])
    with pytest.raises(pg.StoryError, match="conditioned on the seen part"):
        run.complete(x, torch.ones(2, dtype=torch.bool))


@pytest.fixture(scope="module")
def halves() -> pg.Run:
    """A run of :class:`Halves`."""
    x = torch.randn(30, 1, generator=torch.Generator().manual_seed(1)).expand(30, 2)
    return as_it_is(Halves(), (x, torch.tensor([True, False]).expand(30, 2)))


def test_a_completion_keeps_what_was_seen_and_says_what_follows(halves: pg.Run) -> None:
    x = torch.tensor([[3.0, float("nan")], [-1.0, 99.0]])

    found = halves.complete(x, torch.tensor([True, False]), draws=7)

    assert found.draws.shape == (7, 2, 2)
    assert_close(found.draws[:, :, 0], x[:, 0].expand(7, 2), rtol=0, atol=0)
    assert_close(found.mean, torch.tensor([[3.0, 3.0], [-1.0, -1.0]]), rtol=0, atol=1e-4)
    assert_close(found.spread[:, 0], torch.zeros(2), rtol=0, atol=0)
    assert (found.spread[:, 1] < 1e-4).all()


def test_the_spread_of_completions_is_that_of_the_prior_where_nothing_was_seen(
    halves: pg.Run,
) -> None:
    nothing = torch.zeros(2, dtype=torch.bool)

    found = halves.complete(torch.zeros(1, 2), nothing, draws=4000)

    assert_close(found.spread, torch.ones(1, 2), rtol=0, atol=4 / (2 * 4000) ** 0.5)
    everything = halves.complete(torch.ones(1, 2), ~nothing, draws=5)
    assert_close(everything.draws, torch.ones(5, 1, 2), rtol=0, atol=0)


def test_memory_and_rows_taken_at_once_do_not_change_what_is_seen(halves: pg.Run) -> None:
    x = torch.randn(50, 2)
    mask = torch.rand(50, 2) < 0.5
    found = halves.complete(x, mask, draws=20, memory=20_000)
    assert found.draws.shape == (20, 50, 2)
    assert_close(found.draws[:, mask], x[mask].expand(20, -1), rtol=0, atol=0)


def test_a_mask_of_another_shape_is_named(halves: pg.Run) -> None:
    with pytest.raises(pg.DataError, match="mask must have the shape"):
        halves.complete(torch.zeros(3, 2), torch.ones(3, dtype=torch.bool))


def test_replicates_leave_alone_what_the_law_does_not_count(halves: pg.Run) -> None:
    """The seen half is no part of the likelihood, so no replicate of it can be held against it."""
    x = 5 + torch.randn(30, 1) + torch.stack([torch.zeros(30), 0.1 * torch.randn(30)], 1)
    seen = torch.tensor([True, False]).expand(30, 2)

    tree = halves.posterior((x, seen), draws=3)

    replicas = torch.as_tensor(tree["posterior_predictive"]["x"].values[0])
    assert_close(replicas[:, :, 0], x[:, 0].expand(3, 30), rtol=0, atol=0)
    assert not torch.equal(replicas[0, :, 1], x[:, 1])
    assert pg.check(halves, (x, seen), draws=100)["posterior predictive"].status == "pass"


class Ignorant(Shifted):
    """The label shifts the prior of the code, and the guide learns nothing beside it."""

    def prior(self, label: Tensor) -> dist.TorchDistribution:
        """Of the code, given the label."""
        return dist.Normal(5.0 * label[:, None], 1.0).to_event(1)

    def model(self, x: Tensor, label: Tensor) -> None:
        """The story."""
        with pyro.plate("observations", len(x)):
            pyro.sample("z", self.prior(label))
            pyro.sample("x", dist.Normal(0.0, self.raw.exp()).expand([3]).to_event(1), obs=x)

    def guide(self, x: Tensor, label: Tensor) -> None:
        """The prior."""
        with pyro.plate("observations", len(x)):
            pyro.sample("z", self.prior(label))


def test_a_code_that_only_repeats_its_prior_is_idle_however_the_prior_varies(
    labelled: tuple[pg.Run, tuple[Tensor, Tensor]],
) -> None:
    run, data = labelled
    found = pg.check(as_it_is(Ignorant(), data), data, draws=50)["active units"]
    assert (found.figure, found.status) == (0.0, "fail")
    assert pg.check(run, data, draws=50)["active units"].figure == 1.0


def test_what_cannot_be_meant_is_refused(
    labelled: tuple[pg.Run, tuple[Tensor, Tensor]], halves: pg.Run
) -> None:
    run, data = labelled
    with pytest.raises(pg.DataError, match="whole numbers"):
        run.redraw(data, [1.5])
    with pytest.raises(pg.DataError, match="conditions must have shape"):
        run.redraw(data, [])
    assert run.sample(3, data=(data[0][:3], data[1][:3]))["x"].shape == (3, 3)
    with pytest.raises(pg.DataError, match="mask must hold True and False"):
        halves.complete(torch.zeros(3, 2), torch.full((2,), 0.5))
