"""A second judge of the pace, which has never heard of us: nginx's `limit_req`, before the sandbox.

nginx lets a request through if so many milliseconds have passed since the last one; with no burst
allowed that is the strictest reading of a limit. It has to be installed (Debian: nginx-light).
"""

import asyncio
import itertools
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crashlab import Served, until

from harvester import HarvestConfig, HarvestReport, harvest
from harvester.sandbox import Sandbox, SandboxSettings

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        NGINX is None, reason="NOT JUDGED BY NGINX: install it (apt-get install nginx-light)"
    ),
]
CONFIG = """\
daemon off;
master_process off;
pid {root}/pid;
error_log {root}/error.log;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    log_format seen "$msec $status";
    access_log {root}/access.log seen;
    limit_req_zone $arg_api_key zone=key:1m rate={rate}r/s;
    limit_req_status 429;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            limit_req zone=key{burst};
            proxy_pass {behind};
        }}
    }}
}}
"""


@dataclass
class Nginx:
    """A running nginx; `seen` is its log: when, and with which status, each request ended."""

    origin: str
    log: Path

    @property
    def seen(self) -> list[tuple[float, int]]:
        lines = (line.split() for line in self.log.read_text().splitlines())
        return sorted((float(at), int(status)) for at, status in lines)

    @property
    def statuses(self) -> dict[int, int]:
        return Counter(status for _, status in self.seen)


@contextmanager
def nginx(root: Path, behind: str, *, rate: int, burst: str = "") -> Iterator[Nginx]:
    """Allow `rate` requests a second to what is behind."""
    assert NGINX is not None
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root.mkdir()
    config = root / "nginx.conf"
    config.write_text(CONFIG.format(root=root, rate=rate, burst=burst, port=port, behind=behind))
    log = root / "stderr"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [NGINX, "-p", str(root), "-c", str(config), "-e", str(root / "error.log")],
            stderr=stderr,
        ) as process,
    ):

        def listens() -> bool:
            assert process.poll() is None, log.read_text()
            with closing(socket.socket()) as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            until(listens)
            yield Nginx(f"http://127.0.0.1:{port}", root / "access.log")
        finally:
            process.terminate()


def judged(root: Path, pages: int, limit: int, burst: str = "", **settings: Any) -> Any:
    """A harvest of so many pages through nginx: the report, and what nginx has seen."""
    sandbox = Sandbox(SandboxSettings(campaigns=9, pages=pages, rows_per_page=2))
    with (
        Served(sandbox) as served,
        nginx(root / "nginx", served.sandbox.base_url, rate=limit, burst=burst) as judge,
    ):
        config = HarvestConfig(
            output=root / "out",
            state_dir=root / "state",
            base_url=judge.origin,
            page_size=2,
            api_key="sandbox-key",
            access_token="sandbox-token",
            **settings,
        )
        report: HarvestReport = asyncio.run(harvest(sandbox.world.campaign_ids, config))
        return report, judge


@pytest.mark.parametrize(
    ("rate", "limit", "burst", "pages"),
    [
        (3.3, 4, "", 60),
        (3.3, 4, " burst=3 nodelay", 60),
        (33.0, 40, " burst=3 nodelay", 600),  # without it, 5 ms of lateness would be judged
    ],
)
def test_nginx_refuses_nothing_at_the_default_margin(
    tmp_path: Path, rate: float, limit: int, burst: str, pages: int
) -> None:
    """With the default distance from the limit, no request comes too early for nginx."""
    report, judge = judged(tmp_path, pages, limit, burst, rate=rate)
    at = [moment for moment, _ in judge.seen]
    nearest = min(later - earlier for earlier, later in itertools.pairwise(at))
    print(
        f"{rate:g}/s at {limit}r/s{burst}: {judge.statuses}, nearest {nearest * 1000:.0f} ms, "
        f"makespan {(at[-1] - at[0]) * rate / (len(at) - 1):.4f}"
    )
    # On pages of two rows, equal events at an edge have some pages asked again.
    assert pages <= report.requests.sent <= 1.1 * pages
    assert judge.statuses == {200: report.requests.sent}
    assert (report.exit_code, report.requests.throttled) == (0, 0)


def test_nginx_refuses_the_impatient_who_then_learn(tmp_path: Path) -> None:
    """Without a pace nginx does refuse; the pace eases, nothing is lost, and the counts agree."""
    report, judge = judged(tmp_path, 60, 20, rate=0, max_wait=600)
    refused = judge.statuses[429]
    print(f"no pace at 20r/s: {judge.statuses}")
    assert report.exit_code == 0
    assert report.requests.throttled == refused > 0
    assert judge.statuses == {200: report.requests.ok, 429: refused}
