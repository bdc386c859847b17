"""After a 401: one second look for all, then the end."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from fakes import FakeFetcher, LoopClock, Seen, make_request, virtually

from harvester.errors import ConfigError, ServerTrouble, StopRun, Unauthorized
from harvester.events import RetryScheduled
from harvester.request.auth import RETRY_DELAY, AuthGate
from harvester.request.credentials import Credentials
from harvester.request.pace import Pacer
from harvester.request.permits import Permits
from harvester.request.quota import QuotaLedger
from harvester.request.retry import RetryBudget, RetryingFetcher, RetryPolicy
from harvester.request.throttle import ThrottledFetcher
from harvester.runtime import StopSignal


class Tokens(Credentials):
    """Credentials whose renewal is scripted: a new token, None for the same, or an error."""

    def __init__(self, *renewals: str | ConfigError | None) -> None:
        super().__init__("key", access_token="token-0")
        self.renewals = list(renewals)
        self.asked = 0

    async def renew(self) -> bool:
        """The next of the script."""
        self.asked += 1
        await anyio.sleep(0.5)
        new = self.renewals.pop(0)
        if isinstance(new, ConfigError):
            raise new
        if new is None:
            return False
        self.token = new
        return True


class House:
    """A door with everything round it, on a virtual clock."""

    def __init__(self, path: Path, tokens: Tokens, *, rate: float = 0.0) -> None:
        self.clock, self.stop, self.seen = LoopClock(), StopSignal(), Seen()
        self.tokens = tokens
        self.ledger = QuotaLedger(path, limit=0, clock=self.clock)
        self.pacer = Pacer(self.ledger, self.stop, rate=rate, max_wait=300, clock=self.clock)
        self.door = AuthGate(tokens, self.pacer, self.stop, clock=self.clock)

    def stack(
        self, script: Any, *, delay: float | None = None
    ) -> tuple[FakeFetcher, RetryingFetcher]:
        """The whole stack over a scripted API."""
        inner = FakeFetcher(script, delay=delay)
        return inner, RetryingFetcher(
            ThrottledFetcher(inner, self.pacer, Permits(1_000), clock=self.clock),
            RetryPolicy(),
            budget=RetryBudget(),
            stop=self.stop,
            auth_gate=self.door,
            clock=self.clock,
            emit=self.seen,
        )

    def now(self) -> float:
        """Seconds since the test began."""
        return self.clock.monotonic()


def in_a_house(
    tmp_path: Path, tokens: Tokens, use: Callable[[House], Awaitable[None]], *, rate: float = 0.0
) -> House:
    """Run `use` in a new house on a virtual clock; give the house."""
    houses: list[House] = []

    async def main() -> None:
        houses.append(House(tmp_path / "k", tokens, rate=rate))
        await use(houses[0])
        houses[0].ledger.close()

    virtually(main)
    return houses[0]


def refused() -> Unauthorized:
    """A 401."""
    return Unauthorized("HTTP 401", status=401)


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
    """Everybody holds, then it is asked once more: a 401 may have meant too fast."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused(), "page"])
        assert await stack.fetch(make_request()) == "page"
        assert inner.at == [0.0, 0.5 + RETRY_DELAY]

    house = in_a_house(tmp_path, Tokens(None), use)
    assert [(e.wait_s, e.wait_source) for e in house.seen.of(RetryScheduled)] == [
        (RETRY_DELAY, "unauthorized")
    ]


@pytest.mark.parametrize("renewal", ["token-1", None])
def test_refused_twice_stops_the_run(tmp_path: Path, renewal: str | None) -> None:
    """Whether the token was renewed or not: nothing more is asked with it."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused(), refused()])
        with pytest.raises(StopRun, match="refused twice") as caught:
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
def test_a_hundred_refusals_are_one_second_look(tmp_path: Path, renewal: str | None) -> None:
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
    assert waits == [0.0 if renewal else RETRY_DELAY] + [0.0] * 99


def test_a_refusal_after_somebody_elses_success_is_a_new_one(tmp_path: Path) -> None:
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
        slow = 0.1 + 0.5 + RETRY_DELAY
        assert inner.at == pytest.approx([0, 0, slow, slow + 0.1, slow + 0.2 + 0.5 + RETRY_DELAY])

    house = in_a_house(tmp_path, Tokens(None, None), use)
    waits = [event.wait_s for event in house.seen.of(RetryScheduled)]
    assert waits == [RETRY_DELAY, 0.0, RETRY_DELAY]


def test_a_dead_token_costs_few_requests(tmp_path: Path) -> None:
    """Of a hundred refused together, one tries again; the others end with the order."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused()] * 101, delay=1.0)
        ends: list[str] = []

        async def fetch() -> None:
            with pytest.raises(StopRun) as caught:
                await stack.fetch(make_request())
            ends.append(caught.value.reason)

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(fetch)
        assert ends == ["credentials_refused"] * 100
        assert len(inner.calls) == 101

    in_a_house(tmp_path, Tokens(None), use)


def test_other_trouble_on_the_second_try_is_other_trouble(tmp_path: Path) -> None:
    """It says nothing about the token: the ordinary retries go on."""

    async def use(house: House) -> None:
        inner, stack = house.stack([refused(), ServerTrouble("x", status=500), "page"])
        assert await stack.fetch(make_request()) == "page"
        assert not house.stop.requested
        assert [call.attempt for call in inner.calls] == [1, 2, 3]

    in_a_house(tmp_path, Tokens("token-1"), use)


def test_a_later_refusal_gets_a_look_of_its_own(tmp_path: Path) -> None:
    """A request sent after a second look that went well is not covered by it."""

    async def use(house: House) -> None:
        _, stack = house.stack([refused(), "a", refused(), "b"])
        assert await stack.fetch(make_request()) == "a"
        await anyio.sleep(1)
        assert await stack.fetch(make_request()) == "b"

    assert in_a_house(tmp_path, Tokens(None, "token-2"), use).tokens.asked == 2


def test_waiting_for_a_slot_is_not_having_been_sent(tmp_path: Path) -> None:
    """A request that stood in the queue during another's second look, was sent after it, and was
    refused, gets a slow second look too: what came before it was sent can say nothing of it.
    """

    async def use(house: House) -> None:
        inner, stack = house.stack([refused(), "a", refused(), "b"])
        async with anyio.create_task_group() as group:
            group.start_soon(stack.fetch, make_request())
            await anyio.sleep(0.6)
            group.start_soon(stack.fetch, make_request())
        assert house.tokens.asked == 2
        assert inner.at[3] - inner.at[2] >= RETRY_DELAY

    in_a_house(tmp_path, Tokens(None, None), use, rate=4.0)


def test_nobody_looks_after_the_order_to_stop(tmp_path: Path) -> None:
    """Whoever was waiting at the door is told of the order instead."""

    async def use(house: House) -> None:
        house.stop.request(StopRun("SIGTERM", "told"))
        with pytest.raises(StopRun, match="told"):
            async with house.door.retry_after_401(Unauthorized("no")):
                raise AssertionError("nobody gets in")

    assert in_a_house(tmp_path, Tokens(), use).tokens.asked == 0
