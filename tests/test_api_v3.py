"""Version 3 on the wire: a campaign, then the pages of one activity after the other."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from fakes import CAMPAIGN_V3 as CAMPAIGN
from fakes import credentials_of
from multidict import CIMultiDict

from harvester.api.v3 import V3
from harvester.api.vendor import V3_REPORTS as REPORTS
from harvester.errors import CampaignError, ConfigError, Unreadable
from harvester.model import Page, Target

API = V3()
TARGET = Target("opens", CAMPAIGN)
EMAIL, RESEND = (f"{number:08d}-0000-4000-8000-0123456789ab" for number in (1, 2))
SECRETS = credentials_of("token", "canary")
START = f"/v3/emails/{CAMPAIGN}#500"


def path(activity: str, report: str = "opens") -> str:
    """Where the report of an activity is."""
    return f"/v3/reports/email_reports/{activity}/tracking/{report}"


def campaign(
    *activities: tuple[str, str], campaign_id: str = CAMPAIGN, status: object = ...
) -> bytes:
    """A campaign with such activities: id and role."""
    each = [{"campaign_activity_id": activity, "role": role} for activity, role in activities]
    found: dict[str, object] = {"campaign_id": campaign_id, "campaign_activities": each}
    if status is not ...:
        found["current_status"] = status
    return json.dumps(found).encode()


def opened(activity: str = EMAIL, **more: Any) -> dict[str, Any]:
    """A row."""
    return {
        "contact_id": "c",
        "campaign_activity_id": activity,
        "tracking_activity_type": "em_opens",
        "created_time": "2026-01-31T00:00:00.000Z",
        **more,
    }


def page(*rows: dict[str, Any], href: object = ...) -> bytes:
    """A page of a report; without `href` it has no links at all."""
    links = {} if href is ... else {"_links": {"next": None if href is None else {"href": href}}}
    return json.dumps({"tracking_activities": rows, **links}).encode()


# -- asking ------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [CAMPAIGN, CAMPAIGN.upper()])
def test_a_uuid_is_an_id(given: str) -> None:
    """In small letters: one campaign has one file, in whatever letters its id was typed."""
    assert API.check_id(given) == CAMPAIGN


@pytest.mark.parametrize(
    "bad", ["", "7", f"{CAMPAIGN} ", f"{CAMPAIGN}\n", CAMPAIGN[:-1], f"../{CAMPAIGN}", "g" * 36, 7]
)
def test_nothing_else_is_an_id(bad: Any) -> None:
    """Also not an id of v2, and the message says so."""
    with pytest.raises(ConfigError, match=r"UUIDs.*`api` v2"):
        API.check_id(bad)


def test_a_walk_begins_at_the_campaign() -> None:
    """The page size is kept for the reports; neither it nor the key goes out with this request."""
    link = API.first_link(TARGET, limit=500, since=None)
    assert link == START
    signed = API.request(link, SECRETS)
    assert signed.url == f"{API.origin}/v3/emails/{CAMPAIGN}"
    assert signed.headers == {"Authorization": "Bearer token"}


def test_no_report_is_filtered_by_time() -> None:
    """v3 cannot; settings know it from the report."""
    assert {report.since_parameter for report in REPORTS.values()} == {None}
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert API.first_link(TARGET, limit=500, since=moment) == START


# -- the campaign ------------------------------------------------------------------------------


def test_the_campaign_leads_to_its_first_activity() -> None:
    """A page without rows; those that come after stand where no request carries them."""
    body = campaign((EMAIL, "primary_email"), ("x", "permalink"), (RESEND.upper(), "RESEND"))
    first = f"{path(EMAIL)}?limit=500"
    assert API.read_page(TARGET, START, body) == Page(b"", 0, f"{first}#500,{RESEND}")
    assert API.request(f"{first}#500,{RESEND}", SECRETS).url == API.origin + first


def test_an_activity_named_twice_is_walked_once() -> None:
    """A row must not be there twice."""
    body = campaign((EMAIL, "primary_email"), (EMAIL, "resend"))
    assert API.read_page(TARGET, START, body).next == f"{path(EMAIL)}?limit=500#500"


@pytest.mark.parametrize("activities", [[], [(EMAIL, "permalink")]])
def test_a_campaign_without_reports_is_not_sent(activities: list[tuple[str, str]]) -> None:
    """It is never finished as an empty one: a later run may find more."""
    with pytest.raises(CampaignError) as caught:
        API.read_page(TARGET, START, campaign(*activities))
    assert caught.value.kind == "not_sent"


@pytest.mark.parametrize("status", ["Draft", "DRAFT", "Scheduled", "SCHEDULED", "Executing"])
def test_a_campaign_that_is_not_sent_says_so(status: str) -> None:
    """Its activities would answer like those of a campaign without events."""
    body = campaign((EMAIL, "primary_email"), status=status)
    with pytest.raises(CampaignError, match=status) as caught:
        API.read_page(TARGET, START, body)
    assert caught.value.kind == "not_sent"


@pytest.mark.parametrize("status", ["Done", "DONE", "Error", "Removed", "", "Something new", None])
def test_a_campaign_of_any_other_status_is_walked(status: str | None) -> None:
    """Unknown or absent: its reports decide."""
    body = campaign((EMAIL, "primary_email"), status=status)
    assert API.read_page(TARGET, START, body).next == f"{path(EMAIL)}?limit=500#500"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"<html>", b"{}", b'{"campaign_id":"x"}', b"\xff", b'{"campaign_id":1}',
        campaign(("../x", "resend")),
        b'[{"error_key":"x"}]',
        campaign((EMAIL, "resend"))[:-1] + b',"campaign_activities":[]}',
        campaign((EMAIL, "resend"))[:-1] + b',"error_key":"x"}',
        campaign((EMAIL, "resend"), campaign_id=EMAIL),
        b'{"campaign_id":"%s","campaign_activities":{}}' % CAMPAIGN.encode(),
    ],
)  # fmt: skip
def test_what_is_no_campaign_is_unreadable(body: bytes) -> None:
    """Nor is another one."""
    with pytest.raises(Unreadable):
        API.read_page(TARGET, START, body)


# -- its reports -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "name", "kind"),
    [
        ("opens", "opens", "em_opens"),
        ("clicks", "clicks", "em_clicks"),
        ("sends", "sends", "em_sends"),
        ("bounces", "bounces", "em_bounces"),
        ("forwards", "forwards", "em_forwards"),
        ("unsubscribes", "optouts", "em_optouts"),
        ("unique_opens", "unique_opens", "em_opens"),
        ("did_not_open", "didnotopens", "em_didnotopens"),
    ],
)
def test_each_report_has_its_path_and_type(report: str, name: str, kind: str) -> None:
    """The names are those of v2, and two more."""
    target = Target(report, CAMPAIGN)
    link = API.read_page(target, START, campaign((EMAIL, "primary_email"))).next
    assert link == f"{path(EMAIL, name)}?limit=500#500"
    row = opened(tracking_activity_type=kind)
    found = API.read_page(target, link, page(row))
    assert [found.rows, found.next, *found.records()] == [1, None, row]
    assert REPORTS[report].time_field in row
    with pytest.raises(Unreadable):
        API.read_page(target, link, page(opened(tracking_activity_type="em_other")))


def test_the_links_of_an_activity_are_one_page() -> None:
    """Asked without a limit; then the next activity comes."""
    target = Target("links", CAMPAIGN)
    body = campaign((EMAIL, "primary_email"), (RESEND, "resend"))
    link = API.read_page(target, START, body).next
    assert link == f"/v3/reports/email_reports/{EMAIL}/links#500,{RESEND}"
    body = b'{"link_click_counts":[{"link_url":"a b","unique_clicks": 7}]}'
    found = API.read_page(target, link, body)
    then = f"/v3/reports/email_reports/{RESEND}/links#500"
    (row,) = found.records()
    assert found.ndjson.startswith(b'{"link_url":"a b","unique_clicks":7,')
    assert (row["campaign_id"], row["campaign_activity_id"]) == (CAMPAIGN, EMAIL)
    assert (found.rows, found.next) == (1, then)
    assert API.read_page(target, then, body).next is None


@pytest.mark.parametrize(
    ("link", "status", "kind"),
    [
        (START, 404, "not_found"),
        (f"{path(EMAIL)}?limit=500#500,{RESEND}", 404, "not_found"),
        (f"{path(EMAIL)}?limit=500#500", 400, "rejected"),
        (f"{path(EMAIL)}?next=1#500,{RESEND}", 404, "cursor_dropped"),
        (f"{path(EMAIL)}?cursor=1#500", 410, "cursor_dropped"),
        (f"/v3/reports/email_reports/{EMAIL}/links#500", 404, "not_found"),
    ],
)
def test_a_404_means_what_its_link_asked(link: str, status: int, kind: str) -> None:
    """Every activity has a first page: only where a cursor was sent can it be a dropped one."""
    found = API.classify_response(link, status, CIMultiDict(), b"")
    assert isinstance(found, CampaignError)
    assert found.kind == kind


def test_a_next_link_is_followed_within_the_activity() -> None:
    """Relative or absolute, its cursor as it came, and what is left goes with it."""
    link = f"{path(EMAIL)}?limit=500#500,{RESEND}"
    following = f"{path(EMAIL)}?next=aB%2F9&x=1"
    for href in (following, API.origin + following):
        found = API.read_page(TARGET, link, page(opened(), href=href))
        assert found.next == f"{following}#500,{RESEND}"


@pytest.mark.parametrize("href", [..., None, ""])
def test_an_activity_ends_where_no_link_is(href: object) -> None:
    """Absent, null or empty: then the next activity comes, and after the last the end."""
    body = page(opened(), href=href)
    then = f"{path(RESEND)}?limit=500#500"
    assert API.read_page(TARGET, f"{path(EMAIL)}?next=x#500,{RESEND}", body).next == then
    assert API.read_page(TARGET, f"{path(EMAIL)}?next=x#500", body).next is None


@pytest.mark.parametrize(
    ("href", "kind"),
    [
        ("https://evil.example/v3/x?next=1", "foreign_link"),
        (f"{path(RESEND)}?next=1", "foreign_link"),
        (f"{path(EMAIL)}?next=1#500", "bad_link"),
        (path(EMAIL), "bad_link"),
    ],
)
def test_a_link_that_leads_elsewhere_is_refused(href: str, kind: str) -> None:
    """Nothing the API says gets into what is left to walk."""
    with pytest.raises(CampaignError) as caught:
        API.read_page(TARGET, f"{path(EMAIL)}?limit=500#500", page(href=href))
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"<html>",
        b'{"tracking_activities":null}', b'{"tracking_activities":[1]}',
        b'{"tracking_activities":[],"_links":[]}', b'{"tracking_activities":["\\ud800"]}',
        b'{"tracking_activities":[{"x":"\\ud800"}],"_links":1}',
        page(opened(RESEND)), page(opened(tracking_activity_type="em_clicks")),
    ],
)  # fmt: skip
def test_what_is_no_page_of_it_is_unreadable(body: bytes) -> None:
    """Another shape, another activity's row, another report's."""
    with pytest.raises(Unreadable):
        API.read_page(TARGET, f"{path(EMAIL)}?limit=500#500", body)


def test_rows_are_kept_to_the_byte() -> None:
    """Unknown fields, numbers, a lone surrogate; an id in capitals is the same id."""
    row = b'{"a":1.10,"campaign_activity_id":"%s","s":"\\ud800"}' % EMAIL.upper().encode()
    body = b'{"tracking_activities":[%s],"_links":{"next":{"href":null}}}' % row
    found = API.read_page(TARGET, f"{path(EMAIL)}?limit=500#500", body)
    assert found == Page(row + b"\n", 1, None)


# -- the list ----------------------------------------------------------------------------------


def test_the_list_is_asked_without_a_status() -> None:
    """It cannot be filtered by one; the time is that of the last change."""
    assert API.campaigns_link(status="SENT", modified_since=None) == "/v3/emails?limit=500"
    since = datetime(2026, 1, 31, tzinfo=UTC)
    link = API.campaigns_link(status="ALL", modified_since=since)
    assert link == "/v3/emails?limit=500&after_date=2026-01-31T00%3A00%3A00Z"


@pytest.mark.parametrize(
    ("status", "written"),
    [
        ("SENT", "Done"),
        ("DRAFT", "Draft"),
        ("DELETED", "Removed"),
        ("RUNNING", "Executing"),
        ("SCHEDULED", "Scheduled"),
        ("ERROR", "Error"),
    ],
)
def test_the_status_is_that_of_the_record(status: str, written: str) -> None:
    """In whatever letters the API writes it."""
    for letters in (written, written.upper()):
        record = json.dumps({"campaign_id": CAMPAIGN, "current_status": letters}).encode()
        matching = {name for name in API.statuses if API.listed_id(record, name)}
        assert matching == {status, "ALL"}


def test_a_campaign_of_no_status_is_listed_among_all() -> None:
    """And in no status."""
    for record in (b'{"campaign_id":"%s"}', b'{"campaign_id":"%s","current_status":null}'):
        found = {name for name in API.statuses if API.listed_id(record % CAMPAIGN.encode(), name)}
        assert found == {"ALL"}


@pytest.mark.parametrize("record", [b"{}", b'{"campaign_id":"7"}', b"[]", b'{"campaign_id":7}'])
def test_a_campaign_without_an_id_is_unreadable(record: bytes) -> None:
    """A page with such a record is asked for again."""
    with pytest.raises(Unreadable):
        API.listed_id(record, "ALL")
    with pytest.raises(Unreadable):
        API.read_campaigns("", b'{"campaigns":[%s]}' % record)


def test_the_list_goes_on_until_there_is_no_link() -> None:
    """The next link is followed within the list."""
    record = b'{"campaign_id":"%s","name":"\\ud800","error_key":1,"x":1,"x":2}' % CAMPAIGN.encode()
    body = b'{"campaigns":[%s],"_links":{"next":{"href":"/v3/emails?next=a"}}}' % record
    assert API.read_campaigns("", body) == Page(record + b"\n", 1, "/v3/emails?next=a")
    assert API.read_campaigns("", b'{"campaigns":[]}') == Page(b"", 0, None)
