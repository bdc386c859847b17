"""How many pages campaigns had in an earlier harvest: the longest are begun first.

A long campaign that is begun last is walked alone at the end. The sizes are in a private temporary
table, not in memory.
"""

import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from harvester.errors import ConfigError
from harvester.model import Target

_MOST = 2**63 - 1  # what a column of the table holds


class _Line(msgspec.Struct):
    report: str
    campaign_id: str
    pages: Annotated[int, msgspec.Meta(ge=0, le=_MOST)]


class KnownSizes:
    """The pages of each walk, as far as a manifest has them."""

    def __init__(self) -> None:
        self._empty = True
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE sizes (id TEXT, report TEXT, pages INTEGER, PRIMARY KEY (id, report)) "
            "WITHOUT ROWID"
        )

    def read(self, manifest: Path) -> None:
        """Take the sizes from a manifest.ndjson. Raise `ConfigError` if it cannot be read."""
        self._empty = False
        decoder = msgspec.json.Decoder(_Line)
        try:
            with manifest.open("rb") as lines, self._db:
                self._db.execute("BEGIN")
                for line in lines:
                    entry = decoder.decode(line)
                    self._db.execute(
                        "REPLACE INTO sizes VALUES (?, ?, ?)",
                        (entry.campaign_id, entry.report, entry.pages),
                    )
        except OSError as wrong:
            raise ConfigError(
                f"cannot read {manifest}: {wrong.strerror}", setting="sizes"
            ) from None
        except msgspec.DecodeError:
            raise ConfigError(f"{manifest} is no manifest.ndjson", setting="sizes") from None

    def pages(self, target: Target) -> int:
        """The pages of a walk; 0 if they are not known."""
        if self._empty:
            return 0
        row = self._db.execute(
            "SELECT pages FROM sizes WHERE id = ? AND report = ?",
            (target.campaign_id, target.report),
        ).fetchone()
        return row[0] if row else 0

    def longest_first(self, ids: Collection[str | int]) -> "LongestFirst":
        """The ids in the order in which they are best begun."""
        return LongestFirst(self._db, ids)

    def close(self) -> None:
        """Drop the tables."""
        self._db.close()


class LongestFirst(Collection[str]):
    """Ids by their known pages, the most first; an id with no known pages keeps its order, at the
    end."""

    def __init__(self, db: sqlite3.Connection, ids: Collection[str | int]) -> None:
        self._db = db
        self._ids = ids
        with db:
            db.execute("BEGIN")
            db.execute("CREATE TABLE queue (at INTEGER PRIMARY KEY, id TEXT)")
            db.executemany(
                "INSERT INTO queue (id) VALUES (?)", ((str(campaign_id),) for campaign_id in ids)
            )

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, campaign_id: object) -> bool:
        return campaign_id in self._ids

    def __iter__(self) -> Iterator[str]:
        # total() is a float: unlike sum(), it has no largest number to go beyond
        ordered = self._db.execute(
            "SELECT queue.id FROM queue LEFT JOIN "
            "(SELECT id, total(pages) AS pages FROM sizes GROUP BY id) AS known USING (id) "
            "ORDER BY known.pages DESC, queue.at"
        )
        return (campaign_id for (campaign_id,) in ordered)
