"""What can happen in the troubled part of a life, each drawn as often as its weight says."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harvester import forecast
from harvester.errors import ConfigError
from harvester.sandbox import FaultPlan
from harvester.sandbox.faults import Faults

from .files import rows_of

if TYPE_CHECKING:
    from .life import Life

_DAY = 86_400.0
_STORMS = (
    *("throttle", "throttle", "throttle429", "error500", "error503", "auth", "forbidden"),
    *("html", "reset", "timeout", "cut", "flood", "endless_same"),
)


@dataclass(frozen=True)
class Act:
    """Something that happens to a life."""

    happen: Callable[["Life"], None]
    weight: float


ACTS: dict[str, Act] = {}


def act(weight: float) -> Callable[[Callable[["Life"], None]], Callable[["Life"], None]]:
    """Put a function into `ACTS`."""

    def put(happen: Callable[["Life"], None]) -> Callable[["Life"], None]:
        ACTS[happen.__name__] = Act(happen, weight)
        return happen

    return put


# -- the run dies, or is stopped -------------------------------------------------------------------


@act(2)
def run(life: "Life") -> None:
    """The same command, when it may go on."""
    life.wait_until_ready()
    life.run()


@act(6)
def kill(life: "Life") -> None:
    """The process is killed at some change of the disk."""
    life.wait_until_ready()
    life.run(death=life.draw_death())


@act(5)
def cut(life: "Life") -> None:
    """The power is cut at some change of the disk."""
    life.wait_until_ready()
    life.run(death=replace(life.draw_death(), power=True))


@act(2)
def signal(life: "Life") -> None:
    """A signal, and perhaps a second one."""
    life.wait_until_ready()
    life.run(signal_at=_some_time(life), again=life.rng.choice((None, 0.5, 3.0)))


@act(0.5)
def fresh(life: "Life") -> None:
    """Everything is thrown away, and perhaps the process is killed meanwhile."""
    life.wait_until_ready()
    life.options["fresh"] = True  # until a run has begun
    life.judge.starts_over()
    life.run(death=life.rng.choice((None, life.draw_death())))


# -- the machine -----------------------------------------------------------------------------------


@act(1)
def jump(life: "Life") -> None:
    """The wall clock is set while a run is under way."""
    life.wait_until_ready()
    by = life.rng.choice((-_DAY, -3600.0, -1.0, 1.0, 3600.0, _DAY)) * life.rng.random()

    def set_clock() -> None:
        life.machine.skew += by
        life.judge.clock_is_right = False
        life.note(f"the clock is set by {by:.1f} s")

    life.run(meanwhile=(_some_time(life), set_clock))


@act(1)
def suspend(life: "Life") -> None:
    """The machine sleeps while a run is under way."""
    life.wait_until_ready()
    seconds = life.rng.choice((10.0, 3600.0, _DAY)) * life.rng.random()

    def sleep() -> None:
        life.machine.suspend(seconds)
        life.judge.clock_is_right = False
        life.note(f"slept for {seconds:.1f} s")

    life.run(meanwhile=(_some_time(life), sleep))


def _some_time(life: "Life") -> float:
    """When something happens during a run (s)."""
    return life.rng.random() * life.plan.least * 0.3


# -- the API ---------------------------------------------------------------------------------------


@act(1)
def down(life: "Life") -> None:
    """The API cannot be reached for a while."""
    life.wait_until_ready()
    life.wire.down_until = life.machine.true_time() + life.rng.choice((5.0, 600.0, _DAY))
    life.run()


@act(2)
def storm(life: "Life") -> None:
    """For a while many requests go wrong in the same way, also those that are tried again."""
    life.wait_until_ready()
    kind, rate = life.rng.choice(_STORMS), life.rng.choice((0.3, 0.7, 1.0))
    life.wire.storm = Faults(FaultPlan(life.rng.randrange(1 << 30), {kind: rate}, heal_after=None))
    life.wire.storm_until = life.machine.true_time() + life.rng.choice((10.0, 120.0, 3600.0))
    life.note(f"a storm of {kind}, {rate:.0%}")
    life.run()


# -- the operator ----------------------------------------------------------------------------------


@act(1)
def refused(life: "Life") -> None:
    """Other options than the directory was made with."""
    before = len(life.wire.seen)
    database = life.root / "out" / ".harvester" / "state.sqlite"
    if not rows_of(database, "SELECT 1 FROM settings WHERE name = 'page_size'"):
        return  # no run has begun
    try:
        outcome = life.run(page_size=life.plan.config["page_size"] + 1, fresh=False)
    except ConfigError:
        assert all(each.signs_in for each in life.wire.seen[before:])
    else:  # it could not even begin
        assert outcome.report is None, "other options were not refused"


@act(2)
def early(life: "Life") -> None:
    """The same command, before it may go on."""
    before, resume_at = len(life.wire.seen), life.resume_at
    if resume_at is None or (resume_at - life.machine.wall()).total_seconds() < 60:
        return
    outcome = life.run()
    if outcome.reason == "quota_spent":
        sent = [each for each in life.wire.seen[before:] if not each.signs_in]
        assert len(sent) <= 1, f"an early start cost {len(sent)} requests"


@act(1)
def second(life: "Life") -> None:
    """Two runs of the same key at the same time, and perhaps one of them is killed."""
    life.wait_until_ready()
    death = life.draw_death() if life.rng.random() < 0.5 else None
    other = life.rng.choice(("other", "other", "out"))
    life.run(outputs=("out", other), death=death, dies=life.rng.choice((0, 1)))


@act(1)
def add(life: "Life") -> None:
    """One more report is asked for."""
    if life.later:
        life.reports = sorted((*life.reports, life.later.pop()))
        life.note(f"reports: {', '.join(life.reports)}")
    run(life)


@act(1)
def repair(life: "Life") -> None:
    """A finished file is damaged, and found to be."""
    files = sorted((life.root / "out").glob("*/*.ndjson*"))
    finished = [path for path in files if path.suffix != ".part"]
    if not finished:
        return
    damaged = life.rng.choice(finished)
    life.note(f"{damaged.parent.name}/{damaged.name} is damaged")
    _damage(damaged, life.rng)
    life.judge.damaged(damaged)
    life.options["repair"] = True
    run(life)


def _damage(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    at = rng.randrange(len(content) + 1)
    flipped = content[:at] + bytes(byte ^ 4 for byte in content[at : at + 1]) + content[at + 1 :]
    damaged = rng.choice((flipped, content[:at], content + b"{}\n"))
    path.write_bytes(damaged if damaged != content else content + b"x")


@act(1)
def plan(life: "Life") -> None:
    """What a run would do is asked for: of the directory, or of the API as well."""
    life.judge.look_at_plan(life.config())
    if life.rng.random() < 0.5 and "fresh" not in life.options:  # else there is nothing to ask
        life.wait_until_ready()
        death = life.rng.choice((None, life.draw_death()))
        life.run(death=death, command=lambda config: forecast.ask(life.judge.ids, config))
