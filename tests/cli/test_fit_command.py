"""``ppl-gen fit``: what it fits, what it says, and that mistakes cost nothing."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_support import SMALL, STORY, Command

import ppl_gen as pg
from ppl_gen.inference import checkpoint
from ppl_gen.models import VAE
from ppl_gen.story_file import read_story_file


def test_a_fit_is_the_one_that_python_makes(command: Command, tmp_path: Path) -> None:
    options = ("--prior", "mixture(components=3)", "--seed", "5", "--batch-size", "64")
    said = command(
        "fit", "vae", "--data", "digits", "--binarise", "fixed", *SMALL, *options, "--out", "a"
    )
    assert said.status == 0
    assert "next: ppl-gen check a\n" in said.out
    assert "likelihood: bernoulli, as the values are binary\n" in said.err
    assert "epoch 2/2" in said.err

    data = pg.data.load("digits", binarise="fixed")
    story = VAE(data.shape, 2, prior="mixture(components=3)", likelihood="bernoulli", hidden=(8,))
    run = pg.fit(story, data, epochs=2, seed=5, batch_size=64, progress=False)
    mine, theirs = run.parameters(), pg.load(tmp_path / "a").parameters()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name])


def test_the_record_of_a_run_makes_the_same_bits_again(
    command: Command, digits_run: Path, tmp_path: Path
) -> None:
    said = command("fit", "--config", digits_run / "run.json", "--out", "again", "--quiet")
    assert said.status == 0
    assert said.err == ""
    weights = "weights.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (digits_run / weights).read_bytes()


def test_a_story_file_fits_a_table_and_again_from_its_record(
    command: Command, rows_csv: Path, tmp_path: Path
) -> None:
    Path("mean.py").write_text(STORY.replace("EVENT", "pass"))
    data = ("--data", rows_csv, "--target", "kind")
    said = command("fit", "mean.py", *data, "--epochs", "2", "--out", "a")
    assert said.status == 0
    assert "next: ppl-gen check a --story mean.py\n" in said.out
    assert "the guide is Pyro's AutoNormal\n" in said.err

    refused = command("fit", "--config", "a", "--out", "b")
    assert refused.status == 2
    assert refused.complaint.endswith("and a record holds no code: give it, --story mean.py")
    again = command("fit", "--config", "a", "--out", "b", "--story", "mean.py")
    assert again.status == 0
    weights = "weights.safetensors"
    assert Path("a", weights).read_bytes() == Path("b", weights).read_bytes()


def test_without_a_place_every_run_gets_a_new_one(command: Command, rows_csv: Path) -> None:
    fit = ("fit", "ppca", "--data", rows_csv, "--epochs", "1", "--quiet")
    for place in ("runs/ppca-rows", "runs/ppca-rows-2"):
        assert command(*fit).out.startswith(f"{place}: 1 epochs in ")
        assert Path(place, "run.json").is_file()


def test_images_are_flattened_for_a_story_of_vectors_and_again_when_checked(
    command: Command,
) -> None:
    said = command("fit", "ppca", "--data", "digits", "--epochs", "1", "--out", "a")
    assert "ppca takes vectors: observations of shape (1, 8, 8) are flattened\n" in said.err
    assert command("fit", "--config", "a", "--out", "b").status == 0
    assert command("posterior", "b", "--draws", "2").status == 0


def test_a_changed_table_is_noticed(command: Command, rows_csv: Path) -> None:
    command("fit", "ppca", "--data", rows_csv, "--epochs", "1", "--out", "a")
    rows_csv.write_text(rows_csv.read_text().replace("a,b,c,kind\n", "a,b,c,kind\n9,9,9,0\n"))
    said = command("fit", "--config", "a", "--out", "b")
    assert said.status == 0
    assert "'rows.csv' has changed since the run was fitted\n" in said.err


DIGITS = ("vae", "--data", "digits")
MISTAKES = {
    "no data": (("vae",), "vae needs data: name them, as in: ppl-gen fit vae --data digits"),
    "unknown data": (("vae", "--data", "digitz"), "there is no data set 'digitz' and no such file"),
    "no file": (("vae", "--data", "x.csv"), "there is no file or folder 'x.csv'; check the path"),
    "prior": ((*DIGITS, "--prior", "x"), "vae cannot be built: prior must be one of"),
    "latent": ((*DIGITS, "--latent", "0"), "vae cannot be built: latent must be at least 1, got 0"),
    "epochs": ((*DIGITS, "--epochs", "0"), "epochs must be at least 1, got 0"),
    "optimizer": ((*DIGITS, "--optimizer", "x"), "optimizer must be one of adam"),
    "device": ((*DIGITS, "--device", "moon"), "device must be auto, cpu or one this machine has"),
    "batch": ((*DIGITS, "--batch-size", "9999"), "batch_size must be at most the number of data"),
    "support": (
        (*DIGITS, "--likelihood", "bernoulli"),
        "site 'x' is Bernoulli and takes 0 or 1, but",
    ),
    "no story file": (("gone.py",), "there is no story file 'gone.py': check the path"),
    "no record": (("--config", "gone"), "there is no run at 'gone'"),
    "no run": (("--config", "x.json"), "'x.json' is not the record of a run: it lacks"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_ends_in_one_sentence_and_leaves_no_run(kind: str, command: Command) -> None:
    arguments, sentence = MISTAKES[kind]
    Path("x.json").write_text("{}")
    said = command("fit", *arguments, "--out", "a")
    assert said.status == 2
    assert said.complaint.startswith(sentence)
    assert said.out == ""
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["x.json"]


@pytest.mark.parametrize(("options", "said"), [((), True), (("--standardise",), False)])
def test_columns_of_different_units_are_noticed(
    command: Command, options: tuple[str, ...], said: bool
) -> None:
    done = command("fit", "ppca", "--data", "wine", "--epochs", "1", "--out", "runs/w", *options)

    assert done.status == 0
    assert ("differ in scale by a factor of" in done.err) is said


def test_a_run_is_replaced_only_when_asked(command: Command, digits_run: Path) -> None:
    before = {path.name: path.read_bytes() for path in digits_run.iterdir()}
    refused = command("fit", *DIGITS, *SMALL, "--out", digits_run)
    assert refused.status == 2
    assert "already holds a run: choose another directory" in refused.complaint
    assert {path.name: path.read_bytes() for path in digits_run.iterdir()} == before
    assert command("fit", *DIGITS, *SMALL, "--out", digits_run, "--overwrite").status == 0
    assert json.loads((digits_run / "run.json").read_text())["data"]["source"]["binarise"] is None


def test_a_fit_that_diverges_says_where_its_last_good_state_is(
    command: Command, rows_csv: Path
) -> None:
    Path("nan.py").write_text(STORY.replace("EVENT", "x = x / 0 - x / 0 if calls > 40 else x"))
    data = ("--data", rows_csv, "--batch-size", "42")
    said = command("fit", "nan.py", *data, "--epochs", "99", "--out", "a", "--quiet")
    assert said.status == 2
    assert said.complaint.startswith("the loss became nan in epoch ")
    assert said.complaint.endswith(", in a")
    assert len(pg.load("a", story=read_story_file("nan.py")).history) > 0


def test_an_interrupted_fit_says_where_its_last_epoch_is(command: Command, rows_csv: Path) -> None:
    Path("stop.py").write_text(STORY.replace("EVENT", "if calls > 40: raise KeyboardInterrupt"))
    data = ("--data", rows_csv, "--batch-size", "42")
    said = command("fit", "stop.py", *data, "--epochs", "99", "--out", "a", "--quiet")
    assert said.status == 130
    assert said.complaint == "interrupted; the last whole epoch is in a"
    Path("stop.py").write_text(STORY.replace("EVENT", "raise KeyboardInterrupt"))
    early = command("fit", "stop.py", *data, "--out", "b", "--quiet")
    assert (early.status, early.complaint) == (130, "interrupted")
    assert not Path("b").exists()


def test_an_interrupted_fit_is_resumed(
    command: Command, rows_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mean.py").write_text(STORY.replace("EVENT", "pass"))
    data = ("--data", rows_csv, "--target", "kind", "--epochs", "6", "--quiet")
    assert command("fit", "mean.py", *data, "--out", "whole").status == 0
    calls = checkpoint.Saver.__call__

    def call(self: Any, training: Any, epoch: int | None = None) -> None:
        self.interrupts.asked = signal.SIGINT if epoch == 3 else None
        calls(self, training, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Saver, "__call__", call)
        said = command("fit", "mean.py", *data, "--out", "a")
    assert said.status == 130
    goes_on = "the last whole epoch is in a; to go on: ppl-gen fit --resume a --story mean.py"
    assert said.complaint == f"interrupted; {goes_on}"

    refused = command("fit", "--resume", "a", "--quiet")
    assert refused.status == 2
    assert refused.complaint.endswith("and a record holds no code: give it, --story mean.py")
    assert command("fit", "--resume", "a", "--story", "mean.py", "--quiet").status == 0
    weights = "weights.safetensors"
    assert Path("a", weights).read_bytes() == Path("whole", weights).read_bytes()
    over = command("fit", "--resume", "a", "--story", "mean.py")
    assert over.status == 2
    assert "its fit is over" in over.complaint


def test_a_bug_is_not_dressed_up_as_a_mistake(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppl_gen.cli.fitting.pg.fit", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("fit", *DIGITS, *SMALL)
