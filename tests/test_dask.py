"""More than one machine: the README's block for `dask.distributed`, as it stands.

A key is one task, so no key is ever on two workers. Needs the extra `dask`.
"""

import json
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from crashlab import Served, ids_of, reference, small, until
from readmelab import block

dask = pytest.importorskip("dask", reason="NOT TESTED: the extra `dask` is not installed")
distributed = pytest.importorskip(
    "distributed", reason="NOT TESTED: the extra `dask` is not installed"
)
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # those of Dask are its own
    pytest.mark.timeout(180),
]
KEYS = 4


@pytest.fixture
def servers() -> Iterator[list[Served]]:
    """A server for each key, slow enough that a worker can be killed in between."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Served(small(seed=number, pages=12, unsent=0, latency=0.02, rate_limit=40))
            )
            for number in range(KEYS)
        ]


def accounts_of(key: int, served: Served, root: Path) -> list[dict[str, Any]]:
    """The settings of two accounts of one key. The command that gives the token notes on which
    worker it is asked for."""
    return [
        {
            "output": str(root / f"{key}-{part}"),
            "state_dir": str(root / "state"),
            "base_url": served.sandbox.base_url,
            "api_key": "sandbox-key",
            "token_command": shlex.join(
                ["sh", "-c", f"echo {key} $PPID >> {root}/log; echo sandbox-token"]
            ),
            "page_size": 5,
            "rate": 20,
            "concurrency": 2,
        }
        for part in range(2)
    ]


def test_a_lost_workers_keys_are_completed_by_another(
    servers: list[Served],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every account is complete to the byte, each key is on one worker at a time, and its server
    sees one pace, also where a worker is killed."""
    keys = [accounts_of(key, served, tmp_path) for key, served in enumerate(servers)]
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    log = tmp_path / "log"
    log.touch()

    def noted() -> list[tuple[int, int]]:
        return [(int(key), int(pid)) for key, pid in map(str.split, log.read_text().splitlines())]

    before: list[tuple[int, int]] = []

    def kill_one() -> None:
        until(lambda: all(len(each.hits()) > 3 for each in servers))
        before.extend(noted())
        os.kill(before[0][1], signal.SIGKILL)

    source = block("python dask")
    assert source.count("\n") <= 20
    monkeypatch.chdir(tmp_path)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", dashboard_address=None
    )
    killer = Thread(target=kill_one)
    with cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        dask.config.refresh()
        killer.start()
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(source, "README.md", "exec"), names)  # noqa: S102
        killer.join()
        names["client"].close()
    assert capsys.readouterr().out == f"{[['complete'] * 2] * KEYS}\n"
    for key, served in enumerate(servers):
        expected = reference(served.sandbox, ids_of(served.sandbox))
        for part in range(2):
            for name, content in expected.files.items():
                assert (tmp_path / f"{key}-{part}" / name).read_bytes() == content
        # The list of each account, asked again where it was lost, and at most a page for each
        # request that was in flight.
        assert len(served.hits()) <= 2 * expected.requests + 8
        assert not any(hit.throttled for hit in served.hits())
    victim = before[0][1]
    after = noted()[len(before) :]
    for key in range(KEYS):
        first, then = ({pid for of, pid in those if of == key} for those in (before, after))
        assert len(first) == 1
        assert then <= first or (first == {victim} and len(then) == 1)
    assert victim in {pid for _, pid in before}
    assert victim not in {pid for _, pid in after}
