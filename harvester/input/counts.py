"""The ids read ahead of their walks, and what is known of the campaigns asked for meanwhile.

One task asks for the counts of all campaigns, block by block. Another stays some campaigns ahead of
the walks: it asks for their details, which each needs anyway, so that those of several activities
share a request for the counts of these. The queue waits for what comes next, and not for long.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import islice

import anyio

from harvester import events
from harvester.api.base import Api
from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.saved_walk import SavedWalk
from harvester.errors import ConfigError, HarvestError, StopRun
from harvester.events import Observer
from harvester.input.known import KnownCampaign, requests_saved
from harvester.input.lookup import Lookup
from harvester.input.order import KnownSizes
from harvester.model import Target
from harvester.runtime import Clock, StopSignal

_PATIENCE = 30.0  # s: walks begin without what is not there then
_FIRST_GROUP, _LARGEST_GROUP = 4, 40  # campaigns whose details are asked for together


class Reached:
    """How far a task has come with the ids; others wait for it."""

    def __init__(self, number: float = 0) -> None:
        self.number = number
        self._late = False
        self._moved = anyio.Event()

    def reach(self, number: float) -> None:
        """So many ids are done with."""
        self.number, self._late = number, False
        self._moved.set()
        self._moved = anyio.Event()

    async def wait(self, number: float, *, patience: float | None = None) -> None:
        """Return when `number` ids are done with. Where that takes longer than `patience` (s),
        nothing waits until some more are."""
        if self._late and patience is not None:
            return
        with anyio.move_on_after(patience) as scope:
            while self.number < number:
                await self._moved.wait()
        self._late = self._late or scope.cancelled_caught


class CountsAhead:
    """Reads ids ahead of the queue, has their counts asked for, and notes what the walks will take.

    They are asked for where they save requests, or are wanted for a `summary`.
    """

    def __init__(
        self,
        lookup: Lookup,
        api: Api,
        store: CheckpointStore,
        sizes: KnownSizes,
        *,
        reports: Sequence[str],
        page_size: int,
        is_to_make: Callable[[SavedWalk], bool],
        top_up: bool,
        summary: bool = False,
        clock: Clock,
        stop: StopSignal,
        emit: Observer,
    ) -> None:
        self.lookup = lookup
        self._api = api
        self._store = store
        self._sizes = sizes
        self._reports = reports
        self._page_size = page_size
        self._is_to_make = is_to_make
        self._top_up = top_up
        self._summary = summary
        self._clock = clock
        self._stop = stop
        self._emit = emit
        self._counted, self._begun = Reached(), Reached()
        self._prepared = Reached(float("inf"))

    async def reached(self, number: int) -> None:
        """The walks of the campaign that is the `number`-th id (from 0) are to begin: return when
        nothing more will be known of it before."""
        self._begun.reach(number)
        await self._counted.wait(number + 1, patience=_PATIENCE)
        await self._prepared.wait(number + 1, patience=_PATIENCE)

    async def run(self, ids: Iterable[str | int]) -> None:
        """Ask for the counts of all ids, block by block."""
        each, read = iter(ids), 0
        while (bulk := self.lookup.bulk) is not None and not self._stop.requested:
            if not (block := list(islice(each, bulk.most_ids))):
                break
            await self.block(block)
            read += len(block)
            self._counted.reach(read)
        self._counted.reach(float("inf"))

    async def prepare(self, ids: Iterable[str | int]) -> None:
        """Stay a group of campaigns ahead of the walks."""
        each, read, size = iter(ids), 0, _FIRST_GROUP
        self._prepared.reach(0)
        while self._pays() and (group := list(islice(each, size))):
            await self._counted.wait(read + len(group))
            await self.details(self._checked(group))
            read, size = read + len(group), min(2 * size, _LARGEST_GROUP)
            self._prepared.reach(read)
            await self._begun.wait(read - size // 4)
        self._prepared.reach(float("inf"))

    def end(self) -> None:
        """After an order to stop: let both tasks end with what is in flight."""
        self._counted.reach(float("inf"))
        self._begun.reach(float("inf"))

    def _pays(self) -> bool:
        bulk = self.lookup.bulk
        return (
            bulk is not None
            and bulk.activities is not None
            and self.lookup.believed
            and not (self._top_up or self._stop.requested)
            and requests_saved(self._reports) > 0.5
        )

    async def details(self, campaign_ids: Iterable[str]) -> int:
        """Ask for the details of campaigns whose walks begin, and for the counts of activities;
        give how many requests those took."""
        begin = {
            each: walks
            for each in campaign_ids
            if (walks := [walk for walk in self.to_make(each) if _begins(walk)])
        }
        async with anyio.create_task_group() as group:
            for campaign_id in begin:
                group.start_soon(self._detail, campaign_id)
        requests = 0
        with self._guarded():
            requests = await self.lookup.activities(begin)
        self._announce_again(begin)
        return requests

    async def _detail(self, campaign_id: str) -> None:
        with self._guarded():
            await self.lookup.detail(Target(self._reports[0], campaign_id))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """An order to stop is for the whole run; with anything else walks have to do themselves."""
        try:
            yield
        except StopRun as order:
            self._stop.request(order)
        except HarvestError:
            pass

    def _checked(self, ids: Iterable[str | int]) -> Iterator[str]:
        """Those that are ids: of another one the queue says so when it comes to it."""
        for campaign_id in ids:
            with suppress(ConfigError):
                yield self._api.check_id(campaign_id)

    # -- one block -----------------------------------------------------------------------------

    async def block(self, block: Iterable[str | int]) -> None:
        """Ask for the counts of a block of ids, and note what their walks take."""
        ids = [each for each in dict.fromkeys(self._checked(block)) if self._is_new(each)]
        to_make = {campaign_id: list(self.to_make(campaign_id)) for campaign_id in ids}
        campaigns = {each: self.lookup.kept(each) for each in ids}
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
        if gain >= 1 or self._summary:
            with self._guarded():
                campaigns |= await self.lookup.counts(uncounted)
        self._announce(campaigns, to_make)

    def _is_new(self, campaign_id: str) -> bool:
        return self._sizes.counted(Target(self._reports[0], campaign_id)) is None

    def _is_due(self, campaign: KnownCampaign, now: datetime) -> bool:
        """Whether counts are to be asked for: once in 24 hours, in each round of top-ups, and where
        reports were added to the directory."""
        return not campaign.is_counted(now) or not campaign.is_counted_since(self._store.ask_since)

    def to_make(self, campaign_id: str) -> Iterator[SavedWalk]:
        """The walks of a campaign that are to be made, as they were left."""
        for report in self._reports:
            walk = self._store.peek(Target(report, campaign_id))
            if walk.run < self._store.run and self._is_to_make(walk):
                yield walk

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
                and not self.lookup.has_current_detail(campaign)
            )
        self._sizes.note(sizes)
        self._emit(events.WorkCounted(walks=len(sizes), requests=requests, details=details))

    def _announce_again(self, begin: Mapping[str, Sequence[SavedWalk]]) -> None:
        """Note what walks take by their campaigns' details, where they did not begin meanwhile."""
        now, sizes, more = self._clock.now(), dict[Target, int](), 0
        for campaign_id in begin:
            campaign = self.lookup.kept(campaign_id)
            for walk in self.to_make(campaign_id):
                before = self._sizes.counted(walk.target)
                pages = campaign.pages(walk.target.report, self._page_size, now)
                if before is not None and pages is not None:
                    sizes[walk.target], more = pages, more + pages - before
        self._sizes.note(sizes)
        self._emit(events.WorkCounted(walks=0, requests=more, details=0))


def _begins(walk: SavedWalk) -> bool:
    return walk.position.pages == 0 or walk.state == "complete"
