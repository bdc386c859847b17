"""Events in, reports out: the counts, the retry file, the error file, the summary, the exit code.

Each is a reducer over the same events, so what they say adds up. The exit code is a function of
the summary's facts (`conclude`), not of the way the run took.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from harvester import events
from harvester._version import __version__
from harvester.clock import Clock, stamp
from harvester.disk.output import Journal
from harvester.errors import StopRun
from harvester.events import Event
from harvester.model import Target

_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME
EXIT_CODES = {
    "complete": 0,
    "bug": 1,
    "storage": 1,
    "bad_input": 2,
    "failures": 3,
    "credentials_refused": 4,
    "quota_spent": 75,
    "throttled": 75,
    "sick_server": 75,
    "set_aside": 75,
    "max_requests": 75,
    "max_duration": 75,
    "SIGHUP": 129,
    "SIGINT": 130,
    "cancelled": 130,
    "SIGTERM": 143,
}
_OTHER_STOP = 130  # a reason of the caller's own (`Harvester.stop`)


@dataclass(frozen=True, slots=True)
class Campaigns:
    """Campaigns of the run; total = complete + failed + partial + pending."""

    total: int = 0
    complete: int = 0
    failed: int = 0
    partial: int = 0
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests of the run: every one sent, with a readable 200, sent again, refused as too fast."""

    sent: int = 0
    ok: int = 0
    retried: int = 0
    throttled: int = 0


@dataclass(frozen=True, slots=True)
class Quota:
    """The key's day: `limit` requests (0: none), used by all runs, until `resets_at` (UTC)."""

    limit: int
    used_today: int
    resets_at: datetime


@dataclass(frozen=True, slots=True)
class HarvestReport:
    """What a run did; summary.json is this. `pages`, `rows` and `bytes` are this run's."""

    run_id: str
    exit_code: int
    reason: str
    message: str | None
    resume_at: datetime | None
    campaigns: Campaigns
    requests: Requests
    pages: int
    rows: int
    bytes: int
    quota: Quota
    started_at: datetime
    finished_at: datetime
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Conclusion:
    """Why the run ended, and when it can go on."""

    exit_code: int
    reason: str
    message: str | None
    resume_at: datetime | None


def to_json(report: HarvestReport) -> bytes:
    """The content of summary.json."""
    return orjson.dumps(report, default=_plain, option=_PRETTY)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return stamp(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def conclude(
    order: StopRun | None, campaigns: Campaigns, set_aside_until: datetime | None
) -> Conclusion:
    """The exit code from the facts: an order to stop, campaigns set aside, campaigns failed."""
    if order is not None:
        return Conclusion(
            EXIT_CODES.get(order.reason, _OTHER_STOP), order.reason, str(order), order.resume_at
        )
    reason, resume_at = "complete", None
    if set_aside_until is not None:
        reason, resume_at = "set_aside", set_aside_until
    elif campaigns.failed:
        reason = "failures"
    return Conclusion(EXIT_CODES[reason], reason, None, resume_at)


def new_run_id(now: datetime) -> str:
    """Sortable by time, unique by chance."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


class Tally:
    """Counts what happened; feeds the summary and the display."""

    def __init__(self) -> None:
        self.sent = self.ok = self.retried = self.throttled = 0
        self.pages = self.rows = self.bytes = 0
        self.complete = self.failed = self.skipped = self.unreconciled = 0
        self.unreconciled_example: Target | None = None
        self.used_today = 0
        self._restarted: set[Target] = set()
        self.set_aside_until: datetime | None = None
        self._count: dict[type, Callable[[Any], None]] = {
            events.RequestSent: self._sent,
            events.RequestSucceeded: self._succeeded,
            events.RequestFailed: self._request_failed,
            events.PageCommitted: self._page,
            events.CampaignCompleted: self._completed,
            events.CampaignFailed: self._failed,
            events.CampaignSkipped: self._skipped,
            events.CampaignSetAside: self._set_aside,
            events.WalkRestarted: self._walk_restarted,
        }

    def __call__(self, event: Event) -> None:
        """Count one event."""
        count = self._count.get(type(event))
        if count is not None:
            count(event)

    def _sent(self, event: events.RequestSent) -> None:
        self.sent += 1
        self.used_today = event.used_today
        if event.attempt > 1 or event.target in self._restarted:
            self._restarted.discard(event.target)
            self.retried += 1

    def _succeeded(self, event: events.RequestSucceeded) -> None:
        self.ok += 1

    def _request_failed(self, event: events.RequestFailed) -> None:
        self.throttled += event.cause == "throttled"

    def _walk_restarted(self, event: events.WalkRestarted) -> None:
        self._restarted.add(event.target)

    def _page(self, event: events.PageCommitted) -> None:
        self.pages += 1
        self.rows += event.rows
        self.bytes += event.bytes

    def _completed(self, event: events.CampaignCompleted) -> None:
        self.complete += 1
        if event.reconciled is False:
            self.unreconciled += 1
            self.unreconciled_example = event.target

    def _failed(self, event: events.CampaignFailed) -> None:
        self.failed += 1

    def _skipped(self, event: events.CampaignSkipped) -> None:
        self.skipped += 1

    def _set_aside(self, event: events.CampaignSetAside) -> None:
        self.set_aside_until = max(self.set_aside_until or event.resume_at, event.resume_at)


class RetryReport:
    """retries.ndjson: a line when a request is repeated, with why and after which wait.

    The reason is known when the retry is scheduled, the line is due when it is sent: a wait that
    the end of the run cut short repeats nothing.
    """

    def __init__(self, journal: Journal, run_id: str, clock: Clock) -> None:
        self._journal = journal
        self._run_id = run_id
        self._clock = clock
        self._scheduled: dict[Target, dict[str, Any]] = {}

    def __call__(self, event: Event) -> None:
        """Note a scheduled retry, or write the line of one that is sent."""
        match event:
            case events.RequestSent(target) if self._scheduled:
                if line := self._scheduled.pop(target, None):
                    self._journal.append({"at": stamp(self._clock.now()), **line})
            case events.RetryScheduled():
                self._schedule(
                    event.target,
                    page=event.page,
                    attempt=event.attempt,
                    cause=event.cause,
                    status=event.status,
                    wait_s=round(event.wait_s, 3),
                    wait_source=event.wait_source,
                )
            case events.WalkRestarted():
                self._schedule(
                    event.target,
                    page=event.page,
                    attempt=1,
                    cause=event.cause,
                    status=event.status,
                    wait_s=0.0,
                    wait_source="none",
                )
            case events.CampaignFailed() | events.CampaignSetAside() | events.CampaignLeft():
                self._scheduled.pop(event.target, None)

    def _schedule(self, target: Target, **why: object) -> None:
        self._scheduled[target] = {
            "run_id": self._run_id,
            "report": target.report,
            "campaign_id": target.campaign_id,
            **why,
        }


class Provenance:
    """pages.ndjson: a line for each page, with when, where from, and by which version.

    A page fetched again after a kill has a second line: the later one is that of the file.
    """

    def __init__(self, journal: Journal, run_id: str, clock: Clock) -> None:
        self._journal = journal
        self._run_id = run_id
        self._clock = clock

    def __call__(self, event: Event) -> None:
        """Write the line of a page."""
        if isinstance(event, events.PageCommitted):
            self._journal.append(
                {
                    "at": stamp(self._clock.now()),
                    "run_id": self._run_id,
                    "report": event.target.report,
                    "campaign_id": event.target.campaign_id,
                    "page": event.page,
                    "link": event.link,
                    "rows": event.rows,
                    "bytes": event.bytes,
                    "harvester": __version__,
                }
            )


class ErrorReport:
    """errors.ndjson: a line for each campaign that failed or was set aside."""

    def __init__(self, journal: Journal, run_id: str, clock: Clock) -> None:
        self._journal = journal
        self._run_id = run_id
        self._clock = clock

    def __call__(self, event: Event) -> None:
        """Write the line of a failure."""
        match event:
            case events.CampaignFailed():
                self._write(event, event.kind, event.error_key)
            case events.CampaignSetAside():
                self._write(event, "set_aside", None)

    def _write(
        self,
        event: events.CampaignFailed | events.CampaignSetAside,
        kind: str,
        error_key: str | None,
    ) -> None:
        self._journal.append(
            {
                "at": stamp(self._clock.now()),
                "run_id": self._run_id,
                "report": event.target.report,
                "campaign_id": event.target.campaign_id,
                "kind": kind,
                "status": event.status,
                "error_key": error_key,
                "message": event.message,
                "attempts": event.attempts,
                "pages": event.pages,
                "rows": event.rows,
            }
        )
