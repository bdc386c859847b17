"""One pass over the finished files of a report: its events by day."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from harvester.reporting.page.figures import ReportFigures
from harvester.reporting.page.ndjson import Lines
from harvester.reporting.page.sources import Moment
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
        figures = self.figures
        figures.rows += chunk.count(b"\n")
        dates = [row.v2 or row.v3 for row in self._lines.decode(chunk)]
        likely = [each for each in dates if each and _OLDEST <= each <= self._latest]
        if likely:
            moments = [moment.astimezone(UTC) for moment in likely]
            figures.days.update([moment.date() for moment in moments])
            figures.first = min(figures.first or moments[0], *moments)
            figures.last = max(figures.last or moments[0], *moments)


def _row_type(v2_field: str) -> type[msgspec.Struct]:
    """A row, of which only the fields are decoded in which its date may stand."""
    date = Moment | None
    return msgspec.defstruct(
        "Row",
        [
            ("v2", date, msgspec.field(default=None, name=v2_field)),
            ("v3", date, msgspec.field(default=None, name="created_time")),
        ],
    )
