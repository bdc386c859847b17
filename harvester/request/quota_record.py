"""The day's count of one key as a value: one decision on it, and its two records in a file.

The older record is written over, and each has a checksum: a write that is cut short, or a flipped
bit, leaves the other one.
"""

import hashlib
from datetime import datetime
from typing import Any

import orjson
from msgspec import Struct, field
from msgspec.structs import replace

from harvester.runtime import next_reset

_VERSION = 2  # version 1 had one record without a checksum
SIZE = 512  # bytes of one record: a sector
_START = b'{"version":2,'
_DAYS_KEPT = 8


class Granted(Struct, frozen=True):
    """Go: the request is charged; `used` counts it. `doubtful`: the API has said that the day is
    spent."""

    used: int
    doubtful: bool = False


class NotYet(Struct, frozen=True):
    """Another start, or a hold, is too near: ask again in `wait` seconds."""

    wait: float


class Spent(Struct, frozen=True):
    """No request is left until `until`."""

    until: datetime


class Account(Struct, frozen=True):
    """What the file says: requests by UTC day, and the monotonic time of the next start.

    `serial` counts the records that were written: the higher of two is the newer one.
    `set_at` is when that was written down. The monotonic clock starts anew with every boot: when it
    shows less than that, the start was of an earlier boot. `spent` is the last UTC day that the API
    called spent.
    """

    days: dict[str, int] = field(default_factory=dict)
    not_before: float = 0.0
    set_at: float = 0.0
    serial: int = 0
    spent: str = ""

    def used(self, day: str) -> int:
        """Requests charged to `day`."""
        return self.days.get(day, 0)


def claim(
    account: Account, *, now: datetime, monotonic: float, gap: float, limit: int
) -> tuple[Account, Granted | NotYet | Spent]:
    """Decide on one start. `limit` is the requests a day for us (0: no limit)."""
    day = day_of(now)
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
    charged = replace(account, days=days, not_before=monotonic + gap, set_at=monotonic)
    return charged, Granted(used + 1, doubtful=account.spent == day)


def day_of(now: datetime) -> str:
    return now.date().isoformat()


def encode(account: Account) -> bytes:
    """The record of an account."""
    fields: dict[str, Any] = {
        "version": _VERSION,
        "days": account.days,
        "not_before": account.not_before,
        "set_at": account.set_at,
        "serial": account.serial,
    }
    if account.spent:
        fields["spent"] = account.spent
    record = orjson.dumps(fields)
    with_sum = b'%s,"checksum":"%s"}' % (record[:-1], checksum(record).hex().encode())
    return with_sum.ljust(SIZE - 1) + b"\n"


def newest(raw: bytes, day: str) -> tuple[Account | None, bool]:
    """What two records say, and whether both are intact; None if no count can be made of them.

    A record that was cut short or damaged had charged one request more than the other, at most.
    """
    if not raw:
        return Account(), True
    if _is_cut_short(raw):
        return Account({day: 1}), False
    slots = [slot for slot in (raw[:SIZE], raw[SIZE:]) if slot.strip(b"\0")]
    found = [account for slot in slots if (account := _account_in(slot)) is not None]
    if not found:
        return None, False
    last = max(found, key=lambda account: account.serial)
    if len(found) == len(slots):
        return last, True
    return replace(last, days={**last.days, day: last.used(day) + 1}), False


def _is_cut_short(raw: bytes) -> bool:
    """Whether this is the beginning of the very first record."""
    if len(raw) >= SIZE or not raw.startswith(_START[: len(raw)]):
        return False
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return True
    return False


def _account_in(record: bytes) -> Account | None:
    try:
        return decode(record)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None


def decode(raw: bytes) -> Account:
    """The account in a record. Raise `ValueError` or the like if any bit of it is wrong."""
    found = orjson.loads(raw)
    days = {str(day): int(used) for day, used in found["days"].items()}
    account = Account(
        days,
        float(found["not_before"]),
        float(found.get("set_at", 0.0)),
        int(found.get("serial", 1)),
        str(found.get("spent", "")),
    )
    # The very first write may have been cut short, but for its blanks.
    intact = found["version"] == 1 or raw == encode(account)[: len(raw)]
    if not intact or min(days.values(), default=0) < 0:
        raise ValueError("not a count of ours")
    return account


def checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()
