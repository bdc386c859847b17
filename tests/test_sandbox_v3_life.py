"""Version 3 of the simulated API: what changes, what is refused, what fails, what is logged."""

import orjson
import pytest
from sandbox_client import (
    DAY,
    NOW,
    STATS,
    client,
    loaded,
    mailings,
    next_link,
    raw_rows,
    stats_by_rows,
    tracking,
)

# -- what changes --------------------------------------------------------------------------------


def test_resend_is_an_activity_and_a_v2_campaign() -> None:
    """It comes after the others in the detail, has rows at once, and moves updated_at."""
    ready = client()
    world = ready.service.world
    campaign = world.v3_campaign_ids[5]
    before = ready.json(f"/v3/emails/{campaign}")
    activity = world.resend(campaign)
    after = ready.json(f"/v3/emails/{campaign}")
    known = [each["campaign_activity_id"] for each in before["campaign_activities"]]
    new = [a for a in after["campaign_activities"] if a["campaign_activity_id"] not in known]
    assert new == [{"campaign_activity_id": activity, "role": "resend"}]
    assert after["updated_at"] == "2024-10-04T00:00:00.000Z" > before["updated_at"]
    both = mailings(world, campaign)
    counted = ready.json(f"{STATS}/{campaign}")["results"][0]["stats"]
    assert counted == stats_by_rows(world, both)
    assert len(both) == len(known)
    assert ready.json("/v3/emails?limit=1")["campaigns"][0]["campaign_id"] == campaign
    assert world.rows("opens", activity) > 0
    assert list(world.records("opens", campaign))[-1] == list(world.records("opens", activity))[-1]
    assert world.listing("SENT")[0] == world.v2_id(activity) == world.campaign_ids[-1]
    assert all(row["created_time"] < after["updated_at"] for row in loaded(
        world.records("opens", activity)
    ))  # fmt: skip


def test_unsent_campaign_is_sent_later() -> None:
    """Its state, its time and its reports change; it cannot be sent twice, nor resent before."""
    ready = client()
    world = ready.service.world
    campaign = world.v3_unsent_ids[1]
    (activity,) = mailings(world, campaign)
    with pytest.raises(ValueError, match="sent"):
        world.resend(campaign)
    assert ready.json(f"/v3/emails/{campaign}")["current_status"] == "SCHEDULED"
    assert world.rows("sends", activity) == 0
    world.send(campaign)
    assert ready.json(f"/v3/emails/{campaign}")["current_status"] == "DONE"
    assert ready.walk(tracking(activity, "sends")) == list(world.records("sends", campaign))
    assert world.rows("sends", campaign) > 0
    assert campaign in world.v3_campaign_ids
    assert world.status(world.v2_id(campaign)) == "SENT"
    with pytest.raises(ValueError, match="sent"):
        world.send(campaign)


def test_rows_of_an_earlier_moment_can_be_asked_for() -> None:
    """A judge compares a file with the account as it was when the file was finished."""
    ready = client()
    world = ready.service.world
    campaign, unsent = world.v3_campaign_ids[0], world.v3_unsent_ids[0]
    before = {name: list(world.records(name, campaign)) for name in ("opens", "unique_opens")}
    noon = ready.wall = NOW + DAY / 2
    world.add_events("opens", campaign, 4)
    ready.wall += 1
    resend = world.resend(campaign)
    world.send(unsent)
    for name, rows in before.items():
        assert list(world.records(name, campaign, at=noon - 1)) == rows
    now = list(world.records("opens", campaign))
    then = list(world.records("opens", campaign, at=noon))
    assert then[4:] == [*before["opens"]]
    assert now == [*then, *world.records("opens", resend)]
    assert list(world.records("sends", unsent, at=noon)) == []
    email = world.v2_id(campaign)
    assert len(list(world.records("opens", email, at=noon - 1))) == world.rows("opens", email) - 4


def test_deleted_contact_is_marked_in_old_rows() -> None:
    """In every report at once, a page that was asked for before too; nothing else changes."""
    ready = client()
    world = ready.service.world
    (activity, *_) = mailings(world, world.v3_campaign_ids[0])
    before = ready.walk(tracking(activity, "opens"))
    row = next(each for each in loaded(before) if "deleted_at" not in each)
    world.delete_contact(row["contact_id"])
    after = ready.walk(tracking(activity, "opens"))
    for old, new in zip(loaded(before), loaded(after), strict=True):
        assert new.pop("deleted_at", None) == (
            "2024-10-04T00:00:00.000Z"
            if new["contact_id"] == row["contact_id"]
            else old.pop("deleted_at", None)
        )
        assert new == old
    with pytest.raises(KeyError):
        world.delete_contact(activity)


@pytest.mark.parametrize("report", ["opens", "unique_opens", "didnotopens", "optouts"])
def test_arrivals_shift_an_offset_walk(report: str) -> None:
    """Events that come in between two pages push known rows onto the next page."""
    ready = client(arrivals=1, pages=60)
    world = ready.service.world
    activity = max(
        (each for c in world.v3_campaign_ids for each in mailings(world, c)),
        key=lambda each: world.rows(report, each),
    )
    rows = ready.walk(tracking(activity, report, "limit=2"))
    assert rows[2] == rows[1]
    assert len(set(rows)) < len(rows)


def test_time_cursors_do_not_shift() -> None:
    """A cursor that names a moment goes on after it, whatever comes in."""
    ready = client(arrivals=3, cursor="timestamp")
    world = ready.service.world
    activity = mailings(world, world.v3_campaign_ids[0])[0]
    before = list(world.records("opens", activity))
    assert ready.walk(tracking(activity, "opens")) == before
    assert world.rows("opens", activity) > len(before)


# -- limits and faults ---------------------------------------------------------------------------


def test_limits_are_told_by_bare_objects() -> None:
    """429 throttled, 429 quota_exceeded, and the 401 that was recorded, of 59 bytes."""
    ready = client(rate_limit=2, quota=4, retry_after="1")
    assert [ready.ask("/v3/emails").answer.status for _ in range(3)] == [200, 200, 429]
    reply = ready.replies[-1]
    assert orjson.loads(reply.answer.body)["error_key"] == "throttled"
    assert reply.answer.headers["Retry-After"] == "1"
    assert reply.hit.throttled
    ready.now = 5.0
    ready.json("/v3/emails")
    assert ready.json("/v3/emails", 429)["error_key"] == "quota_exceeded"
    ready.wall += DAY
    ready.json("/v3/emails")
    ready.token = "wrong"
    answer = ready.ask("/v3/emails").answer
    assert (answer.status, len(answer.body)) == (401, 59)
    assert answer.headers["WWW-Authenticate"] == "Bearer realm=api.cc.email"


@pytest.mark.parametrize(("client_id", "status"), [("sandbox-key", 403), ("another-app", 200)])
def test_an_app_has_one_quota_in_both_versions(client_id: str, status: int) -> None:
    """Where v2's key and v3's client id are one app, what one version spends the other lacks."""
    ready = client(quota=1, client_id=client_id)
    ready.json("/v3/emails")
    v2 = ready.ask("/v2/emailmarketing/campaigns?api_key=sandbox-key")
    assert v2.answer.status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"accept": "text/html"}, 406), ({"authorization": "Basic x"}, 401), ({}, 200)],
)
def test_headers_are_checked(headers: dict[str, str], status: int) -> None:
    """The token by its scheme, and the Accept header."""
    ready = client()
    assert ready.ask("/v3/emails", **headers).answer.status == status
    assert ready.replies[0].hit.authorized is (status != 401)


@pytest.mark.parametrize(
    ("name", "struck"),
    [
        ("stats", "stats"),
        ("campaign", "campaign"),
        ("clicks", "clicks"),
        ("campaigns", "campaigns"),
    ],
)
def test_one_kind_of_request_may_fail_alone(name: str, struck: str) -> None:
    """A pin may name a report of the log."""
    ready = client(pinned={(name, None): "forbidden"})
    world = ready.service.world
    campaign = world.v3_campaign_ids[0]
    (activity, *_) = mailings(world, campaign)
    for target in (
        f"{STATS}/{campaign}",
        f"/v3/emails/{campaign}",
        "/v3/emails",
        tracking(activity, "clicks"),
        tracking(activity, "opens"),
    ):
        ready.ask(target)
    refused = [reply.hit.report for reply in ready.replies if reply.answer.status == 403]
    assert refused == [struck]


@pytest.mark.parametrize("cursor", ["offset", "timestamp"])
@pytest.mark.parametrize("kind", ["endless_same", "endless_empty"])
@pytest.mark.parametrize("page", [1, 2])
def test_endless_pages_have_new_cursors(kind: str, page: int, cursor: str) -> None:
    """Never the same cursor twice, for ever the same page or none; the page number stays."""
    ready = client(pinned={(None, page): kind}, cursor=cursor)
    world = ready.service.world
    activity = max(
        (each for c in world.v3_campaign_ids for each in mailings(world, c)),
        key=lambda each: world.rows("opens", each),
    )
    target, links, bodies = tracking(activity, "opens"), [], []
    for _ in range(12):
        answer = ready.ask(target).answer
        assert answer.status == 200
        target = next_link(orjson.loads(answer.body))
        links.append(target)
        bodies.append(raw_rows(answer.body))
    assert len(set(links)) == 12
    rows = bodies[page:]
    assert all(each == rows[0] for each in rows)
    assert bool(rows[0]) is (kind == "endless_same")
    assert {reply.hit.page for reply in ready.replies[page:]} == {page}


def test_flood_has_far_more_rows_than_asked() -> None:
    """Ten times the limit, also where the page itself is short."""
    ready = client(pinned={(None, None): "flood"})
    (activity, *_) = mailings(ready.service.world, ready.service.world.v3_campaign_ids[0])
    page = ready.json(tracking(activity, "forwards", "limit=100"))
    assert len(page["tracking_activities"]) >= 1_000


# -- the log and the judge's help ----------------------------------------------------------------


def test_log_tells_campaign_activity_and_page() -> None:
    """A request for an activity is logged with its campaign; no secret stands in it."""
    ready = client()
    world = ready.service.world
    campaign = world.v3_campaign_ids[0]
    (activity, *_) = mailings(world, campaign)
    ready.walk(tracking(activity, "opens", "limit=10&access_token=leak&api_key=leak"))
    ready.ask(f"{STATS}/{campaign}")
    first, second, *_, last = ready.service.log.hits
    assert (first.report, first.campaign_id, first.activity_id) == ("opens", campaign, activity)
    assert (first.page, second.page, first.query) == (1, 2, "limit=10")
    assert (first.api_key, second.api_key) == (True, False)
    assert (last.report, last.activity_id) == ("stats", campaign)
    assert "leak" not in repr(ready.service.log.hits)


@pytest.mark.parametrize("limit", [3, 10, 500])
def test_least_requests_are_details_and_pages_with_rows(limit: int) -> None:
    """As a client that knew everything would count them."""
    ready = client()
    world = ready.service.world
    reports = ["opens", "unsubscribes", "bounces"]
    for campaign in world.v3_campaign_ids:
        ready.ask(f"/v3/emails/{campaign}")
        for activity in mailings(world, campaign):
            for report, path in zip(reports, ["opens", "optouts", "bounces"], strict=True):
                if world.rows(report, activity):
                    ready.walk(tracking(activity, path, f"limit={limit}"))
    assert world.least_requests(reports, limit) == len(ready.replies)


def test_a_delivery_is_known_without_a_socket() -> None:
    """How an answer arrives is a value: its wait, its length, its end."""
    ready = client(pinned={(None, None): ["cut", "reset", "stall", "timeout", "slow"]}, latency=0.5)
    found = [ready.ask("/v3/emails", **{"accept-encoding": "gzip"}).delivery for _ in range(6)]
    assert [each.end for each in found] == ["closed", "reset", "good", "silent", "good", "good"]
    assert [each.wait for each in found] == [0.5, 0.5, 5.5, 0.5, 0.5, 0.5]
    assert len(found[0].body) == found[0].length // 2
    assert found[4].pieces * found[4].pause == pytest.approx(2.0)
    assert {each.headers["Content-Encoding"] for each in found} == {"gzip"}
    assert [reply.hit.status for reply in ready.replies] == [200, 0, 200, 0, 200, 200]
