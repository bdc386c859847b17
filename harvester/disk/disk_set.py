"""An ordered set of text on disk: a hundred thousand ids, or millions of contacts, in no memory."""

import sqlite3
from collections.abc import Collection, Iterable, Iterator

_BATCH = 1_000


class DiskSet(Collection[str]):
    """Ids in the order they came, without repeats; `repeated` counts those left out."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE ids (at INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)")
        self._given = 0

    def extend(self, ids: Iterable[str]) -> None:
        """Add ids."""
        with self._db:
            self._db.execute("BEGIN")
            for campaign_id in ids:
                self._db.execute("INSERT OR IGNORE INTO ids (id) VALUES (?)", (campaign_id,))
                self._given += 1

    def add(self, campaign_id: str) -> bool:
        """Add one id; False if it had come before."""
        before = self._db.total_changes
        self.extend((campaign_id,))
        return self._db.total_changes > before

    @property
    def repeated(self) -> int:
        """How many ids had come before."""
        return self._given - len(self)

    def __len__(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM ids").fetchone()
        return int(count)

    def __iter__(self) -> Iterator[str]:
        at = 0
        while rows := self._db.execute(
            "SELECT at, id FROM ids WHERE at > ? ORDER BY at LIMIT ?", (at, _BATCH)
        ).fetchall():
            yield from (campaign_id for _, campaign_id in rows)
            at = rows[-1][0]

    def __contains__(self, campaign_id: object) -> bool:
        found = self._db.execute("SELECT 1 FROM ids WHERE id = ?", (campaign_id,)).fetchone()
        return found is not None

    def close(self) -> None:
        """Drop the table."""
        self._db.close()
