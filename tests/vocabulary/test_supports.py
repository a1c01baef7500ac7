"""Supports in words: one phrase for one set of values, however it is written in torch."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from ppl_gen.supports import in_words

ZEROS, ONES = torch.zeros(2), torch.ones(2)
MIXTURE = dist.MixtureSameFamily(
    dist.Categorical(ONES), dist.Normal(torch.zeros(2, 2), 1.0).to_event(1)
)
WORDS: list[tuple[Constraint, str]] = [
    (constraints.real, "real numbers"),
    (constraints.real_vector, "real numbers"),
    (constraints.independent(constraints.real_vector, 1), "real numbers"),
    (MIXTURE.support, "real numbers"),
    (constraints.positive, "positive numbers"),
    (constraints.positive_integer, "whole numbers from 1 up"),
    (constraints.greater_than(2), "numbers above 2"),
    (constraints.nonnegative, "numbers from 0 up"),
    (constraints.less_than(3.5), "numbers up to 3.5"),
    (constraints.unit_interval, "numbers between 0 and 1"),
    (constraints.interval(-1.0, 2.5), "numbers between -1 and 2.5"),
    (dist.Uniform(ZEROS, ONES).support, "numbers between 0 and 1"),
    (constraints.interval(torch.tensor([0.0, 1.0]), 2), "numbers between a bound and 2"),
    (constraints.integer_interval(0, 3), "whole numbers between 0 and 3"),
    (constraints.simplex, "shares of a whole"),
    (constraints.boolean, "0 or 1"),
    (constraints.one_hot, "one of several"),
    (
        dist.constraints.cat([constraints.one_hot, constraints.real_vector], -1, [3, 2]),
        "one of several (3), then real numbers (2)",
    ),
    (dist.constraints.sphere, "directions (vectors of length 1)"),
    (dist.constraints.ordered_vector, "ordered vector"),
]


@pytest.mark.parametrize(("support", "words"), WORDS)
def test_a_support_has_words(support: Constraint, words: str) -> None:
    assert in_words(support) == words
