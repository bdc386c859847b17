"""The API's counts of the campaigns, asked for in blocks ahead of their walks.

One task reads the ids ahead and keeps in the state what the API says; the queue of walks waits for
the block of the next campaign, and for no later one. What cannot be had costs a note.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice

import anyio

from harvester import events
from harvester.api.base import Api
from harvester.api.counts import BulkCounts, CampaignCounts, requests_saved
from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.saved_walk import SavedWalk
from harvester.errors import CampaignError, ConfigError
from harvester.events import Observer
from harvester.input.known import KnownCampaign, known
from harvester.input.order import KnownSizes
from harvester.model import Fetcher, Request, Target
from harvester.runtime import Clock

REPORT = "counts"
"""The name of these requests where walks have that of their report."""
_FIRST = -1_000_000  # before the pages of any walk
_WRONG_ID = (400, 404)  # the whole block is refused where one id is wrong
_MOST_TRIES = 20  # requests for one block
_MOST_FAILURES = 2  # after so many, none are asked for any more


class CountsAhead:
    """Reads ids ahead of the queue, asks for their counts, and notes what the walks will take.

    They are asked for where they save requests, or are wanted for a `summary`. `believed` says that
    a report may be left out by them.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        api: Api,
        store: CheckpointStore,
        sizes: KnownSizes,
        *,
        reports: Sequence[str],
        page_size: int,
        is_to_make: Callable[[SavedWalk], bool],
        top_up: bool,
        summary: bool = False,
        believed: bool = True,
        clock: Clock,
        emit: Observer,
    ) -> None:
        self._fetcher = fetcher
        self._api = api
        self._store = store
        self._sizes = sizes
        self._reports = reports
        self._page_size = page_size
        self._is_to_make = is_to_make
        self._top_up = top_up
        self._summary = summary
        self.believed = believed
        self._clock = clock
        self._emit = emit
        self._bulk = api.bulk_counts
        self._failures = 0
        self._proven = False  # counts came at least once
        self._read: int | None = 0  # None: all
        self._moved = anyio.Event()

    async def run(self, ids: Iterable[str | int]) -> None:
        """Ask for the counts of all ids, block by block. Raise only `StopRun`."""
        each = self._checked(ids)
        try:
            read = 0
            while self._bulk is not None and (block := list(islice(each, self._bulk.most_ids))):
                await self._block([each for each in dict.fromkeys(block) if self._is_new(each)])
                read += len(block)
                self._reach(read)
        finally:
            self._reach(None)

    async def reached(self, number: int) -> None:
        """Return when nothing more will be known of the campaign that is the `number`-th id."""
        while self._read is not None and self._read <= number:
            await self._moved.wait()

    def _reach(self, read: int | None) -> None:
        self._read = read
        self._moved.set()
        self._moved = anyio.Event()

    def _checked(self, ids: Iterable[str | int]) -> Iterator[str]:
        """The ids up to one that is none: the queue says so when it comes to it."""
        try:
            for campaign_id in ids:
                yield self._api.check_id(campaign_id)
        except ConfigError:
            return

    def _is_new(self, campaign_id: str) -> bool:
        return self._sizes.counted(Target(self._reports[0], campaign_id)) is None

    # -- one block -----------------------------------------------------------------------------

    async def _block(self, ids: Sequence[str]) -> None:
        to_make = {campaign_id: list(self.to_make(campaign_id)) for campaign_id in ids}
        campaigns = {each: known(self._store.campaign(each)) for each in ids}
        now = self._clock.now()
        uncounted = {
            each: campaign
            for each, campaign in campaigns.items()
            if self._is_due(campaign, now) and any(map(_begins, to_make[each]))
        }
        gain = sum(
            requests_saved(
                (walk.target.report for walk in to_make[each] if _begins(walk)), top_up=self._top_up
            )
            for each in uncounted
        )
        if self._bulk is not None and (gain >= 1 or (uncounted and self._summary)):
            found = await self._ask(list(uncounted), self._bulk)
            now = self._clock.now()
            fresh = {
                each: uncounted[each].with_counts(counts, now) for each, counts in found.items()
            }
            self._store.keep(campaign.saved for campaign in fresh.values())
            campaigns |= fresh
        self._announce(campaigns, to_make)

    def _is_due(self, campaign: KnownCampaign, now: datetime) -> bool:
        """Whether counts are to be asked for: once in 24 hours, and in each round of top-ups."""
        return not campaign.is_counted(now) or not campaign.is_counted_since(self._store.round_at)

    def to_make(self, campaign_id: str) -> Iterator[SavedWalk]:
        """The walks of a campaign that are to be made, as they were left."""
        for report in self._reports:
            walk = self._store.peek(Target(report, campaign_id))
            if walk.run < self._store.run and self._is_to_make(walk):
                yield walk

    async def _ask(self, ids: Sequence[str], bulk: BulkCounts) -> dict[str, CampaignCounts | None]:
        """The counts of a block; None for an id without any. Ids that were not asked are absent.

        Where the API refuses a block, its halves are asked for.
        """
        found: dict[str, CampaignCounts | None] = {}
        blocks, tries = [ids], 0
        while blocks and tries < _MOST_TRIES:
            block, tries = blocks.pop(), tries + 1
            target = Target(REPORT, block[0])
            request = Request(target, bulk.link(block), bulk.read, priority=_FIRST, optional=True)
            try:
                answer = await self._fetcher.fetch(request)
            except CampaignError as error:
                if error.status not in _WRONG_ID or len(block) == 1:
                    found |= dict.fromkeys(block if error.status in _WRONG_ID else ())
                    if self._missed(block, error, alone=error.status in _WRONG_ID):
                        break
                    continue
                middle = len(block) // 2
                blocks += [block[middle:], block[:middle]]
            else:
                self._proven = self._proven or bool(answer)
                found |= {each: answer.get(each) for each in block}
        return found

    def _missed(self, block: Sequence[str], error: CampaignError, *, alone: bool) -> bool:
        """Note that counts cannot be had; whether to ask for no more in this block."""
        self._failures += 1
        if self._failures >= _MOST_FAILURES and not self._proven:
            self._bulk = None
        self._emit(events.CountsMissed(len(block), str(error)))
        return self._bulk is None or not alone

    def _announce(
        self, campaigns: dict[str, KnownCampaign], to_make: dict[str, list[SavedWalk]]
    ) -> None:
        """Note the size of each walk whose count is known, and emit what they take together."""
        now, sizes = self._clock.now(), dict[Target, int]()
        requests = details = 0
        for campaign_id, walks in to_make.items():
            campaign = campaigns[campaign_id]
            for report in self._reports:
                sizes[Target(report, campaign_id)] = 0
            for walk in walks:
                pages = (
                    None
                    if self._top_up
                    else campaign.pages(walk.target.report, self._page_size, now)
                )
                if pages is None:
                    del sizes[walk.target]
                else:
                    sizes[walk.target] = pages
                    requests += max(0, pages - walk.position.pages)
            details += (
                self._api.details is not None
                and any(map(_begins, walks))
                and not campaign.detail_is_current(self._store.round, now)
            )
        self._sizes.note(sizes)
        self._emit(events.WorkCounted(walks=len(sizes), requests=requests, details=details))


def _begins(walk: SavedWalk) -> bool:
    return walk.position.pages == 0 or walk.state == "complete"
