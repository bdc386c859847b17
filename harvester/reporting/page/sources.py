"""The report files of a directory, as typed values. A line that does not fit its type is broken.

Each line is one JSON object. A field that the page can do without may be absent.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import msgspec

from harvester.disk.finished import whole_lines
from harvester.disk.inspect import States
from harvester.reporting.summary import Count, Quota, Requests

T = TypeVar("T")
Seconds = Annotated[float, msgspec.Meta(ge=0, le=2**53)]
Text = Annotated[str, msgspec.Meta(max_length=2_000)]
Code = Annotated[int, msgspec.Meta(ge=0, le=999)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]

_FILE = re.compile(r"[a-z_]{1,40}/[\w-]{1,100}\.ndjson(\.gz|\.zst)?", re.ASCII)


def is_file_name(name: str) -> bool:
    """Whether a name can be that of a finished file: it leads nowhere else."""
    return _FILE.fullmatch(name) is not None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A line of runs.ndjson."""

    run_id: Text
    started_at: Moment
    finished_at: Moment
    quota: Quota
    exit_code: Code = 0
    reason: Text = ""
    message: str | None = None
    resume_at: Moment | None = None
    campaigns: States = States()
    requests: Requests = Requests()
    rows: Count = 0
    elapsed_s: Seconds = 0.0


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A line of manifest.ndjson: one finished file."""

    report: Text
    campaign_id: Text
    file: Text
    rows: Count
    pages: Count = 0
    bytes: Count
    sha256: Text
    run_id: Text = ""
    asked: bool = True
    reconciled: bool | None = None
    summary: dict[Text, Count] | None = None
    distinct_contacts: Count | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the name leads to a file of its report, and nowhere else."""
        return is_file_name(self.file) and self.file.startswith(f"{self.report}/")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A line of errors.ndjson."""

    kind: Text
    report: Text = ""
    campaign_id: Text = ""
    status: Code | None = None
    message: Text | None = None


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """A line of retries.ndjson."""

    cause: Text
    wait_s: Seconds = 0.0


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


class Manifest:
    """The finished files: for each the last line that names it, in the order of the lines.

    A file that grew in a top-up may have older lines. In memory stand the names alone. `bytes` are
    those of all files.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = Lines(Finished)
        last: dict[str, tuple[int, int]] = {}
        for number, each in enumerate(lines.read(path)):
            if each.is_ours:
                last[each.file] = number, each.bytes
            else:
                lines.broken += 1
        self._current = frozenset(number for number, _ in last.values())
        self.bytes = sum(size for _, size in last.values())
        self.broken = lines.broken

    def __iter__(self) -> Iterator[Finished]:
        for number, each in enumerate(Lines(Finished).read(self._path)):
            if number in self._current:
                yield each
