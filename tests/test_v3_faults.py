"""v3 when things go wrong: its bad answers, its limits, and two accounts of one app."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from shell import assert_harvested

from harvester import HarvestConfig, HarvestReport, harvest
from harvester import client as stack
from harvester.disk.token_store import Account, TokenStore
from harvester.request.retry_policy import RetryPolicy
from harvester.sandbox import Sandbox, SandboxSettings, SignInSettings

ROWS = 5
SMALL: dict[str, Any] = {
    "seed": 6,  # with a resend of nine pages
    "campaigns": 4,
    "resends": 2,
    "pages": 14,
    "rows_per_page": ROWS,
}
SCOPE = "campaign_data offline_access"
PASSING = (
    *("throttle", "throttle429", "error500", "error503", "html", "empty", "wrong_shape", "twice"),
    *("error_in_200", "reset", "lost", "cut", "cut_gzip", "auth"),
)
"""Faults that a second try heals."""
LASTING = {
    **dict.fromkeys(("html", "empty", "wrong_shape", "twice", "error_in_200"), "unreadable"),
    "cut": "cut",
    "error500": "server_error",
    "error404": "cursor_dropped",
    "error422": "rejected",
    "redirect": "redirected",
    "foreign_link": "foreign_link",
    "loop": "looping_cursor",
    "forbidden": "forbidden",
    "auth": "unauthorized",
}
"""Faults that stay, and what the campaign fails with."""


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "RetryPolicy", partial(RetryPolicy, first=0.001, refused=0.001))


def config(sandbox: Sandbox, home: Path, **more: Any) -> HarvestConfig:
    given: dict[str, Any] = {
        "output": home / "out",
        "state_dir": home / "state",
        "api": "v3",
        "base_url": sandbox.base_url,
        "auth_url": sandbox.base_url,
        "client_id": sandbox.settings.client_id,
        "access_token": sandbox.settings.access_token,
        "page_size": ROWS,
        "rate": 0,
        "counts": False,
    }
    return HarvestConfig(**given | more)


def longest(sandbox: Sandbox) -> tuple[str, str]:
    """The campaign with the longest resend, and that activity."""
    world = sandbox.world
    resends = [
        (world.pages("opens", activity, ROWS), campaign, activity)
        for campaign in world.v3_campaign_ids
        for activity, role in world.activities(campaign)
        if role == "resend"
    ]
    _, campaign, activity = max(resends)
    return campaign, activity


# -- bad answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PASSING)
async def test_what_passes_leaves_no_trace_in_a_file(tmp_path: Path, kind: str) -> None:
    """The first page of a resend fails once: it is asked again, and every file is right."""
    _, activity = longest(Sandbox(SandboxSettings(**SMALL)))
    settings = SandboxSettings(**SMALL, pinned={(activity, 1): [kind]})
    async with Sandbox(settings) as sandbox:
        report = await harvest(sandbox.world.v3_campaign_ids, config(sandbox, tmp_path))
        assert report.exit_code == 0
        assert report.requests.retried == 1
    assert_harvested(tmp_path / "out", sandbox, sandbox.world.v3_campaign_ids)


@pytest.mark.parametrize("kind", LASTING)
async def test_what_stays_fails_its_campaign_and_no_other(tmp_path: Path, kind: str) -> None:
    """The second page of a resend is bad for good: no file of that name, the reason in the error
    report, all others right."""
    campaign, activity = longest(Sandbox(SandboxSettings(**SMALL)))
    settings = SandboxSettings(**SMALL, pinned={(activity, 2): kind})
    async with Sandbox(settings) as sandbox:
        ids = sandbox.world.v3_campaign_ids
        report = await harvest(ids, config(sandbox, tmp_path, retries=1))
        assert (report.exit_code, report.campaigns.failed) == (3, 1)
        (line,) = (tmp_path / "out" / "errors.ndjson").read_bytes().splitlines()
        error = json.loads(line)
        assert (error["campaign_id"], error["kind"]) == (campaign, LASTING[kind])
        part = tmp_path / "out" / "opens" / f"{campaign}.ndjson.part"
        part.unlink(missing_ok=True)
        assert_harvested(tmp_path / "out", sandbox, [each for each in ids if each != campaign])


@pytest.mark.parametrize("status", [400, 404, 410])
async def test_a_cursor_that_dies_in_a_resend_starts_the_walk_again(
    tmp_path: Path, status: int
) -> None:
    """From the campaign on: the email's rows stand in the file once."""
    _, activity = longest(Sandbox(SandboxSettings(**SMALL)))
    settings = SandboxSettings(
        **SMALL, pinned={(activity, 2): ["cursor_dropped"]}, dropped_status=status
    )
    async with Sandbox(settings) as sandbox:
        ids = sandbox.world.v3_campaign_ids
        assert (await harvest(ids, config(sandbox, tmp_path))).exit_code == 0
    assert_harvested(tmp_path / "out", sandbox, ids)


@pytest.mark.parametrize("kind", ["html", "error500", "wrong_shape", "auth", "reset"])
async def test_a_campaigns_own_answer_may_be_bad_too(tmp_path: Path, kind: str) -> None:
    """It is asked again like a page."""
    campaign, _ = longest(Sandbox(SandboxSettings(**SMALL)))
    settings = SandboxSettings(**SMALL, pinned={(campaign, 1): [kind]})
    async with Sandbox(settings) as sandbox:
        ids = sandbox.world.v3_campaign_ids
        report = await harvest(ids, config(sandbox, tmp_path))
        assert report.exit_code == 0
        assert report.requests.retried >= 1
    assert_harvested(tmp_path / "out", sandbox, ids)


# -- two accounts of one app ---------------------------------------------------------------------


@pytest.fixture
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """A server with the limits of the test's parameter."""
    settings = {"campaigns": 6, "pages": 40, "rows_per_page": ROWS, **request.param}
    async with Sandbox(SandboxSettings(**settings, sign_in=SignInSettings(rate_limit=0))) as found:
        yield found


def signed_in(sandbox: Sandbox, home: Path, name: str) -> None:
    """Store an account as `login` does, without its waits."""
    app, wall = sandbox.settings.client_id, sandbox.settings.wall()
    sign_in = sandbox.sign_in
    code = json.loads(sign_in.authorize({"client_id": app, "scope": SCOPE}, "", wall).body)[
        "device_code"
    ]
    form = {
        "client_id": app,
        "device_code": code,
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
    }
    tokens = json.loads(sign_in.token(form, wall).body)
    with TokenStore(home / "state", name).room() as room:
        room.save(
            Account(
                name=name,
                client_id=app,
                base_url=sandbox.base_url,
                auth_url=sandbox.base_url,
                scope=SCOPE,
                access_token=tokens["access_token"],
                refresh_token=tokens["refresh_token"],
                signed_in_at=wall,
                received_at=wall,
                expires_at=wall + tokens["expires_in"],
            )
        )


async def two_at_once(sandbox: Sandbox, home: Path, **more: Any) -> list[HarvestReport]:
    """A harvest by each of two accounts, each into a folder of its own."""
    names = ("one", "two")
    for name in names:
        signed_in(sandbox, home, name)
    runs = [
        harvest(
            sandbox.world.v3_campaign_ids,
            config(
                sandbox, home, access_token=None, client_id=None, output=home / name, account=name,
                **more,
            ),
        )
        for name in names
    ]  # fmt: skip
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run) for run in runs]
    return [task.result() for task in tasks]


@pytest.mark.parametrize("shared", [{}], indirect=True)
async def test_accounts_of_one_app_share_its_day(shared: Sandbox, tmp_path: Path) -> None:
    """Together they send what the day allows, to the last request, and both stop."""
    reports = await two_at_once(shared, tmp_path, daily_quota=30)
    assert [(report.exit_code, report.reason) for report in reports] == [(75, "quota_spent")] * 2
    assert shared.requests == 30


@pytest.mark.parametrize("shared", [{"rate_limit": 40}], indirect=True)
async def test_accounts_of_one_app_share_its_pace(shared: Sandbox, tmp_path: Path) -> None:
    """Two at once are never faster than the app may be."""
    reports = await two_at_once(shared, tmp_path, rate=33.0)
    assert [report.exit_code for report in reports] == [0, 0]
    for name in ("one", "two"):
        assert_harvested(tmp_path / name, shared, shared.world.v3_campaign_ids)
    assert not any(hit.throttled for hit in shared.log)
