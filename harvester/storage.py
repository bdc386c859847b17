"""The disk: every call that can fail for lack of space or luck, translated at one border."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harvester.errors import StorageError


@contextmanager
def storage(path: Path | str) -> Iterator[None]:
    """Translate whatever the disk says about `path` into a `StorageError` that names it."""
    try:
        yield
    except OSError as wrong:
        raise StorageError(f"cannot use {path}: {wrong.strerror or wrong}") from wrong
    except sqlite3.Error as wrong:
        raise StorageError(f"cannot use {path}: {wrong}") from wrong


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
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def replace_file(path: Path, data: bytes) -> None:
    """Put a whole new file in the place of `path`, in one step."""
    own = path.with_name(f"{path.name}.new")
    with storage(path):
        file = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            write_all(file, data)
            os.fsync(file)
        finally:
            os.close(file)
        own.replace(path)
        sync_directory(path.parent)
