"""A finished file, read once from its first byte to its last: is it what the manifest says?"""

import hashlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, TypeAlias, cast

from harvester.disk.compress import CODECS, damage_errors

_CHUNK = 1 << 20
_LONGEST_LINE = 64 << 20  # bytes; far above any page that a harvest accepts
Recorded: TypeAlias = tuple[int, str, int]
"""What a line of the manifest says: bytes, sha256, rows."""


def differences(
    path: Path,
    expected: Recorded,
    *,
    take: Callable[[bytes], None] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Iterator[str]:
    """What is not as expected, each with what it is and what it should be.

    `take` is given the content in chunks of whole lines, `advance` the bytes read from the disk.
    """
    if path.is_symlink() or not path.is_file():
        yield "is missing"
        return
    try:
        found = _read(path, take, advance)
    except OSError as wrong:
        yield f"cannot be read: {wrong.strerror}"
        return
    for what, is_, should in zip(("bytes", "sha256", "rows"), found, expected, strict=True):
        if is_ != should:
            yield f"{what}: {is_} instead of {should}"


def _read(
    path: Path,
    take: Callable[[bytes], None] | None,
    advance: Callable[[int], None] | None,
) -> tuple[int, str, int | None]:
    """Bytes, sha256, and rows; these are None where the file cannot be decompressed."""
    codec = next(codec for codec in reversed(CODECS.values()) if path.name.endswith(codec.suffix))
    rows: int | None = 0
    with _Metered(path, advance) as raw:
        try:
            read = codec.open(cast("IO[bytes]", raw)).read
            for chunk in whole_lines(read) if take else iter(partial(read, _CHUNK), b""):
                rows = (rows or 0) + chunk.count(b"\n")
                if take:
                    take(chunk)
        except damage_errors():
            rows = None
        while raw.read(_CHUNK):
            pass
    return raw.size, raw.digest.hexdigest(), rows


class _Metered(io.FileIO):
    """A file that hashes and counts what is read from it."""

    def __init__(self, path: Path, advance: Callable[[int], None] | None) -> None:
        super().__init__(path)
        self._advance = advance
        self.digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size) or b""
        self.digest.update(data)
        self.size += len(data)
        if self._advance:
            self._advance(len(data))
        return data


def whole_lines(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The chunks of a file, each cut after a newline; the last one may lack it.

    A line longer than 64 MiB is given in pieces, none of which is readable JSON.
    """
    rest = b""
    while chunk := read(_CHUNK):
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield rest + head + newline
            rest = tail
        else:
            rest += chunk
            if len(rest) > _LONGEST_LINE:
                yield rest
                rest = b""
    if rest:
        yield rest
