"""The report files of a directory, as typed values. A line that does not fit its type is broken.

Each line is one JSON object. A field that the page can do without may be absent.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from harvester.disk.inspect import States
from harvester.reporting.page.ndjson import Lines
from harvester.reporting.summary import Count, Quota, Requests

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
    quota: Quota
    exit_code: Code = 0
    reason: Text = ""
    message: Text | None = None
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


class Manifest:
    """The finished files: for each the last line that names it, in the order of the lines.

    A file that grew in a top-up may have older lines. In memory stand the names alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = Lines(Finished)
        last: dict[str, int] = {}
        for number, each in enumerate(lines.read(path)):
            if each.is_ours:
                last[each.file] = number
            else:
                lines.broken += 1
        self._current = frozenset(last.values())
        self.broken = lines.broken

    def bytes(self) -> int:
        """The bytes of all files."""
        return sum(each.bytes for each in self)

    def __iter__(self) -> Iterator[Finished]:
        for number, each in enumerate(Lines(Finished).read(self._path)):
            if number in self._current:
                yield each
