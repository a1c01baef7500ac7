"""Which run, which story and which data a command works on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from ppl_gen.cli.console import note
from ppl_gen.data import CATALOGUE, Dataset, Part, concat, load
from ppl_gen.data.standardise import standardised
from ppl_gen.errors import DataError, RunError
from ppl_gen.inference import Run, Settings, disk
from ppl_gen.inference import load as load_run
from ppl_gen.story_file import read_story_file

Unset = tyro.conf.arg(help_behavior_hint="")


@dataclass(frozen=True)
class Source:
    """Where the data come from and how they are read.

    Attributes:
        data: A data set, as named by ppl-gen list; or the path of a file, ending in .csv,
            .parquet, .npy, .npz or .pt, or of a folder of images.
        data_root: The folder of the image data sets, in torchvision's layout; by default the
            environment variable PPL_GEN_DATA.
        binarise: How intensities become 0 and 1: at a threshold of 0.5, drawn once (fixed), or
            drawn anew at every visit (redraw).
        standardise: Bring every entry of real observations to mean 0 and standard deviation 1.
        target: The column of a table that holds labels; it is taken out of the observations.
        support: What the values are; by default inferred from them.
        mask: Which part of each observation is seen, for a story that is conditioned on it:
            "quadrants(seen=1)", "half(side='left')", "random(seen=0.3)" or
            "box(top=4, left=4, height=8, width=8)".
        missing: What to do where a file has no value: refuse, or keep it for a story that takes
            missing values.
        labelled: How many labels of the train part to keep; the others count as unknown.
        read: All rows at once, or each as it is needed, in which case they stay on disk; auto
            reads them at once if they take no more than 1 GiB.
        download: Let torchvision fetch an image data set that is missing.
    """

    data: Annotated[str | None, Unset] = None
    data_root: Annotated[Path | None, Unset] = None
    binarise: Annotated[Literal["threshold", "fixed", "redraw"] | None, Unset] = None
    standardise: bool = False
    target: Annotated[str | None, Unset] = None
    support: Annotated[
        Literal["binary", "unit-interval", "real", "counts", "categories"] | None, Unset
    ] = None
    mask: Annotated[str | None, Unset] = None
    missing: Literal["refuse", "keep"] = "refuse"
    labelled: Annotated[int | None, Unset] = None
    read: Literal["auto", "at-once", "as-needed"] = "auto"
    download: bool = False

    def load(self) -> Dataset | None:
        """The data, or None if none are named.

        Raises:
            DataError: If they cannot be used.
        """
        if self.data is None:
            return None
        return load(
            self.data,
            self.data_root,
            binarise=self.binarise,
            standardise=self.standardise,
            target=self.target,
            download=self.download,
            mask=self.mask,
            missing=self.missing,
            labelled=self.labelled,
            in_memory={"at-once": True, "as-needed": False}.get(self.read),
            support=None if self.support is None else self.support.replace("-", " "),
        )


@dataclass(frozen=True)
class Fitted:
    """The run, and the rows to look at it with.

    Attributes:
        run: The directory of the run.
        story: The story file that was fitted, for a run of your own story: a run holds no code.
        data: Other data than those the story was fitted to: a data set or a path.
        data_root: The folder of the image data sets, if it is elsewhere now.
        part: The part of the data; by default test, or train where the posterior belongs to it.
        device: Where to compute: cpu, cuda, cuda:1, or auto.
    """

    run: tyro.conf.Positional[Path]
    story: Annotated[Path | None, Unset] = None
    data: Annotated[str | None, Unset] = None
    data_root: Annotated[Path | None, Unset] = None
    part: Annotated[Literal["train", "valid", "test", "all"] | None, Unset] = None
    device: str = "cpu"

    def open(self) -> Run:
        """Read the run.

        Raises:
            RunError: If it is missing, damaged or of another story.
            StoryError: If the story file cannot be used.
        """
        try:
            device = str(Settings(device=self.device).torch_device())
        except ValueError as error:
            raise RunError(str(error)) from error
        if self.story is None:
            return load_run(self.run, device=device)
        record = disk.read_record(self.run)
        source = record["data"]["source"]
        try:
            data = self._reload(source)
        except DataError:  # the fitted data are gone: others of the same form must do
            data = None if self.data is None else self._load(source, None)
        story = read_story_file(self.story, data, story_arguments(record["story"]))
        return load_run(self.run, story, device=device)

    def dataset(self, run: Run) -> Dataset | None:
        """The data that were named, or those the run was fitted to.

        None for the run of a program that holds its data itself.

        Raises:
            DataError: If they cannot be had.
        """
        if not run.data.columns:
            return None
        if self.data is not None:
            data = self._load(run.data.source, run.data.column_names)
            return shaped_like(data, run.data.columns)
        data = self._reload(run.data.source)
        if data is None:
            raise DataError(
                f"the run in {str(self.run)!r} does not know where its data came from: "
                "name the data with --data"
            )
        data = shaped_like(data, run.data.columns)
        warn_if_changed(data, run.data.fingerprint)
        return data

    def train(self, run: Run, data: Dataset | None) -> Part | None:
        """The rows that the story was fitted to; None if they are not to be had any more.

        Args:
            run: The run.
            data: The data to work on, which may be others.
        """
        try:
            fitted = data if self.data is None else self._reload(run.data.source)
        except DataError:
            return None
        if fitted is None:
            return None
        train = shaped_like(fitted, run.data.columns).train
        return train if train.fingerprint == run.data.fingerprint else None

    def rows(self, run: Run, data: Dataset | None, doing: str) -> Part | None:
        """The part of the data to work on; it says which."""
        if data is None:
            return None
        name = self.part or natural_part(run)
        part: Part = concat(*data.parts) if name == "all" else getattr(data, name)
        which = "all rows" if name == "all" else f"the {name} part"
        note(f"{doing} on {which} of {data.name!r}: {len(part)} rows")
        return part

    def _load(self, source: Mapping[str, Any] | None, names: Sequence[str] | None) -> Dataset:
        """The data that were named, read as the fitted ones were, and brought to their scale."""
        assert self.data is not None
        again = {**(source or {}), "name_or_path": self.data, "size": None, "standardise": False}
        if self.data in CATALOGUE:
            again["target"] = None
        if again.get("standardise") is False and (source or {}).get("standardise"):
            again["support"] = "real"  # also where all new values happen to be whole
        try:
            data = _load(again, self.data_root)
        except DataError as error:
            if not again.get("target") or "has no column" not in str(error):
                raise
            note(f"there is no column {again['target']!r} of labels: all rows are without")
            data = _load({**again, "target": None}, self.data_root)
        data = _in_order(data, names)
        if not (source and source.get("standardise")):
            return data
        fitted = _load({**source, "standardise": False}, self.data_root)
        train = standardised(replace(data, train=fitted.train, valid=data.train)).valid
        return replace(standardised(replace(data, train=fitted.train)), train=train)

    def _reload(self, source: Mapping[str, Any] | None) -> Dataset | None:
        return _load(source, self.data_root) if source else None


def story_arguments(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What the story in a file was made with, plain values by name, as a record says."""
    given = recorded.get("arguments")
    if "file" not in recorded or not isinstance(given, Mapping):
        return {}
    plain = bool | int | float | str
    return {n: v for n, v in given.items() if str(n).isidentifier() and isinstance(v, plain)}


Input = Annotated[Fitted, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="input")]


def _in_order(data: Dataset, names: Sequence[str] | None) -> Dataset:
    """The columns that were fitted, in the order in which they were.

    Raises:
        DataError: If one of them is missing.
    """
    own = data.column_names
    if names is None or own is None or tuple(own) == tuple(names):
        return data
    missing = [name for name in names if name not in own]
    if missing:
        raise DataError(
            f"{data.name!r} must have the columns that were fitted, {', '.join(names)}, but "
            f"lacks {', '.join(missing)}: add or rename them"
        )
    places = [own.index(name) for name in names]
    if len(places) < len(own):
        note(f"of {data.name!r} only the columns that were fitted are taken: {', '.join(names)}")
    train, valid, test = (part.then(lambda x: x[:, places]) for part in data.parts)
    return replace(data, train=train, valid=valid, test=test, column_names=tuple(names))


def natural_part(run: Run) -> str:
    """``"test"`` where the guide takes any rows, ``"train"`` where it belongs to those fitted."""
    bound = run.structure.keeps_rows or run.structure.subsamples
    return "test" if run.structure.takes_new_rows and not bound else "train"


def load_recorded(record: Mapping[str, Any]) -> Dataset | None:
    """The data of a record, in the form they were fitted in; None for a program without data.

    Raises:
        DataError: If the record does not know where they came from, or they cannot be had.
    """
    recorded = record["data"]
    if not recorded["columns"]:
        return None
    if not recorded["source"]:
        raise DataError(
            "the record does not know where its data came from: "
            "fit the story by its name or file, and name the data with --data"
        )
    data = shaped_like(_load(recorded["source"], None), recorded["columns"])
    warn_if_changed(data, recorded["fingerprint"])
    return data


def shaped_like(data: Dataset, columns: Any) -> Dataset:
    """The data, flattened where the story was fitted to flat rows of as many numbers."""
    shape = tuple(columns[0][0]) if columns else data.shape
    flat = len(shape) == 1 and len(data.shape) > 1 and math.prod(data.shape) == shape[0]
    return flattened(data) if flat else data


def flattened(data: Dataset) -> Dataset:
    """The data with every observation, and every mask of one, as one row of numbers."""

    train, valid, test = (
        part.then(lambda x: x.flatten(1), where=torch.Size(data.shape)) for part in data.parts
    )
    return replace(data, train=train, valid=valid, test=test)


def warn_if_changed(data: Dataset, fingerprint: str | None) -> None:
    """Say so if the data are not those that were fitted."""
    if fingerprint is not None and data.train.fingerprint != fingerprint:
        note(f"{data.name!r} has changed since the run was fitted")


def _load(source: Mapping[str, Any], root: Path | None) -> Dataset:
    options = {**source, "root": root or source.get("root")}
    try:
        return load(options.pop("name_or_path"), **options)
    except (TypeError, KeyError) as error:
        raise DataError(f"the record of the data cannot be read: {error}; give --data") from error
