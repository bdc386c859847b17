"""What is to be known of campaigns is asked for ahead of their walks.

The counts of a list's campaigns are asked for at once, block by block. Where the campaigns of
several activities may share a request for the counts of these, their details, which walks need
anyway, are asked for some campaigns ahead. Walks wait for all that, and not for long.
"""

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import anyio
import anyio.lowlevel
from msgspec import Struct

from harvester import events
from harvester.disk.saved_walk import SavedWalk
from harvester.errors import ConfigError, HarvestError, StopRun
from harvester.input.known import KnownCampaign, requests_saved
from harvester.input.lookup import Lookup
from harvester.input.order import KnownSizes
from harvester.model import Target
from harvester.runtime import StopSignal

Ids = Sequence[str | int]
_PATIENCE = 30.0  # s: walks begin without what is not there then
_FIRST_GROUP, _LARGEST_GROUP = 4, 40  # campaigns whose details are asked for together


class CountsAhead(Struct, eq=False, kw_only=True, dict=True):
    """Has counts asked for where they save requests or are wanted for a summary, and notes what
    the walks will take."""

    lookup: Lookup
    sizes: KnownSizes
    reports: Sequence[str]
    page_size: int
    is_to_make: Callable[[SavedWalk], bool]
    top_up: bool
    stop: StopSignal

    def __post_init__(self) -> None:
        self._reading = anyio.CancelScope()
        self._read, self._counted = 0, 0.0  # ids
        self._more_counted = anyio.Event()
        self._all: Collection[str | int] | None = None
        self._group = _FIRST_GROUP

    async def run(
        self, read: Callable[[], Awaitable[None]], all_ids: Collection[str | int] | None
    ) -> None:
        """Ask, while `read` has blocks of ids made `ready`; for the counts of `all_ids` at once."""
        self._all = all_ids
        async with anyio.create_task_group() as self._asking:
            if all_ids is not None:
                self._asking.start_soon(self.count_all, all_ids)
            with self._reading:
                await read()

    def end(self) -> None:
        """Read no more ids. What is asked for already comes to its end."""
        self._reading.cancel()

    async def count_all(self, ids: Iterable[str | int]) -> None:
        """Ask for the counts of all ids, block by block."""
        each = iter(ids)
        while (bulk := self.lookup.bulk) is not None and not self.stop.requested:
            if not (block := list(islice(each, bulk.most_ids))):
                break
            await self._count(block)
            await anyio.lowlevel.checkpoint()  # there may be nothing to ask for
        self._note_counted(float("inf"))

    async def ready(self, block: Ids) -> AsyncGenerator[Ids, None]:
        """Give the ids of a block, in groups, when their walks are to begin."""
        self._read += len(block)
        if self._all is None:
            self._asking.start_soon(self._count, block)
        with anyio.move_on_after(_PATIENCE):
            while self._counted < self._read:
                await self._more_counted.wait()
        while self._details_pay() and block:
            group, block = block[: self._group], block[self._group :]
            await self._patiently(self.details, [*self._checked(group)])
            self._group = min(2 * self._group, _LARGEST_GROUP)
            yield group
        yield block

    def _note_counted(self, ids: float) -> None:
        self._counted = ids
        self._more_counted.set()
        self._more_counted = anyio.Event()

    async def _patiently(self, work: Callable[..., Awaitable[Any]], *args: object) -> None:
        """Have `work` done; wait for it, but not for long."""
        done = anyio.Event()

        async def do() -> None:
            await work(*args)
            done.set()

        self._asking.start_soon(do)
        with anyio.move_on_after(_PATIENCE):
            await done.wait()

    # -- a group of details --------------------------------------------------------------------

    def _details_pay(self) -> bool:
        """Whether reports are often empty in one of two activities of a small campaign."""
        bulk = self.lookup.bulk
        return (
            bulk is not None
            and bulk.activities is not None
            and self.lookup.believed
            and not (self.top_up or self.stop.requested)
            and requests_saved(self.reports) > 0.5
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
            await self.lookup.detail(Target(self.reports[0], campaign_id))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """An order to stop is for the whole run; with anything else walks have to do themselves."""
        try:
            yield
        except StopRun as order:
            self.stop.request(order)
        except HarvestError:
            pass

    def _checked(self, ids: Iterable[str | int]) -> Iterator[str]:
        """Those that are ids: of another one the queue says so when it comes to it."""
        for campaign_id in ids:
            with suppress(ConfigError):
                yield self.lookup.api.check_id(campaign_id)

    # -- one block -----------------------------------------------------------------------------

    async def _count(self, block: Ids) -> None:
        """Ask for the counts of a block of ids, and note what their walks take."""
        ids = [each for each in dict.fromkeys(self._checked(block)) if self._is_new(each)]
        to_make = {each: [*self.to_make(each)] for each in ids}
        begin = {
            each: [walk.target.report for walk in walks if _begins(walk)]
            for each, walks in to_make.items()
        }
        uncounted = [each for each in ids if begin[each] and self._is_due(self.lookup.kept(each))]
        gain = sum(requests_saved(begin[each], top_up=self.top_up) for each in uncounted)
        if gain >= 1 or self.lookup.summary:
            with self._guarded():
                await self.lookup.counts(uncounted)
        self._announce(to_make)
        self._note_counted(self._counted + len(block))

    def _is_new(self, campaign_id: str) -> bool:
        return self.sizes.counted(Target(self.reports[0], campaign_id)) is None

    def _is_due(self, campaign: KnownCampaign) -> bool:
        """Whether counts are to be asked for: once in 24 hours, in each round of top-ups, and where
        reports were added to the directory."""
        since, now = self.lookup.store.ask_since, self.lookup.clock.now()
        return not (campaign.is_counted(now) and campaign.is_counted_since(since))

    def to_make(self, campaign_id: str) -> Iterator[SavedWalk]:
        """The walks of a campaign that are to be made, as they were left."""
        for report in self.reports:
            walk = self.lookup.store.peek(Target(report, campaign_id))
            if walk.run < self.lookup.store.run and self.is_to_make(walk):
                yield walk

    def asks_detail(self, campaign: KnownCampaign, walks: Iterable[SavedWalk]) -> bool:
        """Whether the campaign's detail is asked for when these walks of it are made."""
        return any(map(_begins, walks)) and not self.lookup.has_current_detail(campaign)

    def requests_of(self, campaign: KnownCampaign, walk: SavedWalk) -> int | None:
        """The requests that a walk takes from its beginning, by what is known of its campaign; None
        if that does not say. Links have no pages: they stand in the detail, or each activity has
        its own."""
        now, report = self.lookup.clock.now(), walk.target.report
        if not self.lookup.api.reports[report].paged:
            there = campaign.current_links(self.lookup.store.ask_since, now) is not None
            return 0 if there else max(1, len(campaign.activities))
        grows = walk.state == "complete" or walk.base is not None
        return None if grows else campaign.pages(report, self.page_size, now)

    def _announce(self, to_make: Mapping[str, Sequence[SavedWalk]]) -> None:
        """Note the size of each walk whose count is known, and emit what they take together."""
        sizes = dict[Target, int]()
        requests = details = 0
        for campaign_id, walks in to_make.items():
            campaign = self.lookup.kept(campaign_id)
            for report in self.reports:
                sizes[Target(report, campaign_id)] = 0
            for walk in walks:
                pages = self.requests_of(campaign, walk)
                if pages is None:
                    del sizes[walk.target]
                else:
                    sizes[walk.target] = pages
                    requests += max(0, pages - walk.position.pages)
            details += self.asks_detail(campaign, walks)
        self.sizes.note(sizes)
        self.lookup.emit(events.WorkCounted(walks=len(sizes), requests=requests, details=details))

    def _announce_again(self, begin: Mapping[str, Sequence[SavedWalk]]) -> None:
        """Note what walks take by their campaigns' details, where they did not begin meanwhile."""
        sizes, more = dict[Target, int](), 0
        for campaign_id in begin:
            campaign = self.lookup.kept(campaign_id)
            for walk in self.to_make(campaign_id):
                before = self.sizes.counted(walk.target)
                pages = self.requests_of(campaign, walk)
                if before is not None and pages is not None:
                    sizes[walk.target], more = pages, more + pages - before
        self.sizes.note(sizes)
        self.lookup.emit(events.WorkCounted(walks=0, requests=more, details=0))


def _begins(walk: SavedWalk) -> bool:
    return walk.position.pages == 0 or walk.state == "complete"
