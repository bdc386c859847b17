"""One run: directory, stack, coordinator and reports put together, and taken down in order."""

import asyncio
import inspect
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.lowlevel

from harvester import events
from harvester.api.base import Api
from harvester.campaign.harvest import CampaignHarvester
from harvester.campaign.publish import Publisher
from harvester.campaign.walk import WalkOptions
from harvester.client import Stack, open_credentials, open_stack, require_ledger
from harvester.config import KNOWN, HarvestConfig
from harvester.coordinator import Coordinator
from harvester.disk.checkpoint import SavedWalk
from harvester.disk.compress import CODECS
from harvester.disk.directory import Directory, open_directory
from harvester.disk.layout import Layout
from harvester.disk.part import is_whole
from harvester.disk.storage import replace_file
from harvester.errors import ConfigError, StopRun, StorageError
from harvester.events import Event, Observer
from harvester.input.order import KnownSizes
from harvester.input.queue import CampaignIds, WalkQueue
from harvester.reporting.counters import Counters, EventDispatcher
from harvester.reporting.logs import ErrorReport, Provenance, RetryReport
from harvester.reporting.summary import (
    Campaigns,
    HarvestReport,
    Quota,
    Requests,
    conclude,
    new_run_id,
    to_json,
)
from harvester.request.credentials import Credentials
from harvester.runtime import Clock, StopSignal, next_reset, require_open_files

T = TypeVar("T")
GRACE = 5.0  # what a signal leaves to the requests in flight (s)


async def harvest(
    campaign_ids: CampaignIds, config: HarvestConfig, *, observe: Observer | None = None
) -> HarvestReport:
    """Harvest the campaigns into `config.output`; the same call again continues.

    `campaign_ids` is read lazily, each id once. `observe` gets every event (`harvester.events`),
    synchronously. Returns the report, whatever the run came to: look at `exit_code`.

    Raises `ConfigError` if a setting, an id, or a directory cannot be used. Cancelling the task
    is the orderly stop: everything is saved, then `CancelledError` goes on its way.
    """
    return await Harvester(config, observe=observe).run(campaign_ids)


class Harvester:
    """One run of one config. `stop` may be called at any time, from the event loop's thread."""

    def __init__(
        self,
        config: HarvestConfig,
        *,
        observe: Observer | None = None,
        clock: Clock | None = None,
    ) -> None:
        if inspect.iscoroutinefunction(observe):
            raise ConfigError("observe: a plain function, for nobody would await what it returns")
        self.config = config
        self._observe = observe
        self._clock = clock or Clock()
        self._stop = StopSignal()

    def stop(self, reason: str, message: str) -> None:
        """Stop in order: ask for nothing more, save what is in flight, report."""
        self._stop.request(StopRun(reason, message), grace=GRACE)

    async def run(self, campaign_ids: CampaignIds) -> HarvestReport:
        """See `harvest`. Raises `StopRun` if `stop` was called before the first token was there:
        then the directory was not touched."""
        config = self.config
        api = config.make_api()
        if isinstance(campaign_ids, str | bytes):
            raise ConfigError("campaign_ids: an iterable of ids, not one string")
        require_open_files(config.open_files)
        credentials = await open_credentials(config, self._stop)
        require_ledger(config)
        with closing(KnownSizes()) as sizes:
            if isinstance(campaign_ids, Collection):
                for campaign_id in campaign_ids:
                    api.check_id(campaign_id)
            if config.sizes is not None:
                sizes.read(Path(config.sizes))
                if isinstance(campaign_ids, Collection):
                    campaign_ids = sizes.longest_first(campaign_ids)
            return await self._run(campaign_ids, api, credentials, sizes)

    async def _run(
        self, campaign_ids: CampaignIds, api: Api, credentials: Credentials, sizes: KnownSizes
    ) -> HarvestReport:
        config, clock = self.config, self._clock
        layout = Layout(config.directory, CODECS[config.compress].suffix)
        early: list[Event] = []
        with open_directory(
            layout,
            config.identity(),
            reports=config.walks,
            known_reports=KNOWN,
            fresh=config.fresh,
            provenance=config.provenance,
            tops_up=config.tops_up,
            sync_every=config.sync_every,
            clock=clock,
            removing=lambda files, size: early.append(events.FilesRemoved(files, size)),
        ) as directory:
            run = _Run(config, directory, self._stop, clock, self._observe, sizes)
            for event in early:
                run.emit(event)
            return await run.make(campaign_ids, api, credentials)


class _Run:
    """A run within its open directory."""

    def __init__(
        self,
        config: HarvestConfig,
        directory: Directory,
        stop: StopSignal,
        clock: Clock,
        observe: Observer | None,
        sizes: KnownSizes,
    ) -> None:
        self._config = config
        self._sizes = sizes
        self._directory = directory
        self._stop = stop
        self._clock = clock
        self._started = (clock.now(), clock.monotonic())
        self.run_id = new_run_id(self._started[0])
        self._tally = Counters()
        reducers: list[Observer] = [
            self._tally,
            RetryReport(directory.retries, self.run_id, clock),
            ErrorReport(directory.errors, self.run_id, clock),
        ]
        if directory.pages is not None:
            reducers.append(Provenance(directory.pages, self.run_id, clock))
        self.emit = EventDispatcher(reducers, () if observe is None else (observe,))
        self._source: WalkQueue | None = None
        stop.on_order = lambda order: self.emit(
            events.RunStopping(order.reason, str(order), order.resume_at)
        )

    async def make(
        self, campaign_ids: CampaignIds, api: Api, credentials: Credentials
    ) -> HarvestReport:
        """Do the work, then conclude, however the work ended."""
        self._source = WalkQueue(
            campaign_ids,
            api,
            self._directory.store,
            reports=self._config.walks,
            retry_failed=self._config.retry_failed,
            top_up=self._config.tops_up,
            is_whole=self._is_whole if self._config.repair else None,
            stop=self._stop,
            emit=self.emit,
        )
        try:
            async with open_stack(
                self._config,
                credentials,
                api,
                stop=self._stop,
                clock=self._clock,
                emit=self.emit,
                call_after_commit=self._directory.store.call_after_commit,
            ) as stack:
                await self._work(stack, api, self._source)
        except StopRun as order:
            self._stop.request(order)
        except BaseException as error:
            # A cancel, or the caller's own ids or observer failed: saved and told all the same.
            if isinstance(error, anyio.get_cancelled_exc_class()):
                self._stop.request(StopRun("cancelled", "the task was cancelled"))
            self._stop.request(StopRun("bug", f"an unexpected {type(error).__name__}"))
            self._conclude()
            raise
        report = self._conclude()
        if self._source.refused is not None:
            raise self._source.refused
        return report

    def _is_whole(self, record: SavedWalk) -> bool:
        final = self._directory.layout.final(record.target)
        return is_whole(final, size=record.position.offset, digest=record.digest)

    async def _work(self, stack: Stack, api: Api, source: WalkQueue) -> None:
        used = stack.ledger.used_today()
        self.emit(
            events.RunStarted(
                run_id=self.run_id,
                output=str(self._config.directory),
                total=source.total,
                reports=self._config.walks,
                rate=self._config.rate,
                quota_limit=self._config.requests_a_day,
                used_today=used,
            )
        )
        self._tally.used_today = used
        publisher = Publisher(
            self._directory.store,
            self._directory.layout,
            self._directory.manifest,
            run_id=self.run_id,
            clock=self._clock,
            emit=self.emit,
        )
        publisher.republish()
        campaigns = CampaignHarvester(
            stack.fetcher,
            api,
            WalkOptions(
                self._config.page_size,
                self._directory.since,
                self._config.max_pages,
                self._config.summary,
                self._sizes.pages,
                self._config.min_page_size,
            ),
            store=self._directory.store,
            layout=self._directory.layout,
            publisher=publisher,
            codec=CODECS[self._config.compress],
            clock=self._clock,
            emit=self.emit,
        )
        coordinator = Coordinator(
            campaigns.harvest, workers=self._config.open_walks, stop=self._stop
        )
        timer = self._stop_after(self._config.max_duration)
        try:
            await coordinator.run(source.records())
            all_asked = not self._stop.requested and self._tally.deferred_until is None
            if self._config.tops_up and all_asked:
                self._directory.store.end_round()
        except ExceptionGroup as group:
            raise _only(group) from None
        finally:
            if timer is not None:
                timer.cancel()

    def _stop_after(self, seconds: float | None) -> asyncio.TimerHandle | None:
        if seconds is None:
            return None

        def stop() -> None:
            why = f"the run has lasted --max-duration {seconds:g} s"
            now = self._clock.now()
            resume_at = max(now, self._tally.paused_until or now)  # it may be waiting for the quota
            self._stop.request(StopRun("max_duration", why, resume_at=resume_at))

        return asyncio.get_running_loop().call_later(seconds, stop)

    # -- the end -------------------------------------------------------------------------------

    def _conclude(self) -> HarvestReport:
        """Count, write summary.json, and say how it ended. Awaits nothing: a cancel cannot cut
        it short; nor does a step that the disk refuses: what was saved before is counted."""
        self._attempt(self._drain)
        self._attempt(self._directory.sync)
        campaigns = self._attempt(self._count) or Campaigns()
        report = self._report(campaigns)
        try:
            replace_file(self._directory.layout.summary, to_json(report))
        except StorageError as full:
            self._stop.request(full)
            report = self._report(campaigns)
        self.emit(events.RunFinished(report.exit_code, report.reason))
        return report

    def _attempt(self, step: Callable[[], T]) -> T | None:
        """Take a step; None if the disk refuses, which the run ends with then.

        The run's own reason, if it has one, is the better one to tell.
        """
        try:
            return step()
        except StorageError as full:
            self._stop.request(full)
            return None

    def _drain(self) -> None:
        if self._source is not None:
            self._source.drain()

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
            run_id=self.run_id,
            exit_code=end.exit_code,
            reason=end.reason,
            message=end.message,
            resume_at=end.resume_at,
            campaigns=campaigns,
            requests=Requests(tally.sent, tally.ok, tally.retried, tally.throttled),
            pages=tally.pages,
            rows=tally.rows,
            bytes=tally.bytes,
            quota=Quota(self._config.daily_quota, tally.used_today, next_reset(now)),
            started_at=started,
            finished_at=now,
            elapsed_s=round(self._clock.monotonic() - began, 3),
            errors=self._directory.layout.errors,
        )


def _only(group: ExceptionGroup[Exception]) -> Exception:
    """The one error in a group of groups, or the group."""
    error: Exception = group
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
