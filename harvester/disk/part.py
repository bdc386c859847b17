"""A part file: it grows page by page, and is cut back to its checkpoint on resume.

A final name appears in one step (rename), and only once the API has said that there is no more.
"""

import errno
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

from harvester.disk.storage import storage, write_all
from harvester.errors import CampaignError

_CHUNK = 1 << 20
_NO_FILE = frozenset({errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO})  # a link, a folder ...
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Damaged(Exception):
    """A file does not hold what the state says."""


class Obstructed(CampaignError):
    """Something that is no regular file stands where a campaign's file belongs."""

    def __init__(self, path: Path | str) -> None:
        super().__init__("obstructed", f"{path} is not a regular file: move it away")


class Lost(CampaignError):
    """A part file is not at its path any more: what is written to it has no name."""

    def __init__(self) -> None:
        super().__init__("damaged_file", "the part file was moved, removed or replaced")


class PartFile:
    """An open part file; `offset` is its length, `digest` the SHA-256 of all that is in it."""

    def __init__(self, path: Path | str) -> None:
        """Open it. Raise `Obstructed` if a link, a directory or a device has its name."""
        self._name = os.fspath(path)
        self.offset = 0
        self._hash = hashlib.sha256()
        self._synced = False
        self._disk = storage(path)
        with self._disk:
            try:
                self._file = os.open(self._name, _FLAGS, 0o644)
            except OSError as wrong:
                if wrong.errno in _NO_FILE:
                    raise Obstructed(path) from None
                raise
            self._identity = os.fstat(self._file)
        if not stat.S_ISREG(self._identity.st_mode):
            os.close(self._file)
            raise Obstructed(path)

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self._name)

    def resume(self, offset: int, digest: bytes) -> None:
        """Cut the file back to `offset`. Raise `Damaged` if what is left is not what was saved.

        Never stretches: a file that lost its end in a power cut must not get one of zeros.
        """
        with self._disk:
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
        self._synced = False
        with self._disk:
            if os.fstat(self._file).st_size:
                os.ftruncate(self._file, 0)
                os.lseek(self._file, 0, os.SEEK_SET)
        self.offset = 0
        self._hash = hashlib.sha256()

    def append(self, data: bytes) -> int:
        """Write `data` at the end, all of it; give the new offset. Raise `Lost` if the file is."""
        self._synced = False
        with self._disk:
            write_all(self._file, data)
            if not self._is_at_its_path():
                raise Lost
        self._hash.update(data)
        self.offset += len(data)
        return self.offset

    def read(self, start: int) -> bytes:
        """What stands from `start` on."""
        with self._disk:
            return os.pread(self._file, self.offset - start, start)

    def digest(self) -> bytes:
        """SHA-256 of the whole file so far."""
        return self._hash.digest()

    def sync(self) -> None:
        """Make the content durable, once after each change.

        A failed sync is final and never tried again: the kernel may have dropped the data, and a
        second sync would succeed without having saved anything.
        """
        if not self._synced:
            self._synced = True
            with self._disk:
                os.fdatasync(self._file)

    def stands(self) -> bool:
        """Whether the name still leads to this file, whole."""
        return self._is_at_its_path(self.offset)

    def _is_at_its_path(self, size: int | None = None) -> bool:
        try:
            found = os.lstat(self._name)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, self._identity) and size in {None, found.st_size}

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)


def publish(part: Path | str, final: Path | str, *, size: int, digest: bytes | None = None) -> None:
    """Give a part its final name. Idempotent: a kill may have come after the rename.

    The part is synced already, or it is of an earlier run: then `digest` is given. Raise `Damaged`
    if neither name holds a file of `size` bytes and of that digest, `Obstructed` if one of the
    names is not that of a regular file.
    """
    with storage(final):
        file = part
        if (found := _size(part)) is None:
            file, found = final, _size(final)
        if found != size:
            raise Damaged("the finished file is gone, or is not as long as it was")
        if digest is not None and _synced_sha256(file) != digest:
            raise Damaged("the finished file is not what was written")
        if file is part:
            try:
                os.replace(part, final)  # noqa: PTH105 - see `Layout.name`
            except IsADirectoryError:
                raise Obstructed(final) from None


def is_regular(path: Path | str) -> bool:
    """Whether a file is there, and no link or directory in its place."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def refuse_directory(final: Path | str) -> None:
    """Raise `Obstructed` if a directory has the name that a file is to get."""
    with storage(final), suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(final).st_mode):
            raise Obstructed(final)


def is_whole(final: Path, *, size: int, digest: bytes) -> bool:
    """Whether a finished file is there, and is what was written."""
    with storage(final):
        return final.is_file() and _size(final) == size and _sha256(final) == digest


def _size(path: Path | str) -> int | None:
    """The length of a regular file; None if the name is free."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise Obstructed(path)
    return found.st_size


def _synced_sha256(path: Path | str) -> bytes:
    """Of a file of an earlier run, which may have been killed before it synced the file."""
    with Path(path).open("rb") as file:
        os.fdatasync(file.fileno())
        return hashlib.file_digest(file, "sha256").digest()


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
