"""The append-only reports: a line is whole, or it is not there."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from harvester.disk.disk_set import DiskSet
from harvester.disk.storage import open_regular, storage, sync_directory, write_all
from harvester.errors import StorageError

_CHUNK = 1 << 20


class NdjsonLog:
    """An append-only NDJSON file. A torn last line, left by a kill, is cut off on opening."""

    def __init__(self, path: Path, *, keep: int | None = None) -> None:
        """Open to append; `keep` cuts the file back to so many bytes first.

        `lost` says that fewer are left: lines that were acknowledged are gone.
        """
        self.path = path
        with storage(path):
            self._file = open_regular(path, os.O_RDWR | os.O_CREAT)
            size = os.fstat(self._file).st_size
            self.size = _whole_lines(self._file, size if keep is None else min(size, keep))
            self.lost = keep is not None and self.size < keep
            if self.size < size:
                os.ftruncate(self._file, self.size)

    def append(self, line: dict[str, Any]) -> None:
        """Write one line in one step."""
        data = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        with storage(self.path):
            # Where the last whole line ends: over what a failed write has left there.
            write_all(self._file, data, at=self.size)
        self.size += len(data)

    def lines(self) -> int:
        """How many lines there are."""
        with storage(self.path):
            starts = range(0, self.size, _CHUNK)
            return sum(os.pread(self._file, _CHUNK, start).count(b"\n") for start in starts)

    def keep_last(self, name: str) -> None:
        """Keep of the lines with one value of the member `name` the last one alone, and lines
        without it; the file is replaced in one step."""
        new = self.path.with_name(f"{self.path.name}.new")
        with closing(DiskSet()) as last, storage(self.path):
            with self.path.open("rb") as lines:
                values = (_value(line, name) for line in lines)
                last.weigh((value, at) for at, value in enumerate(values) if value is not None)
            file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            size = 0
            with self.path.open("rb") as lines:
                for at, line in enumerate(lines):
                    value = _value(line, name)
                    if value is None or last.weight(value) == at:
                        write_all(file, line)
                        size += len(line)
            os.fsync(file)
            new.replace(self.path)
            os.close(self._file)
            self._file, self.size = file, size
        sync_directory(self.path.parent)

    def sync(self) -> None:
        """Make every line durable."""
        with storage(self.path):
            os.fdatasync(self._file)

    def check(self) -> None:
        """Raise `StorageError` if the file is not at its path any more, or was cut."""
        with storage(self.path):
            found = self.path.lstat()
            own = os.path.samestat(found, os.fstat(self._file))
        if not own or found.st_size < self.size:
            raise StorageError(
                f"{self.path} was replaced or cut while this run worked: the run stops, and the "
                "next one writes it anew"
            )

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)


def _value(line: bytes, name: str) -> str | None:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


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
