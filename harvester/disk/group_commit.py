"""One SQLite connection whose changes are committed together: once for each turn of the event loop.

Write-ahead log. A commit is in the kernel's hands when it returns, so SIGKILL never takes it back.
Against a power cut it must be on the disk: at the API's pace every commit is (`sync_every=0`), at
paces only a loopback server allows they are grouped (`sync_every` seconds). The files that a
durable commit speaks of are synced before it, so no checkpoint is ahead of its data; where the
disk itself mixed the order up, the digest of the part file tells.

SQLite takes its log into the database after durable commits only. To do so it syncs the log: after
any other commit that would make durable what speaks of files which are yet to be synced.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from harvester.disk.storage import storage
from harvester.errors import StorageError
from harvester.runtime import Clock

_LONG = 1_000  # pages of log (4 MB), as SQLite would have it


class Syncable(Protocol):
    """A file that a commit speaks of."""

    def sync(self) -> None:
        """Make its content durable."""
        ...


class GroupCommit:
    """The connection. What fails to be saved once is final: see `_give_up`."""

    def __init__(self, path: Path, *, sync_every: float, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._sync_every = sync_every
        self._synced = float("-inf")
        self._durable: bool | None = None
        self._unsynced: set[Syncable] = set()
        self._broken: str | None = None
        self._unreported_error: StorageError | None = None
        self._scheduled: asyncio.Handle | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._after_commit: list[Callable[[], None]] = []
        with storage(path):
            self._db = sqlite3.connect(path, isolation_level=None)
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except BaseException:
                self._db.close()
                raise

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What a query finds, also among changes that are yet to be committed."""
        with storage(self.path):
            return self._db.execute(query, values).fetchall()

    def change(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Make a change that the next commit saves; give what it returns."""
        if self._broken is not None:
            raise StorageError(self._broken)
        try:
            with storage(self.path):
                if not self._db.in_transaction:
                    self._begin()
                return self._db.execute(statement, values).fetchall()
        except StorageError as broken:
            self._give_up(broken)
            raise

    def sync_before_commit(self, *files: Syncable) -> None:
        """Have files synced before the next durable commit."""
        self._unsynced.update(files)

    def awaits_sync(self, file: Syncable) -> bool:
        """Whether the next durable commit is to sync it."""
        return file in self._unsynced

    def discard_pending_sync(self, file: Syncable) -> None:
        """Have it synced no more."""
        self._unsynced.discard(file)

    # -- when it is committed ------------------------------------------------------------------

    def commit_soon(self) -> None:
        """Commit once every task that is ready now has had its turn."""
        if self._scheduled is None:
            self._scheduled = asyncio.get_running_loop().call_soon(self._turn)

    async def committed(self) -> None:
        """Return when all changes made so far are committed. Raise `StorageError` if they are not.

        Whoever is cancelled here is saved all the same, with the others.
        """
        saved = asyncio.get_running_loop().create_future()
        self._waiting.append(saved)
        self.commit_soon()
        await saved

    def call_after_commit(self, then: Callable[[], None]) -> None:
        """Call `then` when what is changed until this turn ends is committed, or failed to be.

        Those who wait for the commit go on before anything that `then` schedules.
        """
        self._after_commit.append(then)
        self.commit_soon()

    def commit(self) -> None:
        """Commit now; on the disk when this returns, if the last such commit is old enough."""
        try:
            self._commit()
        finally:
            waiting, self._waiting = self._waiting, []
            after_commit, self._after_commit = self._after_commit, []
            for saved in waiting:
                if saved.done():
                    continue
                if self._broken is None:
                    saved.set_result(None)
                else:
                    saved.set_exception(StorageError(self._broken))
            for then in after_commit:
                then()

    def sync(self) -> None:
        """Make everything durable that was committed. Raise what nobody was told yet."""
        if self._unreported_error is not None:
            raise self._unreported_error
        if self._broken is None:
            self.commit()
        self._broken = None  # what follows says nothing new
        self._synced = float("-inf")
        self.change("REPLACE INTO settings VALUES ('synced', 'yes')")
        self.commit()

    def close(self) -> None:
        """Commit what is left to be, and give the file back."""
        if self._scheduled is not None:
            self._scheduled.cancel()
        try:
            if self._broken is None:
                self.commit()
        finally:
            with storage(self.path):
                self._db.close()

    def _turn(self) -> None:
        self._scheduled = None
        told = self._broken is not None or any(not saved.done() for saved in self._waiting)
        try:
            self.commit()
        except StorageError as broken:
            if not told:
                self._unreported_error = broken

    # -- one transaction -----------------------------------------------------------------------

    def _begin(self) -> None:
        durable = self._clock.monotonic() - self._synced >= self._sync_every
        if durable is not self._durable:  # SQLite takes these words between transactions only
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {_LONG if durable else 0}")
            self._durable = durable
        self._db.execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        if self._broken is not None:
            raise StorageError(self._broken)
        if not self._db.in_transaction:
            return
        try:
            with storage(self.path):
                while self._durable and self._unsynced:
                    self._unsynced.pop().sync()  # taken out first: a failed sync is final
                self._db.execute("COMMIT")
        except StorageError as broken:
            self._give_up(broken)
            raise
        if self._durable:
            self._synced = self._clock.monotonic()

    def _give_up(self, broken: StorageError) -> None:
        """Take the whole transaction back, and take no other one.

        What a failed commit had written must not be spoken of by a later one: a second sync would
        succeed without having saved anything.
        """
        self._broken = str(broken)
        if self._db.in_transaction:
            with storage(self.path):
                self._db.execute("ROLLBACK")
