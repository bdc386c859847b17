"""A part file: it grows page by page, and is cut back to its checkpoint on resume.

A final name appears in one step (rename), and only once the API has said that there is no more.
"""

import hashlib
import os
from pathlib import Path

from harvester.disk.storage import storage, write_all

_CHUNK = 1 << 20


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


def is_whole(final: Path, *, size: int, digest: bytes) -> bool:
    """Whether a finished file is there, and is what was written."""
    with storage(final):
        return _size(final) == size and _sha256(final) == digest


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
