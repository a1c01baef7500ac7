"""Masks: what is seen, in which column it stands, and what it costs."""

import pytest
import torch

import ppl_gen as pg
from ppl_gen.data import Part, mask, masked
from ppl_gen.errors import DataError

SPECS = [
    "quadrants(seen=1)",
    "half(side='top')",
    "box(top=1, left=2, height=2, width=3)",
    "random(seen=0.3)",
]


def _drawn(spec: str) -> str:
    """A mask of 4 x 6 pixels, as a picture."""
    rows = mask(spec, (4, 6), 1)[0].tolist()
    return " ".join("".join("#" if seen else "." for seen in row) for row in rows)


@pytest.mark.parametrize(
    ("spec", "picture"),
    [
        ("quadrants(seen=1)", "...... ...... ###... ###..."),
        ("quadrants(seen=2)", "###... ###... ###... ###..."),
        ("quadrants(seen=3)", "###### ###### ###... ###..."),
        ("half", "###... ###... ###... ###..."),
        ("half(side='right')", "...### ...### ...### ...###"),
        ("half(side='top')", "###### ###### ...... ......"),
        ("half(side='bottom')", "...... ...... ###### ######"),
        ("box(top=1, left=2, height=2, width=3)", "###### ##...# ##...# ######"),
        ("random(seen=0.0)", "...... ...... ...... ......"),
        ("random(seen=1)", "###### ###### ###### ######"),
    ],
)
def test_what_is_marked_is_what_is_seen(spec: str, picture: str) -> None:
    """The quadrants are those of Pyro's example, so that figures can be compared."""
    assert _drawn(spec) == picture


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_of_an_odd_size_the_smaller_half_is_seen(side: str) -> None:
    assert mask(f"half(side={side!r})", (5, 5), 1).sum() == 10


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (3, 4, 6)])
@pytest.mark.parametrize("spec", SPECS)
def test_a_mask_has_the_shape_of_the_observations_and_its_channels_agree(
    spec: str, shape: tuple[int, ...]
) -> None:
    drawn = mask(spec, shape, 7)
    assert drawn.shape == (7, *shape)
    assert drawn.dtype is torch.bool
    channels = drawn.reshape(7, -1, 4, 6)
    assert torch.equal(channels, channels[:, :1].expand_as(channels))


def test_one_mask_for_all_rows_takes_the_memory_of_one() -> None:
    drawn = mask("quadrants(seen=1)", (1, 28, 28), 10**6)
    assert drawn.untyped_storage().nbytes() == 28 * 28


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 5)])
def test_entries_of_any_shape_can_be_seen_at_random(shape: tuple[int, ...]) -> None:
    """5,000 rows of 5 or 120 entries: the share that is seen is within five standard errors."""
    drawn = mask("random(seen=0.3)", shape, 5000, seed=1)
    assert drawn.shape == (5000, *shape)
    error = (0.3 * 0.7 / drawn.numel()) ** 0.5
    assert abs(drawn.float().mean().item() - 0.3) < 5 * error


def test_masks_are_drawn_from_their_seed_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (mask("random(seen=0.5)", (8,), 9, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("binarise", [None, "redraw"])
@pytest.mark.parametrize("spec", ["quadrants(seen=1)", "random(seen=0.3)"])
def test_load_puts_masks_second_and_labels_third_and_tells_how_to_get_them_again(
    spec: str, binarise: str | None
) -> None:
    plain = pg.data.load("digits", binarise=binarise, seed=3)
    data = pg.data.load("digits", binarise=binarise, seed=3, mask=spec)
    again = pg.data.load(**data.source)
    for part, bare in zip(data.parts, plain.parts, strict=True):
        x, seen, labels = part.columns
        assert torch.equal(x, bare.x)
        assert torch.equal(labels, bare.columns[1])
        assert seen.shape == x.shape
        assert part.redraw == bare.redraw
    assert data.fingerprint == again.fingerprint
    assert data.source["mask"] == spec
    assert data.fingerprint == masked(plain, spec, seed=3).fingerprint


def test_a_data_set_is_found_again_only_if_its_masks_are() -> None:
    plain = pg.data.load("digits", seed=3)
    assert pg.data.load(**masked(plain, "half").source).fingerprint == (
        masked(plain, "half", seed=8).fingerprint
    )
    assert masked(plain, "random(seen=0.5)", seed=3).source["mask"] == "random(seen=0.5)"
    assert masked(plain, "random(seen=0.5)", seed=4).source == {}


@pytest.mark.parametrize("as_part", [False, True])
def test_what_is_in_memory_gets_its_masks_as_well(as_part: bool) -> None:
    x, y = torch.rand(5, 4, 4), torch.arange(5)
    part = masked(Part((x, y)) if as_part else (x, y), "half(side='top')")
    assert [tuple(column.shape) for column in part.columns] == [(5, 4, 4), (5, 4, 4), (5,)]
    assert part.x is x
    assert masked(x, "half").columns[1].shape == x.shape


def test_the_masks_of_one_part_differ_from_those_of_another() -> None:
    data = masked(pg.data.load("digits"), "random(seen=0.5)")
    valid, test = data.valid.columns[1], data.test.columns[1]
    assert not torch.equal(valid[:50], test[:50])


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ("thirds", (4, 4), "mask must be one of quadrants, half, box, random, got 'thirds'"),
        ("quadrants", (4, 4), "missing a required argument: 'seen'"),
        ("quadrants(seen=4)", (4, 4), "seen must be 1, 2 or 3 quadrants, got 4"),
        ("quadrants(seen=0)", (4, 4), "seen must be at least 1, got 0"),
        ("quadrants(seen=1.5)", (4, 4), "seen must be a whole number, got 1.5"),
        ("quadrants(seen=1)", (1, 1, 9), "must be at least 2 high and wide, got 1 x 9"),
        ("half(side='left')", (9, 1), "must be at least 2 high and wide"),
        ("half(side='inner')", (4, 4), "left, right, top or bottom, got 'inner'"),
        ("box(top=0, left=0, height=5, width=1)", (4, 4), "goes to row 5 and column 1"),
        ("box(top=-1, left=0, height=5, width=1)", (4, 4), "top must be at least 0, got -1"),
        ("random(seen=1.5)", (4, 4), "seen must be from 0 to 1, got 1.5"),
        ("random(seen='some')", (4, 4), "seen must be a number, got 'some'"),
        ("half", (16,), r"is for images .* got observations of shape \(16,\): take random"),
        ("half(seen=1)", (4, 4), "unexpected keyword argument 'seen'"),
        (3, (4, 4), "mask must be one of quadrants, half, box, random, got 3"),
    ],
)
def test_a_mask_that_cannot_be_made_is_refused(
    spec: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        masked(torch.zeros(3, *shape), spec)


def test_single_numbers_have_no_parts_to_see() -> None:
    with pytest.raises(DataError, match="got single numbers"):
        masked(torch.zeros(3), "random(seen=0.5)")
