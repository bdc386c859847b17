"""From a directory to the figures of the page. Nothing is sent or changed.

What is kept in memory grows with the number of finished files by their names alone; everything that
the page shows is bounded.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harvester.disk import inspect, verified
from harvester.disk.finished import differences
from harvester.disk.layout import Layout
from harvester.errors import ConfigError
from harvester.reporting.eta import Allowance, finish_time
from harvester.reporting.page.charts import Periods, periods
from harvester.reporting.page.days import requests_by_day
from harvester.reporting.page.figures import Estimate, Figures, ReportFigures
from harvester.reporting.page.ndjson import Lines
from harvester.reporting.page.scan import Scanner
from harvester.reporting.page.sources import (
    Campaigns,
    Failure,
    Finished,
    Manifest,
    Repeat,
    Run,
    begun_at,
    read_runs,
)
from harvester.reporting.page.troubles import failures_by_kind, repeats_by_cause

_LARGEST = 10  # campaigns
_DAYS = 31
_REPORTS = 10
_EXAMPLES = 3
_USUAL_RATE = 3.3  # requests a second, where no run tells

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
    run_ids: set[str] = set()
    state = _state(layout)
    settings = state.settings if state else {}
    files = _Files(layout.root, now=now, advance=advance)
    for listed in manifest:
        files.read(listed)
        run_ids.add(listed.run_id)
    standing = state.failed if state else None
    failures = failures_by_kind(layout, failure_lines.read(layout.errors), standing, run_ids)
    causes = repeats_by_cause(repeat_lines.read(layout.retries), run_ids)
    runs = read_runs(layout, run_lines)
    last = runs[-1] if runs else None
    under_way = inspect.holder(layout) is not None
    history = layout.runs.is_file()
    cut_off = _unrecorded(run_ids, runs, history=history, under_way=under_way)
    campaigns = _campaigns(state, last, complete=len(files.sizes))
    broken = {
        "manifest.ndjson": manifest.broken,
        "runs.ndjson and summary.json": run_lines.broken,
        "errors.ndjson": failure_lines.broken,
        "retries.ndjson": repeat_lines.broken,
    }
    is_there = layout.manifest.is_file()
    return Figures(
        directory=str(layout.root),
        made_at=now,
        settings=settings,
        campaigns=campaigns,
        failed_kinds=frozenset(each.kind for each in failures if each.now),
        rows=sum(report.rows for report in files.reports),
        last_run=last,
        under_way=under_way,
        killed=bool(cut_off) and (last is None or cut_off[-1] > last.run_id),
        differing=files.differing,
        reports=files.reports,
        periods=_periods(files.reports),
        largest=[each for each in files.sizes.most_common(_LARGEST) if each[1]],
        days=requests_by_day(runs)[-_DAYS:],
        runs=runs,
        history=history,
        cut_off=cut_off,
        estimate=_estimate(campaigns, files.reports, runs, settings, now=now),
        failures=failures,
        causes=causes,
        differences=files.differences,
        verified=verified.read(layout),
        state_readable=state is not None,
        manifest_sha256=_sha256(layout.manifest) if is_there else "",
        manifest_bytes=layout.manifest.stat().st_size if is_there else 0,
        broken_lines=+Counter(broken),
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
        self.differing = 0
        self.differences: list[tuple[str, str]] = []

    @property
    def reports(self) -> list[ReportFigures]:
        """The largest first."""
        return sorted((each.figures for each in self._scanners.values()), key=lambda f: -f.rows)

    def read(self, listed: Finished) -> None:
        """One file. Of more than ten reports, the last ones are left out."""
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
        figures.pages += listed.pages
        if listed.reconciled is not None:
            figures.agreeing += listed.reconciled
            figures.differing += not listed.reconciled
            if not listed.reconciled and len(figures.examples) < _EXAMPLES:
                figures.examples.append(listed)


def _unrecorded(
    run_ids: Iterable[str], runs: Sequence[Run], *, history: bool, under_way: bool
) -> list[str]:
    """Runs that wrote lines and left no figures, the oldest first: they were cut off.

    Without a history only those after the last run are known to be such. The newest one is the run
    that is under way, if there is one.
    """
    recorded = {run.run_id for run in runs}
    newest = runs[-1].run_id if runs else ""
    found = sorted(
        run_id
        for run_id in run_ids
        if (history or run_id > newest) and run_id not in recorded and begun_at(run_id)
    )
    return found[:-1] if under_way and found and found[-1] > newest else found


def _campaigns(state: inspect.Content | None, last: Run | None, *, complete: int) -> Campaigns:
    """Campaigns by state. Those that the last run did not come to are pending as well."""
    if state is None:
        return last.campaigns if last else Campaigns(total=complete, complete=complete)
    known = state.campaigns
    total = max(known.total, last.campaigns.total if last else 0)
    return Campaigns(
        total=total,
        complete=known.complete,
        failed=known.failed,
        partial=known.partial,
        pending=total - known.complete - known.failed - known.partial,
    )


def _periods(reports: Sequence[ReportFigures]) -> Periods | None:
    first = min((each.first for each in reports if each.first), default=None)
    last = max((each.last for each in reports if each.last), default=None)
    return periods(first.date(), last.date()) if first and last else None


def _estimate(
    campaigns: Campaigns,
    reports: Sequence[ReportFigures],
    runs: Sequence[Run],
    settings: dict[str, str],
    *,
    now: datetime,
) -> Estimate | None:
    """When the rest is done: what is left is taken to be like what is there."""
    files, pages = sum(each.files for each in reports), sum(each.pages for each in reports)
    if not (runs and files and pages and campaigns.partial + campaigns.pending):
        return None  # without a run that ended it is not known how many campaigns there are
    names = settings.get("report", "opens").split(",")
    left = (campaigns.total - campaigns.failed) * len(names) - files
    requests = max(1, round(left * pages / files))
    last = runs[-1]
    start = max(now, last.resume_at or now)
    same_day = last.finished_at.astimezone(UTC).date() == start.astimezone(UTC).date()
    rate = last.requests.sent / last.elapsed_s if last.elapsed_s else 0.0
    used = last.quota.used_today if same_day else 0
    allowance = Allowance(rate or _USUAL_RATE, last.quota.limit, used)
    return Estimate(requests=requests, done_about=finish_time(start, requests, allowance))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
