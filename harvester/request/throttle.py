"""One attempt: a permit, a start from the pacer, the request, and what it means for the pace."""

from collections.abc import Callable
from typing import Any

from harvester.errors import QuotaExceeded, Throttled, TryAgain
from harvester.events import Observer, RequestSent
from harvester.model import Request, Sender
from harvester.request.pace import Pacer
from harvester.request.permits import Permits
from harvester.runtime import Clock


def at_once(then: Callable[[], None]) -> None:
    """Nothing has to be saved before the next request."""
    then()


class ThrottledSender:
    """A sender that waits for its start, and tells the pacer what came of it.

    A request holds its permit until its page is committed (`call_after_commit`): a kill costs at
    most as many requests as there are permits.
    """

    def __init__(
        self,
        inner: Sender,
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

    async def send(self, request: Request[Any]) -> bytes:
        """Send `request` when its turn comes."""
        if request.urgent:  # the requests that hold the permits wait for this one
            return await self._send(request)
        await self._permits.acquire(request.priority)
        try:
            body = await self._send(request)
        except BaseException:
            self._permits.release()
            raise
        self._call_after_commit(self._permits.release)
        return body

    async def _send(self, request: Request[Any]) -> bytes:
        used = await self._pacer.slot(urgent=request.urgent)
        sent = self._clock.monotonic()
        try:
            self._emit(
                RequestSent(
                    target=request.target,
                    page=request.page,
                    attempt=request.attempt,
                    used_today=used,
                )
            )
            body = await self._inner.send(request)
        except TryAgain as trouble:
            trouble.sent = sent
            match trouble:
                case Throttled():
                    self._pacer.throttled(trouble, request)
                case QuotaExceeded():
                    self._pacer.day_spent()
            raise
        finally:
            self._pacer.ended()
        self._pacer.succeeded(sent=sent)
        return body
