"""Every attempt waits for its permit and its start, and tells the pacer what came of it."""

from typing import TypeVar

from harvester.clock import Clock
from harvester.errors import (
    CampaignError,
    DaySpent,
    HarvestError,
    Throttled,
    TryAgain,
    Unauthorized,
)
from harvester.events import Observer, RequestFailed, RequestSent, RequestSucceeded
from harvester.model import Call
from harvester.request.fetch import Fetcher
from harvester.request.pace import Pacer
from harvester.request.permits import Permits

T = TypeVar("T")


class ThrottledFetcher:
    """A fetcher that waits for its start, and tells the pacer what came of it."""

    def __init__(
        self,
        inner: Fetcher,
        pacer: Pacer,
        permits: Permits,
        *,
        clock: Clock | None = None,
        emit: Observer = lambda event: None,
    ) -> None:
        self._inner = inner
        self._pacer = pacer
        self._permits = permits
        self._clock = clock or Clock()
        self._emit = emit

    async def fetch(self, call: Call[T]) -> T:
        """Send `call` when its turn comes."""
        await self._permits.acquire(call.priority)
        try:
            return await self._fetch(call)
        finally:
            self._permits.release()

    async def _fetch(self, call: Call[T]) -> T:
        used = await self._pacer.slot()
        started = self._clock.monotonic()
        self._emit(RequestSent(call.target, call.page, call.attempt, used))
        try:
            found = await self._inner.fetch(call)
        except HarvestError as error:
            self._emit(_failure(call, error))
            if isinstance(error, Throttled):
                self._pacer.throttled(error, started=started)
            elif isinstance(error, Unauthorized):
                error.sent = started
            elif isinstance(error, DaySpent):
                self._pacer.day_spent()
            raise
        self._emit(RequestSucceeded(call.target, call.page, call.attempt))
        self._pacer.succeeded(started=started)
        return found


def _failure(call: Call[T], error: HarvestError) -> RequestFailed:
    match error:
        case TryAgain():
            cause, status = error.cause, error.status
        case CampaignError():
            cause, status = error.kind, error.status
        case _:
            cause, status = getattr(error, "reason", type(error).__name__), None
    return RequestFailed(call.target, call.page, call.attempt, cause, status)
