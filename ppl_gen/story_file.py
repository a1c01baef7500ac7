"""Stories that users keep in files of their own."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import itertools
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ppl_gen.data import Dataset
from ppl_gen.errors import StoryError
from ppl_gen.inference.pair import Pair, as_pair

_NUMBERS = itertools.count(1)


def read_story_file(path: str | Path, data: Dataset | None = None) -> Pair:
    """Read the story that a Python file tells. The file is run, as Python would run it.

    The first of these that the file has is taken:

    - ``story``: an object with ``.model`` and ``.guide``, a pair ``(model, guide)``, or a function
      that takes the data set and returns one of the two;
    - ``model``, with ``guide`` beside it; without, Pyro's ``AutoNormal`` becomes the guide;
    - one class with the methods ``model`` and ``guide``, built with ``shape``, the shape of one
      observation, or with nothing.

    Args:
        path: The file.
        data: The data the story is to be fitted to, for stories that ask for them.

    Returns:
        The story; its ``origin`` holds the path and the SHA-256 of the file.

    Raises:
        StoryError: If the file cannot be read or run, or tells no story or several.
    """
    path = Path(path)
    content = _content(path)
    module = _run(path, content)
    told = _told(path, module, data)
    try:
        pair = as_pair(told)
    except StoryError as error:
        raise StoryError(f"{path.name}: {error}") from error
    pair.origin = {"file": str(path), "sha256": hashlib.sha256(content).hexdigest()}
    return pair


def _content(path: Path) -> bytes:
    if path.suffix != ".py":
        raise StoryError(f"a story file must end in .py, got {str(path)!r}")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StoryError(
            f"there is no story file {str(path)!r}: check the path, or write one with ppl-gen new"
        ) from None
    except OSError as error:
        raise StoryError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _run(path: Path, content: bytes) -> ModuleType:
    """Run the file as a module of its own, which finds its neighbours while it is imported."""
    name = f"_story_file_{next(_NUMBERS)}_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.modules[name] = module
    sys.path.insert(0, folder)
    try:
        # Compiled from the bytes that are hashed, not from a cache beside the file.
        with _blaming(path):
            exec(compile(content, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _told(path: Path, module: ModuleType, data: Dataset | None) -> Any:
    names = vars(module)
    if "story" in names:
        story = names["story"]
        if isinstance(story, type):
            return _constructed(path, story, data)
        if isinstance(story, tuple | list) or _tells(story):
            return story
        if callable(story):
            return _called(path, story, data)
        raise StoryError(
            f"story in {path.name} must be a story, a pair (model, guide), or a function that "
            f"takes the data set and returns one, got {type(story).__name__}"
        )
    if "model" in names:
        return names["model"], names.get("guide", "AutoNormal")
    classes = [
        value
        for value in names.values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and _tells(value)
        and not inspect.isabstract(value)
    ]
    if len(classes) == 1:
        return _constructed(path, classes[0], data)
    if classes:
        several = ", ".join(cls.__name__ for cls in classes)
        raise StoryError(
            f"{path.name} defines {several}: say which by story = {classes[-1].__name__}"
        )
    raise StoryError(
        f"{path.name} tells no story: define story, or model and guide, or a class with both "
        "(ppl-gen new writes an example)"
    )


def _tells(story: Any) -> bool:
    return callable(getattr(story, "model", None)) and callable(getattr(story, "guide", None))


def _called(path: Path, function: Callable[..., Any], data: Dataset | None) -> Any:
    """What a function makes of the data set, or of nothing if it asks for nothing."""
    with _blaming(path):
        parameters = inspect.signature(function).parameters.values()
        takes = any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
        if not takes:
            return function()
        if data is not None:
            return function(data)
        if all(p.default is not p.empty for p in parameters):
            return function()
    raise StoryError(f"story in {path.name} asks for a data set: name one with --data")


def _constructed(path: Path, cls: type, data: Dataset | None) -> Any:
    with _blaming(path):
        parameters = inspect.signature(cls).parameters
    given = {"shape": data.shape} if "shape" in parameters and data is not None else {}
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in given
    ]
    if missing == ["shape"]:
        raise StoryError(f"{cls.__name__} in {path.name} asks for a shape: name data with --data")
    if missing:
        raise StoryError(
            f"{cls.__name__} in {path.name} asks for {', '.join(missing)}: define "
            f"story = {cls.__name__}(...), or a function story(data) that returns one"
        )
    with _blaming(path):
        return cls(**given)


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Turn what the file raises into one sentence that names the line in it."""
    try:
        yield
    except SyntaxError as error:
        where = path.name if error.filename == str(path) else Path(error.filename or "?").name
        raise StoryError(f"{where}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        line = f", line {lines[-1]}" if lines else ""
        text = str(error).strip().split("\n")[0]
        what = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise StoryError(f"{path.name}{line}, raised {what}") from error
