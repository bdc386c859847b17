"""One stream of events for every observer, and the counts of a run."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar, Protocol, get_args

from harvester import events
from harvester.errors import describe_bug
from harvester.events import Event, Observer, ObserverFailed
from harvester.model import Target


class Reducer(Protocol):
    """An observer of the program's own. It is shown the kinds of events that it `takes`."""

    takes: ClassVar[tuple[type, ...]]

    def __call__(self, event: Event) -> None:
        """Take one event in."""


class EventDispatcher:
    """Shows each event to the reducers first, then to the observers.

    An observer that raises gets no more events: the others are shown an `ObserverFailed`, and
    `observer_failure` keeps its sentence for the report.
    """

    def __init__(self, reducers: Iterable[Reducer], observers: Iterable[Observer]) -> None:
        each = tuple(reducers)
        self._reducers = {
            kind: tuple(reduce for reduce in each if kind in reduce.takes)
            for kind in get_args(Event)
        }
        self._observers = tuple(observers)
        self.observer_failure: str | None = None

    def __call__(self, event: Event) -> None:
        """Show one event."""
        for reduce in self._reducers[type(event)]:
            reduce(event)
        for observe in self._observers:
            try:
                observe(event)
            except Exception as error:
                self._observers = tuple(each for each in self._observers if each is not observe)
                failed = ObserverFailed(describe_bug(error))
                self.observer_failure = f"an observer raised {failed.error}: it got no more events"
                self(failed)


class Counters:
    """Counts what happened in a run; the summary and the display are made of it."""

    takes: ClassVar[tuple[type, ...]] = get_args(Event)

    def __init__(self) -> None:
        self.sent = self.ok = self.not_ok = self.retried = self.throttled = 0
        self.pages = self.rows = self.bytes = 0
        self.unreconciled = 0
        self.unreconciled_example: Target | None = None
        self.failures: Counter[str] = Counter()  # walks by kind, those refused before among them
        self.examples: dict[str, events.CampaignFailed] = {}  # one for each kind
        self.used_today = 0
        self.paused_until: datetime | None = None
        self.deferred_until: datetime | None = None
        self._restarted: set[Target] = set()

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case events.RequestSent(target=target):
                self.sent += 1
                self.used_today = event.used_today
                if event.attempt > 1 or target in self._restarted:
                    self._restarted.discard(target)
                    self.retried += 1
            case events.RequestSucceeded():
                self.ok += 1
            case events.PageCommitted():
                self.pages += 1
                self.rows += event.rows
                self.bytes += event.bytes
            case events.RequestFailed():
                self.not_ok += 1
                self.throttled += event.cause == "throttled"
            case events.Paused(until=until):
                self.paused_until = max(self.paused_until or until, until)
            case _:
                self._count_end(event)

    def _count_end(self, event: Event) -> None:
        match event:
            case events.CampaignCompleted():
                if event.reconciled is False:
                    self.unreconciled += 1
                    self.unreconciled_example = event.target
            case events.CampaignFailed(kind=kind):
                self.failures[kind] += 1
                self.examples.setdefault(kind, event)
            case events.CampaignSkipped(state="failed", kind=str(kind)):
                self.failures[kind] += 1
            case events.CampaignDeferred(resume_at=until):
                self.deferred_until = max(self.deferred_until or until, until)
            case events.WalkRestarted(target=target):
                self._restarted.add(target)

    @property
    def in_flight(self) -> int:
        """Requests that were sent and have no answer yet."""
        return self.sent - self.ok - self.not_ok
