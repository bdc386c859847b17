"""Whole harvests of reports that receive events while they are walked."""

from pathlib import Path
from typing import Any

import pytest

from harvester import HarvestConfig, harvest
from harvester.disk.inspect import verify
from harvester.disk.layout import Layout
from harvester.sandbox import Sandbox, SandboxSettings


def config(home: Path, sandbox: Sandbox, **more: Any) -> HarvestConfig:
    """Settings for this sandbox."""
    secrets = {"access_token": "sandbox-token", "client_id": "sandbox-key"}
    if more.get("api") == "v2":
        secrets = {"access_token": "sandbox-token", "api_key": "sandbox-key"}
    where = {"output": home / "out", "state_dir": home / "state", "base_url": sandbox.base_url}
    return HarvestConfig(**{**where, **secrets, "rate": 0, "page_size": 20, "api": "v3", **more})


def ids_of(sandbox: Sandbox, api: str) -> list[str]:
    """The sent campaigns of a version."""
    return list(sandbox.world.campaign_ids if api == "v2" else sandbox.world.v3_campaign_ids)


def activities(data: bytes) -> dict[bytes, list[bytes]]:
    """The rows of a file by activity."""
    found: dict[bytes, list[bytes]] = {}
    for line in data.splitlines():
        mark = line.find(b'"campaign_activity_id":')
        found.setdefault(line[mark : mark + 62] if mark >= 0 else b"", []).append(line)
    return found


def is_of_one_moment(found: bytes, now: list[bytes], arrived: int) -> bool:
    """Whether a file is, activity by activity, what the report was at one moment: all it is now
    without some of the newest rows. Twins share their bytes, so any moment may be it."""
    there = activities(found)
    for activity, rows in activities(b"\n".join(now)).items():
        mine = there.get(activity, [])
        if mine != rows[len(rows) - len(mine) :] or len(rows) - len(mine) > arrived:
            return False
    return True


@pytest.mark.parametrize("api", ["v2", "v3"])
@pytest.mark.parametrize("cursor", ["offset", "timestamp"])
@pytest.mark.parametrize(("arrivals", "concurrency"), [(0, 8), (1, 1), (3, 8), (7, 16)])
async def test_twenty_campaigns_that_move_are_read_each_event_once(
    tmp_path: Path, api: str, cursor: Any, arrivals: int, concurrency: int
) -> None:
    """No row is there twice, and none is lost, at any number of requests in flight."""
    world = SandboxSettings(
        campaigns=20, pages=150, rows_per_page=20, resends=5, arrivals=arrivals, cursor=cursor
    )
    async with Sandbox(world) as sandbox:
        ids = ids_of(sandbox, api)
        settings = config(tmp_path, sandbox, api=api, concurrency=concurrency)
        report = await harvest(ids, settings)
        assert (report.exit_code, report.reason) == (0, "complete")
        for each in ids:
            found = (tmp_path / "out/opens" / f"{each}.ndjson").read_bytes()
            now = list(sandbox.world.records("opens", each))
            assert is_of_one_moment(found, now, arrivals * report.requests.sent), each
        assert list(verify(Layout(tmp_path / "out"))) == []
