"""Which failures are tried again, when, and for how long.

`RetryPolicy.decide` is the decision, `RetryingFetcher` carries it out: it gives an answer, or
raises `CampaignError` or `StopRun`.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from harvester.errors import (
    CampaignError,
    Deferred,
    InDoubt,
    PoisonPage,
    Refused,
    ServerTrouble,
    StopRun,
    Throttled,
    TryAgain,
    Unreadable,
)
from harvester.events import Observer, RequestFailed, RequestSucceeded, RetryScheduled
from harvester.model import Page, Request, Sender, Target
from harvester.request.auth import AuthGate
from harvester.request.credentials import Credentials
from harvester.request.retry_policy import (
    NoRetriesLeft,
    RetryAfter,
    RetryBudget,
    RetryPolicy,
    Tries,
    WaitTooLong,
)
from harvester.runtime import Clock, StopSignal, later

T = TypeVar("T")
_PROBE_AFTER = 3  # throttles of one page
_PUT_OFF_AFTER = 2  # of one page, before anything was accepted
_OPTIONAL_RETRIES = 1  # of a request that a run can do without
_OF_LARGE_PAGES = frozenset({"timeout", "cut", "reset"})


class RetryingFetcher:
    """Reads what an attempt brings, and tries again as the policy says.

    An answer that cannot be read is tried again like one that did not come. A retry that waits
    holds no permit.
    """

    def __init__(
        self,
        inner: Sender,
        policy: RetryPolicy,
        *,
        credentials: Credentials,
        budget: RetryBudget,
        stop: StopSignal,
        auth_gate: AuthGate,
        clock: Clock | None = None,
        emit: Observer = lambda event: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._inner = inner
        self._policy = policy
        self._credentials = credentials
        self._budget = budget
        self._stop = stop
        self._auth_gate = auth_gate
        self._clock = clock or Clock()
        self._emit = emit
        self._draw = draw
        self._probed_at = float("-inf")
        self._put_off: dict[Target, Tries] = {}
        self._throttled_for = 0.0  # s that a page waited before anything was accepted

    async def fetch(self, request: Request[T]) -> T:
        """Give the answer of the first attempt that has one."""
        waited = 0.0 if self._auth_gate.proven else self._throttled_for
        tries = self._put_off.pop(request.target, None) or Tries(waited=waited)
        try:
            while True:
                try:
                    found = await self._try(request, tries)
                except TryAgain as trouble:
                    tries.failed(trouble)
                    again = self._decide(trouble, tries, optional=request.optional)
                    self._announce(request, tries, trouble, again.wait, again.source)
                    tries.waited += again.wait
                    if not again.pacer_waits:
                        await self._stop.sleep(again.wait)
                    if isinstance(trouble, Throttled) and not trouble.alone:
                        await self._probe(request, trouble, tries)
                else:
                    self._budget.succeeded()
                    return found
        except CampaignError as error:
            error.attempts = tries.made
            raise
        except InDoubt:
            self._put_off[request.target] = tries
            raise

    async def _try(self, request: Request[T], tries: Tries) -> T:
        """One attempt, and what follows a refusal of the token."""
        refusal = self._auth_gate.refusal_of(request)
        sent = refusal is None
        if refusal is None:
            try:
                return await self._attempt(request, tries)
            except Refused as refused:
                refusal = refused  # `except` forgets its own name

        async def send(again: Request[Any], hold: float) -> Any:
            self._announce(again, tries, refusal, hold, "unauthorized" if hold else "none")
            return await self._attempt(again, tries)

        return await self._auth_gate.retry_after_refusal(request, refusal, send, sent=sent)

    async def _attempt(self, request: Request[T], tries: Tries) -> T:
        """Send once and read. An error quotes no secret that the answer repeats."""
        await self._credentials.refresh()
        request = tries.next(request)
        try:
            found = request.read(await self._inner.send(request))
            if isinstance(found, Page) and found.next:
                self._refuse_secret(found.next)
        except (TryAgain, CampaignError) as error:
            self._credentials.redactor.scrub_error(error)
            self._emit(_failure(request, error))
            raise
        self._emit(RequestSucceeded(request.target, request.page, request.attempt))
        self._auth_gate.accept(request)
        return found

    async def _probe(self, request: Request[Any], trouble: Throttled, tries: Tries) -> None:
        """After some throttles, send a request that was accepted before: if it is accepted again,
        the API throttles this page alone. One probe serves all pages throttled before it. Where
        there is none, other campaigns are asked first, once."""
        if (accepted := self._auth_gate.known()) is None:
            self._throttled_for = max(self._throttled_for, tries.waited)
            if tries.throttles == _PUT_OFF_AFTER:
                self._auth_gate.put_off(request, trouble)
            return
        if tries.throttles < _PROBE_AFTER or self._probed_at >= tries.throttled_since:
            return
        self._probed_at = self._clock.monotonic()
        self._announce(accepted, tries, trouble, 0.0, "none")
        with suppress(TryAgain, CampaignError):
            await self._attempt(accepted, tries)

    def _refuse_secret(self, link: str) -> None:
        """A next link is kept on disk: one that repeats a credential is not followed."""
        if self._credentials.redactor.scrub(link) != link:
            raise CampaignError("bad_link", "the next link repeats a credential")

    def _decide(self, trouble: TryAgain, tries: Tries, *, optional: bool) -> RetryAfter:
        """The next try, or the error that stands for having none."""
        if optional and (tries.failures > _OPTIONAL_RETRIES or tries.throttles >= _PROBE_AFTER):
            raise CampaignError(
                trouble.cause,
                f"{trouble} ({tries.made} attempts)",
                status=trouble.status,
                error_key=trouble.error_key,
            ) from None
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
        match decision:
            case NoRetriesLeft():
                poison = _may_be_too_large(trouble) and not self._all_fail(tries)
                failure = PoisonPage if poison else CampaignError
                raise failure(
                    trouble.cause,
                    f"{trouble} ({tries.made} attempts)",
                    status=trouble.status,
                    error_key=trouble.error_key,
                ) from None
            case WaitTooLong(wait):
                raise self._too_long(trouble, wait) from None
        return decision

    def _all_fail(self, tries: Tries) -> bool:
        """Whether other requests failed as well since this page first did, and none succeeded."""
        others = self._budget.failures - tries.failures - tries.failures_before
        return others > 0 and self._budget.successes == tries.successes_before

    def _too_long(self, trouble: TryAgain, wait: float) -> StopRun | CampaignError:
        """The wait is over: for the run after a throttle of all, else for this campaign."""
        resume_at = later(self._clock.now(), wait)
        why = f"{trouble}; the waits for this page exceed `max_wait` {self._policy.max_wait:g}"
        if not isinstance(trouble, Throttled):
            return Deferred(why, resume_at=resume_at, status=trouble.status)
        if trouble.alone:
            return CampaignError(
                trouble.cause,
                f"{why}; other campaigns are not throttled",
                status=trouble.status,
                error_key=trouble.error_key,
            )
        return StopRun("throttled", why, resume_at=resume_at)

    def _announce(
        self, request: Request[T], tries: Tries, trouble: TryAgain, wait: float, source: str
    ) -> None:
        self._emit(
            RetryScheduled(
                target=request.target,
                page=request.page,
                attempt=tries.made + 1,
                cause=trouble.cause,
                status=trouble.status,
                wait_s=wait,
                wait_source=source,
            )
        )


def _failure(request: Request[Any], error: TryAgain | CampaignError) -> RequestFailed:
    cause = error.cause if isinstance(error, TryAgain) else error.kind
    return RequestFailed(
        target=request.target,
        page=request.page,
        attempt=request.attempt,
        cause=cause,
        status=error.status,
    )


def _may_be_too_large(trouble: TryAgain) -> bool:
    """Whether the same rows may come through in smaller pages."""
    return isinstance(trouble, ServerTrouble | Unreadable) or trouble.cause in _OF_LARGE_PAGES
