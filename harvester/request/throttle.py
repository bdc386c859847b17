"""Every attempt waits for its permit and its start, and tells the pacer what came of it."""

from collections.abc import Callable
from typing import TypeVar

from harvester.errors import (
    CampaignError,
    HarvestError,
    QuotaExceeded,
    Throttled,
    TryAgain,
    Unauthorized,
)
from harvester.events import Observer, RequestFailed, RequestSent, RequestSucceeded
from harvester.model import Fetcher, Request
from harvester.request.pace import Pacer
from harvester.request.permits import Permits
from harvester.runtime import Clock

T = TypeVar("T")


def at_once(then: Callable[[], None]) -> None:
    """Nothing has to be saved before the next request."""
    then()


class ThrottledFetcher:
    """A fetcher that waits for its start, and tells the pacer what came of it.

    A request holds its permit until its answer is `settle`d: saved, where there is something to
    be saved to. So what a kill can cost is as many requests as there are permits.
    """

    def __init__(
        self,
        inner: Fetcher,
        pacer: Pacer,
        permits: Permits,
        *,
        clock: Clock | None = None,
        emit: Observer = lambda event: None,
        call_after_commit: Callable[[Callable[[], None]], None] = at_once,
    ) -> None:
        self._inner = inner
        self._pacer = pacer
        self._permits = permits
        self._clock = clock or Clock()
        self._emit = emit
        self._call_after_commit = call_after_commit

    async def fetch(self, call: Request[T]) -> T:
        """Send `call` when its turn comes."""
        if call.urgent:  # who holds the permits is waiting for it
            return await self._fetch(call)
        await self._permits.acquire(call.priority)
        try:
            found = await self._fetch(call)
        except BaseException:
            self._permits.release()
            raise
        self._call_after_commit(self._permits.release)
        return found

    async def _fetch(self, call: Request[T]) -> T:
        used = await self._pacer.slot(urgent=call.urgent)
        started = self._clock.monotonic()
        self._emit(
            RequestSent(target=call.target, page=call.page, attempt=call.attempt, used_today=used)
        )
        try:
            found = await self._inner.fetch(call)
        except HarvestError as error:
            self._emit(_failure(call, error))
            if isinstance(error, Throttled):
                self._pacer.throttled(error, started=started)
            elif isinstance(error, Unauthorized):
                error.sent = started
            elif isinstance(error, QuotaExceeded):
                self._pacer.day_spent()
            raise
        self._emit(RequestSucceeded(call.target, call.page, call.attempt))
        self._pacer.succeeded(started=started)
        return found


def _failure(call: Request[T], error: HarvestError) -> RequestFailed:
    match error:
        case TryAgain():
            cause, status = error.cause, error.status
        case CampaignError():
            cause, status = error.kind, error.status
        case _:
            cause, status = getattr(error, "reason", type(error).__name__), None
    return RequestFailed(
        target=call.target, page=call.page, attempt=call.attempt, cause=cause, status=status
    )
