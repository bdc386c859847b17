"""Events in, figures out: how far a run is at one moment."""

from collections import Counter, deque
from datetime import datetime

from msgspec import Struct

from harvester import events
from harvester.events import Event
from harvester.model import Target
from harvester.reporting.counters import Counters
from harvester.reporting.eta import Allowance, finish_time
from harvester.reporting.remaining import RequestsLeft
from harvester.runtime import Clock

_WINDOW = 20.0  # the request rate shown is that of so many seconds
_LONG_WAIT = 600.0  # a wait of more seconds than this has a heartbeat once an hour


class Figures(Struct, frozen=True, kw_only=True):
    """What there is to show at one moment; the heartbeat has these fields.

    Campaigns are `campaigns_done`, `failed`, or still to come; `campaigns_total` None is an
    unknown number. `requests_done` brought what they were to bring. `requests_left` is a lower
    bound where `at_least` is true, and then nothing is done before `done_about`. `rate` is the pace
    in requests a second (0: none). A pause still lasts `wait_s`.
    """

    elapsed_s: float = 0.0
    campaigns_done: int = 0
    campaigns_total: int | None = None
    failed: int = 0
    pages: int = 0
    rows: int = 0
    bytes: int = 0
    in_flight: int = 0
    requests_done: int = 0
    requests_left: int | None = None
    at_least: bool = False
    done_about: datetime | None = None
    requests_per_second: float = 0.0
    rate: float = 0.0
    throttled: int = 0
    retried: int = 0
    used_today: int = 0
    quota_limit: int = 0
    paused: str | None = None
    paused_until: datetime | None = None
    wait_s: float = 0.0


def next_heartbeat_s(figures: Figures) -> float:
    """Seconds to the next heartbeat: 15 in the first ten minutes, then a minute; an hour during a
    long wait, but never past its end."""
    if figures.wait_s > _LONG_WAIT:
        return min(figures.wait_s, 3600.0)
    return 15.0 if figures.elapsed_s < 600 else 60.0


class Progress:
    """Reduces events to `Figures`; `figures()` may be called at any time."""

    def __init__(self, counters: Counters, clock: Clock | None = None) -> None:
        self._counters = counters
        self._clock = clock or Clock()
        self._began = self._clock.monotonic()
        self._starts: deque[float] = deque()
        self._total: int | None = None
        self._reports = 1
        self._rate = 0.0
        self._quota = 0
        self._left = RequestsLeft()
        self._repeated_walks = 0
        self._campaigns: Counter[str] = Counter()
        self._open: dict[str, list[str]] = {}  # ends of the walks of campaigns that go on
        self._pause: events.Paused | None = None

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case events.RequestSent():
                self._starts.append(self._clock.monotonic())
                self._pause = None
            case events.RequestSucceeded():
                pass
            case events.PageCommitted():
                self._left(event)
            case _:
                self._left(event)
                self._follow(event)

    def _follow(self, event: Event) -> None:
        """Take in what does not come with each page."""
        match event:
            case events.CampaignCompleted(target=target):
                self._end(target, "complete")
            case events.CampaignFailed(target=target):
                self._end(target, "failed")
            case events.CampaignDeferred(target=target):
                self._end(target, "set_aside")
            case events.CampaignSkipped(target=target, state=state):
                self._end(target, state)
            case events.RunStarted():
                self._total, self._reports = event.total, len(event.reports)
                self._rate, self._quota = event.rate, event.quota_limit
            case events.IdRepeated():
                self._repeated_walks += 1
            case events.PaceChanged(gap=gap):
                self._rate = 1 / gap if gap else 0.0
            case events.Paused():
                self._pause = event

    def _end(self, target: Target, end: str) -> None:
        """One walk is over; its campaign is, too, with the last of them."""
        ends = [*self._open.pop(target.campaign_id, ()), end]
        if len(ends) < self._reports:
            self._open[target.campaign_id] = ends
        else:
            worst = next((each for each in ("failed", "set_aside") if each in ends), "complete")
            self._campaigns[worst] += 1

    def figures(self) -> Figures:
        """The figures of this moment."""
        counters, now = self._counters, self._clock.now()
        pause = self._pause if self._pause and self._pause.until > now else None
        left = self._left.requests
        pace = self._requests_per_second()
        return Figures(
            elapsed_s=round(self._clock.monotonic() - self._began, 3),
            campaigns_done=self._campaigns["complete"],
            campaigns_total=self._total and self._total - self._repeated_walks // self._reports,
            failed=self._campaigns["failed"],
            pages=counters.pages,
            rows=counters.rows,
            bytes=counters.bytes,
            in_flight=counters.in_flight,
            requests_left=left,
            requests_done=counters.ok,
            at_least=bool(left) and self._left.at_least,
            done_about=self._done_about(left, pace, pause.until if pause else now),
            requests_per_second=round(pace, 3),
            rate=self._rate,
            throttled=counters.throttled,
            retried=counters.retried,
            used_today=counters.used_today,
            quota_limit=self._quota,
            paused=pause.reason if pause else None,
            paused_until=pause.until if pause else None,
            wait_s=(pause.until - now).total_seconds() if pause else 0.0,
        )

    def _requests_per_second(self) -> float:
        now = self._clock.monotonic()
        while self._starts and self._starts[0] < now - _WINDOW:
            self._starts.popleft()
        if len(self._starts) < 2:
            return 0.0
        # N starts have N - 1 gaps between them; what has passed since the last one counts as well.
        return (len(self._starts) - 1) / max(now - self._starts[0], 1e-3)

    def _done_about(self, left: int | None, pace: float, start: datetime) -> datetime | None:
        if left is None or not self._counters.sent:
            return None
        allowance = Allowance(pace or self._rate, self._quota, self._counters.used_today)
        return finish_time(start, left, allowance)
