"""One POST at a time to the sign-in, on a real socket; and its spacing, on a virtual clock."""

import asyncio
import fcntl
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fake_sign_in import CLIENT, Serving, SignIn, served
from fakes import FakeClock, LoopClock, virtually

from harvester.api import oauth
from harvester.api.oauth import Answer, Passing, Rejected, Tokens
from harvester.request.token_endpoint import RequestSpacing, TokenEndpoint
from harvester.runtime import Clock

FORM = oauth.refresh(CLIENT, "canary-refresh-token")


def endpoint(url: str, root: Path, **settings: Any) -> TokenEndpoint:
    return TokenEndpoint(url, RequestSpacing(root, url, clock=Clock(), gap=0.0), **settings)


async def asked(
    root: Path, answer: Callable[[web.Request], Any], **settings: Any
) -> tuple[Answer, list[web.Request]]:
    """What the endpoint makes of one answer, and the requests that came."""
    came: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        came.append(request)
        await request.read()
        found = answer(request)
        if isinstance(found, float):
            await asyncio.sleep(found)
            found = web.Response()
        assert isinstance(found, web.StreamResponse)
        return found

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return await endpoint(url, root, **settings).ask(FORM), came
    finally:
        await runner.cleanup()


async def test_the_form_stands_in_the_body_and_nothing_in_the_query(tmp_path: Path) -> None:
    """No Authorization header, no cookie."""
    async with served(Serving(SignIn())) as server:
        server.sign_in.refresh = "canary-refresh-token"
        found = await endpoint(server.url, tmp_path).ask(FORM)
        assert isinstance(found, Tokens)
        assert found.expires_at == pytest.approx(datetime.now(UTC).timestamp() + 86_400, abs=60)
        assert server.queries == [""]
    _, came = await asked(tmp_path, lambda request: web.json_response({}))
    assert [request.method for request in came] == ["POST"]
    assert came[0].headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert not {"Authorization", "Cookie"} & came[0].headers.keys()


async def test_a_dropped_connection_is_a_lost_answer_and_not_sent_again(tmp_path: Path) -> None:
    """A silent second POST would use the refresh token up."""

    def drop(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    found, came = await asked(tmp_path, drop)
    assert isinstance(found, Passing)
    assert found.lost
    assert len(came) == 1


async def test_a_late_answer_is_a_lost_one(tmp_path: Path) -> None:
    """The server may have rotated."""
    found, came = await asked(tmp_path, lambda request: 30.0, timeout=0.2)
    assert isinstance(found, Passing)
    assert found.lost
    assert len(came) == 1


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.Response(body=b"x" * 300_000),
        lambda: web.Response(body=b"damaged", headers={"Content-Encoding": "gzip"}),
        lambda: web.Response(body=b"{}", headers={"Content-Encoding": "br"}),
    ],
)
async def test_a_body_that_cannot_be_read_is_a_lost_answer(
    tmp_path: Path, response: Callable[[], web.Response]
) -> None:
    """Too large, damaged, or in an encoding that was not asked for."""
    found, _ = await asked(tmp_path, lambda request: response())
    assert isinstance(found, Passing)
    assert found.lost


async def test_a_server_that_is_not_there_has_not_had_the_question(tmp_path: Path) -> None:
    """No answer is lost."""
    found = await endpoint("http://127.0.0.1:9", tmp_path).ask(FORM)
    assert found == Passing("cannot connect")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed(tmp_path: Path, status: int) -> None:
    """It would carry the refresh token away."""

    def redirect(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    found, came = await asked(tmp_path, redirect)
    assert isinstance(found, Passing)
    assert len(came) == 1


async def test_what_a_server_echoes_is_scrubbed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In any spelling; and nothing is logged."""
    body = {"error": "invalid_grant", "error_description": f"no {FORM.fields['refresh_token']}"}
    with caplog.at_level(logging.DEBUG):
        found, _ = await asked(tmp_path, lambda request: web.json_response(body, status=400))
    assert found == Rejected("invalid_grant", "HTTP 400 invalid_grant: no [secret]")
    assert "canary" not in caplog.text


# -- spacing -------------------------------------------------------------------------------------


def test_requests_keep_a_second_apart_over_all_processes(tmp_path: Path) -> None:
    """Three spacings over one file, as three processes have them; another origin is free."""

    async def main() -> None:
        times: list[float] = []
        clock = LoopClock()

        async def run(origin: str) -> None:
            spacing = RequestSpacing(tmp_path, origin, clock=clock)
            for _ in range(4):
                await spacing.wait(asyncio.sleep)
                times.append(clock.monotonic())

        await asyncio.gather(*(run("https://a.example") for _ in range(3)))
        gaps = [after - before for before, after in pairwise(times)]
        assert len(times) == 12
        assert min(gaps) >= 1.0
        assert max(gaps) < 1.5
        before = clock.monotonic()
        await RequestSpacing(tmp_path, "https://b.example", clock=clock).wait(asyncio.sleep)
        assert clock.monotonic() == before

    virtually(main)


@pytest.mark.parametrize("content", [b"", b"garbage", b"nan", b"1e400", b"\xff\xfe", b"-5"])
async def test_a_file_that_cannot_be_read_holds_up_nothing(tmp_path: Path, content: bytes) -> None:
    """It says only when the last request was."""
    clock = FakeClock()
    spacing = RequestSpacing(tmp_path, "https://a.example", clock=clock)
    await spacing.wait(clock.sleep)
    (file,) = (tmp_path / "accounts").iterdir()
    file.write_bytes(content)
    await spacing.wait(clock.sleep)
    assert clock.slept == []


@pytest.mark.parametrize("days", [-400, 400])
async def test_a_wall_clock_that_jumps_changes_nothing(tmp_path: Path, days: int) -> None:
    """Nor does a new boot, after which the other clock starts anew."""
    clock = FakeClock()
    spacing = RequestSpacing(tmp_path, "https://a.example", clock=clock)
    await spacing.wait(clock.sleep)
    clock.wall = clock.wall.replace(year=2026 + days // 365)
    await spacing.wait(clock.sleep)
    assert sum(clock.slept) == pytest.approx(1.1)
    clock.mono = 5.0
    await spacing.wait(clock.sleep)
    assert sum(clock.slept) == pytest.approx(1.1)


def test_a_file_that_another_process_has_locked_is_waited_for(tmp_path: Path) -> None:
    """Look and claim are one step."""

    async def main() -> None:
        clock = LoopClock()
        spacing = RequestSpacing(tmp_path, "https://a.example", clock=clock)
        await spacing.wait(asyncio.sleep)
        (path,) = (tmp_path / "accounts").iterdir()
        with path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(60):
                    await spacing.wait(asyncio.sleep)
        await spacing.wait(asyncio.sleep)

    virtually(main)
