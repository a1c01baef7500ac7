"""The harness of the benchmarks: ratios, processes, and the table's place in a file."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.speed import table
from benchmarks.speed.contender import Contender, Effort, Peer
from benchmarks.speed.harness import ContenderError, alone, contest, interleave
from benchmarks.speed.lines import Line, duration, figure_line, foreign_line, ratio_line


@dataclass
class Counter(Contender):
    """One that only counts what it was asked for."""

    needs: tuple[str, ...] = ()
    fails: bool = False

    def prepare(self) -> None:
        self.steps = 0

    def run(self, steps: int) -> None:
        if self.fails:
            raise ArithmeticError("the loss became nan")
        self.steps += steps

    def facts(self) -> dict[str, float]:
        return {"steps": self.steps, "process": os.getpid()}


def test_a_ratio_is_taken_within_each_round() -> None:
    """A machine that slows down for both alike changes no ratio."""
    ours, theirs = [1.0, 10.0, 100.0, 4.0], [2.0, 20.0, 200.0, 4.0]

    line = ratio_line("work", "peer", ours, theirs, bar=0.6)

    assert (line.low, line.ratio, line.high) == (0.5, 0.5, 0.625)
    assert line.verdict == "met"
    assert ratio_line("work", "peer", theirs, ours, bar=0.6).verdict == "**not met**"


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_do_not_match_are_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="as many rounds"):
        ratio_line("work", "peer", ours, theirs)


def test_a_line_without_a_bar_or_figure_says_so() -> None:
    assert figure_line("work", "", [1.0, 3.0], "s").verdict == "shown"
    assert Line("work", "peer", bar=1.0, note="jax not installed").verdict == "jax not installed"


def test_a_line_measured_elsewhere_is_taken_over() -> None:
    row = {"work": "EM", "against": "peer", "ratio": 0.4, "low": 0.3, "high": 0.5, "bar": 0.5}

    assert foreign_line({**row, "unknown": 1}) == Line("EM", "peer", 0.4, 0.3, 0.5, 0.5)


@pytest.mark.parametrize(
    ("seconds", "told"), [(12.34, "12.3 s"), (0.0123, "12.3 ms"), (4.5e-5, "45 µs")]
)
def test_durations_are_told_in_a_unit_of_their_size(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_everybody_takes_the_same_steps_in_a_process_of_its_own() -> None:
    contenders = {"a": Counter(), "b": Counter()}

    rounds = interleave(contenders, {"a": 2, "b": 3}, Effort(rounds=4))

    assert {name: len(seconds) for name, seconds in rounds.seconds.items()} == {"a": 4, "b": 4}
    assert [rounds.facts[name]["steps"] for name in "ab"] == [8, 12]
    assert len({os.getpid(), *(facts["process"] for facts in rounds.facts.values())}) == 3


def test_who_is_missing_or_fails_is_left_out_and_says_so() -> None:
    peers = [
        Peer("absent", Counter(needs=("no_such_module",)), 0.5),
        Peer("broken", Counter(fails=True)),
        Peer("sound", Counter(), 1e9),
    ]

    absent, broken, sound = contest("work", Counter(), peers, 1, Effort(rounds=2))

    assert absent == Line("work", "absent", bar=0.5, note="no_such_module not installed")
    assert broken.note == "failed: ArithmeticError: the loss became nan"
    assert broken.ratio is None
    assert sound.verdict == "met"


def test_a_function_alone_gives_its_value_or_its_error() -> None:
    assert alone(os.getpid) != os.getpid()
    with pytest.raises(ContenderError, match="ValueError"):
        alone(int, "no number")


def test_the_table_has_a_cell_for_each_of_its_heads() -> None:
    lines = [Line("a | b", "peer", note="absent"), figure_line("c", "d", [0.001], "nats", bar=0.01)]

    rows = table.table(lines).split("\n")

    assert {row.count("|") for row in rows} == {rows[0].count("|")}


def test_what_falls_short_has_its_reason_below_the_table() -> None:
    work = "VAE step, batch 64"
    missed, met, unknown = (
        Line(work, "NumPyro, jitted epoch", 1.1, 1.0, 1.2, bar=0.9),
        Line(work, "Pyro's stock loop", 0.2, 0.2, 0.2, bar=0.3),
        Line("another", "peer", 2.0, 2.0, 2.0, bar=1.0),
    )
    text = table.section([missed, met, unknown], "1 round")
    _, below = text.split("Where a bar is not met:")
    assert f"- {work}, against NumPyro, jitted epoch: Nearly all" in below
    assert "stock loop:" not in below
    assert "- another, against peer: not looked into yet." in below
    assert "Where" not in table.section([met], "1 round")


def test_the_section_is_replaced_whole_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\nbefore\n")
    table.write(path, "first")
    path.write_text(path.read_text() + "\nafter\n")
    mode = path.stat().st_mode

    table.write(path, "second\nof two lines")

    wanted = f"{table.BEGIN}\nsecond\nof two lines\n{table.END}"
    assert path.read_text() == f"# Results\n\nbefore\n\n{wanted}\n\nafter\n"
    assert path.stat().st_mode == mode
    assert [p.name for p in tmp_path.iterdir()] == ["RESULTS.md"]


@pytest.mark.parametrize(
    "text", [table.BEGIN, f"{table.END}\n{table.BEGIN}", f"{table.BEGIN}{table.BEGIN}{table.END}"]
)
def test_a_file_with_broken_markers_stays_as_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text(text)

    with pytest.raises(ValueError, match="must hold"):
        table.write(path, "content")

    assert path.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["RESULTS.md"]
