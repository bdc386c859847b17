"""Events in, counts and report files out: reducers over one stream, so what they say adds up."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeAlias

from harvester import events
from harvester._version import __version__
from harvester.clock import Clock, stamp
from harvester.disk.journal import Journal
from harvester.events import Event, Observer
from harvester.model import Target

Handlers: TypeAlias = dict[type, Callable[[Any], None]]


class Reducer:
    """Takes some kinds of events, each with a method of its own."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if handle := self.handlers.get(type(event)):
            handle(event)


class Fanout:
    """Shows each event to the reducers that take its kind, then to the observers of all."""

    def __init__(self, reducers: Iterable[Reducer], observers: Iterable[Observer]) -> None:
        self._handlers: dict[type, list[Callable[[Any], None]]] = {}
        for reducer in reducers:
            for kind, handle in reducer.handlers.items():
                self._handlers.setdefault(kind, []).append(handle)
        self._observers = tuple(observers)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        for handle in self._handlers.get(type(event), ()):
            handle(event)
        for observe in self._observers:
            observe(event)


class Tally(Reducer):
    """Counts what happened; feeds the summary and the display."""

    def __init__(self) -> None:
        self.sent = self.ok = self.retried = self.throttled = 0
        self.pages = self.rows = self.bytes = 0
        self.complete = self.failed = self.skipped = self.unreconciled = 0
        self.unreconciled_example: Target | None = None
        self.used_today = 0
        self.paused_until: datetime | None = None
        self._restarted: set[Target] = set()
        self.set_aside_until: datetime | None = None
        super().__init__(
            {
                events.RequestSent: self._sent,
                events.RequestSucceeded: self._succeeded,
                events.RequestFailed: self._request_failed,
                events.PageCommitted: self._page,
                events.CampaignCompleted: self._completed,
                events.CampaignFailed: self._failed,
                events.CampaignSkipped: self._skipped,
                events.CampaignSetAside: self._set_aside,
                events.WalkRestarted: self._walk_restarted,
                events.Paused: self._paused,
            }
        )

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

    def _paused(self, event: events.Paused) -> None:
        self.paused_until = max(self.paused_until or event.until, event.until)

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


class RetryReport(Reducer):
    """retries.ndjson: a line when a request is repeated, with why and after which wait.

    The reason is known when the retry is scheduled, the line is due when it is sent: a wait that
    the end of the run cut short repeats nothing.
    """

    def __init__(self, journal: Journal, run_id: str, clock: Clock) -> None:
        self._journal = journal
        self._run_id = run_id
        self._clock = clock
        self._scheduled: dict[Target, dict[str, Any]] = {}
        super().__init__(
            {
                events.RequestSent: self._sent,
                events.RetryScheduled: self._retry,
                events.WalkRestarted: self._restart,
                events.CampaignFailed: self._ended,
                events.CampaignSetAside: self._ended,
                events.CampaignLeft: self._ended,
            }
        )

    def _sent(self, event: events.RequestSent) -> None:
        if self._scheduled and (line := self._scheduled.pop(event.target, None)):
            self._journal.append({"at": stamp(self._clock.now()), **line})

    def _retry(self, event: events.RetryScheduled) -> None:
        self._schedule(
            event.target,
            page=event.page,
            attempt=event.attempt,
            cause=event.cause,
            status=event.status,
            wait_s=round(event.wait_s, 3),
            wait_source=event.wait_source,
        )

    def _restart(self, event: events.WalkRestarted) -> None:
        self._schedule(
            event.target,
            page=event.page,
            attempt=1,
            cause=event.cause,
            status=event.status,
            wait_s=0.0,
            wait_source="none",
        )

    def _ended(
        self, event: events.CampaignFailed | events.CampaignSetAside | events.CampaignLeft
    ) -> None:
        self._scheduled.pop(event.target, None)

    def _schedule(self, target: Target, **why: object) -> None:
        self._scheduled[target] = {
            "run_id": self._run_id,
            "report": target.report,
            "campaign_id": target.campaign_id,
            **why,
        }


class Provenance(Reducer):
    """pages.ndjson: a line for each page, with when, where from, and by which version.

    A page fetched again after a kill has a second line: the later one is that of the file.
    """

    def __init__(self, journal: Journal, run_id: str, clock: Clock) -> None:
        super().__init__({events.PageCommitted: self._write})
        self._journal = journal
        self._run_id = run_id
        self._clock = clock

    def _write(self, event: events.PageCommitted) -> None:
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


class ErrorReport(Reducer):
    """errors.ndjson: a line for each campaign that failed or was set aside."""

    def __init__(self, journal: Journal, run_id: str, clock: Clock) -> None:
        super().__init__(
            {
                events.CampaignFailed: self._failed,
                events.CampaignSetAside: self._set_aside,
            }
        )
        self._journal = journal
        self._run_id = run_id
        self._clock = clock

    def _failed(self, event: events.CampaignFailed) -> None:
        self._write(event, event.kind, event.error_key)

    def _set_aside(self, event: events.CampaignSetAside) -> None:
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
