"""Many harvests in one event loop: each key has its own pace and quota, the same key shares them.

The servers are the sandbox's own, each with its judge of pace and quota, behind the place where a
request becomes an answer. Time is virtual, so that fifty keys cost no more than their work.
"""

import asyncio
import csv
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from crashlab import Served, environment, ids_of, reference, small, until
from fakes import LoopClock, virtually
from multidict import CIMultiDict

from harvester import HarvestConfig, HarvestReport, client
from harvester.api import oauth
from harvester.device_flow import sign_in_at
from harvester.disk.token_store import TokenStore
from harvester.events import Event, PageCommitted
from harvester.model import Request
from harvester.run import Harvester
from harvester.sandbox import Hit, SandboxSettings, Service, SignInSettings
from harvester.sandbox import Request as Arrival

RATE = 3.3
LATENCY = 0.05
ROWS = 5
START = datetime.now(UTC)
"""The simulated day; of today, for a stored token is judged by the system's clock."""
CLOCK: Any = LoopClock(START)


class Vendor:
    """Servers by their origin, without sockets."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}

    def serve(self, **settings: Any) -> tuple[str, Service]:
        """One more server: its origin and itself."""
        origin = f"http://127.0.0.1:{len(self.services) + 1}"
        service = Service(SandboxSettings(rows_per_page=ROWS, unsent=0, rate_limit=4.0, **settings))
        self.services[origin] = service
        return origin, service

    def handle(self, url: str, **request: Any) -> tuple[int, CIMultiDict[str], bytes]:
        """What the server of a URL answers now: status, headers and body."""
        parts = urlsplit(url)
        now = asyncio.get_running_loop().time()
        arrival = Arrival(
            target=url.removeprefix(f"{parts.scheme}://{parts.netloc}"),
            now=now,
            wall=START.timestamp() + now,
            **request,
        )
        answer = self.services[f"{parts.scheme}://{parts.netloc}"].handle(arrival).delivery
        return answer.status, CIMultiDict(answer.headers), answer.body


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, instant_threads: None) -> Vendor:
    """The servers, in the place of the HTTP layer."""
    found = Vendor()

    class Sender:
        def __init__(self, session: Any, api: Any, credentials: Any, **_: Any) -> None:
            self._api, self._credentials = api, credentials

        async def send(self, request: Request[Any]) -> bytes:
            signed = self._api.request(request.link, self._credentials)
            lower = {name.lower(): value for name, value in signed.headers.items()}
            status, answered, body = found.handle(signed.url, headers=lower)
            await asyncio.sleep(LATENCY)
            if status == 200:
                return body
            raise self._api.classify_response(request.link, status, answered, body)

    monkeypatch.setattr(client, "HttpSender", Sender)
    return found


async def together(
    runs: dict[str, tuple[HarvestConfig, Sequence[str]]],
) -> dict[str, HarvestReport]:
    """Every harvest at the same time, in one event loop; their reports."""
    async with asyncio.TaskGroup() as group:
        tasks = {
            name: group.create_task(Harvester(config, clock=CLOCK).run(ids))
            for name, (config, ids) in runs.items()
        }
    return {name: task.result() for name, task in tasks.items()}


def gaps(hits: Sequence[Hit]) -> list[float]:
    """Seconds between neighbours."""
    return [later.at - earlier.at for earlier, later in itertools.pairwise(hits)]


def test_fifty_keys_in_one_process_keep_each_its_own_pace_and_quota(
    vendor: Vendor, root: Path
) -> None:
    """Every server sees the pace of its own key, none refuses a request, and all keys work at the
    same time. A key whose day is spent, and one that is refused, stop alone."""
    ends = {3: ("quota_spent", 75, 6), 7: ("credentials_refused", 4, 4)}
    runs, services = {}, []
    for number in range(50):
        key, quota = f"key-{number}", 6 if number == 3 else 1_000
        origin, service = vendor.serve(
            seed=number, campaigns=3, pages=10, quota=quota, api_key=key, access_token=f"t-{number}"
        )
        services.append(service)
        config = HarvestConfig(
            output=root / key,
            state_dir=root / "state",
            base_url=origin,
            api_key=key,
            access_token="wrong" if number == 7 else f"t-{number}",
            daily_quota=quota,
            page_size=ROWS,
            rate=RATE,
            concurrency=2,
        )
        runs[key] = config, service.world.campaign_ids

    async def main() -> tuple[dict[str, HarvestReport], float]:
        return await together(runs), asyncio.get_running_loop().time()

    reports, took = virtually(main)
    for number, (report, service) in enumerate(zip(reports.values(), services, strict=True)):
        hits = service.log.hits
        expected = ends.get(number, ("complete", 0, 10))
        assert (report.reason, report.exit_code, len(hits)) == expected, number
        assert not any(hit.throttled for hit in hits)
        assert min(gaps(hits)) >= 1 / RATE - 1e-9
    assert took < 10  # one after the other they would take 150 s
    assert len(list((root / "state").glob("*.json"))) == 50


class Endpoint:
    """The sign-in of a server, without sockets."""

    def __init__(self, vendor: Vendor, origin: str) -> None:
        self._vendor, self.auth_url = vendor, origin

    async def ask(
        self, form: oauth.Form, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> oauth.Answer:
        await sleep(1.0)
        now = START.timestamp() + asyncio.get_running_loop().time()
        status, headers, body = self._vendor.handle(
            self.auth_url + form.path,
            method="POST",
            body=urlencode(form.fields).encode(),
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        return oauth.classify(status, headers, body, now=now)


def test_five_accounts_of_one_app_share_one_pace_and_one_quota(vendor: Vendor, root: Path) -> None:
    """Each is signed in on its own, with tokens of its own; the limits are those of the app."""
    quota = 30
    origin, service = vendor.serve(
        campaigns=40,
        pages=80,
        quota=quota,
        client_id="the-app",
        sign_in=SignInSettings(person="waits"),
    )
    ids = service.world.v3_campaign_ids

    async def signed_in(user: str) -> HarvestConfig:
        def agree(code: oauth.DeviceCode) -> None:
            service.sign_in.decide(code.user_code, agree=True, user=user)

        await sign_in_at(
            Endpoint(vendor, origin),
            TokenStore(root / "state", user),
            client_id="the-app",
            base_url=origin,
            show=agree,
            clock=CLOCK,
        )
        return HarvestConfig(
            output=root / user,
            state_dir=root / "state",
            base_url=origin,
            auth_url=origin,
            account=user,
            page_size=ROWS,
            rate=RATE,
            daily_quota=quota,
            concurrency=2,
        )

    async def main() -> dict[str, HarvestReport]:
        users = [f"user-{number}" for number in range(5)]
        runs = {user: (await signed_in(user), ids[number::5]) for number, user in enumerate(users)}
        service.log.hits.clear()
        return await together(runs)

    reports = virtually(main)
    hits = service.log.hits
    assert {report.reason for report in reports.values()} == {"quota_spent"}
    assert sum(report.requests.sent for report in reports.values()) == len(hits) == quota
    assert not any(hit.throttled for hit in hits)
    assert min(gaps(hits)) >= 1 / RATE - 1e-9
    assert hits[-1].at - hits[0].at < 1.1 * quota / RATE


# -- one directory, two machines ------------------------------------------------------------------


def long_run(vendor: Vendor, root: Path) -> tuple[HarvestConfig, Sequence[str]]:
    """A harvest of a simulated minute."""
    origin, service = vendor.serve(campaigns=2, pages=200)
    config = HarvestConfig(
        output=root / "out",
        state_dir=root / "state",
        base_url=origin,
        api_key="sandbox-key",
        access_token="sandbox-token",
        page_size=ROWS,
        rate=RATE,
        concurrency=2,
    )
    return config, service.world.campaign_ids


def test_a_run_shows_that_it_lives(vendor: Vendor, root: Path) -> None:
    """The time of its lock file is never old, so that another machine knows."""
    config, ids = long_run(vendor, root)
    lock = root / "out" / ".harvester" / "lock"
    ages: list[float] = []

    def observe(event: Event) -> None:
        if isinstance(event, PageCommitted):
            ages.append(lock.stat().st_mtime)
            if len(ages) == 1:
                os.utime(lock, (0, 0))

    virtually(lambda: Harvester(config, clock=CLOCK, observe=observe).run(ids))
    assert ages[1] == 0
    assert ages[-1] == pytest.approx(ages[0], abs=60)


def test_a_run_that_another_machine_took_for_dead_stops(vendor: Vendor, root: Path) -> None:
    """Its next step finds the other's record: exit code 75, and it leaves everything alone."""
    config, ids = long_run(vendor, root)
    lock = root / "out" / ".harvester" / "lock"
    other = b"process 1, since just now, on elsewhere, boot another\n"
    after: list[Event] = []

    def observe(event: Event) -> None:
        if isinstance(event, PageCommitted):
            after.append(event)
            if len(after) == 5:
                lock.write_bytes(other)

    report = virtually(lambda: Harvester(config, clock=CLOCK, observe=observe).run(ids))
    assert (report.reason, report.exit_code) == ("locked", 75)
    assert "process 1, since just now, on elsewhere" in str(report.message)
    assert len(after) == 5
    assert lock.read_bytes() == other
    assert not (root / "out" / "summary.json").exists()


# -- one program, many accounts -------------------------------------------------------------------

_TABLE = """
import asyncio, csv, sys
from harvester import HarvestConfig, HarvestError, harvest

async def one(row):
    config = HarvestConfig(
        output=row["account"], state_dir="state", base_url=row["base_url"], rate=20, page_size=5,
        api_key=row["api_key"], access_token=row["access_token"], concurrency=2,
    )
    try:
        report = await harvest(row["ids"].split(), config)
        print(row["account"], report.reason, report.exit_code, flush=True)
    except HarvestError as wrong:
        print(row["account"], wrong, flush=True)

async def main():
    async with asyncio.TaskGroup() as group:
        for row in csv.DictReader(open("accounts.csv")):
            group.create_task(one(row))

asyncio.run(main())
"""


def test_one_interrupt_stops_all_in_order_and_the_same_program_goes_on(tmp_path: Path) -> None:
    """Ctrl-C reaches every harvest of the process: each saves what it has, and the next run of the
    same program finishes every file without asking for a page twice."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Served(small(seed=number, pages=20))) for number in range(3)]
        with (tmp_path / "accounts.csv").open("w", encoding="ascii") as file:
            table = csv.writer(file)
            table.writerow(["account", "base_url", "api_key", "access_token", "ids"])
            for number, served in enumerate(servers):
                ids = " ".join(ids_of(served.sandbox))
                url = served.sandbox.base_url
                table.writerow([f"account-{number}", url, "sandbox-key", "sandbox-token", ids])
        command = [sys.executable, "-c", _TABLE]
        with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=-3) as process:
            until(lambda: all(len(served.hits()) >= 4 for served in servers))
            process.send_signal(signal.SIGINT)
            assert process.wait(30) != 0
        for number in range(3):
            summary = json.loads((tmp_path / f"account-{number}" / "summary.json").read_bytes())
            assert (summary["reason"], summary["exit_code"]) == ("cancelled", 130)
        again = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
        )
        assert sorted(again.stdout.splitlines()) == [
            f"account-{number} complete 0" for number in range(3)
        ], again.stderr
        for number, served in enumerate(servers):
            expected = reference(served.sandbox, ids_of(served.sandbox))
            for name, content in expected.files.items():
                assert (tmp_path / f"account-{number}" / name).read_bytes() == content
            assert len(served.hits()) <= expected.requests + 2  # those that were in flight


def test_the_same_from_the_shell(tmp_path: Path) -> None:
    """`xargs -P`: a process for each list of ids, one key and so one pace for all of them."""
    (tmp_path / "lists").mkdir()
    with Served(small(campaigns=6, pages=24, rate_limit=30)) as served:
        ids = ids_of(served.sandbox)
        for number in range(3):
            (tmp_path / "lists" / f"{number}.txt").write_text("\n".join(ids[number::3]))
        harvester = f"{sys.executable} -m harvester"
        options = f"--base-url {served.sandbox.base_url} --state-dir state --page-size 5 --rate 20"
        ended = subprocess.run(
            [
                *("sh", "-c"),
                "ls lists | xargs -P 3 -I LIST "
                f"{harvester} run --input lists/LIST --output harvests/LIST -q {options}",
            ],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        for name, content in reference(served.sandbox, ids).files.items():
            (path,) = tmp_path.glob(f"harvests/*/{name}")
            assert path.read_bytes() == content
        assert not any(hit.throttled for hit in served.hits())
