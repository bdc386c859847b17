"""Whole harvests of reports that receive events while they are walked."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from harvester import HarvestConfig, harvest
from harvester.disk.compress import CODECS
from harvester.disk.inspect import verify
from harvester.disk.layout import Layout
from harvester.events import Event, PageCommitted
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


def manifest(home: Path) -> list[dict[str, Any]]:
    """The lines of the manifest."""
    lines = (home / "out/manifest.ndjson").read_bytes().splitlines()
    return [json.loads(line) for line in lines]


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


# -- coming back to v3 -------------------------------------------------------------------------


def file_of(home: Path, report: str, campaign_id: str) -> bytes:
    """A finished file."""
    return (home / "out" / report / f"{campaign_id}.ndjson").read_bytes()


def world_of(sandbox: Sandbox, report: str, campaign_id: str, **since: int) -> bytes:
    """What it holds if it is harvested now."""
    found = sandbox.world.records(report, campaign_id, **since)
    return b"".join(row + b"\n" for row in found)


async def test_a_top_up_of_v3_reads_down_to_what_is_stored(tmp_path: Path) -> None:
    """Files that moved by 1 to 70 rows, and a resend made since, end equal to a harvest made now;
    no page below the mark is asked for, and what did not move is left alone."""
    world = SandboxSettings(campaigns=12, pages=90, rows_per_page=20, resends=4, unsent=0)
    async with Sandbox(world) as sandbox:
        ids = ids_of(sandbox, "v3")
        asked = {"report": "opens,clicks", "counts": False}
        await harvest(ids, config(tmp_path, sandbox, **asked))
        for each, count in zip(ids, (1, 19, 20, 21, 70), strict=False):
            sandbox.world.add_events("opens", each, count)
        sandbox.world.resend(ids[6])
        before = sandbox.requests
        report = await harvest(ids, config(tmp_path, sandbox, since="last", **asked))
        assert report.exit_code == 0
        for name in ("opens", "clicks"):
            for each in ids:
                assert file_of(tmp_path, name, each) == world_of(sandbox, name, each), each
        least = 2 * (len(ids) + sum(len(sandbox.world.activities(each)) for each in ids))
        assert sandbox.requests - before <= least + 12
        assert list(verify(Layout(tmp_path / "out"))) == []


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
async def test_a_top_up_that_moves_is_finished_by_the_next(tmp_path: Path, compress: str) -> None:
    """Events arrive while the top-up walks: nothing is there twice, and a last one at rest brings
    the rest."""
    world = SandboxSettings(campaigns=4, pages=40, rows_per_page=20, resends=2, unsent=0)
    async with Sandbox(world) as sandbox:
        ids = ids_of(sandbox, "v3")
        first = config(tmp_path, sandbox, compress=compress)
        await harvest(ids, first)

        def observe(event: Event) -> None:
            if isinstance(event, PageCommitted) and not event.last and event.rows:
                sandbox.world.add_events("opens", event.target.campaign_id, 3)

        again = config(tmp_path, sandbox, compress=compress, since="last")
        for each in ids:
            sandbox.world.add_events("opens", each, 45)
        assert (await harvest(ids, again, observe=observe)).exit_code == 0
        assert (await harvest(ids, again)).exit_code == 0
        codec = CODECS[compress]
        for each in ids:
            with codec.open(tmp_path / "out/opens" / f"{each}.ndjson{codec.suffix}") as lines:
                assert lines.read() == world_of(sandbox, "opens", each)


async def test_a_deleted_contact_leaves_its_stored_rows_as_they_were(tmp_path: Path) -> None:
    """Its rows have other bytes now, also that at the mark: it is known all the same."""
    async with Sandbox(SandboxSettings(campaigns=1, pages=4, rows_per_page=20)) as sandbox:
        (only,) = ids_of(sandbox, "v3")
        await harvest([only], config(tmp_path, sandbox))
        stored = file_of(tmp_path, "opens", only)
        contact = json.loads(stored.splitlines()[0])["contact_id"]
        sandbox.world.delete_contact(contact)
        sandbox.world.add_events("opens", only, 2)
        await harvest([only], config(tmp_path, sandbox, since="last"))
        found = file_of(tmp_path, "opens", only)
        assert found.endswith(stored)
        assert found.count(b"\n") == stored.count(b"\n") + 2


async def test_rows_that_are_gone_make_the_walk_the_new_truth(tmp_path: Path) -> None:
    """The file has a row that the API does not have any more: it is replaced, and its line in the
    manifest says so, once."""
    async with Sandbox(SandboxSettings(campaigns=2, pages=6, rows_per_page=20)) as sandbox:
        ids = ids_of(sandbox, "v3")
        sandbox.world.add_events("opens", ids[0], 5)
        await harvest(ids, config(tmp_path, sandbox))
        sandbox.world.views.arrivals.clear()
        await harvest(ids, config(tmp_path, sandbox, since="last"))
        for each in ids:
            assert file_of(tmp_path, "opens", each) == world_of(sandbox, "opens", each)
        said = {line["campaign_id"]: line.get("replaced") for line in manifest(tmp_path)}
        assert said == {ids[0]: True, ids[1]: None}
        sandbox.world.add_events("opens", ids[0], 1)
        await harvest(ids, config(tmp_path, sandbox, since="last"))
        assert {
            line["campaign_id"]: line.get("replaced") for line in manifest(tmp_path)
        } == dict.fromkeys(ids)


async def test_reports_that_follow_from_others_are_replaced(tmp_path: Path) -> None:
    """A contact that opens again leaves its old place among the unique opens."""
    async with Sandbox(SandboxSettings(campaigns=2, pages=8, rows_per_page=20)) as sandbox:
        ids = ids_of(sandbox, "v3")
        await harvest(ids, config(tmp_path, sandbox, report="unique_opens"))
        sandbox.world.add_events("opens", ids[0], 7)
        await harvest(ids, config(tmp_path, sandbox, report="unique_opens", since="last"))
        for each in ids:
            expected = world_of(sandbox, "unique_opens", each)
            assert file_of(tmp_path, "unique_opens", each) == expected


@pytest.mark.parametrize("api", ["v2", "v3"])
@pytest.mark.parametrize("keeps", [True, False])
async def test_since_a_date_gives_the_rows_on_or_after_it(
    tmp_path: Path, api: str, *, keeps: bool
) -> None:
    """No row below it, and no page that has none above it."""
    world = SandboxSettings(
        campaigns=6, pages=60, rows_per_page=20, unsent=0, resends=2, cursor_keeps_since=keeps
    )
    async with Sandbox(world) as sandbox:
        ids = ids_of(sandbox, api)
        rows = [json.loads(row) for row in sandbox.world.records("opens", ids[0])]
        field = "open_date" if api == "v2" else "created_time"
        since = datetime.fromisoformat(sorted(row[field] for row in rows)[len(rows) // 2])
        report = await harvest(ids, config(tmp_path, sandbox, api=api, since=since))
        assert report.exit_code == 0
        pages = 0
        for each in ids:
            expected = world_of(sandbox, "opens", each, since_ms=int(since.timestamp() * 1000))
            assert file_of(tmp_path, "opens", each) == expected
            pages += expected.count(b"\n") // 20
        reports = sum(len(sandbox.world.activities(each)) for each in ids) if api == "v3" else 0
        assert sandbox.requests <= pages + len(ids) + 2 * reports + 1


# -- more reports ------------------------------------------------------------------------------


async def test_a_report_is_added_to_a_directory(tmp_path: Path) -> None:
    """The clicks are harvested beside the opens, and nothing that is there is asked or touched."""
    async with Sandbox(SandboxSettings(campaigns=3, pages=9, rows_per_page=20)) as sandbox:
        ids = ids_of(sandbox, "v3")
        await harvest(ids, config(tmp_path, sandbox))
        finals = sorted((tmp_path / "out/opens").iterdir())
        before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in finals]
        report = await harvest(ids, config(tmp_path, sandbox, report="opens,clicks"))
        assert (report.exit_code, report.campaigns.complete) == (0, 3)
        assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in finals] == before
        assert all("opens" not in hit.path for hit in sandbox.log[-report.requests.sent :])
        report = await harvest(ids, config(tmp_path, sandbox, report="sends"))
        assert report.exit_code == 0
        for name in ("opens", "clicks", "sends"):
            for each in ids:
                assert file_of(tmp_path, name, each) == world_of(sandbox, name, each)
        assert len(manifest(tmp_path)) == 9
        assert list(verify(Layout(tmp_path / "out"))) == []


async def test_an_unchanged_account_costs_one_request_to_come_back_to(tmp_path: Path) -> None:
    """Its counts, asked again in each round of top-ups; a resend made between two of them is found
    and walked whole."""
    world = SandboxSettings(campaigns=60, pages=90, rows_per_page=20, unsent=0)
    async with Sandbox(world) as sandbox:
        ids = ids_of(sandbox, "v3")
        await harvest(ids, config(tmp_path, sandbox))
        again = config(tmp_path, sandbox, since="last")
        assert [(await harvest(ids, again)).requests.sent for _ in range(2)] == [1, 1]
        sandbox.world.resend(ids[6])
        report = await harvest(ids, again)
        assert report.requests.sent <= 10
        for each in ids:
            assert file_of(tmp_path, "opens", each) == world_of(sandbox, "opens", each)
