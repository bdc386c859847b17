"""Which failures are tried again, when, and for how long.

`RetryPolicy.decide` is the whole decision, a pure function; `RetryingFetcher` is the loop that
carries it out. Above it, the last word on a page is spoken: a result, `CampaignError`, `StopRun`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from harvester.errors import (
    CampaignError,
    Deferred,
    PoisonPage,
    QuotaExceeded,
    ServerTrouble,
    StopRun,
    Throttled,
    TryAgain,
    Unauthorized,
    Unreadable,
)
from harvester.events import Observer, RetryScheduled
from harvester.model import Fetcher, Request
from harvester.request.auth import AuthGate
from harvester.runtime import Clock, StopSignal, later

T = TypeVar("T")
_OF_LARGE_PAGES = frozenset({"timeout", "cut", "reset"})


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Try again after `wait` seconds; `source` says who set the wait. The pacer may see to it."""

    wait: float
    source: str
    pacer_waits: bool = False


@dataclass(frozen=True, slots=True)
class NoRetriesLeft:
    """The attempts are used up: the campaign fails."""


@dataclass(frozen=True, slots=True)
class WaitTooLong:
    """The wait, or all waits of this page together, would exceed `max_wait`."""

    wait: float


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`retries` more tries for one page, at most `max_wait` seconds of waiting for it.

    Waits grow as `first`, 2 `first`, 4 `first`, … up to `longest` (s), each drawn at random
    between 0 and that ("full jitter", the fewest calls in AWS's comparison).
    """

    retries: int = 5
    max_wait: float = 300.0
    first: float = 0.5
    longest: float = 60.0

    def decide(
        self, trouble: TryAgain, *, failures: int, waited: float, draw: float
    ) -> RetryAfter | NoRetriesLeft | WaitTooLong:
        """What follows the `failures`-th counted failure; `draw` is uniform in [0, 1)."""
        if isinstance(trouble, QuotaExceeded):
            return RetryAfter(0.0, "quota", pacer_waits=True)
        if isinstance(trouble, Throttled):
            again = RetryAfter(trouble.held, trouble.wait_source, pacer_waits=True)
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


class RetryingFetcher:
    """A fetcher that tries again as the policy says. A sleeping retry holds no slot."""

    def __init__(
        self,
        inner: Fetcher,
        policy: RetryPolicy,
        *,
        budget: RetryBudget,
        stop: StopSignal,
        auth_gate: AuthGate,
        clock: Clock | None = None,
        emit: Observer = lambda event: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._inner = inner
        self._policy = policy
        self._budget = budget
        self._stop = stop
        self._auth_gate = auth_gate
        self._clock = clock or Clock()
        self._emit = emit
        self._draw = draw

    async def fetch(self, call: Request[T]) -> T:
        """Give the answer of the first attempt that has one."""
        tries = _Tries()
        while True:
            try:
                found = await self._try(call, tries)
            except CampaignError as error:
                error.attempts = tries.made
                raise
            except TryAgain as trouble:
                tries.failures += trouble.counted
                again = self._decide(trouble, tries, optional=call.optional)
                self._announce(call, tries, trouble, again.wait, again.source)
                tries.waited += again.wait
                if not again.pacer_waits:
                    await self._stop.sleep(again.wait)
            else:
                self._budget.succeeded()
                return found

    async def _try(self, call: Request[T], tries: "_Tries") -> T:
        """One attempt; a 401 gets its second look within."""
        try:
            return await self._inner.fetch(tries.next(call))
        except Unauthorized as refusal:
            return await self._retry_after_401(call, tries, refusal)

    async def _retry_after_401(self, call: Request[T], tries: "_Tries", refusal: Unauthorized) -> T:
        """The second look; another one where the refusal was of before somebody else's success."""
        while True:
            try:
                async with self._auth_gate.retry_after_401(refusal) as hold:
                    self._announce(call, tries, refusal, hold, "unauthorized" if hold else "none")
                    return await self._inner.fetch(replace(tries.next(call), urgent=True))
            except Unauthorized as again:
                refusal = again

    def _decide(self, trouble: TryAgain, tries: "_Tries", *, optional: bool) -> RetryAfter:
        """The next try, or the error that stands for having none."""
        decision = self._policy.decide(
            trouble, failures=tries.failures, waited=tries.waited, draw=self._draw()
        )
        if trouble.counted and tries.failures == 1:
            tries.failures_before = self._budget.failures
            tries.successes_before = self._budget.successes
        if trouble.counted and not optional and not self._budget.spend():
            raise StopRun(
                "sick_server",
                f"too many requests fail, the last with: {trouble}",
                resume_at=later(self._clock.now(), self._policy.max_wait),
            ) from None
        if isinstance(decision, NoRetriesLeft):
            poison = _may_be_too_large(trouble) and not self._all_fail(tries)
            failure = PoisonPage if poison else CampaignError
            error = failure(
                trouble.cause,
                f"{trouble} ({tries.made} attempts)",
                status=trouble.status,
                error_key=trouble.error_key,
            )
            error.attempts = tries.made
            raise error from None
        if isinstance(decision, WaitTooLong):
            raise self._too_long(trouble, tries, decision.wait) from None
        return decision

    def _all_fail(self, tries: "_Tries") -> bool:
        """Whether others failed as well since this page first did, and nobody succeeded."""
        others = self._budget.failures - tries.failures - tries.failures_before
        return others > 0 and self._budget.successes == tries.successes_before

    def _too_long(self, trouble: TryAgain, tries: "_Tries", wait: float) -> StopRun | Deferred:
        """Waiting openly ends here: for everybody after a throttle, else for this campaign."""
        resume_at = later(self._clock.now(), wait)
        why = f"{trouble}; the waits for this page exceed --max-wait {self._policy.max_wait:g}"
        if isinstance(trouble, Throttled):
            return StopRun("throttled", why, resume_at=resume_at)
        aside = Deferred(why, resume_at=resume_at, status=trouble.status)
        aside.attempts = tries.made
        return aside

    def _announce(
        self, call: Request[T], tries: "_Tries", trouble: TryAgain, wait: float, source: str
    ) -> None:
        self._emit(
            RetryScheduled(
                target=call.target,
                page=call.page,
                attempt=tries.made + 1,
                cause=trouble.cause,
                status=trouble.status,
                wait_s=wait,
                wait_source=source,
            )
        )


def _may_be_too_large(trouble: TryAgain) -> bool:
    """Whether the same rows may come through in smaller pages."""
    return isinstance(trouble, ServerTrouble | Unreadable) or trouble.cause in _OF_LARGE_PAGES


@dataclass(slots=True)
class _Tries:
    """What one page has cost so far: attempts made, failures that count, seconds waited.

    Beside it how many requests of the run had failed, and come, before this page first failed.
    """

    made: int = 0
    failures: int = 0
    waited: float = 0.0
    failures_before: int = 0
    successes_before: int = 0

    def next(self, call: Request[T]) -> Request[T]:
        self.made += 1
        return call if self.made == 1 else replace(call, attempt=self.made)
