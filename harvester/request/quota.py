"""The day's count of one key and its next start, durable and shared by every run on this machine.

A request is charged before it is sent, so a kill can only over-count: by one for each run. The
file holds a few numbers and their checksum in one disk sector; a flock makes claim and charge one
step for all processes. `not_before` carries the spacing (and a throttle's hold) from run to run.

Nothing here waits for another process: one that holds the lock may have been suspended.
"""

import hashlib
import os
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from harvester.disk.storage import flocked, replace_file, storage, sync_directory, write_all
from harvester.errors import StorageError
from harvester.runtime import Clock, next_reset

_VERSION = 2  # version 1 had no checksum
_SIZE = 512  # one sector: a power cut leaves the old record or the new one
_DAYS_KEPT = 8
_READS = 5
_SALT_SIZE = 32  # bytes, and a checksum of eight
BUSY = 0.005  # another run is at the file just now (s)
_SYNC_EVERY = 0.1  # at the API's pace that is every charge


@dataclass(frozen=True, slots=True)
class Granted:
    """Go: the request is charged; `used` counts it."""

    used: int


@dataclass(frozen=True, slots=True)
class NotYet:
    """Another start, or a hold, is too near: ask again in `wait` seconds."""

    wait: float


@dataclass(frozen=True, slots=True)
class Spent:
    """No request is left until `until`."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Account:
    """What the file says: requests by UTC day, and the monotonic time of the next start.

    `set_at` is when that was written down. The monotonic clock starts anew with every boot: when it
    shows less than that, the start was of an earlier boot.
    """

    days: dict[str, int] = field(default_factory=dict)
    not_before: float = 0.0
    set_at: float = 0.0

    def used(self, day: str) -> int:
        """Requests charged to `day`."""
        return self.days.get(day, 0)


def claim(
    account: Account, *, now: datetime, monotonic: float, gap: float, limit: int
) -> tuple[Account, Granted | NotYet | Spent]:
    """Decide on one start. `limit` is the requests a day for us (0: no limit)."""
    day = _day(now)
    used = account.used(day)
    if limit and used >= limit:
        return account, Spent(next_reset(now))
    wait = account.not_before - monotonic
    if wait > 0 and monotonic >= account.set_at:
        return account, NotYet(wait)
    days = {**account.days, day: used + 1}
    if len(days) > _DAYS_KEPT:
        # Several days are kept: a clock that is set back finds the count it had there. Today is,
        # whatever days a wrong clock has put after it.
        others = sorted(days.keys() - {day})[1 - _DAYS_KEPT :]
        days = {each: days[each] for each in (*others, day)}
    return Account(days, monotonic + gap, monotonic), Granted(used + 1)


class QuotaLedger:
    """The account of one key at one origin. `limit` is the day's quota less the reserve."""

    def __init__(self, path: Path, *, limit: int, clock: Clock | None = None) -> None:
        self.limit = limit
        self._path = path
        self._clock = clock or Clock()
        self._synced = float("-inf")
        self._hold_until = float("-inf")  # a hold that is not in the file yet (monotonic s)
        self._last: tuple[bytes, Account] = b"", Account()
        with storage(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._inode = _inode(os.fstat(self._file))

    def claim(self, gap: float) -> Granted | NotYet | Spent:
        """Charge one request and keep the next start `gap` seconds off, or say why not."""
        with storage(self._path), flocked(self._file, wait=False) as held:
            if not held:
                return NotYet(BUSY)
            now, monotonic = self._clock.now(), self._clock.monotonic()
            account, answer = claim(
                self._current(now), now=now, monotonic=monotonic, gap=gap, limit=self.limit
            )
            if isinstance(answer, Granted):
                self._write(account)
                if monotonic - self._synced >= _SYNC_EVERY:
                    os.fdatasync(self._file)
                    # The start is now, not before the disk answered.
                    self._synced = self._clock.monotonic()
                    later = self._synced + gap
                    self._write(replace(account, not_before=later, set_at=self._synced))
        return answer

    def hold(self, seconds: float) -> None:
        """Let no run of this key start a request for `seconds`.

        Where another run holds the file, the hold is written with the next claim.
        """
        self._hold_until = max(self._hold_until, self._clock.monotonic() + seconds)
        with storage(self._path), flocked(self._file, wait=False) as held:
            if held:
                self._current(self._clock.now())

    def used_today(self) -> int:
        """Requests charged to this UTC day, by all runs."""
        with storage(self._path):
            return self._read().used(_day(self._clock.now()))

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def _current(self, now: datetime) -> Account:
        """The account, with the hold that was not written yet. Call it with the lock held.

        Raise `StorageError` if the file is no longer the one that all runs of the key share, or has
        an older content: one `stat` tells.
        """
        try:
            shared = _inode(self._path.stat()) == self._inode
        except FileNotFoundError:
            shared = False
        day, (_, last) = _day(now), self._last
        account = self._read() if shared else Account()
        if account.used(day) < last.used(day) or not shared:
            raise StorageError(
                f"the day's count in {self._path} was removed or replaced under this run: keep the "
                "state folder as it is while a run is under way, then give the same command again"
            )
        monotonic, until = self._clock.monotonic(), self._hold_until
        if until > monotonic and (until > account.not_before or monotonic < account.set_at):
            account = replace(account, not_before=until, set_at=monotonic)
            self._write(account)
        self._hold_until = float("-inf")
        return account

    def _read(self) -> Account:
        """What the file says. A reader without the lock may meet half a write: it reads again."""
        for _ in range(_READS):
            raw = os.pread(self._file, _SIZE + 1, 0)
            if raw == self._last[0]:  # no other run has written since
                return self._last[1]
            try:
                return _decoded(raw) if raw else Account()
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
                continue
        # Guessing 0 could send a day's requests twice.
        raise StorageError(
            f"the day's count in {self._path} is damaged: remove it if you know that no other run "
            "of this key is under way, and give what was sent today as --quota-reserve"
        )

    def _write(self, account: Account) -> None:
        raw = _encoded(account)
        write_all(self._file, raw, at=0)
        self._last = raw, account


def _day(now: datetime) -> str:
    return now.date().isoformat()


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _encoded(account: Account) -> bytes:
    """The record of an account: one sector, so that a power cut leaves the old one or the new."""
    record: dict[str, Any] = {
        "version": _VERSION,
        "days": account.days,
        "not_before": account.not_before,
        "set_at": account.set_at,
    }
    record["checksum"] = _checksum(orjson.dumps(record)).hex()
    return orjson.dumps(record).ljust(_SIZE - 1) + b"\n"


def _decoded(raw: bytes) -> Account:
    """The account in a record. Raise `ValueError` or the like if any bit of it is wrong."""
    found = orjson.loads(raw)
    days = {str(day): int(used) for day, used in found["days"].items()}
    account = Account(days, float(found["not_before"]), float(found.get("set_at", 0.0)))
    # The first write may have been cut short, but for its blanks.
    intact = found["version"] == 1 or raw == _encoded(account)[: len(raw)]
    if not intact or min(days.values(), default=0) < 0:
        raise ValueError("not a count of ours")
    return account


def ledger_path(state_dir: Path, *, origin: str, identity: str) -> Path:
    """Where the count of a key is kept: under a keyed hash, so that no file tells a key.

    `identity` is the API key. The hash's own key is random and made once for each state folder.
    """
    salt = _salt(state_dir / "salt")
    digest = hashlib.blake2b(f"{origin}\n{identity}".encode(), key=salt, digest_size=16)
    return state_dir / f"{digest.hexdigest()}.json"


def has_ledgers(state_dir: Path) -> bool:
    """Whether any run has counted here yet."""
    return (state_dir / "salt").exists()


def _salt(path: Path) -> bytes:
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            # Linked into place whole: of many first runs one wins, and all read the same. A process
            # id is not unique: threads share it, and every container may have the same.
            own = path.with_name(f"salt.{os.urandom(8).hex()}")
            fresh = os.urandom(_SALT_SIZE)
            try:
                replace_file(own, fresh + _checksum(fresh), mode=0o600)
                os.link(own, path)
            except FileExistsError:
                pass
            finally:
                own.unlink(missing_ok=True)
                sync_directory(path.parent)
        found = path.read_bytes() if path.is_file() else b""  # a pipe would block
    salt, checksum = found[:_SALT_SIZE], found[_SALT_SIZE:]
    # A damaged one would name another file, and the day's count would begin anew. One without a
    # checksum was made by version 1.
    if len(salt) < _SALT_SIZE or checksum not in (b"", _checksum(salt)):
        raise StorageError(
            f"{path} is damaged: restore it, or remove the folder if you know that no run of today "
            "has used it"
        )
    return salt


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()
