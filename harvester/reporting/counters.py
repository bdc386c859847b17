"""Events in, counts and report files out: reducers over one stream, so what they say adds up."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeAlias

from harvester import events
from harvester.errors import describe_bug
from harvester.events import Event, Observer, ObserverFailed
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


class EventDispatcher:
    """Shows each event to the reducers that take its kind, then to the observers of all.

    An observer that raises gets no more events: the others are shown an `ObserverFailed`, and
    `observer_failure` keeps its sentence for the report.
    """

    def __init__(self, reducers: Iterable[Reducer], observers: Iterable[Observer]) -> None:
        self._handlers: dict[type, list[Callable[[Any], None]]] = {}
        for reducer in reducers:
            for kind, handle in reducer.handlers.items():
                self._handlers.setdefault(kind, []).append(handle)
        self._observers = tuple(observers)
        self.observer_failure: str | None = None

    def __call__(self, event: Event) -> None:
        """Show one event."""
        for handle in self._handlers.get(type(event), ()):
            handle(event)
        for observe in self._observers:
            try:
                observe(event)
            except Exception as error:
                self._observers = tuple(each for each in self._observers if each is not observe)
                failed = ObserverFailed(describe_bug(error))
                self.observer_failure = f"an observer raised {failed.error}: it got no more events"
                self(failed)


class Counters(Reducer):
    """Counts what happened; feeds the summary and the display."""

    def __init__(self) -> None:
        self.sent = self.ok = self.retried = self.throttled = 0
        self.pages = self.rows = self.bytes = 0
        self.complete = self.failed = self.skipped = self.unreconciled = 0
        self.unreconciled_example: Target | None = None
        self.used_today = 0
        self.paused_until: datetime | None = None
        self._restarted: set[Target] = set()
        self.deferred_until: datetime | None = None
        super().__init__(
            {
                events.RequestSent: self._sent,
                events.RequestSucceeded: self._succeeded,
                events.RequestFailed: self._request_failed,
                events.PageCommitted: self._page,
                events.CampaignCompleted: self._completed,
                events.CampaignFailed: self._failed,
                events.CampaignSkipped: self._skipped,
                events.CampaignDeferred: self._deferred,
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

    def _deferred(self, event: events.CampaignDeferred) -> None:
        self.deferred_until = max(self.deferred_until or event.resume_at, event.resume_at)
