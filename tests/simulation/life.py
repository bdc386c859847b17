"""One life by seed: an account, a harvest of it, and everything that happens on the way.

The first part of a life is troubled: each run meets faults, quotas, kills, power cuts, signals,
clock jumps, outages or a second run. Then the world is well, and the same command must come to its
end. Where the version can top up, events arrive after that, and finished files must grow by them.
"""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fakes import CANARY_KEY, CANARY_TOKEN

from harvester import HarvestConfig, HarvestReport
from harvester.device_flow import sign_in
from harvester.errors import ConfigError, StopRun
from harvester.events import Event, RunFinished, RunStarted, WalkRestarted
from harvester.request import http
from harvester.run import Harvester
from harvester.sandbox import FaultPlan, SandboxSettings, Service, SignInSettings
from harvester.sandbox.faults import Faults

from .bugs import Bug
from .judge import Judge, Outcome, rows_of
from .machine import Death, Disk, Machine, installed, rebind
from .wire import API, SIGN_IN, Wire

DAY = 86_400.0
START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
REPORTS = {
    "v2": ("opens", "clicks", "sends", "bounces", "forwards", "unsubscribes"),
    "v3": ("opens", "clicks", "sends", "bounces", "forwards", "unsubscribes", "unique_opens"),
}
PASSING = (
    *("error500", "error503", "throttle", "throttle429", "auth", "forbidden"),
    *("cursor_dropped", "html", "empty", "wrong_shape", "error_in_200", "twice"),
    *("loop", "foreign_link", "redirect", "reset", "lost", "cut", "cut_gzip", "slow", "stall"),
    *("timeout", "endless_empty"),
)
AT_SIGN_IN = ("error500", "error503", "throttle", "reset", "html", "slow")
LOSING = ("cut", "lost")  # an answer with tokens never comes: only a leeway helps
ACTS = {
    "run": 2, "kill": 6, "cut": 5, "signal": 2, "jump": 1, "suspend": 1, "refused": 1,
    "early": 1, "down": 1, "second": 1,
}  # fmt: skip
MOST_RUNS = 400


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a seed draws before the life begins. `least`: the pages of a perfect
    harvest."""

    seed: int
    api: str
    settings: SandboxSettings
    config: dict[str, Any]
    reports: Sequence[str]
    acts: Sequence[str]
    acts_at_top_ups: Sequence[str]
    least: int
    arrivals: int


def draw_plan(seed: int) -> Plan:
    """Everything that is decided beforehand."""
    rng = random.Random(f"plan {seed}")
    api = rng.choice(("v2", "v3"))
    count = min(int(rng.paretovariate(0.7)), 200)
    pages = count + count // 4 + int(rng.choice((2, 10, 40, 150)) * rng.random())
    rows = rng.choice((2, 3, 5, 8))
    reports = sorted(rng.sample(REPORTS[api], 1 if count > 60 else rng.choice((1, 1, 2, 3))))
    rates = {kind: 0.25 * rng.random() / len(PASSING) for kind in PASSING}
    leeway = rng.choice((0.0, 0.0, 30.0))
    at_sign_in = (*AT_SIGN_IN, *LOSING) if leeway else AT_SIGN_IN
    some = rng.sample(PASSING, 6)
    few = {kind: 0.02 + 0.06 * rng.random() for kind in some}
    faults = rng.choice(({}, rates, few, few))
    settings = SandboxSettings(
        seed=seed,
        campaigns=count,
        pages=pages,
        rows_per_page=rows,
        unsent=rng.choice((0, 0, 2)) if api == "v3" else 0,
        resends=rng.choice((0, 0, count // 4)),
        api_key=CANARY_KEY,
        client_id=CANARY_KEY,
        access_token=CANARY_TOKEN,
        sign_in=SignInSettings(
            interval=1.0,
            access_token_age=rng.choice((60.0, 600.0, 7200.0, DAY)),
            refresh_tokens=rng.choice(("rotating", "rotating", "long_lived", "silent")),
            leeway=leeway,
            faults={kind: 0.05 * rng.random() for kind in at_sign_in},
        ),
        rate_limit=4,
        retry_after=rng.choice((None, None, "2", "20")),
        latency=rng.choice((0.02, 0.2, 1.5)),
        irregular=rng.random() < 0.2,
        cursor=rng.choice(("offset", "offset", "timestamp")),
        faults=faults,
        stall_seconds=rng.choice((5.0, 70.0)),
        cache_pages=0,
    )
    world = settings.world()
    ids = world.campaign_ids if api == "v2" else world.v3_campaign_ids
    least = sum(world.pages(report, each, rows) for report in reports for each in ids)
    days = rng.choice((0, 0, 1, 2, 5, 30))
    quota = max(math.ceil(least / days), 12) if days else 10_000
    config = {
        "report": reports,
        "page_size": rows,
        "rate": rng.choice((3.3, 3.3, 3.9, 1.0)),
        "concurrency": rng.choice((1, 2, 4, 16)),
        "daily_quota": quota,
        "wait_for_quota": quota > 100 and rng.random() < 0.1,
        "compress": rng.choice((None, None, None, "gzip")),
        "provenance": rng.random() < 0.2,
        # A second forward by the same person moves no count: those are asked for without them.
        "counts": "forwards" not in reports,
        "max_wait": rng.choice((300.0, 60.0)),
    }
    settings = replace(settings, quota=rng.choice((quota, quota, max(quota * 3 // 4, 10))))
    acts = rng.choices(tuple(ACTS), tuple(ACTS.values()), k=rng.randint(1, 8))
    return Plan(
        seed=seed, api=api, settings=settings, config=config, reports=reports, acts=acts,
        acts_at_top_ups=rng.choices(("kill", "cut", "signal", "run"), k=rng.choice((0, 1, 2))),
        least=least, arrivals=rng.choice((0, 1, 3)),
    )  # fmt: skip


class Life:
    """The life of a seed below `root`. `trace` is what happened, a line for each thing."""

    def __init__(self, seed: int, root: Path) -> None:
        self.plan = draw_plan(seed)
        self.root = root
        self.rng = random.Random(f"life {seed}")
        self.trace: list[str] = []
        start = START + self.rng.random() * DAY
        self.machine = Machine(Disk(root, self.rng), start)
        self.disk = self.machine.disk
        settings = replace(
            self.plan.settings, wall=self.machine.true_time, clock=self.machine.true_time
        )
        self.service = Service(settings)
        self.wire = Wire(self.machine, self.service, self.note)
        self.judge = Judge(self.plan, self.service, self.wire, root)
        self.resume_at: datetime | None = None
        self.options: dict[str, Any] = {}

    def note(self, text: str) -> None:
        """A line of the trace, with the wall clock."""
        text = text.replace(str(self.root), "")
        self.trace.append(f"{self.machine.wall():%m-%d %H:%M:%S.%f} {text}")

    @property
    def days(self) -> float:
        """How long the life took, in simulated days."""
        return (self.machine.true_time() - START) / DAY

    def live(self, bug: Bug | None = None) -> None:
        """Live it, with a bug planted; AssertionError with what the judge says."""
        with installed(self.machine, self.plan.seed) as patch:
            rebind(patch, http.open_session, self.wire.open_session)
            if bug is not None:
                bug(patch, self.plan)
            if self.plan.api == "v3":
                self.sign_in()
            self.troubles(self.plan.acts)
            self.heal()
            self.to_the_end()
            if self.can_top_up():
                for _ in range(self.plan.arrivals):
                    self.arrive()
                    self.troubles(self.plan.acts_at_top_ups)
                    self.to_the_end()
            self.judge.look_back()

    def troubles(self, acts: Sequence[str]) -> None:
        """One act after the other."""
        for act in acts:
            self.wire.run += 1
            self.note(f"-- {self.wire.run} {act}")
            getattr(self, f"act_{act}")()
            self.judge.look(after=act)

    # -- what happens --------------------------------------------------------------------------

    def act_run(self) -> None:
        """The same command, when it may go on."""
        self.wait_until_ready()
        self.run()

    def act_early(self) -> None:
        """The same command, before it may go on."""
        before, resume_at = len(self.wire.seen), self.resume_at
        if resume_at is None or (resume_at - self.machine.wall()).total_seconds() < 60:
            return
        outcome = self.run()
        if outcome.reason == "quota_spent":
            sent = [each for each in self.wire.seen[before:] if each.hit.report != "token"]
            # One, and those that start before its answer is there.
            most = 1 + math.ceil(self.plan.settings.latency * self.plan.config["rate"])
            assert len(sent) <= most, f"an early start cost {len(sent)} requests"

    def act_kill(self) -> None:
        """The process is killed at some change of the disk."""
        self.wait_until_ready()
        self.run(death=self.draw_death())

    def act_cut(self) -> None:
        """The power is cut at some change of the disk."""
        self.wait_until_ready()
        self.run(death=replace(self.draw_death(), power=True))

    def act_signal(self) -> None:
        """A signal, and perhaps a second one."""
        self.wait_until_ready()
        at = self.rng.random() * self.plan.least * 0.3
        again = self.rng.choice((None, 0.5, 3.0))
        self.run(signal_at=at, again=again)

    def act_jump(self) -> None:
        """The wall clock is set while a run is under way."""
        self.wait_until_ready()
        by = self.rng.choice((-DAY, -3600.0, -1.0, 1.0, 3600.0, DAY)) * self.rng.random()
        at = self.rng.random() * self.plan.least * 0.3
        self.run(meanwhile=(at, lambda: self.jump(by)))

    def act_suspend(self) -> None:
        """The machine sleeps while a run is under way."""
        self.wait_until_ready()
        seconds = self.rng.choice((10.0, 3600.0, DAY)) * self.rng.random()
        at = self.rng.random() * self.plan.least * 0.3
        self.run(meanwhile=(at, lambda: self.suspend(seconds)))

    def act_down(self) -> None:
        """The API cannot be reached for a while."""
        self.wait_until_ready()
        self.wire.down_until = self.machine.true_time() + self.rng.choice((5.0, 600.0, DAY))
        self.run()

    def act_refused(self) -> None:
        """Other options than the directory was made with."""
        before = len(self.wire.seen)
        database = self.root / "out" / ".harvester" / "state.sqlite"
        if not rows_of(database, "SELECT 1 FROM settings WHERE name = 'page_size'"):
            return  # no run has begun
        try:
            outcome = self.run(page_size=self.plan.config["page_size"] + 1)
        except ConfigError:
            assert all(each.hit.report == "token" for each in self.wire.seen[before:])
        else:  # it could not even begin
            assert outcome.report is None, "other options were not refused"

    def act_second(self) -> None:
        """A second run of the same key, in another directory, at the same time."""
        self.wait_until_ready()
        self.run(outputs=("out", "other"))

    def suspend(self, seconds: float) -> None:
        """Send the machine to sleep."""
        self.machine.suspend(seconds)
        self.judge.clock_is_right = False
        self.note(f"slept for {seconds:.1f} s")

    def jump(self, by: float) -> None:
        """Set the wall clock."""
        self.machine.skew += by
        self.judge.clock_is_right = False
        self.note(f"the clock is set by {by:.1f} s")

    def heal(self) -> None:
        """From now on the world is well."""
        self.note("-- the world is well")
        self.wire.down_until = 0.0
        if self.machine.skew:  # what the program said was by the wrong clock
            self.machine.skew, self.resume_at = 0.0, None
        for any_id in self.judge.unsent:
            self.service.world.send(any_id)
        self.judge.unsent = ()
        self.service._faults = Faults(FaultPlan())
        self.service._sign_in_api._plan = FaultPlan()
        self.judge.well = True

    def to_the_end(self) -> None:
        """The same command, whenever it may go on, until everything is there."""
        for _ in range(MOST_RUNS):
            self.wire.run += 1
            self.note(f"-- {self.wire.run} to the end")
            ready = self.wait_until_ready()
            before = len(self.wire.seen)
            outcome = self.run()
            self.judge.look(after="run")
            if outcome.reason == "complete":
                self.judge.look_at_the_end(outcome)
                return
            self.judge.went_on(ready, outcome, self.wire.seen[before:])
        raise AssertionError(f"no end after {MOST_RUNS} runs, the last: {outcome.reason}")

    def can_top_up(self) -> bool:
        """Whether this version can."""
        try:
            self.config(since="last")
        except ConfigError:
            return False
        return True

    def arrive(self) -> None:
        """Events come in, while no run is under way."""
        self.options = {"since": "last"}
        self.machine.wait(self.rng.random() * 3 * DAY)
        for report in self.plan.reports:
            for any_id in self.judge.ids:
                if self.rng.random() < 0.3 and report in REPORTS["v2"]:
                    self.service.world.add_events(report, any_id, self.rng.randint(1, 12))
        self.note("events arrive")
        self.judge.moved()

    # -- one run -------------------------------------------------------------------------------

    def config(self, output: str = "out", **more: Any) -> HarvestConfig:
        """The settings of a run."""
        v2 = {"api_key": CANARY_KEY, "access_token": CANARY_TOKEN}
        secrets = v2 if self.plan.api == "v2" else {"client_id": CANARY_KEY}
        return HarvestConfig(
            **{
                "output": self.root / output,
                "state_dir": self.root / "state",
                "api": self.plan.api,
                "base_url": API,
                "auth_url": SIGN_IN,
                **secrets,
                **self.plan.config,
                **self.options,
                **more,
            }
        )

    def sign_in(self) -> None:
        """A person signs in."""
        plan, self.service._sign_in_api._plan = self.service._sign_in_api._plan, FaultPlan()
        self.disk.rest()
        self.machine.run(lambda: sign_in(self.config(), show=lambda code: None))
        self.service._sign_in_api._plan = plan

    def run(
        self,
        *,
        outputs: Sequence[str] = ("out",),
        death: Death | None = None,
        signal_at: float | None = None,
        again: float | None = None,
        meanwhile: tuple[float, Callable[[], None]] | None = None,
        **options: Any,
    ) -> Outcome:
        """One command, or two at the same time. Its signal comes after `signal_at` seconds, a
        second one `again` seconds later; `meanwhile` is what else happens, and when."""
        self.disk.start(death or Death())
        self.wire.token_came = -10
        runs = [
            Harvester(self.config(output, **options), observe=self.observe) for output in outputs
        ]
        stopped_at: list[float] = []

        def stop() -> None:
            stopped_at.append(self.machine.monotonic())
            self.note("SIGTERM")
            runs[0].stop("SIGTERM", "stopped by SIGTERM")

        async def together() -> list[Any]:
            loop = asyncio.get_running_loop()
            tasks = [asyncio.ensure_future(each.run(list(self.judge.ids))) for each in runs]
            if signal_at is not None:
                loop.call_later(signal_at, stop)
            if signal_at is not None and again is not None:
                loop.call_later(signal_at + again, tasks[0].cancel)
            if meanwhile is not None:
                loop.call_later(*meanwhile)
            return await asyncio.gather(*tasks, return_exceptions=True)

        endings = self.machine.run(together)
        self.disk.rest()
        if self.disk.dead:
            self.bury()
            outcome = Outcome(report=None, reason="dead", stopped_at=None)
        else:
            outcome = self.outcome_of(endings, stopped_at[0] if stopped_at else None)
        self.judge.ended(outcome)
        return outcome

    def bury(self) -> None:
        """The run is dead: what is left is what was on the disk."""
        power = self.disk.death.power
        self.wire.died()
        self.disk.bury()
        self.note("the power was cut" if power else "killed")
        if power:
            self.machine.reboot()

    def outcome_of(self, endings: Sequence[Any], stopped_at: float | None) -> Outcome:
        """What the first run came to; the other ones must have ended well, too."""
        for error in endings:
            expected = isinstance(error, StopRun | HarvestReport)
            cancelled = isinstance(error, asyncio.CancelledError) and stopped_at is not None
            if not expected and not cancelled:
                raise error
        ending = endings[0]
        reason = getattr(ending, "reason", "cancelled")
        self.resume_at = getattr(ending, "resume_at", None)
        if isinstance(ending, StopRun):
            self.note(f"no run: {reason}: {ending}")
        if reason == "credentials_refused" and self.wire.lost_token:
            reason = "tokens lost on the way"
            self.note("the answer with the tokens was lost: a person signs in again")
            self.wire.lost_token = False
            self.sign_in()
        report = ending if isinstance(ending, HarvestReport) else None
        return Outcome(report=report, reason=reason, stopped_at=stopped_at)

    def observe(self, event: Event) -> None:
        """Note what a reader of the trace wants to know."""
        if self.disk.dead:
            return
        match event:
            case RunStarted():
                self.note(f"run of {event.total} campaigns, {event.used_today} used today")
            case WalkRestarted():
                self.note(f"{event.target} starts over: {event.cause}")
                self.judge.restarted(event)
            case RunFinished():
                self.note(f"exit {event.exit_code} {event.reason}")

    def draw_death(self) -> Death:
        """At any of the changes that a run of this size makes, more often at the first ones."""
        most = 12 * self.plan.least + 60
        chance = self.rng.random()
        at = int(math.exp(chance * math.log(most)) if self.rng.random() < 0.5 else chance * most)
        return Death(at=at + 1, torn=self.rng.random() < 0.3)

    def wait_until_ready(self) -> bool:
        """Wait as long as the last run said; True if it said so."""
        if self.resume_at is None:
            self.machine.wait(self.rng.choice((0.0, 0.1, 60.0, DAY)) * self.rng.random())
            return False
        self.machine.wait((self.resume_at - self.machine.wall()).total_seconds() + 0.001)
        self.resume_at = None
        return True
