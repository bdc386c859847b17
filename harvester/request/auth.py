"""After a 401: one task looks once more, everybody else waits at the door.

A token that can be renewed is renewed once, however many requests it was refused for. One that
cannot gets one slow second try (customers have seen v2 answer 401 when it meant "too fast").
Refused again, the run stops: a day's quota must not be spent on asking with a dead token.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harvester.errors import ConfigError, StopRun, Unauthorized
from harvester.request.credentials import Credentials
from harvester.request.pace import Pacer
from harvester.runtime import Clock, StopSignal

RETRY_DELAY = 2.0  # s: past any per-second limit


class AuthGate:
    """Guards the second try after a 401."""

    def __init__(
        self,
        credentials: Credentials,
        pacer: Pacer,
        stop: StopSignal,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._credentials = credentials
        self._pacer = pacer
        self._stop = stop
        self._clock = clock or Clock()
        # asyncio's, which a free one gives without yielding: the gate is closed before anybody
        # else can start.
        self._lock = asyncio.Lock()
        self._cleared = float("-inf")

    @asynccontextmanager
    async def retry_after_401(self, refusal: Unauthorized) -> AsyncIterator[float]:
        """Make the second try, an urgent one, inside; gives the hold (s) that precedes it.

        Nobody else starts meanwhile. Raise `StopRun` if the try inside is refused as well; only
        where somebody else's had succeeded since, that is a new refusal, and passes on.
        """
        async with self._lock:
            self._stop.check()
            with self._pacer.closed():
                outdated = refusal.sent < self._cleared
                hold = 0.0 if outdated else await self._prepare()
                try:
                    yield hold
                except Unauthorized as again:
                    if outdated:
                        raise
                    order = StopRun("credentials_refused", f"the token was refused twice ({again})")
                    self._stop.request(order)
                    raise order from None
            self._cleared = self._clock.monotonic()

    async def _prepare(self) -> float:
        """Do what may help: renew the token, else hold everybody; gives the hold (s)."""
        try:
            renewed = await self._credentials.renew()
        except ConfigError as wrong:
            order = StopRun("credentials_refused", f"the token could not be renewed: {wrong}")
            self._stop.request(order)
            raise order from None
        if renewed:
            self._cleared = self._clock.monotonic()
            return 0.0
        self._pacer.hold(RETRY_DELAY, "unauthorized")
        return RETRY_DELAY
