"""The inner loop: one campaign's pages into its part file, rows first, then the position.

The lines marked (1) and (2) here and (3) to (7) in `publish` are the steps of the crash promise: a
kill between any two of them leaves a state from which the same command ends with the same bytes.
"""

from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from datetime import datetime
from functools import partial

import anyio
from msgspec.structs import replace

from harvester import events
from harvester.campaign.context import RunContext
from harvester.campaign.edges import Edges, Trail, down_to
from harvester.campaign.repeats import LastPage, Repeats
from harvester.disk.layout import PART
from harvester.disk.part import Damaged, PartFile, is_regular
from harvester.disk.saved_walk import SavedWalk
from harvester.disk.storage import storage
from harvester.errors import CursorDropped, Moving, PoisonPage
from harvester.input.known import KnownCampaign
from harvester.model import Page, Position
from harvester.request.pagination import walk_pages
from harvester.runtime import stamp

_MOST_PAGES_AT_RISK = 50
"""So many pages a walk may have to read again for an event that came to a report at rest."""


def smaller(page_size: int, minimum: int | None) -> int | None:
    """The next smaller page; None if there is none to try.

    A fifth: the way from 500 rows down to one takes four steps, each a walk from the first page.
    """
    if minimum is None or page_size <= minimum:
        return None
    return max(page_size // 5, minimum)


class Walk:
    """The walk of one campaign in this run: `saved` is what the state has of it, `campaign` what
    is known of the campaign before it is walked."""

    part: PartFile

    def __init__(self, saved: SavedWalk, page_size: int) -> None:
        # A new try after a failure may start over again.
        self.saved = replace(saved, restarts=0) if saved.state == "failed" else saved
        self.target = saved.target
        self.page_size = page_size
        # Of a top-up: the latest stored event of each activity ("" in v2).
        self.marks: dict[str, datetime] = {}
        self.seen: set[int] = set()
        self.trail = Trail()
        # When the first and the last event of the last page happened.
        self.ends: tuple[datetime | None, datetime | None] = None, None
        self.last_page = LastPage()
        self.unfiltered = False
        self.resumed = False
        self.campaign: KnownCampaign | None = None
        self.empty: set[str] = set()  # activities that are not asked for

    @property
    def position(self) -> Position:
        """How far it has come."""
        return self.saved.position


class Walker:
    """Walks any number of campaigns; shared by all workers."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._options = context.options
        self._api = context.api
        self._store = context.store
        self._edges_of = Edges(
            fetcher=context.fetcher, api=context.api, codec=context.codec, now=context.clock.now
        )
        self._repeats = Repeats(fetcher=context.fetcher, api=context.api, codec=context.codec)

    def new(self, saved: SavedWalk) -> Walk:
        """The walk of this run."""
        return Walk(saved, self._options.page_size)

    @contextmanager
    def opened(self, walk: Walk) -> Iterator[None]:
        """Have the part file of a walk open meanwhile. Raise `Obstructed` if it cannot be one."""
        self._context.lock.check()
        part = walk.part = PartFile(self._context.layout.name(walk.target, PART))
        try:
            yield
        finally:
            empty = walk.position.pages == 0
            try:
                if not empty:
                    part.sync()
            finally:
                part.close()
            # No file that looks as if something had come.
            if empty and self._context.lock.holds() and is_regular(part.path):
                with storage(part.path):
                    part.path.unlink(missing_ok=True)

    async def walk(self, walk: Walk) -> None:
        """Bring the part file to its end, from where it was left.

        A dropped cursor has the walk start over, once; a page that never comes has it start over
        in smaller pages, if they are allowed. Raise `CampaignError` or `StopRun`.
        """
        await self._begin(walk)
        await self._follow_to_end(walk)

    async def walk_anew(self, walk: Walk) -> None:
        """Throw away what came, and walk once more; it may start over as `walk` may."""
        self._restart(walk)
        await self._follow_to_end(walk)

    def first_link(self, walk: Walk) -> str:
        """Where the walk begins: at the events that a file which is to grow does not have."""
        since = None if walk.unfiltered else walk.marks.get("")
        since = since or self._options.since
        detail = walk.campaign.detail if walk.campaign else None
        if detail is not None and walk.empty:
            left = tuple(each for each in detail.activities if each not in walk.empty)
            detail = replace(detail, activities=left)
        return self._api.first_link(walk.target, limit=walk.page_size, since=since, detail=detail)

    async def _begin(self, walk: Walk) -> None:
        """Cut the part back to the checkpoint, or start over if it lost what was saved."""
        at, saved = walk.position, walk.saved
        if at.pages == 0:
            walk.part.restart()
            walk.saved = replace(saved, started_at=stamp(self._context.clock.now()))
            return
        try:
            await anyio.to_thread.run_sync(walk.part.resume, at.offset, saved.digest)
            if not at.finished or saved.base is not None:
                pages = self._store.pages(saved)
                walk.seen = {page.cursor for page in pages}
                walk.trail.resume(saved.edge)
        except Damaged as damage:
            self._restart(walk, damage)
        else:
            walk.resumed = True

    async def _follow_to_end(self, walk: Walk) -> None:
        while not walk.position.finished:
            try:
                await self._follow(walk)
            except Moving as moving:
                # Since the last run more came than a page shows, or at an edge that was not looked
                # at: once more, with a look at each.
                if not walk.resumed and not walk.trail.heads.unproven:
                    raise
                self._restart(walk, moving)
                walk.trail.heads.waits = False
            except CursorDropped as dropped:
                if walk.saved.restarts:
                    raise
                walk.saved = replace(walk.saved, restarts=1)
                self._restart(walk, dropped)
            except PoisonPage as poison:
                if (page_size := self._smaller(walk)) is None:
                    raise
                walk.page_size = page_size
                self._restart(walk, poison)

    async def _follow(self, walk: Walk) -> None:
        """Rows first, then the position, then the next page."""
        pages = walk_pages(
            self._context.fetcher,
            self._api,
            walk.target,
            first=self.first_link(walk),
            page_size=walk.page_size,
            at=walk.position,
            seen=walk.seen,
            fit=partial(self._fit, walk),
            expected=self._options.expected(walk.target),
            max_pages=self._options.max_pages,
        )
        async with aclosing(pages):
            async for page in pages:
                offset = walk.part.append(self._encode(page, walk.part))  # (1) rows
                await self._save(walk, page, offset)  # (2) the position, also of the last page
                del page

    async def _fit(self, walk: Walk, link: str, page: Page) -> Page:
        """What the walk takes of a page: each event once."""
        report, target = self._api.reports[walk.target.report], walk.target
        activity = self._api.activity_of(link)
        if not report.time_field or activity is None:
            return page
        trail, part, rows, heads = walk.trail, walk.part, walk.position.rows, walk.trail.heads
        await self._repeats.refuse(target, walk.last_page, trail, part, link, page)
        heads.waits &= walk.position.pages < _MOST_PAGES_AT_RISK
        if heads.unproven and not heads.waits:
            await self._edges_of.prove(target, trail)
        page = await self._edges_of.fit(target, trail, part, rows, link, page)
        walk.ends = trail.highest, trail.lowest
        since = walk.marks.get(activity) if report.since_parameter is None else None
        if since := since or self._options.since:
            after = partial(self._api.after_activity, target, link)
            read = self._edges_of.reader(target.report)
            cut = down_to(page, since, read, after)
            if cut is not page and cut.rows:
                walk.ends = read.ends(cut.ndjson)
            page = cut
        if heads.unproven and page.next is None:
            await self._edges_of.prove(target, walk.trail)
        return page

    def _encode(self, page: Page, part: PartFile) -> bytes:
        """The page's own member; an empty page adds nothing, an empty file is still valid."""
        if page.rows or (page.next is None and part.offset == 0):
            return self._context.codec.encode(page.ndjson)
        return b""

    async def _save(self, walk: Walk, page: Page, offset: int) -> None:
        """Save the position, and emit. Until it is saved the request keeps its permit: what a
        kill can cost is what was in flight."""
        size = offset - walk.position.offset
        at = walk.position.after(page, offset)
        # Reports are sorted by time: no event between a page's ends is earlier or later.
        first, last = walk.saved.first_event, walk.saved.last_event
        for moment in map(stamp, filter(None, walk.ends if page.rows else ())):
            first, last = min(first or moment, moment), max(last or moment, moment)
        # At its end a walk needs its pages no more, but for a top-up. Where nothing is to be learnt
        # after it, this is step (4) as well.
        ends = at.finished and walk.saved.base is None
        walk.saved = replace(
            walk.saved,
            first_event=first,
            last_event=last,
            state="finishing" if ends and not self._options.summary else "partial",
            kind=None,
            position=at,
            digest=walk.part.digest(),
            edge=None if ends else walk.trail.last(),
            recent=b"" if ends else walk.saved.recent_with(page),
        )
        saved = events.PageCommitted(
            target=walk.target,
            page=at.pages,
            rows=page.rows,
            bytes=size,
            last=at.finished,
            link=page.link,
        )
        try:
            await self._store.commit(walk.saved, walk.part)
        except anyio.get_cancelled_exc_class():
            self._store.save()  # what came is kept
            self._context.emit(saved)
            raise
        self._context.emit(saved)

    def _smaller(self, walk: Walk) -> int | None:
        """The next smaller page, if there is one to ask for."""
        if not self._context.api.reports[walk.target.report].paged:
            return None
        page_size = walk.page_size
        if walk.resumed:  # an earlier run may have come to smaller pages: its cursor is of those
            largest = max(page.rows for page in self._store.pages(walk.saved))
            page_size = min(page_size, largest or page_size)
        return smaller(page_size, self._options.min_page_size)

    def _restart(self, walk: Walk, why: Exception | None = None) -> None:
        """Forget the position, then the rows: a kill in between leaves rows that are cut off."""
        page = walk.position.pages + 1
        walk.saved = self._store.restart(walk.saved, restarts=walk.saved.restarts)
        walk.part.restart()
        walk.saved = replace(walk.saved, started_at=stamp(self._context.clock.now()))
        walk.seen, walk.trail, walk.resumed = set(), Trail(), False
        walk.last_page = LastPage()
        match why:
            case CursorDropped():
                cause, status = "cursor_dropped", why.status
            case PoisonPage():
                cause, status = "poison_page", why.status
            case Damaged():
                cause, status = "damaged_part", None
            case Moving():
                cause, status = "moving", None
            case _:
                return
        self._context.emit(
            events.WalkRestarted(
                target=walk.target, page=page, cause=cause, status=status, message=str(why)
            )
        )
