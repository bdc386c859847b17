"""What must be true after each run and at the end of a life, seen from outside.

The judge knows the account, the log of the server and the files on the disk. It does not ask the
program what it did, except to compare what it says with what is there.
"""

import gzip
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes import CANARY_KEY, CANARY_TOKEN

from harvester import HarvestReport
from harvester.disk.compress import CODECS
from harvester.disk.inspect import read_content, verify
from harvester.disk.layout import Layout
from harvester.events import WalkRestarted
from harvester.sandbox import Service
from harvester.sandbox.reports import REPORTS, V3_REPORTS

from .wire import Seen, Wire

_CODES = {
    "complete": 0, "failures": 3, "quota_spent": 75, "throttled": 75, "sick_server": 75,
    "set_aside": 75, "SIGTERM": 143, "cancelled": 130,
}  # fmt: skip
_PAGES = {*REPORTS, *V3_REPORTS}
_EXACT = 1e-6  # s; what rounding may do
_LIMITS = ("throttle", "throttle429")
_COMPLETE = "SELECT report, campaign_id FROM walks WHERE state = 'complete'"
_NEW_DAY = 2400.0  # s; a day that is spent so early may be the one before, for the server
_OTHER = 3  # requests that a fault may cost: the next try, a second one, a probe


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended. `reason`: of its report, or of the error instead of one, or "dead".

    `stopped_at`: when a signal came (monotonic s).
    """

    report: HarvestReport | None
    reason: str
    stopped_at: float | None


class Judge:
    """Judges one life. Raises `AssertionError` with what is wrong."""

    def __init__(self, plan: Any, service: Service, wire: Wire, root: Path) -> None:
        self.plan, self.service, self.wire, self.root = plan, service, wire, root
        world = service.world
        self.unsent = world.v3_unsent_ids if plan.api == "v3" else ()
        self.ids = [*(world.campaign_ids if plan.api == "v2" else world.v3_campaign_ids)]
        self.ids += self.unsent
        self.well = False
        self.at_rest = True  # no event has come in
        self.clock_is_right = True  # and it always was
        self._truth: dict[tuple[str, str], bytes] = {}
        self._judged = 0  # requests that were looked at
        self._explained = 0  # requests beyond the least that something explains
        self._outcome = Outcome(report=None, reason="", stopped_at=None)
        self._damage: list[str] = []
        self._runs = self._deaths = 0
        self._outputs = {"out"}

    # -- what happened -------------------------------------------------------------------------

    def ended(self, outcome: Outcome) -> None:
        """A run has ended."""
        self._outcome = outcome
        self._runs += 1
        self._deaths += outcome.reason == "dead"
        if outcome.report is None or outcome.report.exit_code not in (0, 3):
            self._explained += self.plan.config["concurrency"]

    def restarted(self, event: WalkRestarted) -> None:
        """A walk started over: what it had is asked for again, if there was a reason."""
        self._explained += event.page
        if event.cause.startswith("damaged"):
            self._damage.append(f"{event.target}: {event.message}")

    def moved(self) -> None:
        """Events came in: files are compared without their order from here on."""
        self.at_rest = False
        self._truth.clear()

    # -- after each run ------------------------------------------------------------------------

    def look(self, *, after: str) -> None:
        """Look at the requests of the run and at what it left."""
        assert not self._damage, f"damage: {self._damage[0]}"
        new = self.wire.seen[self._judged :]
        self._judged = len(self.wire.seen)
        self._look_at_secrets(new)
        self._look_at_pace(new)
        self._look_at_holds(new, alone=after != "second")
        self._look_at_days()
        self._look_after_signal(new)
        if after == "second":
            self._outputs.add("other")
        for output in sorted(self._outputs):
            if (self.root / output / ".harvester" / "state.sqlite").exists():
                self._look_at_files(self.root / output)
        report = self._outcome.report
        if report is not None:
            held = any(each.retry_after or each.hit.fault in _LIMITS for each in self.wire.seen)
            assert held or report.reason != "throttled", "stopped by a hold that is of no throttle"
            refused = any(each.hit.status in (401, 403) for each in new)
            # A clock that was set can make a token look younger than it is.
            code = 4 if refused and not (self.well and self.clock_is_right) else None
            code = _CODES.get(report.reason, code)
            assert report.exit_code == code, f"exit {report.exit_code}: {report.message}"
            waits = report.exit_code == 75
            assert (report.resume_at is not None) == waits, f"resume_at {report.resume_at}"

    def _look_at_secrets(self, new: Sequence[Seen]) -> None:
        refused = 0
        for each in new:
            hit = each.hit
            if hit.report in ("token", "authorize"):
                assert hit.authorized, "a sign-in request without the client id"
                assert not each.bearer, "the token went to the sign-in"
                continue
            assert hit.api_key == (self.plan.api == "v2"), "the API key is where it belongs"
            assert each.bearer, "a request without a token"
            refused += not hit.authorized
        most = 2 if self.clock_is_right else 2 + 2 * self.plan.config["concurrency"]
        assert refused <= most, f"{refused} requests of a run with a token that is not good"

    def _look_at_pace(self, new: Sequence[Seen]) -> None:
        gaps = {True: 1.0, False: 1 / self.plan.config["rate"]}
        last: dict[tuple[bool, int], float] = {}
        for each in self.wire.seen[-len(new) - 1 :] if new else ():
            kind = (each.hit.report in ("token", "authorize"), each.boot)
            gap = each.mono - last.get(kind, float("-inf"))
            assert gap >= gaps[kind[0]] - _EXACT, f"two starts {gap:.4f} s apart"
            last[kind] = each.mono

    def _look_at_holds(self, new: Sequence[Seen], *, alone: bool) -> None:
        """After a throttle no request starts, after a spent day none in this run."""
        latency = self.plan.settings.latency
        until, boot, spent = float("-inf"), -1, False
        for each in new:
            hit = each.hit
            if hit.report in ("token", "authorize"):
                continue
            answered = each.mono - latency - _EXACT
            if each.boot == boot and hit.fault is None and answered > until - 1e9:
                late = each.mono < until - _EXACT and each.mono > self._hold_from + _EXACT
                assert not late, f"a start {until - each.mono:.2f} s before a hold was over"
            if spent and alone and not self.plan.config["wait_for_quota"]:
                assert each.mono <= self._spent_from + _EXACT, "a start after the day was spent"
            if hit.fault in _LIMITS or (hit.throttled and not self._is_spent(each)):
                self._hold_from = each.mono + latency
                until = max(until, self._hold_from + max(each.retry_after, 1.0))
                boot = each.boot
            if hit.throttled and self._is_spent(each) and not spent:
                spent, self._spent_from = True, each.mono + latency

    def _is_spent(self, each: Seen) -> bool:
        """Whether the server refused for its day and not for its second."""
        day = int(each.hit.wall // 86_400)
        before = sum(
            1
            for other in self.wire.seen
            if other.hit.at < each.hit.at
            and int(other.hit.wall // 86_400) == day
            and other.hit.report not in ("token", "authorize")
        )
        return bool(self.plan.settings.quota) and before >= self.plan.settings.quota

    def _look_at_days(self) -> None:
        quota = self.plan.config["daily_quota"]
        days = Counter(
            each.day for each in self.wire.seen if each.hit.report not in ("token", "authorize")
        )
        charged: Counter[str] = Counter()
        for path in (self.root / "state").glob("*.json"):
            for line in filter(_is_json, path.read_bytes().splitlines()):  # the newer record counts
                charged |= Counter(json.loads(line)["days"])
        for day, sent in days.items():
            assert sent <= quota, f"{sent} requests on {day}, of a quota of {quota}"
            known = day in charged or len(days) <= 7
            assert not known or charged[day] >= sent, f"{day}: {sent} sent, {charged[day]} charged"

    def _look_after_signal(self, new: Sequence[Seen]) -> None:
        at = self._outcome.stopped_at
        late = [each for each in new if at is not None and each.mono > at + _EXACT]
        # An exchange of tokens whose answer was lost is made once more.
        late = [each for each in late if each.hit.report != "token"]
        assert not late, f"{len(late)} requests after a signal"

    def _look_at_files(self, output: Path) -> None:
        for path in sorted(output.glob("*/*.ndjson*")):
            if path.parent.name.startswith(".") or path.name.endswith(".part"):
                continue
            self._compare(path)
        layout = Layout(output, CODECS[self.plan.config["compress"]].suffix)
        complete = [
            layout.root / report / f"{each}.ndjson{layout.suffix}"
            for report, each in rows_of(layout.database, _COMPLETE)
        ]
        for path in complete:
            assert path.exists(), f"{path.name} is called complete and is not there"
        acknowledged = layout.manifest.read_bytes() if complete else b""
        for path in complete:
            assert f"/{path.name}".encode() in acknowledged, f"{path.name} is not in the manifest"
        if self._outcome.reason != "dead":
            for log in filter(Path.exists, layout.logs):
                lines = log.read_bytes().splitlines() if log.suffix == ".ndjson" else ()
                assert all(map(_is_json, lines)), f"a line of {log.name} is torn"
            findings = [f"{each.file} {each.what}" for each in verify(layout)]
            assert not findings, f"verify: {findings[:3]}"
            lines = [json.loads(line) for line in layout.manifest.read_bytes().splitlines()]
            named = Counter((line["file"], line["sha256"]) for line in lines)
            assert max(named.values(), default=1) == 1, "a file stands twice in the manifest"
            content = read_content(layout)
            if content.campaigns.total == len(self.ids) and len(self.plan.reports) == 1:
                assert content.campaigns.complete == len(complete), "status counts otherwise"

    def _compare(self, path: Path) -> None:
        report, any_id = path.parent.name, path.name.partition(".")[0]
        assert any_id not in self.unsent, f"{report}/{any_id} is finished, and was never sent"
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        if self.at_rest:
            assert content == self._truth_of(report, any_id), (
                f"{report}/{any_id} is not what the API has: {self._difference(content, path)}"
            )
            return
        rows = Counter(content.splitlines())
        truth = Counter(self._truth_of(report, any_id).splitlines())
        wrong = rows - truth
        assert not wrong, f"{report}/{any_id}: {wrong.total()} rows too many"

    def _difference(self, content: bytes, path: Path) -> str:
        truth = self._truth_of(path.parent.name, path.name.partition(".")[0])
        rows, expected = Counter(content.splitlines()), Counter(truth.splitlines())
        return f"{(rows - expected).total()} rows too many, {(expected - rows).total()} missing"

    def _truth_of(self, report: str, any_id: str) -> bytes:
        if (report, any_id) not in self._truth:
            records = self.service.world.records(report, any_id)
            self._truth[report, any_id] = b"".join(row + b"\n" for row in records)
        return self._truth[report, any_id]

    # -- at the end ----------------------------------------------------------------------------

    def went_on(self, ready: bool, outcome: Outcome, new: Sequence[Seen]) -> None:
        """A run that did not end the work, in a world that is well: it must have made progress
        if it began when the one before had said."""
        if outcome.reason == "credentials_refused":
            assert not self.clock_is_right, "locked out"
            return
        good = any(each.hit.status == 200 for each in new)
        if (
            not good
            and outcome.reason == "quota_spent"
            and self.wire.machine.true_time() % 86_400 < _NEW_DAY
        ):
            most = 1 + self.plan.config["concurrency"]
            assert len(new) <= most, f"{len(new)} requests for a day that is spent"
            return
        assert good or not ready, f"a start at resume_at made no progress: {outcome.reason}"

    def look_at_the_end(self, outcome: Outcome) -> None:
        """The harvest says that it is complete."""
        report = outcome.report
        assert report is not None
        assert report.campaigns.complete == report.campaigns.total == len(self.ids)
        suffix = CODECS[self.plan.config["compress"]].suffix
        for name in self.plan.reports:
            for any_id in self.ids:
                path = self.root / "out" / name / f"{any_id}.ndjson{suffix}"
                assert path.exists(), f"{name}/{any_id} is missing"
                if not self.at_rest:
                    content = path.read_bytes()
                    content = gzip.decompress(content) if suffix else content
                    rows = Counter(content.splitlines())
                    assert rows == Counter(self._truth_of(name, any_id).splitlines()), (
                        f"{name}/{any_id}: {self._difference(content, path)}"
                    )
        left = list((self.root / "out").glob("*/*.part"))
        # A death just after a top-up found nothing new leaves its empty-handed part: the next
        # top-up begins it anew.
        assert not left or (not self.at_rest and self._deaths), f"{left[0].name} is left"
        if self.at_rest and self._outputs == {"out"} and not self.plan.settings.irregular:
            self._look_at_costs()

    def _look_at_costs(self) -> None:
        """No request beyond the least that nothing explains."""
        hits = [each.hit for each in self.wire.seen if each.hit.report in _PAGES]
        faults = sum(1 for hit in hits if hit.fault or hit.throttled or hit.status != 200)
        world, rows = self.service.world, self.plan.config["page_size"]
        least = sum(
            world.pages(name, each, rows) for name in self.plan.reports for each in self.ids
        )
        most = least + self._explained + _OTHER * faults
        assert len(hits) <= most, f"{len(hits)} requests for pages, {most} can be explained"

    def look_back(self) -> None:
        """No secret stands in any file of the output."""
        bearers = {each.bearer.partition(" ")[2] for each in self.wire.seen} - {""}
        secrets = [each.encode() for each in (CANARY_KEY, CANARY_TOKEN, *sorted(bearers))]
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and "accounts" not in path.parts:
                content = path.read_bytes()
                found = [secret for secret in secrets if secret in content]
                assert not found, f"a secret stands in {path.relative_to(self.root)}"


def rows_of(database: Path, query: str) -> list[Any]:
    """What a query finds in a copy of the state; nothing where there is none yet."""
    scratch = database.parents[3] / "copy.sqlite"
    for name in ("", "-wal"):
        copy, path = (each.with_name(f"{each.name}{name}") for each in (scratch, database))
        copy.unlink(missing_ok=True)
        if path.exists():
            shutil.copyfile(path, copy)
    with closing(sqlite3.connect(scratch)) as db, suppress(sqlite3.OperationalError):
        return db.execute(query).fetchall()
    return []  # no such table


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:  # a sector that was never written, too
        return False
    return True
