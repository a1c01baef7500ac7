"""The faults in a short form: some are found by the check that should, and a good fit is not."""

import pytest

import ppl_gen as pg
from benchmarks.faults.__main__ import tables
from benchmarks.faults.planted import FAULTS
from benchmarks.faults.stories import TALES, Case

SHORT = (
    "ppca: guide's scale x 0.8",
    "ppca: guide's mean moved by 0.25 sd",
    "ppca: noise x 2",
    "linear: a row leaks into others",
    "linear: prior of twice the scale",
    "ppca: truncated training data",
    "regression: correlated posterior, diagonal guide",
)
# The doctor warns of some of them before the fit, which is what it is for.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def failed(case: Case) -> set[str]:
    verdict = pg.check(
        case.run, case.test, train=case.train, level="full", budget=5.0, progress=False
    )
    return {finding.check for finding in verdict.findings if finding.status == "fail"}


@pytest.mark.parametrize("name", SHORT)
def test_a_planted_fault_is_found_by_a_check_that_should(name: str) -> None:
    assert failed(FAULTS[name].plant(0)) & set(FAULTS[name].found_by)


def test_a_good_fit_is_not_failed() -> None:
    assert not failed(TALES["ppca"].case(100))


def test_there_are_enough_faults_in_enough_stories() -> None:
    assert len(FAULTS) >= 24
    assert len({fault.tale for fault in FAULTS.values()}) >= 4


def test_the_table_counts_what_was_found_and_who_cried_wolf() -> None:
    name = SHORT[0]
    found = {"kind": "fault", "name": name, "seed": 0}
    good = {"kind": "good", "name": "ppca", "seed": 100}
    told = tables(
        [
            {**found, "findings": {"reference": ["fail", 0.2, ""]}},
            {**found, "seed": 1, "findings": {"memory": ["fail", 0.9, ""]}},
            {**good, "findings": {"reference": ["pass", 0.0, ""]}},
            {**good, "seed": 101, "findings": {"reference": ["fail", 0.0, ""]}},
        ]
    )
    assert "Found 2 of 2, 1 by a check that should." in told
    assert "Of 2 good fits 1 have a fail" in told
