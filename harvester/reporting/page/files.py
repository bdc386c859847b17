"""Finished files, each read once from its first byte to its last."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from harvester.disk.finished import differences
from harvester.reporting.page.figures import ReportFigures
from harvester.reporting.page.sources import Finished, Lines, Moment
from harvester.reporting.page.words import DATE_FIELDS, UNDATED

_REPORTS = 10
_EXAMPLES = 3
_OLDEST = datetime(1995, 1, 1, tzinfo=UTC)  # the service is younger
_SLACK = timedelta(days=2)  # clocks differ, and some dates of v2 are local time called UTC


class Files:
    """Reads finished files: the figures of each report, the rows of each campaign, and what is not
    as the manifest says. `advance` is called with the bytes that were read."""

    def __init__(self, root: Path, *, now: datetime, advance: Callable[[int], None]) -> None:
        self._root, self._latest, self._advance = root, now + _SLACK, advance
        self._reports: dict[str, tuple[ReportFigures, Lines[Any]]] = {}
        self.sizes: Counter[str] = Counter()
        self.newest_run_id = ""
        self.differing = 0
        self.differences: list[tuple[str, str]] = []

    @property
    def reports(self) -> list[ReportFigures]:
        """The largest first."""
        return sorted((figures for figures, _ in self._reports.values()), key=lambda f: -f.rows)

    def read(self, listed: Finished) -> None:
        """One file. Of more than ten reports, the last ones are left out."""
        self.newest_run_id = max(self.newest_run_id, listed.run_id)
        name = listed.report
        if name not in self._reports:
            if len(self._reports) == _REPORTS:
                return
            figures = ReportFigures(name=name, has_dates=name not in UNDATED)
            self._reports[name] = figures, Lines(_row_type(DATE_FIELDS.get(name, "date")))
        figures, lines = self._reports[name]
        before = figures.rows
        path, recorded = self._root / listed.file, (listed.bytes, listed.sha256, listed.rows)
        take = partial(self._take, figures, lines)
        problems = list(differences(path, recorded, take=take, advance=self._advance))
        self.differing += bool(problems)
        if problems and len(self.differences) < _EXAMPLES:
            self.differences.append((listed.file, problems[0]))
        rows = figures.rows - before
        self.sizes[listed.campaign_id] += rows
        figures.files += 1
        figures.pages += listed.pages
        figures.empty += not rows
        figures.not_asked += not listed.asked
        figures.bytes += listed.bytes
        if listed.reconciled is not None:
            figures.agreeing += listed.reconciled
            figures.differing += not listed.reconciled
            if not listed.reconciled and len(figures.examples) < _EXAMPLES:
                figures.examples.append(listed)

    def _take(self, figures: ReportFigures, lines: Lines[Any], chunk: bytes) -> None:
        """Whole lines of a file, or its end."""
        figures.rows += chunk.count(b"\n")
        dates = [row.v2 or row.v3 for row in lines.decode(chunk)]
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
