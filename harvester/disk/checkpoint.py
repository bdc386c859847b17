"""Where every walk stands, in one SQLite file: the truth that a resume starts from.

What a walk does often is saved together with what others did in the same turns of the event loop
(`GroupCommit`): it needs a running loop, and is awaited by a task that may not go on before it is
saved. Everything else is committed when the call returns.

Each row has a checksum. A walk whose row is damaged starts over; damaged settings are refused.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from harvester.disk import saved_campaign, saved_walk
from harvester.disk.group_commit import GroupCommit
from harvester.disk.ndjson_log import NdjsonLog
from harvester.disk.part import Damaged, PartFile
from harvester.disk.saved_campaign import SavedCampaign
from harvester.disk.saved_walk import Base, SavedPage, SavedWalk, checksum
from harvester.disk.state_format import CAMPAIGNS_BY_STATE, steps_from
from harvester.errors import ConfigError, StorageError
from harvester.model import Position, Target

_CAMPAIGN = f"SELECT {', '.join(saved_campaign.COLUMNS)} FROM campaigns WHERE campaign_id = ?"
_KEEP = f"REPLACE INTO campaigns VALUES ({', '.join('?' * len(saved_campaign.COLUMNS))})"
_PACKS = "SELECT page, packed, checksum FROM pages WHERE walk = ? ORDER BY page"
_ADD_PACK = "INSERT INTO pages (walk, page, packed, checksum) VALUES (?, ?, ?, ?)"


class CheckpointStore:
    """The state of one output directory. Opened for writing by the run that holds the lock.

    `copied` says that the file was opened at another place before: a copy made under a run mixes
    moments.
    """

    def __init__(
        self, path: Path, *, durable: bool = True, check: Callable[[], None] = lambda: None
    ) -> None:
        self.path = path
        self.run = self.round = 0
        self.ask_since = ""
        self._group = GroupCommit(path, durable=durable, check=check)
        try:
            self._create()
            found = path.stat()
            self._inode = f"{found.st_dev}:{found.st_ino}"
            self.copied = self.settings().get("inode", self._inode) != self._inode
            if self.copied:
                self._check_integrity()
        except BaseException:
            self._group.close()
            raise

    def _create(self) -> None:
        """Make the tables, or bring older ones up to date; `begin_run` commits that."""
        ((version,),) = self._group.read("PRAGMA user_version")
        self._group.define("checksum", checksum)
        self._group.define("old_checksum", saved_walk.checksum_before_6)
        self._group.define("packed", saved_walk.packed)
        for statement in steps_from(version, self.path):
            self._group.change(statement)

    def _check_integrity(self) -> None:
        if self._group.read("PRAGMA integrity_check") != [("ok",)]:
            raise ConfigError(
                f"{self.path} is damaged, as in a copy that was made while a run worked: copy the "
                "directory again when no run works in it, or start over with `fresh`"
            )

    # -- one run -------------------------------------------------------------------------------

    def settings(self) -> dict[str, str]:
        """What the directory was harvested with; empty in a new one."""
        found = self._group.read("SELECT name, value, checksum FROM settings")
        for name, value, stored in found:
            if name != "synced" and checksum(name, value) != stored:
                raise StorageError(
                    f"cannot use {self.path}: the setting {name!r} is damaged: restore the "
                    "directory from a copy, or start over with `fresh`"
                )
        return {name: value for name, value, _ in found}

    def begin_run(self, settings: dict[str, str], *, tops_up: bool = False, now: str = "") -> None:
        """Remember the settings, and count this run.

        Where finished files are to grow (`tops_up`), it goes on with the round of top-ups that was
        begun and not ended, or begins another. What is older than `ask_since` is asked for again.
        """
        before = self.settings()
        self.run = int(before.get("run", 0)) + 1
        self.round = int(before.get("round", 0))
        own = {**settings, "run": str(self.run), "inode": self._inode}
        if tops_up:
            goes_on = before.get("round_under_way") == "yes"
            self.round += not goes_on
            self.ask_since = before.get("round_at", now) if goes_on else now
            own |= {"round_under_way": "yes", "round_at": self.ask_since, "round": str(self.round)}
        self.ask_since = max(self.ask_since, settings.get("reports_at", ""))
        for name, value in own.items():
            self._set(name, value)
        self._group.commit()

    def end_round(self) -> None:
        """Every campaign was topped up, or failed: the next top-up begins a new round."""
        self._set("round_under_way", "no")
        self._group.commit()

    def peek(self, target: Target) -> SavedWalk:
        """The walk of `target` as it was left, without taking it."""
        found = self._find(target)
        return saved_walk.from_row(found[0]) if found else SavedWalk(id=0, target=target)

    def _find(self, target: Target) -> list[tuple[Any, ...]]:
        query = f"{saved_walk.SELECT} WHERE report = ? AND campaign_id = ?"
        return self._group.read(query, (target.report, target.campaign_id))

    def take(self, target: Target) -> SavedWalk | None:
        """The walk of `target`, new or as it was left; None if this run has had it already.

        Its state is "damaged" if its checksum is wrong: then it must start over.
        """
        found = self._find(target)
        self._group.commit_soon()
        if not found:
            walk = SavedWalk(id=0, target=target, run=self.run)
            values = (target.report, target.campaign_id, *saved_walk.to_row(walk))
            ((number,),) = self._group.change(saved_walk.INSERT, (checksum(*values), *values))
            return replace(walk, id=number)
        walk = saved_walk.from_row(found[0])
        if walk.state != "damaged" and walk.run >= self.run:
            return None
        walk = replace(walk, target=target, run=self.run)
        if walk.state != "damaged":
            self._write(walk)
        return walk

    def pages(self, walk: SavedWalk) -> list[SavedPage]:
        """The pages of a walk under way, in order. Raise `Damaged` if they are not as saved."""
        pages: list[SavedPage] = []
        for page, pack, stored in self._group.read(_PACKS, (walk.id,)):
            if checksum(walk.id, page, pack) != stored:
                raise Damaged("the state of its pages is damaged")
            pages += saved_walk.unpacked(pack)
        if not walk.has_pack():  # else it is among them
            pages += saved_walk.unpacked(walk.recent)
        if len(pages) != walk.position.pages:
            raise Damaged("the state does not have all of its pages")
        return pages

    def counts(self) -> dict[str, int]:
        """How many campaigns of this run are complete, failed, partial or pending.

        With several reports, a campaign is what the worst of its walks is.
        """
        return dict(self._group.read(CAMPAIGNS_BY_STATE.format("run = ?"), (self.run,)))

    # -- what the API says of campaigns ----------------------------------------------------------

    def campaign(self, campaign_id: str) -> SavedCampaign:
        """What is kept of a campaign; nothing of one that is new or damaged."""
        found = self._group.read(_CAMPAIGN, (campaign_id,))
        saved = saved_campaign.from_row(found[0]) if found else None
        return saved or SavedCampaign(campaign_id=campaign_id)

    def keep(self, campaigns: Iterable[SavedCampaign]) -> None:
        """Keep what the API said of campaigns; committed soon (`GroupCommit`)."""
        for campaign in campaigns:
            self._group.change(_KEEP, campaign.to_row())
        self._group.commit_soon()

    # -- one walk ------------------------------------------------------------------------------

    async def commit(self, walk: SavedWalk, part: PartFile) -> None:
        """Save a walk after a page whose rows stand in `part` already."""
        self._group.sync_before_commit(part)
        self._write(walk)
        if walk.has_pack():
            values = (walk.id, walk.position.pages, walk.recent)
            self._group.change(_ADD_PACK, (*values, checksum(*values)))
        await self._group.committed()

    def call_after_commit(self, then: Callable[[], None]) -> None:
        """Call `then` once all that is saved in this turn stands, or failed to."""
        self._group.call_after_commit(then)

    def save(self) -> None:
        """Commit at once what is waiting to be."""
        self._group.commit()

    def restart(self, walk: SavedWalk, *, restarts: int = 0) -> SavedWalk:
        """Forget the position: the walk starts over at its first page."""
        walk = replace(walk, state="new", position=Position(), digest=b"", restarts=restarts)
        if walk.base is None:
            walk = replace(walk, first_event=None, last_event=None)
        return self._save(walk, forget_pages=True)

    def fail(self, walk: SavedWalk, kind: str) -> SavedWalk:
        """The walk is over for this run; its position stays for the next try."""
        return self._save(replace(walk, state="failed", kind=kind))

    def begin_top_up(self, walk: SavedWalk) -> SavedWalk:
        """A finished file is to grow: keep what it is, and walk again from the first page."""
        at = walk.position
        base = Base(at.pages, at.rows, at.offset, walk.digest)
        return self.restart(replace(walk, base=base, findings=None))

    def stay(self, walk: SavedWalk) -> None:
        """A finished file needs no top-up in this round."""
        self._save(replace(walk, round=self.round))

    def cancel_top_up(self, walk: SavedWalk, base: Base) -> SavedWalk:
        """A top-up found nothing new: the finished file stays what it is."""
        at = Position(None, base.pages, base.rows, base.size)
        walk = replace(walk, state="complete", position=at, digest=base.digest)
        return self._save(replace(walk, base=None, round=self.round), forget_pages=True)

    # -- finished files ------------------------------------------------------------------------

    async def finishing(self, walks: Sequence[SavedWalk]) -> None:
        """Every row is in a synced file: from here on only renaming and the manifest remain."""
        for walk in walks:
            self._write(replace(walk, state="finishing", kind=None))
        await self._group.committed()

    async def complete(self, walks: Sequence[SavedWalk], manifest: NdjsonLog) -> None:
        """The final names stand, and the manifest has their lines; both were synced."""
        for walk in walks:
            walk = replace(walk, round=self.round, base=None, edge=None, recent=b"")
            self._write(replace(walk, state="complete", kind=None))
            if walk.position.pages >= saved_walk.PAGES_IN_PACK:
                self._forget_pages(walk)
        self._set("manifest", str(manifest.size))
        await self._group.committed()

    def acknowledge(self, manifest: NdjsonLog) -> None:
        """The manifest was written anew, and synced."""
        self._set("manifest", str(manifest.size))
        self._group.commit()

    def complete_count(self) -> int:
        """How many walks have a finished file."""
        ((count,),) = self._group.read("SELECT count(*) FROM walks WHERE state = 'complete'")
        return int(count)

    def manifest_bytes(self) -> int:
        """How much of the manifest is acknowledged; what is beyond was cut off by a kill."""
        return int(self.settings().get("manifest", 0))

    def walks_in(self, state: str) -> Iterator[SavedWalk]:
        """The walks in a state, read a thousand at a time, but damaged ones: `take` has those.
        A kill leaves "finishing" between a walk's last page and its line in the manifest."""
        query, after = f"{saved_walk.SELECT} WHERE state = ? AND id > ? ORDER BY id LIMIT 1000", 0
        while rows := self._group.read(query, (state, after)):
            yield from (walk for walk in map(saved_walk.from_row, rows) if walk.state == state)
            after = rows[-1][1]

    def sync(self) -> None:
        """Make everything durable that was committed."""
        self._group.sync()

    def close(self) -> None:
        """Give the file back."""
        self._group.close()

    # -- rows ----------------------------------------------------------------------------------

    def _save(self, walk: SavedWalk, *, forget_pages: bool = False) -> SavedWalk:
        """Write a walk and commit it at once."""
        if forget_pages:
            self._forget_pages(walk)
            walk = replace(walk, edge=None, recent=b"")
        self._write(walk)
        self._group.commit()
        return walk

    def _write(self, walk: SavedWalk) -> None:
        target, values = walk.target, saved_walk.to_row(walk)
        of_row = checksum(target.report, target.campaign_id, *values)
        self._group.change(saved_walk.UPDATE, (of_row, *values, walk.id))

    def _forget_pages(self, walk: SavedWalk) -> None:
        self._group.change("DELETE FROM pages WHERE walk = ?", (walk.id,))

    def _set(self, name: str, value: str) -> None:
        values = (name, value, checksum(name, value))
        self._group.change("REPLACE INTO settings VALUES (?, ?, ?)", values)
