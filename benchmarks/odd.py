"""Fit odd data with odd settings: every case ends in a result, or in a sentence of our own.

    python -m benchmarks.odd --examples 2000

Hypothesis draws data (of no, one or many rows; of none, one or 100,000 columns; of every kind of
number; constant, huge, tiny, of scales that differ; with NaN and infinities), a story and settings,
good and bad. What can be fitted is checked, drawn from, saved and read again. Wanted: no error but
the project's own, or a ValueError or TypeError of what is given to a story or to ``fit``, raised
before anything is fitted.
"""

from __future__ import annotations

import argparse
import collections
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ppl_gen as pg
from ppl_gen.inference.fit import read_settings
from ppl_gen.models import CVAE, GMM, PPCA, VAE

WIDE = 100_000
SHAPES = [(), (1,), (2,), (5,), (5,), (3,), (40,), (1, 6, 6), (0,)]
KINDS = ["normal", "constant", "zeros", "huge", "tiny", "scales", "counts", "unit", "binary", "far"]
DTYPES = ["float32", "float64", "float16", "int64", "int16", "uint8", "bool", "complex64"]
HOLES = ["none", "one nan", "one inf", "all nan", "a column of nan", "a row of -inf"]
LIKELIHOODS = ["normal", "bernoulli", "bernoulli(grey=True)", "poisson", "categorical", "beta"]


def _model(x: torch.Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(torch.zeros(x.shape[1:]), 1.0).to_event(x.ndim - 1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(x.ndim - 1), obs=x)


STORIES = {
    "ppca": lambda shape, draw: PPCA(shape, draw(st.sampled_from([1, 1, 2, 0, 6]))),
    "vae": lambda shape, draw: VAE(
        shape,
        draw(st.sampled_from([1, 2, 3, 0])),
        likelihood=draw(st.sampled_from(LIKELIHOODS)),
        prior=draw(st.sampled_from(["standard-normal", "mixture(components=3)", "flow"])),
        hidden=draw(st.sampled_from([(), (4,)])),
    ),
    "gmm": lambda shape, draw: GMM(
        shape,
        draw(st.integers(1, 4)),
        covariance=draw(st.sampled_from(["full", "diagonal", "tied", "spherical"])),
        posterior=draw(st.sampled_from(["ml", "normal"])),
    ),
    "cvae": lambda shape, draw: CVAE(shape, "label(classes=3)", latent=2, hidden=(4,)),
    "own": lambda shape, draw: (_model, "AutoNormal"),
}


@st.composite
def cases(draw: Any, wide: bool = False) -> dict[str, Any]:
    """Data, a story, settings: what is drawn of each, in plain values."""
    return {
        "rows": draw(st.sampled_from([0, 1, 2, 3, 20, 60])),
        "shape": draw(st.sampled_from([*SHAPES, *([(WIDE,)] if wide else [])])),
        "kind": draw(st.sampled_from(KINDS)),
        "dtype": draw(st.sampled_from(DTYPES[:2] if draw(st.booleans()) else DTYPES)),
        "hole": draw(st.sampled_from(HOLES[:1] if draw(st.booleans()) else HOLES)),
        "array": draw(st.booleans()),
        "story": draw(st.sampled_from(sorted(STORIES))),
        "settings": draw(_settings()),
        "draw": draw(st.data()),
    }


@st.composite
def _settings(draw: Any) -> dict[str, Any]:
    """Some settings, of which most are left out."""
    some: dict[str, Any] = {
        "method": st.sampled_from(["svi", "em"]),
        "batch_size": st.sampled_from([1, 7, 60, 10**6, 0]),
        "learning_rate": st.sampled_from([1e-5, 0.1, 1e3, -1.0, float("nan")]),
        "optimizer": st.sampled_from(["adam", "sgd(momentum=0.9)", "adam(lr=x)", "lbfgs"]),
        "schedule": st.sampled_from(["cosine", "constant", "steps"]),
        "clip": st.sampled_from([1e-8, 1.0, 0.0]),
        "particles": st.sampled_from([1, 3, 0]),
        "kl_weight": st.sampled_from([0.1, 5.0, 0.0]),
        "kl_warmup": st.sampled_from([0, 1, 9, -1]),
        "free_bits": st.sampled_from([0.0, 0.5, -0.5]),
        "patience": st.sampled_from([1, 0]),
        "stop": st.sampled_from(["epochs", "settled", "never"]),
        "ema": st.sampled_from([0.5, 1.5]),
        "restarts": st.sampled_from([1, 2, 0]),
        "seed": st.sampled_from([0, 2**32 - 1, -1]),
        "precision": st.sampled_from(["highest", "medium", "low"]),
        "objective": st.sampled_from(["auto", "elbo", "mmd", "adversarial", "best"]),
        "compile": st.sampled_from(["graph", "eager"]),
    }
    names = draw(st.lists(st.sampled_from(sorted(some)), max_size=4, unique=True))
    return {name: draw(some[name]) for name in names}


def made(case: dict[str, Any]) -> torch.Tensor | np.ndarray[Any, Any]:
    """The data of a case."""
    chance = np.random.default_rng(0)
    shape = (case["rows"], *case["shape"])
    x = chance.normal(size=shape)
    scale = 10.0 ** np.linspace(-12, 12, int(np.prod(case["shape"]))).reshape(case["shape"])
    x = {
        "normal": lambda: x,
        "constant": lambda: np.full(shape, 3.7),
        "zeros": lambda: np.zeros(shape),
        "huge": lambda: x * 1e30,
        "tiny": lambda: x * 1e-30,
        "scales": lambda: x * scale,
        "counts": lambda: chance.poisson(3.0, size=shape),
        "unit": lambda: chance.uniform(size=shape),
        "binary": lambda: (x > 0).astype(float),
        "far": lambda: x + 1e7,
    }[case["kind"]]()
    x = np.asarray(x)
    if x.size and not case["dtype"].startswith(("int", "uint", "bool")):
        x = x.astype(complex if case["dtype"].startswith("complex") else float)
        flat, rows = x.reshape(-1), x.reshape(len(x), -1)
        match case["hole"]:
            case "one nan":
                flat[len(flat) // 2] = np.nan
            case "one inf":
                flat[len(flat) // 2] = np.inf
            case "all nan":
                flat[:] = np.nan
            case "a column of nan":
                rows[:, 0] = np.nan
            case "a row of -inf":
                rows[0] = -np.inf
    with np.errstate(all="ignore"):
        x = x.astype(case["dtype"])
    return x if case["array"] else torch.from_numpy(x)


def tried(case: dict[str, Any], folder: Path) -> str:
    """How far a case came: what refused it, or ``done``.

    Raises:
        Exception: What is none of the project's own errors.
    """
    draw = case["draw"].draw
    x = made(case)
    data = (x, torch.arange(len(x)) % 3) if case["story"] == "cvae" else x
    try:
        story = STORIES[case["story"]](tuple(x.shape[1:]), draw)
    except (pg.PplGenError, ValueError, TypeError) as error:
        return _said("no story", error)
    options = {"epochs": 2, "compile": "eager", "device": "cpu", **case["settings"]}
    try:
        read_settings(options)
    except (ValueError, TypeError) as error:
        return _said("no settings", error)
    try:
        run = pg.fit(story, data, progress=False, **options)
    except pg.PplGenError as error:
        return _said("not fitted", error)
    told = story if isinstance(story, tuple) else None
    for name, work in {
        "check": lambda: pg.check(run, data, draws=30, progress=False),
        "posterior": lambda: run.posterior(data, draws=3),
        "saved": lambda: run.save(folder / "run", overwrite=True),
        "loaded": lambda: pg.load(folder / "run", told),
    }.items():
        try:
            work()
        except pg.PplGenError as error:
            return _said(f"no {name}", error)
    return "done"


def _said(how: str, error: Exception) -> str:
    text = str(error).strip()
    if not text or "\n" in text:
        raise AssertionError(f"an error must be one sentence, got {text!r}") from error
    return how


def main() -> None:
    """Try many, and say how they ended."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:

        @settings(
            max_examples=options.examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),
        )
        @given(cases(wide=True))
        def every(case: dict[str, Any]) -> None:
            try:
                counts[tried(case, Path(folder))] += 1
            except Exception as error:
                own = [
                    f for f in traceback.extract_tb(error.__traceback__) if "ppl_gen" in f.filename
                ]
                at = own[-1] if own else traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(at.filename).name}:{at.lineno}"
                if not counts[f"{type(error).__name__} at {where}"]:
                    print(f"{type(error).__name__} at {where}: {str(error)[:200]}\n  {case}")
                counts[f"{type(error).__name__} at {where}"] += 1

        every()
    for said, count in counts.most_common():
        print(f"{count:6d}  {said}")


if __name__ == "__main__":
    main()
