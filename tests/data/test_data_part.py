"""Parts: rows that stay together, drawn and fingerprinted."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ppl_gen.data import Part, concat
from ppl_gen.errors import DataError


@pytest.fixture
def part() -> Part:
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(1))
    return Part((x, torch.arange(50)))


@pytest.mark.parametrize("index", [slice(3, 9), torch.tensor([4, 4, 0]), torch.arange(50) > 20])
def test_rows_stay_together_under_every_index(part: Part, index: slice | Tensor) -> None:
    taken = part[index]
    assert taken.y is not None
    assert_close(taken.x, part.x[taken.y])


def test_a_batch_of_a_plain_part_is_its_rows(part: Part) -> None:
    x, y = part.batch(torch.tensor([7, 2]))
    assert_close(x, part.x[[7, 2]])
    assert y.tolist() == [7, 2]


def test_a_redrawn_batch_draws_its_probabilities_with_the_global_generator() -> None:
    """Over 4,000 visits the share of ones lies within 5 standard errors of the probability."""
    probability = torch.tensor([[0.0, 0.2, 0.7, 1.0]])
    part = Part((probability,), redraw=True)
    torch.manual_seed(3)
    (draws,) = part.batch(torch.zeros(4000, dtype=torch.long))
    torch.manual_seed(3)
    (again,) = part.batch(torch.zeros(4000, dtype=torch.long))

    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(draws, again)
    error = (probability[0] * (1 - probability[0]) / 4000).sqrt()
    assert ((draws.mean(0) - probability[0]).abs() <= 5 * error).all()


def test_a_fixed_part_is_drawn_by_its_seed_alone(part: Part) -> None:
    redrawn = Part(part.columns, redraw=True)
    before = torch.get_rng_state()
    first, again, other = redrawn.fixed(0), redrawn.fixed(0), redrawn.fixed(1)

    assert torch.equal(torch.get_rng_state(), before)
    assert not first.redraw
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)
    assert first.y is part.y
    assert part.fixed() is part


def test_the_fingerprint_sees_every_bit_and_nothing_else(part: Part) -> None:
    x, y = part.columns
    changed = x.clone()
    changed[31, 2] = torch.nextafter(changed[31, 2], torch.tensor(2.0))
    others = [
        Part((changed, y)),
        Part((x,)),
        Part((x.reshape(50, 1, 3), y)),
        Part((x.view(torch.int32), y)),
        Part((x, y), redraw=True),
        part[:49],
    ]
    assert Part((x.clone(), y.clone())).fingerprint == part.fingerprint
    assert Part((x.T.contiguous().T, y)).fingerprint == part.fingerprint
    assert len({part.fingerprint, *(other.fingerprint for other in others)}) == 7


def test_a_fingerprint_taken_in_chunks_is_that_of_the_whole(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = part.fingerprint
    monkeypatch.setattr("ppl_gen.data.dataset.CHUNK_BYTES", 40)
    assert part.fingerprint == whole


def test_joining_the_pieces_gives_the_whole(part: Part) -> None:
    assert concat(part[:20], part[20:30], part[30:]).fingerprint == part.fingerprint


def test_drawn_rows_survive_being_joined_with_redrawn_ones(part: Part) -> None:
    redrawn = Part(part.columns, redraw=True)
    fixed = redrawn.fixed()
    joined = concat(redrawn, fixed)
    assert joined.redraw
    assert_close(joined.batch(torch.arange(50, 100))[0], fixed.x)


def test_parts_that_do_not_fit_are_not_joined(part: Part) -> None:
    with pytest.raises(DataError, match="equal shapes and types"):
        concat(part, Part((part.x,)))
    with pytest.raises(DataError, match="hold 0 and 1"):
        concat(part, Part(part.columns, redraw=True))
    with pytest.raises(DataError, match="at least one part"):
        concat()


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ((), "at least one column"),
        ((torch.zeros(5), torch.zeros(4)), "equally many rows, got 5 and 4"),
        ((torch.zeros(0, 3),), "at least one row"),
        ((torch.tensor(1.0),), "scalar"),
        (([1.0, 2.0],), "must be a tensor, got list"),
    ],
)
def test_columns_that_are_no_data_are_refused(columns: tuple, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Part(columns)


def test_a_part_is_not_indexed_by_one_number(part: Part) -> None:
    with pytest.raises(TypeError, match="got 3"):
        part[3]  # pyright: ignore[reportArgumentType]
