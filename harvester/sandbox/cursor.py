"""The cursors behind `next=`: base64url without padding over a query string.

Recorded of v2: `startAt=3&limit=2` (offset), `limit=3&next=1354817210430` (epoch milliseconds of
the last row) and, for the campaign list, `pageNum=2&pageSize=3`. Recorded of v3: `limit=1&o=1`
(offset, the filters before it). None of v2's carries `created_since`; ours may, as
`created_since=<epoch ms>`.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Final, Literal

Style = Literal["startAt", "next", "pageNum", "o"]
"""How a cursor is spelled, by the name that tells the place."""
_NUMBERS: Final = frozenset(
    {"startAt", "limit", "next", "pageNum", "pageSize", "created_since", "gap", "o"}
)


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a list is asked for: `limit` rows from place `start`, or beyond `beyond_ms`.

    `since_ms`: only what happened on or after it. `gap`: so many cursors led to this very place
    before.
    """

    start: int = 0
    limit: int = 500
    since_ms: int | None = None
    beyond_ms: int | None = None
    status: str = "ALL"
    gap: int = 0


def encode(text: str) -> str:
    """The opaque form of a cursor's query string."""
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def cursor_for(window: Window, style: Style, *, keep_since: bool = True) -> str:
    """The cursor that asks for `window`."""
    place = {
        "startAt": f"startAt={window.start}&limit={window.limit}",
        "next": f"limit={window.limit}&next={window.beyond_ms}",
        "pageNum": f"pageNum={window.start // window.limit + 1}&pageSize={window.limit}",
        "o": f"limit={window.limit}&o={window.start}",
    }[style]
    filters = {
        "status": window.status if window.status != "ALL" else None,
        "gap": window.gap or None,
        "created_since": window.since_ms if keep_since else None,
    }
    kept = "".join(f"&{name}={value}" for name, value in filters.items() if value is not None)
    return encode(place + kept)


def decode(cursor: str) -> Window:
    """What a cursor asks for; ValueError if it is none of ours."""
    try:
        return _decoded(cursor)
    except ValueError as error:
        raise ValueError(f"The value of next is not valid: {error}") from error


def _decoded(cursor: str) -> Window:
    text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    if encode(text) != cursor:
        raise ValueError("not the canonical form")
    fields = dict(part.partition("=")[::2] for part in text.split("&"))
    status = fields.pop("status", "ALL")
    if not fields.keys() <= _NUMBERS:
        raise ValueError("unknown fields")
    numbers = {name: int(value) for name, value in fields.items()}
    limit = numbers.get("limit") or numbers.get("pageSize") or 0
    page = numbers.get("pageNum", 1)
    start = numbers.get("startAt", numbers.get("o", (page - 1) * limit))
    if limit < 1 or start < 0 or not numbers.keys() & {"startAt", "next", "pageNum", "o"}:
        raise ValueError("no limit or no place")
    return Window(
        start,
        limit,
        numbers.get("created_since"),
        numbers.get("next"),
        status,
        numbers.get("gap", 0),
    )
