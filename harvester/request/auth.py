"""After a 401 or a 403: is the token refused, or one campaign alone?

A token that can be renewed is renewed once, however many requests it was refused for. One that
cannot gets one slow second try (customers have seen v2 answer 401 when it meant "too fast"). All
other requests wait meanwhile: a day's quota must not be spent on a dead token.

A refusal that stays is compared with other requests. Where the API accepts one that was sent
later, the campaign alone is refused and fails. Where none was sent later, the last one that was
accepted is sent once more. Where none ever was, others get a moment to show that the token works.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from harvester.errors import CampaignError, Refused, StopRun, Unauthorized
from harvester.model import Request, Target
from harvester.request.credentials import Credentials
from harvester.request.pace import Pacer
from harvester.runtime import Clock, StopSignal

T = TypeVar("T")
_NEVER = float("-inf")
MOST_REFUSED = 3  # campaigns refused, none accepted: the token is dead


class Verdict(Enum):
    """What follows a refusal that stays."""

    FAIL_CAMPAIGN = auto()
    STOP_RUN = auto()
    PROBE = auto()  # send a request again that was accepted before
    WAIT = auto()  # let other campaigns show whether the token works


class Evidence(Struct, frozen=True, kw_only=True):
    """What the answers to other requests say about the token.

    `accepted_at` is when the latest of the accepted requests was sent (monotonic s), `refused` the
    walks that were refused before any was accepted.
    """

    accepted_at: float = _NEVER
    refused: frozenset[Target] = frozenset()

    def judge(self, sent: float, *, waited: bool = False, most: int = MOST_REFUSED) -> Verdict:
        """What follows the refusal of a request that was first sent at `sent`."""
        if self.accepted_at > sent:
            return Verdict.FAIL_CAMPAIGN
        if self.accepted_at > _NEVER:
            return Verdict.PROBE
        if waited or len(self.refused) >= most:
            return Verdict.STOP_RUN
        return Verdict.WAIT


class AuthGate:
    """Decides what follows a refusal: a second try, the end of the campaign, or of the run."""

    def __init__(
        self,
        credentials: Credentials,
        pacer: Pacer,
        stop: StopSignal,
        *,
        clock: Clock | None = None,
        retry_delay: float,
    ) -> None:
        self._credentials = credentials
        self._pacer = pacer
        self._stop = stop
        self._clock = clock or Clock()
        self._retry_delay = retry_delay
        # asyncio's, which a free one gives without yielding: the gate is closed before another
        # request can start.
        self._lock = asyncio.Lock()
        self._cleared = _NEVER  # when a refusal last led to a good second try or a new token
        self._refused: frozenset[Target] = frozenset()
        self.accepted: Request[Any] | None = None  # the last that brought a page

    def __repr__(self) -> str:
        state = "in doubt" if self._lock.locked() else "open"
        return f"<AuthGate {state}, {len(self._refused)} refused>"

    def accept(self, request: Request[Any]) -> None:
        """A page came: the token works."""
        self.accepted = request

    async def retry_after_refusal(
        self,
        request: Request[T],
        refusal: Refused,
        send: Callable[[Request[Any], float], Awaitable[T]],
    ) -> T:
        """Give the answer of a second try. `send` makes it; it is given the hold (s) before it.

        Raise `CampaignError` if this campaign alone is refused, `StopRun` if the token is.
        """
        first = refusal.sent
        async with self._lock:
            self._stop.check()
            while isinstance(refusal, Unauthorized):
                outdated = refusal.sent < self._cleared
                try:
                    return await self._second_try(request, send, prepared=outdated)
                except Refused as again:
                    refusal = again
                if not outdated:
                    break
                first = refusal.sent
            if self.accepted is None:
                self._refused |= {request.target}
            verdict = await self._judge(first, send, waited=False)
        while verdict is Verdict.WAIT:
            began, starts = self._clock.monotonic(), self._pacer.starts
            await self._stop.sleep(max(self._retry_delay, 2 * self._pacer.spacing.gap))
            async with self._lock:
                self._stop.check()
                # As long as there are others, one of them may still be accepted.
                alone = self._pacer.starts == starts and self._pacer.held_until <= began
                verdict = await self._judge(first, send, waited=alone)
        raise self._end(verdict, refusal, optional=request.optional)

    async def _second_try(
        self,
        request: Request[T],
        send: Callable[[Request[Any], float], Awaitable[T]],
        *,
        prepared: bool,
    ) -> T:
        with self._pacer.closed():
            hold = 0.0 if prepared else await self._prepare()
            answer = await send(replace(request, urgent=True), hold)
        self._cleared = self._clock.monotonic()
        return answer

    async def _prepare(self) -> float:
        """Do what may help: renew the token, else hold all requests; gives the hold (s)."""
        try:
            renewed = await self._credentials.renew()
        except StopRun as order:
            self._stop.request(order)
            raise
        if renewed:
            self._cleared = self._clock.monotonic()
            return 0.0
        self._pacer.hold(self._retry_delay, "unauthorized")
        return self._retry_delay

    async def _judge(
        self,
        first: float,
        send: Callable[[Request[Any], float], Awaitable[Any]],
        *,
        waited: bool,
    ) -> Verdict:
        """The verdict on a request that was first refused when sent at `first`; where it needs a
        probe, the last request that was accepted is sent once more."""
        accepted_at = _NEVER if self.accepted is None else self._pacer.last_success
        evidence = Evidence(accepted_at=accepted_at, refused=self._refused)
        verdict = evidence.judge(first, waited=waited)
        if verdict is not Verdict.PROBE or self.accepted is None:
            return verdict
        with self._pacer.closed():
            try:
                await send(replace(self.accepted, urgent=True), 0.0)
            except Refused:
                return Verdict.STOP_RUN
            except CampaignError:  # its cursor is gone, but the token was accepted
                pass
        return Verdict.FAIL_CAMPAIGN

    def _end(
        self, verdict: Verdict, refusal: Refused, *, optional: bool
    ) -> CampaignError | StopRun:
        if verdict is Verdict.FAIL_CAMPAIGN or optional:
            others = "" if optional else "; other campaigns are not refused"
            return CampaignError(
                refusal.cause,
                f"{refusal}{others}",
                status=refusal.status,
                error_key=refusal.error_key,
            )
        order = StopRun("credentials_refused", f"the key or the token is refused ({refusal})")
        self._stop.request(order)
        return order
