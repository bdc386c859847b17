"""The append-only reports: a line is whole, or it is not there."""

import os
from pathlib import Path
from typing import Any

import orjson

from harvester.disk.storage import storage, write_all

_CHUNK = 1 << 20


class NdjsonLog:
    """An append-only NDJSON file. A torn last line, left by a kill, is cut off on opening."""

    def __init__(self, path: Path, *, keep: int | None = None) -> None:
        """Open to append; `keep` cuts the file back to so many bytes first.

        `lost` says that fewer are left: lines that were acknowledged are gone.
        """
        self.path = path
        with storage(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            size = os.fstat(self._file).st_size
            self.size = _whole_lines(self._file, size if keep is None else min(size, keep))
            self.lost = keep is not None and self.size < keep
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
    """The length of the first `size` bytes of `file` up to and with their last newline."""
    at = size
    while at:
        start = max(0, at - _CHUNK)
        newline = os.pread(file, at - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        at = start
    return 0
