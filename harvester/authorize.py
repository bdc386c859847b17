"""After a 401: one task looks once more, everybody else waits at the door.

A token that can be renewed is renewed once, however many requests it was refused for. One that
cannot gets one slow second try (customers have seen v2 answer 401 when it meant "too fast").
Refused again, the run stops: a day's quota must not be spent on asking with a dead token.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from harvester.clock import Clock
from harvester.credentials import Credentials
from harvester.errors import ConfigError, StopRun, Unauthorized
from harvester.stop import StopSignal
from harvester.throttle import Pacer

SECOND_LOOK = 2.0  # s: past any per-second limit


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a request knew when it was sent: the token's generation, and the time."""

    generation: int
    sent: float


class Door:
    """Guards the second try. `ticket` before sending, `second_look` after a 401."""

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
        self._lock = anyio.Lock()
        self._cleared = float("-inf")

    def ticket(self) -> Ticket:
        """Taken before a request is sent."""
        return Ticket(self._credentials.generation, self._clock.monotonic())

    @asynccontextmanager
    async def second_look(self, ticket: Ticket) -> AsyncIterator[float]:
        """Make the second try inside; gives the hold (s) that precedes it.

        Raise `StopRun` if the try inside is refused as well.
        """
        async with self._lock:
            self._stop.check()
            hold = await self._prepare(ticket)
            try:
                yield hold
            except Unauthorized as refusal:
                order = StopRun("credentials_refused", f"the token was refused twice ({refusal})")
                self._stop.request(order)
                raise order from None
            self._cleared = self._clock.monotonic()

    async def _prepare(self, ticket: Ticket) -> float:
        """Do what may help: nothing if others did it since, else renew, else hold everybody."""
        if ticket.sent <= self._cleared:
            return 0.0
        try:
            if await self._credentials.renew():
                self._cleared = self._clock.monotonic()
                return 0.0
        except ConfigError as wrong:
            order = StopRun("credentials_refused", f"the token could not be renewed: {wrong}")
            self._stop.request(order)
            raise order from None
        self._pacer.hold(SECOND_LOOK, "unauthorized")
        return SECOND_LOOK
