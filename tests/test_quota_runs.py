"""The day's quota over whole runs: kills, restarts, several days, two runs of one key at once.

The day is moved by hand: the runs get a clock that is so many days ahead, and the server, which
has a quota of its own, the same. Run as a program, this module is one such run in a process of its
own, for others to kill.
"""

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from crashlab import Home, Served, charged, environment, reference, settings_of, until
from fakes import NOON, LoopClock, Seen, virtually
from faultserver import Answer, Question, World, framed, refusal, serving

from harvester import HarvestConfig, HarvestReport
from harvester.events import Event, RequestFailed, RequestSent
from harvester.request.quota_record import newest
from harvester.run import Harvester
from harvester.runtime import Clock
from harvester.sandbox import Hit, Sandbox, SandboxSettings

QUOTA = 250
PAGES = 1_000
ROWS = 2
WORLD: dict[str, Any] = {"campaigns": 100, "pages": PAGES, "rows_per_page": ROWS, "quota": QUOTA}
pytestmark = pytest.mark.usefixtures("instant_threads")


@dataclass(frozen=True, slots=True)
class Shifted(Clock):
    """The system's clock, its wall hand put to a moment when the clock is made."""

    ahead: timedelta = timedelta()

    @classmethod
    def to(cls, moment: datetime) -> "Shifted":
        return cls(moment - datetime.now(UTC))

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def with_quota(sandbox: Sandbox, home: Home) -> dict[str, Any]:
    """A harvest of the sandbox, as fast as it goes, with the quota."""
    return settings_of(sandbox, home.path, page_size=ROWS, daily_quota=QUOTA)


def seen_by_day(hits: Sequence[Hit]) -> Counter[str]:
    """Requests that a server has had, by UTC day."""
    return Counter(datetime.fromtimestamp(hit.wall, UTC).date().isoformat() for hit in hits)


def charged_by_day(home: Home) -> dict[str, int]:
    """What the ledgers say of each UTC day."""
    found: Counter[str] = Counter()
    for path in home.state.glob("*.json"):
        found.update(charged(path))
    return dict(found)


@dataclass
class Days:
    """A sandbox with a quota, its clients' folder, and the day that all of them live in."""

    served: Served
    home: Home
    clock: Shifted
    before: int = 0
    """Requests of earlier days."""

    @property
    def today(self) -> date:
        return self.clock.now().date()

    def hits(self) -> list[Hit]:
        return self.served.hits()

    def seen(self) -> Counter[str]:
        """Requests that the server has had, by day."""
        return seen_by_day(self.hits())

    def seen_today(self) -> int:
        """Cheap: asked for often while a run is under way."""
        return len(self.served.sandbox.log) - self.before

    def next_day(self) -> None:
        """It is noon of the next day."""
        self.before = len(self.hits())
        noon = datetime.combine(self.today, NOON.timetz()) + timedelta(days=1)
        self.clock = Shifted.to(noon)

    def settings(self, **more: Any) -> dict[str, Any]:
        return with_quota(self.served.sandbox, self.home) | more

    def run(self, *, kill_at: int | None = None, **more: Any) -> int:
        """One run in a process of its own, killed once the server has had `kill_at` today."""
        with child(self.clock, self.settings(**more), self.served.sandbox) as process:
            if kill_at is not None:
                until(lambda: process.poll() is not None or self.seen_today() >= kill_at)
                process.send_signal(signal.SIGKILL)
            return process.wait(60)

    def summary(self) -> dict[str, Any]:
        return self.home.summary()

    def charged(self) -> dict[str, int]:
        """What the ledgers say, by day."""
        return charged_by_day(self.home)


@contextmanager
def child(
    clock: Shifted, settings: dict[str, Any], sandbox: Sandbox
) -> Iterator[subprocess.Popen[bytes]]:
    """A run in a process of its own."""
    order = {
        "ahead": clock.ahead.total_seconds(),
        "settings": settings,
        "ids": list(sandbox.world.campaign_ids),
    }
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode())
        process.stdin.close()
        try:
            yield process
        finally:
            process.kill()


def main() -> int:
    """The run that standard input orders."""
    order = json.load(sys.stdin)
    config = HarvestConfig(**order["settings"])
    clock = Shifted(timedelta(seconds=order["ahead"]))
    report = asyncio.run(Harvester(config, clock=clock).run(order["ids"]))
    return report.exit_code


@contextmanager
def days(root: Path, start: datetime = NOON, **settings: Any) -> Iterator[Days]:
    """A world of so many pages with a quota, at `start`."""
    plain: dict[str, Any] = {**WORLD, "wall": lambda: found.clock.now().timestamp()}
    with Served(Sandbox(SandboxSettings(**plain | settings))) as served:
        found = Days(served, Home(root), Shifted.to(start))
        yield found


# -- over days ---------------------------------------------------------------------------------


def test_five_days_of_quota_finish_what_four_cannot(root: Path) -> None:
    """1,000 pages and some failures, 250 requests a day: four runs stop, and the fifth is done."""
    clock = LoopClock()
    settings = SandboxSettings(
        **WORLD,
        faults={"reset": 0.02, "error503": 0.02},
        clock=clock.monotonic,
        wall=lambda: clock.now().timestamp(),
    )

    async def five_days() -> Sandbox:
        async with Sandbox(settings) as sandbox:
            config = HarvestConfig(**with_quota(sandbox, Home(root)))
            for day in range(1, 6):
                harvester = Harvester(config, clock=clock)  # type: ignore[arg-type]
                report = await harvester.run(sandbox.world.campaign_ids)
                summary = Home(root).summary()
                used = report.requests.sent
                assert (
                    report.quota.used_today == used == seen_by_day(sandbox.log)[f"2026-03-0{day}"]
                )
                if day < 5:
                    assert (report.exit_code, report.reason, used) == (75, "quota_spent", QUOTA)
                    assert summary["exit_code"] == 75
                    assert summary["resume_at"] == f"2026-03-0{day + 1}T00:00:00.000Z"
                    await asyncio.sleep(86_400)
            assert (report.exit_code, report.resume_at) == (0, None)
        return sandbox

    sandbox = virtually(five_days)
    assert not any(hit.throttled for hit in sandbox.log)
    assert Home(root).finals() == reference(sandbox, sandbox.world.campaign_ids, ROWS).files


@pytest.mark.timeout(240)
def test_no_day_is_overdrawn_by_runs_that_are_killed(root: Path) -> None:
    """A kill a day, and the server still never sees more than 250 requests of any day."""
    with days(root) as course:
        code, killed = 75, 0
        for day in range(6):
            killed += course.run(kill_at=(60, 155)[day % 2]) == -signal.SIGKILL
            assert course.seen_today() <= QUOTA
            code = course.run()
            if code == 0:
                break
            assert code == 75
            summary = course.summary()
            assert (summary["reason"], summary["exit_code"]) == ("quota_spent", 75)
            tomorrow = course.today + timedelta(days=1)
            assert summary["resume_at"] == f"{tomorrow.isoformat()}T00:00:00.000Z"
            assert summary["quota"]["used_today"] == QUOTA
            course.next_day()
        assert code == 0
        seen, charged = course.seen(), course.charged()
        print(f"{killed} kills; seen {dict(seen)}, charged {charged}")
        assert max(seen.values()) <= QUOTA
        assert len(seen) == 5
        assert killed >= 4
        # A kill can only over-count: by what was charged and not yet on the wire.
        assert all(seen[day] <= used <= QUOTA for day, used in charged.items())
        assert sum(charged.values()) - sum(seen.values()) <= 16 * killed
        # And it costs at most the pages that were in flight.
        assert sum(seen.values()) - PAGES <= 16 * killed
        assert not any(hit.throttled for hit in course.hits())
        sandbox = course.served.sandbox
        expected = reference(sandbox, sandbox.world.campaign_ids, ROWS)
        assert course.home.finals() == expected.files


def test_a_run_over_midnight_starts_the_new_day_at_nothing(root: Path) -> None:
    """Requests belong to the UTC day in which they start."""
    clock = LoopClock(start=datetime(2026, 3, 1, 23, 59, 30, tzinfo=UTC))

    async def harvest() -> tuple[HarvestReport, list[Hit]]:
        settings = SandboxSettings(
            **WORLD | {"pages": 240, "quota": 0}, wall=lambda: clock.now().timestamp()
        )
        async with Sandbox(settings) as sandbox:
            config = HarvestConfig(**with_quota(sandbox, Home(root)) | {"rate": 3.3})
            harvester = Harvester(config, clock=clock)  # type: ignore[arg-type]
            return await harvester.run(sandbox.world.campaign_ids), sandbox.log

    report, hits = virtually(harvest)
    sent = report.requests.sent
    assert report.exit_code == 0
    assert 240 <= sent <= 246  # equal events at an edge: once more
    charged = charged_by_day(Home(root))
    assert charged == seen_by_day(hits)
    assert charged["2026-03-01"] == pytest.approx(30 * 3.3, abs=1)
    assert report.quota.used_today == charged["2026-03-02"] == sent - charged["2026-03-01"]
    assert report.quota.resets_at == datetime(2026, 3, 3, tzinfo=UTC)


# -- what is charged is what is sent -----------------------------------------------------------


def test_charged_is_sent_is_seen(root: Path) -> None:
    """With connections that are dropped, cut, redirected or throttled, nothing goes out unpaid."""
    faults = dict.fromkeys(
        ("reset", "cut", "cut_gzip", "error500", "throttle", "html", "empty", "redirect"), 0.02
    )
    clock, seen = LoopClock(), Seen()

    async def harvest() -> tuple[HarvestReport, list[Hit]]:
        settings = SandboxSettings(
            campaigns=60, pages=400, rows_per_page=ROWS, faults=faults, clock=clock.monotonic
        )
        async with Sandbox(settings) as sandbox:
            config = HarvestConfig(**with_quota(sandbox, Home(root)) | {"daily_quota": 0})
            harvester = Harvester(config, observe=seen, clock=clock)  # type: ignore[arg-type]
            return await harvester.run(sandbox.world.campaign_ids), sandbox.log

    report, hits = virtually(harvest)
    assert {hit.fault for hit in hits} >= faults.keys()
    charged = sum(charged_by_day(Home(root)).values())
    assert charged == len(seen.of(RequestSent)) == report.requests.sent == len(hits)
    assert report.requests.sent == report.requests.ok + len(seen.of(RequestFailed))


# -- the API says that the day is spent --------------------------------------------------------

SPENT = {
    "403": ("403 Forbidden", "mashery.not.authorized.over.ratelimit"),
    "429": ("429 Too Many Requests", "quota_exceeded"),
}


@pytest.mark.parametrize("status", SPENT)
async def test_told_that_the_day_is_spent_no_worker_asks_again(root: Path, status: str) -> None:
    """What is in flight comes in, nothing more goes out, and the run says when it can go on."""
    world, heard = World(pages=20), asyncio.Event()
    line, key = SPENT[status]
    asked: list[Question] = []

    def script(question: Question) -> Answer:
        asked.append(question)
        if len(asked) <= 50:
            return world.honest(question)
        return Answer(framed(refusal(key, "spent"), status=line))

    sent_after: list[Event] = []

    def observe(event: Event) -> None:
        if isinstance(event, RequestFailed):
            assert event.cause == "quota_spent"
            heard.set()
        elif isinstance(event, RequestSent) and heard.is_set():
            sent_after.append(event)

    clock = Shifted.to(NOON)
    async with serving(script) as server:
        config = server.config(root, concurrency=8)
        ids = [str(number) for number in range(1, 41)]
        report = await Harvester(config, clock=clock, observe=observe).run(ids)
        assert sent_after == []
        assert 51 <= len(asked) <= 50 + 8
        assert (report.exit_code, report.reason) == (75, "quota_spent")
        assert report.resume_at == datetime(2026, 3, 2, tzinfo=UTC)
        assert report.pages == 50
        assert report.requests.sent == len(asked)
        summary = json.loads((root / "out" / "summary.json").read_text())
        assert summary["resume_at"] == "2026-03-02T00:00:00.000Z"


# -- two runs at once --------------------------------------------------------------------------


def two_at_once(
    course: Days, *, rate: float, first: dict[str, Any], second: dict[str, Any]
) -> Sequence[int]:
    """Two processes with a directory each; their exit codes."""
    with (
        child(course.clock, course.settings(rate=rate, **first), course.served.sandbox) as one,
        child(course.clock, course.settings(rate=rate, **second), course.served.sandbox) as two,
    ):
        return one.wait(60), two.wait(60)


def test_two_runs_of_one_key_share_one_pace(root: Path) -> None:
    """With an output folder each and one key, two runs together are no faster than one."""
    with days(root, campaigns=10, pages=40, rate_limit=40) as course:
        rate = 33.0
        codes = two_at_once(
            course, rate=rate, first={}, second={"output": str(course.home.path / "second")}
        )
        hits = course.hits()
        assert codes == (0, 0)
        assert 80 <= len(hits) <= 84  # equal events at an edge: once more
        assert not any(hit.throttled for hit in hits)
        # Both were at it at the same time: for a while, a page of each campaign is asked twice.
        assert min(Counter((hit.campaign_id, hit.page) for hit in hits).values()) == 2
        at = [hit.at for hit in hits]
        assert at[-1] - at[0] >= 79 / rate * 0.98
        # An arrival may be late, by what the machine does meanwhile; then its successor seems near.
        near = [later - earlier for earlier, later in itertools.pairwise(at)]
        print(f"nearest {min(near) * 1000:.1f} ms, asked {1000 / rate:.1f} ms")
        assert sorted(near)[4] >= 0.8 / rate


def test_two_runs_of_one_key_share_one_quota(root: Path) -> None:
    """Together they send what the day allows, to the last request, and both stop."""
    with days(root, campaigns=20, pages=300) as course:
        codes = two_at_once(
            course,
            rate=0,
            first={"daily_quota": 200},
            second={"daily_quota": 200, "output": str(course.home.path / "second")},
        )
        assert codes == (75, 75)
        assert len(course.hits()) == 200
        assert sum(course.charged().values()) == 200


def test_a_reserve_of_one_run_is_there_for_another(root: Path) -> None:
    """A run that leaves a reserve stops at it; one that leaves none has it to itself."""
    with days(root, campaigns=20, pages=400) as course:
        assert course.run(daily_quota=200, quota_reserve=50) == 75
        assert len(course.hits()) == 150
        other = str(course.home.path / "second")
        assert course.run(daily_quota=200, output=other) == 75
        assert len(course.hits()) == 200
        assert course.run(daily_quota=200, quota_reserve=50) == 75
        assert len(course.hits()) == 200


async def test_another_key_has_its_own_day(root: Path) -> None:
    """A second key with the same state folder has its own count, and its own pace."""
    world = World(pages=5)
    async with serving(world.honest) as server:
        one = server.config(root, daily_quota=20)
        other = server.config(root, daily_quota=20, api_key="another-key", output=root / "other")
        ids = [str(number) for number in range(1, 11)]
        clock = Shifted.to(NOON)
        reports = [await Harvester(each, clock=clock).run(ids) for each in (one, other)]
        assert [report.requests.sent for report in reports] == [20, 20]
        assert [report.reason for report in reports] == ["quota_spent"] * 2
        assert len(server.heads) == 40


# -- a hold outlives a kill --------------------------------------------------------------------


def test_a_hold_outlives_a_kill(root: Path) -> None:
    """Killed while all runs hold, the same command still keeps to what the API asked for."""
    with days(root, pinned={(None, None): "throttle"}, retry_after="200", quota=0) as course:
        with child(course.clock, course.settings(), course.served.sandbox) as process:
            until(lambda: list(course.home.state.glob("*.json")) and _held(course))
            process.kill()
        sent = len(course.hits())
        assert sent >= 1
        assert course.run(max_wait=30) == 75
        assert len(course.hits()) == sent
        summary = course.summary()
        assert summary["reason"] == "throttled"
        held = datetime.fromisoformat(summary["resume_at"]) - course.clock.now()
        assert 100 <= held.total_seconds() <= 200


def _held(course: Days) -> bool:
    [ledger] = course.home.state.glob("*.json")
    account, _ = newest(ledger.read_bytes(), "")
    return account is not None and account.not_before > time.monotonic() + 100


if __name__ == "__main__":
    sys.exit(main())
