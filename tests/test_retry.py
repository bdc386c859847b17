"""Which failures are tried again, when, and for how long."""

import itertools
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import anyio
import pytest
from fakes import (
    NOON,
    TARGET,
    FakeFetcher,
    LoopClock,
    Seen,
    credentials_of,
    make_request,
    page,
    virtually,
)
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harvester.errors import (
    CampaignError,
    Deferred,
    PoisonPage,
    QuotaExceeded,
    ServerTrouble,
    StopRun,
    Throttled,
    TransportTrouble,
    TryAgain,
    Unreadable,
)
from harvester.events import RequestFailed, RequestSucceeded, RetryScheduled
from harvester.model import Request, Target
from harvester.request.retry import RetryingFetcher
from harvester.request.retry_policy import (
    NoRetriesLeft,
    RetryAfter,
    RetryBudget,
    RetryPolicy,
    WaitTooLong,
)
from harvester.runtime import StopSignal


def throttle(held: float, source: str = "throttle") -> Throttled:
    """A throttle as the pacer hands it on."""
    trouble = Throttled("too fast", status=429)
    trouble.held, trouble.wait_source = held, source
    return trouble


# -- the decision ------------------------------------------------------------------------------

POLICY = RetryPolicy(retries=3, max_wait=100.0, first=1.0, longest=8.0)


@pytest.mark.parametrize(
    ("trouble", "failures", "waited", "decision"),
    [
        (ServerTrouble("x"), 1, 0.0, RetryAfter(0.5, "backoff")),
        (ServerTrouble("x"), 2, 0.0, RetryAfter(1.0, "backoff")),
        (TransportTrouble("x"), 3, 0.0, RetryAfter(2.0, "backoff")),
        (Unreadable("x"), 4, 0.0, NoRetriesLeft()),
        (ServerTrouble("x", retry_after=0.0), 1, 0.0, RetryAfter(0.5, "backoff")),
        (ServerTrouble("x", retry_after=0.5), 1, 0.0, RetryAfter(0.5, "backoff")),
        (ServerTrouble("x", retry_after=7.0), 1, 0.0, RetryAfter(7.0, "retry-after")),
        (ServerTrouble("x", retry_after=100.0), 1, 0.0, RetryAfter(100.0, "retry-after")),
        (ServerTrouble("x", retry_after=100.5), 1, 0.0, WaitTooLong(100.5)),
        (ServerTrouble("x", retry_after=1e30), 1, 0.0, WaitTooLong(1e30)),
        (ServerTrouble("x", retry_after=1e30), 4, 0.0, NoRetriesLeft()),
        (ServerTrouble("x"), 1, 99.5, RetryAfter(0.5, "backoff")),
        (ServerTrouble("x"), 1, 99.6, WaitTooLong(0.5)),
        (throttle(7.0), 0, 0.0, RetryAfter(7.0, "throttle", pacer_waits=True)),
        (throttle(7.0), 99, 0.0, RetryAfter(7.0, "throttle", pacer_waits=True)),
        (throttle(7.0, "retry-after"), 0, 93.0, RetryAfter(7.0, "retry-after", pacer_waits=True)),
        (throttle(7.0), 0, 93.1, WaitTooLong(7.0)),
        (QuotaExceeded("x"), 0, 0.0, RetryAfter(0.0, "quota", pacer_waits=True)),
        (QuotaExceeded("x"), 99, 1e9, RetryAfter(0.0, "quota", pacer_waits=True)),
    ],
)
def test_each_trouble_has_its_decision(
    trouble: TryAgain,
    failures: int,
    waited: float,
    decision: RetryAfter | NoRetriesLeft | WaitTooLong,
) -> None:
    """Counted failures against the retries, every wait against `max_wait`, Retry-After a floor."""
    assert POLICY.decide(trouble, failures=failures, waited=waited, draw=0.5) == decision


def test_waits_double_up_to_the_longest() -> None:
    """The window is first, 2 first, 4 first, …, and never more than `longest`."""
    policy = RetryPolicy(retries=10_000, max_wait=1e9, first=0.5, longest=60.0)
    tops = []
    for failures in (1, 2, 3, 4, 7, 8, 9, 5_000):
        decision = policy.decide(ServerTrouble("x"), failures=failures, waited=0, draw=1.0)
        assert isinstance(decision, RetryAfter)
        tops.append(decision.wait)
    assert tops == [0.5, 1.0, 2.0, 4.0, 32.0, 60.0, 60.0, 60.0]


@given(
    st.builds(ServerTrouble, st.just("x"), retry_after=st.none() | st.floats(0, 1e12)),
    st.integers(1, 200),
    st.floats(0, 1e6),
    st.floats(0, 1, exclude_max=True),
)
def test_no_wait_goes_beyond_max_wait(
    trouble: ServerTrouble, failures: int, waited: float, draw: float
) -> None:
    """All waits of a page together stay within `max_wait`, and none is under Retry-After."""
    decision = POLICY.decide(trouble, failures=failures, waited=waited, draw=draw)
    if isinstance(decision, RetryAfter):
        assert not decision.pacer_waits
        assert failures <= POLICY.retries
        assert 0 <= waited + decision.wait <= POLICY.max_wait
        assert decision.wait >= (trouble.retry_after or 0.0)


def test_no_retries_means_none() -> None:
    """With `retries` 0 the first failure is the last."""
    assert (
        RetryPolicy(retries=0).decide(ServerTrouble("x"), failures=1, waited=0.0, draw=0.5)
        == NoRetriesLeft()
    )


# -- the budget --------------------------------------------------------------------------------


def test_the_budget_is_spent_and_refunded() -> None:
    """Each retry takes one, each success gives half a one back, never beyond the capacity."""
    budget = RetryBudget(capacity=2.0, refund=0.5)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    budget.succeeded()
    assert not budget.spend()
    budget.succeeded()
    assert [budget.spend(), budget.spend()] == [True, False]
    for _ in range(100):
        budget.succeeded()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


# -- the loop ----------------------------------------------------------------------------------


class OpenGate:
    """A gate that lets all through: no test here has a 401 or a 403."""

    proven = True
    accepted = None

    def accept(self, request: object) -> None:
        """A page came."""

    def refusal_of(self, request: object) -> None:
        """Nothing was refused."""

    def put_off(self, request: object, throttled: object) -> None:
        """There is no other campaign to ask for."""

    def known(self) -> object:
        """What a test says was accepted before."""
        return self.accepted


class Bench:
    """A retrying fetcher over a script, on a virtual clock."""

    def __init__(self, script: Any, policy: RetryPolicy, budget: RetryBudget | None = None) -> None:
        self.inner = FakeFetcher(script)
        self.seen, self.stop, self.clock = Seen(), StopSignal(), LoopClock()
        self.gate: Any = OpenGate()
        self.fetcher = RetryingFetcher(
            self.inner,
            policy,
            credentials=credentials_of(),
            budget=budget or RetryBudget(),
            stop=self.stop,
            auth_gate=self.gate,
            clock=self.clock,
            emit=self.seen,
            draw=lambda: 0.5,
        )

    @property
    def scheduled(self) -> list[tuple[int, str, int | None, float, str]]:
        """Every retry that was announced: attempt, cause, status, wait, who set it."""
        return [
            (e.attempt, e.cause, e.status, e.wait_s, e.wait_source)
            for e in self.seen.of(RetryScheduled)
        ]


def retrying(
    script: Any, use: Callable[[Bench], Awaitable[None]], policy: RetryPolicy = POLICY
) -> Bench:
    """Run `use` with a new bench on a virtual clock; give the bench."""
    benches: list[Bench] = []

    async def main() -> None:
        benches.append(Bench(script, policy))
        await use(benches[0])

    virtually(main)
    return benches[0]


def test_a_page_comes_after_its_troubles() -> None:
    """Each trouble is announced with its wait, slept through, and the page is asked again."""

    async def use(bench: Bench) -> None:
        assert await bench.fetcher.fetch(make_request(number=4)) == "page"

    troubles = [
        ServerTrouble("x", status=500),
        TransportTrouble("x", cause="reset"),
        Unreadable("x", status=200, retry_after=9.0),
    ]
    bench = retrying([*troubles, "page"], use)
    assert [call.attempt for call in bench.inner.calls] == [1, 2, 3, 4]
    assert {call.page for call in bench.inner.calls} == {4}
    assert bench.inner.at == [0.0, 0.5, 1.5, 10.5]
    assert bench.scheduled == [
        (2, "server_error", 500, 0.5, "backoff"),
        (3, "reset", None, 1.0, "backoff"),
        (4, "unreadable", 200, 9.0, "retry-after"),
    ]
    assert bench.seen.of(RetryScheduled)[0].target == TARGET


@pytest.mark.parametrize(
    ("error", "cause", "status"),
    [
        (ServerTrouble("x", status=503), "server_error", 503),
        (throttle(0.0), "throttled", 429),
        (QuotaExceeded("x", status=403), "quota_spent", 403),
        (Unreadable("x", status=200), "unreadable", 200),
        (CampaignError("not_found", "x", status=404), "not_found", 404),
    ],
)
def test_what_came_of_a_request_is_announced(
    error: TryAgain | CampaignError, cause: str, status: int | None
) -> None:
    """A failure with its cause and status, a page that could be read as a success."""

    async def use(bench: Bench) -> None:
        with suppress(CampaignError):
            await bench.fetcher.fetch(make_request(number=3))

    seen = retrying([error, "page"], use).seen
    failed = RequestFailed(target=TARGET, page=3, attempt=1, cause=cause, status=status)
    assert seen.of(RequestFailed) == [failed]
    again = [] if isinstance(error, CampaignError) else [RequestSucceeded(TARGET, 3, 2)]
    assert seen.of(RequestSucceeded) == again


def test_an_answer_that_cannot_be_read_is_tried_again() -> None:
    """Reading is part of an attempt; what it gives is the answer."""

    def read(body: bytes) -> int:
        if body == b"<html>":
            raise Unreadable("not a page", status=200)
        return len(body)

    async def use(bench: Bench) -> None:
        request: Request[int] = replace(make_request(), read=read)
        assert await bench.fetcher.fetch(request) == 3

    bench = retrying([b"<html>", b"abc"], use)
    assert bench.scheduled == [(2, "unreadable", 200, 0.5, "backoff")]


@pytest.mark.parametrize("ends", ["page", "throttled"])
def test_a_campaign_that_is_throttled_alone_waits_by_itself(ends: str) -> None:
    """It is asked again after its own waits, and fails alone once they exceed `max_wait`."""

    def alone(request: Request[Any]) -> Throttled:
        trouble = throttle(30.0)
        trouble.alone, trouble.sent, trouble.error_key = True, 7.0 + request.throttles, "k"
        return trouble

    async def use(bench: Bench) -> None:
        if ends == "page":
            assert await bench.fetcher.fetch(make_request()) == "page"
            return
        with pytest.raises(CampaignError, match="other campaigns are not throttled") as caught:
            await bench.fetcher.fetch(make_request())
        error = caught.value
        assert (error.kind, error.status, error.error_key) == ("throttled", 429, "k")
        assert error.attempts == 4

    bench = retrying([alone, alone, "page"] if ends == "page" else [alone] * 4, use)
    assert bench.inner.at == [0.0, 30.0, 60.0, 90.0][: len(bench.inner.at)]
    assert [(call.throttles, call.throttled_since) for call in bench.inner.calls[:3]] == [
        (0, math.inf),
        (1, 7.0),
        (2, 7.0),
    ]
    assert not bench.stop.requested


@pytest.mark.parametrize("others_are_throttled", [False, True])
def test_a_throttle_without_other_requests_is_probed_once(others_are_throttled: bool) -> None:
    """A page that was accepted before is asked once more: it shows whether all are throttled."""

    def answer(request: Request[Any]) -> object:
        if request.target == TARGET and not others_are_throttled:
            return "page"
        trouble = throttle(30.0)
        trouble.sent = 0.0
        return trouble

    async def use(bench: Bench) -> None:
        bench.gate.accepted = make_request(number=9)
        for number in (1, 2):
            with pytest.raises(StopRun):
                await bench.fetcher.fetch(make_request(Target("opens", f"{number}0")))

    bench = retrying(itertools.repeat(answer), use)
    assert [n for n, call in enumerate(bench.inner.calls) if call.page == 9] == [3]


@pytest.mark.parametrize("quoted", ["canary-token-5678", "canary%2Dtoken-5678", "canary-key-1234"])
def test_no_error_quotes_a_secret(quoted: str) -> None:
    """Neither in its text nor in its error key, also where the body of a 200 was read."""

    def read(_: bytes) -> None:
        raise CampaignError("x", f"it says {quoted}", error_key=f"k.{quoted}")

    async def use(bench: Bench) -> None:
        for request in (make_request(), replace(make_request(), read=read)):
            with pytest.raises(CampaignError) as caught:
                await bench.fetcher.fetch(request)
            assert "canary" not in f"{caught.value} {caught.value.args} {caught.value.error_key}"
            assert "[secret]" in str(caught.value)
            assert "[secret]" in str(caught.value.error_key)

    first = ServerTrouble(f"HTTP 500 {quoted}", status=500, error_key=quoted)
    retrying([first, b""], use, RetryPolicy(retries=0))


def test_a_next_link_that_repeats_a_credential_is_not_followed() -> None:
    """It would be kept on disk: the campaign fails."""

    async def use(bench: Bench) -> None:
        with pytest.raises(CampaignError) as caught:
            await bench.fetcher.fetch(make_request())
        assert caught.value.kind == "bad_link"
        assert "canary" not in str(caught.value)

    retrying([page(1, "canary%2dtoken-5678")], use)


def test_attempts_used_up_fail_the_campaign() -> None:
    """With the last trouble's cause, status and key, and the number of attempts."""

    async def use(bench: Bench) -> None:
        with pytest.raises(CampaignError, match=r"last \(4 attempts\)") as caught:
            await bench.fetcher.fetch(make_request())
        assert not isinstance(caught.value, Deferred)
        error = caught.value
        assert (error.kind, error.status, error.error_key) == ("server_error", 503, "down")
        assert error.attempts == 4

    first = [ServerTrouble("first", status=500)] * 3
    retrying([*first, ServerTrouble("last", status=503, error_key="down")], use)


@pytest.mark.parametrize(
    ("trouble", "poison"),
    [
        (ServerTrouble("x", status=500), True),
        (Unreadable("x", status=200), True),
        (TransportTrouble("x", cause="timeout"), True),
        (TransportTrouble("x", cause="cut"), True),
        (TransportTrouble("x", cause="reset"), True),
        (TransportTrouble("x", cause="connect"), False),
        (TransportTrouble("x", cause="tls"), False),
    ],
)
def test_a_page_may_fail_for_its_size(trouble: TryAgain, poison: bool) -> None:
    """A large page may fail for its size; a server that is not there is another matter."""

    async def use(bench: Bench) -> None:
        with pytest.raises(CampaignError) as caught:
            await bench.fetcher.fetch(make_request())
        assert isinstance(caught.value, PoisonPage) is poison

    retrying([trouble] * 4, use)


@pytest.mark.parametrize(("others", "poison"), [("fail", False), ("come", True)])
def test_a_page_that_fails_with_all_others_fails_not_for_its_size(
    others: str, poison: bool
) -> None:
    """When others failed meanwhile and none came, the server is sick; else it is this page."""
    ends: list[CampaignError] = []

    async def use(bench: Bench) -> None:
        async def fetch() -> None:
            try:
                await bench.fetcher.fetch(make_request())
            except CampaignError as error:
                ends.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(fetch)
            group.start_soon(fetch)

    trouble = ServerTrouble("x")
    # One after the other: each is answered in turn, and waits as long as the other.
    script = [trouble] * 8 if others == "fail" else [trouble, "page", *[trouble] * 3]
    retrying(script, use)
    assert {isinstance(error, PoisonPage) for error in ends} == {poison}


def test_a_campaigns_own_failure_is_not_tried_again() -> None:
    """It goes on its way at once, with the attempts that its page took."""

    async def use(bench: Bench) -> None:
        with pytest.raises(CampaignError) as caught:
            await bench.fetcher.fetch(make_request())
        assert (caught.value.kind, caught.value.attempts) == ("not_found", 2)

    bench = retrying([ServerTrouble("x"), CampaignError("not_found", "x", status=404)], use)
    assert len(bench.inner.calls) == 2


def test_an_order_to_stop_is_not_tried_again() -> None:
    """It goes on its way at once."""

    async def use(bench: Bench) -> None:
        with pytest.raises(StopRun):
            await bench.fetcher.fetch(make_request())

    assert not retrying([StopRun("quota_spent", "x")], use).scheduled


def test_throttles_do_not_count_against_the_retries() -> None:
    """Many more of them than there are retries, and the page still comes; there is no sleep here,
    for the pacer holds."""

    async def use(bench: Bench) -> None:
        assert await bench.fetcher.fetch(make_request()) == "page"
        assert bench.clock.monotonic() == 0.0

    bench = retrying([throttle(5.0) for _ in range(20)] + ["page"], use)
    assert len(bench.inner.calls) == 21
    assert {entry[3:] for entry in bench.scheduled} == {(5.0, "throttle")}


def test_throttles_count_against_max_wait() -> None:
    """Their holds add up with all other waits; beyond it the run stops, and can go on later."""

    async def use(bench: Bench) -> None:
        with pytest.raises(StopRun, match="exceed `max_wait` 100") as caught:
            await bench.fetcher.fetch(make_request())
        assert caught.value.reason == "throttled"
        assert caught.value.resume_at == NOON + timedelta(seconds=30.5)

    script = [ServerTrouble("x"), *[throttle(30.0) for _ in range(5)]]
    bench = retrying(script, use)
    assert len(bench.inner.calls) == 5


def test_a_campaign_asked_to_wait_too_long_is_set_aside() -> None:
    """It alone: the wait was its own, and the report says until when."""

    async def use(bench: Bench) -> None:
        with pytest.raises(Deferred) as caught:
            await bench.fetcher.fetch(make_request())
        error = caught.value
        assert (error.kind, error.status, error.attempts) == ("set_aside", 503, 2)
        assert error.resume_at == NOON + timedelta(seconds=0.5 + 3_600)

    retrying([ServerTrouble("x"), ServerTrouble("x", status=503, retry_after=3_600.0)], use)


def test_a_spent_day_is_asked_again_without_a_wait() -> None:
    """The pacer waits for the reset or stops the run: here nothing is counted or slept."""

    async def use(bench: Bench) -> None:
        assert await bench.fetcher.fetch(make_request()) == "page"
        assert bench.clock.monotonic() == 0.0

    bench = retrying([QuotaExceeded("x", status=403)] * 9 + ["page"], use)
    assert {entry[3:] for entry in bench.scheduled} == {(0.0, "quota")}


def test_the_order_to_stop_ends_a_wait() -> None:
    """A sleeping retry is woken and sends nothing."""

    async def use(bench: Bench) -> None:
        async with anyio.create_task_group() as group:

            async def fetch() -> None:
                with pytest.raises(StopRun, match="stopped"):
                    await bench.fetcher.fetch(make_request())

            group.start_soon(fetch)
            await anyio.sleep(1)
            bench.stop.request(StopRun("SIGTERM", "stopped"))
        assert bench.clock.monotonic() == 1.0

    assert len(retrying([ServerTrouble("x", retry_after=90.0)], use).inner.calls) == 1


def test_what_is_optional_does_not_make_the_server_sick() -> None:
    """It fails by itself, however often; what has to come is not stopped by that."""

    async def use(bench: Bench) -> None:
        for _ in range(100):
            with pytest.raises(CampaignError):
                await bench.fetcher.fetch(replace(make_request(), optional=True))
        assert not bench.stop.requested

    bench = retrying(itertools.repeat(ServerTrouble("down", status=500)), use)
    assert len(bench.inner.calls) == 100 * 2


def test_what_is_optional_is_given_up_after_some_throttles() -> None:
    """It must not hold the run for as long as `--max-wait` allows."""

    async def use(bench: Bench) -> None:
        with pytest.raises(CampaignError) as caught:
            await bench.fetcher.fetch(replace(make_request(), optional=True))
        assert caught.value.kind == "throttled"
        assert not bench.stop.requested

    bench = retrying(itertools.repeat(throttle(1.0)), use)
    assert len(bench.inner.calls) == 3


@pytest.mark.parametrize("workers", [1, 16])
def test_a_dead_api_costs_a_bounded_number_of_requests(workers: int) -> None:
    """Five thousand pages against an API that is down: the budget stops the run early."""
    policy = RetryPolicy()
    ends: list[str] = []

    async def use(bench: Bench) -> None:
        pages = iter(range(5_000))

        async def work() -> None:
            for _ in pages:
                try:
                    await bench.fetcher.fetch(make_request())
                except CampaignError as error:
                    ends.append(error.kind)
                except StopRun as order:
                    ends.append(order.reason)
                    bench.stop.request(order)
                    return

        async with anyio.create_task_group() as group:
            for _ in range(workers):
                group.start_soon(work)
        assert bench.stop.order is not None
        assert bench.stop.order.resume_at is not None
        assert bench.stop.order.resume_at > NOON

    bench = retrying(itertools.repeat(ServerTrouble("down", status=500)), use, policy)
    firsts = 200 / policy.retries + workers
    assert len(bench.inner.calls) <= 200 + firsts
    assert ends.count("sick_server") >= 1


def test_an_api_that_fails_every_other_time_stops_the_run() -> None:
    """A success gives half a failure back, no more: such a server is sick."""

    async def use(bench: Bench) -> None:
        async def fetch_many() -> None:
            for _ in range(1_000):
                await bench.fetcher.fetch(make_request())

        with pytest.raises(StopRun) as caught:
            await fetch_many()
        assert caught.value.reason == "sick_server"

    script = itertools.cycle([ServerTrouble("x", status=500), "page"])
    assert len(retrying(script, use).inner.calls) == pytest.approx(800, abs=10)


def test_a_spent_day_costs_no_budget_and_no_retries() -> None:
    """However often it is asked again."""

    async def use(bench: Bench) -> None:
        for _ in range(300):
            assert await bench.fetcher.fetch(make_request()) == "page"

    spent = QuotaExceeded("x", status=429)
    retrying(itertools.cycle([*[spent] * 5, "page"]), use)


def test_an_api_that_fails_one_time_in_three_is_harvested() -> None:
    """The refunds keep up: such a run goes on for ever."""
    script = itertools.cycle([ServerTrouble("x", status=500), "page", "page"])

    async def use(bench: Bench) -> None:
        for _ in range(3_000):
            assert await bench.fetcher.fetch(make_request()) == "page"

    retrying(script, use)


def test_throttles_cost_no_budget() -> None:
    """Being too fast is not the server's sickness."""

    async def use(bench: Bench) -> None:
        for _ in range(500):
            assert await bench.fetcher.fetch(make_request()) == "page"

    retrying(itertools.cycle([throttle(1.0), throttle(1.0), "page"]), use)


def test_a_cancelled_wait_is_cancelled() -> None:
    """A cancel is never taken for a failure to try again."""

    async def use(bench: Bench) -> None:
        with anyio.move_on_after(10) as scope:
            await bench.fetcher.fetch(make_request())
        assert scope.cancelled_caught
        assert bench.clock.monotonic() == 10.0

    assert len(retrying([ServerTrouble("x", retry_after=90.0)], use).inner.calls) == 1
