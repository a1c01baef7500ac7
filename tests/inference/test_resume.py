"""A fit that was interrupted goes on to the very bits of one that was not."""

import tempfile
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import ppl_gen as pg
from ppl_gen.inference import checkpoint
from ppl_gen.inference.checkpoint import Saver
from ppl_gen.models import CVAE, GMM, M2, PPCA, VAE

G = torch.Generator().manual_seed(0)
X = torch.randn(90, 5, generator=G) @ torch.randn(5, 5, generator=G)
LABELS = torch.arange(90) % 3
BITS = (X > 0).float()
SMALL: dict[str, Any] = {"latent": 2, "hidden": (8,)}


class Interrupted(Saver):
    """Saves at one call and stops there, as if the power failed a moment later."""

    at, calls = 0, 0

    def __call__(self, training: Any, epoch: int | None = None) -> None:
        type(self).calls += 1
        if self.calls == self.at:
            self.save(training)
            raise KeyboardInterrupt


class Normed(nn.Module):
    """A linear story with dropout and running averages in its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(2, 5)
        self.encoder = nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 4)
        )

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def mean_model(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(torch.zeros(5), 3.0).to_event(1))
    scale = pyro.param("scale", torch.ones(5), constraint=dist.constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)


def mean_guide(x: Tensor) -> None:
    loc = pyro.param("centre", torch.zeros(5))
    pyro.sample("loc", dist.Normal(loc, 0.1).to_event(1))


def counted(x: Tensor) -> None:
    """A discrete latent that is drawn, whose gradient needs a running average."""
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(z[:, None], 1.0).expand(x.shape).to_event(1), obs=x)


def counted_guide(x: Tensor) -> None:
    weight = pyro.param("weight", torch.zeros(5))
    infer: Any = {"baseline": {"use_decaying_avg_baseline": True}}
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=x @ weight), infer=infer)


class Counting(IterableDataset[Any]):
    """The rows, one after the other."""

    def __iter__(self) -> Any:
        return iter(X)


def on_disk(name: str) -> pg.data.Part:
    """The rows in a file, in a table of row groups, behind a loader or as a stream."""
    if name == "a loader":
        return pg.data.as_part(DataLoader(TensorDataset(X), num_workers=1))
    if name == "a stream":
        return pg.data.stream(DataLoader(Counting(), batch_size=7), rows=100)
    folder = Path(tempfile.mkdtemp(prefix="ppl-gen-test-"))
    if name == "a file":
        np.save(folder / "x.npy", X.numpy())
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({f"c{i}": X[:, i].numpy() for i in range(5)})
        pq.write_table(table, folder / "x.parquet", row_group_size=20)
    return pg.data.concat(*pg.data.load(next(folder.iterdir()), in_memory=False).parts)


STEPS: dict[str, Any] = {"epochs": 6, "batch_size": 40}
FITS: dict[str, Callable[[], tuple[Any, Any, dict[str, Any]]]] = {
    "ppca": lambda: (PPCA((5,), 2), X, STEPS),
    "vae": lambda: (VAE((5,), **SMALL), X, STEPS),
    "a graph": lambda: (VAE((5,), **SMALL), X, {**STEPS, "compile": "graph", "epochs": 10}),
    "eager": lambda: (VAE((5,), **SMALL), X, {**STEPS, "compile": "eager"}),
    "redrawn bits": lambda: (
        VAE((5,), likelihood="bernoulli", **SMALL),
        pg.data.Part((BITS * 0.8 + 0.1,), redraw=True),
        STEPS,
    ),
    "a flow": lambda: (VAE((5,), prior="flow", **SMALL), X, STEPS),
    "warm-up and clip": lambda: (
        VAE((5,), **SMALL),
        X,
        {**STEPS, "kl_warmup": 3, "clip": 1.0, "free_bits": 0.1},
    ),
    "a running mean": lambda: (VAE((5,), **SMALL), X, {**STEPS, "ema": 0.9}),
    "momentum": lambda: (PPCA((5,), 2), X, {**STEPS, "optimizer": "sgd(momentum=0.9)"}),
    "validation": lambda: (PPCA((5,), 2), X, {**STEPS, "validation": X[:20], "patience": 2}),
    "a data set": lambda: (PPCA((4,), 2), pg.data.load("iris"), STEPS),
    "a file": lambda: (VAE((5,), **SMALL), on_disk("a file"), {**STEPS, "compile": "graph"}),
    "row groups": lambda: (PPCA((5,), 2), on_disk("row groups"), STEPS),
    "a loader": lambda: (PPCA((5,), 2), on_disk("a loader"), {**STEPS, "validation": X[:20]}),
    "a stream": lambda: (PPCA((5,), 2), on_disk("a stream"), STEPS),
    "cvae": lambda: (CVAE((5,), "label(classes=3)", **SMALL), (X, LABELS), STEPS),
    "m2": lambda: (M2((5,), 3, **SMALL), (X, LABELS), STEPS),
    "an implicit prior": lambda: (VAE((5,), prior="flower-sampler", **SMALL), X, STEPS),
    "avb": lambda: (VAE((5,), **SMALL), X, {**STEPS, "objective": "avb"}),
    "all rows at once": lambda: (PPCA((5,), 2), X, {"epochs": 12, "batch_size": 90}),
    "a module of one's own": lambda: (Normed(), X, STEPS),
    "functions": lambda: ((mean_model, mean_guide), X, {**STEPS, "batch_size": 90}),
    "an autoguide": lambda: ((mean_model, "AutoNormal"), X, {**STEPS, "batch_size": 90}),
    "a running average": lambda: ((counted, counted_guide), X, STEPS),
    "settled": lambda: (
        (mean_model, "AutoNormal"),
        X,
        {"epochs": 2000, "batch_size": 90, "stop": "settled", "learning_rate": 0.05},
    ),
    "gmm": lambda: (GMM((5,), 2, posterior="normal"), X, {"epochs": 12}),
    "em": lambda: (GMM((5,), 2), X, {"method": "em", "restarts": 3, "epochs": 9}),
    "em in batches": lambda: (
        GMM((5,), 2),
        X,
        {"method": "em", "restarts": 2, "epochs": 4, "batch_size": 40, "tolerance": 0.0},
    ),
    "an open number": lambda: (GMM((5,), "auto", most=4), X, {"method": "em"}),
    "an open number by svi": lambda: (GMM((5,), "auto", most=4), X, {"epochs": 12}),
}


def outcome(run: pg.Run) -> tuple[list[tuple[float, ...]], dict[str, Tensor]]:
    """History without seconds, and all that the fit left."""
    rows = [tuple(f for i, f in enumerate(astuple(e)) if i != 2) for e in run.history]
    iterates = {} if run.iterates is None else run.iterates.to_tensors()
    return rows, {**run.pair.snapshot(), **iterates}


def same(value: Tensor, other: Tensor) -> bool:
    return torch.equal(value.nan_to_num(), other.nan_to_num())


def stopped(monkeypatch: pytest.MonkeyPatch, at: int, *arguments: Any, **options: Any) -> int:
    """Fit until so many calls of the saver, 0 for the whole; how many there were."""
    monkeypatch.setattr(Interrupted, "at", at)
    monkeypatch.setattr(Interrupted, "calls", 0)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "Saver", Interrupted)
        if not at:
            pg.fit(*arguments, **options)
        else:
            with pytest.raises(KeyboardInterrupt):
                pg.fit(*arguments, **options)
    return Interrupted.calls


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", FITS)
def test_a_resumed_fit_gives_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story, data, options = FITS[name]()
    torch.manual_seed(0)
    wanted_rows, wanted = outcome(pg.fit(story, data, progress=False, **options))
    calls = stopped(monkeypatch, 0, story, data, progress=False, out=tmp_path / "whole", **options)
    validation = {"validation": options["validation"]} if "validation" in options else {}

    for at in sorted({calls // 3 + 1, calls // 2 + 2}):
        out = tmp_path / str(at)
        stopped(monkeypatch, at, story, data, progress=False, out=out, **options)
        torch.manual_seed(at)  # what is outside must not matter
        run = pg.fit(story, data, progress=False, resume=out, **validation)

        rows, found = outcome(run)
        assert len(rows) == len(wanted_rows), at
        assert repr(rows) == repr(wanted_rows), at
        assert found.keys() == wanted.keys()
        assert [
            n for n in wanted if not torch.equal(found[n].nan_to_num(), wanted[n].nan_to_num())
        ] == []
        assert not checkpoint.there(out)
        assert pg.load(out, None if name in OWN else story).history[-1].epoch == rows[-1][0]


OWN = [n for n, make in FITS.items() if isinstance(make()[0], pg.Story)]
