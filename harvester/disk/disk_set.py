"""An ordered set of text on disk: a hundred thousand ids, or millions of contacts, in no memory."""

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any

from harvester.disk.storage import storage

_TEMPORARY = "the folder for temporary files (SQLITE_TMPDIR, TMPDIR)"
_BATCH = 10_000  # items


class DiskSet(Collection[str]):
    """Items without repeats: the heaviest first, those of one weight in the order they came.

    A weight is 0 until it is set. `repeated` counts the items that came more than once. Every call
    raises `StorageError` if the folder for temporary files fails.
    """

    def __init__(self) -> None:
        self._given = 0

    @cached_property
    def _db(self) -> sqlite3.Connection:
        """A private database, gone when it is closed; made when it is first needed."""
        with storage(_TEMPORARY):
            db = sqlite3.connect("", isolation_level=None)
            try:
                db.execute("PRAGMA synchronous = OFF")
                db.execute(
                    "CREATE TABLE items (at INTEGER PRIMARY KEY, item TEXT NOT NULL UNIQUE, "
                    "weight REAL NOT NULL DEFAULT 0)"
                )
            except BaseException:
                db.close()
                raise
        return db

    def extend(self, items: Iterable[str]) -> None:
        """Add items."""
        self._add("INSERT OR IGNORE INTO items (item) VALUES (?)", ((item,) for item in items))

    def weigh(self, items: Iterable[tuple[str, float]]) -> None:
        """Add items with a weight; of an item that came before, the last weight counts."""
        self._add(
            "INSERT INTO items (item, weight) VALUES (?, ?) "
            "ON CONFLICT (item) DO UPDATE SET weight = excluded.weight",
            items,
        )

    def _add(self, statement: str, items: Iterable[tuple[Any, ...]]) -> None:
        items = iter(items)
        while some := list(islice(items, _BATCH)):  # what this raises is not of this folder
            with storage(_TEMPORARY), self._db:
                self._db.execute("BEGIN")
                self._db.executemany(statement, some)
            self._given += len(some)

    def add(self, item: str) -> bool:
        """Add one item; False if it had come before."""
        before = self._db.total_changes
        self.extend((item,))
        return self._db.total_changes > before

    def weight(self, item: str) -> float:
        """The weight of an item; 0 if it is not here."""
        row = self._first("SELECT weight FROM items WHERE item = ?", item)
        return float(row[0]) if row else 0.0

    @property
    def repeated(self) -> int:
        """How many items had come before."""
        return self._given - len(self)

    def __len__(self) -> int:
        (count,) = self._first("SELECT count(*) FROM items") or (0,)
        return int(count)

    def __iter__(self) -> Iterator[str]:
        with storage(_TEMPORARY):
            for (item,) in self._db.execute("SELECT item FROM items ORDER BY weight DESC, at"):
                yield item

    def __contains__(self, item: object) -> bool:
        if not self._given:  # there is no need to ask
            return False
        return self._first("SELECT 1 FROM items WHERE item = ?", item) is not None

    def _first(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with storage(_TEMPORARY):
            row: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
        return row

    def close(self) -> None:
        """Drop the items."""
        if "_db" in vars(self):
            self._db.close()
