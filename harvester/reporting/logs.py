"""Events in, report files out: retries.ndjson, errors.ndjson, pages.ndjson."""

from typing import Any, ClassVar

from harvester import events
from harvester._version import __version__
from harvester.disk.ndjson_log import NdjsonLog
from harvester.events import Event
from harvester.model import Target
from harvester.runtime import Clock, stamp


class _Report:
    """A file with a line for each event of some kind; each line begins the same way."""

    def __init__(self, log: NdjsonLog, run_id: str, clock: Clock) -> None:
        self._log = log
        self._run_id = run_id
        self._clock = clock

    def _append(self, target: Target, **facts: object) -> None:
        self._log.append(
            {
                "at": stamp(self._clock.now()),
                "run_id": self._run_id,
                "report": target.report,
                "campaign_id": target.campaign_id,
                **facts,
            }
        )


class RetryReport(_Report):
    """retries.ndjson: a line when a request is repeated, with the cause and the wait before it.

    The cause is known when the retry is scheduled; the line is written when it is sent. A wait
    that the end of the run cut short repeats nothing.
    """

    takes: ClassVar[tuple[type, ...]] = (
        events.RequestSent,
        events.RetryScheduled,
        events.WalkRestarted,
        events.CampaignFailed,
        events.CampaignDeferred,
        events.CampaignInterrupted,
    )

    def __init__(self, log: NdjsonLog, run_id: str, clock: Clock) -> None:
        super().__init__(log, run_id, clock)
        self._scheduled: dict[Target, dict[str, Any]] = {}

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case events.RequestSent(target=target):
                if facts := self._scheduled.pop(target, None):
                    self._append(target, **facts)
            case events.RetryScheduled():
                wait = {"wait_s": round(event.wait_s, 3), "wait_source": event.wait_source}
                self._schedule(event, event.attempt, wait)
            case events.WalkRestarted():
                self._schedule(event, 1, {"wait_s": 0.0, "wait_source": "none"})
            case (
                events.CampaignFailed(target=target)
                | events.CampaignDeferred(target=target)
                | events.CampaignInterrupted(target=target)
            ):
                self._scheduled.pop(target, None)

    def _schedule(
        self,
        event: events.RetryScheduled | events.WalkRestarted,
        attempt: int,
        wait: dict[str, Any],
    ) -> None:
        self._scheduled[event.target] = {
            "page": event.page,
            "attempt": attempt,
            "cause": event.cause,
            "status": event.status,
            **wait,
        }


class Provenance(_Report):
    """pages.ndjson: a line for each page: when, where from, and by which version.

    A page fetched again after a kill has a second line: the later one is that of the file.
    """

    takes: ClassVar[tuple[type, ...]] = (events.PageCommitted,)

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        if isinstance(event, events.PageCommitted):
            self._append(
                event.target,
                page=event.page,
                link=event.link,
                rows=event.rows,
                bytes=event.bytes,
                harvester=__version__,
            )


class ErrorReport(_Report):
    """errors.ndjson: a line for each campaign that failed or was set aside."""

    takes: ClassVar[tuple[type, ...]] = (events.CampaignFailed, events.CampaignDeferred)

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        if isinstance(event, events.CampaignFailed | events.CampaignDeferred):
            self._append(
                event.target,
                kind=getattr(event, "kind", "set_aside"),
                status=event.status,
                error_key=getattr(event, "error_key", None),
                message=event.message,
                attempts=event.attempts,
                pages=event.pages,
                rows=event.rows,
            )
