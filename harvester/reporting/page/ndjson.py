"""NDJSON of any quality as typed values: what cannot be read is counted and stepped over."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from harvester.disk.finished import whole_lines

T = TypeVar("T")


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
        for line in filter(bytes.strip, chunk.split(b"\n")):
            try:
                # The json module accepts a lone surrogate, which the API sends now and then.
                yield msgspec.convert(json.loads(line), self._of)
            except (ValueError, RecursionError):
                self.broken += 1
