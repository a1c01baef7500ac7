"""Standardised data have one scale."""

import pytest
import torch
from torch.testing import assert_close

from ppl_gen.data import load
from ppl_gen.data.dataset import Dataset, Part
from ppl_gen.data.standardise import standardised
from ppl_gen.data.support import Support
from ppl_gen.errors import DataError


def test_the_train_part_has_mean_zero_and_deviation_one() -> None:
    data = load("wine", standardise=True)

    assert_close(data.train.x.mean(0), torch.zeros(13), atol=1e-5, rtol=0)
    assert_close(data.train.x.std(0, correction=0), torch.ones(13))


def test_valid_and_test_are_moved_as_train_is() -> None:
    raw, data = load("wine"), load("wine", standardise=True)
    loc, scale = raw.train.x.mean(0), raw.train.x.std(0, correction=0)

    assert_close(data.test.x * scale + loc, raw.test.x, rtol=1e-4, atol=1e-3)
    assert_close(data.valid.x * scale + loc, raw.valid.x, rtol=1e-4, atol=1e-3)


def test_an_entry_that_does_not_vary_is_only_centred() -> None:
    part = Part((torch.tensor([[5.0, 1.0], [5.0, 3.0]]),))

    data = standardised(Dataset("two", Support.REAL, part, part, part))

    assert_close(data.train.x, torch.tensor([[0.0, -1.0], [0.0, 1.0]]))


def test_the_source_gives_the_same_data_again() -> None:
    data = load("iris", standardise=True)

    assert load(**data.source).fingerprint == data.fingerprint


def test_data_that_are_not_real_are_refused() -> None:
    with pytest.raises(DataError, match=r"'digits' has support 'unit interval'"):
        load("digits", standardise=True)
