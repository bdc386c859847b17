"""One pass over the finished files of a report: its events by day."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from harvester.reporting.page.figures import ReportFigures
from harvester.reporting.page.ndjson import Lines
from harvester.reporting.page.words import DATE_FIELDS, UNDATED

_OLDEST = datetime(1995, 1, 1, tzinfo=UTC)  # the service is younger
_SLACK = timedelta(days=2)  # clocks differ, and some dates of v2 are local time called UTC


class Scanner:
    """Takes the content of a report's files into its `figures`."""

    def __init__(self, report: str, *, now: datetime) -> None:
        self.figures = ReportFigures(name=report, has_dates=report not in UNDATED)
        self._lines: Lines[Any] = Lines(_row_type(DATE_FIELDS.get(report, "date")))
        self._latest = now + _SLACK

    def take(self, chunk: bytes) -> None:
        """Whole lines of a file, or its end."""
        self.figures.rows += chunk.count(b"\n")
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
        figures = self.figures
        figures.days.update(days)
        figures.dated += sum(days.values())
        figures.first = min(figures.first or first, first)
        figures.last = max(figures.last or last, last)


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
