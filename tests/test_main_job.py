"""The main job from end to end: ids in, one file of records for each campaign out.

The program is a real process; the other side is the simulated API, or a few lines of aiohttp.
"""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from crashlab import Served, config_of
from shell import (
    Done,
    assert_harvested,
    called,
    content,
    finals,
    harvester,
    lines,
    quick_disk,
    summary_of,
    surroundings,
    without_secrets,
)

from harvester import ConfigError, HarvestConfig, harvest, walk
from harvester.client import campaigns
from harvester.events import IdRepeated
from harvester.sandbox import Sandbox, SandboxSettings

ROWS = 20
VENDORS_ROW = (
    '{"activity_type":"EMAIL_OPEN","campaign_id":"1100394165287","contact_id":"51",'
    '"email_address":"abc@example.com","open_date":"2012-12-06T13:06:35.661Z"}'
)
SECOND_ROW = VENDORS_ROW.replace('"51"', '"52"').replace("35.661Z", "02.117Z")
VENDORS_PATH = "/v2/emailmarketing/campaigns/1100394165287/tracking/opens"


def options(sandbox: Sandbox, *more: object) -> list[object]:
    """Where the sandbox is, and as fast as it likes."""
    return ["--base-url", sandbox.base_url, "--rate", "0", "--page-size", ROWS, *more]


def settings(home: Path, sandbox: Sandbox, **more: Any) -> HarvestConfig:
    """The same from Python."""
    return config_of(sandbox, home, **{"page_size": ROWS, **more})


# -- many campaigns -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """The big harvest, done."""

    sandbox: Sandbox
    home: Path
    done: Done
    requests: int
    summary: dict[str, Any]

    @property
    def campaigns(self) -> int:
        """How many there are."""
        return self.sandbox.settings.campaigns

    @property
    def pages(self) -> int:
        """How many they have together."""
        return self.sandbox.settings.pages

    @property
    def out(self) -> Path:
        """`--output`."""
        return self.home / "out"


@pytest.fixture(
    scope="module",
    params=[(60, 600), pytest.param((300, 3_000), marks=pytest.mark.long)],
    ids=["60 campaigns", "300 campaigns"],
)
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """`harvester run` over many campaigns, at 400 requests a second."""
    home = tmp_path_factory.mktemp("job")
    campaigns, pages = request.param
    sandbox = Sandbox(SandboxSettings(campaigns=campaigns, pages=pages, rows_per_page=ROWS))
    (home / "ids.txt").write_text("\n".join(sandbox.world.campaign_ids) + "\n")
    with Served(sandbox):
        fast = ["--rate", 400, "--json", "--no-progress"]
        done = harvester(home, "run", "-i", "ids.txt", "-o", "out", *options(sandbox, *fast))
        yield Job(sandbox, home, done, sandbox.requests, summary_of(home / "out"))


def test_every_record_is_there_once_and_in_order(job: Job) -> None:
    """Every file holds what the sandbox knows, to the byte, and the manifest has its counts
    and digests."""
    assert job.done.code == 0, job.done.stderr
    manifest = assert_harvested(job.out, job.sandbox, job.sandbox.world.campaign_ids)
    assert len(manifest) == job.campaigns
    assert sum(line["pages"] for line in manifest) == job.pages


def test_a_page_costs_one_request(job: Job) -> None:
    """No more, and all of them good."""
    again = job.requests - len({(hit.campaign_id, hit.page) for hit in job.sandbox.log})
    assert job.requests == job.pages + again
    assert again <= 0.03 * job.pages  # equal events at an edge: once more
    assert job.sandbox.statuses == {200: job.requests}
    assert all(hit.api_key and hit.authorized for hit in job.sandbox.log)


def test_the_summary_adds_up(job: Job) -> None:
    """Campaigns, requests, pages, rows and bytes of the summary are those of the manifest."""
    summary, manifest = job.summary, lines(job.out / "manifest.ndjson")
    assert summary["campaigns"] == {
        "total": job.campaigns,
        "complete": job.campaigns,
        "failed": 0,
        "partial": 0,
        "pending": 0,
    }
    sent = job.requests
    assert summary["requests"] == {"sent": sent, "ok": sent, "retried": 0, "throttled": 0}
    for name in ("pages", "rows", "bytes"):
        assert summary[name] == sum(line[name] for line in manifest)
    assert summary["quota"]["used_today"] in range(1, sent + 1)  # midnight may have passed
    assert (summary["exit_code"], summary["reason"], summary["resume_at"]) == (0, "complete", None)
    assert json.loads(job.done.stdout) == summary
    assert {line["run_id"] for line in manifest} == {summary["run_id"]}
    assert lines(job.out / "errors.ndjson") == []
    assert lines(job.out / "retries.ndjson") == []


def test_the_same_command_again_asks_for_nothing(job: Job) -> None:
    """What is complete costs no request and gets no second line in the manifest."""
    before = job.sandbox.requests
    again = harvester(job.home, "run", "-i", "ids.txt", "-o", "out", *options(job.sandbox))
    assert again.code == 0, again.stderr
    assert job.sandbox.requests == before
    assert_harvested(job.out, job.sandbox, job.sandbox.world.campaign_ids)
    assert summary_of(job.out)["campaigns"]["complete"] == job.campaigns
    assert harvester(job.home, "verify", "out").code == 0


# -- the vendor's own example --------------------------------------------------------------------


async def test_the_vendors_example_gives_the_expected_lines(tmp_path: Path) -> None:
    """The example body of the vendor's page, and a last page after it, are two lines, byte for
    byte; the cursor is followed as it was given, with the key put back."""
    asked: list[str] = []

    async def opens(request: web.Request) -> web.Response:
        asked.append(request.raw_path)
        assert request.headers["Authorization"] == "Bearer token"
        assert request.headers["Accept"] == "application/json"
        if "next" in request.query:
            body = '{"meta":{"pagination":{}},"results":[' + SECOND_ROW + "]}"
        else:
            link = f'"next_link":"{VENDORS_PATH}?next=c3RhcnRBdD0zJmxpbWl0PTI"'
            body = '{"meta":{"pagination":{' + link + '}},"results":[' + VENDORS_ROW + "]}"
        return web.Response(body=body.encode(), content_type="application/json")

    app = web.Application()
    app.router.add_get(VENDORS_PATH, opens)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        config = HarvestConfig(
            output=tmp_path / "out",
            state_dir=tmp_path / "state",
            base_url=f"http://127.0.0.1:{runner.addresses[0][1]}",
            rate=0,
            since="2012-12-06",
            api_key="key",
            access_token="token",
        )
        report = await harvest(["1100394165287"], config)
    finally:
        await runner.cleanup()
    assert (report.exit_code, report.pages, report.rows) == (0, 2, 2)
    found = (tmp_path / "out/opens/1100394165287.ndjson").read_bytes()
    assert found == f"{VENDORS_ROW}\n{SECOND_ROW}\n".encode()
    assert asked == [
        f"{VENDORS_PATH}?limit=500&created_since=2012-12-06T00%3A00%3A00Z&api_key=key",
        f"{VENDORS_PATH}?next=c3RhcnRBdD0zJmxpbWl0PTI&api_key=key",
    ]


# -- what cannot begin ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Iterator[Sandbox]:
    """Six campaigns on nine pages."""
    with Served(Sandbox(SandboxSettings(campaigns=6, pages=9, rows_per_page=ROWS))) as served:
        yield served.sandbox


@pytest.mark.parametrize("missing", ["HARVESTER_API_KEY", "HARVESTER_ACCESS_TOKEN"])
def test_without_a_secret_nothing_begins(small: Sandbox, tmp_path: Path, missing: str) -> None:
    """No key or no token: exit code 2, one line that says how to give it, and no file."""
    env = {name: value for name, value in surroundings(tmp_path).items() if name != missing}
    before = small.requests
    arguments = ["run", "1", "-o", "out", *options(small, "--api", "v2")]
    done = harvester(tmp_path, *arguments, env=env)
    assert done.code == 2
    assert len(done.complaints) == 1
    assert missing in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert small.requests == before


def test_a_secret_can_come_from_a_file_or_a_command(small: Sandbox, tmp_path: Path) -> None:
    """A key file and a token command serve as well as the environment."""
    key, token = tmp_path / "key", tmp_path / "token"
    key.write_text("sandbox-key\n")
    token.write_text("sandbox-token\n")
    given = ["--api-key-file", key, "--token-command", f"cat '{token}'"]
    ids = small.world.campaign_ids[:1]
    done = harvester(
        tmp_path, "run", *ids, "-o", "out", *options(small, *given), env=without_secrets(tmp_path)
    )
    assert done.code == 0, done.stderr
    assert_harvested(tmp_path / "out", small, ids)


def test_a_refused_token_ends_the_run_after_a_handful_of_requests(tmp_path: Path) -> None:
    """A dead token: exit code 4 after two dozen requests at most, however many campaigns there
    are."""
    sandbox = Sandbox(SandboxSettings(campaigns=200, pages=200, rows_per_page=ROWS))
    with Served(sandbox):
        env = surroundings(tmp_path, HARVESTER_ACCESS_TOKEN="a-token-that-was-revoked")
        ids = "\n".join(sandbox.world.campaign_ids)
        arguments = ["run", "-i", "-", "-o", "out", *options(sandbox)]
        done = harvester(tmp_path, *arguments, env=env, stdin=ids)
        assert done.code == 4, done.stderr
        assert set(sandbox.statuses) == {401}
        assert sandbox.requests <= 24  # those in flight, the second tries
    assert "a-token-that-was-revoked" not in done.stderr + done.stdout
    summary = summary_of(tmp_path / "out")
    assert summary["reason"] == "credentials_refused"
    assert summary["campaigns"]["complete"] == 0
    assert summary["campaigns"]["total"] == 200
    assert finals(tmp_path / "out") == set()


# -- ids -----------------------------------------------------------------------------------------


def test_an_ids_file_may_be_untidy(small: Sandbox, tmp_path: Path) -> None:
    """A byte order mark, comments, blank lines, CRLF and repeats are no trouble; repeats are
    noted, and taken once."""
    first, second, third, *_ = small.world.campaign_ids
    text = f"\ufeff{first}\r\n# a comment\r\n\r\n  {second}  \r\n{first}\n\t\n{third}\n{second}"
    (tmp_path / "ids.txt").write_bytes(text.encode())
    before = small.requests
    done = harvester(tmp_path, "run", "-i", "ids.txt", "-o", "out", *options(small))
    assert done.code == 0, done.stderr
    assert "2 repeated ids taken once" in done.stderr
    assert_harvested(tmp_path / "out", small, (first, second, third))
    pages = sum(small.world.pages("opens", each, ROWS) for each in (first, second, third))
    assert small.requests - before == pages


BAD_IDS = {
    "a path": "../x",
    "an absolute path": "/etc/passwd",
    "a zero-width blank": "\u200b",
    "two hundred digits": "1" * 200,
    "a NUL": "12\x0034",
    "an escape": "12\x1b[31m34",
    "a blank within": "12 34",
    "Arabic digits": "\u0661\u0662\u0663",
    "full-width digits": "\uff11\uff12",
    "a superscript": "1\u00b2",
    "a sign": "-5",
    "a fraction": "1.5",
    "two in a line": "1,2",
    "an encoded slash": "1%2F2",
    "not UTF-8": b"\xff\xfe12",
}


@pytest.mark.parametrize("bad", BAD_IDS)
def test_what_is_no_id_is_refused_with_its_line(
    small: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bad: str,
) -> None:
    """Exit code 2, one printable line with file and line number, nothing sent, nothing written."""
    good, other, *_ = (each.encode() for each in small.world.campaign_ids)
    text = BAD_IDS[bad] if isinstance(BAD_IDS[bad], bytes) else BAD_IDS[bad].encode()
    (tmp_path / "ids.txt").write_bytes(b"\n".join([b"# ids", good, text, other]))
    before = small.requests
    arguments = ["run", "-i", "ids.txt", "-o", "out", *options(small)]
    done = called(tmp_path, monkeypatch, capsys, *arguments)
    assert done.code == 2, done.stderr
    assert len(done.complaints) == 1
    assert "ids.txt, line 3: not a campaign id" in done.stderr
    assert done.complaints[0].isprintable()
    assert len(done.complaints[0]) < 250
    assert [path.name for path in tmp_path.iterdir()] == ["ids.txt"]
    assert small.requests == before


@pytest.mark.parametrize("bad", ["", "../x", "1\n2", " 1"])
def test_an_argument_that_is_no_id_is_refused(
    small: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bad: str,
) -> None:
    """On the command line, too: exit code 2 and nothing written."""
    done = called(tmp_path, monkeypatch, capsys, "run", bad, "-o", "out", *options(small))
    assert done.code == 2
    assert len(done.complaints) == 1
    assert "not a campaign id" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_ids_file_that_is_not_there_is_named(small: Sandbox, tmp_path: Path) -> None:
    """Exit code 2 and the path."""
    done = harvester(tmp_path, "run", "-i", "nowhere.txt", "-o", "out", *options(small))
    assert done.code == 2
    assert done.complaints == [
        "harvester: error: --input: cannot read nowhere.txt: No such file or directory"
    ]
    assert list(tmp_path.iterdir()) == []


def test_ids_come_from_standard_input(small: Sandbox, tmp_path: Path) -> None:
    """`-i -` reads what another command prints: `harvester campaigns | harvester run -i -`."""
    listed = harvester(tmp_path, "campaigns", "--base-url", small.base_url, "--rate", "0")
    assert listed.code == 0, listed.stderr
    arguments = ["run", "-i", "-", "-o", "out", *options(small)]
    done = harvester(tmp_path, *arguments, stdin=listed.stdout)
    assert done.code == 0, done.stderr
    assert_harvested(tmp_path / "out", small, small.world.campaign_ids)


def test_no_ids_at_all_is_a_mistake(small: Sandbox, tmp_path: Path) -> None:
    """Without an id, an input and `--all-sent`, exit code 2 names all three ways."""
    done = harvester(tmp_path, "run", "-o", "out", *options(small))
    assert done.code == 2
    assert "--input" in done.stderr
    assert "--all-sent" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_empty_list_of_ids_is_a_mistake(small: Sandbox, tmp_path: Path) -> None:
    """Exit code 2 and why: a job whose list is empty is not a success."""
    done = harvester(tmp_path, "run", "-i", "-", "-o", "out", *options(small), stdin="# none\n")
    assert done.code == 2
    assert "standard input has only blank lines and comments" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_campaign_does_not_stop_the_others(small: Sandbox, tmp_path: Path) -> None:
    """The API's 404 is a line in errors.ndjson and exit code 3; all others are complete."""
    ids = small.world.campaign_ids
    done = harvester(tmp_path, "run", "404", *ids, "-o", "out", *options(small))
    assert done.code == 3, done.stderr
    assert_harvested(tmp_path / "out", small, ids)
    (error,) = lines(tmp_path / "out/errors.ndjson")
    assert (error["campaign_id"], error["kind"], error["status"]) == ("404", "not_found", 404)
    assert error["error_key"] == "http.status.not_found"
    summary = summary_of(tmp_path / "out")
    assert summary["campaigns"] == {
        "total": 7,
        "complete": 6,
        "failed": 1,
        "partial": 0,
        "pending": 0,
    }


# -- very many ids -------------------------------------------------------------------------------

WORKERS = 8
CHILD = """
import asyncio, itertools, json, os, sys
from contextlib import closing
from pathlib import Path
from harvester import HarvestConfig, harvest
from harvester.events import CampaignCompleted
from harvester.input.ids import spool

base_url, source, home, workers = sys.argv[1:]
done, tasks, memory = itertools.count(1), 0, {}

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def observe(event):
    global tasks
    tasks = max(tasks, len(asyncio.all_tasks()))
    if isinstance(event, CampaignCompleted):
        count = next(done)
        if count % 500 == 0:
            memory[count] = resident()

async def main():
    config = HarvestConfig(
        output=Path(home) / "out", state_dir=Path(home) / "state", base_url=base_url, rate=0,
        daily_quota=0, concurrency=int(workers), api_key="sandbox-key",
        access_token="sandbox-token",
    )
    with closing(spool((), source, config.make_api().check_id)) as ids:
        return await harvest(ids, config, observe=observe)

report = asyncio.run(main())
print(json.dumps({"code": report.exit_code, "complete": report.campaigns.complete,
                  "tasks": tasks, "memory": list(memory.values())}))
"""


def harvest_very_many(count: int, home: Path) -> dict[str, Any]:
    """So many ids against a sandbox of one-page campaigns; what the child saw of itself."""
    sandbox = Sandbox(
        SandboxSettings(campaigns=count, pages=count, rows_per_page=2, unsent=0, keep_log=False)
    )
    (home / "ids.txt").write_text("\n".join(sandbox.world.campaign_ids))
    with Served(sandbox):
        done = subprocess.run(
            [
                *(sys.executable, "-c", CHILD, sandbox.base_url),
                *(str(home / "ids.txt"), str(home), str(WORKERS)),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=1_800,
        )
        assert sandbox.requests == count
    found: dict[str, Any] = json.loads(done.stdout)
    megabytes = [round(each / 1e6, 1) for each in found["memory"]]
    print(f"{count:,} campaigns, {found['tasks']} tasks at most, resident MB: {megabytes[-1]}")
    assert (found["code"], found["complete"]) == (0, count)
    assert found["tasks"] < 8 * WORKERS
    return found


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A quick disk: thousands of files are synced one by one."""
    with quick_disk(tmp_path) as path:
        yield path


def test_thousands_of_ids_make_no_pile_of_tasks_and_need_no_more_memory(quick: Path) -> None:
    """Of 2,500 campaigns, at most a few tasks for each of eight workers are alive at a time, and
    the last 2,000 take no more memory than the first 500."""
    memory = harvest_very_many(2_500, quick)["memory"]
    assert len(memory) == 5
    assert max(memory) - memory[0] < 3_000_000


@pytest.mark.long
@pytest.mark.timeout(2_000)
def test_a_hundred_thousand_ids_need_no_more_memory(quick: Path) -> None:
    """The same with 100,000 campaigns."""
    memory = harvest_very_many(100_000, quick)["memory"]
    assert max(memory) - memory[9] < 8_000_000


# -- from Python ---------------------------------------------------------------------------------


async def in_turn(ids: list[str]) -> AsyncIterator[str]:
    """Ids as a database cursor would give them."""
    for each in ids:
        yield each


@pytest.mark.parametrize("kind", ["list", "tuple", "generator", "async generator"])
async def test_ids_may_come_in_any_iterable(tmp_path: Path, kind: str) -> None:
    """A list, a tuple, a generator and an async generator give the same harvest."""
    async with Sandbox(SandboxSettings(campaigns=5, pages=8, rows_per_page=ROWS)) as sandbox:
        ids = list(sandbox.world.campaign_ids)
        given: Any = {
            "list": ids,
            "tuple": tuple(ids),
            "generator": (each for each in ids),
            "async generator": in_turn(ids),
        }[kind]
        report = await harvest(given, settings(tmp_path, sandbox))
        assert (report.exit_code, report.campaigns.complete, report.pages) == (0, 5, 8)
        assert report.rows == sum(sandbox.world.rows("opens", each) for each in ids)
        assert sandbox.requests == 8
        assert_harvested(tmp_path / "out", sandbox, ids)


async def test_an_observer_sees_a_repeated_id(tmp_path: Path) -> None:
    """An id that comes twice is harvested once and noted."""
    async with Sandbox(SandboxSettings(campaigns=2, pages=3, rows_per_page=ROWS)) as sandbox:
        ids, repeated = list(sandbox.world.campaign_ids), list[str]()

        def observe(event: object) -> None:
            if isinstance(event, IdRepeated):
                repeated.append(event.campaign_id)

        config = settings(tmp_path, sandbox)
        report = await harvest([*ids, ids[0]], config, observe=observe)
        assert (report.campaigns.total, sandbox.requests) == (2, 3)
        assert repeated == ids[:1]


@pytest.mark.parametrize("lazily", [False, True])
async def test_a_bad_id_from_python_is_a_config_error(tmp_path: Path, *, lazily: bool) -> None:
    """A list is checked whole before anything is sent; a generator as it is read, and what was
    harvested before the bad id is saved."""
    async with Sandbox(SandboxSettings(campaigns=3, pages=3, rows_per_page=ROWS)) as sandbox:
        ids = [*sandbox.world.campaign_ids[:2], "../x"]
        with pytest.raises(ConfigError, match="not a campaign id"):
            await harvest(iter(ids) if lazily else ids, settings(tmp_path, sandbox))
        assert (sandbox.requests > 0) == lazily
        assert (tmp_path / "out").exists() == lazily
        if lazily:
            assert summary_of(tmp_path / "out")["exit_code"] == 2


async def test_walk_gives_the_pages_of_a_campaign_without_a_file(tmp_path: Path) -> None:
    """The pages of one campaign, in order, are those of the sandbox; nothing is written but the
    day's count."""
    async with Sandbox(SandboxSettings(campaigns=3, pages=12, rows_per_page=ROWS)) as sandbox:
        campaign_id = max(
            sandbox.world.campaign_ids, key=lambda each: sandbox.world.rows("opens", each)
        )
        config = settings(tmp_path, sandbox)
        pages = [page async for page in walk(campaign_id, config)]
        assert b"".join(page.ndjson for page in pages) == content(sandbox, "opens", campaign_id)
        assert sum(page.rows for page in pages) == sandbox.world.rows("opens", campaign_id)
        assert pages[0].records()[0]["activity_type"] == "EMAIL_OPEN"
        assert [page.next is None for page in pages] == [False] * (len(pages) - 1) + [True]
        sends = [page async for page in walk(campaign_id, config, report="sends")]
        assert b"".join(page.ndjson for page in sends) == content(sandbox, "sends", campaign_id)
        assert not (tmp_path / "out").exists()


async def test_a_walk_that_is_left_early_asks_for_no_more(tmp_path: Path) -> None:
    """A walk that is left after the first page costs one request."""
    async with Sandbox(SandboxSettings(campaigns=1, pages=9, rows_per_page=ROWS)) as sandbox:
        async with aclosing(
            walk(sandbox.world.campaign_ids[0], settings(tmp_path, sandbox))
        ) as pages:
            async for _ in pages:
                break
        assert sandbox.requests == 1


async def test_campaigns_gives_every_sent_campaign_with_its_record(tmp_path: Path) -> None:
    """Over all pages of the list, each id once, and with it the API's own JSON."""
    async with Sandbox(SandboxSettings(campaigns=120, pages=120, rows_per_page=ROWS)) as sandbox:
        found = {each: record async for each, record in campaigns(settings(tmp_path, sandbox))}
        assert set(found) == set(sandbox.world.campaign_ids)
        for campaign_id, record in found.items():
            assert json.loads(record) == sandbox.world.brief(campaign_id)
