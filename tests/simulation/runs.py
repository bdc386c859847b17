"""Commands on the simulated machine: how they are given, and what becomes of them."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from fakes import CANARY_KEY, CANARY_TOKEN

from harvester import HarvestConfig, HarvestReport
from harvester.device_flow import sign_in
from harvester.errors import StopRun
from harvester.events import CampaignFailed, Event, RunFinished, RunStarted, WalkRestarted
from harvester.forecast import Estimate
from harvester.run import Harvester
from harvester.sandbox import FaultPlan, Service

from .disk import Disk
from .judge import Judge, Outcome
from .machine import Machine
from .plan import DAY, START, draw_plan
from .process import RUNNING, Death, Process
from .wire import API, SIGN_IN, Wire

Command = Callable[[HarvestConfig], Awaitable[Any]]


class Runs:
    """The runs of a life, below `root`. `trace` is what happened, a line for each thing.

    `reports` are asked for now, `later` will be; `options` are given with each command.
    """

    def __init__(self, seed: int, root: Path) -> None:
        self.plan = draw_plan(seed)
        self.root = root
        self.rng = random.Random(f"life {seed}")
        self.trace: list[str] = []
        self.disk = Disk(root, self.rng)
        self.machine = Machine(self.disk, START + self.rng.random() * DAY)
        now = self.machine.true_time
        self.service = Service(replace(self.plan.settings, wall=now, clock=now))
        self.wire = Wire(self.machine, self.service, self.note)
        self.judge = Judge(self.plan, self.service, self.wire, root)
        self.reports, self.later = [*self.plan.reports], [*self.plan.later]
        self.options: dict[str, Any] = {}
        self.resume_at: datetime | None = None
        self.runs = 0

    def note(self, text: str) -> None:
        """A line of the trace, with the wall clock."""
        text = text.replace(str(self.root), "")
        self.trace.append(f"{self.machine.wall():%m-%d %H:%M:%S.%f} {text}")

    @property
    def days(self) -> float:
        """How long the life took, in simulated days."""
        return (self.machine.true_time() - START) / DAY

    def config(self, output: str = "out", **more: Any) -> HarvestConfig:
        """The settings of a run."""
        v2 = {"api_key": CANARY_KEY, "access_token": CANARY_TOKEN}
        return HarvestConfig(
            **{
                "output": self.root / output,
                "state_dir": self.root / "state",
                "api": self.plan.api,
                "base_url": API,
                "auth_url": SIGN_IN,
                "report": self.reports,
                **(v2 if self.plan.api == "v2" else {"client_id": CANARY_KEY}),
                **self.plan.config,
                **self.options,
                **more,
            }
        )

    def sign_in(self) -> None:
        """A person signs in."""
        plan, self.service._sign_in_api._plan = self.service._sign_in_api._plan, FaultPlan()
        context = Process().context()

        async def main() -> None:
            signed = sign_in(self.config(), show=lambda code: None)
            await asyncio.get_running_loop().create_task(signed, context=context)

        self.machine.run(main)
        self.disk.bury()
        self.service._sign_in_api._plan = plan

    def run(
        self,
        *,
        outputs: Sequence[str] = ("out",),
        command: Command | None = None,
        death: Death | None = None,
        dies: int = 0,
        signal_at: float | None = None,
        again: float | None = None,
        meanwhile: tuple[float, Callable[[], None]] | None = None,
        **options: Any,
    ) -> Outcome:
        """One command, or one for each of `outputs` at the same time, of which the `dies`-th dies.
        The first one's signal comes after `signal_at` seconds, a second one `again` seconds later;
        `meanwhile` is what else happens, and when."""
        configs = [self.config(output, **options) for output in outputs]
        harvesters = [Harvester(config, observe=self.observe) for config in configs]
        processes = [Process() for _ in outputs]
        processes[dies % len(outputs)].death = death or Death()
        self.disk.processes = processes
        stopped_at: list[float] = []

        def stop() -> None:
            stopped_at.append(self.machine.monotonic())
            self.note("SIGTERM")
            harvesters[0].stop("SIGTERM", "stopped by SIGTERM")

        async def together() -> list[Any]:
            loop = asyncio.get_running_loop()
            contexts = [process.context() for process in processes]
            commands = (
                command(config) if command else harvester.run(list(self.judge.ids))
                for config, harvester in zip(configs, harvesters, strict=True)
            )
            tasks = [
                asyncio.ensure_future(loop.create_task(each, context=context))
                for each, context in zip(commands, contexts, strict=True)
            ]
            if signal_at is not None:
                loop.call_later(signal_at, stop, context=contexts[0])
            if signal_at is not None and again is not None:
                loop.call_later(signal_at + again, tasks[0].cancel)
            if meanwhile is not None:
                loop.call_later(*meanwhile)
            return await asyncio.gather(*tasks, return_exceptions=True)

        endings, dead = self.machine.run(together), [process.dead for process in processes]
        for output, ending, died in zip(outputs, endings, dead, strict=True):
            self.judge.left(output, ended=isinstance(ending, HarvestReport) and not died)
        self.bury()
        outcome = self.outcome_of(endings, dead, stopped_at[0] if stopped_at else None)
        self.judge.ended(outcome)
        return outcome

    def bury(self) -> None:
        """Of runs that are dead what is left is what was on the disk."""
        self.wire.died()
        if any(process.dead for process in self.disk.processes):
            self.note("killed")
        if self.disk.bury():
            self.note("the power was cut")
            self.machine.reboot()

    def outcome_of(
        self, endings: Sequence[Any], dead: Sequence[bool], stopped_at: float | None
    ) -> Outcome:
        """What the first run came to; each that lives must have ended well."""
        for error, is_dead in zip(endings, dead, strict=True):
            expected = isinstance(error, StopRun | HarvestReport | Estimate)
            cancelled = isinstance(error, asyncio.CancelledError) and stopped_at is not None
            if not (expected or cancelled or is_dead):
                raise error
        if dead[0]:
            return Outcome(report=None, reason="dead")
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
        return Outcome(
            report=ending if isinstance(ending, HarvestReport) else None,
            estimate=ending if isinstance(ending, Estimate) else None,
            reason=reason,
            stopped_at=stopped_at,
        )

    def observe(self, event: Event) -> None:
        """Note what a reader of the trace wants to know."""
        process = RUNNING.get()
        if process is None or process.dead:
            return
        match event:
            case RunStarted():
                self.note(f"run of {event.total} campaigns, {event.used_today} used today")
                self.options.pop("fresh", None)
            case WalkRestarted():
                self.note(f"{event.target} starts over: {event.cause}")
                self.judge.restarted(event)
            case CampaignFailed():
                self.note(f"{event.target} fails: {event.message}")
                self.judge.failed(event)
            case RunFinished():
                self.note(f"exit {event.exit_code} {event.reason}")

    def draw_death(self) -> Death:
        """Shortly after rows were written; or at any of the changes that a run of this size makes,
        more often at the first ones."""
        torn = self.rng.random() < 0.3
        if self.rng.random() < 0.4:
            page = self.rng.randint(1, min(self.plan.least, 40))
            return Death(at=self.rng.randint(2, 8), page=page, torn=torn)
        most = 12 * self.plan.least + 60
        chance = self.rng.random()
        at = int(math.exp(chance * math.log(most)) if self.rng.random() < 0.5 else chance * most)
        return Death(at=at + 1, torn=torn)

    def wait_until_ready(self) -> bool:
        """Wait as long as the last run said; True if it said so."""
        if self.resume_at is None:
            self.machine.wait(self.rng.choice((0.0, 0.1, 60.0, DAY)) * self.rng.random())
            return False
        self.machine.wait((self.resume_at - self.machine.wall()).total_seconds() + 0.001)
        self.resume_at = None
        return True
