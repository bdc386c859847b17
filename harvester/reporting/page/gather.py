"""From a directory to the figures of the page. Nothing is sent or changed.

What is kept in memory grows with the number of finished files by their names alone; everything that
the page shows is bounded.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from harvester.disk import inspect, verified
from harvester.disk.finished import differences
from harvester.disk.layout import Layout
from harvester.errors import ConfigError
from harvester.reporting.page.figures import Figures, ReportFigures
from harvester.reporting.page.ndjson import Lines
from harvester.reporting.page.periods import Periods, periods
from harvester.reporting.page.scan import Scanner
from harvester.reporting.page.sources import (
    Failure,
    Finished,
    Manifest,
    Repeat,
    Run,
)
from harvester.reporting.page.troubles import failures_by_kind, repeats_by_cause

_LARGEST = 10  # campaigns
_REPORTS = 10
_EXAMPLES = 3

Advance = Callable[[int], None]


def open_directory(directory: Path) -> tuple[Layout, Manifest]:
    """What the figures are gathered from. Raise `ConfigError` if there is no harvest."""
    layout = Layout(directory)
    if not (layout.manifest.is_file() or layout.database.is_file()):
        raise ConfigError(
            f"{directory} holds no harvest: give the directory that was the --output of a run"
        )
    return layout, Manifest(layout.manifest)


def gather(layout: Layout, manifest: Manifest, *, now: datetime, advance: Advance) -> Figures:
    """Read the report files, and every finished file once.

    `advance` is called with the bytes read of the finished files; they are `manifest.bytes`.
    """
    run_lines, failure_lines, repeat_lines = Lines(Run), Lines(Failure), Lines(Repeat)
    files = _Files(layout.root, now=now, advance=advance)
    for listed in manifest:
        files.read(listed)
    runs = sorted(run_lines.read(layout.runs), key=lambda run: run.started_at)
    state = _state(layout)
    if state:
        campaigns = state.campaigns
    else:
        campaigns = runs[-1].campaigns if runs else inspect.States(complete=len(files.sizes))
    standing = state.failed if state else None
    failures = failures_by_kind(layout, failure_lines.read(layout.errors), standing)
    causes = repeats_by_cause(repeat_lines.read(layout.retries))
    broken = {
        "manifest.ndjson": manifest.broken,
        "runs.ndjson": run_lines.broken,
        "errors.ndjson": failure_lines.broken,
        "retries.ndjson": repeat_lines.broken,
    }
    is_there = layout.manifest.is_file()
    return Figures(
        directory=str(layout.root),
        made_at=now,
        settings=state.settings if state else None,
        campaigns=campaigns,
        runs=runs,
        under_way=inspect.holder(layout) is not None,
        killed=bool(runs) and files.newest_run_id > runs[-1].run_id,
        reports=files.reports,
        periods=_periods(files.reports),
        largest=[each for each in files.sizes.most_common(_LARGEST) if each[1]],
        differing=files.differing,
        differences=files.differences,
        failures=failures,
        causes=causes,
        verified=verified.read(layout),
        manifest_sha256=_sha256(layout.manifest) if is_there else "",
        manifest_bytes=layout.manifest.stat().st_size if is_there else 0,
        broken_lines={name: count for name, count in broken.items() if count},
    )


def _state(layout: Layout) -> inspect.Content | None:
    """The private state, read only; None where it is missing or damaged."""
    try:
        return inspect.read_content(layout)
    except ConfigError:
        return None


class _Files:
    """Reads finished files: the figures of each report, the rows of each campaign, and what is not
    as the manifest says."""

    def __init__(self, root: Path, *, now: datetime, advance: Advance) -> None:
        self._root, self._now, self._advance = root, now, advance
        self._scanners: dict[str, Scanner] = {}
        self.sizes: Counter[str] = Counter()
        self.newest_run_id = ""
        self.differing = 0
        self.differences: list[tuple[str, str]] = []

    @property
    def reports(self) -> list[ReportFigures]:
        """The largest first."""
        return sorted((each.figures for each in self._scanners.values()), key=lambda f: -f.rows)

    def read(self, listed: Finished) -> None:
        """One file. Of more than ten reports, the last ones are left out."""
        self.newest_run_id = max(self.newest_run_id, listed.run_id)
        if listed.report not in self._scanners:
            if len(self._scanners) == _REPORTS:
                return
            self._scanners[listed.report] = Scanner(listed.report, now=self._now)
        scanner = self._scanners[listed.report]
        figures, before = scanner.figures, scanner.figures.rows
        path, recorded = self._root / listed.file, (listed.bytes, listed.sha256, listed.rows)
        found = differences(path, recorded, take=scanner.take, advance=self._advance)
        problems = [(listed.file, what) for what in found]
        self.differing += bool(problems)
        self.differences = [*self.differences, *problems[:1]][:_EXAMPLES]
        rows = figures.rows - before
        self.sizes[listed.campaign_id] += rows
        figures.files += 1
        figures.empty += not rows
        figures.not_asked += not listed.asked
        figures.bytes += listed.bytes
        if listed.reconciled is not None:
            figures.agreeing += listed.reconciled
            figures.differing += not listed.reconciled
            if not listed.reconciled and len(figures.examples) < _EXAMPLES:
                figures.examples.append(listed)


def _periods(reports: Sequence[ReportFigures]) -> Periods | None:
    first = min((each.first for each in reports if each.first), default=None)
    last = max((each.last for each in reports if each.last), default=None)
    return periods(first.date(), last.date()) if first and last else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
