"""One life by seed: an account, a harvest of it, and everything that happens on the way.

The first part of a life is troubled: each act meets faults, quotas, kills, power cuts, signals,
clock jumps, outages or a second run. Then the world is well, and the same command must come to its
end. After that events arrive, and finished files must grow by them.
"""

from collections.abc import Sequence
from dataclasses import replace

from harvester.forecast import ask
from harvester.request import http
from harvester.sandbox import FaultPlan

from .acts import ACTS
from .bugs import Bug
from .machine import installed, rebind
from .plan import DAY, REPORTS
from .runs import Runs

MOST_RUNS = 400


class Life(Runs):
    """The life of a seed."""

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
            self.foretell()
            self.to_the_end(exact=self.judge.files.at_rest)
            for _ in range(self.plan.arrivals or not self.judge.files.at_rest):
                self.arrive()
                self.troubles(self.plan.acts_at_top_ups)
                self.to_the_end(exact=True)
            self.judge.look_back()

    def troubles(self, acts: Sequence[str]) -> None:
        """One act after the other."""
        for act in acts:
            self.runs += 1
            self.note(f"-- {self.runs} {act}")
            ACTS[act].happen(self)
            self.judge.look(self.reports, after=act)

    def heal(self) -> None:
        """From now on the world is well."""
        self.note("-- the world is well")
        self.wire.calm()
        if self.machine.skew:  # what the program said was by the wrong clock
            self.machine.skew, self.resume_at = 0.0, None
        for any_id in self.judge.files.unsent:
            self.service.world.send(any_id)
        self.judge.files.unsent = ()
        self.service._sign_in_api._plan = FaultPlan()
        self.service.settings = replace(self.service.settings, arrivals=0)
        self.reports, self.later = sorted((*self.reports, *self.later)), []
        self.options["retry_failed"] = True
        self.judge.well = True

    def foretell(self) -> None:
        """Ask what the rest will cost, where the API has counts."""
        if self.plan.api == "v3" and self.rng.random() < 0.3 and "fresh" not in self.options:
            self.wait_until_ready()
            self.note("-- plan --ask")
            self.judge.foretold(self.run(command=lambda config: ask(self.judge.ids, config)))
            self.judge.look(self.reports, after="plan")

    def to_the_end(self, *, exact: bool) -> None:
        """The same command, whenever it may go on, until everything is there."""
        for _ in range(MOST_RUNS):
            self.runs += 1
            self.note(f"-- {self.runs} to the end")
            ready = self.wait_until_ready()
            before = len(self.wire.seen)
            outcome = self.run()
            self.judge.look(self.reports, after="run")
            if outcome.reason == "complete":
                self.judge.look_at_the_end(outcome, self.reports, exact=exact)
                return
            self.judge.went_on(ready, outcome, self.wire.seen[before:])
            if self.rng.random() < 0.1:
                self.troubles(["early"])
        raise AssertionError(f"no end after {MOST_RUNS} runs, the last: {outcome.reason}")

    def arrive(self) -> None:
        """Events come in, while no run is under way."""
        self.options["since"] = "last"
        self.machine.wait(self.rng.random() * 3 * DAY)
        for report in self.reports:
            for any_id in self.judge.ids:
                if self.rng.random() < 0.3 and report in REPORTS["v2"]:
                    self.service.world.add_events(report, any_id, self.rng.randint(1, 12))
        self.note("events arrive")
        self.judge.files.moved()
        self.machine.wait(self.plan.settings.counts.age + 1.0)  # the API has counted them
