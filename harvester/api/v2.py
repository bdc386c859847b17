"""Version 2 of the API: reports by campaign id, a relative `next_link`, the key in the query.

Source: v2.developer.constantcontact.com, "Email campaign tracking" and "Paginated output".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from harvester.api import rows
from harvester.api.answer import excerpt
from harvester.api.link import follow
from harvester.errors import ConfigError, Unreadable
from harvester.model import Page, Target

ORIGIN = "https://api.constantcontact.com"
_ID = re.compile(r"[0-9]{1,20}", re.ASCII)


class _Pagination(msgspec.Struct):
    next_link: str | None = None


class _Meta(msgspec.Struct):
    pagination: _Pagination | None = None


class _Envelope(msgspec.Struct):
    """The one shape of a page; `results` must be there, everything about a next page may not."""

    results: list[msgspec.Raw]
    meta: _Meta | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_meta = msgspec.json.Decoder(_Meta | None)


@dataclass(frozen=True, slots=True)
class V2:
    """The v2 API at one origin."""

    origin: str = ORIGIN
    name: str = "v2"
    reports: Sequence[str] = ("opens",)

    def check_id(self, campaign_id: str) -> str:
        """v2 ids are decimal digits; nothing else can come near a path or a file name."""
        if not _ID.fullmatch(campaign_id):
            raise ConfigError(
                f"not a campaign id: {campaign_id[:40]!r} (v2 ids are 1 to 20 digits)"
            )
        return campaign_id

    def first_link(self, target: Target, *, limit: int, since: datetime | None) -> str:
        """`limit` and `created_since` belong to the first page alone; a cursor stands by itself."""
        link = f"{_path(target)}?limit={limit}"
        return link if since is None else f"{link}&created_since={quote(utc_text(since), safe='')}"

    def signed(self, link: str, api_key: str) -> str:
        """Every request wants the key in its query, and no next link carries it."""
        return f"{self.origin}{link}{'&' if '?' in link else '?'}api_key={quote(api_key, safe='')}"

    def read_page(self, target: Target, body: bytes) -> Page:
        """Read one page; the end is an absent, null or empty `next_link`, never a short page."""
        results, next_link = _open(rows.check_utf8(body))
        link = follow(next_link, origin=self.origin, path=_path(target)) if next_link else None
        ndjson = rows.to_ndjson(results, campaign_id=target.campaign_id)
        return Page(ndjson, len(results), link)


def utc_text(moment: datetime) -> str:
    """ISO-8601 in UTC with `Z`: a `+` would turn into a blank in a query."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds" if utc.microsecond else "seconds") + "Z"


def _path(target: Target) -> str:
    return f"/v2/emailmarketing/campaigns/{target.campaign_id}/tracking/{target.report}"


def _open(body: bytes) -> tuple[Sequence[bytes | msgspec.Raw], str | None]:
    """The rows and the next link, exact to the byte, or `Unreadable`."""
    try:
        page = _envelope.decode(body)
    except RecursionError:
        raise Unreadable("nested too deeply to be a page", status=200) from None
    except msgspec.DecodeError as wrong:
        if not rows.has_surrogates(body):
            raise Unreadable(f"not a page: {_about(wrong, body)}", status=200) from None
        return _open_exactly(body)
    pagination = page.meta.pagination if page.meta else None
    return page.results, pagination.next_link if pagination else None


def _open_exactly(body: bytes) -> tuple[Sequence[bytes], str | None]:
    """The same by the standard library: slow, but a lone surrogate escape is no trouble to it."""
    try:
        found = rows.members(body)
        results = rows.elements(found["results"])
        meta = _meta.decode(found.get("meta", "null"))
    except (ValueError, KeyError, RecursionError, msgspec.DecodeError) as wrong:
        raise Unreadable(f"not a page: {_about(wrong, body)}", status=200) from None
    pagination = meta.pagination if meta else None
    return results, pagination.next_link if pagination else None


def _about(wrong: Exception, body: bytes) -> str:
    if not body:
        return "the body is empty"
    # What is nearly a page holds people's addresses: say where it broke, quote only what is not.
    return str(wrong) if body[:1] in b"{[" else f"{wrong}; it begins {excerpt(body)!r}"
