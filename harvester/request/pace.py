"""The shared pace: strict spacing, first come first served, one hold for all requests.

Every attempt of every walker asks `Pacer.slot()` first. The head of the queue waits for the
spacing, a hold or the quota's reset; the others wait behind it, in order. So there is never a
burst: not after an idle time, not after a blocked loop, not after a hold.

aiolimiter is the meter: `AsyncLimiter(1, gap)` lets one start through per gap. Left alone it is
not first come first served, cannot hold, and is late twice (its own timer, then its retry of a
rounding residue). So the queue and the sleeping are ours: it is asked only when it has capacity.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio

from harvester.errors import StopRun, Throttled
from harvester.events import Observer, PaceChanged, Paused
from harvester.model import Request
from harvester.request.quota import BUSY, QuotaLedger
from harvester.request.quota_record import Granted, NotYet, Spent
from harvester.request.spacing import Spacing
from harvester.runtime import Clock, StopSignal, later, next_reset

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

_FIRST_HOLD, _LONGEST_HOLD = 1.0, 60.0  # the limit is per second: the next second may be free
_RESIDUE = 1e-5  # past the gap by this, the meter has no rounding residue left (s)
_LATE_RESET, _ASK_AGAIN = timedelta(minutes=15), timedelta(minutes=1)
_SAME = 0.01  # two holds that end so near to each other are one event (s)
_WALL_SLICE = 30.0  # the wall clock is read this often during the wait for midnight (s)


class Pacer:
    """Hands out starts, one at a time, each charged to the ledger.

    `rate` is starts per second (0: no pace), `max_wait` the longest hold that is slept through
    (s), `wait_for_quota` whether a spent day is, `max_requests` how many starts there are in all.
    """

    def __init__(
        self,
        ledger: QuotaLedger,
        stop: StopSignal,
        *,
        rate: float,
        max_wait: float,
        wait_for_quota: bool = False,
        max_requests: int | None = None,
        clock: Clock | None = None,
        emit: Observer = lambda event: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.spacing = Spacing(rate)
        self._ledger = ledger
        self._stop = stop
        self._max_wait = max_wait
        self._wait_for_quota = wait_for_quota
        self._left = max_requests
        self._clock = clock or Clock()
        self._emit = emit
        self._jitter = jitter
        self._gate: anyio.Event | None = None
        self._first: anyio.Event | None = None  # set when the first request has ended
        self._turn = asyncio.Lock()  # first come, first served, at a fifth of the cost of anyio's
        self._meter = _meter(self.spacing.gap)
        self._next_start = float("-inf")
        self.held_until = float("-inf")
        self._throttled_at = float("-inf")
        self._throttles = self._waiting = 0
        self.in_flight = 0
        self.last_success = float("-inf")  # when the latest request that succeeded was sent
        self._spent_by_api: Spent | None = None

    async def slot(self, *, urgent: bool = False) -> int:
        """Wait for a start; give the day's count with it. Raise `StopRun` if there is none.

        An `urgent` one passes a `closed` gate and those who wait at it, but keeps the spacing.
        """
        if urgent:
            return await self._slot(urgent=True)
        if self._is_free() and isinstance(answer := self._ledger.claim(0.0), Granted):
            return self._started(answer)
        self._waiting += 1
        try:
            async with self._turn:
                return await self._slot()
        finally:
            self._waiting -= 1

    def __repr__(self) -> str:
        held = max(self.held_until - self._clock.monotonic(), 0.0)
        closed = ", closed" if self._gate and not self._gate.is_set() else ""
        return (
            f"<Pacer gap {self.spacing.gap:.3g} s, held {held:.3g} s, "
            f"{self._waiting} waiting{closed}>"
        )

    async def _slot(self, *, urgent: bool = False) -> int:
        while True:
            self._stop.check()
            self._refuse_beyond_max()
            await self._wait_for_spacing()
            if not (urgent or self._gate is None or self._gate.is_set()):
                await self._gate.wait()
                continue
            self._refuse_beyond_max()  # again: an urgent request may have had the last start
            match self._spent_for_the_api() or self._ledger.claim(self.spacing.gap):
                case Granted() as granted:
                    if self._meter is not None:
                        await self._meter.acquire()  # has capacity, because of `_due`
                    # From the moment of this start, not from its due time: a late start must not
                    # bring the next one nearer.
                    self._next_start = self._clock.monotonic() + self.spacing.gap
                    return self._started(granted)
                case NotYet(wait):
                    # A hold of another run; not our own spacing, not a ledger that is busy.
                    if wait > max(self.spacing.gap, BUSY):
                        self._refuse_over_long(wait)
                    await self._stop.sleep(wait)
                case Spent() as spent:
                    await self._wait_for_reset(spent)

    def _started(self, granted: Granted) -> int:
        self.in_flight += 1
        if self._left is not None:
            self._left -= 1
        if self._first is None:
            self._first = anyio.Event()
            if granted.doubtful:  # it goes alone
                self._gate = self._first
        return granted.used

    def _is_free(self) -> bool:
        """Whether there is no pace and nothing to wait for: only the ledger decides then."""
        return (
            self._meter is None
            and not self._turn.locked()
            and not self._stop.requested
            and self._left is None
            and self._spent_by_api is None
            and (self._gate is None or self._gate.is_set())
            and self._due() <= self._clock.monotonic()
        )

    async def _wait_for_spacing(self) -> None:
        while (wait := self._due() - self._clock.monotonic()) > 0:
            await self._stop.sleep(wait)

    def _due(self) -> float:
        spaced = self._next_start + (_RESIDUE if self._meter else 0.0)
        return max(spaced, self.held_until)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Let only urgent requests start meanwhile: the token is in doubt."""
        self._gate = anyio.Event()
        try:
            yield
        finally:
            self._gate.set()

    # -- holds ---------------------------------------------------------------------------------

    def hold(self, seconds: float, reason: str) -> None:
        """Let no request start for `seconds`, in this run or any other of the key."""
        until = self._clock.monotonic() + seconds
        if seconds > 0 and until > self.held_until:
            known, self.held_until = self.held_until, until
            self._ledger.hold(seconds)
            if until > known + _SAME:
                self._emit(Paused(reason, seconds, later(self._clock.now(), seconds)))

    def throttled(self, answer: Throttled, request: Request[Any]) -> None:
        """Hold all requests after a throttle; write the hold into `answer`.

        Requests that were in flight together are refused together: only the first of them backs
        off, the others learn how long the hold still is. Where the API has accepted another request
        since it first throttled this page, it throttles one campaign `alone`: only that one waits.
        """
        floor = answer.retry_after or 0.0
        if request.throttled_since < self.last_success:
            answer.alone = True
            wait = self._growing_hold(request.throttles)
        elif answer.sent >= self._throttled_at:
            # Not kept for the next run: a run that starts too early learns it by one request.
            self._refuse_over_long(floor)
            self._throttled_at = self._clock.monotonic()
            wait = self._growing_hold(self._throttles)
            self._throttles += 1
            self._back_off()
        else:
            self._refuse_over_long(floor)
            wait = self.held_until - self._clock.monotonic()
        answer.wait_source = "throttle" if floor < wait else "retry-after"
        answer.held = max(wait, floor, 0.0)
        if not answer.alone:
            self.hold(answer.held, "throttled")

    def _growing_hold(self, throttles: int) -> float:
        wait = min(_FIRST_HOLD * 2.0 ** min(throttles, 10), _LONGEST_HOLD)
        return wait * (1 + self._jitter() / 10)

    def ended(self) -> None:
        """A request is answered, or lost."""
        self.in_flight -= 1
        if self._first is not None:
            self._first.set()

    def succeeded(self, *, sent: float) -> None:
        """An answer came: narrow the spacing again, slowly."""
        self.last_success = max(self.last_success, sent)
        if sent > self._throttled_at:
            self._throttles = 0
        if self.spacing.widened:
            recovered = self.spacing.recover()
            self._meter = _meter(self.spacing.gap)
            if recovered:
                self._emit(PaceChanged(self.spacing.gap))

    def _back_off(self) -> None:
        self.spacing.back_off()
        self._meter = _meter(self.spacing.gap)
        self._emit(PaceChanged(self.spacing.gap))

    def _refuse_beyond_max(self) -> None:
        if self._left == 0:
            raise StopRun(
                "max_requests",
                "as many requests as `max_requests` allows are sent",
                resume_at=self._clock.now(),
            )

    def _refuse_over_long(self, wait: float) -> None:
        if wait > self._max_wait:
            raise StopRun(
                "throttled",
                f"the API asks for a wait of {wait:.0f} s, longer than `max_wait` "
                f"{self._max_wait:g}",
                resume_at=later(self._clock.now(), wait),
            )

    # -- the day -------------------------------------------------------------------------------

    def day_spent(self) -> None:
        """The API says that the day is spent: send nothing until the reset, whatever our count is.

        The hour of the v2 reset is not documented, so a later run asks once more, alone: that costs
        it one request.
        """
        self._ledger.day_spent()
        now = self._clock.now()
        reset = next_reset(now)
        since = now - (reset - timedelta(days=1))
        if since < _LATE_RESET:  # our midnight was just now; the server's may be yet to come
            reset = now + max(_ASK_AGAIN, since)
        self._spent_by_api = Spent(reset)

    def _spent_for_the_api(self) -> Spent | None:
        if self._spent_by_api and self._clock.now() >= self._spent_by_api.until:
            self._spent_by_api = None
        return self._spent_by_api

    async def _wait_for_reset(self, spent: Spent) -> None:
        """Wait for the reset by the wall clock, in slices: suspend and clock jumps are seen."""
        if not self._wait_for_quota:
            raise StopRun(
                "quota_spent", "the day's quota of requests is spent", resume_at=spent.until
            )
        left = (spent.until - self._clock.now()).total_seconds()
        self._emit(Paused("quota_spent", left, spent.until))
        while (left := (spent.until - self._clock.now()).total_seconds()) > 0:
            await self._stop.sleep(min(left, _WALL_SLICE))


def _meter(gap: float) -> "AsyncLimiter | None":
    if not gap:
        return None
    from aiolimiter import AsyncLimiter  # not needed without a pace

    return AsyncLimiter(1, gap)
