"""A fit on its way, on disk: all it takes to go on from there, to the last bit.

Under ``checkpoints/`` in the directory of the run, a safetensors file for each, named by its number
and the digest of its content; what is no tensor stands in its metadata as JSON. Each is written
whole or not at all, the last two are kept, and one that is damaged gives its place to the one
before.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ppl_gen.errors import RunError
from ppl_gen.inference import files

FORMAT = 2
FOLDER, META = "checkpoints", "checkpoint"
KEPT = 2
# Writing takes at most this share of a fit's time, whatever the interval asked for (ours).
SHARE = 0.02
_TENSOR = "__tensor__"


@dataclass(frozen=True)
class Checkpoint:
    """A fit as it was at some step.

    Attributes:
        path: Where it is.
        record: What the fit is of: story, data, settings, versions.
        state: What :meth:`Training.state` gave.
    """

    path: Path
    record: dict[str, Any]
    state: dict[str, Any]


def write(folder: Path, record: Mapping[str, Any], state: Any) -> Path:
    """Write a checkpoint into a folder of them, and forget all but the last two.

    Raises:
        RunError: If it cannot be written; those that were there are as they were.
    """
    plain, tensors = packed(state)
    told = json.dumps({"format": FORMAT, "record": dict(record), "state": plain})
    content = save_tensors(tensors, {META: told})
    before = _numbered(folder)
    number = 1 + (_number(before[-1]) if before else 0)
    path = folder / f"{number:08d}-{files.digest(content)['sha256'][:32]}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{str(folder)!r} cannot be written: {error.strerror}") from error
    files.sweep(folder)
    files.write_file(path, content)
    for old in [*before, path][:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def there(run: Path) -> bool:
    """Whether a run's directory holds a checkpoint."""
    return bool(_numbered(run / FOLDER))


def read(run: Path) -> Checkpoint:
    """The last good checkpoint of a run; of one that is damaged a warning says what is wrong.

    Raises:
        RunError: If there is none.
    """
    if not run.exists():
        raise RunError(
            f"there is no run at {str(run)!r}: check the path; a fit that ended before its first "
            "checkpoint has left nothing, and is to be begun anew"
        )
    found = _numbered(run / FOLDER)
    if not found:
        finished = " and its fit is over" if (run / "run.json").exists() else ""
        raise RunError(
            f"{str(run)!r} holds no checkpoint to go on from{finished}: to train a fitted story "
            "further, fit(run.story, x, warm_start=True)"
        )
    wrong = []
    for path in reversed(found):
        try:
            checkpoint = _read(path)
        except RunError as error:
            wrong.append(str(error))
            continue
        if wrong:
            warnings.warn(f"{'; '.join(wrong)}: going on from the one before", stacklevel=3)
        return checkpoint
    raise RunError(f"no checkpoint of {str(run)!r} can be used: {'; '.join(wrong)}")


def forget(run: Path) -> None:
    """Remove the checkpoints of a run that is to be replaced."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def packed(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Nested dicts and lists of plain values and tensors as plain values alone, and the tensors."""
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in names:
                names[id(value)] = path
                tensors[path] = value.detach().cpu().contiguous().clone()
            return {_TENSOR: names[id(value)]}
        if isinstance(value, Mapping):
            return {str(key): walk(part, f"{path}/{key}") for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [walk(part, f"{path}/{i}") for i, part in enumerate(value)]
        return value

    return walk(state, ""), tensors


def unpacked(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What :func:`packed` was given, with lists for tuples.

    Raises:
        KeyError: If a tensor is missing.
    """
    if isinstance(plain, dict):
        if plain.keys() == {_TENSOR}:
            return tensors[plain[_TENSOR]]
        return {key: unpacked(part, tensors) for key, part in plain.items()}
    if isinstance(plain, list):
        return [unpacked(part, tensors) for part in plain]
    return plain


def _read(path: Path) -> Checkpoint:
    """A checkpoint, looked through.

    Raises:
        RunError: If it cannot be read or is not what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"checkpoint {str(path)!r} cannot be read: {error.strerror}") from error
    if files.digest(content)["sha256"][:32] != path.stem.partition("-")[2]:
        raise RunError(f"checkpoint {str(path)!r} is damaged: its content is not what was written")
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        told = json.loads(header["__metadata__"][META])
        if told["format"] != FORMAT:
            raise RunError(
                f"checkpoint {str(path)!r} has format {told['format']!r}, this version of ppl-gen "
                f"reads {FORMAT}"
            )
        state = unpacked(told["state"], load_tensors(content))
        return Checkpoint(path, dict(told["record"]), state)
    except (KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise RunError(f"checkpoint {str(path)!r} is not one: {error!r}") from error


def _numbered(folder: Path) -> list[Path]:
    """Checkpoints in a folder, the oldest first."""
    found = [path for path in folder.glob("*-*.safetensors") if path.name[:8].isdigit()]
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


class Interrupts:
    """Whether the process was asked to end, by Ctrl-C or by SIGTERM.

    The first time it is only noted, so that the fit can save itself where it is whole; the second
    time it ends at once.
    """

    def __init__(self) -> None:
        self.asked: int | None = None

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen inside, in the main thread, which alone is asked; not to what is ignored."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        both = (signal.SIGINT, signal.SIGTERM)
        asked = [n for n in both if signal.getsignal(n) is not signal.SIG_IGN]
        before = {n: signal.signal(n, self._hear) for n in asked}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def end(self, sentence: str) -> None:
        """Raise what was asked for.

        Raises:
            KeyboardInterrupt: After Ctrl-C.
            SystemExit: After SIGTERM, with the status 143 that a shell would show.
        """
        if self.asked == signal.SIGTERM:
            warnings.warn(sentence, stacklevel=2)
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(sentence)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            raise KeyboardInterrupt("interrupted twice: what was learned since is lost")
        self.asked = number


class Follower:
    """Ends a fit where it is asked to, in a process beside the one that saves it."""

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts

    def __call__(self, training: Any, epoch: int | None = None) -> None:
        """End, if the fit is to end; see :class:`Saver`."""
        if self.interrupts.asked is not None:
            self.interrupts.end("interrupted")


class Saver:
    """Saves a fit as it goes on, and ends it where it is asked to.

    Args:
        run: Where the run is to be.
        seconds: How often to save, in seconds.
        epochs: How often to save, in epochs; never by their number unless given.
        interrupts: Whether the process was asked to end.
    """

    def __init__(
        self,
        run: Path,
        seconds: float,
        epochs: int | None,
        interrupts: Interrupts,
    ) -> None:
        self.run = run
        self.seconds, self.epochs = seconds, epochs
        self.interrupts = interrupts
        self.saved = time.monotonic()
        self.took = 0.0
        self.complained = False

    def __call__(self, training: Any, epoch: int | None = None) -> None:
        """Save, if it is time or the fit is to end.

        Args:
            training: The fit, between two steps.
            epoch: Which epoch is over, if one is.

        Raises:
            KeyboardInterrupt: If it is to end.
            SystemExit: If it is to end after SIGTERM.
        """
        asked = self.interrupts.asked is not None
        since = time.monotonic() - self.saved
        every = self.epochs is not None and epoch is not None and epoch % self.epochs == 0
        if asked or every or since > max(self.seconds, self.took / SHARE):
            self.save(training)
        if asked:
            self.interrupts.end(f"interrupted; resume {str(self.run)!r} to go on")

    def save(self, training: Any) -> None:
        """Save now. What cannot be written is said once, and tried again later."""
        begun = time.monotonic()
        try:
            write(self.run / FOLDER, training.told(), training.state())
        except RunError as error:
            if not self.complained:
                warnings.warn(
                    f"no checkpoint is kept of now: {error}; the fit goes on", stacklevel=2
                )
            self.complained = True
        self.saved = time.monotonic()
        self.took = self.saved - begun
