"""Checkpoints are whole, damaged ones are named, and one process writes at a time."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pyro.infer import Trace_ELBO

import ppl_gen as pg
from ppl_gen.inference import checkpoint, disk, files
from ppl_gen.models import GMM, PPCA

X = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
FIT: dict[str, Any] = {"epochs": 40, "batch_size": 50, "progress": False}


def stop_at(epoch: int, monkeypatch: pytest.MonkeyPatch, out: Path, **options: Any) -> None:
    """Fit until the end of an epoch, with a checkpoint at each."""
    calls = checkpoint.Saver.__call__

    def call(self: Any, training: Any, number: int | None = None) -> None:
        calls(self, training, number)
        if number == epoch:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Saver, "__call__", call)
        with pytest.raises(KeyboardInterrupt):
            pg.fit(PPCA((4,), 2), X, out=out, checkpoint_epochs=1, **{**FIT, **options})


def checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").iterdir())


@pytest.fixture
def unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stop_at(5, monkeypatch, tmp_path / "a")
    return tmp_path / "a"


def test_what_was_packed_is_unpacked() -> None:
    shared = torch.randn(3)
    state = {"a": [1, None, True, float("inf")], "b": {"c": shared, "d": (shared, "text")}}

    plain, tensors = checkpoint.packed(state)
    found = checkpoint.unpacked(plain, tensors)

    assert len(tensors) == 1
    assert found["a"] == state["a"]
    assert torch.equal(found["b"]["c"], shared)
    assert found["b"]["d"][1] == "text"


def test_the_last_two_are_kept_and_an_interrupted_run_can_be_loaded(unfinished: Path) -> None:
    assert [path.name[:8] for path in checkpoints(unfinished)] == ["00000004", "00000005"]
    assert len(pg.load(unfinished).history) == 5


@pytest.mark.parametrize("how", ["cut short", "a flipped byte", "emptied", "removed"])
def test_of_a_damaged_checkpoint_the_one_before_is_used(unfinished: Path, how: str) -> None:
    last = checkpoints(unfinished)[-1]
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"cut short": content[:-9], "a flipped byte": content, "emptied": b""}
    if how == "removed":
        last.unlink()
        run = pg.fit(PPCA((4,), 2), X, resume=unfinished, progress=False)
    else:
        last.write_bytes(damaged[how])
        with pytest.warns(UserWarning, match=f"{last.name[:8]}.*damaged.*the one before"):
            run = pg.fit(PPCA((4,), 2), X, resume=unfinished, progress=False)

    assert len(run.history) == 40
    assert run.history["elbo"] == pg.fit(PPCA((4,), 2), X, **FIT).history["elbo"]


def test_where_none_is_good_each_is_named(unfinished: Path) -> None:
    for path in checkpoints(unfinished):
        path.write_bytes(b"no tensors")
    with pytest.raises(pg.RunError, match=r"no checkpoint of .*00000005.*damaged.*00000004"):
        pg.fit(PPCA((4,), 2), X, resume=unfinished, progress=False)


def test_a_full_disk_is_said_once_and_costs_nothing_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(3, monkeypatch, tmp_path / "a")
    before = {path: path.read_bytes() for path in checkpoints(tmp_path / "a")}

    def full(path: Path, content: bytes) -> None:
        raise pg.RunError(f"{str(path)!r} cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_file", full)
        with pytest.warns(UserWarning, match="No space left on device; the fit goes on") as said:
            run = pg.fit(
                PPCA((4,), 2), X, resume=tmp_path / "a", checkpoint_epochs=1, progress=False
            )
    assert len(said) == 1
    assert len(run.history) == 40
    assert before
    assert not checkpoint.there(tmp_path / "a")  # the run itself could be written


def test_what_cannot_be_resumed_is_said_in_a_sentence(unfinished: Path, tmp_path: Path) -> None:
    pg.fit(PPCA((4,), 2), X, out=tmp_path / "b", **FIT)
    mixed: list[tuple[Any, dict[str, Any], str]] = [
        (PPCA((4,), 2), {"data": X[:100], "resume": unfinished}, "the data must be those"),
        (
            PPCA((4,), 2),
            {"data": X, "validation": X[:9], "resume": unfinished},
            "the validation data must be those",
        ),
        (PPCA((4,), 3), {"data": X, "resume": unfinished}, "latent is 2 in the run and 3"),
        (GMM((4,), 2), {"data": X, "resume": unfinished}, "of another story"),
        (PPCA((4,), 2), {"data": X, "resume": tmp_path / "b"}, "no checkpoint.* its fit is over"),
        (PPCA((4,), 2), {"data": X, "resume": tmp_path / "c"}, "there is no run"),
        (PPCA((4,), 2), {"data": X, "out": unfinished}, "was interrupted: go on with it by resume"),
        (
            PPCA((4,), 2),
            {"data": X, "resume": unfinished, "elbo": Trace_ELBO()},
            "begun with, None, got Trace_ELBO",
        ),
        (
            PPCA((4,), 2),
            {"data": X, "resume": unfinished, "epochs": 9},
            "epochs must be left out with resume",
        ),
        (
            PPCA((4,), 2),
            {"data": X, "resume": unfinished, "out": tmp_path / "d"},
            "out must be left out with resume",
        ),
    ]
    for story, options, said in mixed:
        with pytest.raises(ValueError, match=said):
            pg.fit(story, progress=False, **options)
    assert len(pg.fit(None, X, resume=unfinished, progress=False).history) == 40


def test_a_fit_that_is_overwritten_leaves_no_old_checkpoint(unfinished: Path) -> None:
    run = pg.fit(PPCA((4,), 2), X, out=unfinished, overwrite=True, **{**FIT, "epochs": 3})

    assert not checkpoint.there(unfinished)
    assert len(pg.load(unfinished).history) == len(run.history) == 3


def test_a_second_process_is_refused_and_the_lock_goes_with_the_first(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from ppl_gen.inference.files import alone
        with alone(Path(sys.argv[1])):
            print("in", flush=True)
            time.sleep(600)
        """
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "a")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(pg.RunError, match="another process is writing"):
            pg.fit(PPCA((4,), 2), X, out=tmp_path / "a", **FIT)
        first.kill()

    pg.fit(PPCA((4,), 2), X, out=tmp_path / "a", **FIT)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_half_written_is_swept_away(unfinished: Path) -> None:
    half = unfinished.parent / f".a{files.PARTIAL}xyz"
    half.mkdir()
    files.sweep(unfinished.parent, "[a]")  # the name of another, not a pattern
    assert half.exists()
    (unfinished / "checkpoints" / f".00000009-ab.safetensors{files.PARTIAL}q").write_bytes(b"1")

    pg.fit(PPCA((4,), 2), X, resume=unfinished, progress=False)

    assert [path.name for path in unfinished.parent.iterdir()] == ["a"]


def test_a_fit_that_was_killed_in_its_first_write_may_begin_again(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / f".00000001-ab.safetensors{files.PARTIAL}q").write_bytes(b"1")

    with pytest.raises(pg.RunError, match="no checkpoint to go on from"):
        pg.fit(PPCA((4,), 2), X, resume=tmp_path / "a", progress=False)
    pg.fit(PPCA((4,), 2), X, out=tmp_path / "a", **FIT)

    assert not folder.exists()


def test_an_interrupt_in_the_last_step_is_not_swallowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = disk.put

    def asked(run: pg.Run, path: Path, keep: tuple[str, ...] = ()) -> Path:
        signal.raise_signal(signal.SIGINT)
        return put(run, path, keep)

    monkeypatch.setattr(disk, "put", asked)
    with pytest.raises(KeyboardInterrupt, match="the fit is whole"):
        pg.fit(PPCA((4,), 2), X, out=tmp_path / "a", **FIT)

    assert len(pg.load(tmp_path / "a").history) == 40


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with checkpoint.Interrupts().heard():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


PROGRAM = """
import sys, time, torch
import ppl_gen as pg
from ppl_gen.models import VAE
x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
def slowly(*_):  # to be ended on its way, however busy the machine is
    print("an epoch is over", flush=True)
    time.sleep(0.1)
options = {"resume": sys.argv[1]}
if not sys.argv[2:]:
    options = {"out": sys.argv[1], "epochs": 200, "callback": slowly}
pg.fit(VAE((6,), latent=2, hidden=(8,)), x, progress=False, checkpoint_seconds=0.2, **options)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_process_the_fit_goes_on(tmp_path: Path, number: int) -> None:
    out = tmp_path / "a"
    arguments = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(out)]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdout=pipe, stderr=pipe, bufsize=0) as process:
        while not checkpoint.there(out):
            assert process.poll() is None
            time.sleep(0.02)
        process.stdout.readline()
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 143}.get(signal.Signals(number), -number)
    assert checkpoint.there(out)
    first = len(pg.load(out).history) if number != signal.SIGKILL else 0

    subprocess.run([*arguments, "resume"], check=True, timeout=300)

    found = pg.load(out)
    assert first < len(found.history) == 200
    assert not checkpoint.there(out)
    assert os.listdir(tmp_path).count("a") == 1
