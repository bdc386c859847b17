"""More than one machine: `harvest` under an engine that exists, `dask.distributed`.

A key's accounts are one task, so no key is ever on two workers. Needs the extra `dask`.
"""

import itertools
import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crashlab import Served, ids_of, reference, small, until

distributed = pytest.importorskip(
    "distributed", reason="the extra `dask` is not installed: nothing shows the Dask block"
)
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # those of Dask are its own
    pytest.mark.timeout(180),
]

# The block of the README, but for its last two lines.
BLOCK = """
import asyncio
from harvester import HarvestConfig, HarvestError, harvest

async def one_account(account):
    while True:
        try:
            report = await harvest(account["ids"], HarvestConfig(**account["settings"]))
            return account["name"], report.reason
        except HarvestError as wrong:
            if getattr(wrong, "reason", "") != "locked":
                return account["name"], str(wrong)
        await asyncio.sleep(30)  # a lost worker's directory is free after two minutes

async def all_accounts(accounts):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one_account(account)) for account in accounts]
    return [task.result() for task in tasks]

def one_key(accounts):  # one task for all accounts of a key: a key is never on two workers
    return asyncio.run(all_accounts(accounts))
"""
WATCHED = """
import json, os, time

def watched(accounts):
    def note(what):
        line = json.dumps([accounts[0]["key"], os.getpid(), what, time.monotonic()]) + "\\n"
        with open(accounts[0]["log"], "a") as file:
            file.write(line)
    note("begins")
    found = one_key(accounts)
    note("ends")
    return found
"""
KEYS = 4


@pytest.fixture
def servers() -> Iterator[list[Served]]:
    """A server for each key, slow enough that a worker can be killed in between."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Served(small(seed=number, pages=24, unsent=0, latency=0.02, rate_limit=40))
            )
            for number in range(KEYS)
        ]


def accounts_of(key: int, served: Served, root: Path) -> list[dict[str, Any]]:
    """Two accounts of one key, with the campaigns of its server between them."""
    ids = ids_of(served.sandbox)
    return [
        {
            "key": key,
            "name": f"{key}-{part}",
            "log": str(root / "log"),
            "ids": ids[part::2],
            "settings": {
                "output": str(root / f"{key}-{part}"),
                "state_dir": str(root / "state"),
                "base_url": served.sandbox.base_url,
                "api_key": "sandbox-key",
                "access_token": "sandbox-token",
                "page_size": 5,
                "rate": 20,
                "concurrency": 2,
            },
        }
        for part in range(2)
    ]


def test_a_lost_workers_keys_are_completed_by_another(
    servers: list[Served], tmp_path: Path
) -> None:
    """Every account is complete to the byte, each key is on one worker at a time, and its server
    sees one pace, also where a worker is killed."""
    by_key = [accounts_of(key, served, tmp_path) for key, served in enumerate(servers)]
    log = tmp_path / "log"
    log.touch()
    block: dict[str, Any] = {"__name__": "block"}
    exec(BLOCK + WATCHED, block)  # noqa: S102

    def lines() -> list[tuple[int, int, str, float]]:
        return [tuple(json.loads(line)) for line in log.read_text().splitlines()]

    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        futures = client.map(block["watched"], by_key, pure=False)
        until(lambda: len(lines()) == KEYS and all(len(each.hits()) > 3 for each in servers))
        victim = lines()[0][1]
        os.kill(victim, signal.SIGKILL)
        found = dict(itertools.chain.from_iterable(client.gather(futures)))
    assert found == {account["name"]: "complete" for key in by_key for account in key}
    for key, served in enumerate(servers):
        expected = reference(served.sandbox, ids_of(served.sandbox))
        for name, content in expected.files.items():
            (path,) = tmp_path.glob(f"{key}-*/{name}")
            assert path.read_bytes() == content
        # At most a page for each request that was in flight.
        assert len(served.hits()) <= expected.requests + 4
        assert not any(hit.throttled for hit in served.hits())
    courses = defaultdict(list)
    for key, pid, what, at in lines():
        courses[key].append((at, pid, what))
    moved = 0
    for course in courses.values():
        (_, first, begins), *rest, (_, last, ends) = sorted(course)
        assert (begins, ends) == ("begins", "ends")
        moved += first != last
        # One that did not end was killed; the next one begins on another worker.
        assert [what for _, _, what in rest] == (["begins"] if first != last else [])
        assert first in (last, victim)
    assert moved == len([course for course in courses.values() if min(course)[1] == victim])
    assert moved > 0
