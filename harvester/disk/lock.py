"""One run at a time in an output directory, and only as long as the directory is there.

Two marks say that a run works in a directory. The flock holds on one machine: the kernel frees it
with the process, however that ends. On a shared file system it may not reach another machine, so
the lock file also holds a record: process, host and boot. A run `beat`s: it sets the file's time
anew. A record of another boot is a run that lives until it was silent for `SILENT_FOR`.

Not promised: two machines that start in the same moment may both begin. The record is of one of
them; the other one finds that out with its next commit, and stops.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path

from msgspec import Struct

from harvester.disk.layout import Layout
from harvester.disk.storage import open_regular, storage, write_all
from harvester.errors import StopRun, StorageError
from harvester.runtime import later, stamp

BEAT = 30.0
"""Seconds between two signs of life."""
SILENT_FOR = 120.0
"""Seconds without one, after which a run on another machine is taken for dead."""
_TRIES, _PAUSE = 10, 0.02  # s; a command that only looks holds the lock for much less
_LONGEST = 400  # bytes of a record
_BOOT = ", boot "


class Host(Struct, frozen=True):
    """A machine since it was started. A flock reaches every process of one `boot_id`."""

    name: str
    boot_id: str


@cache
def this_host() -> Host:
    """The machine of this process."""
    name = os.uname().nodename.encode("ascii", "replace").decode()[:100]
    with suppress(OSError):
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return Host(name, boot_id)
    return Host(name, name)


class DirectoryLock:
    """The lock of a run. The directory may be moved, removed or replaced while it is held, or be
    taken by a run on another machine."""

    def __init__(self, path: Path, file: int, record: bytes) -> None:
        self._path = path
        self._name = os.fspath(path)
        self._file = file
        self._record = record
        self._inode = os.fstat(file)

    def holds(self) -> bool:
        """Whether the lock at the directory's path is still this one, with this run's record."""
        try:
            same = os.path.samestat(os.lstat(self._name), self._inode)
            return same and os.pread(self._file, _LONGEST, 0) == self._record
        except OSError:
            return False

    def check(self) -> None:
        """Raise `StorageError` if this run no longer owns what stands at the directory's path."""
        if self.holds():
            return
        with suppress(OSError):
            record, _, _ = read_record(self._path)
            if os.path.samestat(self._path.lstat(), self._inode) and record != self._record:
                raise StorageError(
                    f"another run works in {self._path.parent.parent} ({described(record)}): this "
                    "run stops and touches nothing there",
                    reason="locked",
                )
        raise StorageError(
            f"{self._path.parent.parent} was moved, removed or replaced while this run worked "
            "in it: the run stops and touches nothing there. Put the directory back to go on",
            reason="directory_lost",
        )

    def beat(self) -> None:
        """Show other machines that this run lives; call it every `BEAT` seconds. Raise as `check`
        does."""
        with suppress(OSError):  # what the disk refuses, the next commit finds out
            # Opened anew: a shared file system may answer from a cache until then.
            if read_record(self._path)[0] == self._record:
                os.utime(self._file)
        self.check()

    def release(self) -> None:
        """Take the record away: no other machine has to wait until it is old."""
        if self.holds():
            with suppress(OSError):
                os.ftruncate(self._file, 0)


@contextmanager
def locked(
    layout: Layout,
    *,
    now: datetime,
    host: Host | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[DirectoryLock]:
    """Hold the directory. Raise `StopRun` ("locked"), naming the run that holds it already.

    The flock is tried for a moment, since `inspect.holder` takes it for as long as it looks.
    """
    host = host or this_host()
    with storage(layout.lock):
        file = open_regular(layout.lock, os.O_RDWR | os.O_CREAT)
    try:
        with storage(layout.lock):
            free = _take(file, sleep)
            record = os.pread(file, _LONGEST, 0)
        if not free:
            raise refused(layout, described(record))
        with storage(layout.lock):
            if is_foreign(record, host) and (silent := _silent_for(layout, file)) < SILENT_FOR:
                raise refused(
                    layout,
                    f"{described(record)}, last seen {silent:.0f} s ago",
                    resume_at=later(now, SILENT_FOR - silent),
                )
            record = _record_of(host, now)
            os.ftruncate(file, 0)
            write_all(file, record, at=0)
        lock = DirectoryLock(layout.lock, file, record)
        try:
            yield lock
        finally:
            lock.release()
    finally:
        os.close(file)


def read_record(path: Path) -> tuple[bytes, float, bool]:
    """The record of a lock file, when it was last beaten (seconds since 1970), and whether a
    process of this machine holds it. Raise `OSError` if it cannot be read."""
    file = open_regular(path, os.O_RDONLY)
    try:
        record, seen = os.pread(file, _LONGEST, 0), os.fstat(file).st_mtime
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return record, seen, False
        return record, seen, True
    finally:
        os.close(file)


def _record_of(host: Host, now: datetime) -> bytes:
    text = f"process {os.getpid()}, since {stamp(now)}, on {host.name}{_BOOT}{host.boot_id}\n"
    return text.encode("utf-8", "replace")


def described(record: bytes) -> str:
    """A record as a person reads it."""
    return record.decode("utf-8", "replace").partition(_BOOT)[0].strip()


def is_foreign(record: bytes, host: Host) -> bool:
    """Whether a record was written where the flock of `host` may not reach."""
    _, boot, boot_id = record.decode("utf-8", "replace").partition(_BOOT)
    return bool(boot) and boot_id.strip() != host.boot_id


def _silent_for(layout: Layout, file: int) -> float:
    """Seconds since the last sign of life, by the clock of the file system alone: two machines
    need not agree on the time."""
    with tempfile.TemporaryFile(dir=layout.state) as new:
        now = os.fstat(new.fileno()).st_mtime
    return max(0.0, now - os.fstat(file).st_mtime)


def refuse_held(layout: Layout) -> None:
    """Raise `StopRun` ("locked") if a process of this machine works in the directory."""
    with suppress(OSError):  # no lock: no run works there
        record, _, held = read_record(layout.lock)
        if held:
            raise refused(layout, described(record))


def refused(layout: Layout, holder: str, resume_at: datetime | None = None) -> StopRun:
    """The order that ends a start in a directory where `holder` works."""
    return StopRun(
        "locked",
        f"another run works in {layout.root} ({holder}): wait for it or stop it",
        resume_at=resume_at,
    )


def _take(file: int, sleep: Callable[[float], None]) -> bool:
    """Whether the lock is ours, after some tries."""
    for attempt in range(_TRIES):
        if attempt:
            sleep(_PAUSE)
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False
