"""A finished file that is to grow: the new events walked, and put behind those it has."""

from functools import partial

import anyio

from harvester import events
from harvester.api.base import Api
from harvester.campaign.grow import Grown, grow, read_boundary
from harvester.campaign.topup import FilterForgotten, HighWaterMark
from harvester.campaign.walk import Walk, Walker
from harvester.disk.checkpoint import Base, CheckpointStore
from harvester.disk.compress import Codec
from harvester.disk.layout import Layout
from harvester.disk.part import Damaged
from harvester.disk.storage import storage
from harvester.errors import CampaignError
from harvester.events import Observer
from harvester.model import Fetcher, Request

_MAX_REWALKS = 2  # how often a walk is made again in the hope that nothing moves under it
_WORTH_ANOTHER_WALK = 20  # pages


class Grower:
    """Tops up any number of campaigns; shared by all workers."""

    def __init__(
        self,
        fetcher: Fetcher,
        api: Api,
        walker: Walker,
        *,
        store: CheckpointStore,
        layout: Layout,
        codec: Codec,
        emit: Observer,
    ) -> None:
        self._fetcher = fetcher
        self._api = api
        self._walker = walker
        self._store = store
        self._layout = layout
        self._codec = codec
        self._emit = emit

    async def read_base(self, walk: Walk, base: Base) -> None:
        """Find out where the finished file ends. Raise `CampaignError` if it was changed."""
        final, field = self._layout.final(walk.target), self._time_field(walk)
        try:
            walk.stored = await anyio.to_thread.run_sync(
                read_boundary, final, base, self._codec, field
            )
        except Damaged as damage:
            raise CampaignError("damaged_file", f"{damage}: it cannot be topped up") from None

    async def grown(self, walk: Walk) -> Grown | None:
        """Make the grown file; None if there was nothing new and all stays as it was."""
        hopes = _MAX_REWALKS
        while True:
            counts = self._store.page_rows(walk.id)
            shifted = len(counts) > 1 and await self._shifted(walk, counts[0])
            if shifted and hopes and len(counts) <= _WORTH_ANOTHER_WALK:
                hopes -= 1
            else:
                try:
                    grown = await self._grow(walk, counts, shifted=shifted)
                    break
                except FilterForgotten:
                    walk.unfiltered = True
            await self._walker.walk_anew(walk)
        if grown is None:
            self._leave(walk)
        return grown

    def _leave(self, walk: Walk) -> None:
        self._store.cancel_top_up(walk.id)
        with storage(walk.part.path):
            walk.part.path.unlink()
        self._emit(events.CampaignSkipped(walk.target, "complete"))

    async def _grow(self, walk: Walk, counts: list[int], *, shifted: bool) -> Grown | None:
        return await anyio.to_thread.run_sync(
            partial(
                grow,
                self._layout.final(walk.target),
                self._layout.part(walk.target),
                self._layout.grown(walk.target),
                codec=self._codec,
                date_field=self._time_field(walk),
                stored=walk.stored or HighWaterMark(),
                page_rows=counts,
                shifted=shifted,
                filtered=not walk.unfiltered,
            )
        )

    def _time_field(self, walk: Walk) -> str:
        return self._api.reports[walk.target.report].time_field

    async def _shifted(self, walk: Walk, rows: int) -> bool:
        """Whether the first page is another one by now: then rows came twice at page ends."""
        first = self._walker.first_link(walk)
        read = partial(self._api.read_page, walk.target, first)
        again = await self._fetcher.fetch(Request(walk.target, first, read))
        with self._codec.open(self._layout.part(walk.target)) as lines:
            return (
                b"".join(line for _, line in zip(range(rows), lines, strict=False)) != again.ndjson
            )
