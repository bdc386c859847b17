"""What stands in the output directory: part files, finished files, append-only reports, the lock.

A part file grows page by page and is cut back to its checkpoint on resume; a final name appears
in one step (rename) and only once the API has said that there is no more.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from harvester.clock import stamp
from harvester.disk.storage import storage, sync_directory, write_all
from harvester.errors import ConfigError
from harvester.model import Target

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is under one output directory."""

    root: Path
    suffix: str = ""

    def final(self, target: Target) -> Path:
        """The finished file. Ids were checked (`Api.check_id`): they cannot lead elsewhere."""
        return self.root / target.report / f"{target.campaign_id}.ndjson{self.suffix}"

    def part(self, target: Target) -> Path:
        """The unfinished file."""
        final = self.final(target)
        return final.with_name(f"{final.name}.part")

    def grown(self, target: Target) -> Path:
        """What will take the finished file's place after a top-up."""
        final = self.final(target)
        return final.with_name(f"{final.name}.grown.part")

    @property
    def state(self) -> Path:
        """The private folder."""
        return self.root / ".harvester"

    @property
    def database(self) -> Path:
        """The checkpoints."""
        return self.state / "state.sqlite"

    @property
    def lock(self) -> Path:
        """Held by the one run of this directory."""
        return self.state / "lock"

    @property
    def manifest(self) -> Path:
        """A line for each finished file."""
        return self.root / "manifest.ndjson"

    @property
    def errors(self) -> Path:
        """A line for each campaign that failed."""
        return self.root / "errors.ndjson"

    @property
    def retries(self) -> Path:
        """A line for each repeated request."""
        return self.root / "retries.ndjson"

    @property
    def pages(self) -> Path:
        """Where each page came from, if that is asked for."""
        return self.root / "pages.ndjson"

    @property
    def summary(self) -> Path:
        """The last run."""
        return self.root / "summary.json"


class Damaged(Exception):
    """The part file does not hold what its checkpoint says."""


class PartFile:
    """An open part file; `offset` is its length, `digest` the SHA-256 of all that is in it."""

    def __init__(self, path: Path, *, file: int | None = None) -> None:
        """Open it; `file` is a descriptor of it that is open already."""
        self.path = path
        self.offset = 0
        self._hash = hashlib.sha256()
        with storage(path):
            self._file = (
                os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                if file is None
                else file
            )

    def duplicate(self) -> "PartFile":
        """The same file, to be synced from another thread and closed for itself."""
        with storage(self.path):
            return PartFile(self.path, file=os.dup(self._file))

    def resume(self, offset: int, digest: bytes) -> None:
        """Cut the file back to `offset`. Raise `Damaged` if what is left is not what was saved.

        Never stretches: a file that lost its end in a power cut must not get one of zeros.
        """
        with storage(self.path):
            if os.fstat(self._file).st_size < offset:
                raise Damaged("the part file is shorter than its checkpoint")
            left = offset
            while left and (chunk := os.pread(self._file, min(_CHUNK, left), offset - left)):
                self._hash.update(chunk)
                left -= len(chunk)
            if self._hash.digest() != digest:
                raise Damaged("the part file is not what its checkpoint says")
            os.ftruncate(self._file, offset)
            os.lseek(self._file, offset, os.SEEK_SET)
        self.offset = offset

    def restart(self) -> None:
        """Throw everything away."""
        with storage(self.path):
            if os.fstat(self._file).st_size:
                os.ftruncate(self._file, 0)
                os.lseek(self._file, 0, os.SEEK_SET)
        self.offset = 0
        self._hash = hashlib.sha256()

    def append(self, data: bytes) -> int:
        """Write `data` at the end, all of it; give the new offset."""
        with storage(self.path):
            write_all(self._file, data)
        self._hash.update(data)
        self.offset += len(data)
        return self.offset

    def digest(self) -> bytes:
        """SHA-256 of the whole file so far."""
        return self._hash.digest()

    def sync(self) -> None:
        """Make the content durable. A failed fsync is final: the kernel may have dropped it."""
        with storage(self.path):
            os.fdatasync(self._file)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)


def publish(part: Path, final: Path, *, size: int, digest: bytes | None = None) -> None:
    """Give a synced part its final name; to do it again after a kill is no harm.

    Raise `Damaged` if neither name holds a file of `size` bytes, or, where time has passed and
    `digest` is given, if it is not the one that was finished.
    """
    with storage(final):
        file = part
        if (found := _size(part)) is None:
            file, found = final, _size(final)
        if found != size:
            raise Damaged("the finished file is gone, or is not as long as it was")
        if digest is not None and _sha256(file) != digest:
            raise Damaged("the finished file is not what was written")
        if file is part:
            part.replace(final)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory whose names are to be durable."""

    path: Path

    def sync(self) -> None:
        """Make its names durable."""
        with storage(self.path):
            sync_directory(self.path)


class Journal:
    """An append-only NDJSON file. A torn last line, left by a kill, is cut off on opening."""

    def __init__(self, path: Path, *, keep: int | None = None) -> None:
        """Open to append; `keep` cuts the file back to so many bytes first."""
        self.path = path
        with storage(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            size = os.fstat(self._file).st_size
            self.size = min(size, keep) if keep is not None else _whole_lines(self._file, size)
            if self.size < size:
                os.ftruncate(self._file, self.size)

    def append(self, line: dict[str, Any]) -> None:
        """Write one line in one step."""
        data = orjson.dumps(line, default=_plain, option=orjson.OPT_APPEND_NEWLINE)
        with storage(self.path):
            # Where the last whole line ends: over what a failed write has left there.
            write_all(self._file, data, at=self.size)
        self.size += len(data)

    def sync(self) -> None:
        """Make every line durable."""
        with storage(self.path):
            os.fdatasync(self._file)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)


def _plain(value: object) -> str:
    raise TypeError(f"no JSON for {type(value).__name__}")


def _whole_lines(file: int, size: int) -> int:
    """The length of `file` up to and with its last newline."""
    at = size
    while at:
        start = max(0, at - _CHUNK)
        newline = os.pread(file, at - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        at = start
    return 0


@contextmanager
def locked(layout: Layout, *, now: datetime) -> Iterator[None]:
    """Hold the directory. Raise `ConfigError` naming the run that holds it already.

    A flock, not a PID file: the kernel frees it with the process, however that ends.
    """
    with storage(layout.lock):
        file = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 200, 0).decode("utf-8", "replace").strip()
            raise ConfigError(
                f"another run works in {layout.root} ({holder}): wait for it or stop it"
            ) from None
        with storage(layout.lock):
            os.ftruncate(file, 0)
            write_all(file, f"process {os.getpid()}, since {stamp(now)}\n".encode(), at=0)
        yield
    finally:
        os.close(file)
