"""The sandbox on its port, met by a naive client and by bare sockets."""

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from harvester.sandbox import Sandbox, SandboxSettings, World, serve
from harvester.sandbox.cursor import encode
from harvester.sandbox.reports import REPORTS

ROOT = "/v2/emailmarketing/campaigns"
SMALL: dict[str, Any] = {"campaigns": 8, "pages": 40, "rows_per_page": 10}
LAST_PAGES = ["absent", "null", "empty", "no_pagination", "no_meta"]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does, and however badly a fault ends, the server logs no complaint."""
    yield
    assert not [r for r in caplog.get_records("call") if r.levelno >= logging.WARNING]


class NaiveClient:
    """A client that believes everything: follows each next link with the key put back."""

    def __init__(self, session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
        self.session, self.sandbox = session, sandbox

    async def get(self, target: str, **headers: str) -> tuple[int, bytes]:
        """Status and body of a target to which the key is added; headers may be overruled."""
        joint = "&" if "?" in target else "?"
        url = f"{self.sandbox.base_url}{target}{joint}api_key=sandbox-key"
        known = {"Authorization": "Bearer sandbox-token", "Accept": "application/json"}
        async with self.session.get(url, headers=known | headers, allow_redirects=False) as answer:
            return answer.status, await answer.read()

    async def json(self, target: str) -> Any:
        """The document at a target that must answer well."""
        status, body = await self.get(target)
        assert status == 200, body
        return orjson.loads(body)

    async def pages(self, target: str) -> list[bytes]:
        """Every page from a first target to the end."""
        bodies = []
        while True:
            status, body = await self.get(target)
            assert status == 200, body
            bodies.append(body)
            target = next_link(body)
            if not target:
                return bodies

    async def rows(self, target: str) -> list[bytes]:
        """Every row of a walk as raw JSON."""
        return [row for body in await self.pages(target) for row in raw_rows(body)]


def next_link(body: bytes) -> str:
    link = orjson.loads(body).get("meta", {}).get("pagination", {}).get("next_link")
    return link or ""


def raw_rows(body: bytes) -> list[bytes]:
    """The rows cut out of a page without being parsed: each starts with its activity type."""
    rows = body.partition(b'"results":[')[2].removesuffix(b"]}")
    return [b'{"activity_type"' + row for row in rows.split(b'{"activity_type"')[1:]]


def without_commas(rows: list[bytes]) -> list[bytes]:
    return [row.removesuffix(b",") for row in rows]


def opens(campaign_id: str, query: str = "limit=10") -> str:
    return f"{ROOT}/{campaign_id}/tracking/opens?{query}"


def largest(world: World, report: str = "opens") -> str:
    return max(world.campaign_ids, key=lambda c: world.rows(report, c))


@asynccontextmanager
async def connected(**settings: Any) -> AsyncIterator[tuple[Sandbox, NaiveClient]]:
    """A small sandbox and a naive client of it."""
    asked = SandboxSettings(**{**SMALL, **settings})
    async with Sandbox(asked) as sandbox, aiohttp.ClientSession() as session:
        yield sandbox, NaiveClient(session, sandbox)


def port_of(sandbox: Sandbox) -> int:
    return int(sandbox.base_url.rpartition(":")[2])


async def raw(sandbox: Sandbox, target: str, *extra: str) -> bytes:
    """Everything the server sends to one bare request until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(sandbox))
    lines = [
        f"GET {target}&api_key=sandbox-key HTTP/1.1",
        "Host: 127.0.0.1",
        "Authorization: Bearer sandbox-token",
        "Connection: close",
        *extra,
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        return await reader.read()
    finally:
        writer.close()


# -- walks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cursor", ["offset", "timestamp"])
@pytest.mark.parametrize("report", sorted(REPORTS))
async def test_naive_walk_finds_every_record(report: str, cursor: str) -> None:
    """Following every cursor of every campaign gives exactly what the world says, byte for byte."""
    async with connected(cursor=cursor) as (sandbox, client):
        for campaign_id in sandbox.world.campaign_ids:
            rows = await client.rows(f"{ROOT}/{campaign_id}/tracking/{report}?limit=10")
            assert without_commas(rows) == list(sandbox.world.records(report, campaign_id))


async def test_opens_cost_exactly_the_promised_pages() -> None:
    """The number of requests a harvest takes is the number that was asked for."""
    async with connected() as (sandbox, client):
        for campaign_id in sandbox.world.campaign_ids:
            await client.pages(opens(campaign_id))
        assert sandbox.requests == len(sandbox.log) == 40
        assert sandbox.statuses == {200: 40}


async def test_irregular_pages_lose_nothing() -> None:
    """Long, short and empty pages in the middle of a walk still add up to every record."""
    async with connected(irregular=True, pages=200) as (sandbox, client):
        campaign_id = largest(sandbox.world)
        bodies = await client.pages(opens(campaign_id))
        rows = [row for body in bodies for row in raw_rows(body)]
        assert {len(raw_rows(body)) for body in bodies} >= {0, 9, 10, 11}
        assert without_commas(rows) == list(sandbox.world.records("opens", campaign_id))


@pytest.mark.parametrize("last_page", LAST_PAGES)
async def test_last_page_says_so_in_every_known_way(last_page: str) -> None:
    """Absent, null, empty, no pagination, no meta: none of them names another page."""
    async with connected(last_page=last_page) as (sandbox, client):
        campaign_id = largest(sandbox.world)
        last = orjson.loads((await client.pages(opens(campaign_id)))[-1])
        expected = {
            "absent": {"pagination": {}},
            "null": {"pagination": {"next_link": None}},
            "empty": {"pagination": {"next_link": ""}},
            "no_pagination": {},
            "no_meta": None,
        }[last_page]
        assert last.get("meta") == expected


async def test_next_link_is_spelled_like_the_vendors() -> None:
    """Relative, without a key, the cursor base64url without padding."""
    async with connected() as (sandbox, client):
        campaign_id = largest(sandbox.world)
        status, body = await client.get(opens(campaign_id, "limit=3"))
        assert status == 200
        cursor = encode("startAt=3&limit=3")
        assert next_link(body) == f"{ROOT}/{campaign_id}/tracking/opens?next={cursor}"
        assert body.startswith(b'{"meta":{"pagination":{"next_link":"/v2/')


@pytest.mark.parametrize("cursor", ["offset", "timestamp"])
async def test_created_since_lasts_the_whole_walk(cursor: str) -> None:
    """On or after the moment, on every page, as long as cursors keep it."""
    async with connected(cursor=cursor) as (sandbox, client):
        campaign_id = largest(sandbox.world)
        middle = list(sandbox.world.records("opens", campaign_id))[40]
        since = orjson.loads(middle)["open_date"]
        rows = await client.rows(opens(campaign_id, f"limit=10&created_since={since}"))
        assert without_commas(rows)[40] == middle
        assert all(orjson.loads(row)["open_date"] >= since for row in without_commas(rows))
        view = sandbox.world.view("opens", campaign_id)
        assert len(rows) == len(view.since(view.date_ms(40)))


async def test_created_since_may_be_forgotten() -> None:
    """Cursors that do not keep it go on through the older events, as the recorded ones would."""
    async with connected(cursor_keeps_since=False) as (sandbox, client):
        campaign_id = largest(sandbox.world)
        middle = list(sandbox.world.records("opens", campaign_id))[40]
        since = orjson.loads(middle)["open_date"]
        rows = await client.rows(opens(campaign_id, f"limit=10&created_since={since}"))
        assert len(rows) == sandbox.world.rows("opens", campaign_id)


async def test_arrivals_shift_an_offset_walk() -> None:
    """Events that come in between two pages push known rows onto the next page."""
    async with connected(arrivals=2) as (sandbox, client):
        campaign_id = largest(sandbox.world)
        before = list(sandbox.world.records("opens", campaign_id))
        rows = without_commas(await client.rows(opens(campaign_id)))
        assert rows[10:12] == rows[8:10]
        assert list(dict.fromkeys(rows)) == list(dict.fromkeys(before))


async def test_added_events_are_served() -> None:
    """A second walk finds what happened after the first."""
    async with connected() as (sandbox, client):
        campaign_id = largest(sandbox.world)
        before = await client.rows(opens(campaign_id))
        sandbox.world.add_events("opens", campaign_id, 3)
        assert len(await client.rows(opens(campaign_id))) == len(before) + 3


async def test_gzip_is_for_those_who_accept_it() -> None:
    """The same bytes, compressed if asked for."""
    async with connected() as (sandbox, _):
        target = opens(largest(sandbox.world))
        plain = await raw(sandbox, target)
        packed = await raw(sandbox, target, "Accept-Encoding: gzip, deflate")
    assert b"Content-Encoding" not in plain
    assert b"Content-Encoding: gzip" in packed
    unpacked = zlib.decompress(packed.partition(b"\r\n\r\n")[2], wbits=31)
    assert unpacked == plain.partition(b"\r\n\r\n")[2]


# -- the rest of the family -------------------------------------------------------------------


async def test_campaign_list_is_paged_by_number() -> None:
    """Fifty at most a page, four fields a row, the cursor a page number."""
    async with connected(campaigns=120, pages=120) as (sandbox, client):
        first, *others = await client.pages(f"{ROOT}?status=SENT&limit=50")
        assert next_link(first) == f"{ROOT}?next={encode('pageNum=2&pageSize=50&status=SENT')}"
        rows = [row for body in (first, *others) for row in orjson.loads(body)["results"]]
        assert [row["id"] for row in rows] == list(sandbox.world.campaign_ids)
        assert {tuple(row) for row in rows} == {("id", "name", "status", "modified_date")}


async def test_campaign_list_filters_by_status_and_date() -> None:
    """status and modified_since choose, on every page."""
    async with connected(campaigns=120, pages=120) as (sandbox, client):
        drafts = await client.json(f"{ROOT}?status=DRAFT")
        assert {row["status"] for row in drafts["results"]} == {"DRAFT"}
        since = sandbox.world.brief(sandbox.world.campaign_ids[70])["modified_date"]
        bodies = await client.pages(f"{ROOT}?status=SENT&limit=20&modified_since={since}")
        ids = [row["id"] for body in bodies for row in orjson.loads(body)["results"]]
        assert ids == list(sandbox.world.campaign_ids[:71])


async def test_reordering_list_repeats_and_hides_campaigns() -> None:
    """Campaigns that jump to the head while the list is read make one reading wrong, and then
    rest.
    """
    async with connected(campaigns=120, pages=120, reorder_list=3) as (sandbox, client):
        walks = [await client.pages(f"{ROOT}?status=SENT&limit=20") for _ in range(2)]
        once, again = (
            [row["id"] for body in walk for row in orjson.loads(body)["results"]] for walk in walks
        )
        assert sorted(once) != sorted(sandbox.world.campaign_ids)
        assert sorted(again) == sorted(sandbox.world.campaign_ids)


async def test_summary_and_detail_are_served() -> None:
    """The summary is the world's, fresh if asked for; the detail names the links."""
    async with connected() as (sandbox, client):
        campaign_id = largest(sandbox.world)
        sandbox.world.add_events("unsubscribes", campaign_id, 2)
        path = f"{ROOT}/{campaign_id}/tracking/reports/summary"
        stale = await client.json(path)
        fresh = await client.json(f"{path}?updateSummary=true")
        assert stale == sandbox.world.summary(campaign_id)
        assert fresh["unsubscribes"] == stale["unsubscribes"] + 2
        detail = await client.json(f"{ROOT}/{campaign_id}")
        assert detail["tracking_summary"] == stale
        assert {"url", "url_uid", "click_count"} == set(detail["click_through_details"][0])


async def test_doctored_summary_lies() -> None:
    """One open too many, for the campaigns named."""
    campaign_id = World(SandboxSettings(**SMALL)).campaign_ids[0]
    async with connected(doctored=[campaign_id]) as (sandbox, client):
        lie = await client.json(f"{ROOT}/{campaign_id}/tracking/reports/summary")
        assert lie["opens"] == sandbox.world.summary(campaign_id)["opens"] + 1


async def test_deleted_campaign_has_no_detail() -> None:
    """A deleted campaign's GET is 404, as documented."""
    async with connected() as (sandbox, client):
        (deleted,) = sandbox.world.listing("DELETED")
        status, _ = await client.get(f"{ROOT}/{deleted}")
        assert status == 404


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("created_since=yesterday", "ISO-8601"),
        ("created_since=2026-01-01T00:00:00", "time zone"),
        ("created_since=2026-01-01T00:00:00+00:00", "ISO-8601"),
        ("next=garbled", "next"),
        ("next=c3RhcnRBdD0zJmxpbWl0PTI&limit=2", "by itself"),
        ("next=c3RhcnRBdD0zJmxpbWl0PTI&created_since=2026-01-01T00:00:00Z", "by itself"),
    ],
)
async def test_bad_parameters_are_a_bad_request(query: str, what: str) -> None:
    """400 with the vendor's array; a plus that was not escaped is a space and no time zone."""
    async with connected() as (sandbox, client):
        status, body = await client.get(opens(sandbox.world.campaign_ids[0], query))
        (error,) = orjson.loads(body)
        assert (status, error["error_key"]) == (400, "http.status.bad_request")
        assert what in error["error_message"]


@pytest.mark.parametrize(
    ("headers", "status", "key"),
    [
        ({"Authorization": "Bearer wrong"}, 401, "http.status.authentication.invalid_token"),
        ({"Authorization": ""}, 401, "http.status.authentication.invalid_token"),
        ({"Accept": "text/html"}, 406, "http.status.not_acceptable"),
        ({"Accept": "text/html, */*;q=0.1"}, 200, None),
    ],
)
async def test_headers_are_checked(headers: dict[str, str], status: int, key: str | None) -> None:
    """The token and the Accept header answer as documented."""
    async with connected() as (sandbox, client):
        got, body = await client.get(opens(sandbox.world.campaign_ids[0]), **headers)
        assert got == status
        assert key is None or orjson.loads(body)[0]["error_key"] == key
        assert sandbox.log[0].authorized is (headers.get("Accept") is not None)


@pytest.mark.parametrize("query", ["", "?api_key=wrong", "?limit=5"])
async def test_wrong_key_is_inactive(query: str) -> None:
    """The gateway knows no such key: 403, whatever the token."""
    async with connected() as (sandbox, client):
        path = f"{ROOT}/{sandbox.world.campaign_ids[0]}/tracking/opens{query}"
        async with client.session.get(sandbox.base_url + path) as answer:
            body = await answer.json()
        assert answer.status == 403
        assert body[0]["error_key"] == "mashery.not.authorized.inactive"
        assert sandbox.log[0].api_key is ("api_key" in query)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/",
        f"{ROOT}/123",
        f"{ROOT}/123/tracking/opens",
        f"{ROOT}//tracking/opens",
        f"{ROOT}/1/tracking/naps",
        f"{ROOT}/1/tracking/reports/summary",
        "/v4/emails",
    ],
)
async def test_unknown_paths_are_not_found(path: str) -> None:
    """404 with an array for campaigns and paths that are not there."""
    async with connected() as (_, client):
        status, body = await client.get(path)
        assert status == 404
        assert orjson.loads(body)[0]["error_key"] == "http.status.not_found"


async def test_only_get_is_served() -> None:
    """Nothing can be changed here."""
    async with connected() as (sandbox, client):
        url = f"{sandbox.base_url}{ROOT}?api_key=sandbox-key"
        headers = {"Authorization": "Bearer sandbox-token"}
        async with client.session.post(url, headers=headers) as answer:
            assert answer.status == 405


async def test_too_fast_is_a_403_that_says_so() -> None:
    """v2 answers 403, not 429, and the log knows who was refused."""
    async with connected(rate_limit=2, clock=lambda: 5.0, retry_after="1") as (sandbox, client):
        target = opens(sandbox.world.campaign_ids[0])
        answers = [await client.get(target) for _ in range(3)]
        assert [status for status, _ in answers] == [200, 200, 403]
        assert orjson.loads(answers[2][1])[0]["error_key"] == "mashery.not.authorized.over.qps"
        assert [hit.throttled for hit in sandbox.log] == [False, False, True]


async def test_spent_day_lasts_until_midnight() -> None:
    """After the quota every answer is over.ratelimit, until the injected clock passes 00:00 UTC."""
    wall = 86_400.0
    async with connected(quota=2, wall=lambda: wall) as (sandbox, client):
        target = opens(sandbox.world.campaign_ids[0])
        answers = [await client.get(target) for _ in range(3)]
        key = orjson.loads(answers[2][1])[0]["error_key"]
        assert (answers[2][0], key) == (403, "mashery.not.authorized.over.ratelimit")
        wall += 86_400
        assert (await client.get(target))[0] == 200


# -- faults on the wire -----------------------------------------------------------------------


def broken(kind: str, **settings: Any) -> Any:
    """A sandbox whose every first attempt is hit by `kind`."""
    return connected(pinned={(None, None): [kind]}, **settings)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("error500", 500), ("error503", 503), ("throttle429", 429), ("auth", 401), ("redirect", 302)],
)
async def test_fault_is_answered_once_and_heals(kind: str, status: int) -> None:
    """The pinned attempt fails as it was told, the next one is well; the log names the fault."""
    async with broken(kind) as (sandbox, client):
        target = opens(sandbox.world.campaign_ids[0])
        assert [(await client.get(target))[0] for _ in range(2)] == [status, 200]
        assert [(hit.fault, hit.status) for hit in sandbox.log] == [(kind, status), (None, 200)]


async def test_reset_ends_the_connection() -> None:
    """No byte of an answer, but a RST."""
    async with broken("reset") as (sandbox, _):
        with pytest.raises(ConnectionResetError):
            await raw(sandbox, opens(sandbox.world.campaign_ids[0]))
        assert sandbox.log[0].status == 0


@pytest.mark.parametrize("kind", ["cut", "cut_gzip"])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_cut_body_is_half_of_a_good_one(kind: str, encoding: str) -> None:
    """`cut` promises the whole length; `cut_gzip` frames its half rightly, so only the content
    tells.
    """
    async with broken(kind, rows_per_page=40) as (sandbox, _):
        target = opens(largest(sandbox.world), "limit=40")
        answers = [await raw(sandbox, target, f"Accept-Encoding: {encoding}") for _ in range(2)]
    (head, half), (_, whole) = (answer.split(b"\r\n\r\n", 1) for answer in answers)
    assert half == whole[: len(whole) // 2]
    promised = whole if kind == "cut" else half
    assert f"Content-Length: {len(promised)}\r\n".encode() in head + b"\r\n"
    assert (b"Content-Encoding: gzip" in head) is (encoding == "gzip")


async def test_slow_answer_is_complete() -> None:
    """A drip brings the whole page in the end, in many pieces."""
    async with broken("slow", slow_seconds=0.02) as (sandbox, client):
        target = opens(largest(sandbox.world))
        assert await client.get(target) == await client.get(target)
        assert sandbox.log[0].fault == "slow"


async def test_stalled_answer_is_complete() -> None:
    """Silence first, then a good page."""
    async with broken("stall", stall_seconds=0.01) as (sandbox, client):
        target = opens(largest(sandbox.world))
        assert await client.get(target) == await client.get(target)


async def test_timeout_never_answers() -> None:
    """The client gives up; the sandbox closes nevertheless, and without a word."""
    async with broken("timeout") as (sandbox, client):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.get(opens(sandbox.world.campaign_ids[0])), 0.05)
        assert sandbox.log[0].status == 0


@pytest.mark.parametrize("kind", ["html", "empty", "wrong_shape"])
async def test_unreadable_page_has_status_200(kind: str) -> None:
    """What is no page comes with a good status."""
    async with broken(kind) as (sandbox, client):
        status, body = await client.get(opens(largest(sandbox.world)))
        assert status == 200
        assert not body.startswith(b'{"meta":{"pagination":{"next_link":"/')


@pytest.mark.parametrize(("page", "start"), [(1, 0), (3, 20)])
async def test_loop_links_to_the_very_page(page: int, start: int) -> None:
    """The rows are good, the next link leads back to where they came from."""
    async with connected(pinned={(None, page): ["loop"]}) as (sandbox, client):
        campaign_id = largest(sandbox.world)
        cursor = encode(f"startAt={start}&limit=10")
        query = f"next={cursor}" if page > 1 else "limit=10"
        _, looped = await client.get(opens(campaign_id, query))
        _, good = await client.get(opens(campaign_id, query))
        assert next_link(looped) == f"{ROOT}/{campaign_id}/tracking/opens?next={cursor}"
        assert raw_rows(looped) == raw_rows(good)


async def test_foreign_link_names_another_origin() -> None:
    """Where it leads is a setting, so that a test can listen there."""
    async with broken("foreign_link", foreign_origin="http://127.0.0.2:9") as (sandbox, client):
        _, body = await client.get(opens(largest(sandbox.world)))
        assert next_link(body).startswith("http://127.0.0.2:9/v2/emailmarketing/")


async def test_dropped_cursor_is_refused() -> None:
    """The first page is well, a later one is gone once."""
    pinned = {(None, 2): ["cursor_dropped"]}
    async with connected(pinned=pinned, dropped_status=410) as (sandbox, client):
        campaign_id = largest(sandbox.world)
        link = next_link((await client.get(opens(campaign_id)))[1])
        assert [(await client.get(link))[0] for _ in range(2)] == [410, 200]


async def test_storm_of_faults_heals_to_every_record() -> None:
    """With a fault on most requests, a client that tries again still finds what there is."""
    rates = {"error500": 0.2, "reset": 0.2, "cut": 0.1, "html": 0.1, "throttle": 0.1, "empty": 0.1}
    async with connected(faults=rates, heal_after=3) as (sandbox, client):
        for campaign_id in sandbox.world.campaign_ids:
            rows, target = [], opens(campaign_id)
            while target:
                try:
                    status, body = await client.get(target)
                except aiohttp.ClientError:
                    continue
                if status == 200 and body.startswith(b'{"meta"'):
                    rows += raw_rows(body)
                    target = next_link(body)
            assert without_commas(rows) == list(sandbox.world.records("opens", campaign_id))
        assert {hit.fault for hit in sandbox.log} == {*rates, None}


# -- the log and the life ---------------------------------------------------------------------


async def test_log_tells_what_arrived(tmp_path: Path) -> None:
    """Each hit in order, the cursor as received, no secret; the file says the same."""
    path = tmp_path / "requests.ndjson"
    async with connected(request_log=path, clock=lambda: 7.5, wall=lambda: 9.0) as (
        sandbox,
        client,
    ):
        campaign_id = largest(sandbox.world)
        await client.pages(opens(campaign_id))
        first, second, *_ = sandbox.log
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert (first.at, first.wall, first.method, first.page, first.cursor) == (
        7.5,
        9.0,
        "GET",
        1,
        None,
    )
    assert (first.report, first.campaign_id, first.query) == ("opens", campaign_id, "limit=10")
    assert (second.page, second.cursor) == (2, encode("startAt=10&limit=10"))
    assert len(lines) == sandbox.requests
    assert lines[1]["cursor"] == second.cursor
    assert b"sandbox-" not in path.read_bytes()


async def test_log_can_be_left_out() -> None:
    """A run of millions keeps counts only."""
    async with connected(keep_log=False) as (sandbox, client):
        await client.get(opens(sandbox.world.campaign_ids[0]))
        assert sandbox.log == []
        assert sandbox.requests == 1


async def test_cursor_is_logged_as_it_came() -> None:
    """Not decoded, not unescaped: a test can see that the very bytes came back."""
    async with connected() as (sandbox, _):
        await raw(sandbox, opens(sandbox.world.campaign_ids[0], "next=%2F+a%26b"))
        assert sandbox.log[0].cursor == "%2F+a%26b"
        assert sandbox.log[0].page == 0


async def test_latency_and_jitter_delay_but_do_not_change() -> None:
    """With both set, the answers are the same."""
    async with connected(latency=0.001, jitter=0.002) as (sandbox, client):
        campaign_id = largest(sandbox.world)
        rows = without_commas(await client.rows(opens(campaign_id)))
        assert rows == list(sandbox.world.records("opens", campaign_id))


async def test_leaving_client_raises_nothing() -> None:
    """A client that hangs up in the middle of an answer leaves no traceback behind."""
    async with broken("slow", slow_seconds=5.0) as (sandbox, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(sandbox))
        target = f"{opens(largest(sandbox.world))}&api_key=sandbox-key"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
        writer.transport.abort()


async def test_port_in_use_is_an_error() -> None:
    """Two sandboxes cannot share a port; the second says so and leaves nothing open."""
    async with connected() as (sandbox, _):
        with pytest.raises(OSError, match="address already in use"):
            async with Sandbox(port=port_of(sandbox)):
                pytest.fail("opened a port that was taken")


async def test_serve_runs_until_cancelled() -> None:
    """`ready` gets the open sandbox; cancelling closes it."""
    ready: asyncio.Queue[Sandbox] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(SandboxSettings(), port=0, ready=ready.put_nowait))
        sandbox = await ready.get()
        async with aiohttp.ClientSession() as session:
            async with session.get(sandbox.base_url) as answer:
                assert answer.status == 403
            task.cancel()
    with pytest.raises(OSError, match="Connect"):
        await raw(sandbox, "/?")
