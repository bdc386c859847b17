"""One campaign, from where it was left to its finished file.

The lines marked (1) to (6) are the steps of the crash promise. A kill between any two of them
leaves a state from which the same command ends with the very same bytes.
"""

from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

import anyio

from harvester import events
from harvester.api import Api
from harvester.checkpoint import CheckpointStore, Record
from harvester.clock import Clock, stamp
from harvester.compress import Codec
from harvester.errors import CampaignError, CursorDropped, SetAside, StopRun
from harvester.events import Observer
from harvester.fetch import Fetcher
from harvester.model import Page, Position, Target
from harvester.output import Damaged, Journal, Layout, PartFile, publish
from harvester.walk import cursor_digest, walk_pages


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every campaign: `limit` rows a page, events from `since` on."""

    limit: int
    since: datetime | None
    max_pages: int


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
        manifest: Journal,
        codec: Codec,
        run_id: str,
        clock: Clock,
        emit: Observer,
    ) -> None:
        self._fetcher = fetcher
        self._api = api
        self._asked = asked
        self._store = store
        self._layout = layout
        self._manifest = manifest
        self._codec = codec
        self._run_id = run_id
        self._clock = clock
        self._emit = emit

    async def harvest(self, record: Record) -> None:
        """Bring one campaign to its end, whatever that is. Raise only `StopRun`."""
        target, walk = record.target, _Walk(record)
        self._emit(events.CampaignStarted(target, record.position.pages, record.position.rows))
        try:
            await self._walk(walk)
        except SetAside as aside:
            self._emit(
                events.CampaignSetAside(
                    target,
                    str(aside),
                    aside.status,
                    aside.attempts,
                    walk.position.pages,
                    walk.position.rows,
                    aside.resume_at,
                )
            )
        except CampaignError as error:
            self._fail(walk, error)
        except (StopRun, anyio.get_cancelled_exc_class()):
            self._emit(events.CampaignLeft(target, walk.position.pages, walk.position.rows))
            raise
        except Exception as bug:
            # One campaign's surprise, whatever it is, must not end the others.
            self._fail(walk, CampaignError("unexpected", f"a bug: {type(bug).__name__}"))

    async def _walk(self, walk: "_Walk") -> None:
        part = PartFile(self._layout.part(walk.target))
        try:
            await self._resume(walk, part)
            try:
                await self._follow(walk, part)
            except CursorDropped as dropped:
                if walk.restarts:
                    raise
                self._restart(walk, part, dropped)
                await self._follow(walk, part)
        finally:
            self._store.forget(part)
            part.close()
        self.publish(walk.target, walk.walk, walk.position, part.digest(), walk.started_at)

    async def _resume(self, walk: "_Walk", part: PartFile) -> None:
        """Cut the part back to the checkpoint, or start over if it lost what was saved."""
        if walk.position.pages == 0:
            part.restart()
            walk.started_at = stamp(self._clock.now())
            self._store.begin(walk.walk, at=walk.started_at)
            return
        try:
            await anyio.to_thread.run_sync(part.resume, walk.position.offset, walk.digest)
        except Damaged as damage:
            self._restart(walk, part, damage)
        else:
            walk.seen = self._store.cursors(walk.walk)

    async def _follow(self, walk: "_Walk", part: PartFile) -> None:
        """The inner loop: rows first, then the position, then the next page."""
        target = walk.target
        pages = walk_pages(
            self._fetcher,
            self._api,
            target,
            first=self._api.first_link(target, limit=self._asked.limit, since=self._asked.since),
            at=walk.position,
            seen=walk.seen,
            max_pages=self._asked.max_pages,
        )
        async with aclosing(pages):
            async for page in pages:
                offset = part.append(self._encode(page, part))  # (1) rows
                position = walk.position.after(page, offset)
                if page.next is None:
                    part.sync()  # (2) no final name without its data, not even after a power cut
                    now = stamp(self._clock.now())
                    self._store.finishing(walk.walk, position, part, at=now)  # (3) all is here
                else:
                    self._store.commit(walk.walk, position, cursor_digest(page.next), part)  # (3)
                size = offset - walk.position.offset
                walk.position = position
                self._emit(
                    events.PageCommitted(target, position.pages, page.rows, size, position.finished)
                )

    def publish(
        self, target: Target, walk: int, position: Position, digest: bytes, started_at: str | None
    ) -> None:
        """Give a finished part its name and its line. Done again after a kill, it is no harm.

        Raise `Damaged` if the file is not there or not whole.
        """
        final = self._layout.final(target)
        publish(self._layout.part(target), final, size=position.offset)  # (4) the final name
        name = str(final.relative_to(self._layout.root))
        self._manifest.append(  # (5) cut back to the acknowledged length if (6) did not come
            {
                "report": target.report,
                "campaign_id": target.campaign_id,
                "file": name,
                "rows": position.rows,
                "pages": position.pages,
                "bytes": position.offset,
                "sha256": digest.hex(),
                "started_at": started_at,
                "completed_at": stamp(self._clock.now()),
                "run_id": self._run_id,
            }
        )
        self._store.complete(walk, self._manifest)  # (6)
        self._emit(
            events.CampaignCompleted(
                target, name, position.pages, position.rows, position.offset, digest.hex()
            )
        )

    def republish(self, record: Record) -> None:
        """Finish what a kill interrupted between (3) and (6)."""
        try:
            self.publish(
                record.target, record.walk, record.position, record.digest, record.started_at
            )
        except Damaged as damage:
            self._store.restart(record.walk, restarts=record.restarts)
            self._emit(
                events.WalkRestarted(
                    record.target, record.position.pages, "damaged_file", None, str(damage)
                )
            )

    def _encode(self, page: Page, part: PartFile) -> bytes:
        """The page's own member; an empty page adds nothing, an empty file is still valid."""
        if page.rows or (page.next is None and part.offset == 0):
            return self._codec.encode(page.ndjson)
        return b""

    def _restart(self, walk: "_Walk", part: PartFile, why: CursorDropped | Damaged) -> None:
        """Forget the position, then the rows: a kill in between leaves rows that are cut off."""
        dropped = isinstance(why, CursorDropped)
        walk.restarts += dropped
        self._store.restart(walk.walk, restarts=walk.restarts)
        part.restart()
        self._emit(
            events.WalkRestarted(
                walk.target,
                walk.position.pages + 1,
                "cursor_dropped" if dropped else "damaged_part",
                why.status if isinstance(why, CursorDropped) else None,
                str(why),
            )
        )
        walk.position, walk.seen = Position(), set()
        walk.started_at = stamp(self._clock.now())
        self._store.begin(walk.walk, at=walk.started_at)

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
        self.walk = record.walk
        self.target = record.target
        self.position = record.position
        self.digest = record.digest
        self.restarts = 0 if record.state == "failed" else record.restarts
        self.started_at = record.started_at
        self.seen: set[int] = set()
