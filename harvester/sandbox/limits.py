"""The limits: per-second judges of three kinds, the day's quota, and the gate that asks both.

The vendor says 4 requests a second and 10,000 a day for each key, and not how the second is
measured; so there are three readings of it, the sliding log being the strictest. All clocks are
handed in: `now` is monotonic seconds, `wall` is Unix seconds.
"""

from collections import deque
from enum import Enum
from typing import Final, Literal

LimitKind = Literal["sliding", "bucket", "window"]
Refused = Literal["day", "both", "neither"]
_DAY_S: Final = 86_400
_GRACE: Final = 1e-9
"""So that rounding refuses no request that is exactly on time."""


class Judge:
    """Says of each arrival whether it is within the per-second limit; this one admits all.

    `now` never runs backwards.
    """

    def admit(self, now: float, *, charge_refused: bool = False) -> bool:
        """Judge one arrival; a refused one counts against later ones only with `charge_refused`."""
        return True


class SlidingLog(Judge):
    """At most `limit` arrivals in any one second."""

    def __init__(self, limit: float) -> None:
        self._limit = max(1, int(limit))
        self._seen: deque[float] = deque()

    def admit(self, now: float, *, charge_refused: bool = False) -> bool:
        while self._seen and self._seen[0] <= now - 1.0 + _GRACE:
            self._seen.popleft()
        admitted = len(self._seen) < self._limit
        if admitted or charge_refused:
            self._seen.append(now)
        return admitted


class LeakyBucket(Judge):
    """Drains `rate` arrivals a second and holds at most `capacity` of them."""

    def __init__(self, rate: float, capacity: float) -> None:
        self._rate, self._capacity = rate, max(1.0, capacity)
        self._level, self._at = 0.0, float("-inf")

    def admit(self, now: float, *, charge_refused: bool = False) -> bool:
        if self._level:
            self._level = max(0.0, self._level - (now - self._at) * self._rate)
        self._at = now
        admitted = self._level + 1 <= self._capacity + _GRACE
        if admitted or charge_refused:
            self._level = min(self._capacity, self._level + 1)
        return admitted


class FixedWindows(Judge):
    """At most `limit` arrivals in each second of the clock; two bursts may meet at the border."""

    def __init__(self, limit: float) -> None:
        self._limit = max(1, int(limit))
        self._window, self._count = -1, 0

    def admit(self, now: float, *, charge_refused: bool = False) -> bool:
        if int(now // 1) != self._window:
            self._window, self._count = int(now // 1), 0
        admitted = self._count < self._limit
        if admitted or charge_refused:
            self._count += 1
        return admitted


class Verdict(Enum):
    """What the gate said of a request."""

    ADMITTED = "admitted"
    OVER_RATE = "over.qps"
    OVER_DAY = "over.ratelimit"


class Gate:
    """The day first, then the second.

    `quota`: so many requests in each UTC day; 0 is no quota. `refused` says where a request refused
    for pace still counts.
    """

    def __init__(self, judge: Judge, quota: int = 0, refused: Refused = "day") -> None:
        self._judge, self._quota = judge, quota
        self._charge_second = refused == "both"
        self._charge_day = refused != "neither"
        self._day, self._used = -1, 0

    def used(self, wall: float) -> int:
        """Requests charged to the day of `wall` so far."""
        return self._used if int(wall // _DAY_S) == self._day else 0

    def admit(self, now: float, wall: float) -> Verdict:
        """Judge and count one request."""
        used = self.used(wall)
        if self._quota and used >= self._quota:
            return Verdict.OVER_DAY
        admitted = self._judge.admit(now, charge_refused=self._charge_second)
        if admitted or self._charge_day:
            self._day, self._used = int(wall // _DAY_S), used + 1
        return Verdict.ADMITTED if admitted else Verdict.OVER_RATE


def judge_of(kind: LimitKind, rate: float, burst: int) -> Judge:
    """The judge a setting asks for.

    `rate` 0 is no limit; `burst` 0 lets a bucket hold one second's worth.
    """
    if not rate:
        return Judge()
    match kind:
        case "sliding":
            return SlidingLog(rate)
        case "window":
            return FixedWindows(rate)
        case "bucket":
            return LeakyBucket(rate, burst or rate)
