"""One run: directory, stack, coordinator and reports put together, and taken down in order."""

import asyncio
import inspect
from collections.abc import Collection
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import anyio

from harvester import events
from harvester.api.base import Api
from harvester.campaign.context import RunContext, WalkOptions
from harvester.campaign.harvest import CampaignHarvester
from harvester.campaign.publish import Publisher
from harvester.client import Stack, open_credentials, open_stack
from harvester.config import KNOWN, HarvestConfig
from harvester.coordinator import Coordinator
from harvester.disk.compress import CODECS
from harvester.disk.directory import Directory, open_directory
from harvester.disk.lock import BEAT, DirectoryLock
from harvester.disk.part import is_regular, is_whole
from harvester.disk.saved_walk import SavedWalk
from harvester.errors import ConfigError, StopRun, describe_bug
from harvester.events import Event, Observer
from harvester.input.lookup import Lookup
from harvester.input.order import KnownSizes
from harvester.input.queue import CampaignIds, WalkQueue
from harvester.preflight import layout_of, preflight
from harvester.reporting.counters import Counters, EventDispatcher, Reducer
from harvester.reporting.logs import ErrorReport, Provenance, RetryReport
from harvester.reporting.run_end import RunEnd
from harvester.reporting.summary import HarvestReport, new_run_id
from harvester.request.credentials import Credentials
from harvester.runtime import Clock, StopSignal, repeated

GRACE = 5.0  # what a signal leaves to the requests in flight (s)


async def harvest(
    campaign_ids: CampaignIds, config: HarvestConfig, *, observe: Observer | None = None
) -> HarvestReport:
    """Harvest the campaigns into `config.output`; the same call again continues.

    `campaign_ids` is read lazily, each id once. `observe` gets every event (`harvester.events`),
    synchronously. If it raises, it gets no more events and the run goes on: an `ObserverFailed`
    event, and the report's `message`, name the error with its file and line.

    Returns the report, whatever the run came to: look at `exit_code`.

    Raises `ConfigError` if a setting, an id, or a directory cannot be used, and `StopRun` with the
    reason "locked" if another run works in the directory. Cancelling the task is the orderly stop:
    everything is saved, then `CancelledError` goes on its way.
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
            raise ConfigError("observe: a plain function, for what it returns is not awaited")
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
        config, api = self.config, self.config.make_api()
        if isinstance(campaign_ids, str | bytes):
            raise ConfigError("campaign_ids: an iterable of ids, not one string")
        if isinstance(campaign_ids, Collection):
            for campaign_id in campaign_ids:
                api.check_id(campaign_id)
        preflight(config)
        credentials = await open_credentials(config, self._stop)
        early: list[Event] = []
        with ExitStack() as stack:
            sizes = stack.enter_context(closing(KnownSizes()))
            if config.sizes is not None:
                sizes.read(Path(config.sizes))
                if isinstance(campaign_ids, Collection):
                    campaign_ids = sizes.longest_first(campaign_ids)
            directory = stack.enter_context(
                open_directory(
                    layout_of(config),
                    config.identity(),
                    reports=config.walks,
                    known_reports=KNOWN,
                    fresh=config.fresh,
                    provenance=config.provenance,
                    tops_up=config.tops_up,
                    durable=config.durable,
                    now=self._clock.now(),
                    removing=lambda files, size: early.append(events.FilesRemoved(files, size)),
                )
            )
            stack.enter_context(repeated(BEAT, partial(self._beat, directory.lock)))
            run = _Run(config, api, directory, self._stop, self._clock, self._observe, sizes)
            for event in early:
                run.emit(event)
            return await run.harvest(campaign_ids, credentials)

    def _beat(self, lock: DirectoryLock) -> None:
        """Show other machines that this run lives; stop if one has taken the directory."""
        try:
            lock.beat()
        except StopRun as order:
            self._stop.request(order)


class _Run:
    """A run within its open directory."""

    def __init__(
        self,
        config: HarvestConfig,
        api: Api,
        directory: Directory,
        stop: StopSignal,
        clock: Clock,
        observe: Observer | None,
        sizes: KnownSizes,
    ) -> None:
        self._config = config
        self._api = api
        self._sizes = sizes
        self._directory = directory
        self._stop = stop
        self._clock = clock
        self.run_id = new_run_id(clock.now())
        self._tally = Counters()
        reducers: list[Reducer] = [
            self._tally,
            RetryReport(directory.retries, self.run_id, clock),
            ErrorReport(directory.errors, self.run_id, clock),
        ]
        if directory.pages is not None:
            reducers.append(Provenance(directory.pages, self.run_id, clock))
        self.emit = EventDispatcher(reducers, () if observe is None else (observe,))
        self._end = RunEnd(
            run_id=self.run_id,
            directory=directory,
            tally=self._tally,
            daily_quota=config.daily_quota,
            stop=stop,
            clock=clock,
            emit=self.emit,
        )
        stop.on_order = lambda order: self.emit(
            events.RunStopping(order.reason, str(order), order.resume_at)
        )

    async def harvest(self, campaign_ids: CampaignIds, credentials: Credentials) -> HarvestReport:
        """Do the work, then conclude, however the work ended."""
        layout = self._directory.layout
        queue = WalkQueue(
            ids=campaign_ids,
            api=self._api,
            store=self._directory.store,
            reports=self._config.walks,
            retry_failed=self._config.retry_failed,
            top_up=self._config.tops_up,
            is_there=lambda saved: is_regular(layout.name(saved.target)),
            is_whole=self._is_whole if self._config.repair else None,
            sizes=self._sizes,
            clock=self._clock,
            stop=self._stop,
            emit=self.emit,
        )
        try:
            async with open_stack(
                self._config,
                credentials,
                self._api,
                stop=self._stop,
                clock=self._clock,
                emit=self.emit,
                reference=queue.accepted_before,
                call_after_commit=self._directory.store.call_after_commit,
            ) as stack:
                await self._work(stack, queue)
        except StopRun as order:
            self._stop.request(order)
        except BaseException as error:
            # A cancel, or the caller's own ids failed: saved and reported all the same.
            if isinstance(error, anyio.get_cancelled_exc_class()):
                self._stop.request(StopRun("cancelled", "the task was cancelled"))
            self._stop.request(StopRun("bug", f"an unexpected {describe_bug(error)}"))
            self._end.conclude(queue.drain)
            raise
        report = self._end.conclude(queue.drain)
        if queue.refused is not None:
            raise queue.refused
        return report

    def _is_whole(self, saved: SavedWalk) -> bool:
        final = self._directory.layout.final(saved.target)
        return is_whole(final, size=saved.position.offset, digest=saved.digest)

    async def _work(self, stack: Stack, queue: WalkQueue) -> None:
        config, directory = self._config, self._directory
        used = self._tally.used_today = stack.ledger.used_today()
        self.emit(
            events.RunStarted(
                run_id=self.run_id,
                output=str(config.directory),
                total=queue.total,
                reports=config.walks,
                rate=config.rate,
                quota_limit=config.requests_a_day,
                used_today=used,
            )
        )
        context = RunContext(
            run_id=self.run_id,
            fetcher=stack.fetcher,
            api=self._api,
            options=WalkOptions(
                page_size=config.page_size,
                min_page_size=config.min_page_size,
                since=directory.since,
                max_pages=config.max_pages,
                summary=config.summary,
                expected=self._sizes.pages,
                counted=self._sizes.counted,
                counts=config.counts,
            ),
            layout=directory.layout,
            lock=directory.lock,
            store=directory.store,
            manifest=directory.manifest,
            codec=CODECS[config.compress],
            clock=self._clock,
            emit=self.emit,
        )
        lookup = Lookup(
            fetcher=stack.fetcher,
            api=self._api,
            store=directory.store,
            reports=config.reports,
            links=config.links,
            summary=config.summary,
            believed=config.counts,
            clock=self._clock,
            emit=self.emit,
        )
        await (publisher := Publisher(context)).republish()
        campaigns = CampaignHarvester(context, publisher, lookup)
        coordinator = Coordinator(campaigns.harvest, workers=config.open_walks, stop=self._stop)
        if config.counts or config.summary:
            queue.use_counts(lookup, page_size=config.page_size)
        timer = self._stop_after(config.max_duration)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(queue.look_ahead)
                await coordinator.run(queue.walks())
                queue.end(group.cancel_scope)
            all_asked = not self._stop.requested and self._tally.deferred_until is None
            if config.tops_up and all_asked:
                directory.store.end_round()
        except ExceptionGroup as group:
            raise _only(group) from None
        finally:
            if timer is not None:
                timer.cancel()

    def _stop_after(self, seconds: float | None) -> asyncio.TimerHandle | None:
        if seconds is None:
            return None

        def stop() -> None:
            why = f"the run has lasted `max_duration` {seconds:g} s"
            now = self._clock.now()
            resume_at = max(now, self._tally.paused_until or now)  # it may be waiting for the quota
            self._stop.request(StopRun("max_duration", why, resume_at=resume_at))

        return asyncio.get_running_loop().call_later(seconds, stop)


def _only(group: ExceptionGroup[Exception]) -> Exception:
    """The one error in a group of groups, or the group."""
    error: Exception = group
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
