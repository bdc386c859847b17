"""The ids as walks to make: each taken once, what is done passed over."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator
from typing import TypeAlias

import anyio.lowlevel

from harvester import events
from harvester.api.base import Api
from harvester.disk.checkpoint import CheckpointStore, SavedWalk
from harvester.errors import ConfigError, StopRun
from harvester.events import Observer
from harvester.model import Target
from harvester.runtime import StopSignal

CampaignIds: TypeAlias = Iterable[str | int] | AsyncIterable[str | int]
REFUSED_FOR_GOOD = "not_found"
_YIELD_EVERY = 64  # ids in a row that may be passed over before others have their turn


class WalkQueue:
    """The ids as walks to make: each taken once, what is done passed over.

    Where `is_whole` is given, it is asked of every finished file.
    """

    def __init__(
        self,
        ids: CampaignIds,
        api: Api,
        store: CheckpointStore,
        *,
        reports: tuple[str, ...],
        retry_failed: bool,
        top_up: bool,
        is_whole: Callable[[SavedWalk], bool] | None = None,
        stop: StopSignal,
        emit: Observer,
    ) -> None:
        self._ids: AsyncIterator[str | int] | Iterator[str | int]
        self._ids = aiter(ids) if isinstance(ids, AsyncIterable) else iter(ids)
        self._finite = isinstance(ids, Collection)
        self.total = len(ids) if isinstance(ids, Collection) else None
        self._api = api
        self._store = store
        self._reports = reports
        self._retry_failed = retry_failed
        self._top_up = top_up
        self._is_whole = is_whole
        self._stop = stop
        self._emit = emit
        self._rest: Iterator[Target] = iter(())
        self.refused: ConfigError | None = None

    async def records(self) -> AsyncIterator[SavedWalk]:
        """Yield the walks to make. An id that cannot be one stops the run."""
        try:
            async for campaign_id in self._each():
                self._rest = self._targets(campaign_id)
                for target in self._rest:
                    record = self._store.take(target)
                    if record is not None:
                        record = await self._repaired(record)
                    if (walk := self._walk(target, record)) is not None:
                        yield walk
        except ConfigError as wrong:
            self.refused = wrong
            self._stop.request(StopRun("bad_input", str(wrong)))

    async def _each(self) -> AsyncIterator[str | int]:
        if isinstance(self._ids, AsyncIterator):
            async for campaign_id in self._ids:
                yield campaign_id
        else:
            for number, campaign_id in enumerate(self._ids):
                yield campaign_id
                if number % _YIELD_EVERY == 0:  # after it: a cancel here loses no id
                    await anyio.lowlevel.checkpoint()

    def _targets(self, campaign_id: str | int) -> Iterator[Target]:
        checked = self._api.check_id(campaign_id)
        return (Target(report, checked) for report in self._reports)

    async def _repaired(self, record: SavedWalk) -> SavedWalk:
        """The same record; a new one where a finished file is to be whole, and is not."""
        if self._is_whole is None or record.state != "complete":
            return record
        if await anyio.to_thread.run_sync(self._is_whole, record):
            return record
        why = "the finished file is gone, or is not what was written"
        self._emit(
            events.WalkRestarted(
                target=record.target, page=1, cause="damaged_file", status=None, message=why
            )
        )
        return self._store.begin_again(record)

    def _walk(self, target: Target, record: SavedWalk | None) -> SavedWalk | None:
        """The walk to make; None if there is none."""
        if record is None:
            self._emit(events.IdRepeated(target.campaign_id))
        elif record.state == "complete" and self._grows(record):
            return self._store.begin_top_up(record)
        elif record.state == "complete" or self._is_refused(record):
            self._emit(events.CampaignSkipped(target, record.state, record.kind))
        else:
            return record
        return None

    def _grows(self, record: SavedWalk) -> bool:
        """Whether a finished file is to be topped up, and was not in this round of top-ups yet."""
        return (
            self._top_up
            and record.target.report in self._api.reports
            and record.round < self._store.round
        )

    def _is_refused(self, record: SavedWalk) -> bool:
        return (
            record.state == "failed" and record.kind == REFUSED_FOR_GOOD and not self._retry_failed
        )

    def drain(self) -> None:
        """After a stop, count the walks that nobody came to, if there is an end to them."""
        for target in self._rest:
            self._store.take(target)
        if self._finite and not isinstance(self._ids, AsyncIterator):
            for campaign_id in self._ids:
                for target in self._targets(campaign_id):
                    self._store.take(target)
