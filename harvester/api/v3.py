"""Version 3 of the API: reports by campaign activity, `_links.next.href`, a bearer token alone.

A campaign is one or more activities, the email and its resends, each with reports of its own. So
the walk of a campaign asks first for the campaign itself, a page without rows, then for the pages
of one activity after the other. What comes after an activity stands in the fragment of a link,
which no request carries:

    /v3/emails/CAMPAIGN#500
    /v3/reports/email_reports/ACTIVITY/tracking/opens?limit=500#500,ACTIVITY,ACTIVITY

Source: developer.constantcontact.com, "Email reports" and its OpenAPI 3.0.178. No tracking report
can be filtered by time there, so there is no `since`.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import msgspec

from harvester.api import rows
from harvester.api.errors import about
from harvester.api.next_link import validate_next_link
from harvester.api.rows import ExpectedIds
from harvester.api.v2 import utc_text
from harvester.errors import CampaignError, ConfigError, Unreadable
from harvester.model import Page, Target

ORIGIN = "https://api.cc.email"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_CAMPAIGNS = "/v3/emails"
_LIST_LIMIT = 500
_REPORTED = frozenset({"primary_email", "resend"})  # the only roles that have reports

REPORTS = {
    "opens": ("opens", "em_opens"),
    "clicks": ("clicks", "em_clicks"),
    "sends": ("sends", "em_sends"),
    "bounces": ("bounces", "em_bounces"),
    "forwards": ("forwards", "em_forwards"),
    "unsubscribes": ("optouts", "em_optouts"),
}
"""The names of v2, with the last part of the path and the type of a row in v3."""

_STATUSES = {
    "DRAFT": "draft",
    "RUNNING": "executing",
    "SENT": "done",
    "SCHEDULED": "scheduled",
    "DELETED": "removed",
}
"""The names of v2, and those of v3 in small letters: the API itself writes them in two ways."""


class _Href(msgspec.Struct):
    href: str | None = None


class _Links(msgspec.Struct):
    next: _Href | None = None


class _Report(msgspec.Struct):
    rows: list[msgspec.Raw] = msgspec.field(name="tracking_activities")
    links: _Links | None = msgspec.field(default=None, name="_links")


class _List(msgspec.Struct):
    rows: list[msgspec.Raw] = msgspec.field(name="campaigns")
    links: _Links | None = msgspec.field(default=None, name="_links")


class _Activity(msgspec.Struct):
    campaign_activity_id: str
    role: str = ""


class _Campaign(msgspec.Struct):
    campaign_id: str
    campaign_activities: list[_Activity]


class _Listed(msgspec.Struct):
    campaign_id: str
    current_status: str = ""


_report = msgspec.json.Decoder(_Report)
_list = msgspec.json.Decoder(_List)
_campaign = msgspec.json.Decoder(_Campaign)
_listed = msgspec.json.Decoder(_Listed)
_links = msgspec.json.Decoder(_Links | None)


@dataclass(frozen=True, slots=True)
class V3:
    """The v3 API at one origin."""

    origin: str = ORIGIN
    name: str = "v3"
    reports: Sequence[str] = tuple(REPORTS)
    lacks: Collection[str] = frozenset({"since", "summary", "links"})

    def check_id(self, campaign_id: str | int) -> str:
        """v3 ids are UUIDs; in small letters, so that one campaign has one file."""
        found = campaign_id.lower() if isinstance(campaign_id, str) else ""
        if not _ID.fullmatch(found):
            raise ConfigError(
                f"not a campaign id: {str(campaign_id)[:40]!r} (v3 ids are UUIDs, as in "
                "1d3a7b5e-0c1f-4a52-9a6b-0123456789ab; those of v2 are for --api v2)"
            )
        return found

    def first_link(self, target: Target, *, limit: int, since: datetime | None) -> str:
        """The campaign, which knows its activities."""
        if since is not None:
            raise CampaignError("rejected", "v3 has no reports of events since a moment")
        return f"{_CAMPAIGNS}/{target.campaign_id}#{limit}"

    def url_for(self, link: str, api_key: str) -> str:
        """The token alone admits a request; the key only owns the limits."""
        return self.origin + link.partition("#")[0]

    def read_page(self, target: Target, link: str, body: bytes) -> Page:
        """Read the campaign, or one page of one of its activities. The end of the walk is the last
        activity's page without a next link."""
        asked, _, left = link.partition("#")
        limit, *activities = left.split(",")
        if asked.startswith(f"{_CAMPAIGNS}/"):
            return Page(b"", 0, _next_activity(target, limit, _activities(target, body)))
        activity = asked.split("/")[4]
        results, href = _open(body, _report, "tracking_activities")
        kind = REPORTS[target.report][1]
        ndjson = rows.to_ndjson(
            results,
            dense=rows.is_dense(body),
            owner=ExpectedIds("campaign_activity_id", activity, "tracking_activity_type", kind),
        )
        following = _next_activity(target, limit, activities)
        if href:
            path = _path(activity, target.report)
            following = f"{validate_next_link(href, origin=self.origin, path=path)}#{left}"
        return Page(ndjson, len(results), following)

    def date_field(self, report: str) -> str:
        """The field that says when an event happened."""
        return "created_time"

    # -- around the reports --------------------------------------------------------------------

    def campaigns_link(self, *, status: str, modified_since: datetime | None) -> str:
        """The first page of the campaign list. It knows no status: see `listed_id`."""
        link = f"{_CAMPAIGNS}?limit={_LIST_LIMIT}"
        if modified_since is None:
            return link
        return f"{link}&after_date={quote(utc_text(modified_since), safe='')}"

    def read_campaigns(self, body: bytes) -> Page:
        """One page of the campaign list."""
        results, href = _open(body, _list, "campaigns")
        ndjson = rows.to_ndjson(results, dense=rows.is_dense(body))
        for record in ndjson.split(b"\n")[:-1]:
            self.listed_id(record, "ALL")
        following = validate_next_link(href, origin=self.origin, path=_CAMPAIGNS) if href else None
        return Page(ndjson, len(results), following)

    def listed_id(self, record: bytes, status: str) -> str | None:
        """The id in a record of the list; None if the campaign is in another state."""
        try:
            found = _listed.decode(record)
            campaign_id = self.check_id(found.campaign_id)
        except (msgspec.DecodeError, ConfigError):
            raise Unreadable("a campaign without a usable id", status=200) from None
        wanted = _STATUSES.get(status)
        return campaign_id if wanted in {None, found.current_status.lower()} else None

    def summary_link(self, campaign_id: str) -> str:
        """v3 counts by other rules; not asked for."""
        raise ConfigError("summary (--summary): of --api v2 only")

    def read_summary(self, body: bytes) -> dict[str, int]:
        """See `summary_link`."""
        raise ConfigError("summary (--summary): of --api v2 only")


def _path(activity: str, report: str) -> str:
    return f"/v3/reports/email_reports/{activity}/tracking/{REPORTS[report][0]}"


def _next_activity(target: Target, limit: str, activities: Sequence[str]) -> str | None:
    """The link of the first page of the first of `activities`; None if there is none left."""
    if not activities:
        return None
    first, *rest = activities
    return f"{_path(first, target.report)}?limit={limit}#{','.join((limit, *rest))}"


def _activities(target: Target, body: bytes) -> list[str]:
    """The activities of a campaign that have reports, each once, in the API's order."""
    try:
        found = _campaign.decode(rows.check_utf8(body))
    except (msgspec.DecodeError, RecursionError) as wrong:
        raise Unreadable(f"not a campaign: {about(wrong, body)}", status=200) from None
    if found.campaign_id.lower() != target.campaign_id:
        raise Unreadable("this is another campaign", status=200)
    ids = [
        activity.campaign_activity_id.lower()
        for activity in found.campaign_activities
        if activity.role.lower() in _REPORTED
    ]
    if not all(map(_ID.fullmatch, ids)):
        raise Unreadable("an activity without a usable id", status=200)
    return list(dict.fromkeys(ids))


def _open(
    body: bytes, decoder: msgspec.json.Decoder[_Report] | msgspec.json.Decoder[_List], name: str
) -> tuple[Sequence[bytes | msgspec.Raw], str | None]:
    """The rows and the next link, exact to the byte, or `Unreadable`."""
    body = rows.check_utf8(body)
    try:
        page = decoder.decode(body)
        results: Sequence[bytes | msgspec.Raw] = page.rows
        links = page.links
    except RecursionError:
        raise Unreadable("nested too deeply to be a page", status=200) from None
    except msgspec.DecodeError as wrong:
        if not rows.has_surrogates(body):
            raise Unreadable(f"not a page: {about(wrong, body)}", status=200) from None
        try:
            members = rows.members(body)
            results = rows.elements(members[name])
            links = _links.decode(members.get("_links", "null"))
        except (ValueError, KeyError, RecursionError, msgspec.DecodeError) as worse:
            raise Unreadable(f"not a page: {about(worse, body)}", status=200) from None
    return results, links.next.href if links and links.next else None
