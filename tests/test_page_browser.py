"""The page in a real browser, at the width of a phone and of a desk, in light and in dark.

Chromium is driven over its DevTools protocol: the page itself allows no script. Where there is no
Chromium these tests are skipped; `apt-get install chromium` brings it.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
from pagelab import Made, opened, run

from harvester.reporting.page.render import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="NO BROWSER: the page was not looked at; apt-get install chromium, and run this again",
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
PHONE, DESK = 375, 1280


class Browser:
    """One page in Chromium. `noted` has every request, and every line in the console."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self.noted: list[tuple[str, str]] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask one thing of the browser, and note what it reports meanwhile."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=30)
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, method: str | None, found: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.noted.append(("request", found["request"]["url"]))
        elif method in {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"}:
            self.noted.append(("console", json.dumps(found)))

    async def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def open(self, page: Path, *, width: int, scheme: str = "light") -> None:
        """Load a page at a width, in a colour scheme, and wait until it is there."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width == PHONE,
        )
        await self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        await self.call("Page.navigate", url=page.as_uri())
        await self.call(
            "Runtime.evaluate",
            expression="new Promise(done => document.readyState === 'complete' ? done()"
            " : addEventListener('load', done))",
            awaitPromise=True,
        )


@pytest.fixture(scope="module")
def profile() -> Iterator[Path]:
    """An empty profile: the browser's own files, removed afterwards."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as path:
        yield Path(path)


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Browser]:
    """Start Chromium, open one page in it, and end it."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(60):
            while b"DevTools listening on ws://" not in (line := await process.stderr.readline()):
                assert line, "Chromium ended before it listened"
        port = line.decode().split("127.0.0.1:")[1].split("/")[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                (tab,) = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Browser(socket)
                for domain in ("Page", "Network", "Log", "Runtime"):
                    await page.call(f"{domain}.enable")
                yield page
    finally:
        process.kill()
        await process.wait()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every section, and with numbers of a large harvest."""
    made = Made(tmp_path_factory.mktemp("harvest") / "out")
    for report in ("opens", "clicks", "unsubscribes"):
        for number in range(4):
            rows = [{"created_time": f"2026-0{m}-11T10:00:00.000Z"} for m in range(1, 9)]
            rows *= 40
            made.finish(report, f"110039416528{number}", rows, reconciled=number > 0)
    made.finish("bounces", "1d3a7b5e-0c1f-4a52-9a6b-0123456789ab", [opened("2026-03-01")])
    campaigns = {"total": 100_000, "complete": 12, "failed": 3, "partial": 8, "pending": 99_977}
    requests = {"sent": 12_345_678, "ok": 1, "retried": 1, "throttled": 1}
    made.add(
        "runs.ndjson",
        run(campaigns=campaigns, requests=requests, rows=123_456_789, reason="sick_server"),
        run("20261124T100000Z-2", started_at="2026-11-24T23:00:00Z", reason="SIGTERM"),
    )
    made.add("retries.ndjson", *({"cause": "server_error", "wait_s": 100.5} for _ in range(99)))
    for kind in ("not_found", "looping_cursor", "k" * 100):
        failure = {"kind": kind, "report": "opens", "campaign_id": "x" * 90, "message": "y" * 500}
        made.add("errors.ndjson", failure)
    path = made.root / "report.html"
    path.write_bytes(render(made.figures()))
    return path


WIDE = """(() => [...document.querySelectorAll("body *")]
    .filter(each => !each.closest(".scroll, .defs") && each.getBoundingClientRect().width > 0)
    .filter(each => each.getBoundingClientRect().right > innerWidth + 0.5)
    .map(each => each.tagName + " " + each.textContent.slice(0, 40)))()"""
TALL = """[...document.querySelectorAll("main svg rect")]
    .filter(each => each.getBoundingClientRect().height > 200).length"""


async def test_the_page_in_a_browser(page: Path, profile: Path, tmp_path: Path) -> None:
    """Nothing is wider than the screen, nothing is loaded, nothing is complained about, both colour
    schemes are followed, and the pictures are drawn."""
    grounds = set()
    async with browser(profile) as chromium:
        for width in (PHONE, DESK):
            for scheme in ("light", "dark"):
                await chromium.open(page, width=width, scheme=scheme)
                assert await chromium.ask("innerWidth") == width
                assert await chromium.ask("document.documentElement.scrollWidth") <= width
                assert await chromium.ask(WIDE) == []
                assert await chromium.ask("document.querySelectorAll('.columns rect').length") > 20
                assert await chromium.ask(TALL) == 0
                grounds.add(await chromium.ask("getComputedStyle(document.body).backgroundColor"))
                size = await chromium.ask("parseFloat(getComputedStyle(document.body).fontSize)")
                assert size >= 16
        assert len(grounds) == 2
        requests = {what for kind, what in chromium.noted if kind == "request"}
        assert requests == {page.as_uri()}
        assert [what for kind, what in chromium.noted if kind == "console"] == []


async def test_the_page_allows_no_script_and_loads_nothing(
    page: Path, profile: Path, tmp_path: Path
) -> None:
    """Even if markup got into it, the policy in its head would stop it."""
    evil = tmp_path / "evil.html"
    markup = "<script>document.title='run'</script><img src='http://127.0.0.1:9/x'>"
    source = page.read_text()
    assert "</main>" in source
    evil.write_text(source.replace("</main>", f"{markup}<p onclick='1' id='evil'>x</p></main>"))
    async with browser(profile) as chromium:
        await chromium.open(evil, width=DESK)
        await chromium.ask("document.getElementById('evil').click()")
        assert await chromium.ask("document.title") != "run"
        complaints = [what for kind, what in chromium.noted if kind == "console"]
        assert any("script" in what for what in complaints)
        assert any("127.0.0.1:9" in what for what in complaints)


async def test_the_page_can_be_printed(page: Path, profile: Path) -> None:
    """On paper it is dark on white, whatever the screen's scheme, and not one page of nothing."""
    async with browser(profile) as chromium:
        await chromium.open(page, width=DESK, scheme="dark")
        features = [{"name": "prefers-color-scheme", "value": "dark"}]
        await chromium.call("Emulation.setEmulatedMedia", media="print", features=features)
        ground = await chromium.ask("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(255, 255, 255)"
        printed = await chromium.call("Page.printToPDF", printBackground=False)
        assert len(printed["data"]) > 10_000
