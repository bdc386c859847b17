"""One campaign, from where it was left to its finished file, or to the reason why there is none."""

from typing import Any

import anyio
import orjson
from msgspec.structs import replace

from harvester import events
from harvester.campaign.context import RunContext
from harvester.campaign.publish import Publisher
from harvester.campaign.walk import Walk, Walker
from harvester.disk.part import refuse_directory
from harvester.disk.saved_walk import SavedWalk
from harvester.disk.storage import storage
from harvester.errors import CampaignError, CursorDropped, Deferred, InDoubt, StopRun, describe_bug
from harvester.input.lookup import Lookup
from harvester.model import Position
from harvester.runtime import stamp


class CampaignHarvester:
    """Harvests one campaign at a call; shared by all workers."""

    def __init__(self, context: RunContext, publisher: Publisher, lookup: Lookup) -> None:
        self._context = context
        self._store = context.store
        self._emit = context.emit
        self._publisher = publisher
        self._walker = Walker(context)
        self._lookup = lookup

    async def harvest(self, saved: SavedWalk) -> SavedWalk | None:
        """Bring one campaign to its end, whatever that is. Raise only `StopRun`.

        Give the walk back if others are to be asked first.
        """
        walk = self._walker.new(saved)
        at, expected = walk.position, self._context.options.counted(walk.target)
        self._emit(events.CampaignStarted(walk.target, at.pages, at.rows, expected))
        try:
            refuse_directory(self._context.layout.name(walk.target))
            with self._walker.opened(walk):
                finished = await self._finished(walk)
                if finished is not None:
                    await self._publisher.publish(finished, walk.part)  # (3) to (7)
        except InDoubt:
            return walk.saved
        except Deferred as deferred:
            self._defer(walk, deferred)
        except CampaignError as error:
            self._fail(walk, error)
        except (StopRun, anyio.get_cancelled_exc_class()):
            at = walk.position
            self._emit(events.CampaignInterrupted(walk.target, at.pages, at.rows))
            raise
        except Exception as bug:
            # One campaign's surprise, whatever it is, must not end the others.
            self._fail(walk, CampaignError("unexpected", f"a bug: {describe_bug(bug)}"))
        return None

    async def _finished(self, walk: Walk) -> SavedWalk | None:
        """Walk to the end; give what is to be published, if anything."""
        # A walk that goes on has its way in its position.
        if walk.position.pages:
            walk.campaign = self._lookup.kept(walk.target.campaign_id)
        elif (empty := await self._begin(walk)) is not None:
            return empty
        if (base := walk.saved.base) is not None:
            from harvester.campaign.topup import TopUp  # not needed in a first harvest

            finished = await TopUp(self._context, self._walker).walk(walk, base)
            if finished is None:
                return None
        else:
            await self._walker.walk(walk)
            finished = walk.saved
        found = await self._reconcile(walk, finished)
        now = self._context.clock.now()
        said = {**orjson.loads(finished.findings or "{}"), **(found or {})}
        findings = orjson.dumps(said).decode() if said else None
        return replace(finished, completed_at=stamp(now), findings=findings)

    async def _begin(self, walk: Walk) -> SavedWalk | None:
        """Learn what there is to know of the campaign first. If that is all there is to the report,
        give the walk as it is finished without a request of its own."""
        context, base = self._context, walk.saved.base
        walk.campaign = campaign = await self._lookup.detail(walk.target, top_up=base is not None)
        report, now = walk.target.report, context.clock.now()
        walk.saved = replace(walk.saved, counted=campaign.mark(report, now))
        if base is not None:
            return None
        if not context.api.reports[report].paged:
            links = campaign.current_links(self._store.ask_since, now)
            return None if links is None else self._unasked(walk, links.encode(), pages=1)
        if not context.options.counts:
            return None
        if not campaign.is_empty(report, now):
            walk.empty = campaign.empty_activities(report, now)
            return None
        facts = {"asked": False, "counted_at": campaign.saved.counted_at}
        return replace(self._unasked(walk, b""), findings=orjson.dumps(facts).decode())

    def _unasked(self, walk: Walk, rows: bytes, *, pages: int = 0) -> SavedWalk:
        """The walk as it is finished with these rows."""
        walk.part.restart()
        offset, count = walk.part.append(self._context.codec.encode(rows)), rows.count(b"\n")
        if pages:
            self._emit(
                events.PageCommitted(
                    target=walk.target, page=pages, rows=count, bytes=offset, last=True
                )
            )
        at = stamp(self._context.clock.now())
        return replace(
            walk.saved,
            position=Position(pages=pages, rows=count, offset=offset),
            digest=walk.part.digest(),
            started_at=at,
            completed_at=at,
        )

    # -- the API's own counts ------------------------------------------------------------------

    async def _reconcile(self, walk: Walk, finished: SavedWalk) -> dict[str, Any] | None:
        """What the manifest is to say of the campaign's summary."""
        context, target = self._context, walk.target
        if not context.options.summary or not context.api.reports[target.report].paged:
            return None
        from harvester.campaign import reconcile  # not needed without a summary

        base, campaign = walk.saved.base, walk.campaign
        if context.api.bulk_counts is None:
            anew = walk.resumed or base is not None  # older counts are older than what came
            summary = await self._lookup.counted(target, anew=anew)
        else:
            summary = campaign.fresh_counts(context.clock.now()) if campaign else None
        path = (context.layout.part if base is None else context.layout.grown)(target)

        def count_contacts() -> int:
            with storage(path), context.codec.open(path) as lines:
                return reconcile.distinct_contacts(lines)

        contacts = await anyio.to_thread.run_sync(count_contacts)
        rows = finished.position.rows
        return reconcile.findings(target.report, summary, contacts=contacts, rows=rows)

    # -- other ends ----------------------------------------------------------------------------

    def _defer(self, walk: Walk, deferred: Deferred) -> None:
        self._emit(
            events.CampaignDeferred(
                target=walk.target,
                kind=deferred.kind,
                message=str(deferred),
                status=deferred.status,
                attempts=deferred.attempts,
                pages=walk.position.pages,
                rows=walk.position.rows,
                resume_at=deferred.resume_at or self._context.clock.now(),
            )
        )

    def _fail(self, walk: Walk, error: CampaignError) -> None:
        at = walk.position
        if isinstance(error, CursorDropped):
            # A cursor that was dropped twice is of no use to the next try either.
            walk.saved = self._store.restart(walk.saved)
        self._store.fail(walk.saved, error.kind)
        self._emit(
            events.CampaignFailed(
                target=walk.target,
                kind=error.kind,
                status=error.status,
                error_key=error.error_key,
                message=str(error),
                attempts=error.attempts,
                pages=at.pages,
                rows=at.rows,
            )
        )
