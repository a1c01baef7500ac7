"""``ppl-gen predict``, and what a mixture says on the command line."""

import csv
from pathlib import Path

import pytest
import torch
from cli_support import SMALL, Command

import ppl_gen as pg


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Forty rows, of which the even ones lie far from the odd ones; one cell is missing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator) + 20 * (torch.arange(40) % 2)[:, None]
    cells = [[f"{value:.3f}" for value in row] for row in x.tolist()]
    cells[4][1] = ""
    path = tmp_path / "own.csv"
    path.write_text("a,b\n" + "\n".join(map(",".join, cells)) + "\n")
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    """A written table."""
    with path.open() as file:
        return list(csv.DictReader(file))


def test_rows_of_a_table_are_predicted_in_their_order(command: Command, table: Path) -> None:
    fit = ("fit", "gmm", "--data", table, "--components", "2", "--method", "em", "--out", "g")
    refused = command(*fit)
    assert refused.status == 2
    assert "'b' holds 1 cell missing" in refused.complaint
    assert command(*fit, "--missing", "keep").status == 0

    said = command("predict", "g", "--out", "labels.csv")

    assert said.out == "labels.csv: 40 rows, 2 probabilities each\n"
    found = rows_of(Path("labels.csv"))
    assert [row["row"] for row in found] == [str(i) for i in range(40)]
    even, odd = ({row["predicted"] for row in found[i::2]} for i in (0, 1))
    assert len(even) == len(odd) == 1
    assert even != odd
    run = pg.load("g")
    x = torch.tensor([[1.0, 1.0]])
    assert str(run.story.predict(x).item()) in even


def test_the_number_of_components_that_was_found_is_said(command: Command, table: Path) -> None:
    options = ("--missing", "keep", "--components", "auto", "--most", "5", "--method", "em")
    said = command("fit", "gmm", "--data", table, *options, "--out", "g")
    assert "components: 2, as many as the data call for\n" in said.err
    assert pg.load("g").story.components == 2


def test_classes_are_predicted_by_name(command: Command) -> None:
    options = ("--data", "iris", "--labelled", "6", *SMALL)
    assert command("fit", "m2", *options, "--out", "few").status == 0
    said = command("predict", "few", "--part", "test")
    assert said.status == 0
    found = rows_of(Path("few", "predicted.csv"))
    assert len(found) == 22
    assert {row["predicted"] for row in found} <= {"setosa", "versicolor", "virginica"}
    assert all(
        abs(sum(float(row[f"p({k})"]) for k in ("setosa", "versicolor", "virginica")) - 1) < 1e-4
        for row in found
    )


def test_a_story_without_classes_predicts_nothing(command: Command, digits_run: Path) -> None:
    said = command("predict", digits_run)
    assert said.status == 2
    assert said.complaint.startswith("the story has no classes or components to predict")


def test_new_rows_are_matched_by_the_names_of_their_columns(
    command: Command, table: Path, tmp_path: Path
) -> None:
    fit = ("fit", "gmm", "--data", table, "--components", "2", "--method", "em", "--out", "g")
    assert command(*fit, "--missing", "keep").status == 0
    rows = [line.split(",") for line in table.read_text().splitlines()]
    turned = "\n".join(f"{b},{i},{a}" for i, (a, b) in enumerate(rows[1:])) + "\n"
    (tmp_path / "new.csv").write_text(f"b,number,a\n{turned}")
    assert command("predict", "g", "--out", "own.csv2.csv").status == 0

    said = command("predict", "g", "--data", "new.csv", "--out", "new_labels.csv")

    assert "only the columns that were fitted are taken: a, b" in said.err
    assert Path("new_labels.csv").read_text() == Path("own.csv2.csv").read_text()
    (tmp_path / "less.csv").write_text("b,c\n1,2\n3,4\n5,6\n")
    said = command("predict", "g", "--data", "less.csv", "--out", "no.csv")
    assert said.status == 2
    assert "lacks a" in said.complaint


def test_new_rows_need_no_labels(command: Command, tmp_path: Path) -> None:
    rows = [f"{i % 7}.5,{i % 5}.25,{'ab'[i % 2]}" for i in range(30)]
    (tmp_path / "t.csv").write_text("x,y,kind\n" + "\n".join(rows) + "\n")
    (tmp_path / "new.csv").write_text("x,y\n" + "\n".join(r[:-2] for r in rows) + "\n")
    fit = ("fit", "m2", "--data", "t.csv", "--target", "kind", *SMALL, "--out", "m")
    assert command(*fit).status == 0
    said = command("predict", "m", "--data", "new.csv", "--out", "new_labels.csv")
    assert said.status == 0, said.err
    assert "no column 'kind' of labels" in said.err
    assert len(rows_of(Path("new_labels.csv"))) == 30
