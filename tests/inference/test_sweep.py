"""A sweep finds the best, gives up what is behind, survives its end, and refuses what is wrong."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ppl_gen as pg
from ppl_gen.inference import Settings, sweep
from ppl_gen.inference.history import Epoch
from ppl_gen.inference.space import Range, plain_space, read_space
from ppl_gen.inference.sweep import Tried, best_of
from ppl_gen.models import GMM, PPCA
from ppl_gen.report.sweep import page, table_of

pytest.importorskip("optuna")

Make = Callable[[dict[str, Any]], tuple[Any, Settings, pg.data.Dataset]]
SPACE = read_space({"latent": [1, 2], "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}})


def maker(epochs: int = 20) -> Make:
    data = pg.data.load("iris")

    def make(values: dict[str, Any]) -> tuple[Any, Settings, pg.data.Dataset]:
        settings = Settings(epochs=epochs, learning_rate=values["learning_rate"], batch_size=50)
        return PPCA(data.shape, values["latent"]), settings, data

    return make


def begun(folder: Path) -> Path:
    sweep.begin(folder, {"story": "ppca"})
    return folder


def test_the_best_run_is_kept_as_any_other_and_the_rest_as_figures(tmp_path: Path) -> None:
    folder = begun(tmp_path / "s")
    said: list[str] = []
    found = sweep.search(folder, SPACE, maker(), trials=8, tell=said.append)
    best = best_of(found)

    assert best is not None
    assert best.elbo == max(t.elbo for t in found if t.state == "complete")
    assert len(found) == len(said) == 8
    assert {t.state for t in found} == {"complete", "pruned"}
    run = pg.load(folder / "best")
    assert run.settings.learning_rate == best.values["learning_rate"]
    assert run.story.arguments["latent"] == best.values["latent"]
    assert sweep.held_out(run, pg.data.load("iris")) == pytest.approx(best.elbo, abs=1e-5)
    assert list((folder / "trials").iterdir()) == []
    assert sweep.trials_of(folder) == found
    for t in found:
        assert max(t.told) == 100 if t.state == "complete" else max(t.told) < 100
    assert sweep.search(folder, SPACE, maker(), trials=8) == found  # there are enough


def test_the_same_seed_tries_the_same_and_a_sweep_that_is_gone_on_with_too(tmp_path: Path) -> None:
    whole = sweep.search(begun(tmp_path / "a"), SPACE, maker(4), trials=4, seed=5)
    folder = begun(tmp_path / "b")
    sweep.search(folder, SPACE, maker(4), trials=2, seed=5)
    parts = sweep.search(folder, SPACE, maker(4), trials=4, seed=5)
    other = sweep.search(begun(tmp_path / "c"), SPACE, maker(4), trials=4, seed=6)
    assert [t.values for t in whole] == [t.values for t in parts]
    assert [t.elbo for t in whole] == [t.elbo for t in parts]
    assert [t.values for t in whole] != [t.values for t in other]


def test_a_fit_that_was_interrupted_is_gone_on_with_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = begun(tmp_path / "s"), begun(tmp_path / "whole")
    alone = sweep.search(whole, SPACE, maker(), trials=1)
    judged: list[int] = []
    judge = sweep._Judge.__call__

    def interrupted(self: Any, epoch: Epoch) -> bool:
        judged.append(epoch.epoch)
        if len(judged) == 8:
            raise KeyboardInterrupt
        return judge(self, epoch)

    monkeypatch.setattr(sweep._Judge, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep.search(folder, SPACE, maker(), trials=1, checkpoint_seconds=0.0)
    (left,) = sweep.trials_of(folder)
    assert left.state == "running"
    (found,) = sweep.search(folder, SPACE, maker(), trials=1)
    assert found.state == "complete"
    assert judged[8] <= 8  # it did not begin anew
    assert judged[8] > 1
    assert (found.number, found.elbo, found.told) == (0, alone[0].elbo, alone[0].told)


def test_what_fails_is_told_and_does_not_end_the_sweep(tmp_path: Path) -> None:
    make = maker(3)

    def sometimes(values: dict[str, Any]) -> tuple[Any, Settings, pg.data.Dataset]:
        if values["latent"] == 2:
            raise pg.StoryError("two are too many")
        return make(values)

    found = sweep.search(begun(tmp_path / "s"), SPACE, sometimes, trials=6)
    assert {t.state for t in found} == {"complete", "failed"}
    assert {t.error for t in found if t.state == "failed"} == {"two are too many"}
    only = read_space({"latent": [2], "learning_rate": [0.1, 0.2]})
    with pytest.raises(pg.StoryError, match="two are too many"):
        sweep.search(begun(tmp_path / "t"), only, sometimes, trials=2)


def test_a_fit_is_judged_by_the_weights_that_it_kept() -> None:
    """With patience the best epoch's; else, where all rows share the latents, the last."""
    data = pg.data.load("iris")
    story = GMM(data.shape, 2, posterior="normal")
    for patience in (None, 50):
        run = pg.fit(story, data, epochs=30, learning_rate=0.3, patience=patience, progress=False)
        elbo = run.history["valid_elbo"]
        assert elbo[-1] < max(elbo)
        assert sweep.held_out(run, data) == (elbo[-1] if patience is None else max(elbo))


def test_a_space_is_lists_and_ranges_and_names_with_dots() -> None:
    told = {
        "hidden": [[64], [64, 64]],
        "prior": {"components": {"low": 5, "high": 50}},
        "clip": {"low": 0.5, "high": 2.0, "step": 0.5},
    }
    space = read_space(told)
    assert space == {
        "hidden": ("64", "64 64"),
        "prior.components": Range(5, 50),
        "clip": Range(0.5, 2.0, step=0.5),
    }
    assert read_space(plain_space(space)) == space


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({}, "must name at least one option"),
        ({"latent": 3}, "must be a list of values, as in"),
        ({"latent": []}, "must be a list of values"),
        ({"latent": [2, 2]}, "values that differ"),
        ({"a": {"low": 1}}, "needs low and high, numbers"),
        ({"a": {"low": 2, "high": 1}}, "low below high"),
        ({"a": {"low": 1, "high": math.inf}}, "needs low and high, numbers"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "begin above 0"),
        ({"a": {"low": 1, "high": 2, "log": True, "step": 1}}, "leave out step"),
        ({"a": {"low": 1, "high": 9, "step": 0.5}}, "whole step"),
        ({"a": {"low": 1, "high": 9, "setp": 1}}, "has setp"),
        ({"a": {"low": 1, "high": 9, "log": 3}}, "true or false in log"),
    ],
)
def test_a_space_that_cannot_be_read_is_refused(told: dict[str, Any], sentence: str) -> None:
    with pytest.raises(pg.DataError, match=sentence):
        read_space(told)


def test_nothing_is_overwritten_unless_asked_and_damage_is_named(tmp_path: Path) -> None:
    folder = begun(tmp_path / "s")
    sweep.search(folder, SPACE, maker(2), trials=2)
    with pytest.raises(pg.RunError, match="holds a sweep already: go on with it"):
        sweep.begin(folder, {"story": "ppca"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(pg.RunError, match="something else than a sweep"):
        sweep.begin(tmp_path / "other", {"story": "ppca"}, overwrite=True)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"
    shutil.copytree(folder, tmp_path / "cut")
    content = (folder / "study.db").read_bytes()
    (tmp_path / "cut" / "study.db").write_bytes(content[: len(content) // 3])
    with pytest.raises(pg.RunError, match=r"study\.db' cannot be used"):
        sweep.trials_of(tmp_path / "cut")
    (folder / "sweep.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(pg.RunError, match="has format 99"):
        sweep.read_record(folder)
    sweep.begin(folder, {"story": "ppca"}, overwrite=True)
    assert sweep.trials_of(folder) == []
    assert not (folder / "best").exists()


def test_the_page_escapes_what_was_tried_and_shows_every_state() -> None:
    evil = "<script>alert(1)</script>"
    trials = [
        Tried(0, {"a": evil, "b": 0.1}, "complete", -1.0, {50: -2.0, 100: -1.0}, 1.0),
        Tried(1, {"a": "x", "b": 0.2}, "pruned", math.nan, {50: -3.0}, 0.5),
        Tried(2, {"a": "x", "b": 0.3}, "failed", math.nan, error=evil),
        Tried(3, {"a": "y", "b": 0.4}, "running", math.nan),
    ]
    text = page(f"{evil}.py", ["a", "b"], trials)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    for word in ("given up", "under way", "What failed", "the best"):
        assert word in text
    assert page("ppca", ["a"], trials[3:]).count("<section") == 1
    lines = table_of(trials, ["a", "b"]).splitlines()
    assert lines[0] == "trial,state,validation_elbo,seconds,a,b,error"
    assert lines[4] == "3,running,,,y,0.4,"
