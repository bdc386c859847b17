"""Events in, report files out: retries.ndjson, errors.ndjson, pages.ndjson."""

from typing import Any

from harvester import events
from harvester._version import __version__
from harvester.disk.ndjson_log import NdjsonLog
from harvester.model import Target
from harvester.reporting.counters import Reducer
from harvester.runtime import Clock, stamp


class RetryReport(Reducer):
    """retries.ndjson: a line when a request is repeated, with why and after which wait.

    The reason is known when the retry is scheduled, the line is due when it is sent: a wait that
    the end of the run cut short repeats nothing.
    """

    def __init__(self, journal: NdjsonLog, run_id: str, clock: Clock) -> None:
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
                events.CampaignDeferred: self._ended,
                events.CampaignInterrupted: self._ended,
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
        self, event: events.CampaignFailed | events.CampaignDeferred | events.CampaignInterrupted
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

    def __init__(self, journal: NdjsonLog, run_id: str, clock: Clock) -> None:
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

    def __init__(self, journal: NdjsonLog, run_id: str, clock: Clock) -> None:
        super().__init__(
            {
                events.CampaignFailed: self._failed,
                events.CampaignDeferred: self._deferred,
            }
        )
        self._journal = journal
        self._run_id = run_id
        self._clock = clock

    def _failed(self, event: events.CampaignFailed) -> None:
        self._write(event, event.kind, event.error_key)

    def _deferred(self, event: events.CampaignDeferred) -> None:
        self._write(event, "set_aside", None)

    def _write(
        self,
        event: events.CampaignFailed | events.CampaignDeferred,
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
