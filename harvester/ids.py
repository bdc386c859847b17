"""Campaign ids from arguments, a file or standard input: checked, counted, each once.

All of it happens before anything is sent, so a typing error on line 99,999 costs no request. The
ids are spooled to a private temporary table, not to memory: a hundred thousand are normal.
"""

import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harvester.errors import ConfigError

_BATCH = 1_000


class IdSpool(Collection[str]):
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


def spool(arguments: Iterable[str], source: str | None, check: Callable[[str], str]) -> IdSpool:
    """Spool the ids of the command line, then of `source` (a path, or "-" for standard input).

    Raise `ConfigError` with file and line number for an id that `check` refuses.
    """
    ids = IdSpool()
    try:
        ids.extend(check(campaign_id) for campaign_id in arguments)
        if source is not None:
            name = "standard input" if source == "-" else source
            try:
                with _opened(source) as file:
                    ids.extend(_lines(file, name, check))
            except OSError as wrong:
                raise ConfigError(f"cannot read {name} (--input): {wrong.strerror}") from None
    except BaseException:
        ids.close()
        raise
    return ids


@contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    if source != "-":
        with Path(source).open("rb") as file:
            yield file
    elif sys.stdin is None:  # as Python has it where it was closed before the start
        raise ConfigError("cannot read standard input (--input): it is closed")
    else:
        yield sys.stdin.buffer


def _lines(file: BinaryIO, name: str, check: Callable[[str], str]) -> Iterator[str]:
    for number, raw in enumerate(file, 1):
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8", "backslashreplace").strip()
        if not line or line.startswith("#"):
            continue
        try:
            yield check(line)
        except ConfigError as wrong:
            raise ConfigError(f"{name}, line {number}: {wrong}") from None
