"""After a 401 or a 403: one second try for all; then the campaign fails, or the run stops."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import anyio
import pytest
from fakes import FakeFetcher, LoopClock, Seen, make_request, virtually

from harvester.coordinator import Coordinator
from harvester.errors import (
    CampaignError,
    ConfigError,
    CursorDropped,
    Forbidden,
    InDoubt,
    Refused,
    ServerTrouble,
    StopRun,
    Throttled,
    Unauthorized,
)
from harvester.events import RetryScheduled
from harvester.model import Request, Target
from harvester.request.auth import AuthGate, Verdict, judge
from harvester.request.credentials import Credentials
from harvester.request.pace import Pacer
from harvester.request.permits import Permits
from harvester.request.quota import QuotaLedger
from harvester.request.retry import RetryingFetcher
from harvester.request.retry_policy import RetryBudget, RetryPolicy
from harvester.request.throttle import ThrottledSender
from harvester.runtime import StopSignal

DELAY = 2.0


class Tokens:
    """A token source whose renewal is scripted: a new token, None for the same, or an error."""

    def __init__(self, *renewals: str | ConfigError | None) -> None:
        self.token = "token-0"
        self.renewals = list(renewals)
        self.asked = 0

    async def current(self) -> str:
        """The token of the moment."""
        return self.token

    async def renew(self, refused: str) -> bool:
        """The next of the script."""
        assert refused == self.token
        self.asked += 1
        await anyio.sleep(0.5)
        new = self.renewals.pop(0)
        if isinstance(new, ConfigError):
            raise new
        self.token = new or self.token
        return new is not None


class House:
    """A gate with everything round it, on a virtual clock."""

    def __init__(
        self, path: Path, tokens: Tokens, *, rate: float = 0.0, reference: Request[Any] | None
    ) -> None:
        self.clock, self.stop, self.seen = LoopClock(), StopSignal(), Seen()
        self.tokens = tokens
        self.credentials = Credentials("key", tokens)
        self.ledger = QuotaLedger(path, limit=0, clock=self.clock)
        self.pacer = Pacer(self.ledger, self.stop, rate=rate, max_wait=300, clock=self.clock)
        self.gate = AuthGate(
            credentials=self.credentials,
            pacer=self.pacer,
            stop=self.stop,
            clock=self.clock,
            retry_delay=DELAY,
            reference=lambda: reference,
        )

    def stack(
        self, script: Any, *, delay: float | None = None, permits: int = 1_000
    ) -> tuple[FakeFetcher, RetryingFetcher]:
        """The whole stack over a scripted API."""
        inner = FakeFetcher(script, delay=delay)
        return inner, RetryingFetcher(
            ThrottledSender(inner, self.pacer, Permits(permits), clock=self.clock),
            RetryPolicy(),
            credentials=self.credentials,
            budget=RetryBudget(),
            stop=self.stop,
            auth_gate=self.gate,
            clock=self.clock,
            emit=self.seen,
        )

    async def harvest(
        self, stack: RetryingFetcher, numbers: Iterable[int], *, workers: int
    ) -> dict[int, CampaignError]:
        """Fetch a page of each campaign, as a run does; the failures."""
        ends: dict[int, CampaignError] = {}

        async def work(number: int) -> int | None:
            try:
                assert await stack.fetch(make_request(target(number))) == "page"
            except InDoubt:
                return number
            except CampaignError as error:
                ends[number] = error
            return None

        async def each() -> AsyncIterator[int]:
            for number in numbers:
                yield number

        await Coordinator(work, workers=workers, stop=self.stop).run(each())
        return ends

    def now(self) -> float:
        """Seconds since the test began."""
        return self.clock.monotonic()


def in_a_house(
    tmp_path: Path,
    tokens: Tokens,
    use: Callable[[House], Awaitable[None]],
    *,
    rate: float = 0.0,
    reference: Request[Any] | None = None,
) -> House:
    """Run `use` in a new house on a virtual clock; give the house."""
    houses: list[House] = []

    async def main() -> None:
        houses.append(House(tmp_path / "k", tokens, rate=rate, reference=reference))
        await use(houses[0])
        houses[0].ledger.close()

    virtually(main)
    return houses[0]


def refused() -> Unauthorized:
    """A 401."""
    return Unauthorized("HTTP 401", status=401)


def forbidden() -> Forbidden:
    """A 403 that names no limit."""
    return Forbidden("HTTP 403", status=403, error_key="no.privilege")


def target(number: int) -> Target:
    """One campaign of many."""
    return Target("opens", str(number))


# -- the decision ------------------------------------------------------------------------------

NEVER = float("-inf")


@pytest.mark.parametrize(
    ("accepted_at", "refused", "known", "others", "verdict"),
    [
        (11.0, 1, True, True, Verdict.FAIL_CAMPAIGN),
        (11.0, 9, True, False, Verdict.FAIL_CAMPAIGN),
        (10.0, 1, True, True, Verdict.PROBE),
        (9.0, 9, True, False, Verdict.PROBE),
        (NEVER, 1, True, True, Verdict.PROBE),
        (NEVER, 1, False, True, Verdict.PUT_OFF),
        (NEVER, 4, False, True, Verdict.PUT_OFF),
        (NEVER, 5, False, True, Verdict.STOP_RUN),
        (NEVER, 1, False, False, Verdict.STOP_RUN),
    ],
)
def test_a_refusal_is_judged_by_other_requests(
    accepted_at: float, refused: int, known: bool, others: bool, verdict: Verdict
) -> None:
    """One that was sent later and accepted shows that the campaign alone is refused."""
    found = judge(10.0, accepted_at=accepted_at, refused=refused, known=known, others=others)
    assert found is verdict


# -- the second try ----------------------------------------------------------------------------


def test_a_token_that_can_be_renewed_is_renewed(tmp_path: Path) -> None:
    """The second try goes out at once with the new token."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused(), "page"])
        assert await stack.fetch(make_request()) == "page"
        assert house.now() == 0.5
        assert [call.attempt for call in inner.calls] == [1, 2]

    house = in_a_house(tmp_path, Tokens("token-1"), use)
    assert [(e.wait_s, e.wait_source) for e in house.seen.of(RetryScheduled)] == [(0.0, "none")]


def test_a_token_that_cannot_be_renewed_gets_a_slow_second_try(tmp_path: Path) -> None:
    """All requests hold, then it is sent once more: a 401 may have meant too fast."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused(), "page"])
        assert await stack.fetch(make_request()) == "page"
        assert inner.at == [0.0, 0.5 + DELAY]

    house = in_a_house(tmp_path, Tokens(None), use)
    assert [(e.wait_s, e.wait_source) for e in house.seen.of(RetryScheduled)] == [
        (DELAY, "unauthorized")
    ]


@pytest.mark.parametrize("renewal", ["token-1", None])
def test_refused_twice_stops_the_run(tmp_path: Path, renewal: str | None) -> None:
    """Whether the token was renewed or not: where no other campaign is left to ask for, nothing
    more is asked with it."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused(), refused()])
        with pytest.raises(InDoubt):
            await stack.fetch(make_request())
        with pytest.raises(StopRun, match="is refused") as caught:
            await stack.fetch(make_request())
        assert caught.value.reason == "credentials_refused"
        assert house.stop.order is not None
        assert house.stop.order.reason == "credentials_refused"
        with pytest.raises(StopRun):
            await stack.fetch(make_request())
        assert len(inner.calls) == 2

    in_a_house(tmp_path, Tokens(renewal), use)


def test_a_renewal_that_fails_stops_the_run(tmp_path: Path) -> None:
    """Without a token there is nothing to go on with."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused()])
        with pytest.raises(StopRun, match="could not be renewed: no file") as caught:
            await stack.fetch(make_request())
        assert caught.value.reason == "credentials_refused"
        assert house.stop.requested
        assert len(inner.calls) == 1

    in_a_house(tmp_path, Tokens(ConfigError("no file")), use)


@pytest.mark.parametrize("renewal", ["token-1", None])
def test_a_hundred_refusals_are_one_second_try(tmp_path: Path, renewal: str | None) -> None:
    """Requests refused together renew once or hold once, and all get their page."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused()] * 100 + ["page"] * 100, delay=1.0)
        pages: list[str] = []

        async def fetch() -> None:
            pages.append(await stack.fetch(make_request()))

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(fetch)
        assert pages == ["page"] * 100
        assert inner.peak == 100
        assert len(inner.calls) == 200

    house = in_a_house(tmp_path, Tokens(renewal), use)
    assert house.tokens.asked == 1
    waits = [event.wait_s for event in house.seen.of(RetryScheduled)]
    assert waits == [0.0 if renewal else DELAY] + [0.0] * 99


def test_a_refusal_after_a_success_of_another_request_is_a_new_one(tmp_path: Path) -> None:
    """Of two refused together, one gets its page; the other, refused at once again, a slow try."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused(), refused(), "page", refused(), "page"], delay=0.1)
        pages: list[str] = []

        async def fetch() -> None:
            pages.append(await stack.fetch(make_request()))

        async with anyio.create_task_group() as group:
            group.start_soon(fetch)
            group.start_soon(fetch)
        assert pages == ["page"] * 2
        slow = 0.1 + 0.5 + DELAY
        assert inner.at == pytest.approx([0, 0, slow, slow + 0.1, slow + 0.2 + 0.5 + DELAY])

    house = in_a_house(tmp_path, Tokens(None, None), use)
    waits = [event.wait_s for event in house.seen.of(RetryScheduled)]
    assert waits == [DELAY, 0.0, DELAY]


@pytest.mark.parametrize("refusal", [refused, forbidden])
@pytest.mark.parametrize("rate", [0.0, 3.3])
def test_a_dead_token_costs_few_requests(
    tmp_path: Path, refusal: Callable[[], Refused], rate: float
) -> None:
    """Those in flight, and a few: then all others end with the order."""

    async def use(house: House) -> None:
        inner, stack = house.stack(repeat(lambda _: refusal()), delay=0.1, permits=16)
        ends = await house.harvest(stack, range(64), workers=64)
        assert house.stop.order is not None
        assert (house.stop.order.reason, ends) == ("credentials_refused", {})
        assert len(inner.calls) <= (16 + 2 * 3 if rate == 0 else 7)

    in_a_house(tmp_path, Tokens(*[None] * 9), use, rate=rate)


@pytest.mark.parametrize("refusal", [refused, forbidden])
def test_a_token_that_dies_in_mid_run_costs_few_requests(
    tmp_path: Path, refusal: Callable[[], Refused]
) -> None:
    """The last request that was accepted is sent once more, and is refused too."""

    async def use(house: House) -> None:
        inner, stack = house.stack(
            chain(["page"] * 3, repeat(lambda _: refusal())), delay=0.1, permits=4
        )
        ends: list[str] = []

        async def fetch(number: int) -> None:
            try:
                await stack.fetch(make_request(target(number)))
            except StopRun as order:
                ends.append(order.reason)

        for number in range(3):
            await fetch(number)
        async with anyio.create_task_group() as group:
            for number in range(3, 30):
                group.start_soon(fetch, number)
        assert ends == ["credentials_refused"] * 27
        assert inner.calls[-1].target == target(2)
        assert len(inner.calls) <= 3 + 2 * 4 + 2

    in_a_house(tmp_path, Tokens(*[None] * 9), use)


def test_other_trouble_on_the_second_try_is_other_trouble(tmp_path: Path) -> None:
    """It says nothing about the token: the ordinary retries go on."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused(), ServerTrouble("x", status=500), "page"])
        assert await stack.fetch(make_request()) == "page"
        assert not house.stop.requested
        assert [call.attempt for call in inner.calls] == [1, 2, 3]

    in_a_house(tmp_path, Tokens("token-1"), use)


def test_a_later_refusal_gets_a_second_try_of_its_own(tmp_path: Path) -> None:
    """A request sent after a second try that went well is not covered by it."""

    async def use(house: House) -> None:
        _, stack = house.stack([refused(), "a", refused(), "b"])
        assert await stack.fetch(make_request()) == "a"
        await anyio.sleep(1)
        assert await stack.fetch(make_request()) == "b"

    assert in_a_house(tmp_path, Tokens(None, "token-2"), use).tokens.asked == 2


def test_a_token_that_ends_again_in_a_run_that_is_throttled_is_renewed_again(
    tmp_path: Path,
) -> None:
    """Nothing was accepted meanwhile, but the first renewal is long past."""

    async def use(house: House) -> None:
        throttled = Throttled("x", status=429, retry_after=60)
        _, stack = house.stack([refused(), throttled, refused(), "a"])
        assert await stack.fetch(make_request()) == "a"

    assert in_a_house(tmp_path, Tokens("token-1", "token-2"), use).tokens.asked == 2


def test_waiting_for_a_slot_is_not_having_been_sent(tmp_path: Path) -> None:
    """A request that stood in the queue during the second try of another one, was sent after it and
    was refused, gets a slow second try too: what came before it was sent says nothing about it.
    """

    async def use(house: House) -> None:
        inner, stack = house.stack([refused(), "a", refused(), "b"])
        async with anyio.create_task_group() as group:
            group.start_soon(stack.fetch, make_request())
            await anyio.sleep(0.6)
            group.start_soon(stack.fetch, make_request())
        assert house.tokens.asked == 2
        assert inner.at[3] - inner.at[2] >= DELAY

    in_a_house(tmp_path, Tokens(None, None), use, rate=4.0)


def test_no_second_try_after_the_order_to_stop(tmp_path: Path) -> None:
    """The order is raised instead, and the token is not renewed."""

    async def use(house: House) -> None:
        house.stop.request(StopRun("SIGTERM", "stopped"))

        async def send(request: object, hold: float) -> None:
            raise AssertionError("nothing may be sent")

        with pytest.raises(StopRun, match="stopped"):
            await house.gate.retry_after_refusal(make_request(), Unauthorized("no"), send)

    assert in_a_house(tmp_path, Tokens(), use).tokens.asked == 0


def test_others_wait_while_the_token_is_in_doubt(tmp_path: Path) -> None:
    """From the refusal to the answer of the second try nothing else is sent."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused(), "a", "b"], delay=1.0)
        async with anyio.create_task_group() as group:
            group.start_soon(stack.fetch, make_request(target(1)))
            await anyio.sleep(1.2)
            assert repr(house.gate) == "<AuthGate in doubt, 0 put off>"
            group.start_soon(stack.fetch, make_request(target(2)))
        assert inner.at == [0.0, 1.5, 2.5]
        assert [call.target for call in inner.calls] == [target(1), target(1), target(2)]

    in_a_house(tmp_path, Tokens("token-1"), use)


def test_a_refusal_of_before_the_renewal_needs_no_other_one(tmp_path: Path) -> None:
    """Also where the second try met other trouble: the token is another one all the same."""

    async def use(house: House) -> None:
        script = [refused(), refused(), ServerTrouble("x", status=500), "a", "b"]
        inner, stack = house.stack(script, delay=1.0)
        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(stack.fetch, make_request(target(number)))
        assert len(inner.calls) == 5

    assert in_a_house(tmp_path, Tokens("token-1"), use).tokens.asked == 1


# -- one campaign alone ------------------------------------------------------------------------


class Api:
    """Answers each campaign for itself; counts what each was asked."""

    def __init__(self, bad: Callable[[], Refused], *bad_ones: int) -> None:
        self.bad, self.bad_ones = bad, {target(number) for number in bad_ones}
        self.asked: Counter[Target] = Counter()

    def __call__(self, request: Request[Any]) -> object:
        """A page, or the refusal."""
        self.asked[request.target] += 1
        return self.bad() if request.target in self.bad_ones else "page"


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("rate", [0.0, 3.3])
@pytest.mark.parametrize("bad", [(50,), (0,), (99,), (0, 1, 2, 3), (20, 21, 22, 23, 24)])
@pytest.mark.parametrize(
    ("refusal", "kind", "most"), [(refused, "unauthorized", 2), (forbidden, "forbidden", 1)]
)
def test_a_campaign_that_is_refused_alone_costs_itself(
    tmp_path: Path,
    refusal: Callable[[], Refused],
    kind: str,
    most: int,
    bad: tuple[int, ...],
    rate: float,
    workers: int,
) -> None:
    """The others come, wherever it stands among them; it fails with its kind, for few requests."""
    ends: dict[int, CampaignError] = {}
    api = Api(refusal, *bad)

    async def use(house: House) -> None:
        _, stack = house.stack(repeat(api), delay=0.1, permits=workers)
        ends.update(await house.harvest(stack, range(100), workers=workers))
        assert not house.stop.requested

    in_a_house(tmp_path, Tokens(*[None] * 9), use, rate=rate)
    assert sorted(ends) == sorted(bad)
    for number, error in ends.items():
        assert (error.kind, error.status) == (kind, 401 if kind == "unauthorized" else 403)
        assert "other campaigns are not refused" in str(error)
        assert api.asked[target(number)] <= most
    assert api.asked.total() <= 100 + len(bad) * 2


@pytest.mark.parametrize("workers", [1, 16])
def test_campaigns_that_are_refused_alone_cost_one_renewal(tmp_path: Path, workers: int) -> None:
    """Also the first ones of a run: the token is renewed for the first of them."""
    api = Api(refused, 0, 1, 2)

    async def use(house: House) -> None:
        _, stack = house.stack(repeat(api), delay=0.1, permits=workers)
        assert sorted(await house.harvest(stack, range(20), workers=workers)) == [0, 1, 2]

    tokens = Tokens("token-1", *[None] * 9)
    in_a_house(tmp_path, tokens, use, rate=3.3)
    assert tokens.token == "token-1"
    assert tokens.asked == 1
    assert api.asked.total() <= 17 + 2 * 3 + 1


def test_a_probe_whose_cursor_is_gone_shows_that_the_token_works(tmp_path: Path) -> None:
    """Only a refusal of the probe is one of the token."""

    async def use(house: House) -> None:
        gone = CursorDropped("HTTP 410", status=410)
        _, stack = house.stack(["page", forbidden(), gone])
        await stack.fetch(make_request(target(1)))
        with pytest.raises(CampaignError) as caught:
            await stack.fetch(make_request(target(2)))
        assert (caught.value.kind, caught.value.error_key) == ("forbidden", "no.privilege")

    in_a_house(tmp_path, Tokens(), use)
