"""From the last page to the final name and the manifest's line; each step is idempotent.

The numbers (3) to (7) continue those of `walk`. Walks that reach their end while others are being
published form the next batch: one thread, at most two transactions and one sync of the manifest.
"""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
import orjson
from msgspec import Struct

from harvester import events
from harvester.campaign.context import RunContext
from harvester.disk.disk_set import DiskSet
from harvester.disk.layout import GROWN, PART
from harvester.disk.part import Damaged, Obstructed, PartFile, publish
from harvester.disk.saved_walk import SavedWalk
from harvester.disk.storage import storage, sync_directory
from harvester.errors import CampaignError, StorageError
from harvester.runtime import stamp

_SYNCS_AT_ONCE = 4  # more make the disk no faster


class _Finished(Struct, eq=False):
    """A walk whose last page has come. Without its open `part` it is of an earlier run."""

    saved: SavedWalk
    part: PartFile | None = None
    published: bool = False
    error: Damaged | Obstructed | None = None


class Publisher:
    """Publishes finished walks; shared by all workers."""

    def __init__(self, context: RunContext) -> None:
        self._layout = context.layout
        self._lock = context.lock
        self._store = context.store
        self._reports = tuple(context.api.reports)
        self._manifest = context.manifest
        self._run_id = context.run_id
        self._clock = context.clock
        self._emit = context.emit
        self._turn = asyncio.Lock()
        self._waiting: list[_Finished] = []
        self._broken: BaseException | None = None

    async def publish(self, saved: SavedWalk, part: PartFile) -> None:
        """Give a file its name and its line; a cancel waits for it.

        Raise `CampaignError` if the file is not there any more, or something obstructs its name;
        `StorageError` if the disk refuses: then nothing more is published.
        """
        mine = _Finished(saved, part)
        self._waiting.append(mine)
        with anyio.CancelScope(shield=True):
            async with self._turn:
                if not mine.published and mine.error is None:
                    batch, self._waiting = self._waiting, []
                    await self._publish(batch)
        if isinstance(mine.error, Damaged):
            raise CampaignError("damaged_file", str(mine.error))
        if mine.error is not None:
            raise mine.error

    async def _publish(self, batch: Sequence[_Finished]) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            parts = [each.part for each in batch if each.part is not None]
            # (3) the data, before any final name; (4) from here on only names are missing
            await anyio.to_thread.run_sync(_sync_parts, parts)
            if others := [each.saved for each in batch if each.saved.state != "finishing"]:
                await self._store.finishing(others)
            await self._name(batch)
        except BaseException as error:
            self._broken = error
            raise

    async def _name(self, batch: Sequence[_Finished]) -> None:
        """The final names, the manifest's lines, and the state that says so."""
        lines = await anyio.to_thread.run_sync(self._rename_and_list, batch)
        done = [each for each in batch if each.error is None]
        await self._store.complete([each.saved for each in done], self._manifest)  # (7)
        for each, line in zip(done, lines, strict=True):
            each.published = True
            at = each.saved.position
            self._emit(
                events.CampaignCompleted(
                    target=each.saved.target,
                    file=line["file"],
                    pages=at.pages,
                    rows=at.rows,
                    bytes=at.offset,
                    sha256=line["sha256"],
                    reconciled=line.get("reconciled"),
                )
            )

    def _rename_and_list(self, batch: Sequence[_Finished]) -> list[dict[str, Any]]:
        """Steps (5) and (6), durable when this returns; what cannot be named gets its error."""
        self._lock.check()
        for each in batch:
            try:
                self._rename(each)  # (5) the final name
            except (Damaged, Obstructed) as error:
                each.error = error
        done = [each.saved for each in batch if each.error is None]
        lines = [self._line(saved) for saved in done]
        try:
            for line in lines:
                self._manifest.append(line)  # (6) cut back to the acknowledged length if (7) fails
            self._sync_names(done)
        except StorageError:
            self._lock.check()  # if the whole directory is gone, say that
            raise
        return lines

    def _rename(self, finished: _Finished) -> None:
        saved, part = finished.saved, finished.part
        target, size = saved.target, saved.position.offset
        digest = saved.digest if part is None else None  # time has passed: read it once more
        final, path = self._layout.name(target), self._layout.name(target, PART)
        if part is not None and not part.stands():
            raise Damaged("the part file was moved, removed or replaced")
        if saved.base is None:
            publish(path, final, size=size, digest=digest)
            return
        publish(self._layout.name(target, GROWN), final, size=size, digest=digest)
        with storage(path):
            self._layout.part(target).unlink(missing_ok=True)  # its rows are in the final file now

    def _sync_names(self, walks: Sequence[SavedWalk]) -> None:
        for report in {saved.target.report for saved in walks}:
            sync_directory(self._layout.root / report)
        self._manifest.sync()
        self._manifest.check()

    def _line(self, saved: SavedWalk) -> dict[str, Any]:
        """What the manifest says of a finished file."""
        target, at = saved.target, saved.position
        return {
            "report": target.report,
            "campaign_id": target.campaign_id,
            "file": self._layout.name_in_root(target),
            "rows": at.rows,
            "pages": at.pages,
            "bytes": at.offset,
            "sha256": saved.digest.hex(),
            "first_event": saved.first_event,
            "last_event": saved.last_event,
            "started_at": saved.started_at,
            "completed_at": saved.completed_at or stamp(self._clock.now()),
            "run_id": self._run_id,
            **(orjson.loads(saved.findings) if saved.findings else {}),
        }

    # -- what a kill has left ------------------------------------------------------------------

    async def republish(self) -> None:
        """Finish what a kill interrupted between (4) and (7), or begin it anew if it is gone.

        If the manifest has lost lines, they are written again first.
        """
        if self._manifest.lost or self._store.copied:
            await self._list_again()
        if self._store.round:
            self._remove_leftovers()
        batch = [_Finished(saved) for saved in self._store.walks_in("finishing")]
        if batch:
            await self._name(batch)
        for each in batch:
            if isinstance(each.error, Damaged):  # what is obstructed is left to its own campaign
                self._begin_again(each.saved, each.error)

    def _remove_leftovers(self) -> None:
        """The parts of top-ups that brought nothing new: a kill left them after all was saved."""
        for report in self._reports:
            with storage(self._layout.root):
                for target, path in list(self._layout.parts(report)):
                    if self._store.peek(target).state == "complete":
                        path.unlink(missing_ok=True)

    def _begin_again(self, saved: SavedWalk, damage: Damaged) -> None:
        if saved.base is None:  # what is not finished must not be called so meanwhile
            with storage(self._layout.root):
                self._layout.final(saved.target).unlink(missing_ok=True)
        self._store.restart(saved, restarts=saved.restarts)
        self._emit(
            events.WalkRestarted(
                target=saved.target,
                page=saved.position.pages,
                cause="damaged_file",
                status=None,
                message=str(damage),
            )
        )

    async def _list_again(self) -> None:
        """Write the lines that the state acknowledged and the manifest does not have.

        The files are not looked at: `verify` does that.
        """
        with closing(DiskSet()) as listed:
            listed.extend(_files_of(self._manifest.path))
            for saved in self._store.walks_in("complete"):
                line = self._line(saved)
                if _file_of(line) not in listed:
                    self._manifest.append(line)
        self._manifest.sync()
        await self._store.complete([], self._manifest)


def _sync_parts(parts: Sequence[PartFile]) -> None:
    """A journaling file system makes what is synced at the same time durable in one step; threads
    for it cost more than the syncs of a few."""
    if len(parts) < _SYNCS_AT_ONCE:
        for part in parts:
            part.sync()
        return
    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
        for _ in pool.map(PartFile.sync, parts):
            pass  # raises what a sync raised


def _files_of(manifest: Path) -> Iterator[str]:
    """The finished files that a manifest has."""
    with storage(manifest), manifest.open("rb") as lines:
        for line in lines:
            with suppress(orjson.JSONDecodeError, KeyError, TypeError):  # not a line of ours
                yield _file_of(orjson.loads(line))


def _file_of(line: dict[str, Any]) -> str:
    """A file by its name and content: one that grew has an older line, too."""
    return f"{line['sha256']} {line['file']}"
