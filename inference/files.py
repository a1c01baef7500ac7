"""Files that are written whole or not at all, and are known again by their digest."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ppl_gen.errors import RunError

# What a process that was killed while it wrote may leave behind has this in its name.
PARTIAL = ".partial-"


def write_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that no half of it is ever seen.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{PARTIAL}")
        try:
            with os.fdopen(handle, "wb") as file:
                _write(file, content)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
            _flush_directory(path.parent)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be written: {error.strerror}") from error


def write_directory(path: Path, files: Mapping[str, bytes], keep: tuple[str, ...] = ()) -> None:
    """Write a directory under a temporary name beside its target, and rename it when complete.

    Args:
        path: The target; what is there already is replaced.
        files: Contents by name.
        keep: Directories in the target that are taken over as they are, where they exist.

    Raises:
        OSError: If it cannot be written; the target is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}{PARTIAL}"))
    try:
        for name, content in files.items():
            with open(fresh / name, "wb") as file:
                _write(file, content)
        for name in keep:
            if (path / name).is_dir():
                shutil.copytree(path / name, fresh / name, copy_function=_link)
        fresh.chmod(0o777 & ~_umask())
        if not path.exists() or not any(path.iterdir()):
            os.replace(fresh, path)
        elif not _exchanged(fresh, path):  # what was there is now removed as the temporary one
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.replaced-"))
            os.replace(path, old)
            try:
                os.replace(fresh, path)
            except OSError:
                os.replace(old, path)
                raise
            shutil.rmtree(old)
        _flush_directory(path.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def digest(content: bytes) -> dict[str, Any]:
    """Size and SHA-256."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def damage(content: bytes, recorded: Any) -> str:
    """How a file differs from what was recorded of it; empty if it does not."""
    if digest(content) == recorded:
        return ""
    size = recorded.get("bytes") if isinstance(recorded, dict) else None
    if size != len(content):
        return f"it has {len(content)} bytes of {size}"
    return "its content is not what was written"


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only process that writes to a directory. The lock is gone with the process.

    Raises:
        RunError: If another process is writing there, or nothing can be written.
    """
    file = path.parent / f".{path.name}.lock"
    lock = FileLock(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"another process is writing to {str(path)!r}: wait until it has ended, or choose "
            "another directory"
        ) from None
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    try:
        sweep(path.parent, path.name)
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        lock.release()


def sweep(folder: Path, name: str = "") -> None:
    """Remove what a process that was killed has left of a file or directory, or of all of them."""
    for left in folder.glob(f".{glob.escape(name) or '*'}{PARTIAL}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _write(file: Any, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _exchanged(one: Path, other: Path) -> bool:
    """Let two directories change names at once, so that neither is ever missing.

    Linux can, for most file systems; Python has no name for it.
    """
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _flush_directory(path: Path) -> None:
    """Let the names in a directory survive a loss of power, where the system can."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _umask() -> int:
    """What the user's files are not to be, which temporary ones ignore."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
