"""A page that comes again under a new cursor, once or for ever."""

from pathlib import Path
from typing import Any

import pytest

from harvester import HarvestConfig, harvest
from harvester.sandbox import Sandbox, SandboxSettings


def config(home: Path, sandbox: Sandbox, api: str, **more: Any) -> HarvestConfig:
    """Settings for this sandbox."""
    return HarvestConfig(
        **{
            "output": home / "out",
            "state_dir": home / "state",
            "base_url": sandbox.base_url,
            "access_token": "sandbox-token",
            "api": api,
            "api_key" if api == "v2" else "client_id": "sandbox-key",
            "rate": 0,
            "counts": False,
            **more,
        }
    )


def repeating(cursor: Any, page: int, kinds: Any, size: int = 7) -> Sandbox:
    """One campaign of four pages, of which one comes again."""
    pinned = {("opens", page): kinds}
    return Sandbox(
        SandboxSettings(
            campaigns=1, pages=4, rows_per_page=size, unsent=0, cursor=cursor, pinned=pinned
        )
    )


def assert_whole(home: Path, sandbox: Sandbox, campaign: str) -> None:
    """Its file has what the API has."""
    found = (home / f"out/opens/{campaign}.ndjson").read_bytes().splitlines()
    assert found == list(sandbox.world.records("opens", campaign))


@pytest.mark.parametrize("api", ["v2", "v3"])
@pytest.mark.parametrize("cursor", ["offset", "timestamp"])
@pytest.mark.parametrize("page", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 7])
async def test_a_page_that_comes_again_once_is_there_once(
    tmp_path: Path, api: str, cursor: Any, page: int, size: int
) -> None:
    """Whatever page it is, also the last one, and also one of a single row."""
    async with repeating(cursor, page, ("endless_same",), size) as sandbox:
        account = sandbox.world
        (campaign,) = account.campaign_ids if api == "v2" else account.v3_campaign_ids
        report = await harvest([campaign], config(tmp_path, sandbox, api, page_size=size))
        assert report.exit_code == 0
        assert_whole(tmp_path, sandbox, campaign)


@pytest.mark.parametrize("cursor", ["offset", "timestamp"])
async def test_a_run_that_was_stopped_knows_the_page_that_it_had(
    tmp_path: Path, cursor: Any
) -> None:
    """The page comes again in the next run."""
    async with repeating(cursor, 2, ("endless_same",)) as sandbox:
        (campaign,) = sandbox.world.v3_campaign_ids
        settings = {"page_size": 7, "concurrency": 1}
        stopped = config(tmp_path, sandbox, "v3", max_requests=3, **settings)
        assert (await harvest([campaign], stopped)).reason == "max_requests"
        assert [hit.fault for hit in sandbox.log] == [None, None, "endless_same"]
        report = await harvest([campaign], config(tmp_path, sandbox, "v3", **settings))
        assert report.exit_code == 0
        assert_whole(tmp_path, sandbox, campaign)


@pytest.mark.parametrize("cursor", ["offset", "timestamp"])
async def test_a_page_that_comes_again_for_ever_fails_the_campaign(
    tmp_path: Path, cursor: Any
) -> None:
    """Each time under a cursor that the page really has."""
    async with repeating(cursor, 2, "endless_same") as sandbox:
        (campaign,) = sandbox.world.v3_campaign_ids
        report = await harvest([campaign], config(tmp_path, sandbox, "v3", page_size=7))
        assert report.exit_code == 3
        assert b'"endless_cursor"' in (tmp_path / "out/errors.ndjson").read_bytes()
