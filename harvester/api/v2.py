"""Version 2 of the API: reports by campaign id, a relative `next_link`, the key in the query.

Source: v2.developer.constantcontact.com, "Email campaign tracking" and "Paginated output".
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from harvester.api.base import Detail, Secrets, SignedRequest
from harvester.api.counts import BulkCounts, CampaignCounts, read_moment
from harvester.api.errors import classify_response
from harvester.api.next_link import since_query, validate_next_link
from harvester.api.page import ExpectedIds, Shape, read_object, read_record, read_rows, with_owner
from harvester.api.vendor import LINKS, ORIGINS, V2_REPORTS, V2_STATUSES, Report
from harvester.errors import ConfigError, Unreadable
from harvester.model import Page, Target

_LONGEST_ID, _LONGEST_COUNT = 20, 18  # digits
_CAMPAIGNS = "/v2/emailmarketing/campaigns"
_OLDER_CAMPAIGNS = "/v2/emailcampaigns"  # how next links in the vendor's recorded answers have it
_LIST_LIMIT = 50  # the most the campaign list gives
_PAGE = Shape("results", "meta", "pagination", "next_link")
_CAMPAIGN_LINKS = Shape("click_through_details")


class _Listed(msgspec.Struct):
    id: str | int


class _Campaign(_Listed):
    click_through_details: msgspec.Raw = msgspec.Raw()
    modified_date: msgspec.Raw = msgspec.Raw(b"null")
    last_run_date: msgspec.Raw = msgspec.Raw(b"null")
    tracking_summary: msgspec.Raw = msgspec.Raw(b"{}")


_listed = msgspec.json.Decoder(_Listed)
_campaign = msgspec.json.Decoder(_Campaign)
_counts: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _read_campaign(campaign_id: str, body: bytes) -> _Campaign:
    found = read_object(body, _campaign)
    if str(found.id) != campaign_id:
        raise Unreadable("this is another campaign", status=200)
    return found


def _detail_link(campaign_id: str) -> str:
    return f"{_CAMPAIGNS}/{campaign_id}?updateSummary=true"


def _read_detail(campaign_id: str, body: bytes) -> Detail:
    """The links and the counts, brought up to date, of a campaign."""
    found = _read_campaign(campaign_id, body)
    changed = (read_moment(found.modified_date), read_moment(found.last_run_date))
    try:
        summary = _counts.decode(found.tracking_summary)
    except msgspec.DecodeError:  # null, or something else
        summary = {}
    recipients = {
        name: int(number)
        for name in V2_REPORTS
        if (number := bytes(summary.get(name, b""))).isdigit() and len(number) <= _LONGEST_COUNT
    }
    return Detail(
        updated_at=max((moment for moment in changed if moment is not None), default=None),
        counts=CampaignCounts(campaign_id=campaign_id, recipients=recipients),
        links=_read_links(Target(LINKS, campaign_id), body).ndjson.decode(),
    )


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_ID


class V2(Struct, frozen=True):
    """The v2 API at one origin."""

    origin: str = ORIGINS["v2"]
    reports: ClassVar[Mapping[str, Report]] = V2_REPORTS
    statuses: ClassVar[Collection[str]] = V2_STATUSES
    bulk_counts: ClassVar[BulkCounts | None] = None
    needs_detail: ClassVar[bool] = False
    detail_link = staticmethod(_detail_link)
    read_detail = staticmethod(_read_detail)
    classify_response = staticmethod(classify_response)

    def check_id(self, campaign_id: str | int) -> str:
        """v2 ids are decimal digits; nothing else can come near a path or a file name."""
        if type(campaign_id) is int:
            campaign_id = str(campaign_id)
        if not isinstance(campaign_id, str) or not _is_id(campaign_id):
            raise ConfigError(
                f"not a campaign id: {str(campaign_id)[:40]!r} (v2 ids are text of 1 to 20 digits; "
                "UUIDs are ids of `api` v3)"
            )
        return campaign_id

    def first_link(
        self, target: Target, *, limit: int, since: datetime | None, detail: Detail | None = None
    ) -> str:
        """`limit` and `created_since` belong to the first page alone; a cursor stands by itself."""
        link, report = _path(_CAMPAIGNS, target), V2_REPORTS[target.report]
        if not report.paged:
            return link
        return f"{link}?limit={limit}{since_query(report.since_parameter, since)}"

    def activity_of(self, link: str) -> str | None:
        """A campaign of v2 has one report of each kind."""
        return ""

    def after_activity(self, target: Target, link: str) -> str | None:
        """Nothing follows."""
        return None

    def request(self, link: str, secrets: Secrets) -> SignedRequest:
        """Every request wants the key in its query, and no next link carries it."""
        key = secrets.api_key
        key = key if key.isascii() and key.isalnum() else quote(key, safe="")
        key = f"{'&' if '?' in link else '?'}api_key={key}"
        return SignedRequest(
            f"{self.origin}{link}{key}", {"Authorization": f"Bearer {secrets.token}"}
        )

    def read_page(self, target: Target, link: str, body: bytes) -> Page:
        """Read one page; the end is an absent, null or empty `next_link`, never a short page."""
        report = V2_REPORTS[target.report]
        if not report.paged:
            return _read_links(target, body)
        expected = ExpectedIds(
            id_field="campaign_id",
            id=target.campaign_id,
            type_field="activity_type",
            type=report.row_type,
        )
        ndjson, count, raw = read_rows(body, _PAGE, expected)
        paths = (_path(_CAMPAIGNS, target), _path(_OLDER_CAMPAIGNS, target))
        following = validate_next_link(raw, origin=self.origin, paths=paths, asked=link)
        return Page(ndjson, count, following)

    def campaigns_link(
        self, *, status: str, modified_since: datetime | None, limit: int | None = None
    ) -> str:
        """The first page of the campaign list."""
        since = since_query("modified_since", modified_since)
        return f"{_CAMPAIGNS}?status={status}&limit={limit or _LIST_LIMIT}{since}"

    def read_campaigns(self, link: str, body: bytes) -> Page:
        """One page of the campaign list: a row has id, name, status and modified_date."""
        ndjson, count, raw = read_rows(body, _PAGE)
        for record in ndjson.split(b"\n")[:-1]:
            self.listed_id(record, "ALL")
        paths = (_CAMPAIGNS, _OLDER_CAMPAIGNS)
        following = validate_next_link(raw, origin=self.origin, paths=paths, asked=link)
        return Page(ndjson, count, following)

    def listed_id(self, record: bytes, status: str) -> str | None:
        """The id in a record of the list, which has those of the status only."""
        try:
            return self.check_id(str(read_record(record, _listed).id))
        except ConfigError:
            raise Unreadable("a campaign without a usable id", status=200) from None


def _path(campaigns: str, target: Target) -> str:
    return f"{campaigns}/{target.campaign_id}{V2_REPORTS[target.report].path}"


def _read_links(target: Target, body: bytes) -> Page:
    """The links of a campaign, from the campaign itself; each with the campaign's id."""
    if not bytes(_read_campaign(target.campaign_id, body).click_through_details):  # no such member
        return Page(b"", 0, None)
    ndjson, count, _ = read_rows(body, _CAMPAIGN_LINKS)
    return Page(with_owner(ndjson, campaign_id=target.campaign_id), count, None)
