"""A body is read whole or not at all."""

import gzip
import platform
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aioresponses import aioresponses
from hypothesis import given
from hypothesis import strategies as st

from harvester.errors import TransportTrouble, Unreadable
from harvester.request.body import inflate, read_body, read_error_body

TEXT = b'{"results":[' + b",".join(b'{"n":%d}' % n for n in range(200)) + b"]}"
GZIPPED = gzip.compress(TEXT, mtime=0)
CAP = 10_000
FAULTS = """
import resource, socket, sys
import anyio
from harvester.request.http import open_session

async def opened():
    async with open_session(connections=1, timeout=1.0):
        pass

if sys.argv[1] == "session":
    anyio.run(opened)
else:
    anyio.run(anyio.sleep, 0)
here, there = socket.socketpair()
here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
before, bodies = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, []
for _ in range(300):
    here.sendall(bytes(90_000))
    body = b""
    while len(body) < 90_000:
        body += there.recv(256 * 1024)  # as asyncio does
    bodies.append(body)
    if len(bodies) == 8:
        bodies.clear()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


# -- gzip --------------------------------------------------------------------------------------


def test_a_whole_stream_is_inflated() -> None:
    """One member, or several as one stream, or an empty one."""
    assert inflate(GZIPPED, cap=CAP) == TEXT
    assert inflate(GZIPPED * 3, cap=CAP) == TEXT * 3
    assert inflate(gzip.compress(b"", mtime=0), cap=CAP) == b""


def test_no_prefix_of_a_stream_is_a_stream() -> None:
    """Cut at any byte, its checksum and length included, it is damaged."""
    for length in range(len(GZIPPED)):
        with pytest.raises(TransportTrouble) as caught:
            inflate(GZIPPED[:length], cap=CAP)
        assert (caught.value.cause, caught.value.status) == ("cut", 200)


@pytest.mark.parametrize("flip", [1, 0x10, 0x80, 0xFF])
def test_any_byte_changed_is_the_same_body_or_an_error(flip: int) -> None:
    """At every place: never other bytes than were meant."""
    for place in range(len(GZIPPED)):
        damaged = bytearray(GZIPPED)
        damaged[place] ^= flip
        try:
            assert inflate(bytes(damaged), cap=CAP) == TEXT
        except (TransportTrouble, Unreadable):
            continue


@given(st.binary(max_size=400), st.integers(0, 9), st.data())
def test_damage_never_goes_unseen(text: bytes, level: int, data: st.DataObject) -> None:
    """One byte changed, dropped or added in any stream: the same body or an error."""
    raw = gzip.compress(text, level, mtime=0)
    place = data.draw(st.integers(0, len(raw) - 1))
    kept = data.draw(st.integers(0, 1))
    put = data.draw(st.binary(min_size=kept, max_size=1))
    damaged = raw[:place] + put + raw[place + 1 - kept + (not put) :]
    try:
        assert inflate(damaged, cap=1_000) == text
    except (TransportTrouble, Unreadable):
        return


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0", TEXT, GZIPPED + b"x", GZIPPED + b"\0" * 8, zlib.compress(TEXT), GZIPPED[:-8]],
    ids=["empty", "nul", "plain", "trailing", "padding", "zlib", "no trailer"],
)
def test_what_is_no_gzip_is_damaged(raw: bytes) -> None:
    """Nothing, something else, or something after the end."""
    with pytest.raises(TransportTrouble, match="gzip"):
        inflate(raw, cap=CAP)


@pytest.mark.parametrize("members", [1, 3])
def test_the_cap_is_exact(members: int) -> None:
    """A body of just that size passes; one byte more does not, however many members it has."""
    raw = GZIPPED * members
    assert inflate(raw, cap=len(TEXT) * members) == TEXT * members
    with pytest.raises(Unreadable) as caught:
        inflate(raw, cap=len(TEXT) * members - 1)
    assert caught.value.cause == "too_large"


def test_a_bomb_is_not_let_off() -> None:
    """Megabytes out of a kilobyte are refused at the cap."""
    with pytest.raises(Unreadable, match="larger than 10000 bytes"):
        inflate(gzip.compress(b"\0" * 20_000_000, mtime=0), cap=CAP)


def test_no_room_is_enough_for_nothing() -> None:
    """After a body that filled the cap to the byte, an empty member still fits."""
    assert inflate(GZIPPED + gzip.compress(b"", mtime=0), cap=len(TEXT)) == TEXT


# -- over a wire -------------------------------------------------------------------------------

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server of one handler; gives its URL."""
    servers: list[TestServer] = []

    async def start(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> str:
        app = web.Application()
        app.router.add_get("/", handler)
        servers.append(TestServer(app))
        await servers[-1].start_server()
        return str(servers[-1].make_url("/"))

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that leaves the bytes as they came."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


def answering(
    raw: bytes, *, chunked: bool = False, status: int = 200, **headers: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler that sends these very bytes."""

    async def handler(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = web.StreamResponse(status=status, headers=named)
        if chunked:
            answer.enable_chunked_encoding()
        else:
            answer.content_length = len(raw)
        await answer.prepare(request)
        await answer.write(raw)
        await answer.write_eof()
        return answer

    return handler


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("raw", "encoding"),
    [(TEXT, None), (TEXT, "identity"), (TEXT, ""), (GZIPPED, "gzip"), (GZIPPED, " X-GZip ")],
)
async def test_a_body_is_read_as_it_was_meant(
    serve: Serve, session: aiohttp.ClientSession, raw: bytes, encoding: str | None, chunked: bool
) -> None:
    """Plain or gzip, of announced or unknown length."""
    headers = {} if encoding is None else {"Content_Encoding": encoding}
    url = await serve(answering(raw, chunked=chunked, **headers))
    async with session.get(url) as response:
        assert await read_body(response, cap=CAP) == TEXT


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "rot13"])
async def test_an_encoding_that_was_not_asked_for_is_refused(
    serve: Serve, session: aiohttp.ClientSession, encoding: str
) -> None:
    """The bytes would not be what they seem."""
    url = await serve(answering(TEXT, Content_Encoding=encoding))
    async with session.get(url) as response:
        with pytest.raises(Unreadable, match="not asked for"):
            await read_body(response, cap=CAP)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [CAP, CAP + 1, 3_000_000])
async def test_a_body_over_the_cap_is_not_read_to_its_end(
    serve: Serve, session: aiohttp.ClientSession, chunked: bool, size: int
) -> None:
    """Whether its length was announced or not; the connection is closed, not drained."""
    url = await serve(answering(b"x" * size, chunked=chunked))
    async with session.get(url) as response:
        if size <= CAP:
            assert len(await read_body(response, cap=CAP)) == size
            return
        with pytest.raises(Unreadable) as caught:
            await read_body(response, cap=CAP)
        assert caught.value.cause == "too_large"
        assert response.closed


@pytest.mark.parametrize(
    ("raw", "headers", "found"),
    [
        (b"[]", {}, b"[]"),
        (b"?", {"Content_Encoding": "br"}, b""),
        (b"x" * 100_000, {}, b""),
        (gzip.compress(b"[]", mtime=0), {"Content_Encoding": "gzip"}, b"[]"),
    ],
)
async def test_an_error_answer_speaks_if_it_can(
    serve: Serve, session: aiohttp.ClientSession, raw: bytes, headers: dict[str, str], found: bytes
) -> None:
    """Its status means enough: a body that is not worth reading is empty."""
    url = await serve(answering(raw, status=500, **headers))
    async with session.get(url) as response:
        assert await read_error_body(response) == found


@pytest.mark.parametrize(
    ("raw", "encoding", "kind"),
    [
        (b"?", "br", Unreadable),
        (TEXT, "gzip", TransportTrouble),
        (GZIPPED[:-1], "gzip", TransportTrouble),
    ],
)
async def test_a_403_that_cannot_be_read_is_no_refusal(
    serve: Serve,
    session: aiohttp.ClientSession,
    raw: bytes,
    encoding: str,
    kind: type[TransportTrouble | Unreadable],
) -> None:
    """It may have meant too fast: it is an error of its own, with the status that it had."""
    url = await serve(answering(raw, status=403, Content_Encoding=encoding))
    async with session.get(url) as response:
        with pytest.raises(kind) as caught:
            await read_error_body(response)
    assert caught.value.status == 403


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_403_that_is_too_large_says_nothing(
    serve: Serve, session: aiohttp.ClientSession, encoding: str
) -> None:
    """A limit is named in a few words: a long page is a refusal like any other."""
    raw = b"x" * 100_000
    raw = gzip.compress(raw, mtime=0) if encoding == "gzip" else raw
    url = await serve(answering(raw, status=403, Content_Encoding=encoding))
    async with session.get(url) as response:
        assert await read_error_body(response) == b""


@pytest.mark.parametrize(
    "raw",
    [b"x" * 2_000, gzip.compress(b"x" * 2_000, mtime=0), TEXT, GZIPPED[:-1]],
    ids=["large", "bomb", "plain", "cut"],
)
async def test_an_error_of_a_body_has_the_status_of_the_answer(
    serve: Serve, session: aiohttp.ClientSession, raw: bytes
) -> None:
    """Too large or damaged, before or after it is inflated."""
    encoding = "identity" if raw.startswith(b"x") else "gzip"
    url = await serve(answering(raw, status=418, Content_Encoding=encoding))
    async with session.get(url) as response:
        with pytest.raises((TransportTrouble, Unreadable)) as caught:
            await read_body(response, cap=1_000)
    assert caught.value.status == 418


async def test_a_canned_answer_is_read_too() -> None:
    """A faked answer without any socket goes the same way."""
    canned = partial(aiohttp.ClientResponse, stream_writer=Mock(output_size=0))
    with aioresponses() as mocked:
        mocked.get(
            "http://api.invalid/",
            body=GZIPPED,
            headers={"Content-Encoding": "gzip"},
            response_class=canned,
        )
        async with aiohttp.ClientSession() as session, session.get("http://api.invalid/") as answer:
            assert await read_body(answer, cap=CAP) == TEXT


# -- its memory --------------------------------------------------------------------------------


def faults(how: str) -> int:
    """Pages of memory that 300 bodies took anew, in a process of its own."""
    run = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(run, check=True, capture_output=True, timeout=60).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator has other habits")
def test_a_body_takes_the_memory_of_those_before() -> None:
    """Once a session was opened; else the system takes it back and clears it each time."""
    assert faults("session") < faults("none") / 4
