"""The disk: every call that can fail for lack of space or luck, translated at one border."""

import errno
import fcntl
import os
import sqlite3
import stat
from pathlib import Path
from types import TracebackType

from harvester.errors import StorageError


class storage:  # noqa: N801 - used as a function, as contextlib.suppress is
    """Translate whatever the disk says about `path` into a `StorageError` that names it."""

    __slots__ = ("_path",)

    def __init__(self, path: Path | str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            raise StorageError(f"cannot use {self._path}: {error.strerror or error}") from error
        if isinstance(error, sqlite3.Error):
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise StorageError(
                    f"another program holds {self._path}: end it, then give the same command again",
                    reason="locked",
                ) from error
            raise StorageError(f"cannot use {self._path}: {error}") from error


class flocked:  # noqa: N801 - used as a function
    """Hold the exclusive lock of an open file, among all processes, if it can be had at once: else
    this gives False, and nothing is held."""

    __slots__ = ("_file",)

    def __init__(self, file: int) -> None:
        self._file = file

    def __enter__(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)


def open_regular(path: Path, flags: int) -> int:
    """Open a file. Raise `OSError` if it is a pipe or a device: that may wait for ever, or take
    everything."""
    file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise OSError(errno.EINVAL, "it is not a regular file")


def write_all(file: int, data: bytes, *, at: int | None = None) -> None:
    """Write every byte, however short the single writes are; at an offset, or where we stand."""
    view = memoryview(data)
    while view:
        done = os.write(file, view) if at is None else os.pwrite(file, view, at)
        view = view[done:]
        if at is not None:
            at += done


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    with storage(path):
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put a whole new file in the place of `path`, in one step."""
    own = path.with_name(f"{path.name}.new")
    with storage(own):
        file = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            write_all(file, data)
            os.fsync(file)
        except OSError:
            own.unlink()
            raise
        finally:
            os.close(file)
    with storage(path):
        own.replace(path)
        sync_directory(path.parent)
