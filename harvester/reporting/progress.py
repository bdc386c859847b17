"""Events in, what a person reads out: figures for the live display, one log line for a fact."""

import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from harvester import events
from harvester.events import Event
from harvester.model import Target
from harvester.reporting.counters import Counters
from harvester.reporting.eta import Allowance, finish_time
from harvester.runtime import Clock

REQUEST_LEVEL = 5  # below DEBUG
_WINDOW = 20.0  # the request rate shown is that of so many seconds


@dataclass(frozen=True, slots=True)
class Figures:
    """What there is to show at one moment."""

    done: int
    total: int | None
    failed: int
    active: int
    pages: int
    rows: int
    requests_a_second: float
    rate: float
    throttled: int
    retried: int
    used_today: int
    quota: int
    pause: str | None
    pause_until: datetime | None
    done_about: datetime | None


class Progress:
    """Reduces events to `Figures`. `figures()` may be asked as often as one likes."""

    def __init__(self, tally: Counters, clock: Clock | None = None) -> None:
        self._tally = tally
        self._clock = clock or Clock()
        self._starts: deque[float] = deque()
        self._total: int | None = None
        self._rate = 0.0
        self._quota = 0
        self._active: set[object] = set()
        self._repeated = 0
        self._pause: events.Paused | None = None

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case events.RequestSent():
                self._starts.append(self._clock.monotonic())
                self._pause = None
            case events.CampaignStarted(target):
                self._active.add(target)
            case (
                events.CampaignCompleted(target)
                | events.CampaignFailed(target)
                | events.CampaignDeferred(target)
                | events.CampaignInterrupted(target)
                | events.CampaignSkipped(target)
            ):
                self._active.discard(target)
            case events.RunStarted():
                self._total, self._rate = event.total, event.rate
                self._quota = event.quota_limit
            case events.IdRepeated():
                self._repeated += 1
            case events.PaceChanged(gap):
                self._rate = 1 / gap if gap else 0.0
            case events.Paused():
                self._pause = event

    def figures(self) -> Figures:
        """The figures of this moment."""
        tally, now = self._tally, self._clock.now()
        total = None if self._total is None else self._total - self._repeated
        done = tally.complete + tally.skipped
        pause = self._pause if self._pause and self._pause.until > now else None
        return Figures(
            done=done,
            total=total,
            failed=tally.failed,
            active=len(self._active),
            pages=tally.pages,
            rows=tally.rows,
            requests_a_second=self._requests_a_second(),
            rate=self._rate,
            throttled=tally.throttled,
            retried=tally.retried,
            used_today=tally.used_today,
            quota=self._quota,
            pause=pause.reason if pause else None,
            pause_until=pause.until if pause else None,
            done_about=self._done_about(now, total, done + tally.failed),
        )

    def _requests_a_second(self) -> float:
        now = self._clock.monotonic()
        while self._starts and self._starts[0] < now - _WINDOW:
            self._starts.popleft()
        if len(self._starts) < 2:
            return 0.0
        # N starts have N - 1 gaps between them; what has passed since the last one counts as well.
        return (len(self._starts) - 1) / max(now - self._starts[0], 1e-3)

    def _done_about(self, now: datetime, total: int | None, over: int) -> datetime | None:
        """Sizes are unknown: take the campaigns still to come to be like those that are over."""
        ended = self._tally.complete + self._tally.failed
        if total is None or not ended:
            return None
        left = (total - over) * self._tally.sent / ended
        pace = self._requests_a_second() or self._rate
        return finish_time(
            now, max(0, round(left)), Allowance(pace, self._quota, self._tally.used_today)
        )


Line: TypeAlias = tuple[int, str, dict[str, Any]]


def describe(event: Event) -> Line | None:
    """A log line for an event: level, text, fields; None for what is only counted.

    Warnings are for what a person should look at, INFO for the course of the run, DEBUG for each
    campaign, and level 5 for each request.
    """
    return _of_run(event) or _of_campaign(event) or _of_request(event)


def _of_run(event: Event) -> Line | None:
    match event:
        case events.RunStarted():
            text = f"run {event.run_id} into {event.output}"
            if event.total is not None:
                text += f": {event.total:,} campaigns"
            return logging.INFO, text, {"run_id": event.run_id}
        case events.FilesRemoved(files, size):
            return logging.WARNING, f"--fresh removes {files:,} files, {size:,} bytes", {}
        case events.Paused(reason, seconds, until):
            text = f"{reason}: every worker holds for {seconds:.1f} s, until {until:%H:%M:%S} UTC"
            return logging.INFO, text, {"reason": reason, "seconds": round(seconds, 3)}
        case events.PaceChanged(gap):
            return logging.INFO, f"request starts are now {gap:.3f} s apart", {"gap_s": gap}
        case events.RunFinished(exit_code, reason):
            text = f"the run has ended: {reason.replace('_', ' ')}"
            return logging.INFO, text, {"reason": reason, "exit_code": exit_code}
        case events.RunStopping(reason, message):
            return logging.WARNING, f"stopping: {message}", {"reason": reason}
        case _:
            return None


def _of_campaign(event: Event) -> Line | None:
    match event:
        case events.CampaignSkipped(target, state):
            return logging.DEBUG, f"{target} is {state} already", _names(target)
        case events.CampaignStarted(target, pages):
            text = f"{target} continues after page {pages}" if pages else f"{target} begins"
            return logging.DEBUG, text, _names(target)
        case events.CampaignCompleted(target, _, pages, rows):
            text = f"{target} is complete: {rows:,} records on {pages:,} pages"
            return logging.DEBUG, text, {**_names(target), "rows": rows, "pages": pages}
        case events.CampaignFailed(target, kind, status):
            text = f"{target} failed: {kind}: {event.message}"
            return logging.WARNING, text, {**_names(target), "kind": kind, "status": status}
        case events.CampaignDeferred(target):
            return logging.WARNING, f"{target} is set aside: {event.message}", _names(target)
        case events.WalkRestarted(target, page, cause):
            text = f"{target} starts over at its first page: {cause}: {event.message}"
            return logging.WARNING, text, {**_names(target), "page": page, "cause": cause}
        case _:
            return None


def _of_request(event: Event) -> Line | None:
    match event:
        case events.RetryScheduled(target, page, attempt, cause, status, wait, source):
            text = f"{target} page {page}: {cause}, attempt {attempt} in {wait:.1f} s ({source})"
            fields = {"page": page, "cause": cause, "status": status, "wait_s": round(wait, 3)}
            return logging.INFO, text, {**_names(target), **fields}
        case events.IdRepeated(campaign_id):
            return logging.DEBUG, f"{campaign_id} came before and is taken once", {}
        case events.RequestSent(target, page, attempt):
            text = f"{target} page {page}, attempt {attempt}"
            return REQUEST_LEVEL, text, {**_names(target), "page": page}
        case _:
            return None


def _names(target: Target) -> dict[str, Any]:
    return {"report": target.report, "campaign_id": target.campaign_id}
