"""SQLite on the simulated disk: each statement that changes a database is a change of the disk.

What was committed is safe from a power cut if SQLite was told to sync; what was not synced may be
lost, from the end of the log backwards.
"""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .disk import Disk
from .process import content, running

_HARMLESS = ("SELECT", "PRAGMA", "BEGIN", "ROLLBACK")


class Database:
    """A SQLite file with its log."""

    def __init__(self, path: Path) -> None:
        self.path, self.log = path, path.with_name(f"{path.name}-wal")
        self.syncs = True
        self._safe = self._size()

    def _size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def committed(self) -> None:
        """A commit returned."""
        if self.syncs or self._size() < self._safe:
            self._safe = self._size()

    def torn(self, log: bytes, rng: random.Random) -> bytes:
        """The log if the power was cut before a commit returned."""
        return log[: rng.randint(min(self._safe, len(log)), len(log))]

    def lose(self, rng: random.Random) -> None:
        """The power is cut between two commits."""
        if not self.syncs and self._size() > self._safe:
            self.log.write_bytes(self.torn(self.log.read_bytes(), rng))


def connector(disk: Disk) -> Callable[..., Any]:
    """What `sqlite3.connect` does on this disk."""

    def connected(real: Callable[..., Any], path: Any, *args: Any, **named: Any) -> Any:
        if not str(path).startswith(str(disk.root)):  # a temporary table, or to read only
            return real(path, *args, **named)
        database = running().databases[Path(path)] = Database(Path(path))

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                return _executed(disk, database, super().execute, sql, *values)

        found = real(path, *args, factory=Connection, **named)
        # The simulated disk decides what is safe; a real sync would only cost time.
        sqlite3.Connection.execute(found, "PRAGMA synchronous = OFF")
        return found

    return connected


def _executed(
    disk: Disk,
    database: Database,
    real: Callable[..., sqlite3.Cursor],
    sql: str,
    *values: Any,
) -> sqlite3.Cursor:
    """`Connection.execute`."""
    if sql.startswith("PRAGMA synchronous ="):
        database.syncs = sql.endswith("FULL")
        return real("SELECT 1")
    if sql.lstrip().startswith(_HARMLESS):
        return real(sql, *values)
    try:
        half = disk.point()
    except OSError:
        raise sqlite3.OperationalError("disk I/O error") from None
    found = real(sql, *values)
    if half:
        found.close()  # or it holds the file
        process = running()
        disk.die()
        if sql == "COMMIT" and process.death.power:
            process.kept[database.log] = database.torn(content(database.log) or b"", disk.rng)
        raise sqlite3.OperationalError("disk I/O error")
    if sql == "COMMIT":
        database.committed()
    return found
