"""Stories that users keep in files of their own."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import itertools
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ppl_gen.data import Dataset
from ppl_gen.errors import StoryError
from ppl_gen.inference.pair import Pair, as_pair

_NUMBERS = itertools.count(1)


def read_story_file(
    path: str | Path, data: Dataset | None = None, arguments: Mapping[str, Any] | None = None
) -> Pair:
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
        arguments: Further arguments of the function or class that makes the story, by name.

    Returns:
        The story; its ``origin`` holds the path and the SHA-256 of the file, and the arguments.

    Raises:
        StoryError: If the file cannot be read or run, or tells no story or several.
    """
    path = Path(path)
    content = _content(path)
    module = _run(path, content)
    arguments = dict(arguments or {})
    told = _told(path, module, data, arguments)
    try:
        pair = as_pair(told)
    except StoryError as error:
        raise StoryError(f"{path.name}: {error}") from error
    given = {"arguments": arguments} if arguments else {}
    pair.origin = {"file": str(path), "sha256": hashlib.sha256(content).hexdigest(), **given}
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


def _told(path: Path, module: ModuleType, data: Dataset | None, arguments: dict[str, Any]) -> Any:
    names = vars(module)
    if "story" in names:
        story = names["story"]
        if isinstance(story, type):
            return _constructed(path, story, data, arguments)
        if isinstance(story, tuple | list) or _tells(story):
            return _as_it_is(path, story, arguments)
        if callable(story):
            return _called(path, story, data, arguments)
        raise StoryError(
            f"story in {path.name} must be a story, a pair (model, guide), or a function that "
            f"takes the data set and returns one, got {type(story).__name__}"
        )
    if "model" in names:
        pair = names["model"], names.get("guide", "AutoNormal")
        return _as_it_is(path, pair, arguments)
    classes = [
        value
        for value in names.values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and _tells(value)
        and not inspect.isabstract(value)
    ]
    if len(classes) == 1:
        return _constructed(path, classes[0], data, arguments)
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


def _as_it_is(path: Path, story: Any, arguments: dict[str, Any]) -> Any:
    if arguments:
        raise StoryError(
            f"{path.name} must have a function story(data, ...) or a class to take "
            f"{', '.join(arguments)}, got a story that is made already"
        )
    return story


def _called(
    path: Path, function: Callable[..., Any], data: Dataset | None, arguments: dict[str, Any]
) -> Any:
    """What a function makes of the data set, or of nothing if it asks for nothing."""
    with _blaming(path):
        parameters = inspect.signature(function).parameters
    _check_known(path, "story", parameters, arguments)
    with _blaming(path):
        rest = [p for name, p in parameters.items() if name not in arguments]
        takes = any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in rest)
        if not takes:
            return function(**arguments)
        if data is not None:
            return function(data, **arguments)
        if all(p.default is not p.empty for p in rest):
            return function(**arguments)
    raise StoryError(f"story in {path.name} asks for a data set: name one with --data")


def _constructed(path: Path, cls: type, data: Dataset | None, arguments: dict[str, Any]) -> Any:
    with _blaming(path):
        parameters = inspect.signature(cls).parameters
    _check_known(path, cls.__name__, parameters, arguments)
    given = {"shape": data.shape} if "shape" in parameters and data is not None else {}
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in {*given, *arguments}
    ]
    if missing == ["shape"]:
        raise StoryError(f"{cls.__name__} in {path.name} asks for a shape: name data with --data")
    if missing:
        raise StoryError(
            f"{cls.__name__} in {path.name} asks for {', '.join(missing)}: define "
            f"story = {cls.__name__}(...), or a function story(data) that returns one"
        )
    with _blaming(path):
        return cls(**{**given, **arguments})


def _check_known(
    path: Path,
    maker: str,
    parameters: Mapping[str, inspect.Parameter],
    arguments: Mapping[str, Any],
) -> None:
    """Refuse arguments that the maker of a story does not take."""
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    named = [
        n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    for name in arguments:
        if name not in named:
            near = difflib.get_close_matches(name, named, n=1) or named
            raise StoryError(
                f"{maker} in {path.name} takes no argument {name!r}: "
                + (f"it takes {', '.join(near)}" if near else "it takes none")
            )


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
