"""Growing a finished file by the events that came after it.

Events have no id. A top-up asks again from the latest stored event of each activity on, and that
event comes too; so of the rows at that moment, as many are dropped as are stored already, compared
by what never changes in a row and counted: two equal events in one millisecond are two.

A report that is documented as newest first stays so: what is new stands before the stored rows of
its activity. Elsewhere it follows them. Stored rows stay as they were harvested. Where the stored
rows at the mark do not come any more, rows have gone, and the whole report is walked and replaced.

`TopUp` awaits; `growth` reads and writes the files.
"""

from functools import partial

import anyio
from msgspec.structs import replace

from harvester import events
from harvester.campaign.context import RunContext
from harvester.campaign.growth import FilterForgotten, Grown, Marks, RowsGone, grow, read_marks
from harvester.campaign.rows import RowReader
from harvester.campaign.walk import Walk, Walker
from harvester.disk.part import Damaged
from harvester.disk.saved_walk import Base, SavedWalk
from harvester.disk.storage import storage
from harvester.errors import CampaignError
from harvester.model import Position
from harvester.runtime import stamp

_REPLACED = '{"replaced":true}'


class TopUp:
    """Tops up any number of campaigns; shared by all workers."""

    def __init__(self, context: RunContext, walker: Walker) -> None:
        self._context = context
        self._walker = walker

    async def walk(self, walk: Walk, base: Base) -> SavedWalk | None:
        """Walk what is new and write the grown file; give the walk as it is finished then.

        None if there is nothing new and all stays as it was. Raise `CampaignError`
        ("damaged_file") if the finished file is not what was finished.
        """
        if self._context.api.reports[walk.target.report].derived:
            return await self._replace_if_changed(walk, base)
        marks = await self._read_base(walk, base)
        await self._walker.walk(walk)
        while True:
            try:
                grown = await self._grow(walk, marks)
                break
            except FilterForgotten:
                walk.unfiltered = True
            except RowsGone:
                return await self._replace(walk)
            await self._walker.walk_anew(walk)
        if grown is None:
            self._cancel(walk, base)
            return None
        at = Position(None, base.pages + walk.position.pages, base.rows + grown.added, grown.size)
        return replace(walk.saved, position=at, digest=grown.digest)

    async def _replace_if_changed(self, walk: Walk, base: Base) -> SavedWalk | None:
        """A derived report is walked whole: its stored rows do not stay."""
        await self._walker.walk(walk)
        if walk.saved.digest == base.digest:
            self._cancel(walk, base)
            return None
        return replace(walk.saved, base=None, findings=_REPLACED)

    async def _replace(self, walk: Walk) -> SavedWalk:
        """Walk the whole report; the finished file stays until the walk is at its end."""
        walk.marks = {}
        walk.saved = replace(walk.saved, base=None, findings=_REPLACED)
        grown = self._context.layout.grown(walk.target)
        with storage(grown):
            grown.unlink(missing_ok=True)
        await self._walker.walk_anew(walk)
        return walk.saved

    async def _read_base(self, walk: Walk, base: Base) -> Marks:
        """Find out where the finished file ends in time."""
        context = self._context
        final = context.layout.final(walk.target)
        try:
            marks = await anyio.to_thread.run_sync(
                read_marks, final, base, context.codec, self._reader(walk)
            )
        except Damaged as damage:
            raise CampaignError("damaged_file", f"{damage}: it cannot be topped up") from None
        walk.marks = {each: mark.latest for each, mark in marks.items() if mark.latest is not None}
        earliest = [mark.earliest for mark in marks.values() if mark.earliest is not None]
        if earliest:
            first, last = stamp(min(earliest)), stamp(max(walk.marks.values()))
            walk.saved = replace(walk.saved, first_event=first, last_event=last)
        return marks

    def _reader(self, walk: Walk) -> RowReader:
        return RowReader(self._context.api.reports[walk.target.report].time_field)

    async def _grow(self, walk: Walk, marks: Marks) -> Grown | None:
        context, target = self._context, walk.target
        report = context.api.reports[target.report]
        detail = walk.campaign.detail if walk.campaign else None
        order = (detail.activities if detail else ()) if report.newest_first else None
        return await anyio.to_thread.run_sync(
            partial(
                grow,
                context.layout.final(target),
                context.layout.part(target),
                context.layout.grown(target),
                codec=context.codec,
                read=self._reader(walk),
                marks=marks,
                page_rows=[page.rows for page in context.store.pages(walk.saved)],
                filtered=not walk.unfiltered,
                order=order,
            )
        )

    def _cancel(self, walk: Walk, base: Base) -> None:
        walk.saved = self._context.store.cancel_top_up(walk.saved, base)
        with storage(walk.part.path):
            walk.part.path.unlink()
        self._context.emit(events.CampaignSkipped(walk.target, "complete"))
