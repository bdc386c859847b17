"""What a run will cost, asked of the API: its counts, and the details of a few campaigns.

All that is asked for is charged, and kept in the directory's state for the run.
"""

import heapq
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

from harvester.campaign.context import RunContext, WalkOptions
from harvester.campaign.details import CampaignDetails
from harvester.client import open_credentials, open_stack
from harvester.config import KNOWN, HarvestConfig
from harvester.disk.compress import CODECS
from harvester.disk.directory import Directory, open_directory
from harvester.disk.part import is_regular
from harvester.disk.saved_walk import SavedWalk
from harvester.errors import CampaignError
from harvester.input.counts import CountsAhead
from harvester.input.known import known
from harvester.input.order import KnownSizes
from harvester.input.queue import WalkQueue
from harvester.model import Target
from harvester.preflight import layout_of, preflight
from harvester.runtime import Clock, StopSignal

_SAMPLE = 30  # details


@dataclass(frozen=True, slots=True)
class Estimate:
    """The requests of a run; `at_least` where the counts of some reports are not known."""

    requests: int
    at_least: bool


async def ask(campaign_ids: Collection[str], config: HarvestConfig) -> Estimate:
    """Ask for what tells the requests of a run over these campaigns.

    Raises as `harvest` does, and `StopRun` where nothing more may be sent.
    """
    stop, clock, api = StopSignal(), Clock(), config.make_api()
    preflight(config)
    credentials = await open_credentials(config, stop)
    with ExitStack() as stack:
        sizes = stack.enter_context(closing(KnownSizes()))
        directory = stack.enter_context(
            open_directory(
                layout_of(config),
                config.identity(),
                reports=config.walks,
                known_reports=KNOWN,
                fresh=False,
                provenance=False,
                tops_up=False,
                durable=config.durable,
                now=clock.now(),
                removing=lambda files, size: None,
            )
        )
        queue = WalkQueue(
            campaign_ids,
            api,
            directory.store,
            reports=config.walks,
            retry_failed=config.retry_failed,
            top_up=config.tops_up,
            is_there=lambda saved: is_regular(directory.layout.final(saved.target)),
            sizes=sizes,
            clock=clock,
            stop=stop,
            emit=lambda event: None,
        )
        async with open_stack(
            config,
            credentials,
            api,
            stop=stop,
            clock=clock,
            emit=lambda event: None,
            call_after_commit=directory.store.call_after_commit,
        ) as way:
            ahead = queue.use_counts(way.fetcher, page_size=config.page_size)
            await queue.count()
            stop.check()
            context = RunContext(
                run_id="",
                fetcher=way.fetcher,
                api=api,
                options=WalkOptions(page_size=config.page_size, max_pages=config.max_pages),
                layout=directory.layout,
                lock=directory.lock,
                store=directory.store,
                manifest=directory.manifest,
                codec=CODECS[config.compress],
                clock=clock,
                emit=lambda event: None,
            )
            forecast = _Forecast(directory, ahead, CampaignDetails(context), config, clock)
            estimate = await forecast.make(campaign_ids)
            directory.sync()
            return estimate


class _Forecast:
    """Adds up the campaigns, and what a sample of them takes beyond its counts."""

    def __init__(
        self,
        directory: Directory,
        ahead: CountsAhead,
        details: CampaignDetails,
        config: HarvestConfig,
        clock: Clock,
    ) -> None:
        self._store = directory.store
        self._ahead = ahead
        self._details = details
        self._config = config
        self._clock = clock
        self._has_details = config.make_api().details is not None

    async def make(self, campaign_ids: Collection[str]) -> Estimate:
        """The requests of all campaigns."""
        requests = without_detail = 0
        unknown = False
        sample: list[tuple[int, str]] = []
        for campaign_id in campaign_ids:
            walks = list(self._ahead.to_make(campaign_id))
            if not walks:
                continue
            found, certain = self._requests(campaign_id, walks)
            requests, unknown = requests + found, unknown or not certain
            if self._has_details and self._asks_detail(campaign_id, walks):
                without_detail += 1
                # Those of the lowest digests: by chance, and the same ones each time.
                each = (-zlib.crc32(campaign_id.encode()), campaign_id)
                heapq.heappush(sample, each)
                if len(sample) > _SAMPLE:
                    heapq.heappop(sample)
        beyond = 0
        for _, campaign_id in sample:
            walks = list(self._ahead.to_make(campaign_id))
            before, _ = self._requests(campaign_id, walks)
            try:
                await self._details.of(Target(self._config.walks[0], campaign_id))
            except CampaignError:  # its walks will ask again, and fail
                continue
            after, _ = self._requests(campaign_id, walks)
            beyond += after - (before - 1)  # the detail is not to be asked for again
            requests += after - before
        if sample:
            requests += round((without_detail - len(sample)) * beyond / len(sample))
        return Estimate(requests, unknown and requests > 0)

    def _asks_detail(self, campaign_id: str, walks: list[SavedWalk]) -> bool:
        campaign = known(self._store.campaign(campaign_id))
        begins = any(walk.position.pages == 0 or walk.state == "complete" for walk in walks)
        return begins and not campaign.detail_is_current(self._store.round, self._clock.now())

    def _requests(self, campaign_id: str, walks: list[SavedWalk]) -> tuple[int, bool]:
        """What a campaign takes by what is known of it, and whether all of it is known."""
        campaign, certain = known(self._store.campaign(campaign_id)), True
        requests = int(self._has_details and self._asks_detail(campaign_id, walks))
        for walk, pages in zip(walks, self._pages(campaign_id, walks), strict=True):
            if pages is None:
                certain = False
                requests += 1
            else:
                requests += max(0, pages - walk.position.pages)
        return requests, certain and campaign.counts is not None

    def _pages(self, campaign_id: str, walks: list[SavedWalk]) -> Iterator[int | None]:
        campaign, now = known(self._store.campaign(campaign_id)), self._clock.now()
        for walk in walks:
            grows = walk.state == "complete" or walk.base is not None
            report = walk.target.report
            yield None if grows else campaign.pages(report, self._config.page_size, now)
