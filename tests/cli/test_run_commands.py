"""What can be asked of a run: check, sample, posterior, report."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from cli_support import STORY, Command
from PIL import Image

import ppl_gen as pg
from ppl_gen.cli.pictures import arrays, grid
from ppl_gen.inference import Finding
from ppl_gen.inference.checks import Check, Subject

MEAN = STORY.replace("EVENT", "pass")


@pytest.fixture
def mean_run(command: Command, rows_csv: Path) -> Path:
    """A run of a story of one's own."""
    Path("mean.py").write_text(MEAN)
    data = ("--data", rows_csv, "--target", "kind")
    assert command("fit", "mean.py", *data, "--epochs", "2", "--out", "mean").status == 0
    return Path("mean")


def test_check_prints_the_verdict_and_puts_it_into_the_run(
    command: Command, digits_run: Path
) -> None:
    said = command("check", digits_run, "--draws", "20")
    assert "checking on the test part of 'digits': 270 rows\n" in said.err
    verdict = pg.load(digits_run).verdict
    assert verdict is not None
    assert said.status == (1 if verdict.status == "fail" else 0)
    assert (verdict.data, verdict.draws) == (270, 20)
    for finding in verdict.findings:
        assert finding.check in said.out
    assert "[/]" not in said.out


def test_of_a_run_that_cannot_be_written_to_the_verdict_is_shown_and_not_kept(
    command: Command, digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, content: bytes) -> None:
        raise pg.RunError(f"{str(path)!r} cannot be written: Permission denied")

    monkeypatch.setattr("ppl_gen.inference.files.write_file", refused)
    said = command("check", digits_run, "--draws", "20")
    assert said.status in (0, 1)
    assert said.out.startswith("verdict: ")
    assert "the verdict is not kept: " in said.err
    assert pg.load(digits_run).verdict is None


def test_check_can_speak_json(command: Command, digits_run: Path) -> None:
    said = command("check", digits_run, "--draws", "20", "--part", "valid", "--json")
    assert json.loads(said.out) == json.loads((digits_run / "verdict.json").read_text())
    assert json.loads(said.out)["data"] == 270


def told(status: Any, check: str = "gap") -> Finding:
    return Finding(check, 3.0, "nats", "at most 0.5", status, "It is far.", "Mend.", "")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Subject]]:
    """Put checks that find what is said in the place of all; their subjects are collected."""

    def put(*looks: Callable[[], Finding]) -> list[Subject]:
        subjects: list[Subject] = []

        def check(number: int, look: Callable[[], Finding]) -> Check:
            def find(subject: Subject) -> list[Finding]:
                subjects.append(subject)
                return [look()]

            return Check(f"question {number}", (f"check {number}",), find)

        module = importlib.import_module("ppl_gen.inference.checks.check")
        monkeypatch.setattr(module, "CHECKS", tuple(check(*pair) for pair in enumerate(looks)))
        return subjects

    return put


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize(
    ("found", "status"), [("pass", 0), ("warn", 0), ("skipped", 0), ("fail", 1)]
)
def test_the_exit_status_says_whether_a_check_fails(
    found: str, status: int, form: tuple[str, ...], checks: Any, command: Command, digits_run: Path
) -> None:
    checks(lambda: told("pass"), lambda: told(found))
    said = command("check", digits_run, *form)

    assert said.status == status
    assert "It is far." in said.out
    assert "exit status is 1 if something fails" in command("check", "--help").out
    assert pg.load(digits_run).verdict is not None


def test_a_failing_check_does_not_end_a_report(
    checks: Any, command: Command, digits_run: Path
) -> None:
    checks(lambda: told("fail"))
    said = command("report", digits_run)

    assert said.status == 0
    assert "It is far." in (digits_run / "report.html").read_text()


def interrupted() -> Finding:
    raise KeyboardInterrupt


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_interrupt_keeps_and_shows_what_was_done(
    form: tuple[str, ...], checks: Any, command: Command, digits_run: Path
) -> None:
    subjects = checks(lambda: told("fail"), interrupted, lambda: told("pass", "never"))
    said = command("check", digits_run, *form)

    assert said.status == 130
    assert "what was checked until then is kept" in said.complaint
    verdict = pg.load(digits_run).verdict
    assert verdict is not None
    assert [(f.check, f.status) for f in verdict.findings] == [
        *(("gap", "fail"), ("check 1", "skipped"), ("check 2", "skipped"))
    ]
    assert len(subjects) == 2
    assert "It is far." in said.out
    assert "It was interrupted." in said.out
    if form:
        assert json.loads(said.out) == json.loads(verdict.to_json())


def test_an_interrupt_before_anything_was_found_leaves_the_verdict_before(
    checks: Any, command: Command, digits_run: Path
) -> None:
    checks(lambda: told("warn"))
    assert command("check", digits_run).status == 0
    before = (digits_run / "verdict.json").read_text()
    checks(interrupted)

    assert command("check", digits_run).status == 130
    assert (digits_run / "verdict.json").read_text() == before


def test_the_rows_of_the_fit_are_given_to_the_checks_where_they_are_to_be_had(
    checks: Any, command: Command, digits_run: Path
) -> None:
    """Other data bring other rows to train on, which are not those of the fit."""
    np.save("other.npy", pg.data.load("digits").test.x[:60].numpy())
    fingerprint = pg.load(digits_run).data.fingerprint
    subjects = checks(lambda: told("pass"))
    command("check", digits_run)
    command("check", digits_run, "--data", "other.npy", "--part", "all")
    record = json.loads((digits_run / "run.json").read_text())
    record["data"]["fingerprint"] = "others"
    (digits_run / "run.json").write_text(json.dumps(record))
    command("check", digits_run)

    own, beside, changed = (subject.train for subject in subjects)
    assert own.fingerprint == beside.fingerprint == fingerprint
    assert subjects[1].rows == 60
    assert changed is None


def test_check_takes_other_data_read_as_the_fitted_ones_were(
    command: Command, digits_run: Path
) -> None:
    """Raw digits are no 0 and 1; they are drawn anew, as in the fit."""
    x = pg.data.load("digits").test.x[:60]
    np.save("other.npy", x.numpy())
    said = command("check", digits_run, "--data", "other.npy", "--part", "all", "--draws", "5")
    assert said.status in (0, 1)
    assert "checking on all rows of 'other.npy': 60 rows\n" in said.err


def test_other_data_are_brought_to_the_scale_of_the_fitted_ones(
    command: Command, rows_csv: Path
) -> None:
    """Rows shifted by 5 of the fitted data's units must not look like the fitted data."""
    fit = ("--standardise", "--target", "kind", "--epochs", "1", "--out", "a")
    assert command("fit", "ppca", "--data", rows_csv, *fit).status == 0
    lines = [line.split(",") for line in rows_csv.read_text().splitlines()[1:]]
    shifted = [",".join([str(float(a) + 5), b, c, kind]) for a, b, c, kind in lines]
    Path("other.csv").write_text("\n".join(["a,b,c,kind", *shifted]) + "\n")
    said = command("posterior", "a", "--data", "other.csv", "--part", "all", "--draws", "2")
    assert said.status == 0
    fitted = pg.data.load(rows_csv, target="kind").train.x[:, 0]
    with xarray.open_datatree("a/posterior.nc", engine="h5netcdf") as tree:
        x = torch.tensor(tree["observed_data"]["x"].values)[:, 0]
    rows = torch.tensor([float(a) + 5 for a, *_ in lines])
    expected = (rows - fitted.mean()) / fitted.std(correction=0)
    torch.testing.assert_close(x.sort().values, expected.sort().values)


def test_sample_writes_the_draws_of_the_run(command: Command, digits_run: Path) -> None:
    assert command("sample", digits_run, "--rows", "3", "--seed", "7").status == 0
    drawn = pg.load(digits_run).sample(3, seed=7)
    with np.load(digits_run / "samples.npz") as kept:
        assert set(kept) == set(drawn)
        for name, value in drawn.items():
            assert np.array_equal(kept[name], value.numpy())


def test_sample_draws_a_picture_of_images_and_refuses_to_of_others(
    command: Command, digits_run: Path, mean_run: Path
) -> None:
    said = command("sample", digits_run, "--rows", "5", "--out", "x.png")
    assert said.status == 0
    with Image.open("x.png") as picture:
        assert picture.size == (26 * 8, 17 * 8)  # 3 across, 2 down, lines between, magnified by 8
    refused = command("sample", mean_run, "--story", "mean.py", "--out", "y.png")
    assert refused.status == 2
    assert refused.complaint.startswith("an observation of this story is not an image")
    assert not Path("y.png").exists()


def test_a_grid_has_each_image_at_its_place() -> None:
    images = torch.arange(3, dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    cells = grid(images)
    assert cells.shape == (3, 5, 5)
    assert [int(cells[0, i, j]) for i, j in ((0, 0), (1, 4), (4, 1), (4, 4), (2, 2))] == [
        0,
        1,
        2,
        128,
        128,
    ]


def test_arrays_of_sites_of_any_name_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(arrays({"file": torch.ones(2), "a.b/c": torch.zeros(1).long()}))
    with np.load(path) as kept:
        assert kept["file"].tolist() == [1, 1]
        assert kept["a.b/c"].dtype == np.int64


def test_posterior_is_in_arviz_schema(command: Command, digits_run: Path) -> None:
    said = command("posterior", digits_run, "--draws", "3", "--out", "post.nc")
    assert said.status == 0
    with xarray.open_datatree("post.nc", engine="h5netcdf") as tree:
        assert tree["posterior"]["z"].shape == (1, 3, 270, 2)


def test_report_checks_first_what_was_not_checked(command: Command, digits_run: Path) -> None:
    pytest.importorskip("ppl_gen.report")
    first = command("report", digits_run)
    assert first.status == 0
    assert "the run has not been checked yet: checking it first\n" in first.err
    assert pg.load(digits_run).verdict is not None
    page = digits_run / "report.html"
    assert "<html" in page.read_text()
    second = command("report", digits_run, "--out", "other.html")
    assert "checking it first" not in second.err
    assert Path("other.html").is_file()


def test_a_run_of_ones_own_story_needs_its_file_and_takes_global_latents_on_the_fitted_rows(
    command: Command, mean_run: Path
) -> None:
    refused = command("check", mean_run)
    assert refused.status == 2
    assert refused.complaint.endswith("a run holds no code: give it, --story mean.py")
    said = command("check", mean_run, "--story", "mean.py", "--draws", "20")
    assert said.status in (0, 1)
    assert "checking on the train part of 'rows.csv': 42 rows\n" in said.err


def test_a_story_file_that_changed_is_noticed(command: Command, mean_run: Path) -> None:
    Path("mean.py").write_text(MEAN + "\n# another thought\n")
    said = command("sample", mean_run, "--story", "mean.py")
    assert said.status == 0
    assert said.complaint == "note: 'mean.py' has changed since the run was fitted"


def test_data_that_cannot_be_found_again_are_asked_for(command: Command, digits_run: Path) -> None:
    record = json.loads((digits_run / "run.json").read_text())
    record["data"]["source"] = None
    (digits_run / "run.json").write_text(json.dumps(record))
    said = command("check", digits_run)
    assert said.status == 2
    assert said.complaint.endswith("where its data came from: name the data with --data")


MISTAKES = {
    "no run": (("check", "gone"), "there is no run at 'gone': check the path"),
    "draws": (("check", "RUN", "--draws", "0"), "draws must be at least 1, got 0"),
    "rows": (("sample", "RUN", "--rows", "0"), "rows must be at least 1, got 0"),
    "kind": (("sample", "RUN", "--out", "x.txt"), "out must end in .npz or .png, got 'x.txt'"),
    "kind of tree": (("posterior", "RUN", "--out", "x"), "out must end in .nc or .zarr, got 'x'"),
    "kind of page": (("report", "RUN", "--out", "x.pdf"), "out must end in .html, got 'x.pdf'"),
    "there already": (("sample", "RUN", "--out", "kept.npz"), "'kept.npz' exists: choose another"),
    "no folder": (("posterior", "RUN", "--out", "no/x.nc"), "there is no directory 'no' to write"),
    "shape": (("check", "RUN", "--data", "iris"), "binarise"),
    "device": (("check", "RUN", "--device", "moon"), "device must be auto, cpu or one"),
    "story": (("check", "RUN", "--story", "gone.py"), "there is no story file 'gone.py'"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_ends_in_one_sentence_and_changes_nothing(
    kind: str, command: Command, digits_run: Path
) -> None:
    arguments, sentence = MISTAKES[kind]
    Path("kept.npz").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}
    said = command(*(str(digits_run) if a == "RUN" else a for a in arguments))
    assert said.status == 2
    assert said.complaint.startswith(sentence)
    assert said.out == ""
    after = {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}
    assert after == before


def test_a_damaged_run_is_refused(command: Command, digits_run: Path) -> None:
    (digits_run / "weights.safetensors").write_bytes(b"")
    said = command("sample", digits_run)
    assert said.status == 2
    assert "weights.safetensors of the run" in said.complaint


def test_the_demo_runs_twice_but_spares_other_runs(
    command: Command, digits_run: Path, monkeypatch: pytest.MonkeyPatch, checks: Any
) -> None:
    """It ends well whatever its checks find: it is to show them."""
    pytest.importorskip("ppl_gen.report")
    from ppl_gen.cli import demo

    monkeypatch.setattr(demo, "SETTINGS", {"epochs": 1, "device": "cpu"})
    checks(lambda: told("fail"))
    for _ in range(2):
        said = command("demo", "--out", "demo")
        assert said.status == 0
        assert "verdict" in said.out
        assert said.out.endswith("report: demo/report.html\n")
    assert pg.load("demo").verdict is not None
    refused = command("demo", "--out", digits_run)
    assert refused.status == 2
    assert "already holds a run" in refused.complaint
