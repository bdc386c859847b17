"""An ordered set of text on disk: a hundred thousand ids, or millions of contacts, in no memory."""

import sqlite3
from collections.abc import Collection, Iterable, Iterator


class DiskSet(Collection[str]):
    """Items without repeats: the heaviest first, those of one weight in the order they came.

    A weight is 0 until it is set. `repeated` counts the items that `extend` left out.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # a private file, gone when closed
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE items (at INTEGER PRIMARY KEY, item TEXT NOT NULL UNIQUE, "
            "weight REAL NOT NULL DEFAULT 0)"
        )
        self._given = 0

    def extend(self, items: Iterable[str]) -> None:
        """Add items."""
        with self._db:
            self._db.execute("BEGIN")
            for item in items:
                self._db.execute("INSERT OR IGNORE INTO items (item) VALUES (?)", (item,))
                self._given += 1

    def weigh(self, items: Iterable[tuple[str, float]]) -> None:
        """Add items with a weight; of an item that came before, the last weight counts."""
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT INTO items (item, weight) VALUES (?, ?) "
                "ON CONFLICT (item) DO UPDATE SET weight = excluded.weight",
                items,
            )

    def add(self, item: str) -> bool:
        """Add one item; False if it had come before."""
        before = self._db.total_changes
        self.extend((item,))
        return self._db.total_changes > before

    def weight(self, item: str) -> float:
        """The weight of an item; 0 if it is not here."""
        row = self._db.execute("SELECT weight FROM items WHERE item = ?", (item,)).fetchone()
        return float(row[0]) if row else 0.0

    @property
    def repeated(self) -> int:
        """How many items had come before."""
        return self._given - len(self)

    def __len__(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM items").fetchone()
        return int(count)

    def __iter__(self) -> Iterator[str]:
        found = self._db.execute("SELECT item FROM items ORDER BY weight DESC, at")
        return (item for (item,) in found)

    def __contains__(self, item: object) -> bool:
        if self._db.total_changes == 0:  # nothing was ever added: there is no need to ask
            return False
        found = self._db.execute("SELECT 1 FROM items WHERE item = ?", (item,))
        return found.fetchone() is not None

    def close(self) -> None:
        """Drop the items."""
        self._db.close()
