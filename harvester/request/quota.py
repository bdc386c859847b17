"""The day's count of one key and its next start, durable and shared by every run on this machine.

A request is charged before it is sent, so a kill can only over-count: by one for each run. The
file holds a few numbers in one disk sector; a flock makes claim and charge one step for all
processes. `not_before` carries the spacing (and a throttle's hold) from run to run.
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

_VERSION = 1
_SIZE = 512  # one sector: a power cut leaves the old record or the new one
_DAYS_KEPT = 8
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
    day = now.date().isoformat()
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
        self._written: tuple[bytes, Account] = b"", Account()
        with storage(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def claim(self, gap: float) -> Granted | NotYet | Spent:
        """Charge one request and keep the next start `gap` seconds off, or say why not.

        Never waits for the file: whoever holds it may have been suspended.
        """
        with storage(self._path), flocked(self._file, wait=False) as held:
            if not held:
                return NotYet(BUSY)
            now, monotonic = self._clock.now(), self._clock.monotonic()
            account, answer = claim(
                self._read(), now=now, monotonic=monotonic, gap=gap, limit=self.limit
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
        """Let no run of this key start a request for `seconds`."""
        now = self._clock.monotonic()
        with storage(self._path), flocked(self._file):
            account = self._read()
            if now + seconds > account.not_before or now < account.set_at:
                self._write(replace(account, not_before=now + seconds, set_at=now))

    def used_today(self) -> int:
        """Requests charged to this UTC day, by whatever run."""
        with storage(self._path), flocked(self._file):
            return self._read().used(self._clock.now().date().isoformat())

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def _read(self) -> Account:
        raw = os.pread(self._file, _SIZE, 0)
        if raw == self._written[0]:  # no other run has been here
            return self._written[1]
        if not raw:
            return Account()
        try:
            return _account(orjson.loads(raw))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            # Guessing 0 could send a day's requests twice.
            raise StorageError(
                f"the day's count in {self._path} cannot be read: remove it if you know that "
                "no other run of this key is under way"
            ) from None

    def _write(self, account: Account) -> None:
        record = {
            "version": _VERSION,
            "days": account.days,
            "not_before": account.not_before,
            "set_at": account.set_at,
        }
        raw = orjson.dumps(record).ljust(_SIZE - 1) + b"\n"
        write_all(self._file, raw, at=0)
        self._written = raw, account


def _account(found: dict[str, Any]) -> Account:
    """The account that a file's content tells. Raise `ValueError` or the like if it tells none."""
    days = {str(day): int(used) for day, used in found["days"].items()}
    if found["version"] != _VERSION or min(days.values(), default=0) < 0:
        raise ValueError("not a count of ours")
    return Account(days, float(found["not_before"]), float(found.get("set_at", 0.0)))


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
            # Linked into place whole: of two first runs, one wins and both read the same.
            own = path.with_name(f"salt.{os.getpid()}")
            replace_file(own, os.urandom(32), mode=0o600)
            try:
                os.link(own, path)
            except FileExistsError:
                pass
            finally:
                own.unlink()
                sync_directory(path.parent)
        return path.read_bytes()
