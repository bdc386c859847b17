"""One campaign, from where it was left to its finished file.

The lines marked (1) to (4) here, and (5) to (7) in `finish`, are the steps of the crash promise:
a kill between any two of them leaves a state from which the same command ends with the very same
bytes.
"""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import anyio
import orjson

from harvester import events
from harvester.api import Api
from harvester.campaign.finish import Publisher
from harvester.campaign.grow import Grown, grow, read_boundary
from harvester.campaign.reconcile import Summaries, distinct_contacts, findings
from harvester.campaign.topup import Boundary, FilterForgotten
from harvester.clock import Clock, stamp
from harvester.disk.checkpoint import Base, CheckpointStore, Record
from harvester.disk.compress import Codec
from harvester.disk.output import Damaged, Layout, PartFile
from harvester.disk.storage import storage
from harvester.errors import CampaignError, CursorDropped, SetAside, StopRun
from harvester.events import Observer
from harvester.model import Call, Page, Position, Target
from harvester.pagination import walk_pages
from harvester.request.fetch import Fetcher

_WORTH_ANOTHER_WALK = 20  # pages


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every campaign: `limit` rows a page, events from `since` on.

    `expected` tells the pages a walk is thought to have, 0 if nobody knows.
    """

    limit: int
    since: datetime | None
    max_pages: int
    summary: bool = False
    expected: Callable[[Target], int] = lambda target: 0


class CampaignHarvester:
    """Harvests one campaign at a call; shared by all walkers."""

    def __init__(
        self,
        fetcher: Fetcher,
        api: Api,
        asked: Asked,
        *,
        store: CheckpointStore,
        layout: Layout,
        publisher: Publisher,
        codec: Codec,
        clock: Clock,
        emit: Observer,
    ) -> None:
        self._fetcher = fetcher
        self._api = api
        self._asked = asked
        self._store = store
        self._layout = layout
        self._publisher = publisher
        self._codec = codec
        self._clock = clock
        self._emit = emit
        self._summaries = Summaries(fetcher, api)

    async def harvest(self, record: Record) -> None:
        """Bring one campaign to its end, whatever that is. Raise only `StopRun`."""
        target, walk = record.target, _Walk(record)
        self._emit(events.CampaignStarted(target, record.position.pages, record.position.rows))
        try:
            await self._harvest(walk)
        except SetAside as aside:
            self._set_aside(walk, aside)
        except CampaignError as error:
            self._fail(walk, error)
        except (StopRun, anyio.get_cancelled_exc_class()):
            self._emit(events.CampaignLeft(target, walk.position.pages, walk.position.rows))
            raise
        except Exception as bug:
            # One campaign's surprise, whatever it is, must not end the others.
            self._fail(walk, CampaignError("unexpected", f"a bug: {type(bug).__name__}"))

    async def _harvest(self, walk: "_Walk") -> None:
        part = PartFile(self._layout.part(walk.target))
        try:
            await self._begin(walk, part)
            try:
                await self._follow(walk, part)
            except CursorDropped as dropped:
                if walk.restarts:
                    raise
                self._restart(walk, part, dropped)
                await self._follow(walk, part)
            # (3) No final name without its data, not even after a power cut.
            await anyio.to_thread.run_sync(part.sync)
            record = (
                await self._finishing(walk, walk.position, part.digest())
                if walk.base is None
                else await self._grown(walk, part, walk.base)
            )
        finally:
            self._store.forget(part, synced=walk.position.finished)
            part.close()
            if walk.position.pages == 0:  # nothing came: no file that looks as if something had
                with storage(part.path):
                    part.path.unlink(missing_ok=True)
        if record is not None:
            self._publisher.publish(record)

    async def _begin(self, walk: "_Walk", part: PartFile) -> None:
        """Cut the part back to the checkpoint, or start over if it lost what was saved."""
        if walk.base is not None:
            await self._read_base(walk, walk.base)
        if walk.position.pages == 0:
            part.restart()
            walk.started_at = stamp(self._clock.now())
            return
        try:
            await anyio.to_thread.run_sync(part.resume, walk.position.offset, walk.digest)
        except Damaged as damage:
            self._restart(walk, part, damage)
        else:
            walk.seen = self._store.cursors(walk.walk)

    async def _follow(self, walk: "_Walk", part: PartFile) -> None:
        """The inner loop: rows first, then the position, then the next page."""
        pages = walk_pages(
            self._fetcher,
            self._api,
            walk.target,
            first=self._first_link(walk),
            at=walk.position,
            seen=walk.seen,
            expected=self._asked.expected(walk.target),
            max_pages=self._asked.max_pages,
        )
        async with aclosing(pages):
            async for page in pages:
                offset = part.append(self._encode(page, part))  # (1) rows
                size = offset - walk.position.offset
                walk.position = walk.position.after(page, offset)
                # (2) the position, also of the last page: no await stands between the answer and
                # here, so what a kill can cost is what was in flight.
                self._store.commit(
                    walk.walk,
                    walk.position,
                    page.rows,
                    page.cursor,
                    part,
                    started_at=walk.started_at,
                )
                self._emit(
                    events.PageCommitted(
                        walk.target,
                        walk.position.pages,
                        page.rows,
                        size,
                        walk.position.finished,
                        page.link,
                    )
                )

    def _first_link(self, walk: "_Walk") -> str:
        since = None
        if walk.stored is not None and not walk.unfiltered:
            since = walk.stored.latest
        return self._api.first_link(
            walk.target, limit=self._asked.limit, since=since or self._asked.since
        )

    def _encode(self, page: Page, part: PartFile) -> bytes:
        """The page's own member; an empty page adds nothing, an empty file is still valid."""
        if page.rows or (page.next is None and part.offset == 0):
            return self._codec.encode(page.ndjson)
        return b""

    async def _finishing(self, walk: "_Walk", position: Position, digest: bytes) -> Record:
        """Save that every row is there: what is left is the name and the manifest's line."""
        found = await self._reconcile(walk)
        record = replace(
            walk.record,
            position=position,
            digest=digest,
            started_at=walk.started_at,
            completed_at=stamp(self._clock.now()),
            findings=found,
        )
        self._store.finishing(record)  # (4)
        return record

    # -- a finished file that is to grow -------------------------------------------------------

    async def _read_base(self, walk: "_Walk", base: Base) -> None:
        final, field = self._layout.final(walk.target), self._api.date_field(walk.target.report)
        try:
            walk.stored = await anyio.to_thread.run_sync(
                read_boundary, final, base, self._codec, field
            )
        except Damaged as damage:
            raise CampaignError("damaged_file", f"{damage}: it cannot be topped up") from None

    async def _grown(self, walk: "_Walk", part: PartFile, base: Base) -> Record | None:
        """Make the grown file; None if there was nothing new and all stays as it was."""
        while True:
            counts = self._store.page_rows(walk.walk)
            shifted = len(counts) > 1 and await self._shifted(walk, counts[0])
            if shifted and walk.hopes and len(counts) <= _WORTH_ANOTHER_WALK:
                walk.hopes -= 1
            else:
                try:
                    grown = await self._grow(walk, counts, shifted=shifted)
                    break
                except FilterForgotten:
                    walk.unfiltered = True
            self._begin_anew(walk, part)
            await self._follow(walk, part)
            await anyio.to_thread.run_sync(part.sync)
        if grown is None:
            self._store.leave_as_it_was(walk.walk)
            with storage(self._layout.part(walk.target)):
                self._layout.part(walk.target).unlink()
            self._emit(events.CampaignSkipped(walk.target, "complete"))
            return None
        position = Position(
            None, base.pages + walk.position.pages, base.rows + grown.added, grown.size
        )
        return await self._finishing(walk, position, grown.digest)

    async def _grow(self, walk: "_Walk", counts: list[int], *, shifted: bool) -> Grown | None:
        return await anyio.to_thread.run_sync(
            partial(
                grow,
                self._layout.final(walk.target),
                self._layout.part(walk.target),
                self._layout.grown(walk.target),
                codec=self._codec,
                date_field=self._api.date_field(walk.target.report),
                stored=walk.stored or Boundary(),
                page_rows=counts,
                shifted=shifted,
                filtered=not walk.unfiltered,
            )
        )

    async def _shifted(self, walk: "_Walk", rows: int) -> bool:
        """Whether the first page is another one by now: then rows came twice at page ends."""
        read = partial(self._api.read_page, walk.target)
        again = await self._fetcher.fetch(Call(walk.target, self._first_link(walk), read))
        with self._codec.open(self._layout.part(walk.target)) as lines:
            return (
                b"".join(line for _, line in zip(range(rows), lines, strict=False)) != again.ndjson
            )

    # -- the API's own counts ------------------------------------------------------------------

    async def _reconcile(self, walk: "_Walk") -> str | None:
        """What the manifest is to say of the campaign's summary, as JSON."""
        target = walk.target
        if not self._asked.summary or target.report not in self._api.reports:
            return None
        summary = await self._summaries.of(target)
        path = self._layout.part if walk.base is None else self._layout.grown
        contacts = await anyio.to_thread.run_sync(self._count_contacts, path(target))
        return orjson.dumps(findings(target.report, summary, contacts)).decode()

    def _count_contacts(self, path: Path) -> int:
        with self._codec.open(path) as lines:
            return distinct_contacts(lines)

    # -- other ends ----------------------------------------------------------------------------

    def _restart(self, walk: "_Walk", part: PartFile, why: CursorDropped | Damaged) -> None:
        """Forget the position, then the rows: a kill in between leaves rows that are cut off."""
        dropped = isinstance(why, CursorDropped)
        walk.restarts += dropped
        page = walk.position.pages + 1
        self._begin_anew(walk, part)
        self._emit(
            events.WalkRestarted(
                walk.target,
                page,
                "cursor_dropped" if dropped else "damaged_part",
                why.status if isinstance(why, CursorDropped) else None,
                str(why),
            )
        )

    def _begin_anew(self, walk: "_Walk", part: PartFile) -> None:
        self._store.restart(walk.walk, restarts=walk.restarts)
        part.restart()
        walk.position, walk.seen = Position(), set()
        walk.started_at = stamp(self._clock.now())

    def _set_aside(self, walk: "_Walk", aside: SetAside) -> None:
        self._emit(
            events.CampaignSetAside(
                walk.target,
                str(aside),
                aside.status,
                aside.attempts,
                walk.position.pages,
                walk.position.rows,
                aside.resume_at,
            )
        )

    def _fail(self, walk: "_Walk", error: CampaignError) -> None:
        if isinstance(error, CursorDropped):
            # A cursor that died twice is of no use to the next try either.
            self._store.restart(walk.walk, restarts=0)
        self._store.fail(walk.walk, error.kind)
        self._emit(
            events.CampaignFailed(
                walk.target,
                error.kind,
                error.status,
                error.error_key,
                str(error),
                error.attempts,
                walk.position.pages,
                walk.position.rows,
            )
        )


class _Walk:
    """Where the walk of one campaign stands in this run."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.walk = record.walk
        self.target = record.target
        self.position = record.position
        self.digest = record.digest
        self.base = record.base
        self.stored: Boundary | None = None
        self.restarts = 0 if record.state == "failed" else record.restarts
        self.started_at = record.started_at
        self.seen: set[int] = set()
        self.hopes = 2  # how often a top-up is walked again in the hope that nothing moves
        self.unfiltered = False
