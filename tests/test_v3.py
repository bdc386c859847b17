"""A whole harvest of version 3: campaigns, their activities, one file for each campaign."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fakes import CAMPAIGN_V3

from harvester import ConfigError, HarvestConfig, harvest, walk
from harvester.client import campaigns

TWICE, ONCE, EMPTY, DRAFT = (CAMPAIGN_V3.replace("1d3a", f"{n:04d}") for n in range(4))
GONE = CAMPAIGN_V3
EMAIL, RESEND, OTHER, NONE = (f"0000000{n}-0000-4000-8000-0123456789ab" for n in range(1, 5))
ACTIVITIES = {
    TWICE: [(EMAIL, "primary_email"), ("not-asked-for", "permalink"), (RESEND, "resend")],
    ONCE: [(OTHER, "primary_email")],
    EMPTY: [(NONE, "primary_email")],
    DRAFT: [],
}
ROWS = {EMAIL: 7, RESEND: 4, OTHER: 2, NONE: 0}
STATUS = {TWICE: "Done", ONCE: "DONE", EMPTY: "Done", DRAFT: "Draft"}


class Vendor:
    """An account of v3, two campaigns a page of its list; `refusals` go before all answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refusals: list[tuple[int, Any]] = []
        self.url = ""
        self.gone: set[str] = set()

    def routes(self) -> web.Application:
        """Where what is."""
        app = web.Application()
        app.router.add_get("/v3/emails", self.list)
        app.router.add_get("/v3/emails/{id}", self.campaign)
        report = "/v3/reports/email_reports/{activity}/tracking/{report}"
        app.router.add_get(report, self.report)
        app.router.add_get("/v3/reports/email_reports/{activity}/links", self.links)
        return app

    def _refusal(self, request: web.Request) -> web.Response | None:
        self.asked.append(request.path_qs)
        assert request.headers["Authorization"] == "Bearer token"
        if not self.refusals:
            return None
        status, body = self.refusals.pop(0)
        return web.json_response(body, status=status)

    async def list(self, request: web.Request) -> web.Response:
        """Every campaign, whatever its state."""
        if refusal := self._refusal(request):
            return refusal
        start = int(request.query.get("cursor", 0))
        each = [{"campaign_id": i, "current_status": s, "name": "x"} for i, s in STATUS.items()]
        links = {"_links": {"next": {"href": f"/v3/emails?cursor={start + 2}"}}}
        more = links if start + 2 < len(each) else {}
        return web.json_response({"campaigns": each[start : start + 2], **more})

    async def campaign(self, request: web.Request) -> web.Response:
        """One campaign with its activities."""
        if refusal := self._refusal(request):
            return refusal
        asked = request.match_info["id"]
        if asked not in ACTIVITIES:
            return web.json_response([{"error_key": "not_found"}], status=404)
        found = [{"campaign_activity_id": a, "role": role} for a, role in ACTIVITIES[asked]]
        return web.json_response(
            {
                "campaign_id": asked,
                "current_status": STATUS[asked],
                "campaign_activities": found,
            }
        )

    async def report(self, request: web.Request) -> web.Response:
        """A page of the opens of one activity."""
        if refusal := self._refusal(request):
            return refusal
        activity = request.match_info["activity"]
        if activity in self.gone:
            return web.json_response([{"error_key": "not_found"}], status=404)
        start, limit = (
            map(int, request.query["next"].split("-"))
            if "next" in request.query
            else (0, int(request.query["limit"]))
        )
        end = min(start + limit, ROWS[activity])
        rows = [row(activity, n) for n in range(start, end)]
        href = f"{request.path}?next={end}-{limit}" if end < ROWS[activity] else None
        links = {"_links": {"next": {"href": href}}}
        return web.json_response({"tracking_activities": rows, **links})

    async def links(self, request: web.Request) -> web.Response:
        """The one link of an activity, which is named by it."""
        link = {"link_url": request.match_info["activity"]}
        return web.json_response({"link_click_counts": [link]})


def row(activity: str, number: int) -> dict[str, Any]:
    """One open."""
    return {
        "contact_id": f"{number}",
        "campaign_activity_id": activity,
        "tracking_activity_type": "em_opens",
        "created_time": f"2026-01-31T00:{59 - number:02d}:00.000Z",
        "device_type": "mobile",
    }


def content(*activities: str) -> bytes:
    """The file of a campaign with these activities."""
    rows = (row(activity, n) for activity in activities for n in range(ROWS[activity]))
    return b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in rows)


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    """The account, on a port of this machine."""
    vendor = Vendor()
    runner = web.AppRunner(vendor.routes())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (address,) = runner.addresses
    vendor.url = f"http://127.0.0.1:{address[1]}"
    yield vendor
    await runner.cleanup()


def config(vendor: Vendor, home: Path, **more: Any) -> HarvestConfig:
    """A harvest of v3 in pages of three."""
    settings = {"rate": 0, "page_size": 3, "retries": 1, "output": home / "out"} | more
    return HarvestConfig(
        api="v3",
        base_url=vendor.url,
        state_dir=home / "state",
        api_key="canary",
        access_token="token",
        **settings,
    )


def assert_whole(home: Path) -> None:
    """Every file has what the API has."""
    found = {path.name: path.read_bytes() for path in (home / "out" / "opens").iterdir()}
    assert found == {
        f"{TWICE}.ndjson": content(EMAIL, RESEND),
        f"{ONCE}.ndjson": content(OTHER),
        f"{EMPTY}.ndjson": b"",
    }


async def test_a_campaign_is_all_its_activities(vendor: Vendor, tmp_path: Path) -> None:
    """One after the other in one file; the key stands in no request; a missing one fails alone."""
    report = await harvest([TWICE.upper(), ONCE, EMPTY, DRAFT, GONE], config(vendor, tmp_path))
    assert (report.exit_code, report.campaigns.complete, report.campaigns.failed) == (3, 3, 2)
    assert_whole(tmp_path)
    of_the_first = [asked for asked in vendor.asked if TWICE in asked or EMAIL in asked]
    where = f"/v3/reports/email_reports/{EMAIL}/tracking/opens"
    assert of_the_first == [
        f"/v3/emails/{TWICE}", f"{where}?limit=3", f"{where}?next=3-3", f"{where}?next=6-3",
    ]  # fmt: skip
    assert not [asked for asked in vendor.asked if "canary" in asked or "api_key" in asked]
    errors = map(json.loads, (tmp_path / "out" / "errors.ndjson").read_bytes().splitlines())
    kinds = {error["campaign_id"]: error["kind"] for error in errors}
    assert kinds == {DRAFT: "not_sent", GONE: "not_found"}


async def test_a_campaign_is_harvested_by_the_run_after_it_was_sent(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it has no file, whether it has activities or not."""
    monkeypatch.setitem(STATUS, ONCE, "Scheduled")
    report = await harvest([ONCE, DRAFT], config(vendor, tmp_path))
    assert report.campaigns.failed == 2
    assert not list((tmp_path / "out" / "opens").iterdir())
    monkeypatch.setitem(STATUS, ONCE, "DONE")
    report = await harvest([ONCE, DRAFT], config(vendor, tmp_path))
    assert (report.campaigns.complete, report.campaigns.failed) == (1, 1)
    assert (tmp_path / "out" / "opens" / f"{ONCE}.ndjson").read_bytes() == content(OTHER)


async def test_an_activity_without_a_report_is_not_found(vendor: Vendor, tmp_path: Path) -> None:
    """The 404 of its first page is no dropped cursor: the walk is made once."""
    vendor.gone = {RESEND}
    report = await harvest([TWICE], config(vendor, tmp_path))
    assert report.exit_code == 3
    (error,) = (tmp_path / "out" / "errors.ndjson").read_bytes().splitlines()
    assert json.loads(error)["kind"] == "not_found"
    assert len(vendor.asked) == len(set(vendor.asked)) == 5


async def test_links_and_the_reports_that_follow_from_others(
    vendor: Vendor, tmp_path: Path
) -> None:
    """By name; `all` leaves them out."""
    wanted = config(vendor, tmp_path, report="unique_opens", links=True)
    report = await harvest([TWICE], wanted)
    assert report.exit_code == 0
    links = (tmp_path / "out" / "links" / f"{TWICE}.ndjson").read_bytes()
    assert [json.loads(line) for line in links.splitlines()] == [
        {"link_url": each, "campaign_id": TWICE, "campaign_activity_id": each}
        for each in (EMAIL, RESEND)
    ]
    unique = tmp_path / "out" / "unique_opens" / f"{TWICE}.ndjson"
    assert unique.read_bytes() == content(EMAIL, RESEND)
    assert "unique_opens" not in config(vendor, tmp_path, report="all").reports


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_a_run_that_is_cut_off_goes_on_where_it_was(
    vendor: Vendor, tmp_path: Path, step: int
) -> None:
    """Within an activity, between two of them, after the campaign: never a row twice or none."""
    sent = [TWICE, ONCE, EMPTY]
    for _ in range(20):
        report = await harvest(sent, config(vendor, tmp_path, max_requests=step))
        if report.exit_code == 0:
            break
    assert_whole(tmp_path)
    assert len(vendor.asked) == len(set(vendor.asked)) == 10


@pytest.mark.parametrize(
    ("status", "key", "code"),
    [(429, "throttled", 0), (429, "quota_exceeded", 75), (403, "forbidden", 4)],
)
async def test_limits_are_told_by_a_bare_object(
    vendor: Vendor, tmp_path: Path, status: int, key: str, code: int
) -> None:
    """Too fast is waited for, a spent day ends the run, a missing privilege stops it."""
    vendor.refusals = [(status, {"error_key": key, "error_message": "x"})]
    report = await harvest([ONCE], config(vendor, tmp_path))
    assert report.exit_code == code


async def test_a_walk_without_files(vendor: Vendor, tmp_path: Path) -> None:
    """The first page is the campaign itself, and has no rows."""
    pages = [page async for page in walk(TWICE, config(vendor, tmp_path))]
    assert [page.rows for page in pages] == [0, 3, 3, 1, 3, 1]


async def test_the_list_is_sifted_by_status(vendor: Vendor, tmp_path: Path) -> None:
    """v3 cannot be asked for sent campaigns only."""
    sent = [each async for each, _ in campaigns(config(vendor, tmp_path))]
    assert sent == [TWICE, ONCE, EMPTY]
    every = [each async for each, _ in campaigns(config(vendor, tmp_path), status="ALL")]
    assert every == list(STATUS)
    assert not [each async for each, _ in campaigns(config(vendor, tmp_path), status="ERROR")]


async def test_an_id_of_v2_is_refused(vendor: Vendor, tmp_path: Path) -> None:
    """And nothing is sent."""
    with pytest.raises(ConfigError, match="UUIDs"):
        await harvest(["1100394165287"], config(vendor, tmp_path))
    assert not vendor.asked
