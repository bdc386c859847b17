"""NDJSON of any quality, read in chunks: what cannot be read is counted and stepped over."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

_CHUNK = 1 << 20
_LONGEST_LINE = 64 << 20  # bytes; far above any page that a harvest accepts

T = TypeVar("T")


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


class Lines(Generic[T]):
    """Decodes chunks of lines into values of one type. `broken` counts the lines that are none."""

    def __init__(self, of: type[T]) -> None:
        self._of = of
        self._decoder = msgspec.json.Decoder(of)
        self.broken = 0

    def decode(self, chunk: bytes) -> list[T]:
        """The values of a chunk: all at once, or line by line where one of them is broken."""
        try:
            return self._decoder.decode_lines(chunk)
        except (msgspec.DecodeError, RecursionError):
            return list(self._one_by_one(chunk))

    def read(self, path: Path) -> Iterator[T]:
        """The values of a whole file, a chunk in memory at a time; nothing if there is no file."""
        if path.is_file():
            with path.open("rb") as file:
                for chunk in whole_lines(file.read):
                    yield from self.decode(chunk)

    def _one_by_one(self, chunk: bytes) -> Iterator[T]:
        for line in chunk.split(b"\n"):
            if line.strip():
                try:
                    yield self._decode_line(line)
                except (ValueError, RecursionError):
                    self.broken += 1

    def _decode_line(self, line: bytes) -> T:
        with suppress(msgspec.ValidationError, msgspec.DecodeError):
            return self._decoder.decode(line)
        # The json module accepts a lone surrogate, which the API sends now and then.
        return msgspec.convert(json.loads(line), self._of)
