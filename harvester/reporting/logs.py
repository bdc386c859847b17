"""Events in, report files out: retries.ndjson, errors.ndjson, pages.ndjson."""

from typing import Any, ClassVar

from msgspec import Struct

from harvester import events
from harvester._version import __version__
from harvester.disk.ndjson_log import NdjsonLog
from harvester.events import Event
from harvester.model import Target
from harvester.runtime import Clock, stamp


class _Report(Struct, eq=False):
    """A file with a line for each event of some kind; each line begins the same way."""

    log: NdjsonLog
    run_id: str
    clock: Clock

    def _append(self, target: Target, **facts: object) -> None:
        self.log.append(
            {
                "at": stamp(self.clock.now()),
                "run_id": self.run_id,
                "report": target.report,
                "campaign_id": target.campaign_id,
                **facts,
            }
        )


class RetryReport(_Report, eq=False):
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

    scheduled: dict[Target, dict[str, Any]] = {}

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case events.RequestSent(target=target):
                if facts := self.scheduled.pop(target, None):
                    self._append(target, **facts)
            case events.RetryScheduled():
                self._schedule(event, event.attempt, round(event.wait_s, 3), event.wait_source)
            case events.WalkRestarted():
                self._schedule(event, 1, 0.0, "none")
            case (
                events.CampaignFailed(target=target)
                | events.CampaignDeferred(target=target)
                | events.CampaignInterrupted(target=target)
            ):
                self.scheduled.pop(target, None)

    def _schedule(
        self,
        event: events.RetryScheduled | events.WalkRestarted,
        attempt: int,
        wait_s: float,
        wait_source: str,
    ) -> None:
        self.scheduled[event.target] = {
            "page": event.page,
            "attempt": attempt,
            "cause": event.cause,
            "status": event.status,
            "wait_s": wait_s,
            "wait_source": wait_source,
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
                kind=event.kind,
                status=event.status,
                error_key=getattr(event, "error_key", None),
                message=event.message,
                attempts=event.attempts,
                pages=event.pages,
                rows=event.rows,
            )
