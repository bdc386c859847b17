"""From a directory to the figures of the page. Nothing is sent or changed.

What is kept in memory grows with the number of finished files by their names alone; everything that
the page shows is bounded.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harvester.disk import inspect, verified
from harvester.disk.layout import Layout
from harvester.errors import ConfigError
from harvester.reporting.eta import Allowance, finish_time
from harvester.reporting.page.days import requests_by_day
from harvester.reporting.page.figures import Estimate, Figures, ReportFigures
from harvester.reporting.page.files import Files
from harvester.reporting.page.periods import periods
from harvester.reporting.page.sources import Failure, Lines, Manifest, Repeat, Run
from harvester.reporting.page.troubles import failures_by_kind, repeats_by_cause

_LARGEST = 10  # campaigns
_DAYS = 31
_USUAL_RATE = 3.3  # requests a second, where no run tells


def open_directory(directory: Path) -> tuple[Layout, Manifest]:
    """What the figures are gathered from. Raise `ConfigError` if there is no harvest."""
    layout = Layout(directory)
    if not (layout.manifest.is_file() or layout.database.is_file()):
        raise ConfigError(
            f"{directory} holds no harvest: give the directory that was the --output of a run"
        )
    return layout, Manifest(layout.manifest)


def gather(
    layout: Layout, manifest: Manifest, *, now: datetime, advance: Callable[[int], None]
) -> Figures:
    """Read the report files, and every finished file once.

    `advance` is called with the bytes read of the finished files; they are `manifest.bytes`.
    """
    run_lines, failure_lines, repeat_lines = Lines(Run), Lines(Failure), Lines(Repeat)
    files = Files(layout.root, now=now, advance=advance)
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
    settings = state.settings if state else None
    days = {day for report in files.reports for day in report.days}
    is_there = layout.manifest.is_file()
    return Figures(
        directory=str(layout.root),
        made_at=now,
        settings=settings,
        campaigns=campaigns,
        runs=runs,
        under_way=inspect.holder(layout) is not None,
        killed=files.newest_run_id > max((run.run_id for run in runs), default=""),
        days=requests_by_day(runs)[-_DAYS:],
        estimate=_estimate(campaigns, files.reports, runs, settings or {}, now=now),
        reports=files.reports,
        periods=periods(min(days), max(days)) if days else None,
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


def _estimate(
    campaigns: inspect.States,
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
