"""The next link: followed only within the API's own origin and the walk's own path.

The key and the token go wherever we ask, so a link decides where they go. OWASP's order: an
allow-list (origin and path, compared as text), no redirects, credentials added after the check.
"""

from base64 import urlsafe_b64decode
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from harvester.errors import CampaignError

# A blank or a control character would split the request line; a backslash is read as a slash by
# some URL parsers and not by others; a fragment is never sent.
_NEVER = bytes(range(0x21)) + b"\x7f\\#"
_LONGEST = 8_000  # aiohttp's own limit for a request line is 8190
_SECRETS = frozenset({"api_key", "access_token"})
_FIRST_PAGE = frozenset(
    {"", "limit", "created_since", "status", "modified_since", "after_date", "updateSummary"}
)


def has_cursor(link: str) -> bool:
    """Whether a link came from the API: one that we made holds no other parameters than these."""
    query = link.partition("#")[0].partition("?")[2]
    return not {part.partition("=")[0] for part in query.split("&")} <= _FIRST_PAGE


def counts_rows(link: str) -> bool | None:
    """Whether a link's cursor counts rows, and so shifts when events arrive; False if it goes by
    time, None if it is none of the recorded kinds.

    Recorded (api-facts 0.4) are query strings in base64url: `startAt=3&limit=2` and `limit=1&o=1`
    count rows, `limit=3&next=1354817210430` goes by time. They are only read, never made.
    """
    query = parse_qs(link.partition("#")[0].partition("?")[2])
    (cursor,) = query.get("next", [""])[:1]
    try:
        fields = parse_qs(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii"))
    except ValueError:
        return None
    if "startAt" in fields or "o" in fields:
        return True
    return False if "next" in fields else None


def validate_next_link(
    raw: str | None, *, origin: str, paths: Sequence[str], asked: str = ""
) -> str | None:
    """Return `raw` as path and query, its cursor untouched, any credential taken out; None if
    there is no link.

    `paths` are the spellings of the walk's own path, `asked` is the link whose answer held `raw`: a
    query alone belongs to it. Raises `CampaignError`: "foreign_link" if the link leads out of
    `origin` or away from `paths`, "bad_link" if no request can be made of it.
    """
    if not raw:
        return None
    if not _is_usable(raw):
        raise CampaignError("bad_link", "the next link is not a usable URL")
    own, _, query = _within(origin, raw).partition("?")
    if not own:
        asked = asked.partition("?")[0]
        own = asked if asked in paths else paths[0]
    if own not in paths:
        raise CampaignError("foreign_link", "the next link leads away from this campaign's report")
    kept = "&".join(part for part in query.split("&") if part.partition("=")[0] not in _SECRETS)
    if not kept:
        raise CampaignError("bad_link", "the next link has no cursor")
    return f"{own}?{kept}"


def _is_usable(raw: str) -> bool:
    try:
        octets = raw.encode()
    except UnicodeEncodeError:  # half a character
        return False
    return len(raw) <= _LONGEST and octets.translate(None, _NEVER) == octets


def since_query(parameter: str | None, since: datetime | None) -> str:
    """What a first page's query has at its end for events or campaigns since a moment."""
    if parameter is None or since is None:
        return ""
    return f"&{parameter}={quote(utc_text(since), safe='')}"


def utc_text(moment: datetime) -> str:
    """ISO-8601 in UTC with `Z`: a `+` would turn into a blank in a query."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds" if utc.microsecond else "seconds") + "Z"


def _within(origin: str, raw: str) -> str:
    """Path and query of a link in `origin`."""
    if raw.startswith("?") or (raw.startswith("/") and not raw.startswith("//")):
        return raw
    try:
        there = urlsplit(raw)
        same = _origin_of(there) == _origin_of(urlsplit(origin))
    except ValueError:  # a port that is no number, a broken IPv6 host
        raise CampaignError("bad_link", "the next link is not a usable URL") from None
    if not same or "@" in there.netloc:
        raise CampaignError("foreign_link", "the next link leads out of the API's origin")
    return f"{there.path}?{there.query}"


def _origin_of(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or {"http": 80, "https": 443}.get(url.scheme)
