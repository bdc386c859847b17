"""One request: one answer, or one classified error."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fakes import PATH, credentials_of, make_request
from msgspec.structs import replace

from harvester.api.v2 import V2
from harvester.errors import (
    CampaignError,
    Forbidden,
    HarvestError,
    QuotaExceeded,
    ServerTrouble,
    Throttled,
    TransportTrouble,
    Unauthorized,
    Unreadable,
)
from harvester.model import Request
from harvester.request.http import HttpSender, open_session
from harvester.request.retry import RetryingFetcher
from harvester.request.retry_policy import RetryBudget, RetryPolicy, Tries
from harvester.runtime import StopSignal

KEY, TOKEN = "canary-key-1234", "canary-token-5678"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def sending(
    origin: str, *, timeout: float = 10.0, cap: int = 100_000, proxy: str | None = None
) -> AsyncIterator[HttpSender]:
    """A sender for one origin."""
    session = open_session(connections=4, timeout=timeout)
    try:
        yield HttpSender(
            session, V2(origin), credentials_of(TOKEN, KEY), max_page_bytes=cap, proxy=proxy
        )
    finally:
        await session.close()


@asynccontextmanager
async def served(handler: Handler, **options: Any) -> AsyncIterator[HttpSender]:
    """A sender for a server of one handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app)
    await server.start_server()
    try:
        async with sending(str(server.make_url("")).rstrip("/"), **options) as sender:
            yield sender
    finally:
        await server.close()


class RawServer:
    """A server that answers every connection with the same bytes, then ends it."""

    def __init__(self, answer: bytes | None, *, abort: bool = False) -> None:
        self.answer, self.abort = answer, abort
        self.requests = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.over = asyncio.Event()

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self.over.set()
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
        await self.server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.writers.append(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            if self.answer is None:
                await self.over.wait()
            else:
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        if self.abort:
            writer.transport.abort()
        writer.close()


def answering(body: bytes, status: int = 200, **headers: str) -> Handler:
    """A handler of one answer."""

    async def handler(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return handler


async def test_a_request_is_sent_once_with_key_and_token() -> None:
    """At the API's own path, the cursor as the bytes it came in, key and token added."""
    asked: list[web.Request] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return web.Response(body=b"[]", headers={"Set-Cookie": "c=1"})

    async with served(handler) as sender:
        link = f"{PATH}?next=a%2Fb%2fc%20d+e%C3%A9&x=%"
        assert await sender.send(make_request(link=link)) == b"[]"
        assert await sender.send(make_request(link=PATH)) == b"[]"
    first, second = asked
    assert first.raw_path == f"{link}&api_key={KEY}"
    assert second.raw_path == f"{PATH}?api_key={KEY}"
    assert first.method == "GET"
    assert first.headers.getall("Authorization") == [f"Bearer {TOKEN}"]
    assert first.headers["Accept"] == "application/json"
    assert first.headers["Accept-Encoding"] == "gzip"
    assert first.headers["User-Agent"].startswith("harvester/")
    assert "Cookie" not in second.headers


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, b"", ServerTrouble),
        (500, b'{"error_key":"quota_exceeded"}', ServerTrouble),
        (503, b'[{"error_key":"mashery.not.authorized.over.qps"}]', ServerTrouble),
        (403, b'{"error_key":"quota_exceeded"}', QuotaExceeded),
        (403, b"", Forbidden),
        (401, b"", Unauthorized),
        (403, b'[{"error_key":"mashery.not.authorized.over.qps"}]', Throttled),
        (404, b"", CampaignError),
        (204, b"", Unreadable),
    ],
)
async def test_an_answer_is_classified(status: int, body: bytes, kind: type[HarvestError]) -> None:
    """Whatever is no 200 is raised as what it means."""
    async with served(answering(body, status, Retry_After="3")) as sender:
        with pytest.raises(kind):
            await sender.send(make_request())


async def test_a_redirect_is_not_followed() -> None:
    """The campaign fails, and nothing is asked where it leads."""
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere?canary=1"})

    async with served(handler) as sender:
        with pytest.raises(CampaignError) as caught:
            await sender.send(make_request())
    assert caught.value.kind == "redirected"
    assert asked == [PATH]


async def test_a_page_over_the_cap_is_refused() -> None:
    """`max_page_bytes` bounds what one page may cost."""
    async with served(answering(b"x" * 1_001), cap=1_000) as sender:
        with pytest.raises(Unreadable) as caught:
            await sender.send(make_request())
    assert caught.value.cause == "too_large"


PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "abort", "cause"),
    [
        (b"", False, "reset"),
        (b"", True, "reset"),
        (PAGE + b"half", False, "cut"),
        (PAGE + b"half", True, None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", False, "cut"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", False, "protocol"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", False, "protocol"),
        (None, False, "timeout"),
    ],
)
async def test_trouble_on_the_wire_has_its_cause(
    answer: bytes | None, abort: bool, cause: str | None
) -> None:
    """Dropped, cut, not HTTP, or too slow: one request, one error, none of it a status."""
    server = RawServer(answer, abort=abort)
    async with server as origin, sending(origin, timeout=0.3) as sender:
        with pytest.raises(TransportTrouble) as caught:
            await sender.send(make_request())
    assert cause is None or caught.value.cause == cause
    assert caught.value.status is None
    assert str(caught.value)
    assert server.requests == 1


async def test_a_refused_connection_has_its_cause() -> None:
    """No server listens at the port."""
    async with RawServer(b"") as origin:
        pass
    async with sending(origin) as sender:
        with pytest.raises(TransportTrouble, match="cannot connect") as caught:
            await sender.send(make_request())
    assert caught.value.cause == "connect"


@pytest.mark.parametrize("status", [407, 403, 502])
async def test_a_refusal_of_the_proxy_is_told_as_the_proxys(status: int) -> None:
    """By its status; its text may repeat the password, and is not quoted."""
    refusal = f"HTTP/1.1 {status} canary {KEY}\r\nX: canary\r\nContent-Length: 0\r\n\r\n"
    async with RawServer(refusal.encode()) as server:
        proxy = server.replace("//", "//me:canary@")
        async with sending("https://api.invalid", proxy=proxy) as sender:
            with pytest.raises(TransportTrouble) as caught:
                await sender.send(make_request())
    assert str(caught.value) == f"the proxy answered HTTP {status}"
    assert (caught.value.cause, caught.value.status) == ("proxy", None)
    assert "canary" not in shown(caught.value)


async def test_a_proxy_that_is_not_there_is_told_as_such() -> None:
    """Not as if the API could not be reached."""
    async with RawServer(b"") as server:
        pass
    async with sending("https://api.invalid", proxy=server) as sender:
        with pytest.raises(TransportTrouble, match="cannot connect to the proxy: ") as caught:
            await sender.send(make_request())
    assert caught.value.cause == "connect"


async def test_a_certificate_that_is_not_valid_is_told() -> None:
    """What is no TLS, or not the server it says, is never talked to."""
    server = RawServer(b"HTTP/1.1 400 Bad\r\n\r\n")
    async with server as plain, sending(plain.replace("p:", "ps:"), timeout=0.3) as sender:
        with pytest.raises(TransportTrouble) as caught:
            await sender.send(make_request())
    assert caught.value.cause in {"connect", "tls", "timeout"}


async def test_other_trouble_of_the_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown error is quoted by its class alone: its text may hold a secret."""
    async with sending("http://127.0.0.1:1") as sender:

        def broken(*_: object, **__: object) -> None:
            raise aiohttp.ClientError(f"canary {KEY}")

        monkeypatch.setattr(aiohttp.ClientSession, "get", broken)
        with pytest.raises(TransportTrouble) as caught:
            await sender.send(make_request())
    assert str(caught.value) == "the request failed (ClientError)"
    assert caught.value.cause == "connection"


async def test_a_cursor_that_is_not_ascii_is_escaped() -> None:
    """It would break the request line; everything else goes out as the bytes it came in."""
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.raw_path)
        return web.Response(body=b"[]")

    async with served(handler) as sender:
        await sender.send(make_request(link=f"{PATH}?next=a%2Fb/é~!"))
    assert asked == [f"{PATH}?next=a%2Fb/%C3%A9~!&api_key={KEY}"]


@pytest.mark.parametrize(
    ("status", "encoding", "kind"),
    [
        (500, "gzip", ServerTrouble),
        (500, "br", ServerTrouble),
        (403, "gzip", TransportTrouble),
        (403, "br", Unreadable),
    ],
)
async def test_a_damaged_error_body_does_not_hide_the_status(
    status: int, encoding: str, kind: type[ServerTrouble | TransportTrouble | Unreadable]
) -> None:
    """Only a 403 needs its body: what it means is said there alone."""
    handler = answering(b"no gzip", status, Content_Encoding=encoding)
    async with served(handler) as sender:
        with pytest.raises(kind) as caught:
            await sender.send(make_request())
    assert caught.value.status == status


# -- secrets -----------------------------------------------------------------------------------


def escaped(secret: str) -> str:
    """A secret as a JSON writer may spell it."""
    return "".join(f"\\u{ord(char):04x}" for char in secret)


def shown(error: BaseException) -> str:
    """Everything that a log could print of an error."""
    fields = " ".join(f"{value}" for value in vars(error).values())
    return "".join(traceback.format_exception(error)) + repr(error) + fields


async def read_by_the_layer_above(sender: HttpSender, request: Request[Any]) -> None:
    """A single attempt, read and scrubbed."""
    gate: Any = None
    fetcher = RetryingFetcher(
        sender,
        RetryPolicy(),
        credentials=credentials_of(TOKEN, KEY),
        budget=RetryBudget(),
        stop=StopSignal(),
        auth_gate=gate,
    )
    await fetcher._attempt(request, Tries())


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize(
    "body",
    [
        f"you asked /x?api_key={KEY} with Bearer {TOKEN}",
        f'[{{"error_key":"k","error_message":"no {KEY} and no {TOKEN}"}}]',
        f'[{{"error_key":"bad.{KEY}.{TOKEN}","error_message":"m"}}]',
        f'[{{"error_key":"k","error_message":"{"x " * 94}{KEY} {TOKEN}"}}]',
        f"{'x ' * 94}{TOKEN} {KEY}",
        f"{' ' * 790}{TOKEN} {KEY}",
        f'[{{"error_key":"{escaped(TOKEN)}","error_message":"{escaped(KEY)}"}}]',
    ],
    ids=["text", "message", "key", "cut message", "cut text", "cut body", "escaped"],
)
async def test_no_error_shows_a_secret_that_was_echoed(status: int, body: str) -> None:
    """Not in its text, not in its fields, not in part, wherever the server put it."""
    handler = answering(body.encode(), status, Location=f"https://h/{KEY}")
    async with served(handler) as sender:
        request = replace(make_request(), read=partial(V2().read_page, make_request().target, ""))
        with pytest.raises(HarvestError) as caught:
            await read_by_the_layer_above(sender, request)
    assert "canary" not in shown(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
async def test_an_echo_in_another_encoding_is_not_quoted(encoding: str) -> None:
    """Its letters would stand apart, and no search would find them."""
    text = f'[{{"error_key":"{KEY}","error_message":"{TOKEN}"}}]'.encode(encoding)
    async with served(answering(text, 406)) as sender:
        with pytest.raises(HarvestError) as caught:
            await read_by_the_layer_above(sender, make_request())
    assert "canary" not in shown(caught.value).replace(" ", "").replace("\0", "")


@pytest.mark.parametrize("answer", [b"", PAGE + b"half", b"SSH-2.0\r\n\r\n", None])
async def test_no_trouble_on_the_wire_shows_a_secret(answer: bytes | None) -> None:
    """aiohttp's own errors hold the URL and the headers: nothing of them is left."""
    async with RawServer(answer) as origin, sending(origin, timeout=0.3) as sender:
        with pytest.raises(TransportTrouble) as caught:
            await sender.send(make_request())
    assert "canary" not in shown(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request goes where it is sent, whatever HTTP_PROXY says."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with served(answering(b"[]")) as sender:
        assert await sender.send(make_request()) == b"[]"


async def test_a_timeout_is_not_rounded_up() -> None:
    """aiohttp would round one of more than five seconds up to a whole one."""
    session = open_session(connections=1, timeout=6.5)
    assert session.timeout.total == 6.5
    assert session.timeout.ceil_threshold >= 6.5
    await session.close()


async def test_a_session_holds_no_secret(tmp_path: Path) -> None:
    """No default header, no cookie and no proxy holds one."""
    session = open_session(connections=1, timeout=1)
    assert "Authorization" not in session.headers
    assert session.trust_env is False
    assert isinstance(session.cookie_jar, aiohttp.DummyCookieJar)
    await session.close()
