"""Version 3 of the API: reports by campaign activity, `_links.next.href`, a bearer token alone.

A campaign is one or more activities, the email and its resends, each with reports of its own. A
walk needs the campaign's detail, which names them, and then reads the pages of one activity after
the other. A walk that is not given the detail asks for it first, as a page without rows. What comes
after an activity stands in the fragment of a link, which no request carries:

    /v3/emails/CAMPAIGN#500
    /v3/reports/email_reports/ACTIVITY/tracking/opens?limit=500#500,ACTIVITY,ACTIVITY

Source: developer.constantcontact.com, "Email reports" and its OpenAPI 3.0.178. No tracking report
can be filtered by time there; all are documented as newest first.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

import msgspec
from msgspec import Struct

from harvester.api.base import Detail, Secrets, SignedRequest
from harvester.api.counts import V3_COUNTS, BulkCounts, read_moment
from harvester.api.errors import classify_response
from harvester.api.next_link import since_query, validate_next_link
from harvester.api.page import ExpectedIds, Shape, read_object, read_record, read_rows, with_owner
from harvester.api.vendor import ORIGINS, V3_REPORTS, V3_STATUSES, Report
from harvester.errors import CampaignError, ConfigError, Unreadable
from harvester.model import Page, Target

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_CAMPAIGNS = "/v3/emails"
_LIST_LIMIT = 500
_REPORTED = frozenset({"primary_email", "resend"})  # the only roles that have reports
_NOT_SENT = frozenset({"draft", "scheduled", "executing"})
_PAGE = Shape("tracking_activities", "_links", "next", "href")
_LIST = Shape("campaigns", "_links", "next", "href")
_LINKS_PAGE = Shape("link_click_counts")


class _Activity(msgspec.Struct):
    campaign_activity_id: str
    role: str = ""


class _Listed(msgspec.Struct):
    campaign_id: str
    current_status: str | None = None


class _Campaign(_Listed, kw_only=True):
    campaign_activities: list[_Activity]
    updated_at: msgspec.Raw = msgspec.Raw(b"null")


_campaign = msgspec.json.Decoder(_Campaign)
_listed = msgspec.json.Decoder(_Listed)


def _detail_link(campaign_id: str) -> str:
    return f"{_CAMPAIGNS}/{campaign_id}"


def _read_detail(campaign_id: str, body: bytes) -> Detail:
    """The activities of a campaign that have reports, each once, in the API's order.

    An activity that is not sent answers like one without events, so the campaign's own status
    decides. Raise `CampaignError` "not_sent".
    """
    found = read_object(body, _campaign)
    if found.campaign_id.lower() != campaign_id:
        raise Unreadable("this is another campaign", status=200)
    if (found.current_status or "").lower() in _NOT_SENT:
        raise CampaignError("not_sent", f"the campaign is not sent yet ({found.current_status})")
    ids = [
        activity.campaign_activity_id.lower()
        for activity in found.campaign_activities
        if activity.role.lower() in _REPORTED
    ]
    if not all(map(_ID.fullmatch, ids)):
        raise Unreadable("an activity without a usable id", status=200)
    if not ids:
        raise CampaignError("not_sent", "the campaign has no activity that was sent")
    return Detail(activities=tuple(dict.fromkeys(ids)), updated_at=read_moment(found.updated_at))


class V3(Struct, frozen=True):
    """The v3 API at one origin."""

    origin: str = ORIGINS["v3"]
    reports: ClassVar[Mapping[str, Report]] = V3_REPORTS
    statuses: ClassVar[Collection[str]] = tuple(V3_STATUSES)
    bulk_counts: ClassVar[BulkCounts | None] = V3_COUNTS
    needs_detail: ClassVar[bool] = True
    detail_link = staticmethod(_detail_link)
    read_detail = staticmethod(_read_detail)
    classify_response = staticmethod(classify_response)

    def check_id(self, campaign_id: str | int) -> str:
        """v3 ids are UUIDs; in small letters, so that one campaign has one file."""
        found = campaign_id.lower() if isinstance(campaign_id, str) else ""
        if not _ID.fullmatch(found):
            raise ConfigError(
                f"not a campaign id: {str(campaign_id)[:40]!r} (v3 ids are UUIDs, as in "
                "1d3a7b5e-0c1f-4a52-9a6b-0123456789ab; numbers are ids of `api` v2)"
            )
        return found

    def first_link(
        self, target: Target, *, limit: int, since: datetime | None, detail: Detail | None = None
    ) -> str:
        """The first activity's first page; without the detail the campaign, which knows them."""
        start = detail and _next_activity(target, str(limit), detail.activities)
        return start or f"{_detail_link(target.campaign_id)}#{limit}"

    def activity_of(self, link: str) -> str | None:
        """The activity in the path."""
        return None if link.startswith(f"{_CAMPAIGNS}/") else link.split("/")[4]

    def after_activity(self, target: Target, link: str) -> str | None:
        """The first page of the next activity."""
        limit, *activities = link.partition("#")[2].split(",")
        return _next_activity(target, limit, activities)

    def request(self, link: str, secrets: Secrets) -> SignedRequest:
        """The token alone admits a request; the key only owns the limits."""
        url = self.origin + link.partition("#")[0]
        return SignedRequest(url, {"Authorization": f"Bearer {secrets.token}"})

    def read_page(self, target: Target, link: str, body: bytes) -> Page:
        """Read the campaign, or one page of one of its activities. The end of the walk is the last
        activity's page without a next link."""
        left = link.partition("#")[2]
        limit, *activities = left.split(",")
        if (activity := self.activity_of(link)) is None:
            detail = _read_detail(target.campaign_id, body)
            return Page(b"", 0, _next_activity(target, limit, detail.activities))
        report = V3_REPORTS[target.report]
        expected = ExpectedIds(
            id_field="campaign_activity_id",
            id=activity,
            type_field="tracking_activity_type",
            type=report.row_type,
        )
        if report.paged:
            ndjson, count, href = read_rows(body, _PAGE, expected)
        else:
            ndjson, count, href = read_rows(body, _LINKS_PAGE)
            ndjson = with_owner(
                ndjson, campaign_id=target.campaign_id, campaign_activity_id=activity
            )
        paths = (_path(activity, report),)
        if following := validate_next_link(href, origin=self.origin, paths=paths):
            return Page(ndjson, count, f"{following}#{left}")
        return Page(ndjson, count, _next_activity(target, limit, activities))

    def campaigns_link(
        self, *, status: str, modified_since: datetime | None, limit: int | None = None
    ) -> str:
        """The first page of the campaign list. It knows no status: see `listed_id`."""
        since = since_query("after_date", modified_since)
        return f"{_CAMPAIGNS}?limit={limit or _LIST_LIMIT}{since}"

    def read_campaigns(self, link: str, body: bytes) -> Page:
        """One page of the campaign list."""
        ndjson, count, href = read_rows(body, _LIST)
        for record in ndjson.split(b"\n")[:-1]:
            self.listed_id(record, "ALL")
        following = validate_next_link(href, origin=self.origin, paths=(_CAMPAIGNS,))
        return Page(ndjson, count, following)

    def listed_id(self, record: bytes, status: str) -> str | None:
        """The id in a record of the list; None if the campaign is in another state."""
        try:
            found = read_record(record, _listed)
            campaign_id = self.check_id(found.campaign_id)
        except ConfigError:
            raise Unreadable("a campaign without a usable id", status=200) from None
        wanted = V3_STATUSES[status]
        return campaign_id if wanted in {None, (found.current_status or "").lower()} else None


def _path(activity: str, report: Report) -> str:
    return f"/v3/reports/email_reports/{activity}{report.path}"


def _next_activity(target: Target, limit: str, activities: Sequence[str]) -> str | None:
    """The link of the first page of the first of `activities`; None if there is none left."""
    if not activities:
        return None
    report = V3_REPORTS[target.report]
    query = f"?limit={limit}" if report.paged else ""
    return f"{_path(activities[0], report)}{query}#{','.join((limit, *activities[1:]))}"
