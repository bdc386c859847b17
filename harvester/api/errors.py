"""What an answer that is not a readable 200 means: one table, by status and error key.

Sources: the v2 report page (200, 401, 404, 406, 500), the vendor's support (403 with the two
`mashery` keys) and the v3 guide to rate limits (429 with `throttled` or `quota_exceeded`).

Of a body only `error_key` and `error_message` are quoted, and never a part of a word: an answer
may repeat a secret, which the caller can remove only if it stands there whole.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

import orjson
from msgspec import Struct

from harvester.api.next_link import has_cursor
from harvester.errors import (
    CampaignError,
    CursorDropped,
    Forbidden,
    HarvestError,
    QuotaExceeded,
    ServerTrouble,
    Throttled,
    TryAgain,
    Unauthorized,
    Unreadable,
)

TOO_FAST = frozenset({"mashery.not.authorized.over.qps", "throttled"})
DAY_SPENT = frozenset({"mashery.not.authorized.over.ratelimit", "quota_exceeded"})
# The gateway before v2 has codes of its own, for answers whose body is not the API's.
_GATEWAY = {
    "ERR_403_DEVELOPER_OVER_QPS": "mashery.not.authorized.over.qps",
    "ERR_403_DEVELOPER_OVER_RATE": "mashery.not.authorized.over.ratelimit",
}
_LIMIT_STATUSES = frozenset({401, 403, 429})  # 401: seen by customers of v2 when over the limit
_DROPPED_CURSOR = frozenset({400, 404, 410})
_LONGEST_ERROR = 1 << 20  # bytes; a longer body is no error entry
_LONGEST_QUOTE = 200  # characters
_LONGEST_WAIT = 1e10  # s: some centuries, more cannot be meant


class Headers(Protocol):
    """The two ways we read headers; aiohttp's multidict has both."""

    def get(self, key: str, /) -> str | None:
        """The first value of a header."""

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """Every value of a header."""


class ErrorEntry(Struct, frozen=True):
    """What an error body says of itself, short and printable; `key` is None if it has none."""

    key: str | None = None
    text: str = ""


def classify_response(link: str, status: int, headers: Headers, body: bytes) -> HarvestError:
    """The error that the answer to `link` stands for, in v2 and in v3."""
    entry = read_error(body)
    code = (headers.get("X-Mashery-Error-Code") or "").strip()
    key = entry.key or _GATEWAY.get(code)
    what = f"HTTP {status} {key}" if key else f"HTTP {status}"
    text = f"{what}: {entry.text}" if entry.text else what
    if (passing := _passing(status, key)) is not None:
        return passing(text, status=status, error_key=key, retry_after=retry_after(headers))
    if status == 403:
        return Forbidden(text, status=status, error_key=entry.key)
    if 300 <= status < 400:
        return CampaignError("redirected", f"{what}: redirects are not followed", status=status)
    if status < 300:
        return Unreadable(f"{what}: not a page", status=status)
    if status in _DROPPED_CURSOR and has_cursor(link):
        return CursorDropped(text, status=status, error_key=key)
    kind = "not_found" if status == 404 else "rejected"
    return CampaignError(kind, text, status=status, error_key=key)


def _passing(status: int, key: str | None) -> type[TryAgain] | None:
    """The error for what may pass."""
    if status in _LIMIT_STATUSES and key in DAY_SPENT:
        return QuotaExceeded
    if status == 429 or (status in _LIMIT_STATUSES and key in TOO_FAST):
        return Throttled
    if status == 401:
        return Unauthorized
    if status == 408 or status >= 500:
        return ServerTrouble
    return None


def read_error(body: bytes) -> ErrorEntry:
    """The `{error_key, error_message}` of a body: v3 sends one, v2 an array of them. Of several the
    first that names a limit, else the first."""
    try:
        found = orjson.loads(body) if len(body) <= _LONGEST_ERROR else None
    except orjson.JSONDecodeError:
        return ErrorEntry()
    if isinstance(found, list) and found:
        found = next(filter(_names_a_limit, found), found[0])
    if not isinstance(found, Mapping):
        return ErrorEntry()
    return ErrorEntry(quoted(found.get("error_key")) or None, quoted(found.get("error_message")))


def _names_a_limit(entry: object) -> bool:
    key = entry.get("error_key") if isinstance(entry, Mapping) else None
    return isinstance(key, str) and key in TOO_FAST | DAY_SPENT


def quoted(value: object) -> str:
    """A text in printable characters, cut between two words: no secret holds a blank."""
    if not isinstance(value, str):
        return ""
    start = value[: 4 * _LONGEST_QUOTE]
    plain = start.replace("\0", "")  # the other halves of UTF-16: a blank would split a secret
    text = " ".join("".join(char if char.isprintable() else " " for char in plain).split())
    if len(value) == len(start) and len(text) <= _LONGEST_QUOTE:
        return text
    return text[: _LONGEST_QUOTE + 1].rpartition(" ")[0]


# -- Retry-After ---------------------------------------------------------------------------------


def retry_after(headers: Headers) -> float | None:
    """The wait (s) that an answer asks for now; None if it asks for none."""
    waits = headers.getall("Retry-After", [])
    return seconds_to_wait(waits, date=headers.get("Date"), now=datetime.now(UTC))


def seconds_to_wait(values: Sequence[str], *, date: str | None, now: datetime) -> float | None:
    """The longest wait (s) that any Retry-After value asks for; None if none is usable.

    Both forms of RFC 9110, 10.2.3. An HTTP date is compared with the answer's own `Date` header
    where there is one, so that a client whose clock is wrong still waits as long as the server
    meant; a past date is 0.
    """
    waits = [wait for value in values if (wait := _wait(value.strip(), date, now)) is not None]
    return max(waits, default=None)


def _wait(value: str, date: str | None, now: datetime) -> float | None:
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_WAIT)
    until = _http_date(value)
    if until is None:
        return None
    start = (_http_date(date) if date else None) or now
    return max(0.0, (until - start).total_seconds())


def _http_date(text: str) -> datetime | None:
    # A date always names a month or a day; this refuses "1e400", "nan" and the like.
    if not re.search(r"[A-Za-z]{3}", text):
        return None
    try:
        moment = parsedate_to_datetime(text)
        # asctime and "-0000" come back naive; HTTP knows no zone but GMT.
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
