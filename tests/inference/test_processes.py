"""Several processes make the steps that one would make with the whole batch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppl_gen as pg
from ppl_gen.inference import checkpoint
from ppl_gen.inference.processes import Processes, _Joint, follows
from ppl_gen.models import GMM, VAE

pytest.importorskip("lightning_fabric")

SCRIPT = '''
import sys
import pyro
import pyro.distributions as dist
import torch
import ppl_gen as pg
from ppl_gen.models import CVAE, VAE

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
x = torch.randn(192, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
labels = torch.arange(192) % 3


def model(x):
    """A latent of all rows, one of each, and a parameter."""
    loc = pyro.sample("loc", dist.Normal(torch.zeros(5), 3.0).to_event(1))
    scale = pyro.param("scale", torch.ones(5), constraint=dist.constraints.positive)
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(loc + z[..., None], scale).to_event(1), obs=x)


def guide(x):
    loc, weight = pyro.param("l", torch.zeros(5)), pyro.param("w", torch.full((5,), 0.1))
    pyro.sample("loc", dist.Normal(loc, 0.1).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x @ weight, 0.5))


kind, out, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])
resume = {"resume": out} if len(sys.argv) > 4 and sys.argv[4] == "resume" else {}
stories = {
    "vae": lambda: (VAE((5,), latent=2, hidden=(8,)), x),
    "functions": lambda: ((model, guide), x),
    "cvae": lambda: (CVAE((5,), "label(classes=3)", latent=2, hidden=(8,)), (x, labels)),
}
story, data = stories[kind]()
options = {} if resume else {"epochs": epochs, "batch_size": 32, "validation": data}
if resume:
    options["validation"] = data
run = pg.fit(
    story, data, progress=False, out=None if resume else out, checkpoint_seconds=0.2, **resume,
    **options,
)
'''


def script(folder: Path) -> Path:
    """The script that all processes run."""
    path = folder / "script.py"
    path.write_text(SCRIPT)
    return path


def started(count: int, folder: Path, *arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """So many processes, started by torchrun; one alone without it."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={count}", "--rdzv-backend=c10d"]
    launcher += ["--rdzv-endpoint=localhost:0"]
    command = [sys.executable, *(launcher if count > 1 else []), str(script(folder))]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def done(process: subprocess.Popen[str]) -> None:
    """Wait until it is over, and well."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]


@pytest.mark.parametrize(("kind", "counts"), [("vae", (2, 4)), ("functions", (2,)), ("cvae", (2,))])
def test_weights_after_a_hundred_steps_are_those_of_one_process(
    tmp_path: Path, kind: str, counts: tuple[int, ...]
) -> None:
    for count in (1, *counts):
        done(started(count, tmp_path, kind, tmp_path / str(count), 17))

    story = (1, *counts)
    runs = {n: left_by(tmp_path / str(n)) for n in story}
    for count in counts:
        for name, value in runs[1][0].items():
            torch.testing.assert_close(runs[count][0][name], value, rtol=1e-5, atol=1e-5)
        ours, theirs = (torch.tensor(runs[n][1]) for n in (count, 1))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def left_by(path: Path) -> tuple[dict[str, torch.Tensor], list[list[float]]]:
    """Weights and curves of a run on disk."""
    import csv

    from safetensors.torch import load_file

    with (path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    curves = [[float(row[name]) for row in rows] for name in ("elbo", "valid_elbo")]
    return load_file(path / "weights.safetensors"), curves


def test_a_killed_process_ends_the_others_with_a_word_and_any_number_goes_on(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    whole = started(1, tmp_path, "vae", tmp_path / "whole", 240)
    process = started(2, tmp_path, "vae", out, 240, start_new_session=True)
    deadline = time.time() + 120
    while not checkpoint.there(out) and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    children = subprocess.run(
        ["pgrep", "-f", str(tmp_path / "script.py")], capture_output=True, text=True, check=True
    )
    ranks = [
        int(pid)
        for pid in children.stdout.split()
        if "torch.distributed.run" not in Path(f"/proc/{pid}/cmdline").read_text()
        and f"{out}\0" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    assert len(ranks) == 2
    os.kill(max(ranks), signal.SIGKILL)

    _, said = process.communicate(timeout=120)
    done(whole)
    done(started(4, tmp_path, "vae", out, 240, "resume"))  # begun by two

    assert process.returncode != 0
    assert "another process of this fit has ended" in said or "SIGKILL" in said or "-9" in said
    ours, theirs = left_by(out), left_by(tmp_path / "whole")
    for name, value in theirs[0].items():
        torch.testing.assert_close(ours[0][name], value, rtol=1e-3, atol=1e-3)


def test_what_takes_all_rows_together_is_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["ppl_gen.inference.fit"]  # whose name is also that of the function
    monkeypatch.setattr(module, "joined", lambda *_: Processes(0, 2))
    x = torch.randn(40, 3)
    for story, options, said in (
        (GMM((3,), 2), {"method": "em"}, "method='em' is for one process"),
        (VAE((3,), latent=2), {"free_bits": 0.1}, "free_bits cannot be shared out"),
        (VAE((3,), prior="flower-sampler", latent=2), {}, "codes matched to a prior cannot be"),
        ((all_rows, "AutoNormal"), {}, "must take some rows at a time"),
    ):
        with pytest.raises(pg.StoryError, match=said):
            pg.fit(story, x, epochs=1, progress=False, **options)


def all_rows(x: torch.Tensor) -> None:
    """No plate has the size of the batch."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(loc, 1.0).expand([40, 3]).to_event(2), obs=x)


def test_shares_make_up_the_batch_and_weights_one() -> None:
    for count in (1, 2, 3, 4):
        for rows in (1, 2, 5, 12):
            batch = torch.arange(rows)
            everyone = [Processes(rank, count) for rank in range(count)]
            assert sum(one.weight(rows) for one in everyone) == pytest.approx(1.0)
            if rows >= count:
                shares = [one.share(batch) for one in everyone]
                assert torch.equal(torch.cat(shares), batch)
                for one, share in zip(everyone, shares, strict=True):
                    assert one.weight(rows) == pytest.approx(len(share) / rows)


def test_noise_of_rows_is_that_of_one_process_and_of_shared_latents_the_same() -> None:
    def guide(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        shared = pyro.sample("shared", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("rows", rows):
            return shared, pyro.sample("z", dist.Normal(torch.zeros(rows, 2), 1.0).to_event(1))

    def drawn(rank: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(3)
        joint = _Joint(frozenset({"rows"}), rank, count)
        return joint(guide)(16 // count) if count > 1 else guide(16)

    shared, z = drawn(0, 1)
    first, second = drawn(0, 2), drawn(1, 2)
    assert torch.equal(first[0], shared)
    assert torch.equal(second[0], shared)
    assert torch.equal(torch.cat([first[1], second[1]]), z)


def test_who_follows_is_read_off_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert not follows()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert follows()
    monkeypatch.setenv("RANK", "0")
    assert not follows()
