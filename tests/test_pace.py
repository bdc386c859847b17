"""The pace as a server sees it: the sandbox is the judge, and its log the evidence.

Time is virtual (`fakes.virtually`) and everything else is real: the whole program on one side, the
sandbox on the other, sockets between them. Nothing is scaled, then: two thousand requests at the
default pace, one-way jitter of 200 ms and stalls of 5 s are those very figures, judged by the
vendor's own limit of 4 in any one second. The sandbox draws each request's jitter from its seed,
so a test comes out the same every time, however busy the machine is.

Where the clock itself is on trial (a loop that is really blocked; the makespan) it is the real one.
"""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from crashlab import Served
from fakes import NOON, LoopClock, Seen, block, virtually

from harvester import HarvestConfig, HarvestReport
from harvester.events import Event, PaceChanged, Paused, RequestSent, RequestSucceeded
from harvester.run import Harvester
from harvester.runtime import Clock
from harvester.sandbox import Hit, Sandbox, SandboxSettings, World

DEFAULT = 1 / 3.3  # the default spacing (s)
LIMIT = 4  # what the vendor allows a second
JUDGES = ("bucket", "window", "sliding")
SHAPES = {"one-page campaigns": (200, 200), "one giant": (9, 200), "heavy tail": (60, 200)}
_ROUNDING = 1e-9
pytestmark = pytest.mark.usefixtures("instant_threads")


@dataclass
class Bench:
    """A sandbox and the harvests made of it, both on the running loop's clock."""

    sandbox: Sandbox
    root: Path
    seen: Seen = field(default_factory=Seen)
    starts: list[float] = field(default_factory=list)
    clock: Clock | LoopClock = field(default_factory=LoopClock)

    def observe(self, event: Event) -> None:
        self.seen(event)
        if isinstance(event, RequestSent):
            self.starts.append(self.clock.monotonic())

    def config(self, **settings: Any) -> HarvestConfig:
        plain: dict[str, Any] = {
            "output": self.root / "out",
            "state_dir": self.root / "state",
            "base_url": self.sandbox.base_url,
            "page_size": 2,
            "api_key": "sandbox-key",
            "access_token": "sandbox-token",
        }
        return HarvestConfig(**plain | settings)

    async def harvest(
        self, *, also: Callable[[Event], object] = lambda event: None, **settings: Any
    ) -> HarvestReport:
        """One run over every campaign; `also` is shown each event as well."""

        def observe(event: Event) -> None:
            self.observe(event)
            also(event)

        harvester = Harvester(self.config(**settings), clock=self.clock, observe=observe)  # type: ignore[arg-type]
        return await harvester.run(self.sandbox.world.campaign_ids)

    @property
    def log(self) -> list[Hit]:
        return self.sandbox.log

    @property
    def arrivals(self) -> list[float]:
        return [hit.at for hit in self.log]

    @property
    def throttled(self) -> list[Hit]:
        """What the server refused as too fast."""
        return [hit for hit in self.log if hit.throttled or "throttle" in (hit.fault or "")]


def on_a_bench(
    root: Path, trial: Callable[[Bench], Awaitable[None]], clock: Any = None, **sandbox: Any
) -> Bench:
    """Make the trial in virtual time, with a sandbox of these settings."""
    clock = clock or LoopClock()

    async def main() -> Bench:
        plain: dict[str, Any] = {
            "campaigns": 60,
            "pages": 200,
            "rows_per_page": 2,
            "clock": clock.monotonic,
            "wall": lambda: clock.now().timestamp(),
        }
        async with Sandbox(SandboxSettings(**plain | sandbox)) as served:
            bench = Bench(served, root, clock=clock)
            await trial(bench)
        return bench

    return virtually(main)


def gaps(at: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(at)]


def fullest_second(at: Sequence[float]) -> int:
    """The most arrivals in any one second, both ends of which are looked at."""
    at, first, most = sorted(at), 0, 0
    for last, moment in enumerate(at):
        while at[first] <= moment - 1.0 + _ROUNDING:
            first += 1
        most = max(most, last - first + 1)
    return most


def assert_paced(bench: Bench, *, spacing: float = DEFAULT, limit: int = LIMIT) -> None:
    """No request was refused, no second was too full, and no two starts were too near."""
    assert bench.throttled == []
    assert fullest_second(bench.arrivals) <= limit
    assert min(gaps(bench.starts)) >= spacing - _ROUNDING
    assert len(bench.starts) == len(bench.log)


# -- no window is ever too full ----------------------------------------------------------------


@pytest.mark.parametrize(
    "jitter", [0.2, *(pytest.param(less, marks=pytest.mark.long) for less in (0.0, 0.05))]
)
def test_no_second_is_too_full_at_the_default_pace(root: Path, jitter: float) -> None:
    """2,000 requests at the default pace draw no refusal with up to 200 ms of network jitter."""

    async def trial(bench: Bench) -> None:
        report = await bench.harvest()
        assert report.exit_code == 0
        assert 2000 <= report.requests.sent <= 2050  # equal events at an edge: once more
        assert report.requests.throttled == report.requests.retried == 0

    bench = on_a_bench(root, trial, campaigns=600, pages=2000, jitter=jitter, rate_limit=LIMIT)
    assert_paced(bench)


def test_the_judge_refuses_what_the_margin_does_not_cover(root: Path) -> None:
    """More jitter than the default pace has room for does draw refusals, and all ends well."""

    async def trial(bench: Bench) -> None:
        report = await bench.harvest()
        assert report.exit_code == 0
        assert report.requests.throttled == len(bench.throttled) > 0

    bench = on_a_bench(root, trial, pages=600, jitter=0.4, rate_limit=LIMIT)
    assert fullest_second(bench.arrivals) > LIMIT


@pytest.mark.parametrize("concurrency", [1, 2, 16, 50])
def test_stalls_of_five_seconds_are_followed_by_no_burst(root: Path, concurrency: int) -> None:
    """However few or many requests may be under way, those let go by a stall start one by one."""

    async def trial(bench: Bench) -> None:
        report = await bench.harvest(concurrency=concurrency)
        assert report.exit_code == 0

    bench = on_a_bench(
        root,
        trial,
        faults={"stall": 0.3},
        stall_seconds=5.0,
        jitter=0.2,
        rate_limit=LIMIT,
    )
    assert sum(hit.fault == "stall" for hit in bench.log) > 40
    assert_paced(bench)


def test_a_client_that_stands_still_for_two_seconds_makes_up_for_nothing(root: Path) -> None:
    """After each of ten standstills, with answers and timers overdue, starts are spaced as ever."""

    async def trial(bench: Bench) -> None:
        def stand_still(event: Event) -> None:
            if isinstance(event, RequestSucceeded) and len(bench.starts) % 20 == 10:
                block(2.0)

        report = await bench.harvest(also=stand_still)
        assert report.exit_code == 0

    bench = on_a_bench(root, trial, latency=1.0, rate_limit=LIMIT)
    assert sum(gap >= 1.9 for gap in gaps(bench.starts)) == 10
    assert_paced(bench)


def test_a_loop_that_is_really_blocked_brings_no_start_nearer(root: Path) -> None:
    """A callback that sleeps through many spacings, on real clocks, is followed by no burst.

    Everything runs four times as fast, the server's second included, so 2 s are half a second
    here; the server has a thread of its own and goes on meanwhile.
    """
    scale = 4.0
    settings = SandboxSettings(
        campaigns=8,
        pages=24,
        rows_per_page=2,
        rate_limit=LIMIT,
        clock=lambda: time.monotonic() * scale,
    )
    with Served(Sandbox(settings)) as served:
        bench = Bench(served.sandbox, root, clock=Clock())

        def stand_still(event: Event) -> None:
            if isinstance(event, RequestSucceeded) and len(bench.starts) == 12:
                time.sleep(2.0 / scale)

        report = asyncio.run(bench.harvest(also=stand_still, rate=3.3 * scale))
        assert report.exit_code == 0
        assert bench.throttled == []
        # A burst has no gaps at all. A start is seen when its event is, which a busy machine may
        # delay by some ms: what the spacing is exactly, virtual time shows.
        assert min(gaps(bench.starts)) >= DEFAULT / scale / 2
        assert max(gaps(bench.starts)) >= 2.0 / scale


# -- no time is lost ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(("rate", "limit"), [(3.3, LIMIT), (40.0, 40)])
def test_no_start_is_wasted_and_none_refused(
    root: Path, rate: float, limit: int, judge: str, shape: str
) -> None:
    """Many small campaigns or one giant, whatever the judge: a start is made at every spacing."""

    async def trial(bench: Bench) -> None:
        report = await bench.harvest(rate=rate)
        assert (report.exit_code, report.requests.throttled) == (0, 0)

    campaigns, pages = SHAPES[shape]
    bench = on_a_bench(
        root,
        trial,
        campaigns=campaigns,
        pages=pages,
        limit_kind=judge,
        rate_limit=limit,
        latency=min(0.1, 0.5 / rate),
    )
    assert_paced(bench, spacing=1 / rate, limit=limit)
    assert makespan(bench.arrivals, rate) <= 1.001


def makespan(at: Sequence[float], rate: float) -> float:
    """From the first to the last arrival, over what the spacing alone would take."""
    return (at[-1] - at[0]) * rate / (len(at) - 1)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(
    ("rate", "limit", "most", "campaigns", "pages"),
    [
        (3.3, LIMIT, 1.02, 12, 12),
        (3.3, LIMIT, 1.02, 1, 12),
        (40.0, 40, 1.08, 400, 400),
        (40.0, 40, 1.08, 9, 400),
        (40.0, 40, 1.08, 2_000, 2_400),
    ],
)
def test_timers_cost_little(
    root: Path, rate: float, limit: int, most: float, campaigns: int, pages: int, judge: str
) -> None:
    """On real clocks a whole harvest takes hardly longer than its spacing, and is not refused."""
    settings = SandboxSettings(
        campaigns=campaigns, pages=pages, rows_per_page=2, limit_kind=judge, rate_limit=limit
    )
    with Served(Sandbox(settings)) as served:
        bench = Bench(served.sandbox, root, clock=Clock())
        report = asyncio.run(bench.harvest(rate=rate))
        ratio = makespan(bench.arrivals, rate)
        print(f"{rate:g}/s, {judge}, {pages} pages of {campaigns}: makespan {ratio:.4f}")
        assert report.exit_code == 0
        assert bench.throttled == []
        assert ratio <= most


# -- the pace eases and recovers ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["throttle", "throttle429"])
def test_the_pace_eases_after_throttles_and_recovers(root: Path, kind: str) -> None:
    """Starts lie wider apart after a throttle, and as asked for again some hundred pages later."""

    async def trial(bench: Bench) -> None:
        report = await bench.harvest(concurrency=1)
        assert report.exit_code == 0
        assert report.requests.throttled == report.requests.retried == len(bench.throttled) == 3

    pinned = {(None, None): "ok", (None, 4): [kind], (None, 60): [kind, kind]}
    bench = on_a_bench(root, trial, campaigns=1, pages=400, pinned=pinned)
    first, second, third = (bench.log.index(hit) for hit in bench.throttled)
    between = gaps(bench.arrivals)
    assert min(between[first], between[second], between[third]) >= 1.0  # the holds
    assert between[first + 1] == pytest.approx(1.5 * DEFAULT, rel=0.01)
    assert between[third + 1] > 2.0 * DEFAULT  # two more, with the first not yet undone
    assert between[first + 1 : second] == sorted(between[first + 1 : second], reverse=True)
    assert between[-100:] == pytest.approx([DEFAULT] * 100, rel=1e-3)
    changes = bench.seen.of(PaceChanged)
    assert changes[0].gap == pytest.approx(1.5 * DEFAULT)
    assert changes[-1].gap == pytest.approx(DEFAULT)


def test_the_servers_throttles_are_the_summarys(root: Path) -> None:
    """With no pace at all the program finds the server's own, and counts each refusal."""

    async def trial(bench: Bench) -> None:
        report = await bench.harvest(rate=0)
        assert report.exit_code == 0
        refused = len(bench.throttled)
        assert report.requests.throttled == report.requests.retried == refused
        assert report.requests.sent == len(bench.log)
        assert 200 <= report.requests.sent - refused <= 205  # equal events at an edge: once more
        # The pace has widened: far fewer refusals than requests.
        assert 0 < refused < 200

    on_a_bench(root, trial, rate_limit=40, latency=0.02)


# -- holds -------------------------------------------------------------------------------------


def http_date(seconds: float) -> str:
    """So many seconds from now; the server's own `Date` is what it is compared with."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def in_seconds(seconds: float) -> str:
    return f"{seconds:.0f}"


FORMS = pytest.mark.parametrize("form", [in_seconds, http_date])
KINDS = pytest.mark.parametrize("kind", ["throttle", "throttle429"])
_DATE_SLACK = 30.0  # the date is written before the test begins, and in whole seconds


def once(kind: str, *, campaign: int = 20) -> dict[str, Any]:
    """Sandbox settings: the first page of one campaign is answered so, the first time."""
    account = {"campaigns": 60, "pages": 200, "rows_per_page": 2}
    campaign_id = World(SandboxSettings(**account)).campaign_ids[campaign]  # type: ignore[arg-type]
    return {**account, "pinned": {(campaign_id, 1): [kind]}}


@FORMS
@KINDS
def test_retry_after_holds_every_walker(
    root: Path, kind: str, form: Callable[[float], str]
) -> None:
    """From the moment its answer is there until the time is over, the server sees no request."""

    async def trial(bench: Bench) -> None:
        report = await bench.harvest()
        assert (report.exit_code, report.requests.throttled) == (0, 1)

    bench = on_a_bench(root, trial, latency=0.5, retry_after=form(90), **once(kind))
    [refused] = bench.throttled
    answered = refused.at + 0.5
    held = min(at for at in bench.arrivals if at > answered) - answered
    assert held >= 90 - (_DATE_SLACK if form is http_date else 0)
    assert held <= 91 + DEFAULT
    [line] = lines(bench, "retries.ndjson")
    assert line["wait_source"] == "retry-after"
    assert line["wait_s"] == pytest.approx(held, abs=DEFAULT)


def lines(bench: Bench, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bench.root / "out" / name).read_text().splitlines()]


@FORMS
@KINDS
def test_a_wait_over_max_wait_ends_the_run(
    root: Path, kind: str, form: Callable[[float], str]
) -> None:
    """Asked to wait longer than `max_wait`, a run ends at once with the time to go on. It does not
    bind the next run: the API tells that one itself.
    """

    async def trial(bench: Bench) -> None:
        report = await bench.harvest(max_wait=300.0)
        [refused] = bench.throttled
        ended, due = bench.clock.monotonic(), bench.log[bench.log.index(refused)].at + 900
        assert (report.exit_code, report.reason) == (75, "throttled")
        assert report.resume_at is not None
        slack = _DATE_SLACK if form is http_date else 2.0
        assert abs((report.resume_at - moment(due)).total_seconds()) <= slack
        assert ended - refused.at <= 1.0  # no silent sleep
        assert bench.log[-1].at <= refused.at + 0.5

        assert (await bench.harvest(max_wait=300.0)).exit_code == 0

    on_a_bench(root, trial, latency=0.5, retry_after=form(900), **once(kind))


def moment(at: float) -> datetime:
    """The wall clock when the loop's clock says `at`."""
    return NOON + timedelta(seconds=at)


def test_a_hold_outlives_the_run(root: Path) -> None:
    """A run that begins during the hold of an earlier one waits for its end."""

    async def trial(bench: Bench) -> None:
        first = await bench.harvest(max_duration=30.0)
        [refused] = bench.throttled
        assert (first.exit_code, first.reason) == (75, "max_duration")
        assert bench.clock.monotonic() < refused.at + 60
        assert (await bench.harvest()).exit_code == 0
        assert min(at for at in bench.arrivals if at > refused.at) >= refused.at + 120

    on_a_bench(root, trial, retry_after="120", **once("throttle"))


# -- the day -----------------------------------------------------------------------------------


class Jumping(LoopClock):
    """A loop's clock whose wall hand can be moved, as by a suspend or by an administrator."""

    def jump(self, seconds: float) -> None:
        """Only the wall clock moves."""
        self.start += timedelta(seconds=seconds)


def days(bench: Bench) -> dict[str, int]:
    """How many requests the server has had on each day."""
    return Counter(f"{datetime.fromtimestamp(hit.wall, UTC):%d %H}" for hit in bench.log)


def test_a_run_can_sleep_until_the_reset(root: Path) -> None:
    """With `wait_for_quota` one run takes as many days as the quota asks, and goes on at 00:00."""

    async def trial(bench: Bench) -> None:
        report = await bench.harvest(daily_quota=80, wait_for_quota=True)
        assert report.exit_code == 0
        assert 200 <= report.requests.sent <= 205  # equal events at an edge: once more
        assert report.quota.used_today == report.requests.sent - 160

    bench = on_a_bench(root, trial, quota=80)
    assert days(bench) == {"01 12": 80, "02 00": 80, "03 00": 42}
    assert {hit.status for hit in bench.log} == {200}
    midnights = [pause.until for pause in bench.seen.of(Paused)]
    assert midnights == [NOON + timedelta(hours=12), NOON + timedelta(hours=36)]
    for midnight in midnights:
        after = min(hit.wall for hit in bench.log if hit.wall >= midnight.timestamp())
        assert after - midnight.timestamp() <= 1.0


def test_a_run_can_sleep_until_the_reset_that_the_api_asks_for(root: Path) -> None:
    """Where the API says that the day is spent, every walker sleeps until the reset."""

    async def trial(bench: Bench) -> None:
        report = await bench.harvest(rate=0.05, daily_quota=0, wait_for_quota=True)
        assert report.exit_code == 0

    bench = on_a_bench(root, trial, quota=80)
    refused = [hit for hit in bench.log if hit.throttled]
    assert len(refused) == 2
    assert days(bench) == {"01 12": 81, "02 00": 81, "03 00": 42}


@pytest.mark.parametrize("hours", [6, 12])
def test_a_machine_that_was_asleep_goes_on_when_it_wakes(root: Path, hours: int) -> None:
    """The reset is looked for on the wall clock, so a suspend does not make the sleep longer."""
    clock = Jumping()

    async def trial(bench: Bench) -> None:
        def suspend(event: Event) -> None:
            if isinstance(event, Paused):
                asyncio.get_running_loop().call_later(60, clock.jump, hours * 3600)

        report = await bench.harvest(also=suspend, daily_quota=120, wait_for_quota=True)
        assert report.exit_code == 0

    bench = on_a_bench(root, trial, clock=clock)
    slept = max(gaps(bench.arrivals))
    assert (12 - hours) * 3600 <= slept + 120 * DEFAULT <= (12 - hours) * 3600 + 120
    assert min(hit.wall for hit in bench.log[120:]) >= (NOON + timedelta(hours=12)).timestamp()


@pytest.mark.parametrize("behind", [2.0, 60.0])
def test_a_server_whose_clock_is_behind_costs_no_day(root: Path, behind: float) -> None:
    """Where the day is spent just after our midnight, a run asks again soon, not a day later."""

    async def trial(bench: Bench) -> None:
        report = await bench.harvest(daily_quota=150, wait_for_quota=True)
        assert report.exit_code == 0

    clock = LoopClock()
    bench = on_a_bench(
        root, trial, clock=clock, quota=150, wall=lambda: clock.now().timestamp() - behind
    )
    refused = [hit for hit in bench.log if hit.throttled]
    assert len(refused) <= 5
    midnight = NOON + timedelta(hours=12)
    assert bench.log[-1].wall < (midnight + timedelta(hours=1)).timestamp()
