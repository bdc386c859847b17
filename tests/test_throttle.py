"""The shared pace: strict spacing, first come first served, one hold for all."""

import asyncio
import fcntl
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from aiolimiter import AsyncLimiter
from fakes import NOON, TARGET, FakeFetcher, LoopClock, Seen, block, make_request, virtually
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harvester.errors import QuotaExceeded, ServerTrouble, StopRun, Throttled
from harvester.events import PaceChanged, Paused, RequestSent
from harvester.request.pace import Pacer, Spacing
from harvester.request.permits import Permits
from harvester.request.quota import QuotaLedger
from harvester.request.quota_record import Granted, NotYet
from harvester.request.throttle import ThrottledSender
from harvester.runtime import StopSignal

RATE = 4.0
GAP = 1 / RATE


@pytest.fixture(autouse=True)
def _never_without_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meter is asked only when it must say yes: left to wait, it is not first come first
    served, and on a virtual clock it can spin for ever.
    """
    real = AsyncLimiter.acquire

    async def acquire(self: AsyncLimiter, amount: float = 1) -> None:
        assert self.has_capacity(amount), "the meter was asked while it had nothing to give"
        await real(self, amount)

    monkeypatch.setattr(AsyncLimiter, "acquire", acquire)


class Ticking(LoopClock):
    """Never tells the same time twice, as no clock does."""

    ticks = 0

    def monotonic(self) -> float:
        """A picosecond later than when it was last looked at."""
        self.ticks += 1
        return super().monotonic() + self.ticks * 1e-12


@dataclass
class Bench:
    """A pacer on a virtual clock, with what it said and did."""

    path: Path
    options: dict[str, Any] = field(default_factory=dict)
    limit: int = 0
    start: datetime = NOON

    def __post_init__(self) -> None:
        self.clock: LoopClock = self.options.pop("clock", None) or LoopClock(self.start)
        self.stop = StopSignal()
        self.seen = Seen()
        self.starts: list[tuple[float, int]] = []
        self.ledger = QuotaLedger(self.path, limit=self.limit, clock=self.clock)
        options = {"rate": RATE, "max_wait": 300.0, "jitter": lambda: 0.0} | self.options
        self.pacer = Pacer(self.ledger, self.stop, clock=self.clock, emit=self.seen, **options)

    async def ask(self, name: int = 0) -> int:
        """Wait for a start and note it."""
        used = await self.pacer.slot()
        self.starts.append((self.clock.monotonic(), name))
        return used

    async def ask_many(self, count: int) -> None:
        """So many tasks ask, in order, at once."""
        async with anyio.create_task_group() as group:
            for name in range(count):
                group.start_soon(self.ask, name)

    @property
    def gaps(self) -> list[float]:
        """Between the starts."""
        times = [at for at, _ in self.starts]
        return [after - before for before, after in pairwise(times)]

    @property
    def names(self) -> list[int]:
        """In the order of the starts."""
        return [name for _, name in self.starts]


Make = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Make:
    """Makes a bench; to be called within the virtual loop."""

    def make(limit: int = 0, start: datetime = NOON, **options: Any) -> Bench:
        return Bench(tmp_path / "key.json", options, limit, start)

    return make


def on_a_bench(bench: Make, use: Callable[[Bench], Awaitable[None]], **options: Any) -> Bench:
    """Run `use` with a new bench on a virtual clock; give the bench."""
    benches: list[Bench] = []

    async def main() -> None:
        benches.append(bench(**options))
        await use(benches[0])
        benches[0].ledger.close()

    virtually(main)
    return benches[0]


def throttled(one: Bench, answer: Throttled, sent: float, request: Any = None) -> None:
    """A request that was sent then is refused as too fast."""
    answer.sent = sent
    one.pacer.throttled(answer, request or make_request())


# -- the spacing -------------------------------------------------------------------------------


def test_the_gap_is_one_over_the_rate() -> None:
    """Or nothing, without a pace."""
    assert Spacing(4).gap == 0.25
    assert Spacing(0).gap == 0.0
    assert not Spacing(4).widened


@pytest.mark.parametrize(("rate", "widest"), [(4.0, 2.0), (0.0, 0.08)])
def test_easing_ends_at_the_widest(rate: float, widest: float) -> None:
    """Each throttle widens by half, up to eight times the gap; without a pace from 10 ms on."""
    spacing = Spacing(rate)
    gaps = []
    for _ in range(20):
        spacing.back_off()
        gaps.append(spacing.gap)
    assert gaps[0] == pytest.approx((spacing.base or 0.01) * 1.5)
    assert gaps == sorted(gaps)
    assert gaps[-1] == pytest.approx(widest)
    assert spacing.widened


@pytest.mark.parametrize("rate", [4.0, 0.0])
def test_successes_bring_the_gap_back(rate: float) -> None:
    """About eighty undo one throttle; then the gap is exactly the one asked for."""
    spacing = Spacing(rate)
    spacing.back_off()
    count = 1
    while not spacing.recover():
        count += 1
    assert 70 < count < 95
    assert spacing.gap == spacing.base
    assert not spacing.widened


# -- spacing and order -------------------------------------------------------------------------


def test_starts_are_evenly_spaced_and_in_order(bench: Make) -> None:
    """Twenty that ask at once start one gap apart, in the order in which they asked."""

    async def use(one: Bench) -> None:
        await one.ask_many(20)

    one = on_a_bench(bench, use)
    assert one.names == list(range(20))
    assert one.starts[0][0] == 0.0
    assert all(gap == pytest.approx(GAP, abs=1e-4) and gap >= GAP for gap in one.gaps)


def test_idling_saves_nothing_up(bench: Make) -> None:
    """After an hour without requests there is no burst."""

    async def use(one: Bench) -> None:
        await one.ask_many(3)
        await anyio.sleep(3_600)
        await one.ask_many(5)

    assert min(on_a_bench(bench, use).gaps) >= GAP


def test_without_a_pace_starts_follow_at_once(bench: Make) -> None:
    """A rate of 0 waits for nothing."""

    async def use(one: Bench) -> None:
        await one.ask_many(50)

    assert on_a_bench(bench, use, rate=0.0).starts[-1][0] == 0.0


def test_a_blocked_loop_brings_no_start_nearer(bench: Make) -> None:
    """A late start pushes the next one on, it does not draw it in."""

    async def use(one: Bench) -> None:
        async with anyio.create_task_group() as group:
            for name in range(6):
                group.start_soon(one.ask, name)
            await anyio.sleep(0.3)
            block(1.7)

    one = on_a_bench(bench, use)
    assert min(one.gaps) >= GAP
    assert max(one.gaps) > 1.4


def test_a_cancelled_waiter_costs_no_start(bench: Make) -> None:
    """Those behind it move up, no request waits longer, nothing is charged for it."""

    async def use(one: Bench) -> None:
        scope = anyio.CancelScope()

        async def given_up() -> None:
            with scope:
                await one.ask(99)

        async with anyio.create_task_group() as group:
            group.start_soon(one.ask, 0)
            await anyio.sleep(0.01)
            group.start_soon(given_up)
            await anyio.sleep(0.01)
            group.start_soon(one.ask, 1)
            await anyio.sleep(0.1)
            scope.cancel()
        assert one.ledger.used_today() == 2

    one = on_a_bench(bench, use)
    assert one.names == [0, 1]
    assert one.gaps == [pytest.approx(GAP, abs=1e-4)]


def test_a_start_is_charged_before_it_is_given(bench: Make) -> None:
    """Each start carries the day's count."""

    async def use(one: Bench) -> None:
        assert [await one.ask() for _ in range(3)] == [1, 2, 3]
        assert one.ledger.used_today() == 3

    on_a_bench(bench, use)


def test_two_runs_of_one_key_keep_apart_and_both_go_on(bench: Make) -> None:
    """Two pacers over one ledger: never nearer than the gap, and neither starves the other."""
    starts: list[tuple[float, int]] = []

    async def main() -> None:
        runs = [bench(), bench()]

        async def walk(name: int) -> None:
            for _ in range(20):
                await runs[name].pacer.slot()
                starts.append((runs[name].clock.monotonic(), name))

        async with anyio.create_task_group() as group:
            group.start_soon(walk, 0)
            group.start_soon(walk, 1)
        for run in runs:
            run.ledger.close()

    virtually(main)
    times = [at for at, _ in starts]
    assert all(b - a >= GAP - 1e-9 for a, b in pairwise(times))
    assert times[-1] < 40 * GAP * 1.1
    assert {name for _, name in starts[:4]} == {0, 1}


# -- holds -------------------------------------------------------------------------------------


def test_no_request_starts_during_a_hold(bench: Make) -> None:
    """Those who wait already and those who come during it: all after its end, still spaced."""

    async def use(one: Bench) -> None:
        async with anyio.create_task_group() as group:
            for name in range(4):
                group.start_soon(one.ask, name)
            await anyio.sleep(0.3)
            one.pacer.hold(10, "throttled")
            group.start_soon(one.ask, 4)
            await anyio.sleep(5)
            group.start_soon(one.ask, 5)

    one = on_a_bench(bench, use)
    assert one.names == [0, 1, 2, 3, 4, 5]
    assert [at < 0.3 for at, _ in one.starts] == [True, True, False, False, False, False]
    assert one.starts[2][0] == pytest.approx(10.3)
    assert min(one.gaps) >= GAP
    assert [(e.reason, e.seconds) for e in one.seen.of(Paused)] == [("throttled", 10)]


def test_a_hold_within_a_hold_changes_nothing(bench: Make) -> None:
    """The longest end stands, and only what changes is announced."""

    async def use(one: Bench) -> None:
        one.pacer.hold(10, "throttled")
        one.pacer.hold(3, "unauthorized")
        await one.ask()
        one.pacer.hold(3, "unauthorized")
        await one.ask()

    one = on_a_bench(bench, use)
    assert [round(at, 3) for at, _ in one.starts] == [10.0, 13.0]
    assert [e.reason for e in one.seen.of(Paused)] == ["throttled", "unauthorized"]


def test_a_hold_of_another_run_is_kept(bench: Make) -> None:
    """A run of the same key waits for it, and says nothing of its own."""

    async def use(one: Bench) -> None:
        other = bench()
        other.pacer.hold(20, "throttled")
        await one.ask()
        other.ledger.close()

    one = on_a_bench(bench, use)
    assert one.starts[0][0] == pytest.approx(20)
    assert not one.seen.events


def test_a_hold_longer_than_max_wait_stops_the_run(bench: Make) -> None:
    """Also one of another run: the error says when the run can go on."""

    async def use(one: Bench) -> None:
        other = bench()
        other.pacer.hold(301, "throttled")
        with pytest.raises(StopRun, match="longer than `max_wait` 300") as caught:
            await one.ask()
        assert caught.value.reason == "throttled"
        assert caught.value.resume_at == NOON + timedelta(seconds=301)
        other.ledger.close()

    on_a_bench(bench, use)


def test_a_throttle_holds_all_requests_and_widens_the_gap(bench: Make) -> None:
    """The first hold is a second; the gap widens; both are announced."""

    async def use(one: Bench) -> None:
        await one.ask()
        answer = Throttled("too fast")
        throttled(one, answer, one.clock.monotonic())
        assert (answer.held, answer.wait_source) == (1.0, "throttle")
        await one.ask()
        await one.ask()

    one = on_a_bench(bench, use)
    assert one.gaps == [pytest.approx(1.0), pytest.approx(GAP * 1.5, abs=1e-4)]
    assert [e.gap for e in one.seen.of(PaceChanged)] == [pytest.approx(GAP * 1.5)]
    assert [e.until for e in one.seen.of(Paused)] == [NOON + timedelta(seconds=1)]


def test_throttles_in_a_row_hold_longer_and_longer(bench: Make) -> None:
    """1, 2, 4, … 60 seconds, a tenth of it more by chance; a success starts that over."""
    held: list[float] = []

    async def use(one: Bench) -> None:
        for _ in range(9):
            await one.ask()
            answer = Throttled("too fast")
            throttled(one, answer, one.clock.monotonic())
            held.append(answer.held)
        await one.ask()
        one.pacer.succeeded(sent=one.clock.monotonic())
        await one.ask()
        answer = Throttled("too fast")
        throttled(one, answer, one.clock.monotonic())
        held.append(answer.held)

    on_a_bench(bench, use, jitter=lambda: 0.5)
    assert held == [pytest.approx(s * 1.05) for s in (1, 2, 4, 8, 16, 32, 60, 60, 60, 1)]


def test_requests_refused_together_are_one_throttle(bench: Make) -> None:
    """Those that were under way when the first was refused ease nothing and learn what is left."""

    async def use(one: Bench) -> None:
        starts = []
        for _ in range(3):
            await one.ask()
            starts.append(one.clock.monotonic())
        first, second, late = (Throttled("too fast") for _ in range(3))
        await anyio.sleep(0.1)
        throttled(one, first, starts[0])
        await anyio.sleep(0.4)
        throttled(one, second, starts[1])
        await anyio.sleep(5)
        throttled(one, late, starts[2])
        assert [first.held, second.held, late.held] == pytest.approx([1.0, 0.6, 0.0])

    one = on_a_bench(bench, use, clock=Ticking())
    assert len(one.seen.of(PaceChanged)) == 1
    assert len(one.seen.of(Paused)) == 1
    assert one.pacer.spacing.gap == pytest.approx(GAP * 1.5)


@pytest.mark.parametrize(
    ("retry_after", "held", "source"),
    [
        (7.0, 7.0, "retry-after"),
        (0.0, 1.0, "throttle"),
        (0.5, 1.0, "throttle"),
        (300.0, 300.0, "retry-after"),
    ],
)
def test_retry_after_is_the_floor_of_the_hold(
    bench: Make, retry_after: float, held: float, source: str
) -> None:
    """The server may ask for a longer wait, not for a shorter one."""

    async def use(one: Bench) -> None:
        await one.ask()
        answer = Throttled("too fast", retry_after=retry_after)
        throttled(one, answer, one.clock.monotonic())
        assert (answer.held, answer.wait_source) == (held, source)
        await one.ask()

    assert on_a_bench(bench, use).gaps == [pytest.approx(held)]


@pytest.mark.parametrize("retry_after", [300.5, 1e9, 251_629_934_399.0])
def test_a_retry_after_beyond_max_wait_stops_the_run(bench: Make, retry_after: float) -> None:
    """No run sleeps for days without a word; the error says when it can go on."""

    async def use(one: Bench) -> None:
        await one.ask()
        with pytest.raises(StopRun) as caught:
            throttled(one, Throttled("too fast", retry_after=retry_after), 0.0)
        assert caught.value.reason == "throttled"
        assert caught.value.resume_at is not None
        assert caught.value.resume_at > NOON

    on_a_bench(bench, use)


def test_a_campaign_that_is_throttled_alone_holds_only_itself(bench: Make) -> None:
    """Others were accepted since this page was refused before: they neither wait nor slow down."""

    async def use(one: Bench) -> None:
        gap = one.pacer.spacing.gap
        one.pacer.succeeded(sent=5.0)
        waits = []
        for times in range(8):
            answer = Throttled("too fast", retry_after=3.0)
            request = replace(make_request(), throttles=times, throttled_since=4.0)
            throttled(one, answer, 10.0, request)
            assert answer.alone
            waits.append((answer.held, answer.wait_source))
        assert [wait for wait, _ in waits] == [3.0, 3.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
        assert [source for _, source in waits[1:3]] == ["retry-after", "throttle"]
        assert one.pacer.spacing.gap == gap
        await one.ask()
        assert one.clock.monotonic() == 0.0

    assert not on_a_bench(bench, use).seen.events


@pytest.mark.parametrize("accepted", [None, 4.0, 3.0])
def test_a_throttle_is_of_all_until_another_request_is_accepted(
    bench: Make, accepted: float | None
) -> None:
    """A success of before the page's last throttle shows nothing."""

    async def use(one: Bench) -> None:
        if accepted is not None:
            one.pacer.succeeded(sent=accepted)
        answer = Throttled("too fast")
        throttled(one, answer, 10.0, replace(make_request(), throttles=1, throttled_since=4.0))
        assert not answer.alone
        await one.ask()
        assert one.clock.monotonic() == 1.0

    on_a_bench(bench, use)


def test_successes_bring_the_pace_back(bench: Make) -> None:
    """Slowly, and the return to the asked-for gap is announced once."""

    async def use(one: Bench) -> None:
        await one.ask()
        throttled(one, Throttled("too fast"), one.clock.monotonic())
        for _ in range(100):
            await one.ask()
            one.pacer.succeeded(sent=one.clock.monotonic())

    one = on_a_bench(bench, use)
    assert [e.gap for e in one.seen.of(PaceChanged)] == [pytest.approx(GAP * 1.5), GAP]
    assert min(one.gaps) >= GAP
    assert one.gaps[-1] == pytest.approx(GAP, abs=1e-4)


# -- the end of the day, the end of the run ----------------------------------------------------


def test_a_spent_day_stops_the_run(bench: Make) -> None:
    """Not one request past the quota; the reset is when the run can go on."""

    async def use(one: Bench) -> None:
        await one.ask()
        await one.ask()
        with pytest.raises(StopRun) as caught:
            await one.ask()
        assert caught.value.reason == "quota_spent"
        assert caught.value.resume_at == datetime(2026, 3, 2, tzinfo=UTC)

    assert len(on_a_bench(bench, use, limit=2).starts) == 2


@pytest.mark.parametrize("start", [NOON, datetime(2026, 3, 1, 23, 59, 59, 900_000, tzinfo=UTC)])
def test_a_spent_day_can_be_slept_through(bench: Make, start: datetime) -> None:
    """With `wait_for_quota` the next start is right after midnight."""

    async def use(one: Bench) -> None:
        await one.ask_many(3)

    one = on_a_bench(bench, use, limit=2, wait_for_quota=True, start=start)
    left = (datetime(2026, 3, 2, tzinfo=UTC) - start).total_seconds()
    if start == NOON:
        assert one.starts[2][0] == pytest.approx(left)
        assert [(e.reason, e.seconds) for e in one.seen.of(Paused)] == [
            ("quota_spent", pytest.approx(left - 2 * GAP, abs=1e-3))
        ]
    assert min(one.gaps) >= GAP
    assert one.names == [0, 1, 2]


def test_a_jump_of_the_wall_clock_is_seen(bench: Make) -> None:
    """The sleep to midnight looks at the wall: a suspended machine does not oversleep."""

    async def use(one: Bench) -> None:
        async with anyio.create_task_group() as group:
            for name in range(2):
                group.start_soon(one.ask, name)
            await anyio.sleep(100)
            one.clock.start += timedelta(hours=13)

    one = on_a_bench(bench, use, limit=1, wait_for_quota=True)
    assert 100 < one.starts[1][0] <= 130 + GAP


def test_the_apis_word_on_the_day_is_believed_until_the_reset(bench: Make) -> None:
    """Whatever our own count says; after midnight it is asked again."""

    async def use(one: Bench) -> None:
        await one.ask()
        one.pacer.day_spent()
        with pytest.raises(StopRun) as caught:
            await one.ask()
        assert caught.value.reason == "quota_spent"
        assert one.ledger.used_today() == 1
        one.clock.start += timedelta(days=1)
        await one.ask()

    assert len(on_a_bench(bench, use).starts) == 2


@pytest.mark.parametrize("rate", [0.0, RATE])
def test_on_a_day_that_the_api_called_spent_a_later_run_asks_alone(
    bench: Make, rate: float
) -> None:
    """Its first request has an answer before another one starts."""

    async def use(one: Bench) -> None:
        await one.ask()
        one.pacer.day_spent()
        await anyio.sleep(1)
        assert one.ledger.claim(0.0) == Granted(2, doubtful=True)
        later = Pacer(one.ledger, StopSignal(), rate=rate, max_wait=60, clock=one.clock)
        started: list[int] = []

        async def ask() -> None:
            started.append(await later.slot())

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask)
            await anyio.sleep(20)
            assert len(started) == 1
            later.ended()
        assert len(started) == 3

    on_a_bench(bench, use)


@pytest.mark.parametrize(("minutes", "wait"), [(0.5, 1.0), (1.0, 1.0), (10.0, 10.0), (14.9, 14.9)])
def test_just_after_midnight_the_api_may_still_be_in_the_day_before(
    bench: Make, minutes: float, wait: float
) -> None:
    """Spent within a quarter of an hour: asked again after a minute, later after as long again."""

    async def use(one: Bench) -> None:
        one.pacer.day_spent()
        with pytest.raises(StopRun) as caught:
            await one.ask()
        assert caught.value.resume_at == one.clock.now() + timedelta(minutes=wait)

    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    on_a_bench(bench, use, start=midnight + timedelta(minutes=minutes))


@pytest.mark.parametrize("rate", [0.0, RATE])
def test_a_closed_gate_lets_only_urgent_requests_start(bench: Make, rate: float) -> None:
    """With and without a pace; the others start when it opens, in order."""

    async def use(one: Bench) -> None:
        async with anyio.create_task_group() as group:
            with one.pacer.closed():
                group.start_soon(one.ask, 1)
                group.start_soon(one.ask, 2)
                await anyio.sleep(5)
                await one.pacer.slot(urgent=True)
                assert one.starts == []
                assert "2 waiting, closed" in repr(one.pacer)
        assert one.names == [1, 2]

    on_a_bench(bench, use, rate=rate)


def test_a_pacer_tells_why_nothing_starts(bench: Make) -> None:
    """Its repr shows the gap, the hold and who waits."""

    async def use(one: Bench) -> None:
        one.pacer.hold(12, "throttled")
        async with anyio.create_task_group() as group:
            group.start_soon(one.ask)
            await anyio.sleep(2)
            assert repr(one.pacer) == "<Pacer gap 0.25 s, held 10 s, 1 waiting>"

    on_a_bench(bench, use)


def test_so_many_requests_and_no_more(bench: Make) -> None:
    """`max_requests` starts are given, to whomever; then the run stops and may go on at once."""

    async def use(one: Bench) -> None:
        for _ in range(3):
            await one.ask()
        for _ in range(2):
            with pytest.raises(StopRun) as caught:
                await one.ask()
            assert caught.value.reason == "max_requests"
            assert caught.value.resume_at == one.clock.now()
        assert one.ledger.used_today() == 3

    on_a_bench(bench, use, max_requests=3)


def test_an_urgent_start_may_be_the_last(bench: Make) -> None:
    """It is counted as well, also for a request that had looked before it and slept meanwhile."""

    async def use(one: Bench) -> None:
        await one.ask()
        async with anyio.create_task_group() as group:

            async def refused() -> None:
                with pytest.raises(StopRun) as caught:
                    await one.ask()
                assert caught.value.reason == "max_requests"

            async def retry_after_refusal() -> None:
                await one.pacer.slot(urgent=True)

            group.start_soon(retry_after_refusal)
            group.start_soon(refused)
        for _ in range(2):
            with pytest.raises(StopRun):
                await one.ask()
        assert one.ledger.used_today() == 2

    on_a_bench(bench, use, max_requests=2)


def test_our_own_spacing_is_not_an_over_long_wait(bench: Make) -> None:
    """`max_wait` bounds what the API asks for, not what we asked for ourselves."""

    async def use(one: Bench) -> None:
        before = Bench(one.path, {"rate": 0.002})
        await before.ask()
        before.ledger.close()
        await one.ask()
        assert one.clock.monotonic() == pytest.approx(500.0)

    on_a_bench(bench, use, rate=0.002, max_wait=1.0)


def test_a_ledger_that_is_held_is_not_an_over_long_wait(bench: Make) -> None:
    """Whatever `max_wait` is: another run has it for a moment, and then the start comes."""

    async def use(one: Bench) -> None:
        with one.path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            async with anyio.create_task_group() as group:
                group.start_soon(one.ask)
                await anyio.sleep(1)
                assert one.starts == []
                other.close()
        assert len(one.starts) == 1

    on_a_bench(bench, use, rate=0.0, max_wait=0.0)


def test_the_order_to_stop_reaches_every_waiter(bench: Make) -> None:
    """At the head of the queue or behind it: no request starts after the order."""
    stopped: list[float] = []

    async def use(one: Bench) -> None:
        async def waiter() -> None:
            with pytest.raises(StopRun):
                await one.ask()
            stopped.append(one.clock.monotonic())

        one.pacer.hold(100, "throttled")
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(waiter)
            await anyio.sleep(1)
            one.stop.request(StopRun("SIGTERM", "stopped"))

    assert on_a_bench(bench, use).starts == []
    assert stopped == [1.0] * 3


# -- the property ------------------------------------------------------------------------------

seconds = st.floats(0, 3, allow_subnormal=False)
actions = st.one_of(
    st.tuples(st.just("arrive"), st.integers(1, 6)),
    st.tuples(st.just("cancel"), st.integers(0, 60)),
    st.tuples(st.just("idle"), seconds),
    st.tuples(st.just("hold"), seconds),
    st.tuples(st.just("throttle"), seconds | st.none()),
    st.tuples(st.just("succeed"), st.just(0)),
    st.tuples(st.just("block"), st.floats(0, 1)),
)


class Play:
    """Carries out a script of actions on a pacer, and notes what should hold of the starts."""

    def __init__(self, one: Bench) -> None:
        self.one = one
        self.scopes: list[anyio.CancelScope] = []
        self.cancelled: set[int] = set()
        self.holds: list[tuple[float, float]] = []

    async def run(self, steps: list[tuple[str, Any]]) -> None:
        """All steps, then all that still wait."""
        async with anyio.create_task_group() as group:
            self.group = group
            for action, value in steps:
                await getattr(self, action)(value)

    async def waiter(self, name: int, scope: anyio.CancelScope) -> None:
        """One that asks for a start."""
        with scope:
            await self.one.ask(name)

    async def arrive(self, count: int) -> None:
        """So many ask, in order."""
        for _ in range(count):
            self.scopes.append(anyio.CancelScope())
            self.group.start_soon(self.waiter, len(self.scopes) - 1, self.scopes[-1])
        await anyio.lowlevel.checkpoint()

    async def cancel(self, name: int) -> None:
        """One of them gives up."""
        if name < len(self.scopes):
            if name not in self.one.names:
                self.cancelled.add(name)
            self.scopes[name].cancel()

    async def idle(self, seconds: float) -> None:
        """Time passes."""
        await anyio.sleep(seconds)

    async def block(self, seconds: float) -> None:
        """Time passes and no task runs."""
        block(seconds)

    async def hold(self, seconds: float) -> None:
        """A hold is ordered."""
        self.one.pacer.hold(seconds, "throttled")
        self.note(seconds)

    async def throttle(self, retry_after: float | None) -> None:
        """A request is refused as too fast."""
        answer = Throttled("too fast", retry_after=retry_after)
        throttled(self.one, answer, self.one.clock.monotonic())
        self.note(answer.held)

    async def succeed(self, _: int) -> None:
        """A request went well."""
        self.one.pacer.succeeded(sent=self.one.clock.monotonic())

    def note(self, seconds: float) -> None:
        """Nothing may start from now on for so long."""
        now = self.one.clock.monotonic()
        self.holds.append((now, now + seconds))


@given(
    st.lists(actions, max_size=25),
    st.sampled_from([4.0, 3.3, 1 / 0.3, 1.0, 40.0, 7.0]),
    st.floats(0, 1, exclude_max=True),
)
def test_no_burst_no_overtaking_no_start_in_a_hold(
    steps: list[tuple[str, Any]], rate: float, jitter: float
) -> None:
    """Any mix of arrivals, cancels, idling, blocked loops, throttles and holds: no two starts
    nearer than the gap, strictly first come first served, and nothing starts during a hold.
    """

    async def main() -> Play:
        options = {"rate": rate, "max_wait": 1e6, "jitter": lambda: jitter}
        play = Play(Bench(Path(folder) / "key.json", options))
        await play.run(steps)
        play.one.ledger.close()
        return play

    with tempfile.TemporaryDirectory() as folder:
        play = virtually(main)
    starts, names = play.one.starts, play.one.names
    assert all(gap >= 1 / rate - 1e-9 for gap in play.one.gaps)
    assert names == sorted(names)
    assert set(range(len(play.scopes))) - set(names) <= play.cancelled
    for begin, end in play.holds:
        assert not [at for at, _ in starts if begin < at < end - 1e-9]


# -- permits -----------------------------------------------------------------------------------


def test_permits_go_to_the_most_urgent_then_to_the_first() -> None:
    """Lowest priority first; among equals in the order of arrival; never more than there are."""
    order: list[tuple[int, int]] = []
    under_way = peak = 0

    async def main() -> None:
        permits = Permits(2)

        async def work(priority: int, name: int) -> None:
            nonlocal under_way, peak
            await permits.acquire(priority)
            order.append((priority, name))
            under_way += 1
            peak = max(peak, under_way)
            await anyio.sleep(1)
            under_way -= 1
            permits.release()

        async with anyio.create_task_group() as group:
            for name, priority in enumerate([5, 5, 3, 9, 3, -1, 0]):
                group.start_soon(work, priority, name)

    virtually(main)
    assert order == [(5, 0), (5, 1), (-1, 5), (0, 6), (3, 2), (3, 4), (9, 3)]
    assert peak == 2


@pytest.mark.parametrize(("priority", "first"), [(1, "again"), (2, "patient"), (3, "patient")])
def test_who_gives_a_permit_back_may_ask_again_in_the_same_turn(priority: int, first: str) -> None:
    """The next page of the same campaign competes with those who wait already, and wins when it is
    more urgent; it waits behind its equals.
    """
    got: list[str] = []

    async def main() -> None:
        permits = Permits(1)

        async def ask(name: str, priority: int) -> None:
            await permits.acquire(priority)
            got.append(name)
            await anyio.sleep(1)
            permits.release()

        await permits.acquire(0)
        async with anyio.create_task_group() as group:
            group.start_soon(ask, "patient", 2)
            await anyio.sleep(1)
            permits.release()
            await ask("again", priority)

    virtually(main)
    assert (got[0], len(got)) == (first, 2)


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_cancelled_waiter_loses_no_permit(handed_over: bool) -> None:
    """Whether it was still waiting, or had just been handed one: the next in line gets it."""
    got: list[str] = []

    async def main() -> None:
        permits = Permits(1)

        async def ask(name: str, priority: int) -> None:
            await permits.acquire(priority)
            got.append(name)

        await permits.acquire(0)
        # asyncio's own tasks: anyio does not cancel who is about to be resumed.
        given_up = asyncio.create_task(ask("given up", 0))
        patient = asyncio.create_task(ask("patient", 1))
        await asyncio.sleep(1)
        if handed_over:
            permits.release()
            await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(1)
        if not handed_over:
            permits.release()
        await patient
        assert given_up.cancelled()
        permits.release()
        await permits.acquire(0)

    virtually(main)
    assert got == ["patient"]


def test_no_more_requests_are_under_way_than_there_are_permits(bench: Make) -> None:
    """Also while the pace would allow more; a permit is given back whatever came of it."""

    async def use(one: Bench) -> None:
        inner = FakeFetcher(["page", ServerTrouble("x"), *["page"] * 8], delay=1.0)
        sender = ThrottledSender(inner, one.pacer, Permits(3), clock=one.clock)

        async def fetch() -> None:
            with suppress(ServerTrouble):
                await sender.send(make_request())

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(fetch)
        assert (inner.peak, len(inner.calls)) == (3, 10)

    on_a_bench(bench, use, rate=0.0)


# -- the layer ---------------------------------------------------------------------------------


def throttled_sender(one: Bench, *script: Any) -> ThrottledSender:
    """A fetcher of a script behind the bench's pacer."""
    return ThrottledSender(
        FakeFetcher(script), one.pacer, Permits(9), clock=one.clock, emit=one.seen
    )


def test_a_request_is_announced_with_the_days_count(bench: Make) -> None:
    """Once it has its start; what comes of it is announced by the layer that reads it."""

    async def use(one: Bench) -> None:
        assert await throttled_sender(one, "page").send(make_request(number=3)) == "page"

    assert on_a_bench(bench, use).seen.events == [
        RequestSent(target=TARGET, page=3, attempt=1, used_today=1)
    ]


@pytest.mark.parametrize("outcome", ["page", ServerTrouble("x", status=503)])
def test_a_page_keeps_its_permit_until_it_is_committed(bench: Make, outcome: Any) -> None:
    """So a kill costs no more requests than there are permits; a failure saves nothing."""

    async def use(one: Bench) -> None:
        commits: list[Callable[[], None]] = []
        inner = FakeFetcher([outcome, "second"])
        sender = ThrottledSender(
            inner, one.pacer, Permits(1), clock=one.clock, call_after_commit=commits.append
        )
        with suppress(ServerTrouble):
            await sender.send(make_request())
        async with anyio.create_task_group() as group:
            group.start_soon(sender.send, make_request(number=2))
            await anyio.sleep(60)
            saved = outcome == "page"
            assert len(inner.calls) == (1 if saved else 2)
            if saved:
                commits.pop()()

    on_a_bench(bench, use)


def test_a_throttle_makes_the_next_request_wait(bench: Make) -> None:
    """The layer tells the pacer, and the error carries the hold."""

    async def use(one: Bench) -> None:
        sender = throttled_sender(one, Throttled("x", retry_after=9.0), "page")
        with pytest.raises(Throttled) as caught:
            await sender.send(make_request())
        assert caught.value.held == 9.0
        await sender.send(make_request())
        assert one.clock.monotonic() == pytest.approx(9.0)

    on_a_bench(bench, use)


def test_a_spent_day_lets_no_other_request_out(bench: Make) -> None:
    """The layer tells the pacer: the next one is not sent."""

    async def use(one: Bench) -> None:
        inner = FakeFetcher([QuotaExceeded("x")])
        sender = ThrottledSender(inner, one.pacer, Permits(9), clock=one.clock)
        with pytest.raises(QuotaExceeded):
            await sender.send(make_request())
        with pytest.raises(StopRun):
            await sender.send(make_request())
        assert len(inner.calls) == 1

    on_a_bench(bench, use)


def test_the_claim_says_not_yet_only_for_others(bench: Make) -> None:
    """A pacer alone on its ledger never has to wait for it: the two agree on the spacing."""

    async def use(one: Bench) -> None:
        real = one.ledger.claim

        def claim(gap: float) -> Any:
            answer = real(gap)
            assert not isinstance(answer, NotYet)
            return answer

        one.ledger.claim = claim  # type: ignore[method-assign]
        await one.ask_many(50)

    on_a_bench(bench, use)
