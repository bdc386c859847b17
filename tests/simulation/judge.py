"""What must be true after each run and at the end of a life, seen from outside.

The judge knows the account, the log of the server and the files on the disk. It does not ask the
program what it did, except to compare what it says with what is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fakes import CANARY_KEY, CANARY_TOKEN

from harvester import HarvestConfig, HarvestReport
from harvester.events import CampaignFailed, WalkRestarted
from harvester.forecast import Estimate
from harvester.sandbox import Service
from harvester.sandbox.reports import REPORTS, V3_REPORTS

from . import requests
from .files import Files
from .plan import Plan
from .wire import Wire

_CODES = {
    "complete": 0, "failures": 3, "quota_spent": 75, "throttled": 75, "sick_server": 75,
    "set_aside": 75, "SIGTERM": 143, "cancelled": 130,
}  # fmt: skip
_PAGES = {*REPORTS, *V3_REPORTS}
_LIMITS = ("throttle", "throttle429")
_NEW_DAY = 2400.0  # s; a day that is spent so early may be the one before, for the server
_SOON = 3600.0  # s; later, what was known has become old
_OTHER = 3  # requests that a fault may cost: the next try, a second one, a probe


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended. `reason`: of its report, or of the error instead of one, or "dead".

    `stopped_at`: when a signal came (monotonic s).
    """

    report: HarvestReport | None
    reason: str
    estimate: Estimate | None = None
    stopped_at: float | None = None


class Judge:
    """Judges one life. Raises `AssertionError` with what is wrong."""

    def __init__(self, plan: Plan, service: Service, wire: Wire, root: Path) -> None:
        self.plan, self.wire, self.root = plan, wire, root
        world = service.world
        sent = world.campaign_ids if plan.api == "v2" else world.v3_campaign_ids
        unsent = world.v3_unsent_ids if plan.api == "v3" else ()
        self.ids = [*sent, *unsent]
        self.files = Files(world, self.ids, plan.config["compress"])
        self.files.unsent = unsent
        self.files.at_rest = not plan.settings.arrivals
        self.well = False
        self.clock_is_right = True  # and it always was
        self._judged = 0  # requests that were looked at
        self._explained = 0  # requests beyond the least that something explains
        self._outcome = Outcome(report=None, reason="")
        self._wrong: list[str] = []
        self._deaths = 0
        self._foretold: Estimate | None = None
        self._asked_at, self._foretold_at = 0, 0.0
        self._outputs: dict[str, bool] = {}  # whether the last run there came to its own end

    # -- what happened -------------------------------------------------------------------------

    def left(self, output: str, *, ended: bool) -> None:
        """A run has left a directory. One that ended has put in order what others left behind."""
        self._outputs[output] = ended

    def ended(self, outcome: Outcome) -> None:
        """A run has ended."""
        self._outcome = outcome
        self._deaths += outcome.reason == "dead"
        if outcome.report is None or outcome.report.exit_code not in (0, 3):
            self._explained += self.plan.config["concurrency"]

    def restarted(self, event: WalkRestarted) -> None:
        """A walk started over: what it had is asked for again, if there was a reason."""
        self._explained += event.page
        if event.cause == "poison_page":  # in smaller pages
            size = self.plan.config["page_size"]
            self._explained += size * self.files.least([event.target.report], size)
        if event.cause.startswith("damaged") and not self.files.is_damaged(str(event.target)):
            self._wrong.append(f"{event.target}: {event.message}")

    def failed(self, event: CampaignFailed) -> None:
        """A campaign failed: by what the API said, never by what the program has not foreseen."""
        if event.kind == "unexpected":
            self._wrong.append(f"{event.target}: {event.message}")

    def starts_over(self) -> None:
        """Everything is thrown away."""
        self._explained += sum(each.hit.report in _PAGES for each in self.wire.seen)

    def damaged(self, path: Path) -> None:
        """A finished file is damaged from now on, until it is harvested again."""
        self.files.damaged[path] = path.read_bytes()
        size = self.plan.config["page_size"]
        self._explained += self.files.least([path.parent.name], size)

    # -- after each run ------------------------------------------------------------------------

    def look(self, reports: Sequence[str], *, after: str) -> None:
        """Look at the requests of the run and at what it left."""
        assert not self._wrong, self._wrong[0]
        seen, new, config = self.wire.seen, self.wire.seen[self._judged :], self.plan.config
        self._judged = len(seen)
        latency = self.plan.settings.latency
        # A clock that was set shows the end of a token only when requests on their way are refused.
        refused = 2 if self.clock_is_right else 2 + 2 * config["concurrency"]
        refused *= 2 if after == "second" else 1
        # A token may end while requests wait for a throttle to be over.
        refused += sum(each.hit.fault in _LIMITS for each in new)
        # As long as nothing is accepted, one that has ended again is taken for a dead one.
        refused += 12 * all(each.signs_in or each.hit.status != 200 for each in new)
        requests.look_at_secrets(new, api=self.plan.api, refused=refused)
        requests.look_at_pace(seen[-len(new) - 1 :] if new else (), rate=config["rate"])
        requests.look_at_holds(new, latency=latency)
        if after != "second" and not config["wait_for_quota"]:
            requests.look_at_spent_day(new, latency=latency)
        quota = config["daily_quota"] - config["quota_reserve"]
        requests.look_at_days(seen, self.root / "state", quota=quota)
        if self._outcome.stopped_at is not None:
            requests.look_after_signal(new, self._outcome.stopped_at)
        for each in new:
            if each.hit.page == 1 and each.hit.status == 200:
                self.files.began.setdefault((each.hit.report, each.hit.campaign_id), each.hit.wall)
        if self.plan.settings.arrivals:
            self.files.moved()
        for output, ended in self._outputs.items():
            self.files.look(self.root / output, reports, ended=ended)
        if self._outcome.report is not None:
            self._look_at_report(self._outcome.report, new)
        self._outcome = Outcome(report=None, reason="")

    def _look_at_report(self, report: HarvestReport, new: Sequence[requests.Seen]) -> None:
        held = any(each.retry_after or each.hit.fault in _LIMITS for each in self.wire.seen)
        assert held or report.reason != "throttled", "stopped by a hold that is of no throttle"
        refused = any(each.hit.status in (401, 403) for each in new)
        code = 4 if refused and not self.well else None
        code = _CODES.get(report.reason, code)
        assert report.exit_code == code, f"exit {report.exit_code}: {report.message}"
        waits = report.exit_code == 75
        assert (report.resume_at is not None) == waits, f"resume_at {report.resume_at}"

    def look_at_plan(self, config: HarvestConfig) -> None:
        """What `plan` says of the directory."""
        if self._outputs.get("out") and not config.fresh:
            self.files.look_at_plan(config)

    def foretold(self, outcome: Outcome) -> None:
        """What `plan --ask` says the rest will cost."""
        self._foretold = outcome.estimate
        self._asked_at, self._foretold_at = len(self.wire.seen), self.wire.machine.true_time()

    # -- at the end ----------------------------------------------------------------------------

    def went_on(self, ready: bool, outcome: Outcome, new: Sequence[requests.Seen]) -> None:
        """A run that did not end the work, in a world that is well: it must have made progress
        if it began when the one before had said."""
        assert outcome.reason != "credentials_refused", "locked out"
        self._foretold = None  # each of several days asks for some things anew
        good = any(each.hit.status == 200 for each in new)
        early = self.wire.machine.true_time() % 86_400 < _NEW_DAY
        if not good and outcome.reason == "quota_spent" and early:
            sent = sum(not each.signs_in for each in new)
            assert sent <= 1, f"{sent} requests for a day that is spent"
            return
        assert good or not ready, f"a start at resume_at made no progress: {outcome.reason}"

    def look_at_the_end(self, outcome: Outcome, reports: Sequence[str], *, exact: bool) -> None:
        """The harvest says that it is complete; `exact`: nothing came in since it began."""
        report = outcome.report
        assert report is not None
        assert report.campaigns.complete == report.campaigns.total == len(self.ids)
        self.files.require_all(self.root / "out", reports, exact=exact)
        left = list((self.root / "out").glob("*/*.part"))
        # A death just after a top-up found nothing new leaves its part, without rows: the next
        # top-up begins it anew.
        assert not left or (not self.files.at_rest and self._deaths), f"{left[0].name} is left"
        if not self.files.at_rest or self.plan.settings.irregular:
            return  # nothing says how many pages there are
        if self._outputs.keys() == {"out"}:
            self._look_at_costs(reports)
        if self._foretold is not None:
            sent = [each for each in self.wire.seen[self._asked_at :] if not each.signs_in]
            if not sent or sent[0].hit.wall < self._foretold_at + _SOON:
                self._look_at_estimate(self._foretold, len(sent), reports)
            self._foretold = None

    def _look_at_costs(self, reports: Sequence[str]) -> None:
        """No request beyond the least that nothing explains."""
        hits = [each.hit for each in self.wire.seen if each.hit.report in _PAGES]
        faults = sum(1 for hit in hits if hit.fault or hit.throttled or hit.status != 200)
        size = self.plan.config["page_size"]
        most = self.files.least(reports, size) + self._explained + _OTHER * faults
        if len(hits) > most:
            most += self.files.open_edges(reports, size)
        assert len(hits) <= most, f"{len(hits)} requests for pages, {most} can be explained"

    def _look_at_estimate(self, estimate: Estimate, sent: int, reports: Sequence[str]) -> None:
        """What was foretold is what it took, but for looks into edges and a few per cent."""
        about = 2 + 0.1 * estimate.requests
        edges = self.files.open_edges(reports, self.plan.config["page_size"])
        said = f"{estimate.requests} requests foretold, {sent} sent"
        assert sent >= estimate.requests - about, said
        assert estimate.at_least or sent <= estimate.requests + about + edges, said

    def look_back(self) -> None:
        """No secret stands in any file of the output."""
        bearers = {each.bearer.partition(" ")[2] for each in self.wire.seen} - {""}
        secrets = [each.encode() for each in (CANARY_KEY, CANARY_TOKEN, *sorted(bearers))]
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and "accounts" not in path.parts:
                content = path.read_bytes()
                found = [secret for secret in secrets if secret in content]
                assert not found, f"a secret stands in {path.relative_to(self.root)}"
