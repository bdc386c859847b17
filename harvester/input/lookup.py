"""What walks need to know of campaigns: asked of the API, and kept in the state.

Counts come in bulk and details one by one, each once, whatever the number of a campaign's reports.
What a walk can do without costs a note where it cannot be had.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from weakref import WeakValueDictionary

from msgspec import Struct
from msgspec.structs import replace

from harvester import events
from harvester.api.base import Api
from harvester.api.counts import BulkCounts, CampaignCounts
from harvester.disk.checkpoint import CheckpointStore
from harvester.errors import CampaignError, Deferred
from harvester.events import Observer
from harvester.input.known import KnownCampaign, known, requests_saved, worth_asking
from harvester.model import Fetcher, Request, Target
from harvester.runtime import Clock, stamp

REPORT = "counts"
"""The name of these requests where walks have that of their report."""
_FIRST = -1_000_000  # before the pages of any walk
_WRONG_ID = (400, 404)  # the whole block is refused where one id is wrong
_MOST_TRIES = 20  # requests for one block
_MOST_FAILURES = 2  # after so many, none are asked for any more
_KEPT_FAILURES = 1_000  # far more than there are campaigns under way


class Lookup(Struct, eq=False, kw_only=True, dict=True):
    """Knows campaigns; shared by all tasks of a run.

    `reports` are wanted; `believed` says that reports may be left out by the counts.
    """

    fetcher: Fetcher
    api: Api
    store: CheckpointStore
    reports: Collection[str]
    links: bool
    summary: bool
    believed: bool
    clock: Clock
    emit: Observer

    def __post_init__(self) -> None:
        self.bulk = self.api.bulk_counts
        self._began = stamp(self.clock.now())
        self._misses = self._activity_misses = 0
        self._proven = False  # counts came at least once
        # A lock for each campaign that is asked for now; one that is not held is gone.
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._failures: OrderedDict[str, CampaignError] = OrderedDict()

    def kept(self, campaign_id: str) -> KnownCampaign:
        """What the state has of a campaign, old or not."""
        return known(self.store.campaign(campaign_id))

    def has_current_detail(self, campaign: KnownCampaign) -> bool:
        """Whether the detail need not be asked for."""
        return campaign.detail_is_current(self.store.ask_since, self.clock.now())

    # -- one detail ----------------------------------------------------------------------------

    async def detail(self, target: Target, *, top_up: bool = False) -> KnownCampaign:
        """The campaign, with a current detail where walks need it or it saves requests.

        Tasks that want the same campaign's wait for one answer. Raise what asking for a detail that
        is required raises; a failure stands for all reports of the campaign in this run.
        """
        campaign_id = target.campaign_id
        if not (self.api.needs_detail or self._is_worth_it(top_up=top_up)):
            return self.kept(campaign_id)
        asking = self._asking.setdefault(campaign_id, asyncio.Lock())
        async with asking:
            campaign = self.kept(campaign_id)
            if not self.has_current_detail(campaign):
                try:
                    campaign = await self._ask_detail(campaign, target)
                except CampaignError:
                    if self.api.needs_detail:
                        raise
                    return campaign  # its reports may be there all the same
            doubtful = self.believed and campaign.is_doubtful(self.reports, self.clock.now())
            if doubtful and not top_up:
                campaign = await self._look_at_sends(campaign)
            return campaign

    async def counted(self, target: Target, *, anew: bool) -> CampaignCounts | None:
        """The counts in a campaign's detail, `anew` those that came in this run; None if the API
        does not say. Tasks that want the same campaign's wait for one answer."""
        campaign_id, since = target.campaign_id, self._began if anew else ""
        asking = self._asking.setdefault(campaign_id, asyncio.Lock())
        async with asking:
            campaign = self.kept(campaign_id)
            if not (campaign.is_counted(self.clock.now()) and campaign.is_counted_since(since)):
                try:
                    campaign = await self._ask_detail(campaign, target)
                except CampaignError:
                    return None  # the events are all there; only the comparison is missing
            return campaign.counts

    def _is_worth_it(self, *, top_up: bool) -> bool:
        """Whether a detail saves more than the one request that it costs (v2): it has the links and
        the counts, which are a request each, and shows the empty reports."""
        if top_up:  # whether something came is seen by asking
            return False
        empty = requests_saved(self.reports) if self.believed else 0.0
        return empty + self.links + self.summary > 1

    async def _ask_detail(self, campaign: KnownCampaign, target: Target) -> KnownCampaign:
        campaign_id = target.campaign_id
        if (failure := self._failures.get(campaign_id)) is not None:
            raise failure.with_traceback(None)
        read = partial(self.api.read_detail, campaign_id)
        link, optional = self.api.detail_link(campaign_id), not self.api.needs_detail
        try:
            detail = await self.fetcher.fetch(
                Request(target, link, read, priority=_FIRST, optional=optional)
            )
        except CampaignError as error:
            self.emit(events.DetailAsked(target))
            if not isinstance(error, Deferred):
                self._failures[campaign_id] = error
            if len(self._failures) > _KEPT_FAILURES:
                self._failures.popitem(last=False)
            raise
        self.emit(events.DetailAsked(target))
        if not self.links:
            detail = replace(detail, links=None)
        return self._keep(campaign.with_detail(detail, self.clock.now()))

    def _keep(self, campaign: KnownCampaign) -> KnownCampaign:
        self.store.keep([campaign.saved])  # committed before the request gives back its permit
        return campaign

    async def _look_at_sends(self, campaign: KnownCampaign) -> KnownCampaign:
        """Look whether a campaign without any count was sent: one request, where its reports would
        take one each."""
        target = Target("sends", campaign.campaign_id)
        link = self.api.first_link(target, limit=1, since=None, detail=campaign.detail)
        read = partial(self.api.read_page, target, link)
        try:
            page = await self.fetcher.fetch(Request(target, link, read, optional=True))
        except CampaignError:
            return self._keep(campaign.looked_at(sent=True))  # not known: all is asked for
        return self._keep(campaign.looked_at(sent=page.rows > 0 or page.next is not None))

    # -- counts in bulk ------------------------------------------------------------------------

    async def counts(self, campaign_ids: Sequence[str]) -> None:
        """Ask for the counts of campaigns; where the API refuses them, for those of each half."""
        blocks, tries = [campaign_ids] if campaign_ids else [], 0
        while self.bulk is not None and blocks and tries < _MOST_TRIES:
            block, tries = blocks.pop(), tries + 1
            try:
                found = await self._fetch(self.bulk, block, block[0])
                self._proven = self._proven or bool(found)
            except CampaignError as error:
                if error.status in _WRONG_ID and len(block) > 1:
                    middle = len(block) // 2
                    blocks += [block[middle:], block[:middle]]
                    continue
                self._misses += 1
                if self._misses >= _MOST_FAILURES and not self._proven:
                    self.bulk = None
                self.emit(events.CountsMissed(len(block), str(error)))
                if error.status not in _WRONG_ID:
                    return
                found = {}
            now = self.clock.now()
            self.store.keep(
                self.kept(each).with_counts(found.get(each), now).saved for each in block
            )

    async def activities(self, campaign_ids: Iterable[str]) -> int:
        """Ask for the counts of the activities of campaigns, where that saves requests; give how
        many requests it took."""
        bulk, requests = self.bulk.activities if self.bulk else None, 0
        if bulk is None or not self.believed:
            return 0
        campaigns = map(self.kept, campaign_ids)
        for block in worth_asking(campaigns, self.reports, bulk.most_ids, self.clock.now()):
            if self._activity_misses >= _MOST_FAILURES:
                break
            requests += 1
            ids = [name for each in block for name in each.activities]
            try:
                found = await self._fetch(bulk, ids, block[0].campaign_id)
            except CampaignError as error:
                self._activity_misses += 1
                self.emit(events.CountsMissed(len(block), str(error)))
                continue
            self.store.keep(each.with_activities(found).saved for each in block)
        return requests

    async def _fetch(
        self, bulk: BulkCounts, ids: Sequence[str], campaign_id: str
    ) -> dict[str, CampaignCounts]:
        target, link = Target(REPORT, campaign_id), bulk.link(ids)
        return await self.fetcher.fetch(
            Request(target, link, bulk.read, priority=_FIRST, optional=True)
        )
