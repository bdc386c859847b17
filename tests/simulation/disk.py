"""A disk that can lose power, under the calls of `os` and `sqlite3`.

A file's content is safe once it is synced, with its first name. A changed name is safe once its
folder is synced. A power cut takes changes of names from the last one backwards.
"""

import os
import random
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .process import Process, content, refused, running

SECTOR = 512  # bytes that are written whole or not at all
_CREATES = os.O_CREAT | os.O_TRUNC


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
    """What is written below `root`, and what of it a power cut may take."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root, self.rng = root, rng
        self.processes: Sequence[Process] = ()
        self._safe: dict[int, bytes] = {}  # the content that is safe, of files that have changed
        self._names: list[Renamed | Created | Removed] = []

    # -- life and death ------------------------------------------------------------------------

    def point(self) -> bool:
        """A change is about to be made; True if half of it is made before the process dies."""
        process = running()
        if process.dead:
            raise refused()
        process.points += 1
        if process.points != process.death.at or process.pages < process.death.page:
            return False
        if process.death.torn:
            return True
        self.die()
        raise refused()

    def die(self) -> None:
        """The running process dies; of a power cut, every process."""
        process = running()
        for each in self.processes if process.death.power else (process,):
            if not each.dead:
                each.die()

    def bury(self) -> bool:
        """After the runs: take back what SQLite did after a death, and what a power cut took.
        True if there was one."""
        dead = [process for process in self.processes if process.dead]
        for process in dead:
            for file, before in process.kept.items():
                if before is None:
                    file.unlink(missing_ok=True)
                else:
                    file.write_bytes(before)  # in place: the file stays the same one
        power = any(process.death.power for process in dead)
        if power:
            self._lose([each for process in dead for each in process.databases.values()])
        self._safe, self._names, self.processes = {}, [], ()
        return power

    def _lose(self, databases: Sequence[Any]) -> None:
        for database in databases:
            database.lose(self.rng)
        paths = {each.stat().st_ino: each for each in sorted(self.root.rglob("*"))}
        for inode, safe in sorted(self._safe.items()):
            if (path := paths.get(inode)) is not None:
                path.write_bytes(_torn(safe, path.read_bytes(), self.rng))
        for _ in range(self.rng.randint(0, len(self._names))):
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

    # -- calls ---------------------------------------------------------------------------------

    def opened(self, real: Callable[..., int], path: Any, flags: int, *mode: int) -> int:
        """`os.open`."""
        name = os.path.abspath(path)  # noqa: PTH100 - a name, not a file
        if not flags & _CREATES or not self._is_ours(name):
            return real(path, flags, *mode)
        before = content(name)
        if before is None or (before and flags & os.O_TRUNC):
            self.point()
        elif running().dead:
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
        name = os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115
        if not self._is_ours(name):
            return real(file, data, *at)
        self._count_page(name)
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

    def _count_page(self, name: str) -> None:
        process = running()
        if name.endswith(".part"):
            process.pages += 1
            if process.pages == process.death.page:
                process.points = 0

    def truncated(self, real: Callable[..., None], file: int, size: int) -> None:
        """`os.ftruncate`."""
        self._whole(file)
        self._changes(file)
        real(file, size)

    def synced(self, real: Callable[..., None], file: int) -> None:
        """`os.fsync` and `os.fdatasync`. They cost time and change nothing: not carried out."""
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
            self._names.append(Renamed(str(old), str(new), content(new)))
        real(old, new)

    def linked(self, real: Callable[..., None], old: Any, new: Any) -> None:
        """`os.link`."""
        self._whole()
        real(old, new)
        self._names.append(Created(str(new), 0))

    def removed(self, real: Callable[..., None], path: Any, **named: Any) -> None:
        """`os.unlink`."""
        before = content(path) if self._is_ours(os.path.abspath(path)) else None  # noqa: PTH100
        if before is not None:
            self._whole()
            self._names.append(Removed(str(path), before))
        elif running().dead:
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


def _torn(safe: bytes, now: bytes, rng: random.Random) -> bytes:
    """What is left of a file: the synced content, the present one, or something between."""
    if max(len(now), len(safe)) <= SECTOR:
        return rng.choice((safe, now))
    if not now.startswith(safe):
        cut = rng.randint(0, min(len(safe), len(now)) // SECTOR) * SECTOR
        return rng.choice((safe, now, now[:cut] + safe[cut:]))
    between = rng.randint(len(safe), len(now))
    return now[: rng.choice((len(safe), len(now), between, between))]


def _folder(change: Renamed | Created | Removed) -> str:
    name = change.new if isinstance(change, Renamed) else change.name
    return os.path.dirname(os.path.abspath(name))  # noqa: PTH100, PTH120
