"""One run at a time in an output directory, and only as long as the directory is there."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from harvester.disk.layout import Layout
from harvester.disk.storage import storage, write_all
from harvester.errors import StopRun, StorageError
from harvester.runtime import stamp

_TRIES, _PAUSE = 10, 0.02  # s; a command that only looks holds the lock for much less


class DirectoryLock:
    """The lock of a run. The directory may be moved, removed or replaced while it is held."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = os.fstat(file)

    def holds(self) -> bool:
        """Whether the lock at the directory's path is still this one."""
        try:
            return os.path.samestat(self._path.lstat(), self._file)
        except OSError:
            return False

    def check(self) -> None:
        """Raise `StorageError` if this run no longer owns what stands at the directory's path."""
        if not self.holds():
            raise StorageError(
                f"{self._path.parent.parent} was moved, removed or replaced while this run worked "
                "in it: the run stops and touches nothing there"
            )


@contextmanager
def locked(
    layout: Layout, *, now: datetime, sleep: Callable[[float], None] = time.sleep
) -> Iterator[DirectoryLock]:
    """Hold the directory. Raise `StopRun` ("locked"), naming the run that holds it already.

    A flock, not a PID file: the kernel frees it with the process, however that ends. It is tried
    for a moment, since `inspect.holder` takes the lock for as long as it looks.
    """
    with storage(layout.lock):
        file = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _take(file, sleep):
            holder = os.pread(file, 200, 0).decode("utf-8", "replace").strip()
            raise StopRun(
                "locked", f"another run works in {layout.root} ({holder}): wait for it or stop it"
            )
        with storage(layout.lock):
            os.ftruncate(file, 0)
            write_all(file, f"process {os.getpid()}, since {stamp(now)}\n".encode(), at=0)
        yield DirectoryLock(layout.lock, file)
    finally:
        os.close(file)


def _take(file: int, sleep: Callable[[float], None]) -> bool:
    """Whether the lock is ours, after some tries."""
    for attempt in range(_TRIES):
        if attempt:
            sleep(_PAUSE)
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False
