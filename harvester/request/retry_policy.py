"""The decision after a failed attempt, and the failures that a whole run may have. No I/O."""

from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from harvester.errors import QuotaExceeded, Throttled, TryAgain
from harvester.model import Request

T = TypeVar("T")


class RetryAfter(Struct, frozen=True):
    """Try again after `wait` seconds, set by `source`; where `pacer_waits`, the pacer holds so
    long."""

    wait: float
    source: str
    pacer_waits: bool = False


class NoRetriesLeft(Struct, frozen=True):
    """The attempts are used up: the campaign fails."""


class WaitTooLong(Struct, frozen=True):
    """The `wait` (s), or all waits of this page together, would exceed `max_wait`."""

    wait: float


class RetryPolicy(Struct, frozen=True):
    """`retries` more tries for one page, at most `max_wait` seconds of waiting for it.

    Waits grow as `first`, 2 `first`, 4 `first`, … up to `longest` (s), each drawn at random
    between 0 and that ("full jitter", the fewest requests in AWS's comparison). `refused` is the
    wait before the second try after a 401 (s): longer than any per-second limit.
    """

    retries: int = 5
    max_wait: float = 300.0
    first: float = 0.5
    longest: float = 60.0
    refused: float = 2.0

    def decide(
        self, trouble: TryAgain, *, failures: int, waited: float, draw: float
    ) -> RetryAfter | NoRetriesLeft | WaitTooLong:
        """What follows the `failures`-th counted failure; `draw` is uniform in [0, 1)."""
        if isinstance(trouble, QuotaExceeded):
            return RetryAfter(0.0, "quota", pacer_waits=True)
        if isinstance(trouble, Throttled):
            again = RetryAfter(trouble.held, trouble.wait_source, pacer_waits=not trouble.alone)
        elif failures > self.retries:
            return NoRetriesLeft()
        else:
            again = self._backoff(trouble.retry_after, failures, draw)
        return again if waited + again.wait <= self.max_wait else WaitTooLong(again.wait)

    def _backoff(self, floor: float | None, failures: int, draw: float) -> RetryAfter:
        wait = draw * min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        if floor is not None and floor > wait:
            return RetryAfter(floor, "retry-after")
        return RetryAfter(wait, "backoff")


class Tries(Struct):
    """What one page has cost so far: attempts made, failures that count, seconds waited.

    `failures_before` and `successes_before` are those of the run before this page first failed;
    `throttles` and `throttled_since` as in `Request`.
    """

    made: int = 0
    failures: int = 0
    waited: float = 0.0
    failures_before: int = 0
    successes_before: int = 0
    throttles: int = 0
    throttled_since: float = float("inf")

    def next(self, request: Request[T]) -> Request[T]:
        """The request of the next attempt."""
        self.made += 1
        if self.made == 1:
            return request
        return replace(
            request,
            attempt=self.made,
            throttles=self.throttles,
            throttled_since=self.throttled_since,
        )

    def failed(self, trouble: TryAgain) -> None:
        """Count an attempt that failed."""
        self.failures += trouble.counted
        if isinstance(trouble, Throttled):
            self.throttles += 1
            self.throttled_since = min(self.throttled_since, trouble.sent)


class RetryBudget:
    """Failures the whole run may spend on a sick server; every success gives a part of one back.

    With the defaults a dead API costs some two hundred requests, and a run goes on for as long
    as no more than one request in three fails.
    """

    def __init__(self, capacity: float = 200.0, refund: float = 0.5) -> None:
        self._capacity = capacity
        self._refund = refund
        self._left = capacity
        self.failures = self.successes = 0

    def spend(self) -> bool:
        """Take one failure; False if there is none left."""
        self.failures += 1
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def succeeded(self) -> None:
        """A page came."""
        self.successes += 1
        self._left = min(self._capacity, self._left + self._refund)
