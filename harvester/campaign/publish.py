"""From the last page to the final name and the manifest's line; done again, it is no harm.

The numbers (5) to (7) continue those of `campaign`.
"""

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson

from harvester import events
from harvester.disk.checkpoint import CheckpointStore, SavedWalk
from harvester.disk.disk_set import DiskSet
from harvester.disk.layout import Layout
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.part import Damaged, publish
from harvester.disk.storage import TEMPORARY, Folder, storage
from harvester.events import Observer
from harvester.runtime import Clock, stamp


class Publisher:
    """Publishes walks whose every row stands in a synced file, and whose state says so."""

    def __init__(
        self,
        store: CheckpointStore,
        layout: Layout,
        manifest: NdjsonLog,
        *,
        run_id: str,
        clock: Clock,
        emit: Observer,
    ) -> None:
        self._store = store
        self._layout = layout
        self._manifest = manifest
        self._run_id = run_id
        self._clock = clock
        self._emit = emit

    def publish(self, record: SavedWalk, *, again: bool = False) -> None:
        """Give the file its name and its line. Raise `Damaged` if it is not there or not whole.

        `again` after a kill: what was synced then is read once more before it is believed.
        """
        target, at = record.target, record.position
        final, part = self._layout.final(target), self._layout.part(target)
        source = part if record.base is None else self._layout.grown(target)
        digest = record.digest if again else None
        publish(source, final, size=at.offset, digest=digest)  # (5) the final name
        if record.base is not None:
            with storage(part):
                part.unlink(missing_ok=True)  # its rows are in the final file now
        line = self._line(record)
        self._manifest.append(line)  # (6) cut back to the acknowledged length if (7) did not come
        self._store.complete(record.walk, Folder(final.parent), self._manifest)  # (7)
        self._emit(
            events.CampaignCompleted(
                target=target,
                file=line["file"],
                pages=at.pages,
                rows=at.rows,
                bytes=at.offset,
                sha256=line["sha256"],
                reconciled=line.get("reconciled"),
            )
        )

    def _line(self, record: SavedWalk) -> dict[str, Any]:
        """What the manifest says of a finished file."""
        target, at = record.target, record.position
        return {
            "report": target.report,
            "campaign_id": target.campaign_id,
            "file": f"{target.report}/{self._layout.final(target).name}",
            "rows": at.rows,
            "pages": at.pages,
            "bytes": at.offset,
            "sha256": record.digest.hex(),
            "started_at": record.started_at,
            "completed_at": record.completed_at or stamp(self._clock.now()),
            "run_id": self._run_id,
            **(orjson.loads(record.findings) if record.findings else {}),
        }

    def republish(self) -> None:
        """Finish what a kill interrupted between (4) and (7), or begin it anew if it is gone.

        If the manifest has lost lines, they are written again first.
        """
        if self._manifest.lost:
            self._list_again()
        for record in self._store.finishing_walks():
            try:
                self.publish(record, again=True)
            except Damaged as damage:
                if record.base is None:  # what is not finished must not be called so meanwhile
                    with storage(self._layout.root):
                        self._layout.final(record.target).unlink(missing_ok=True)
                self._store.restart(record.walk, restarts=record.restarts)
                self._emit(
                    events.WalkRestarted(
                        target=record.target,
                        page=record.position.pages,
                        cause="damaged_file",
                        status=None,
                        message=str(damage),
                    )
                )

    def _list_again(self) -> None:
        """Write the lines that the state acknowledged and the manifest does not have.

        The files are not looked at: whether they still are what was written, `verify` tells.
        """
        with storage(TEMPORARY), closing(DiskSet()) as listed:
            listed.extend(_files_of(self._manifest.path))
            for record in self._store.complete_walks():
                line = self._line(record)
                if _file_of(line) not in listed:
                    self._manifest.append(line)
                folder = Folder(self._layout.final(record.target).parent)
                self._store.complete(record.walk, folder, self._manifest)


def _files_of(manifest: Path) -> Iterator[str]:
    """The finished files that a manifest tells of."""
    with storage(manifest), manifest.open("rb") as lines:
        for line in lines:
            with suppress(orjson.JSONDecodeError, KeyError, TypeError):  # not a line of ours
                yield _file_of(orjson.loads(line))


def _file_of(line: dict[str, Any]) -> str:
    """A file by its name and content: one that grew has an older line, too."""
    return f"{line['sha256']} {line['file']}"
