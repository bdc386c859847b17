"""The end of a run: made durable, counted, written to summary.json and runs.ndjson, announced."""

from collections.abc import Callable
from typing import TypeVar

import orjson
from msgspec import Struct

from harvester import events
from harvester.disk.directory import Directory
from harvester.disk.storage import replace_file
from harvester.errors import StorageError
from harvester.reporting.counters import Counters, EventDispatcher
from harvester.reporting.summary import (
    Campaigns,
    HarvestReport,
    Quota,
    Requests,
    conclude,
    to_json,
)
from harvester.runtime import Clock, StopSignal, next_reset

T = TypeVar("T")


class RunEnd(Struct, eq=False, kw_only=True, dict=True):
    """Concludes one run, which begins when this is made. It awaits nothing: a cancel cannot cut it
    short; nor does a step that the disk refuses: what was saved before is counted."""

    run_id: str
    directory: Directory
    tally: Counters
    daily_quota: int
    stop: StopSignal
    clock: Clock
    emit: EventDispatcher

    def __post_init__(self) -> None:
        self._started = (self.clock.now(), self.clock.monotonic())

    def conclude(self, drain: Callable[[], None]) -> HarvestReport:
        """`drain` takes the campaigns that were not begun, so that they are counted."""
        self._attempt(drain)
        self._attempt(self.directory.compact_manifest)
        self._attempt(self.directory.sync)
        campaigns = self._attempt(self._count) or Campaigns()
        report = self._report(campaigns)
        try:
            self._write(report)
        except StorageError as full:
            self.stop.request(full)
            report = self._report(campaigns)
        self.emit(events.RunFinished(report.exit_code, report.reason))
        return report

    def _attempt(self, step: Callable[[], T]) -> T | None:
        """Take a step; None if the disk refuses, which the run ends with then.

        The run's own reason, if it has one, stands.
        """
        try:
            return step()
        except StorageError as full:
            self.stop.request(full)
            return None

    def _write(self, report: HarvestReport) -> None:
        """Nothing where the directory at this path is no longer the run's."""
        self.directory.lock.check()
        summary = to_json(report)
        replace_file(self.directory.layout.summary, summary)
        self.directory.runs.append(orjson.loads(summary))
        self.directory.runs.sync()

    def _count(self) -> Campaigns:
        counts = self.directory.store.counts()
        return Campaigns(total=sum(counts.values()), **counts)

    def _report(self, campaigns: Campaigns) -> HarvestReport:
        tally, (started, began) = self.tally, self._started
        now = self.clock.now()
        end = conclude(self.stop.order, campaigns, tally.deferred_until)
        return HarvestReport(
            run_id=self.run_id,
            exit_code=end.exit_code,
            reason=end.reason,
            message=end.message or self.emit.observer_failure,
            resume_at=end.resume_at,
            campaigns=campaigns,
            requests=Requests(tally.sent, tally.ok, tally.retried, tally.throttled),
            pages=tally.pages,
            rows=tally.rows,
            bytes=tally.bytes,
            quota=Quota(self.daily_quota, tally.used_today, next_reset(now)),
            started_at=started,
            finished_at=now,
            elapsed_s=round(self.clock.monotonic() - began, 3),
            errors=self.directory.layout.errors,
        )
