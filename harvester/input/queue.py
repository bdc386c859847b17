"""The ids as walks to make: each taken once, what is done passed over."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import TypeAlias

import anyio
import anyio.lowlevel
from msgspec import Struct

from harvester import events
from harvester.api.base import Api
from harvester.disk.checkpoint import CheckpointStore
from harvester.disk.saved_walk import SavedWalk
from harvester.errors import ConfigError, StopRun
from harvester.events import Observer
from harvester.input.counts import CountsAhead
from harvester.input.lookup import Lookup
from harvester.input.order import KnownSizes
from harvester.input.stream import BlockStream
from harvester.model import Request, Target
from harvester.runtime import Clock, StopSignal

CampaignIds: TypeAlias = Iterable[str | int] | AsyncIterable[str | int]
REFUSED_FOR_GOOD = "not_found"
_YIELD_EVERY = 64  # ids in a row that may be passed over before other tasks have their turn


class WalkQueue(Struct, eq=False, kw_only=True, dict=True):
    """The ids as walks to make.

    `is_there` is asked of every finished file, and where `is_whole` is given, that too: a walk
    whose file is not there, or not whole, is made again.
    """

    ids: CampaignIds
    api: Api
    store: CheckpointStore
    reports: tuple[str, ...]
    retry_failed: bool
    top_up: bool
    is_there: Callable[[SavedWalk], bool]
    is_whole: Callable[[SavedWalk], bool] | None = None
    sizes: KnownSizes
    clock: Clock
    stop: StopSignal
    emit: Observer

    def __post_init__(self) -> None:
        self.counts: CountsAhead | None = None
        self.refused: ConfigError | None = None
        self._all = self.ids if isinstance(self.ids, Collection) else None
        self.total = None if self._all is None else len(self._all)
        self._stream: BlockStream[str | int] | None = None
        self._begun = 0  # ids
        self._rest: Iterator[Target] = iter(())

    def use_counts(self, lookup: Lookup, *, page_size: int) -> CountsAhead:
        """Have walks wait for what is asked of campaigns before, where the API has their counts:
        `look_ahead` asks."""
        counts = CountsAhead(
            lookup=lookup,
            sizes=self.sizes,
            reports=self.reports,
            page_size=page_size,
            is_to_make=self.is_to_make,
            top_up=self.top_up,
            stop=self.stop,
        )
        if lookup.bulk is not None:
            self.counts = counts
            ids = aiter(self.ids) if isinstance(self.ids, AsyncIterable) else iter(self.ids)
            self._stream = BlockStream(ids, lookup.bulk.most_ids, counts.ready)
        return counts

    async def look_ahead(self) -> None:
        """Ask what is to be known of campaigns before they are walked. Raise what the ids raise."""
        if self.counts is not None and self._stream is not None:
            await self.counts.run(self._stream.run, self._all)

    def end(self, ahead: anyio.CancelScope) -> None:
        """No walk begins any more. `ahead` is the scope of `look_ahead`, whose requests in flight
        come to their end after an order to stop, as those of walks do."""
        if self.counts is None or not self.stop.requested:
            ahead.cancel()
            return
        self.counts.end()
        if self.stop.grace is not None:
            ahead.deadline = anyio.current_time() + self.stop.grace

    async def walks(self) -> AsyncIterator[SavedWalk]:
        """Yield the walks to make. An id that cannot be one stops the run."""
        try:
            async for campaign_id in self._each():
                self._begun += 1
                self._rest = self._targets(campaign_id)
                for target in self._rest:
                    saved = self.store.take(target)
                    if saved is None:
                        self.emit(events.IdRepeated(target.campaign_id))
                    elif (walk := self._to_make(await self._sound(saved))) is not None:
                        yield walk
        except ConfigError as wrong:
            self.refused = wrong
            self.stop.request(StopRun("bad_input", str(wrong)))

    async def _each(self) -> AsyncIterator[str | int]:
        source = self._stream or self.ids
        if isinstance(source, AsyncIterable):
            async for campaign_id in source:
                yield campaign_id
        else:
            for number, campaign_id in enumerate(source):
                yield campaign_id
                if number % _YIELD_EVERY == 0:  # after it: a cancel here loses no id
                    await anyio.lowlevel.checkpoint()

    def _targets(self, campaign_id: str | int) -> Iterator[Target]:
        checked = self.api.check_id(campaign_id)
        return (Target(report, checked) for report in self.reports)

    async def _sound(self, saved: SavedWalk) -> SavedWalk:
        """The same walk; a new one where the state or the finished file cannot be believed."""
        if saved.state == "damaged":
            cause, why = "damaged_state", "its checkpoint is not what was saved"
        elif saved.state == "complete" and not self.is_there(saved):
            cause, why = "damaged_file", "the finished file is gone"
        elif (
            self.is_whole is not None
            and saved.state == "complete"
            and not await anyio.to_thread.run_sync(self.is_whole, saved)
        ):
            cause, why = "damaged_file", "the finished file is not what was written"
        else:
            return saved
        saved = self.store.restart(saved)
        self.emit(
            events.WalkRestarted(target=saved.target, page=1, cause=cause, status=None, message=why)
        )
        return saved

    def _to_make(self, saved: SavedWalk) -> SavedWalk | None:
        """The walk to make; None if there is none."""
        if self.is_to_make(saved):
            return self.store.begin_top_up(saved) if saved.state == "complete" else saved
        if self._grows(saved):
            self.store.stay(saved)
        expected = self.sizes.counted(saved.target)
        self.emit(events.CampaignSkipped(saved.target, saved.state, saved.kind, expected))
        return None

    def is_to_make(self, saved: SavedWalk) -> bool:
        """Whether there is something to ask for."""
        if saved.state == "complete":
            return self._grows(saved) and not self._is_unmoved(saved)
        refused = saved.state == "failed" and saved.kind == REFUSED_FOR_GOOD
        return self.retry_failed or not refused

    def _is_unmoved(self, saved: SavedWalk) -> bool:
        """Whether the API's count of a finished report is what it was."""
        if self.counts is None or saved.counted is None or not self.counts.lookup.believed:
            return False
        campaign = self.counts.lookup.kept(saved.target.campaign_id)
        if not campaign.is_counted_since(self.store.ask_since):
            return False
        return campaign.is_unmoved(saved.target.report, saved.counted, self.clock.now())

    def _grows(self, saved: SavedWalk) -> bool:
        """Whether a finished file is to be topped up, and was not in this round of top-ups yet."""
        return (
            self.top_up
            and self.api.reports[saved.target.report].paged
            and saved.round < self.store.round
        )

    def accepted_before(self) -> Request[bytes] | None:
        """A request for a campaign of which an earlier run had all; None if there is none."""
        for walk in self.store.walks_in("complete"):
            target = walk.target
            if self.api.needs_detail:
                return Request(target, self.api.detail_link(target.campaign_id), bytes)
            if target.report in self.api.reports:
                return Request(target, self.api.first_link(target, limit=1, since=None), bytes)
        return None

    def drain(self) -> None:
        """After a stop, count the walks that were not begun, if there is an end to them."""
        for target in self._rest:
            self.store.take(target)
        for campaign_id in islice(self._all or (), self._begun, None):
            for target in self._targets(campaign_id):
                self.store.take(target)
