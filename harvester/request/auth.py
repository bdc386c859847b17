"""After a 401 or a 403: is the token refused, or one campaign alone?

A token that can be renewed is renewed once, however many requests it was refused for. One that
cannot gets one slow second try (customers have seen v2 answer 401 when it meant "too fast"). All
other requests wait meanwhile: a day's quota must not be spent on a dead token.

A refusal that stays is compared with other requests. Where the API accepts one that was sent
later, the campaign alone is refused and fails. Where none was sent later, one that was accepted
before, in this run or an earlier one, is sent once more. Where there is none, the campaign is put
off until others were asked. The token is refused once some campaigns are, or no others are left.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from harvester.errors import CampaignError, InDoubt, Refused, StopRun, Throttled, Unauthorized
from harvester.model import Request, Target
from harvester.request.credentials import Credentials
from harvester.request.pace import Pacer
from harvester.runtime import Clock, StopSignal

T = TypeVar("T")
Reference = Callable[[], Request[Any] | None]
"""Gives a request that an earlier run had an answer to; None if there is none."""
_NEVER = float("-inf")
MOST_REFUSED = 5  # campaigns refused, none accepted: the token is dead
_MOST_REPORTS = 6  # refusals after which no other report of the same campaigns is asked for
_LATELY = 30.0  # s between two second tries as long as nothing is accepted
_MOMENT = 0.1  # s between two looks at the requests in flight


class Verdict(Enum):
    """What follows a refusal that stays."""

    FAIL_CAMPAIGN = auto()
    STOP_RUN = auto()
    PROBE = auto()  # send a request again that was accepted before
    PUT_OFF = auto()  # ask for other campaigns first: they show whether the token works


def judge(sent: float, *, accepted_at: float, refused: int, known: bool, others: bool) -> Verdict:
    """What follows the refusal of a request that was first sent at `sent` (monotonic s).

    `accepted_at` is when the latest of the accepted requests was sent, `refused` how many campaigns
    were refused before any was accepted. `known` says that there is a request that was accepted
    before, `others` that there may be other campaigns to ask for.
    """
    if accepted_at > sent:
        return Verdict.FAIL_CAMPAIGN
    if known:
        return Verdict.PROBE
    return Verdict.PUT_OFF if others and refused < MOST_REFUSED else Verdict.STOP_RUN


class _Doubt(Struct, frozen=True):
    """A refusal before anything was accepted: of a request first sent at `sent` (monotonic s).
    `again` says that it was tried a second time."""

    refusal: Refused
    sent: float
    again: bool


class AuthGate(Struct, eq=False, kw_only=True, dict=True):
    """Decides what follows a refusal: a second try, the end of the campaign, or of the run.

    Without a `reference` nothing is put off: there are no other campaigns.
    """

    credentials: Credentials
    pacer: Pacer
    stop: StopSignal
    clock: Clock
    retry_delay: float
    reference: Reference | None = None

    def __post_init__(self) -> None:
        # asyncio's, which a free one gives without yielding: the gate is closed before another
        # request can start.
        self._lock = asyncio.Lock()
        self._cleared = _NEVER  # when a refusal last led to a good second try or a new token
        self._tried_at = _NEVER  # when a second try was last made
        self._doubts: dict[Target, _Doubt] = {}
        self._throttled: set[str] = set()  # campaigns put off for that
        self._unasked: set[Target] = set()  # other reports of campaigns put off
        self._accepted: Request[Any] | None = None  # the last that brought a page

    def __repr__(self) -> str:
        state = "in doubt" if self._lock.locked() else "open"
        return f"<AuthGate {state}, {len(self._doubts)} put off>"

    def accept(self, request: Request[Any]) -> None:
        """An answer came: the token works. One that a run can do without, as the counts of all
        campaigns, says nothing of what it is refused."""
        if not request.optional:
            self._accepted = request

    @property
    def proven(self) -> bool:
        """Whether a page came in this run."""
        return self._accepted is not None

    def known(self) -> Request[Any] | None:
        """A request that was accepted before, in this run or an earlier one."""
        if self._accepted is None and self.reference is not None:
            return self.reference()
        return self._accepted

    def put_off(self, request: Request[Any], throttled: Throttled) -> None:
        """Raise `InDoubt` for a request that was throttled again and again, if there may be others
        to ask for."""
        if self.reference is not None:
            self._throttled.add(request.target.campaign_id)
            raise InDoubt(str(throttled))

    def refusal_of(self, request: Request[Any]) -> Refused | None:
        """The refusal that stands for a request, which need not be sent then.

        Raise `InDoubt` if its campaign was put off, and others are to be asked first.
        """
        if (doubt := self._doubts.get(request.target)) is not None:
            return doubt.refusal if doubt.again or not self.proven else None
        if self.proven or request.target.campaign_id not in self._refused | self._throttled:
            return None
        if request.target not in self._unasked:
            self._unasked.add(request.target)
            raise InDoubt("its campaign was put off")
        self._unasked.discard(request.target)
        found = list(self._doubts.values())
        return found[0].refusal if len(found) >= _MOST_REPORTS else None

    @property
    def _refused(self) -> frozenset[str]:
        return frozenset(target.campaign_id for target in self._doubts)

    async def retry_after_refusal(
        self,
        request: Request[T],
        refusal: Refused,
        send: Callable[[Request[Any], float], Awaitable[T]],
        *,
        sent: bool = True,
    ) -> T:
        """Give the answer of a second try. `send` makes it; it is given the hold (s) before it.
        A refusal that stands for a request that was not `sent` gets none.

        Raise `CampaignError` if this campaign alone is refused, `StopRun` if the token is,
        `InDoubt` if others are to be asked first.
        """
        async with self._lock:
            self.stop.check()
            doubt = self._doubts.pop(request.target, None)
            first = doubt.sent if doubt else refusal.sent
            again = doubt is not None
            while sent and not again and isinstance(refusal, Unauthorized):
                outdated = refusal.sent < self._cleared
                lately = self.clock.monotonic() - self._tried_at < _LATELY
                if lately and not (self.proven or outdated):
                    break  # one slow second try is enough as long as nothing is accepted
                try:
                    return await self._second_try(request, send, prepared=outdated)
                except Refused as refused:
                    refusal, again = refused, not outdated
                if outdated:
                    first = refusal.sent
            if request.optional:
                raise _alone(refusal, "")
            self._doubts[request.target] = _Doubt(
                refusal, first, again or not isinstance(refusal, Unauthorized)
            )
            verdict = await self._judge(first, send, last=not sent or self.reference is None)
            if verdict is not Verdict.PUT_OFF:
                del self._doubts[request.target]
        raise self._end(verdict, refusal)

    async def _second_try(
        self,
        request: Request[T],
        send: Callable[[Request[Any], float], Awaitable[T]],
        *,
        prepared: bool,
    ) -> T:
        self._tried_at = self.clock.monotonic()
        with self.pacer.closed():
            hold = 0.0 if prepared else await self._prepare()
            answer = await send(replace(request, urgent=True), hold)
        self._cleared = self.clock.monotonic()
        return answer

    async def _prepare(self) -> float:
        """Do what may help: renew the token, else hold all requests; gives the hold (s)."""
        try:
            renewed = await self.credentials.renew()
        except StopRun as order:
            self.stop.request(order)
            raise
        if renewed:
            self._cleared = self.clock.monotonic()
            return 0.0
        self.pacer.hold(self.retry_delay, "unauthorized")
        return self.retry_delay

    async def _judge(
        self,
        first: float,
        send: Callable[[Request[Any], float], Awaitable[Any]],
        *,
        last: bool,
    ) -> Verdict:
        """The verdict on a request that was first refused when sent at `first`; where it needs a
        probe, a request that was accepted is sent once more. `last`: no others can be asked."""
        others = not last or bool(self._unasked)
        if self._verdict(first, others=others) is Verdict.STOP_RUN:
            await self._answers()
        verdict, known = self._verdict(first, others=others), self.known()
        if verdict is not Verdict.PROBE or known is None:
            return verdict
        with self.pacer.closed():
            try:
                await send(replace(known, urgent=True), 0.0)
            except Refused:
                return Verdict.STOP_RUN
            except CampaignError:  # its cursor is gone, but the token was accepted
                pass
        return Verdict.FAIL_CAMPAIGN

    def _verdict(self, first: float, *, others: bool) -> Verdict:
        return judge(
            first,
            accepted_at=self.pacer.last_success if self.proven else _NEVER,
            refused=len(self._refused),
            known=self.known() is not None,
            others=others,
        )

    async def _answers(self) -> None:
        """Let the requests in flight be answered, as one of them may be accepted; none starts."""
        with self.pacer.closed():
            while self.pacer.in_flight and not self.proven:
                await self.stop.sleep(_MOMENT)

    def _end(self, verdict: Verdict, refusal: Refused) -> CampaignError | InDoubt | StopRun:
        if verdict is Verdict.PUT_OFF:
            return InDoubt(str(refusal))
        if verdict is Verdict.FAIL_CAMPAIGN:
            return _alone(refusal, "; other campaigns are not refused")
        order = StopRun("credentials_refused", f"the key or the token is refused ({refusal})")
        self.stop.request(order)
        return order


def _alone(refusal: Refused, others: str) -> CampaignError:
    """The failure of the one campaign that is refused."""
    return CampaignError(
        refusal.cause,
        f"{refusal}{others}",
        status=refusal.status,
        error_key=refusal.error_key,
    )
