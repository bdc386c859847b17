"""Version 2 of the API: reports by campaign id, a relative `next_link`, the key in the query.

Source: v2.developer.constantcontact.com, "Email campaign tracking" and "Paginated output".
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from harvester.api import rows
from harvester.api.errors import about
from harvester.api.next_link import validate_next_link
from harvester.api.rows import ExpectedIds
from harvester.errors import ConfigError, Unreadable
from harvester.model import Page, Target

ORIGIN = "https://api.constantcontact.com"
_ID = re.compile(r"[0-9]{1,20}", re.ASCII)
_INTEGER = re.compile(rb"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Report:
    """One tracking report: the last part of its path, and what each of its rows must say."""

    path: str
    activity_type: str
    date_field: str


REPORTS = {
    "opens": Report("opens", "EMAIL_OPEN", "open_date"),
    "clicks": Report("clicks", "EMAIL_CLICK", "click_date"),
    "sends": Report("sends", "EMAIL_SEND", "send_date"),
    "bounces": Report("bounces", "EMAIL_BOUNCE", "bounce_date"),
    "forwards": Report("forwards", "EMAIL_FORWARD", "forward_date"),
    "unsubscribes": Report("unsubscribes", "EMAIL_UNSUBSCRIBE", "unsubscribe_date"),
}
LINKS = "links"  # not a tracking report: the links of the campaign itself, always on one page
_CAMPAIGNS = "/v2/emailmarketing/campaigns"
_LIST_LIMIT = 50  # the most the campaign list gives


class _Pagination(msgspec.Struct):
    next_link: str | None = None


class _Meta(msgspec.Struct):
    pagination: _Pagination | None = None


class _Envelope(msgspec.Struct):
    """The one shape of a page; `results` must be there, everything about a next page may not."""

    results: list[msgspec.Raw]
    meta: _Meta | None = None


class _Campaign(msgspec.Struct):
    id: str | int
    click_through_details: list[msgspec.Raw] = []


class _Listed(msgspec.Struct):
    id: str | int


_listed = msgspec.json.Decoder(_Listed)
_envelope = msgspec.json.Decoder(_Envelope)
_campaign = msgspec.json.Decoder(_Campaign)
_meta = msgspec.json.Decoder(_Meta | None)


@dataclass(frozen=True, slots=True)
class V2:
    """The v2 API at one origin."""

    origin: str = ORIGIN
    name: str = "v2"
    reports: Sequence[str] = tuple(REPORTS)
    lacks: Collection[str] = frozenset()

    def check_id(self, campaign_id: str | int) -> str:
        """v2 ids are decimal digits; nothing else can come near a path or a file name."""
        if type(campaign_id) is int:
            campaign_id = str(campaign_id)
        if not isinstance(campaign_id, str) or not _ID.fullmatch(campaign_id):
            raise ConfigError(
                f"not a campaign id: {str(campaign_id)[:40]!r} (v2 ids are text of 1 to 20 digits)"
            )
        return campaign_id

    def first_link(self, target: Target, *, limit: int, since: datetime | None) -> str:
        """`limit` and `created_since` belong to the first page alone; a cursor stands by itself."""
        if target.report == LINKS:
            return _path(target)
        link = f"{_path(target)}?limit={limit}"
        return link if since is None else f"{link}&created_since={quote(utc_text(since), safe='')}"

    def url_for(self, link: str, api_key: str) -> str:
        """Every request wants the key in its query, and no next link carries it."""
        return f"{self.origin}{link}{'&' if '?' in link else '?'}api_key={quote(api_key, safe='')}"

    def read_page(self, target: Target, link: str, body: bytes) -> Page:
        """Read one page; the end is an absent, null or empty `next_link`, never a short page."""
        if target.report == LINKS:
            return self._read_links(target, body)
        results, next_link = _open(rows.check_utf8(body))
        ndjson = rows.to_ndjson(
            results,
            dense=rows.is_dense(body),
            owner=ExpectedIds(
                "campaign_id",
                target.campaign_id,
                "activity_type",
                REPORTS[target.report].activity_type,
            ),
        )
        return Page(ndjson, len(results), self._follow(next_link, _path(target)))

    def date_field(self, report: str) -> str:
        """The field that says when an event happened."""
        return REPORTS[report].date_field

    # -- around the reports --------------------------------------------------------------------

    def campaigns_link(self, *, status: str, modified_since: datetime | None) -> str:
        """The first page of the campaign list."""
        link = f"{_CAMPAIGNS}?status={status}&limit={_LIST_LIMIT}"
        if modified_since is None:
            return link
        return f"{link}&modified_since={quote(utc_text(modified_since), safe='')}"

    def read_campaigns(self, body: bytes) -> Page:
        """One page of the campaign list: a row has id, name, status and modified_date."""
        results, next_link = _open(rows.check_utf8(body))
        ndjson = rows.to_ndjson(results, dense=rows.is_dense(body))
        for record in ndjson.split(b"\n")[:-1]:
            self.listed_id(record, "ALL")
        return Page(ndjson, len(results), self._follow(next_link, _CAMPAIGNS))

    def listed_id(self, record: bytes, status: str) -> str | None:
        """The id in a record of the list, which has those of the status only."""
        try:
            return self.check_id(str(_listed.decode(record).id))
        except (msgspec.DecodeError, ConfigError):
            raise Unreadable("a campaign without a usable id", status=200) from None

    def summary_link(self, campaign_id: str) -> str:
        """The campaign's counts, brought up to date."""
        return f"{_CAMPAIGNS}/{campaign_id}/tracking/reports/summary?updateSummary=true"

    def read_summary(self, body: bytes) -> dict[str, int]:
        """Unique recipients by report, as the API counts them."""
        try:
            found = msgspec.json.decode(rows.check_utf8(body), type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, RecursionError) as wrong:
            raise Unreadable(f"not a summary: {about(wrong, body)}", status=200) from None
        return {
            name: int(bytes(found[name]))
            for name in REPORTS
            if name in found and _INTEGER.fullmatch(bytes(found[name]))
        }

    def _read_links(self, target: Target, body: bytes) -> Page:
        try:
            found = _campaign.decode(rows.check_utf8(body))
        except (msgspec.DecodeError, RecursionError) as wrong:
            raise Unreadable(f"not a campaign: {about(wrong, body)}", status=200) from None
        if str(found.id) != target.campaign_id:
            raise Unreadable("this is another campaign", status=200)
        links = found.click_through_details
        return Page(rows.to_ndjson(links, dense=rows.is_dense(body)), len(links), None)

    def _follow(self, next_link: str | None, path: str) -> str | None:
        return validate_next_link(next_link, origin=self.origin, path=path) if next_link else None


def utc_text(moment: datetime) -> str:
    """ISO-8601 in UTC with `Z`: a `+` would turn into a blank in a query."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds" if utc.microsecond else "seconds") + "Z"


def _path(target: Target) -> str:
    if target.report == LINKS:
        return f"{_CAMPAIGNS}/{target.campaign_id}"
    return f"{_CAMPAIGNS}/{target.campaign_id}/tracking/{REPORTS[target.report].path}"


def _open(body: bytes) -> tuple[Sequence[bytes | msgspec.Raw], str | None]:
    """The rows and the next link, exact to the byte, or `Unreadable`."""
    try:
        page = _envelope.decode(body)
    except RecursionError:
        raise Unreadable("nested too deeply to be a page", status=200) from None
    except msgspec.DecodeError as wrong:
        if not rows.has_surrogates(body):
            raise Unreadable(f"not a page: {about(wrong, body)}", status=200) from None
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
        raise Unreadable(f"not a page: {about(wrong, body)}", status=200) from None
    pagination = meta.pagination if meta else None
    return results, pagination.next_link if pagination else None
