"""One computer: two clocks, a disk that can lose power, and the patches that put both in.

A run that is killed is not ended by force: from that moment the disk refuses every change and no
request leaves, so the run ends by itself, and what it did after its death is taken back. SQLite's
files are the only ones that need it, for SQLite does not write through `os`.
"""

import asyncio
import errno
import importlib
import os
import pkgutil
import random
import secrets
import sqlite3
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import pytest
from fakes import VirtualLoop

import harvester
from harvester.runtime import Clock

# What the program imports only when it needs it must not be imported under the patches.
for _found in pkgutil.walk_packages(harvester.__path__, "harvester."):
    if not _found.name.endswith("__main__"):
        importlib.import_module(_found.name)

T = TypeVar("T")
_HARMLESS = ("SELECT", "PRAGMA", "BEGIN", "ROLLBACK")
SECTOR = 512  # bytes that are written whole or not at all
_CREATES = os.O_CREAT | os.O_TRUNC


@dataclass
class Death:
    """When a run dies: before the `at`-th change of the disk, counted from 1 (0: never).

    `torn`: half of that change is made, where it can be halved. `power`: what was not synced may
    be lost.
    """

    at: int = 0
    torn: bool = False
    power: bool = False


@dataclass
class Renamed:
    """A name that was changed, and the content that had the new name before."""

    old: str
    new: str
    before: bytes | None


@dataclass
class Created:
    """A name that did not exist."""

    name: str
    inode: int


@dataclass
class Removed:
    """A name that was taken away, and its content."""

    name: str
    before: bytes


class Disk:
    """What is written below `root`, and what of it a power cut may take.

    A file's content is safe once it is synced, with its first name. A changed name is safe once
    its folder is synced. Changes of names are lost from the last one backwards.
    """

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root, self._rng = root, rng
        self.death = Death()
        self.points = 0
        self.dead = False
        self.idle = True
        self._safe: dict[int, bytes] = {}  # the content that is safe, of files that have changed
        self._names: list[Renamed | Created | Removed] = []
        self._databases: dict[Path, _Database] = {}
        self._kept: dict[Path, bytes] = {}

    # -- life and death ------------------------------------------------------------------------

    def start(self, death: Death) -> None:
        """A run begins."""
        self.death, self.points, self.dead, self.idle = death, 0, False, False

    def point(self) -> bool:
        """One change is about to be made; True if half of it is made before the death."""
        if self.dead:
            raise refused()
        self.points += 1
        if self.points != self.death.at:
            return False
        if self.death.torn:
            return True
        self.die()
        raise refused()

    def die(self) -> None:
        """From here on nothing is changed any more."""
        self.dead = True
        self._kept = {path: path.read_bytes() for path in self._sqlite_files()}

    def bury(self) -> None:
        """After the run: take back what it did after its death, and what the power cut took."""
        self.idle = True
        for path in self._sqlite_files() - self._kept.keys():
            path.unlink()
        for path, content in self._kept.items():
            path.write_bytes(content)  # in place: the file stays the same one
        if self.death.power:
            self._lose()
        self._safe, self._names, self._databases, self._kept = {}, [], {}, {}

    def _sqlite_files(self) -> set[Path]:
        found = {*self.root.rglob("*.sqlite"), *self.root.rglob("*.sqlite-wal")}
        return {path for path in found if path.is_file()}

    def _lose(self) -> None:
        for database in self._databases.values():
            database.lose(self._rng)
        paths = {each.stat().st_ino: each for each in sorted(self.root.rglob("*"))}
        for inode, safe in sorted(self._safe.items()):
            if (path := paths.get(inode)) is not None:
                path.write_bytes(_torn(safe, path.read_bytes(), self._rng))
        for _ in range(self._rng.randint(0, len(self._names))):
            self._undo(self._names.pop())

    def _undo(self, change: Renamed | Created | Removed) -> None:
        match change:
            case Renamed(old, new, before):
                Path(new).rename(old)
                if before is not None:
                    Path(new).write_bytes(before)
            case Created(name):
                Path(name).unlink(missing_ok=True)
            case Removed(name, before):
                Path(name).write_bytes(before)

    def rest(self) -> None:
        """No run is under way."""
        self.idle = True

    # -- calls ---------------------------------------------------------------------------------

    def opened(self, real: Callable[..., int], path: Any, flags: int, *mode: int) -> int:
        """`os.open`."""
        name = os.path.abspath(path)  # noqa: PTH100 - a name, not a file
        if not flags & _CREATES or not self._is_ours(name):
            return real(path, flags, *mode)
        before = _content(name)
        if before is None or (before and flags & os.O_TRUNC):
            self.point()
        elif self.dead:
            raise refused()
        file = real(path, flags, *mode)
        inode = os.fstat(file).st_ino
        if before is None:
            self._names.append(Created(name, inode))
            self._safe[inode] = b""
        elif flags & os.O_TRUNC:
            self._safe.setdefault(inode, before)
        return file

    def wrote(self, real: Callable[..., int], file: int, data: Any, *at: int) -> int:
        """`os.write` and `os.pwrite`."""
        if not self._is_file_of_ours(file):
            return real(file, data, *at)
        half = self.point()
        if half and len(data) <= SECTOR:
            self.die()
            raise refused()
        self._changes(file)
        if half:
            real(file, data[: len(data) // 2], *at)
            self.die()
            raise refused()
        return real(file, data, *at)

    def truncated(self, real: Callable[..., None], file: int, size: int) -> None:
        """`os.ftruncate`."""
        self._whole(file)
        self._changes(file)
        real(file, size)

    def synced(self, real: Callable[..., None], file: int) -> None:
        """`os.fsync` and `os.fdatasync`."""
        self._whole(file)
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            folder = os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115
            self._names = [each for each in self._names if _folder(each) != folder]
            return
        self._safe.pop(found.st_ino, None)
        self._names = [
            each
            for each in self._names
            if not (isinstance(each, Created) and each.inode == found.st_ino)
        ]

    def replaced(self, real: Callable[..., None], old: Any, new: Any) -> None:
        """`os.rename` and `os.replace`."""
        if self._is_ours(os.path.abspath(new)):  # noqa: PTH100
            self._whole()
            self._names.append(Renamed(str(old), str(new), _content(new)))
        real(old, new)

    def linked(self, real: Callable[..., None], old: Any, new: Any) -> None:
        """`os.link`."""
        self._whole()
        real(old, new)
        self._names.append(Created(str(new), 0))

    def removed(self, real: Callable[..., None], path: Any, **named: Any) -> None:
        """`os.unlink`."""
        content = _content(path) if self._is_ours(os.path.abspath(path)) else None  # noqa: PTH100
        if content is not None:
            self._whole()
            self._names.append(Removed(str(path), content))
        elif self.dead:
            raise refused()
        real(path, **named)

    def _whole(self, file: int | None = None) -> None:
        """A change that cannot be halved: it is made, or it is not."""
        if (file is None or self._is_file_of_ours(file)) and self.point():
            self.die()
            raise refused()

    def _changes(self, file: int) -> None:
        found = os.fstat(file)
        if found.st_ino not in self._safe:
            try:
                self._safe[found.st_ino] = os.pread(file, found.st_size, 0)
            except OSError:  # open for writing only: it was empty when it was opened
                self._safe[found.st_ino] = b""

    def _is_ours(self, name: str) -> bool:
        return name.startswith(str(self.root))

    def _is_file_of_ours(self, file: int) -> bool:
        return self._is_ours(os.readlink(f"/proc/self/fd/{file}"))  # noqa: PTH115

    def connected(self, real: Callable[..., Any], path: Any, *args: Any, **named: Any) -> Any:
        """`sqlite3.connect`."""
        if not str(path).startswith(str(self.root)):  # a temporary table, or to read only
            return real(path, *args, **named)
        database = self._databases[Path(path)] = _Database(Path(path))
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                return disk.executed(database, super().execute, sql, *values)

        return real(path, *args, factory=Connection, **named)

    def executed(
        self, database: "_Database", real: Callable[..., sqlite3.Cursor], sql: str, *values: Any
    ) -> sqlite3.Cursor:
        """`Connection.execute`."""
        if sql.startswith("PRAGMA synchronous ="):
            database.syncs = sql.endswith("FULL")
        if sql.lstrip().startswith(_HARMLESS):
            return real(sql, *values)
        try:
            half = self.point()
        except OSError:
            raise sqlite3.OperationalError("disk I/O error") from None
        found = real(sql, *values)
        if half:
            found.close()  # or it holds the file
            self.die()
            if sql == "COMMIT" and self.death.power:
                self._kept[database.log] = database.torn(self._kept[database.log], self._rng)
            raise sqlite3.OperationalError("disk I/O error")
        if sql == "COMMIT":
            database.committed()
        return found


class _Database:
    """A SQLite file with its log. What was committed is safe if it was synced."""

    def __init__(self, path: Path) -> None:
        self.log = path.with_name(f"{path.name}-wal")
        self.syncs = True
        self._safe = self._size()

    def _size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def committed(self) -> None:
        """A commit returned."""
        if self.syncs or self._size() < self._safe:
            self._safe = self._size()

    def torn(self, log: bytes, rng: random.Random) -> bytes:
        """The log if the power was cut before a commit returned."""
        return log[: rng.randint(min(self._safe, len(log)), len(log))]

    def lose(self, rng: random.Random) -> None:
        """The power is cut between two commits."""
        if not self.syncs and self._size() > self._safe:
            self.log.write_bytes(self.torn(self.log.read_bytes(), rng))


def refused() -> OSError:
    """What a dead disk says."""
    return OSError(errno.EIO, os.strerror(errno.EIO))


def _content(path: Any) -> bytes | None:
    """The bytes of a regular file; None if there is none."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - `path` is whatever a call was given
            return file.read()
    except (FileNotFoundError, IsADirectoryError):
        return None


def _torn(safe: bytes, now: bytes, rng: random.Random) -> bytes:
    """What is left of a file: the synced content, the present one, or something between."""
    if max(len(now), len(safe)) <= SECTOR:
        return rng.choice((safe, now))
    if not now.startswith(safe):
        cut = rng.randint(0, min(len(safe), len(now)) // SECTOR) * SECTOR
        return rng.choice((safe, now, now[:cut] + safe[cut:]))
    return now[: rng.choice((len(safe), len(now), rng.randint(len(safe), len(now))))]


def _folder(change: Renamed | Created | Removed) -> str:
    name = change.new if isinstance(change, Renamed) else change.name
    return os.path.dirname(os.path.abspath(name))  # noqa: PTH100, PTH120


@dataclass
class Machine:
    """Time and disk. `boot` is the true time (Unix s) at which the monotonic clock was 0; `skew`
    is by how much the wall clock is ahead of the true time (s)."""

    disk: Disk
    boot: float
    skew: float = 0.0
    boots: int = 0
    _stopped_at: float = 0.0
    _loop: VirtualLoop | None = field(default=None, repr=False)

    def monotonic(self) -> float:
        """Seconds since the boot, but for those of a suspend."""
        return self._stopped_at if self._loop is None else self._loop.time()

    def true_time(self) -> float:
        """What an exact clock shows (Unix s)."""
        return self.boot + self.monotonic()

    def wall(self) -> datetime:
        """What the computer believes."""
        return datetime.fromtimestamp(round(self.true_time() + self.skew, 6), UTC)

    def suspend(self, seconds: float) -> None:
        """Time passes and the monotonic clock stands."""
        self.boot += seconds

    def wait(self, seconds: float) -> None:
        """Time passes and nothing runs."""
        self._stopped_at += max(seconds, 0.0)

    def reboot(self) -> None:
        """The monotonic clock starts anew."""
        self.boot, self._stopped_at = self.true_time() + 30.0, 0.0
        self.boots += 1

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """Run `main()` to its end; a wait takes no time."""
        loop = VirtualLoop()
        loop.block(self._stopped_at)

        async def run() -> T:
            self._loop = loop
            return await main()

        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                return runner.run(run())
        finally:
            self._loop, self._stopped_at = None, loop.time()


@contextmanager
def installed(machine: Machine, seed: int) -> Iterator[pytest.MonkeyPatch]:
    """Put the machine in the place of the real one while the block lasts."""
    disk, chance = machine.disk, random.Random(seed)
    calls = {
        "open": disk.opened,
        "write": disk.wrote,
        "pwrite": disk.wrote,
        "ftruncate": disk.truncated,
        "fsync": disk.synced,
        "fdatasync": disk.synced,
        "rename": disk.replaced,
        "replace": disk.replaced,
        "link": disk.linked,
        "unlink": disk.removed,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, call in calls.items():
            patch.setattr(os, name, _before(disk, getattr(os, name), call))
        patch.setattr(sqlite3, "connect", _before(disk, sqlite3.connect, disk.connected))
        patch.setattr(Clock, "now", lambda _: machine.wall())
        patch.setattr(Clock, "monotonic", lambda _: machine.monotonic())
        patch.setattr(os, "urandom", chance.randbytes)
        patch.setattr(secrets, "token_hex", lambda size=32: chance.randbytes(size).hex())
        patch.setattr(anyio.to_thread, "run_sync", _at_once)
        rebind(patch, ThreadPoolExecutor, _NoThreads)
        random.seed(seed)
        yield patch


def rebind(patch: pytest.MonkeyPatch, old: object, new: object) -> None:
    """Put `new` in the place of `old` in every module of the program that has imported it."""
    for name, module in sorted(sys.modules.items()):
        if name.startswith("harvester."):
            for attribute in [key for key, value in vars(module).items() if value is old]:
                patch.setattr(module, attribute, new)


def _before(disk: Disk, real: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **named: Any) -> Any:
        return real(*args, **named) if disk.idle else call(real, *args, **named)

    return called


async def _at_once(work: Callable[..., T], *args: Any, **_: Any) -> T:
    return work(*args)


class _NoThreads:
    """A pool that does everything on the spot."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> "_NoThreads":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, work: Callable[[Any], T], items: Any) -> Iterator[T]:
        return map(work, items)
