"""The cursors behind `next=`: base64url without padding over a query string.

Three flavours were recorded: `startAt=3&limit=2` (offset), `limit=3&next=1354817210430` (epoch
milliseconds of the last row) and, for the campaign list, `pageNum=2&pageSize=3`. None of the
recorded ones carries `created_since`; ours may, as `created_since=<epoch ms>`.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Final

_NAMES: Final = frozenset(
    {"startAt", "limit", "next", "pageNum", "pageSize", "created_since", "status", "gap"}
)


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a list is asked for: `limit` rows from place `start`, or beyond `beyond_ms`.

    `since_ms`: only events on or after it. `gap`: an empty page at this place came before.
    """

    start: int = 0
    limit: int = 500
    since_ms: int | None = None
    beyond_ms: int | None = None
    status: str = "ALL"
    gap: bool = False


def encode(text: str) -> str:
    """The opaque form of a cursor's query string."""
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def offset_cursor(window: Window, *, keep_since: bool = True) -> str:
    """The cursor that asks for `window` by offset."""
    text = f"startAt={window.start}&limit={window.limit}"
    if window.gap:
        text += "&gap=1"
    return encode(text + _since(window, keep_since))


def timestamp_cursor(window: Window, *, keep_since: bool = True) -> str:
    """The cursor that asks for what lies beyond `window.beyond_ms`."""
    return encode(f"limit={window.limit}&next={window.beyond_ms}" + _since(window, keep_since))


def page_cursor(window: Window) -> str:
    """The campaign list's cursor: by page number, counted from 1."""
    text = f"pageNum={window.start // window.limit + 1}&pageSize={window.limit}"
    if window.status != "ALL":
        text += f"&status={window.status}"
    return encode(text + _since(window, keep=True))


def decode(cursor: str) -> Window:
    """What a cursor asks for; ValueError if it is none of ours."""
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not base64url") from error
    if encode(text) != cursor:
        raise ValueError("not the canonical form")
    fields = dict(part.partition("=")[::2] for part in text.split("&"))
    if not fields.keys() <= _NAMES:
        raise ValueError("unknown fields")
    since = int(fields["created_since"]) if "created_since" in fields else None
    limit = int(fields.get("limit") or fields.get("pageSize") or 0)
    if limit < 1:
        raise ValueError("no limit")
    if "startAt" in fields and int(fields["startAt"]) >= 0:
        return Window(int(fields["startAt"]), limit, since, gap="gap" in fields)
    if "next" in fields:
        return Window(0, limit, since, beyond_ms=int(fields["next"]))
    start = (int(fields.get("pageNum", 0)) - 1) * limit
    if start < 0:
        raise ValueError("no page")
    return Window(start, limit, since, status=fields.get("status", "ALL"))


def _since(window: Window, keep: bool) -> str:
    return f"&created_since={window.since_ms}" if keep and window.since_ms is not None else ""
