"""From a directory to the figures of the page. Nothing is sent or changed.

What is kept in memory grows with the number of finished files by their names alone; everything that
the page shows is bounded.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from heapq import nlargest
from pathlib import Path

from harvester.disk.layout import Layout
from harvester.errors import ConfigError
from harvester.reporting.eta import Allowance, finish_time
from harvester.reporting.page.charts import Periods, periods
from harvester.reporting.page.days import requests_by_day
from harvester.reporting.page.figures import (
    Estimate,
    Figures,
    FileChecks,
    Largest,
    Origin,
    ReportFigures,
    RunHistory,
)
from harvester.reporting.page.ndjson import Lines
from harvester.reporting.page.scan import UNDATED, Scanner
from harvester.reporting.page.sources import (
    Campaigns,
    Failure,
    Manifest,
    Repeat,
    Run,
    RunIds,
    State,
    begun_at,
    read_runs,
    read_state,
)
from harvester.reporting.page.troubles import failures_by_kind, repeats_by_cause
from harvester.reporting.page.verdict import Standing, verdict

_LARGEST = 10  # campaigns
_RUNS = 20
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
    run_ids = RunIds()
    state = read_state(layout)
    reports, sizes, checks = _scan(layout.root, manifest, run_ids, now=now, advance=advance)
    failures = failures_by_kind(layout, failure_lines.read(layout.errors), state, run_ids)
    causes = repeats_by_cause(repeat_lines.read(layout.retries), run_ids)
    runs = read_runs(layout, run_lines)
    kept = layout.root.joinpath("runs.ndjson").is_file()
    under_way = state.holder is not None
    cut_off = _unrecorded(run_ids, runs, kept=kept, under_way=under_way)
    last = runs[-1] if runs else None
    campaigns = _campaigns(state, last, complete=len(sizes))
    facts = Standing(
        directory=str(layout.root),
        settings=state.settings,
        campaigns=campaigns,
        failed_kinds=frozenset(each.kind for each in failures if each.now),
        rows=sum(report.rows for report in reports),
        last_run=last,
        under_way=under_way,
        killed=bool(cut_off) and (last is None or cut_off[-1] > last.run_id),
        differing_files=checks.differing,
        now=now,
    )
    broken = {
        "manifest.ndjson": manifest.broken,
        "runs.ndjson and summary.json": run_lines.broken,
        "errors.ndjson": failure_lines.broken,
        "retries.ndjson": repeat_lines.broken,
    }
    return Figures(
        directory=str(layout.root),
        made_at=now,
        verdict=verdict(facts),
        campaigns=campaigns,
        reports=reports,
        periods=_periods(reports),
        largest=_largest(sizes),
        days=requests_by_day(runs)[-_DAYS:],
        runs=RunHistory(
            shown=runs[::-1][:_RUNS],
            earlier=max(0, len(runs) - _RUNS),
            cut_off=cut_off,
            total_sent=sum(run.requests.sent for run in runs),
            kept=kept,
        ),
        estimate=_estimate(campaigns, reports, runs, state, now=now),
        failures=failures,
        causes=causes,
        checks=checks,
        origin=Origin(
            settings=state.settings,
            manifest_sha256=_sha256(layout.manifest),
            manifest_bytes=_size(layout.manifest),
            broken_lines=+Counter(broken),
            state_readable=state.readable,
        ),
    )


def _scan(
    root: Path, manifest: Manifest, run_ids: RunIds, *, now: datetime, advance: Advance
) -> tuple[list[ReportFigures], Counter[str], FileChecks]:
    """Read every finished file: the figures of each report, and the rows of each campaign."""
    found: dict[str, tuple[ReportFigures, Scanner]] = {}
    sizes: Counter[str] = Counter()
    examples: list[tuple[str, str]] = []
    differing = 0
    for listed in manifest:
        if listed.report not in found:
            if len(found) == _REPORTS:
                continue
            figures = ReportFigures(name=listed.report, has_dates=listed.report not in UNDATED)
            found[listed.report] = figures, Scanner(listed.report, now=now)
        figures, scanner = found[listed.report]
        before = scanner.events.rows
        problem = scanner.scan(root / listed.file, listed, advance)
        rows = scanner.events.rows - before
        sizes[listed.campaign_id] += rows
        if problem is not None:
            differing += 1
            if len(examples) < _EXAMPLES:
                examples.append((listed.file, problem))
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
        run_ids.add(listed.run_id)
    for figures, scanner in found.values():
        events = scanner.events
        figures.rows, figures.undated, figures.days = events.rows, events.undated, events.days
        figures.first, figures.last = events.first, events.last
    reports = sorted((figures for figures, _ in found.values()), key=lambda each: -each.rows)
    return reports, sizes, FileChecks(differing=differing, examples=examples)


def _unrecorded(run_ids: RunIds, runs: Sequence[Run], *, kept: bool, under_way: bool) -> list[str]:
    """Runs that wrote lines and left no figures, the oldest first: they were cut off.

    Without a history (`kept`) only those after the last run are known to be such. The newest one
    is the run that is under way, if there is one.
    """
    recorded = {run.run_id for run in runs}
    newest = runs[-1].run_id if runs else ""
    found = sorted(
        run_id
        for run_id in run_ids
        if (kept or run_id > newest) and run_id not in recorded and begun_at(run_id)
    )
    return found[:-1] if under_way and found and found[-1] > newest else found


def _campaigns(state: State, last: Run | None, *, complete: int) -> Campaigns:
    """Campaigns by state. Those that the last run did not come to are pending as well."""
    known = state.campaigns if state.readable else None
    if known is None:
        return last.campaigns if last else Campaigns(total=complete, complete=complete)
    asked = last.campaigns.total if last else 0
    total = max(known.total, asked)
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


def _largest(sizes: Counter[str]) -> list[Largest]:
    chosen = nlargest(_LARGEST, sizes.items(), key=lambda item: item[1])
    return [Largest(campaign_id=campaign_id, rows=rows) for campaign_id, rows in chosen if rows]


def _estimate(
    campaigns: Campaigns,
    reports: Sequence[ReportFigures],
    runs: Sequence[Run],
    state: State,
    *,
    now: datetime,
) -> Estimate | None:
    """When the rest is done: what is left is taken to be like what is there."""
    files, pages = sum(each.files for each in reports), sum(each.pages for each in reports)
    if not (runs and files and pages and campaigns.partial + campaigns.pending):
        return None  # without a run that ended it is not known how many campaigns there are
    names = state.settings.get("report", "opens").split(",")
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
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
