"""One campaign, from where it was left to its finished file, or to the reason why there is none."""

from dataclasses import replace
from pathlib import Path

import anyio
import orjson

from harvester import events
from harvester.api.base import Api
from harvester.campaign.grower import Grower
from harvester.campaign.publish import Publisher
from harvester.campaign.reconcile import Summaries, distinct_contacts, findings
from harvester.campaign.walk import Walk, Walker, WalkOptions
from harvester.disk.checkpoint import Base, CheckpointStore, SavedWalk
from harvester.disk.compress import Codec
from harvester.disk.layout import Layout
from harvester.disk.storage import storage
from harvester.errors import CampaignError, CursorDropped, Deferred, StopRun
from harvester.events import Observer
from harvester.model import Fetcher, Position
from harvester.runtime import Clock, stamp


class CampaignHarvester:
    """Harvests one campaign at a call; shared by all workers."""

    def __init__(
        self,
        fetcher: Fetcher,
        api: Api,
        asked: WalkOptions,
        *,
        store: CheckpointStore,
        layout: Layout,
        publisher: Publisher,
        codec: Codec,
        clock: Clock,
        emit: Observer,
    ) -> None:
        self._walker = Walker(
            fetcher, api, asked, store=store, layout=layout, codec=codec, clock=clock, emit=emit
        )
        self._grower = Grower(
            fetcher, api, self._walker, store=store, layout=layout, codec=codec, emit=emit
        )
        self._reconciles = asked.summary
        self._api = api
        self._store = store
        self._layout = layout
        self._publisher = publisher
        self._codec = codec
        self._clock = clock
        self._emit = emit
        self._summaries = Summaries(fetcher, api)

    async def harvest(self, record: SavedWalk) -> None:
        """Bring one campaign to its end, whatever that is. Raise only `StopRun`."""
        with self._walker.opened(record) as walk:
            at = record.position
            self._emit(events.CampaignStarted(walk.target, at.pages, at.rows))
            try:
                finished = await self._finished(walk)
                if finished is not None:
                    self._publisher.publish(finished)
            except Deferred as aside:
                self._deferred(walk, aside)
            except CampaignError as error:
                self._fail(walk, error)
            except (StopRun, anyio.get_cancelled_exc_class()):
                at = walk.position
                self._emit(events.CampaignInterrupted(walk.target, at.pages, at.rows))
                raise
            except Exception as bug:
                # One campaign's surprise, whatever it is, must not end the others.
                self._fail(walk, CampaignError("unexpected", f"a bug: {type(bug).__name__}"))

    async def _finished(self, walk: Walk) -> SavedWalk | None:
        """Walk to the end; give what is to be published, if anything."""
        if walk.base is None:
            await self._walker.walk(walk)
            return await self._finishing(walk, walk.position, walk.part.digest())
        await self._grower.read_base(walk, walk.base)
        await self._walker.walk(walk)
        grown = await self._grower.grown(walk)
        if grown is None:
            return None
        at = _grown_position(walk.base, walk.position, grown.added, grown.size)
        return await self._finishing(walk, at, grown.digest)

    async def _finishing(self, walk: Walk, position: Position, digest: bytes) -> SavedWalk:
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
        await self._store.finishing(record)  # (4)
        return record

    # -- the API's own counts ------------------------------------------------------------------

    async def _reconcile(self, walk: Walk) -> str | None:
        """What the manifest is to say of the campaign's summary, as JSON."""
        target = walk.target
        if not self._reconciles or target.report not in self._api.reports:
            return None
        summary = await self._summaries.of(target)
        path = self._layout.part if walk.base is None else self._layout.grown
        contacts = await anyio.to_thread.run_sync(self._count_contacts, path(target))
        return orjson.dumps(findings(target.report, summary, contacts)).decode()

    def _count_contacts(self, path: Path) -> int:
        with storage(path), self._codec.open(path) as lines:
            return distinct_contacts(lines)

    # -- other ends ----------------------------------------------------------------------------

    def _deferred(self, walk: Walk, aside: Deferred) -> None:
        self._emit(
            events.CampaignDeferred(
                target=walk.target,
                message=str(aside),
                status=aside.status,
                attempts=aside.attempts,
                pages=walk.position.pages,
                rows=walk.position.rows,
                resume_at=aside.resume_at,
            )
        )

    def _fail(self, walk: Walk, error: CampaignError) -> None:
        if isinstance(error, CursorDropped):
            # A cursor that died twice is of no use to the next try either.
            self._store.restart(walk.id, restarts=0)
        self._store.fail(walk.id, error.kind)
        self._emit(
            events.CampaignFailed(
                target=walk.target,
                kind=error.kind,
                status=error.status,
                error_key=error.error_key,
                message=str(error),
                attempts=error.attempts,
                pages=walk.position.pages,
                rows=walk.position.rows,
            )
        )


def _grown_position(base: Base, walked: Position, added: int, size: int) -> Position:
    """Where a topped-up file ends: what it had, and what was walked and added."""
    return Position(None, base.pages + walked.pages, base.rows + added, size)
