"""The inner loop: one campaign's pages into its part file, rows first, then the position.

The lines marked (1) to (3) here, (4) in `harvest` and (5) to (7) in `finish` are the steps of the
crash promise: a kill between any two of them leaves a state from which the same command ends with
the very same bytes.
"""

from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import datetime

import anyio

from harvester import events
from harvester.api.base import Api
from harvester.campaign.topup import HighWaterMark
from harvester.disk.checkpoint import CheckpointStore, SavedWalk
from harvester.disk.compress import Codec
from harvester.disk.group_sync import GroupSync
from harvester.disk.layout import Layout
from harvester.disk.part import Damaged, PartFile
from harvester.disk.storage import storage
from harvester.errors import CursorDropped, PoisonPage, StorageError
from harvester.events import Observer
from harvester.model import Fetcher, Page, Position, Target
from harvester.request.pagination import walk_pages
from harvester.runtime import Clock, stamp


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """What is asked of every campaign: `limit` rows a page, events from `since` on.

    Where no try at a page succeeds, pages may shrink to `least` rows (None: they never do).
    `expected` tells the pages a walk is thought to have, 0 if nobody knows.
    """

    limit: int
    since: datetime | None
    max_pages: int
    summary: bool = False
    expected: Callable[[Target], int] = lambda target: 0
    least: int | None = None


def smaller(limit: int, least: int | None) -> int | None:
    """The next smaller page after `limit` rows; None if there is none to try.

    A fifth: the way from 500 rows down to one takes four steps, each a walk from the first page.
    """
    if least is None or limit <= least:
        return None
    return max(limit // 5, least)


class Walk:
    """Where the walk of one campaign stands in this run."""

    def __init__(self, record: SavedWalk, part: PartFile, limit: int) -> None:
        self.record = record
        self.id = record.walk
        self.target = record.target
        self.position = record.position
        self.base = record.base
        self.part = part
        self.limit = limit
        self.stored: HighWaterMark | None = None
        self.restarts = 0 if record.state == "failed" else record.restarts
        self.started_at = record.started_at
        self.seen: set[int] = set()
        self.unfiltered = False
        self.resumed = False


class Walker:
    """Walks any number of campaigns; shared by all workers."""

    def __init__(
        self,
        fetcher: Fetcher,
        api: Api,
        asked: WalkOptions,
        *,
        store: CheckpointStore,
        layout: Layout,
        codec: Codec,
        clock: Clock,
        emit: Observer,
    ) -> None:
        self._fetcher = fetcher
        self._api = api
        self._asked = asked
        self._store = store
        self._layout = layout
        self._codec = codec
        self._clock = clock
        self._emit = emit
        self._group = GroupSync()

    @contextmanager
    def opened(self, record: SavedWalk) -> Iterator[Walk]:
        """The walk of a record, its part file open meanwhile."""
        part = PartFile(self._layout.part(record.target))
        walk = Walk(record, part, self._asked.limit)
        try:
            yield walk
        finally:
            try:
                self._store.sync_and_release(part)
            finally:
                self._store.discard_pending_sync(
                    part
                )  # also where that failed: it is never tried again
                part.close()
            if walk.position.pages == 0:  # nothing came: no file that looks as if something had
                with storage(part.path):
                    part.path.unlink(missing_ok=True)

    async def walk(self, walk: Walk) -> None:
        """Bring the part file to its end, from where it was left; it is on the disk then.

        A dropped cursor has the walk start over, once; a page that never comes has it start over
        in smaller pages, if they are allowed. Raise `CampaignError` or `StopRun`.
        """
        await self._begin(walk)
        await self._finish(walk)

    async def walk_anew(self, walk: Walk) -> None:
        """Throw away what came, and walk once more; it may start over as `walk` may."""
        self._begin_anew(walk)
        await self._finish(walk)

    async def _finish(self, walk: Walk) -> None:
        """Follow to the end, starting over where that may help; sync."""
        while not walk.position.finished:
            try:
                await self._follow(walk)
            except CursorDropped as dropped:
                if walk.restarts:
                    raise
                walk.restarts += 1
                self._restart(walk, dropped)
            except PoisonPage as poison:
                if (limit := self._smaller(walk)) is None:
                    raise
                walk.limit = limit
                self._restart(walk, poison)
        await self._sync(walk.part)  # (3) the data, before any name that is final

    def first_link(self, walk: Walk) -> str:
        """Where the walk begins: at the events that a file which is to grow does not have."""
        since = None
        if walk.stored is not None and not walk.unfiltered:
            since = walk.stored.latest
        return self._api.first_link(walk.target, limit=walk.limit, since=since or self._asked.since)

    async def _begin(self, walk: Walk) -> None:
        """Cut the part back to the checkpoint, or start over if it lost what was saved."""
        at, part = walk.position, walk.part
        if at.pages == 0:
            part.restart()
            walk.started_at = stamp(self._clock.now())
            return
        try:
            await anyio.to_thread.run_sync(part.resume, at.offset, walk.record.digest)
        except Damaged as damage:
            self._restart(walk, damage)
        else:
            self._store.sync_before_commit(part)
            walk.resumed = True
            walk.seen = self._store.cursors(walk.id)

    async def _follow(self, walk: Walk) -> None:
        """Rows first, then the position, then the next page."""
        pages = walk_pages(
            self._fetcher,
            self._api,
            walk.target,
            first=self.first_link(walk),
            at=walk.position,
            seen=walk.seen,
            expected=self._asked.expected(walk.target),
            max_pages=self._asked.max_pages,
        )
        async with aclosing(pages):
            async for page in pages:
                offset = walk.part.append(self._encode(page, walk.part))  # (1) rows
                await self._save(walk, page, offset)  # (2) the position, also of the last page
                del page

    def _encode(self, page: Page, part: PartFile) -> bytes:
        """The page's own member; an empty page adds nothing, an empty file is still valid."""
        if page.rows or (page.next is None and part.offset == 0):
            return self._codec.encode(page.ndjson)
        return b""

    async def _save(self, walk: Walk, page: Page, offset: int) -> None:
        """Save the position, and tell. Until it is saved the request keeps its permit: what a
        kill can cost is what was in flight."""
        size = offset - walk.position.offset
        at = walk.position = walk.position.after(page, offset)
        saved = events.PageCommitted(
            target=walk.target,
            page=at.pages,
            rows=page.rows,
            bytes=size,
            last=at.finished,
            link=page.link,
        )
        try:
            await self._store.commit(
                walk.id, at, page.rows, page.cursor, walk.part, started_at=walk.started_at
            )
        except anyio.get_cancelled_exc_class():
            self._store.save()  # what came is kept
            self._emit(saved)
            raise
        self._emit(saved)

    async def _sync(self, part: PartFile) -> None:
        """Have all of it on the disk."""
        if not self._store.is_synced(part):
            try:
                await self._group.sync(part)
            except StorageError:
                self._store.discard_pending_sync(part)
                raise
            self._store.discard_pending_sync(part)

    def _smaller(self, walk: Walk) -> int | None:
        """The next smaller page, if there is one to ask for."""
        if walk.target.report not in self._api.reports:
            return None  # it has no pages
        limit = walk.limit
        if walk.resumed:  # an earlier run may have come to smaller pages: its cursor is of those
            limit = min(limit, max(self._store.page_rows(walk.id)) or limit)
        return smaller(limit, self._asked.least)

    def _restart(self, walk: Walk, why: CursorDropped | PoisonPage | Damaged) -> None:
        """Forget the position, then the rows: a kill in between leaves rows that are cut off."""
        page = walk.position.pages + 1
        self._begin_anew(walk)
        match why:
            case CursorDropped():
                cause, status = "cursor_dropped", why.status
            case PoisonPage():
                cause, status = "poison_page", why.status
            case Damaged():
                cause, status = "damaged_part", None
        self._emit(
            events.WalkRestarted(
                target=walk.target, page=page, cause=cause, status=status, message=str(why)
            )
        )

    def _begin_anew(self, walk: Walk) -> None:
        self._store.restart(walk.id, restarts=walk.restarts)
        walk.part.restart()
        walk.position, walk.seen, walk.resumed = Position(), set(), False
        walk.started_at = stamp(self._clock.now())
