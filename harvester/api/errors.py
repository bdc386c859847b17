"""What an answer that is not a readable 200 means: one table, by status and error key.

Sources: the v2 report page (200, 401, 404, 406, 500), the vendor's support (403 with the two
`mashery` keys) and the v3 guide to rate limits (429 with `throttled` or `quota_exceeded`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import orjson

from harvester.api.retry_after import seconds_to_wait
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
_EXCERPT = 200


class Headers(Protocol):
    """The two ways we read headers; aiohttp's multidict has both."""

    def get(self, key: str, /) -> str | None:
        """The first value of a header."""
        ...

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """Every value of a header."""
        ...


@dataclass(frozen=True, slots=True)
class _ErrorEntry:
    key: str | None
    text: str


def classify_response(status: int, headers: Headers, body: bytes, *, page: int) -> HarvestError:
    """The error that an answer stands for. `page` counts from 1 within the walk."""
    entry = _error_entry(body)
    if entry.key is None:
        code = headers.get("X-Mashery-Error-Code") or ""
        entry = _ErrorEntry(_GATEWAY.get(code.strip()), entry.text)
    what = f"HTTP {status}" + (f" {entry.key}" if entry.key else "")
    text = f"{what}: {entry.text}" if entry.text else what
    wait = seconds_to_wait(
        headers.getall("Retry-After", []), date=headers.get("Date"), now=datetime.now(UTC)
    )
    if (passing := _passing(status, entry.key)) is not None:
        return passing(text, status=status, error_key=entry.key, retry_after=wait)
    if status == 403:
        return Forbidden(text, status=status, error_key=entry.key)
    if 300 <= status < 400:
        return CampaignError("redirected", f"{what}: redirects are not followed", status=status)
    if status < 300:
        return Unreadable(f"{what}: not a page", status=status)
    if status in _DROPPED_CURSOR and page > 1:
        return CursorDropped(text, status=status, error_key=entry.key)
    kind = "not_found" if status == 404 else "rejected"
    return CampaignError(kind, text, status=status, error_key=entry.key)


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


def _tells_a_limit(entry: object) -> bool:
    key = entry.get("error_key") if isinstance(entry, Mapping) else None
    return isinstance(key, str) and key in TOO_FAST | DAY_SPENT


def excerpt(body: bytes) -> str:
    """A short, printable piece of an unexpected body, for a report."""
    text = body[: 4 * _EXCERPT].decode("utf-8", "replace")
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    # Cut between two words: half a secret is one as well, and cannot be scrubbed.
    whole = len(body) <= 4 * _EXCERPT and len(words) <= _EXCERPT
    return words if whole else words[: _EXCERPT + 1].rpartition(" ")[0]


def about(wrong: Exception, body: bytes) -> str:
    """Why a 200 is not what it should be: where it broke, and a piece of it if that is no JSON."""
    if not body:
        return "the body is empty"
    # What is nearly a page holds people's addresses: say where it broke, quote only what is not.
    return str(wrong) if body[:1] in b"{[" else f"{wrong}; it begins {excerpt(body)!r}"


def _error_entry(body: bytes) -> _ErrorEntry:
    """The `{error_key, error_message}`: v3 sends a bare one, v2 an array. Of those the first that
    tells a limit, else the first."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _ErrorEntry(None, "")
    if isinstance(found, list) and found:
        found = next(filter(_tells_a_limit, found), found[0])
    if not isinstance(found, Mapping):
        return _ErrorEntry(None, "")
    key, text = found.get("error_key"), found.get("error_message")
    return _ErrorEntry(
        excerpt(key.encode("utf-8", "replace")) if isinstance(key, str) else None,
        excerpt(text.encode("utf-8", "replace")) if isinstance(text, str) else "",
    )
