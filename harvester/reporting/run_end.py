"""The end of a run: made durable, counted, written to summary.json and runs.ndjson, announced."""

from collections.abc import Callable
from typing import TypeVar

import orjson

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


class RunEnd:
    """Concludes one run, which begins when this is made. It awaits nothing: a cancel cannot cut it
    short; nor does a step that the disk refuses: what was saved before is counted."""

    def __init__(
        self,
        run_id: str,
        directory: Directory,
        *,
        tally: Counters,
        daily_quota: int,
        stop: StopSignal,
        clock: Clock,
        emit: EventDispatcher,
    ) -> None:
        self._run_id = run_id
        self._directory = directory
        self._tally = tally
        self._daily_quota = daily_quota
        self._stop = stop
        self._clock = clock
        self._emit = emit
        self._started = (clock.now(), clock.monotonic())

    def conclude(self, drain: Callable[[], None]) -> HarvestReport:
        """`drain` takes the campaigns that were not begun, so that they are counted."""
        self._attempt(drain)
        self._attempt(self._directory.compact_manifest)
        self._attempt(self._directory.sync)
        campaigns = self._attempt(self._count) or Campaigns()
        report = self._report(campaigns)
        try:
            self._write(report)
        except StorageError as full:
            self._stop.request(full)
            report = self._report(campaigns)
        self._emit(events.RunFinished(report.exit_code, report.reason))
        return report

    def _attempt(self, step: Callable[[], T]) -> T | None:
        """Take a step; None if the disk refuses, which the run ends with then.

        The run's own reason, if it has one, stands.
        """
        try:
            return step()
        except StorageError as full:
            self._stop.request(full)
            return None

    def _write(self, report: HarvestReport) -> None:
        """Nothing where the directory at this path is no longer the run's."""
        self._directory.lock.check()
        summary = to_json(report)
        replace_file(self._directory.layout.summary, summary)
        self._directory.runs.append(orjson.loads(summary))
        self._directory.runs.sync()

    def _count(self) -> Campaigns:
        counts = self._directory.store.counts()
        return Campaigns(
            total=sum(counts.values()),
            complete=counts.get("complete", 0),
            failed=counts.get("failed", 0),
            partial=counts.get("partial", 0),
            pending=counts.get("pending", 0),
        )

    def _report(self, campaigns: Campaigns) -> HarvestReport:
        tally, (started, began) = self._tally, self._started
        now = self._clock.now()
        end = conclude(self._stop.order, campaigns, tally.deferred_until)
        return HarvestReport(
            run_id=self._run_id,
            exit_code=end.exit_code,
            reason=end.reason,
            message=end.message or self._emit.observer_failure,
            resume_at=end.resume_at,
            campaigns=campaigns,
            requests=Requests(tally.sent, tally.ok, tally.retried, tally.throttled),
            pages=tally.pages,
            rows=tally.rows,
            bytes=tally.bytes,
            quota=Quota(self._daily_quota, tally.used_today, next_reset(now)),
            started_at=started,
            finished_at=now,
            elapsed_s=round(self._clock.monotonic() - began, 3),
            errors=self._directory.layout.errors,
        )
