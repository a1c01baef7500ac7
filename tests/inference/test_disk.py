"""A run on disk comes back as it was, and a damaged one is named."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ppl_gen as pg
from ppl_gen.component import from_configuration
from ppl_gen.inference import files
from ppl_gen.models import PPCA, VAE


@pytest.fixture(scope="module")
def run() -> pg.Run:
    """A small fitted run with a verdict."""
    data = pg.data.load("iris")
    run = pg.fit(VAE(data.shape, latent=2, hidden=(8,)), data, epochs=3, progress=False)
    pg.check(run, data, draws=30)
    return run


def test_a_run_comes_back_with_weights_history_settings_and_verdict(
    run: pg.Run, tmp_path: Path
) -> None:
    run.save(tmp_path / "a")
    back = pg.load(tmp_path / "a")

    before, after = run.pair.state(), back.pair.state()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert back.history["elbo"] == run.history["elbo"]
    assert (back.settings, back.data, back.structure) == (run.settings, run.data, run.structure)
    assert back.verdict is not None
    assert run.verdict is not None
    assert back.verdict.to_json() == run.verdict.to_json()


def test_what_comes_back_gives_the_same_figures(run: pg.Run, tmp_path: Path) -> None:
    run.save(tmp_path / "a")
    test = pg.data.load("iris").test

    assert torch.equal(pg.load(tmp_path / "a").evidence(test, 50).nats, run.evidence(test, 50).nats)


def test_the_record_alone_gives_the_same_fit_again(run: pg.Run, tmp_path: Path) -> None:
    """Story, data, settings and seed are read from it, and the bits agree."""
    run.save(tmp_path / "a")
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    story = from_configuration(record["story"])
    data = pg.data.load(**record["data"]["source"])

    again = pg.fit(story, data, progress=False, **record["settings"])

    before, after = run.pair.state(), again.pair.state()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_holds_no_pickle_and_no_code(run: pg.Run, tmp_path: Path) -> None:
    run.save(tmp_path / "a")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())

    tables = ["history.csv", "iterates.safetensors", "run.json", "verdict.json"]
    assert names == [*tables, "weights.safetensors"]


def test_a_run_is_not_replaced_unless_allowed(run: pg.Run, tmp_path: Path) -> None:
    run.save(tmp_path / "a")
    with pytest.raises(pg.RunError, match="already holds a run"):
        run.save(tmp_path / "a")
    run.save(tmp_path / "a", overwrite=True)

    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_directory_of_something_else_is_never_replaced(run: pg.Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()

    with pytest.raises(pg.RunError, match="exists and is not a run"):
        run.save(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "cat.png").exists()


def test_a_failed_save_leaves_the_run_that_was_there(
    run: pg.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save(tmp_path / "a")
    before = (tmp_path / "a" / "weights.safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(pg.RunError, match="No space left on device"):
        run.save(tmp_path / "a", overwrite=True)

    assert (tmp_path / "a" / "weights.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize(
    "name",
    ["weights.safetensors", "history.csv", "iterates.safetensors", "verdict.json", "run.json"],
)
def test_a_damaged_file_is_named(run: pg.Run, tmp_path: Path, name: str, damage: object) -> None:
    run.save(tmp_path / "a")
    damage(tmp_path / "a" / name)  # type: ignore[operator]
    with pytest.raises(pg.RunError, match=name):
        pg.load(tmp_path / "a")


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(pg.RunError, match="there is no run at"):
        pg.load(tmp_path / "nowhere")


def test_a_record_cannot_name_code_or_leave_its_directory(run: pg.Run, tmp_path: Path) -> None:
    run.save(tmp_path / "a")
    path = tmp_path / "a" / "run.json"
    record = json.loads(path.read_text())
    hostile = {
        "names parts of ppl_gen": {**record, "story": {"class": "os.system", "arguments": {}}},
        "names a file that a run has not": {
            **record,
            "files": {**record["files"], "../../etc/passwd": {"bytes": 1, "sha256": ""}},
        },
        "has format 99": {**record, "format": 99},
        "lacks settings": {k: v for k, v in record.items() if k != "settings"},
    }
    sentences = {
        "names parts of ppl_gen": "can only name parts of ppl_gen",
        "names a file that a run has not": "names a file that a run has not",
        "has format 99": "has format 99",
        "lacks settings": "lacks settings",
    }
    for key, content in hostile.items():
        path.write_text(json.dumps(content))
        with pytest.raises(pg.RunError, match=sentences[key]):
            pg.load(tmp_path / "a")


def test_a_run_of_another_story_says_which_field_differs(run: pg.Run, tmp_path: Path) -> None:
    run.save(tmp_path / "a")

    with pytest.raises(pg.RunError, match="latent is 2 in the run and 3 in the story given"):
        pg.load(tmp_path / "a", story=VAE((4,), latent=3, hidden=(8,)))
    with pytest.raises(pg.RunError, match="another story"):
        pg.load(tmp_path / "a", story=PPCA((4,)))


class Own(pg.Story):
    """A story that no configuration of ppl-gen can rebuild."""

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.loc = torch.nn.Parameter(torch.zeros(width))

    def model(self, x: Tensor) -> None:
        import pyro
        import pyro.distributions as dist

        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(self.loc, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pass


def test_a_story_of_ones_own_has_to_be_given(tmp_path: Path) -> None:
    run = pg.fit(Own(), torch.ones(5, 1), epochs=2, out=tmp_path / "own", progress=False)

    with pytest.raises(pg.RunError, match="a run holds no code"):
        pg.load(tmp_path / "own")
    assert torch.equal(pg.load(tmp_path / "own", story=Own()).story.loc, run.story.loc)
    with pytest.raises(pg.RunError, match=r"'story.loc' has shape \(1,\).*\(2,\)"):
        pg.load(tmp_path / "own", story=Own(width=2))


def test_a_story_from_a_file_can_be_given_as_it_is(tmp_path: Path) -> None:
    x = torch.randn(30, 3)
    story = PPCA((3,), 1)
    pg.fit((story.model, story.guide), x, out=tmp_path / "a", epochs=2, progress=False)
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    record["story"] = {"file": "mine.py", "sha256": "0" * 64}
    (tmp_path / "a" / "run.json").write_text(json.dumps(record))

    assert pg.load(tmp_path / "a", story=(story.model, story.guide)).history


def test_an_autoguide_comes_back_with_its_parameters(tmp_path: Path) -> None:
    """Its parameters exist only once it has run."""
    x = torch.ones(5, 1)

    import pyro
    import pyro.distributions as dist

    def model(x: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        scale = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, scale).expand([1]).to_event(1), obs=x)

    run = pg.fit((model, "AutoNormal"), x, epochs=5, out=tmp_path / "auto", progress=False)
    back = pg.load(tmp_path / "auto", story=(model, "AutoNormal"))

    before, after = run.parameters(), back.parameters()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "scale" in before
