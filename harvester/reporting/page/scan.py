"""One pass over a finished file: its events by day, and whether it is what the manifest says."""

import gzip
import hashlib
import io
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from harvester.disk.compress import damage_errors
from harvester.reporting.page.ndjson import Lines, whole_lines
from harvester.reporting.page.sources import Finished

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DATE_FIELDS = {
    "opens": "open_date",
    "clicks": "click_date",
    "sends": "send_date",
    "bounces": "bounce_date",
    "forwards": "forward_date",
    "unsubscribes": "unsubscribe_date",
}
"""The date of a v2 row, by report (v2, "Campaign tracking"). Every row of v3 has `created_time`."""

UNDATED = frozenset({"links"})
"""Reports whose rows are no events."""

_OLDEST = datetime(1995, 1, 1, tzinfo=UTC)  # the service is younger
_SLACK = timedelta(days=2)  # clocks differ, and some dates of v2 are local time called UTC
_OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".ndjson": lambda file: file,
    ".gz": lambda file: cast("IO[bytes]", gzip.GzipFile(fileobj=file)),
    ".zst": lambda file: cast("IO[bytes]", zstd.ZstdFile(file)),
}


@dataclass(slots=True)
class Events:
    """The events of one report, by UTC day."""

    rows: int = 0
    dated: int = 0
    first: datetime | None = None
    last: datetime | None = None
    days: Counter[date] = field(default_factory=Counter)

    @property
    def undated(self) -> int:
        """Rows without a date that can be read."""
        return self.rows - self.dated


class Scanner:
    """Reads the finished files of one report into `events`."""

    def __init__(self, report: str, *, now: datetime) -> None:
        self.events = Events()
        self._lines: Lines[Any] = Lines(_row_type(DATE_FIELDS.get(report, "date")))
        self._latest = now + _SLACK

    def scan(self, path: Path, listed: Finished, advance: Callable[[int], None]) -> str | None:
        """Read one file, however it ends. What differs from its line in the manifest, or None.

        `advance` is called with the bytes that were read from the disk.
        """
        if path.is_symlink() or not path.is_file():
            return "is missing"
        rows = self.events.rows
        metered, damaged = _Metered(advance), False
        try:
            with path.open("rb", buffering=0) as metered.file:
                content = _OPENERS[path.suffix](cast("IO[bytes]", metered))
                for chunk in whole_lines(content.read):
                    self._take(chunk)
        except damage_errors():
            damaged = True
        found = (metered.size, metered.digest.hexdigest(), self.events.rows - rows)
        expected = (listed.bytes, listed.sha256, listed.rows)
        for what, is_, should in zip(("bytes", "sha256", "rows"), found, expected, strict=True):
            if is_ != should and not damaged:
                return f"{what}: {is_} instead of {should}"
        return "cannot be read" if damaged else None

    def _take(self, chunk: bytes) -> None:
        events = self.events
        events.rows += chunk.count(b"\n")
        dates = [row.v2 or row.v3 for row in self._lines.decode(chunk)]
        if dates and not self._take_alike(dates):
            for value in dates:
                if (moment := _read(value)) and _OLDEST <= moment <= self._latest:
                    self._add({moment.date(): 1}, moment, moment)

    def _take_alike(self, dates: list[Any]) -> bool:
        """The fast path: dates in the API's one form, so that text sorts and groups as time does.

        False, with nothing changed, where one of them is in another form.
        """
        try:
            if not all(len(value) == 24 and value[-1] == "Z" for value in dates):
                return False
            first, last = datetime.fromisoformat(min(dates)), datetime.fromisoformat(max(dates))
            days = Counter([value[:10] for value in dates])
            read = {date.fromisoformat(day): count for day, count in days.items()}
        except (TypeError, ValueError, KeyError):
            return False
        if first.tzinfo is None or not _OLDEST <= first <= last <= self._latest:
            return False
        self._add(read, first, last)
        return True

    def _add(self, days: dict[date, int], first: datetime, last: datetime) -> None:
        events = self.events
        events.days.update(days)
        events.dated += sum(days.values())
        events.first = min(events.first or first, first)
        events.last = max(events.last or last, last)


def _row_type(v2_field: str) -> type[msgspec.Struct]:
    """A row of which only the fields are decoded in which its date may stand, of any type."""
    return msgspec.defstruct(
        "Row",
        [
            ("v2", Any, msgspec.field(default=None, name=v2_field)),
            ("v3", Any, msgspec.field(default=None, name="created_time")),
        ],
    )


def _read(value: Any) -> datetime | None:
    """A moment in ISO-8601, in UTC; one without an offset is taken as UTC."""
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


class _Metered(io.RawIOBase):
    """A file that hashes and counts what is read from it."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.file: IO[bytes] | io.FileIO | None = None
        self._advance = advance
        self.digest = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = (self.file and self.file.read(size)) or b""
        self.digest.update(data)
        self.size += len(data)
        self._advance(len(data))
        return data
