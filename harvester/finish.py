"""From the last page to the final name and the manifest's line; done again, it is no harm.

The numbers (4) to (6) continue those of `campaign`.
"""

from typing import Any

import orjson

from harvester import events
from harvester.checkpoint import CheckpointStore, Record
from harvester.clock import Clock, stamp
from harvester.events import Observer
from harvester.output import Damaged, Folder, Journal, Layout, publish


class Publisher:
    """Publishes walks whose every row stands in a synced file, and whose state says so."""

    def __init__(
        self,
        store: CheckpointStore,
        layout: Layout,
        manifest: Journal,
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

    def publish(self, record: Record) -> None:
        """Give the file its name and its line. Raise `Damaged` if it is not there or not whole."""
        target, at = record.target, record.position
        final, part = self._layout.final(target), self._layout.part(target)
        source = part if record.base is None else self._layout.grown(target)
        publish(source, final, size=at.offset)  # (4) the final name
        if record.base is not None:
            part.unlink(missing_ok=True)  # its rows are in the final file now
        findings: dict[str, Any] = orjson.loads(record.findings) if record.findings else {}
        name = str(final.relative_to(self._layout.root))
        self._manifest.append(  # (5) cut back to the acknowledged length if (6) did not come
            {
                "report": target.report,
                "campaign_id": target.campaign_id,
                "file": name,
                "rows": at.rows,
                "pages": at.pages,
                "bytes": at.offset,
                "sha256": record.digest.hex(),
                "started_at": record.started_at,
                "completed_at": record.completed_at or stamp(self._clock.now()),
                "run_id": self._run_id,
                **findings,
            }
        )
        self._store.complete(record.walk, Folder(final.parent), self._manifest)  # (6)
        self._emit(
            events.CampaignCompleted(
                target,
                name,
                at.pages,
                at.rows,
                at.offset,
                record.digest.hex(),
                findings.get("reconciled"),
            )
        )

    def republish(self) -> None:
        """Finish what a kill interrupted between (3) and (6), or begin it anew if it is gone."""
        for record in self._store.finishing_walks():
            try:
                self.publish(record)
            except Damaged as damage:
                self._store.restart(record.walk, restarts=record.restarts)
                self._emit(
                    events.WalkRestarted(
                        record.target, record.position.pages, "damaged_file", None, str(damage)
                    )
                )
