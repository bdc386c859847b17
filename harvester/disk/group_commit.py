"""One SQLite connection. Changes are committed together, three turns of the event loop later.

Write-ahead log. A commit is in the kernel's hands when it returns, so SIGKILL never takes it back.
Against a power cut there are two modes, one for a whole run:

* durable: every commit is on the disk when it returns, and the part files that it refers to were
  synced before it. No checkpoint is ahead of its data.
* else (paces that only a loopback server allows): SQLite syncs when it takes its log into the
  database. A power cut can leave a checkpoint ahead of its part file; the part's digest shows it.

From the first change on, the file's write lock is held: after each commit the next transaction
begins at once. No other program makes the event loop wait in mid-run. Readers are not hindered.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harvester.disk.part import PartFile
from harvester.disk.storage import storage
from harvester.errors import StorageError

TURNS = 3
"""Turns of the event loop from the first change to the commit. Pages that arrive at about the same
time are written within three turns, and one transaction saves them. With a commit after each turn
there are three times as many.
"""
_BUSY_WAIT = 1.0  # s; how long to wait for another program's transaction before the run stops


class GroupCommit:
    """The connection. What fails to be saved once is final: see `_give_up`."""

    def __init__(self, path: Path, *, durable: bool, check: Callable[[], None]) -> None:
        """`check` is called before each commit, and raises if the file is no longer this run's."""
        self.path = path
        self._durable = durable
        self._check = check
        self._unsynced: set[PartFile] = set()
        self._broken: StorageError | None = None
        self._changed = False  # the open transaction has something to save
        self._scheduled: asyncio.Handle | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._after_commit: list[Callable[[], None]] = []
        self._disk = storage(path)
        with self._disk:
            self._db = sqlite3.connect(path, timeout=_BUSY_WAIT, isolation_level=None)
            try:
                # A damaged text is read as it is, and found by its checksum.
                self._db.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
                self._identity = path.stat()
                self._db.execute("PRAGMA journal_mode = WAL")
                self._set_durable(durable)
            except BaseException:
                self._db.close()
                raise

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What a query finds, also among changes that are yet to be committed."""
        with self._disk:
            return self._db.execute(query, values).fetchall()

    def change(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Make a change that the next commit saves; give what it returns."""
        self._raise_if_broken()
        try:
            with self._disk:
                if not self._db.in_transaction:
                    self._db.execute("BEGIN IMMEDIATE")
                self._changed = True
                return self._db.execute(statement, values).fetchall()
        except StorageError as broken:
            self._give_up(broken)
            raise

    def define(self, name: str, function: Callable[..., int | bytes]) -> None:
        """Let SQL call a function."""
        self._db.create_function(name, -1, function, deterministic=True)

    def sync_before_commit(self, part: PartFile) -> None:
        """The next commit refers to `part`."""
        if self._durable:
            self._unsynced.add(part)

    # -- when it is committed ------------------------------------------------------------------

    def commit_soon(self) -> None:
        """Commit once every task that is ready now, or about to be, has had its turn."""
        if self._scheduled is None:
            self._commit_in(TURNS)

    async def committed(self) -> None:
        """Return when all changes made so far are committed. Raise `StorageError` if they are not.

        A task that is cancelled here is saved all the same, with the others.
        """
        saved = asyncio.get_running_loop().create_future()
        self._waiting.append(saved)
        self.commit_soon()
        await saved

    def call_after_commit(self, then: Callable[[], None]) -> None:
        """Call `then` when what is changed in this turn is committed, or failed to be.

        Tasks that wait for the commit go on before anything that `then` schedules.
        """
        self._after_commit.append(then)
        self.commit_soon()

    def commit(self) -> None:
        """Commit now."""
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
                    saved.set_exception(_again(self._broken))
            for then in after_commit:
                then()

    def sync(self) -> None:
        """Make everything durable that was committed. Raise `StorageError` if a commit failed."""
        self.commit()
        with self._disk:
            self._db.rollback()  # the mode cannot be changed within a transaction
        self._set_durable(True)
        self.change("REPLACE INTO settings (name, value) VALUES ('synced', 'yes')")
        self.commit()

    def close(self) -> None:
        """Commit what is left to be, and give the file back."""
        if self._scheduled is not None:
            self._scheduled.cancel()
        try:
            if self._broken is None:
                self.commit()
        finally:
            with self._disk:
                self._db.rollback()
                self._db.close()

    def _commit_in(self, turns: int) -> None:
        if turns:
            self._scheduled = asyncio.get_running_loop().call_soon(self._commit_in, turns - 1)
            return
        self._scheduled = None
        try:
            self.commit()
        except StorageError:
            return  # the tasks that wait have it; `change` and `sync` raise it for the others

    # -- one transaction -----------------------------------------------------------------------

    def _set_durable(self, durable: bool) -> None:
        with self._disk:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")

    def _commit(self) -> None:
        self._raise_if_broken()
        if not self._changed:
            return
        try:
            self._check()
            self._check_file()
            while self._unsynced:
                self._unsynced.pop().sync()
            with self._disk:
                self._db.execute("COMMIT")
                self._changed = False
                self._db.execute("BEGIN IMMEDIATE")
        except StorageError as broken:
            self._give_up(broken)
            raise

    def _check_file(self) -> None:
        """What is committed to a file that was removed is committed to nothing."""
        try:
            if os.path.samestat(self.path.stat(), self._identity):
                return
        except OSError:
            pass
        raise StorageError(
            f"{self.path} was moved, removed or replaced while this run worked: the run stops. "
            "Put it back to go on",
            reason="directory_lost",
        )

    def _give_up(self, broken: StorageError) -> None:
        """Take the whole transaction back, and take no other one.

        No later commit may refer to what a failed one had written: a second sync would succeed
        without having saved anything.
        """
        self._broken = broken
        with self._disk:
            self._db.rollback()

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise _again(self._broken)


def _again(broken: StorageError) -> StorageError:
    """The same error for another task."""
    return StorageError(str(broken), reason=broken.reason)
