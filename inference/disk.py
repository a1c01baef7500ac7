"""Runs on disk: safetensors, JSON and CSV in a directory; no code, no pickle.

A directory is written under a temporary name beside its target and renamed when complete. The
record ``run.json`` holds size and SHA-256 of the other files, so that a damaged run is noticed.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ppl_gen.component import Component, from_configuration
from ppl_gen.errors import PplGenError, RunError
from ppl_gen.inference import checkpoint, files
from ppl_gen.inference.history import History
from ppl_gen.inference.iterates import Iterates
from ppl_gen.inference.pair import Pair, as_pair
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.structure import Site, Structure
from ppl_gen.inference.tracing import trace_nodes

if TYPE_CHECKING:
    from ppl_gen.inference.run import DataRecord, Run

FORMAT = 1
RECORD, WEIGHTS, HISTORY, VERDICT = "run.json", "weights.safetensors", "history.csv", "verdict.json"
ITERATES = "iterates.safetensors"
# Numbers of an observation beyond which a record is not believed; and what reading one may raise.
LARGEST = 2**31
UNREADABLE = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    SafetensorError,
)


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a place that a run cannot be saved to, before the work is done.

    Raises:
        RunError: If it exists and must not be replaced, or is not a run, or cannot be written.
    """
    if path.exists():
        unfinished = checkpoint.there(path)
        # A fit that was killed before its first checkpoint leaves an empty folder.
        if path.is_dir() and not unfinished and {*os.listdir(path)} <= {checkpoint.FOLDER}:
            return
        if not (path / RECORD).is_file() and not unfinished:
            raise RunError(f"{str(path)!r} exists and is not a run: choose another directory")
        if not overwrite and unfinished:
            raise RunError(
                f"{str(path)!r} holds a fit that was interrupted: go on with it by resume "
                "(--resume), choose another directory, or allow it to be replaced with overwrite "
                "(--overwrite)"
            )
        if not overwrite:
            raise RunError(
                f"{str(path)!r} already holds a run: choose another directory, or allow it to be "
                "replaced with overwrite (--overwrite)"
            )
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise RunError(f"{str(parent)!r} cannot be written to: choose another directory")


def save(run: Run, path: Path, overwrite: bool = False) -> Path:
    """Write a run to a directory, whole or not at all.

    Raises:
        RunError: If the directory cannot be written, or holds something already.
    """
    check_target(path, overwrite)
    return put(run, path)


def put(run: Run, path: Path, keep: tuple[str, ...] = ()) -> Path:
    """Write a run in the place of whatever is there, whole or not at all.

    Args:
        run: The run.
        path: The directory.
        keep: Directories in it that stay.

    Raises:
        RunError: If it cannot be written.
    """
    with run.pair.active():
        state = {k: v.contiguous().cpu() for k, v in run.pair.snapshot().items()}
    contents = {WEIGHTS: save_tensors(state), HISTORY: run.history.to_csv().encode()}
    if run.iterates is not None:
        contents[ITERATES] = save_tensors(run.iterates.to_tensors())
    if run.verdict is not None:
        contents[VERDICT] = run.verdict.to_json().encode()
    record = {
        "format": FORMAT,
        "story": run.configuration(),
        "kwargs": plain_kwargs(run.kwargs),
        "settings": asdict(run.settings),
        "data": asdict(run.data),
        "structure": _plain_structure(run.structure),
        "versions": run.versions,
        "files": {name: files.digest(content) for name, content in contents.items()},
    }
    contents[RECORD] = (json.dumps(record, indent=2) + "\n").encode()
    try:
        files.write_directory(path, contents, keep)
    except OSError as error:
        raise RunError(f"the run cannot be written to {str(path)!r}: {error.strerror}") from error
    return path


def plain_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the programs' further arguments that are plain numbers and words."""
    return {k: v for k, v in kwargs.items() if isinstance(v, bool | int | float | str)}


def save_verdict(run: Run, path: Path) -> None:
    """Put a new verdict into a run on disk, leaving the rest as it is."""
    assert run.verdict is not None
    content = run.verdict.to_json().encode()
    record = read_record(path)
    record["files"][VERDICT] = files.digest(content)
    files.write_file(path / VERDICT, content)
    files.write_file(path / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def load(
    path: str | Path,
    story: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Run:
    """Read a run that :meth:`Run.save` wrote.

    Nothing in the directory is ever run as code. A story of ppl-gen is rebuilt from its recorded
    arguments; any other has to be given.

    Args:
        path: The directory.
        story: The story, as it was given to ``fit``; needed unless it is one of ppl-gen's own.
        kwargs: Further arguments of both programs, as they were given to ``fit``; those that are
            plain numbers and words are recorded.
        device: Where to put the weights.

    Raises:
        RunError: If the run is missing, damaged or of another story; it says which field differs.
    """
    from ppl_gen.inference.run import Run
    from ppl_gen.inference.verdict import Verdict

    path = Path(path)
    record = read_record(path)
    found = {name: _read_file(path, name, digest) for name, digest in record["files"].items()}
    try:
        data = _read_data(record["data"])
        settings = Settings(**record["settings"])
        given = {**record["kwargs"], **(kwargs or {})}
        structure = _read_structure(record["structure"])
        state = load_tensors(found[WEIGHTS])
        history = History.from_csv(found[HISTORY].decode())
        iterates = None
        if ITERATES in found:
            iterates = Iterates.from_tensors(load_tensors(found[ITERATES]))
        verdict = Verdict.from_json(found[VERDICT].decode()) if VERDICT in found else None
    except RunError:
        raise
    except UNREADABLE as error:
        raise RunError(f"the run in {str(path)!r} cannot be read: {error}") from error
    pair = read_story(path, record["story"], story)
    blank = data.blank(min(settings.batch_size or data.rows, data.rows), torch.device("cpu"))
    with seeded(0), pair.active(), pyro.validation_enabled(False):
        take_over(pair, state, blank, given)
    pair.to(torch.device(device))
    pair.train(False)
    return Run(
        pair, structure, settings, history, data, given, record["versions"], verdict, iterates
    )


def _read_data(plain: Mapping[str, Any]) -> DataRecord:
    """What a run remembers of its data.

    Raises:
        ValueError: If it says what no data are.
    """
    from ppl_gen.inference.run import DataRecord

    names, rows, columns = plain.get("column_names"), int(plain["rows"]), []
    for shape, dtype in plain["columns"]:
        sizes = tuple(map(int, shape))
        if not isinstance(getattr(torch, str(dtype), None), torch.dtype):
            raise ValueError(f"there is no type of numbers {dtype!r}")
        if rows < 1 or min(sizes, default=0) < 0 or math.prod(sizes) > LARGEST:
            raise ValueError(f"there are no {rows} rows of shape {sizes}")
        columns.append((sizes, str(dtype)))
    return DataRecord(
        plain["fingerprint"],
        rows,
        tuple(columns),
        plain["source"],
        None if names is None else tuple(map(str, names)),
    )


def take_over(
    pair: Pair, state: Mapping[str, Tensor], batch: tuple[Tensor, ...], kwargs: dict[str, Any]
) -> None:
    """Load weights; programs that make their parameters when they run are run once before.

    Raises:
        RunError: If they are of another story.
    """
    if pair.state().keys() != state.keys():
        try:
            trace_nodes(pair, batch, kwargs)
        except PplGenError as error:
            raise RunError(f"the story cannot take the weights of the run: {error}") from error
    pair.load_state(state)


def read_story(path: Path, recorded: Mapping[str, Any], given: Any) -> Pair:
    """The story of a run, as its record says or as it is given, a copy.

    Raises:
        RunError: If it has to be given, or is another one.
    """
    if given is None:
        if "class" in recorded:
            return as_pair(from_configuration(recorded))
        what = f"your file {recorded['file']!r}" if "file" in recorded else "a story of your own"
        by_file = "load(path, story=...), or --story with a file whose story() gives it"
        hint = f"--story {recorded['file']}" if "file" in recorded else by_file
        raise RunError(
            f"the run in {str(path)!r} is of {what}, and a run holds no code: give it, {hint}"
        )
    pair = as_pair(given)
    if isinstance(pair.story, Component) and "class" in recorded:
        _compare_configurations(recorded, pair.story.configuration)
    origin = pair.origin or {}
    if "sha256" in origin and origin["sha256"] != recorded.get("sha256", origin["sha256"]):
        warnings.warn(f"{origin['file']!r} has changed since the run was fitted", stacklevel=3)
    return pair.copied()


def _compare_configurations(recorded: Any, given: Any, where: str = "") -> None:
    if isinstance(recorded, dict) and isinstance(given, dict):
        for key in recorded.keys() | given.keys():
            name = f"{where}.{key}" if where and key != "arguments" else (where or key)
            _compare_configurations(recorded.get(key), given.get(key), name)
    elif recorded != given:
        raise RunError(
            f"the run is of another story: {where.removeprefix('arguments.')} is {recorded!r} in "
            f"the run and {given!r} in the story given"
        )


def read_record(path: Path) -> dict[str, Any]:
    """What a run says of itself in its ``run.json``: story, data, settings, files.

    Args:
        path: The directory of the run, or the file itself.

    Raises:
        RunError: If it is missing, damaged or of another version.
    """
    file = path if path.is_file() else path / RECORD
    if not path.exists():
        raise RunError(f"there is no run at {str(path)!r}: check the path (a run is a directory)")
    try:
        record = json.loads(file.read_text())
    except FileNotFoundError:
        if checkpoint.there(path):
            raise RunError(
                f"the fit in {str(path)!r} was interrupted: go on with it by resume (--resume)"
            ) from None
        raise RunError(f"{str(path)!r} is not a complete run: it has no {RECORD}") from None
    except OSError as error:
        raise RunError(f"{str(file)!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{str(file)!r} is not the record of a run: {error}") from error
    expected = {"format", "story", "kwargs", "settings", "data", "structure", "versions", "files"}
    missing = sorted(expected - record.keys()) if isinstance(record, dict) else sorted(expected)
    if missing:
        raise RunError(f"{str(file)!r} is not the record of a run: it lacks {', '.join(missing)}")
    if record["format"] != FORMAT:
        raise RunError(
            f"the run in {str(path)!r} has format {record['format']!r}, this version of ppl-gen "
            f"reads {FORMAT}: load it with the version that wrote it"
        )
    parts: dict[str, set[str]] = {
        **{part: set() for part in ("story", "kwargs", "settings", "versions")},
        "files": {WEIGHTS, HISTORY},
        "data": {"source", "columns", "fingerprint", "rows"},
        "structure": {"sites", "batch_plates", "data_plates"},
    }
    for part, names in parts.items():
        if not isinstance(record[part], dict) or not record[part].keys() >= names:
            lacks = f" lack one of {', '.join(sorted(names))}" if names else " is not a table"
            raise RunError(f"{str(file)!r} is not the record of a run: its {part}{lacks}")
    return record


def _read_file(path: Path, name: str, digest: Any) -> bytes:
    if name not in (WEIGHTS, HISTORY, VERDICT, ITERATES):
        raise RunError(f"{RECORD} in {str(path)!r} names a file that a run has not: {name!r}")
    try:
        content = (path / name).read_bytes()
    except OSError as error:
        raise RunError(
            f"{name} of the run in {str(path)!r} cannot be read: {error.strerror}"
        ) from error
    if how := files.damage(content, digest):
        raise RunError(f"{name} of the run in {str(path)!r} is damaged: {how}; fit it again")
    return content


def _plain_structure(structure: Structure) -> dict[str, Any]:
    plain = asdict(structure)
    plain["sites"] = [asdict(site) for site in structure.sites.values()]
    for name in ("batch_plates", "data_plates"):
        plain[name] = sorted(plain[name])
    return plain


def _read_structure(plain: dict[str, Any]) -> Structure:
    sites = {}
    for site in plain["sites"]:
        site = {**site, "plates": tuple(site["plates"]), "event_shape": tuple(site["event_shape"])}
        sites[site["name"]] = _typed(Site(**site))
    plates = {name: frozenset(plain[name]) for name in ("batch_plates", "data_plates")}
    return _typed(Structure(**{**plain, **plates, "sites": sites}))


def _typed(read: Any) -> Any:
    """What was read, if its plain values are of the types that they are to be.

    Raises:
        TypeError: If one is not.
    """
    plain: dict[str, Any] = {"str": str, "bool": bool, "int": int, "float": (int, float)}
    for field in fields(read):
        value = getattr(read, field.name)
        if not isinstance(value, plain.get(str(field.type), object)):
            raise TypeError(f"{field.name} must be of type {field.type}, got {value!r}")
    return read
