"""Open damaged and hostile files: every one is read, or refused in a sentence.

    python benchmarks/fuzz.py --files 10000

Runs (their record, weights, history, verdict, checkpoints) and data files (.npy, .npz, .pt, .csv,
.parquet, images) are changed at random: bytes flipped, cut, doubled, words of JSON put in each
other's place, names that lead out of the directory. Wanted: no error but the project's own, nothing
that takes longer than ten seconds, and no file touched outside the folder.
"""

from __future__ import annotations

import argparse
import collections
import copy
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

import ppl_gen as pg
from ppl_gen.errors import PplGenError
from ppl_gen.inference import checkpoint
from ppl_gen.models import GMM, VAE

SECONDS = 10
WORDS: list[Any] = [
    *(None, True, -1, 0, 1e308, float("nan"), 2**70, "", [], {}, [[]], [1, 2, 3], "x" * 9999),
    *("../../etc/passwd", "/etc/passwd", "weights.safetensors", {"class": "os.system"}),
    *("__import__('os').system('touch hacked')", "builtins.eval", "ppl_gen.__main__.main"),
    *("ppl_gen.models.VAE", "ppl_gen.inference.fit.fit"),
]


def bytes_changed(content: bytes, chance: random.Random) -> bytes:
    """Some bytes flipped, cut off, taken out, doubled, or all of them replaced."""
    changed = bytearray(content)
    way = chance.randrange(7)
    if way == 0:
        return bytes(changed[: chance.randrange(len(changed) + 1)])
    if way == 1:
        return chance.randbytes(chance.randrange(2000))
    at = chance.randrange(max(1, len(changed)))
    span = chance.randrange(1, 64)
    if way == 2:
        del changed[at : at + span]
    elif way == 3:
        changed[at:at] = changed[at : at + span]
    elif way == 4:
        changed[at : at + span] = chance.randbytes(span)
    else:
        for _ in range(chance.randrange(1, 9)):
            changed[chance.randrange(max(1, len(changed)))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def words_changed(content: bytes, chance: random.Random) -> bytes:
    """JSON with some values replaced, left out, or put elsewhere."""
    tree = json.loads(content)
    for _ in range(chance.randrange(1, 4)):
        places: list[tuple[Any, Any]] = []

        def walk(node: Any, places: list[tuple[Any, Any]] = places) -> None:
            items = node.items() if isinstance(node, dict) else enumerate(node)
            for key, value in items:
                places.append((node, key))
                if isinstance(value, dict | list):
                    walk(value)

        walk(tree)
        if not places:
            break
        node, key = chance.choice(places)
        if chance.random() < 0.2:
            del node[key]
        elif chance.random() < 0.3:
            other, name = chance.choice(places)
            node[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else 0))
        else:
            node[key] = copy.deepcopy(chance.choice(WORDS))  # it may be changed in turn
    return json.dumps(tree).encode()


def changed(path: Path, chance: random.Random) -> None:
    """Change a file in place; of a run's record sometimes so that the digests still agree."""
    content = path.read_bytes()
    if path.suffix == ".json" and chance.random() < 0.7:
        path.write_bytes(words_changed(content, chance))
    else:
        path.write_bytes(bytes_changed(content, chance))
    record = path.parent / "run.json"
    if record.exists() and path != record and chance.random() < 0.7:
        from ppl_gen.inference.files import digest

        told = json.loads(record.read_text())
        told["files"][path.name] = digest(path.read_bytes())
        record.write_text(json.dumps(told))


def runs(folder: Path) -> list[Path]:
    """Runs of several stories, one of which was interrupted."""
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    short: dict[str, Any] = {"epochs": 2, "progress": False}
    found = []
    for name, story in {"vae": VAE((3,), 2, hidden=(4,)), "gmm": GMM((3,), 2)}.items():
        run = pg.fit(story, x, **short)
        pg.check(run, x, level="quick", draws=50, progress=False)
        found.append(run.save(folder / name))
    saver = checkpoint.Saver.__call__

    def stop(self: Any, training: Any, epoch: int | None = None) -> None:
        if epoch == 1:
            self.save(training)
            raise KeyboardInterrupt
        saver(self, training, epoch)

    checkpoint.Saver.__call__ = stop  # type: ignore[method-assign]
    try:
        pg.fit(VAE((3,), 2, hidden=(4,)), x, out=folder / "half", **short)
    except KeyboardInterrupt:
        pass
    finally:
        checkpoint.Saver.__call__ = saver  # type: ignore[method-assign]
    return [*found, folder / "half"]


def data_files(folder: Path) -> list[Path]:
    """A file of every kind that is read."""
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    np.save(folder / "a.npy", x)
    np.savez(folder / "a.npz", x=x, y=np.arange(30) % 3)
    torch.save({"x": torch.from_numpy(x), "y": torch.arange(30)}, folder / "a.pt")
    table = pd.DataFrame(x, columns=list("abcd")).assign(kind=list("xyz") * 10)
    table.to_csv(folder / "a.csv", index=False)
    table.to_parquet(folder / "a.parquet")
    images = folder / "images"
    images.mkdir()
    for i in range(4):
        Image.fromarray((255 * np.random.default_rng(i).random((6, 6))).astype(np.uint8)).save(
            images / f"{i}.png"
        )
    return sorted(folder.iterdir())


def opened(work: Callable[[], Any]) -> str:
    """How it went: read, refused, or what came instead."""

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"longer than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        work()
        return "read"
    except PplGenError as error:
        return "refused" if str(error).strip() else "refused without a word"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        own = [f for f in traceback.extract_tb(error.__traceback__) if "ppl_gen" in f.filename]
        at = own[-1] if own else where
        return f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {str(error)[:90]}"
    finally:
        signal.alarm(0)


def run_opened(path: Path) -> None:
    """A run is loaded, and what was interrupted is gone on with, if it is a run at all."""
    if checkpoint.there(path):
        checkpoint.read(path)
    repr(pg.load(path))


def data_opened(path: Path) -> None:
    """Data are loaded, and where rows can stay on disk they are read from there, too."""
    on_disk = path.is_dir() or path.suffix in (".npy", ".parquet")
    if on_disk:
        for part in pg.data.load(path, in_memory=False).parts:
            part.in_memory()
    pg.data.load(path)


def main() -> int:
    """Change, open, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000, help="of either kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chance, bad = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = {}
        for kind, make in (("runs", runs), ("data", data_files)):
            (folder / kind).mkdir()
            kinds[kind] = make(folder / kind)
        os.chdir(folder)
        untouched = sorted(str(path) for path in folder.rglob("*"))
        for kind, originals in kinds.items():
            counts: collections.Counter[str] = collections.Counter()
            for number in range(options.files):
                original = originals[number % len(originals)]
                twin = folder / f"copy{original.suffix}"
                if original.is_dir():
                    shutil.copytree(original, twin)
                    inside = sorted(path for path in twin.rglob("*") if path.is_file())
                    changed(chance.choice(inside), chance)
                else:
                    shutil.copy(original, twin)
                    changed(twin, chance)
                work = run_opened if kind == "runs" else data_opened
                counts[opened(lambda work=work, twin=twin: work(twin))] += 1
                if twin.is_dir():
                    shutil.rmtree(twin)
                else:
                    twin.unlink()
            touched = sorted(str(path) for path in folder.rglob("*")) != untouched
            print(f"{kind}: {options.files} files changed" + ("; FILES TOUCHED" if touched else ""))
            for said, count in counts.most_common():
                print(f"  {count:6d}  {said}")
            bad += touched + sum(n for s, n in counts.items() if s not in ("read", "refused"))
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
