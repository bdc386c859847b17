"""A sick or hostile server, met over raw sockets: nothing lost, nothing leaked, nothing wrong."""

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faultserver import (
    CLOSE,
    RESET,
    STALL,
    Answer,
    FaultServer,
    Late,
    Question,
    World,
    chunked,
    framed,
    gzipped,
    measured,
    page,
    refusal,
    serving,
    unframed,
)

from harvester import HarvestConfig, HarvestReport, harvest
from harvester.errors import HarvestError
from harvester.events import CampaignCompleted, CampaignFailed
from harvester.request.body import inflate

GZIP = "Content-Encoding: gzip"
WORLD = World(pages=3, rows=4)
# Two empty-result answers that would pass for a campaign without a single open.
EMPTY = gzipped(b'{"meta":{"pagination":{}},"results":[]}')

Fault = Callable[[bytes], Answer]


def gz(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def deflated(body: bytes) -> bytes:
    return zlib.compress(body)


# A brotli stream of one stored block: what a server sends that does not care what was asked for.
def brotli(body: bytes) -> bytes:
    return b"\x0b" + (len(body) - 1).to_bytes(2, "little") + b"\x80" + body + b"\x03"


# Each fault of one answer, and the kind under which its campaign fails if it never heals.
FAULTS: dict[str, tuple[str, Fault]] = {
    "dropped": ("reset", lambda body: Answer(b"", CLOSE)),
    "reset": ("reset", lambda body: Answer(b"", RESET)),
    "status_line_cut": ("reset", lambda body: Answer(b"HTTP/1.1 20", CLOSE)),
    "headers_cut": ("reset", lambda body: Answer(framed(body)[:40], CLOSE)),
    "body_reset": ("cut", lambda body: Answer(framed(body)[:-40], RESET)),
    "length_too_large": ("cut", lambda body: Answer(framed(body, length=len(body) + 10), CLOSE)),
    "length_too_small": ("protocol", lambda body: Answer(framed(body, length=len(body) - 40))),
    "length_too_small_closed": (
        "protocol",
        lambda body: Answer(framed(body, length=len(body) - 40), CLOSE),
    ),
    "gzip_length_too_small": (
        "protocol",
        lambda body: Answer(framed(gz(body), GZIP, length=len(gz(body)) - 8)),
    ),
    "no_length_closed_early": ("unreadable", lambda body: Answer(unframed(body[:-40]), CLOSE)),
    "no_length_gzip_closed_early": (
        "cut",
        lambda body: Answer(unframed(gz(body)[:-40], GZIP), CLOSE),
    ),
    "chunks_without_end": ("cut", lambda body: Answer(chunked(body, end=b""), CLOSE)),
    "chunk_size_garbage": ("protocol", lambda body: Answer(chunked(body, end=b"zz\r\n"))),
    "chunk_size_garbage_at_once": (
        "protocol",
        lambda body: Answer(unframed(b"-5\r\nabc\r\n", "Transfer-Encoding: chunked")),
    ),
    "chunks_and_length": ("protocol", lambda body: Answer(chunked(body, "Content-Length: 9"))),
    "gzip_cut": ("cut", lambda body: Answer(framed(gz(body)[:-20], GZIP))),
    "gzip_cut_in_whole_chunks": ("cut", lambda body: Answer(chunked(gz(body)[:-20], GZIP))),
    "gzip_without_trailer": ("cut", lambda body: Answer(framed(gz(body)[:-8], GZIP))),
    "gzip_wrong_crc": (
        "cut",
        lambda body: Answer(framed(gz(body)[:-8] + b"\0\0\0\0" + gz(body)[-4:], GZIP)),
    ),
    "gzip_wrong_size": ("cut", lambda body: Answer(framed(gz(body)[:-4] + b"\0\0\0\0", GZIP))),
    "gzip_trailing_garbage": ("cut", lambda body: Answer(framed(gz(body) + b"garbage", GZIP))),
    "gzip_second_member_cut": (
        "cut",
        lambda body: Answer(framed(gz(body[:99]) + gz(body[99:])[:-9], GZIP)),
    ),
    "gzip_second_member_missing": ("unreadable", lambda body: Answer(framed(gz(body[:99]), GZIP))),
    "not_gzip": ("cut", lambda body: Answer(framed(body, GZIP))),
    "empty_gzip": ("cut", lambda body: Answer(framed(b"", GZIP))),
    "deflate": (
        "unreadable",
        lambda body: Answer(framed(deflated(body), "Content-Encoding: deflate")),
    ),
    "deflate_cut": (
        "unreadable",
        lambda body: Answer(framed(deflated(body)[:-9], "Content-Encoding: deflate")),
    ),
    "brotli": ("unreadable", lambda body: Answer(framed(brotli(body), "Content-Encoding: br"))),
    "brotli_cut": (
        "unreadable",
        lambda body: Answer(framed(brotli(body)[:-9], "Content-Encoding: br")),
    ),
    "unknown_encoding": (
        "unreadable",
        lambda body: Answer(framed(body, "Content-Encoding: rot13")),
    ),
    "gzip_of_gzip": (
        "unreadable",
        lambda body: Answer(framed(gz(gz(body)), "Content-Encoding: gzip, gzip")),
    ),
    "gzip_unannounced": ("unreadable", lambda body: Answer(framed(gz(body)))),
    "header_line_too_long": (
        "protocol",
        lambda body: Answer(framed(body, "X-Long: " + "x" * 9000)),
    ),
    "too_many_headers": (
        "protocol",
        lambda body: Answer(framed(body, *(f"X-{n}: {n}" for n in range(150)))),
    ),
    "header_with_nul": ("protocol", lambda body: Answer(framed(body, "X-Nul: a\0b"))),
    "two_lengths": ("protocol", lambda body: Answer(framed(body, "Content-Length: 5"))),
    "length_no_number": ("protocol", lambda body: Answer(unframed(body, "Content-Length: many"))),
    "length_negative": ("protocol", lambda body: Answer(unframed(body, "Content-Length: -1"))),
    "garbage_status_line": ("protocol", lambda body: Answer(b"BLAH blah\r\n\r\n", CLOSE)),
    "status_no_number": ("protocol", lambda body: Answer(framed(body, status="2xx OK"), CLOSE)),
    "another_protocol": ("protocol", lambda body: Answer(b"SSH-2.0-OpenSSH_9.2\r\n", CLOSE)),
    "status_204": ("unreadable", lambda body: Answer(unframed(b"", status="204 No Content"))),
    "status_206": ("unreadable", lambda body: Answer(framed(body, status="206 Partial"))),
    "status_101": ("unreadable", lambda body: Answer(framed(b"", status="101 Switching"))),
    "status_999": ("server_error", lambda body: Answer(framed(b"", status="999 Denied"))),
    "html": ("unreadable", lambda body: Answer(framed(b"<html><body>Welcome</body></html>"))),
    "empty_body": ("unreadable", lambda body: Answer(framed(b""))),
    "blank_body": ("unreadable", lambda body: Answer(framed(b" \n"))),
    "null": ("unreadable", lambda body: Answer(framed(b"null"))),
    "array": ("unreadable", lambda body: Answer(framed(b"[" + body + b"]"))),
    "no_results": ("unreadable", lambda body: Answer(framed(b'{"meta":{"pagination":{}}}'))),
    "results_null": ("unreadable", lambda body: Answer(framed(b'{"results":null}'))),
    "results_object": ("unreadable", lambda body: Answer(framed(b'{"results":{}}'))),
    "row_no_object": ("unreadable", lambda body: Answer(framed(b'{"results":[{},7]}'))),
    "link_no_text": (
        "unreadable",
        lambda body: Answer(framed(b'{"results":[],"meta":{"pagination":{"next_link":7}}}')),
    ),
    "link_lone_surrogate": (
        "unreadable",
        lambda body: Answer(framed(re.sub(rb"next=\d+-3", rb"next=\\ud800", body))),
    ),
    "another_campaign": ("unreadable", lambda body: Answer(gzipped(WORLD.body("99", 2)))),
    "two_documents": ("unreadable", lambda body: Answer(framed(body + body))),
    "not_utf8": ("unreadable", lambda body: Answer(framed(body.replace(b"person", b"p\xe9rson")))),
    "nested_too_deeply": (
        "unreadable",
        lambda body: Answer(framed(b'{"results":[' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000)),
    ),
}

# What is unusual and right.
FINE: dict[str, Fault] = {
    "plain": lambda body: Answer(framed(body)),
    "no_length": lambda body: Answer(unframed(body), CLOSE),
    "chunks": lambda body: Answer(chunked(body, size=7)),
    "gzip_in_chunks": lambda body: Answer(chunked(gz(body), GZIP, size=11)),
    "two_gzip_members": lambda body: Answer(framed(gz(body[:99]) + gz(body[99:]), GZIP)),
    "empty_gzip_member": lambda body: Answer(framed(gz(body) + gz(b""), GZIP)),
    "x_gzip": lambda body: Answer(framed(gz(body), "Content-Encoding: X-GZip")),
    "identity": lambda body: Answer(framed(body, "Content-Encoding: identity")),
    "continue_first": lambda body: Answer(b"HTTP/1.1 100 Continue\r\n\r\n" + framed(body)),
    "another_answer_behind": lambda body: Answer(gzipped(body) + EMPTY),
    "byte_order_mark": lambda body: Answer(framed(b"\xef\xbb\xbf" + body)),
    "pretty_printed": lambda body: Answer(framed(json.dumps(json.loads(body), indent=4).encode())),
}


class Out:
    """What a run left behind."""

    def __init__(self, root: Path) -> None:
        self.root = root / "out"

    def finished(self) -> dict[str, bytes]:
        """The finished files by campaign."""
        return {p.stem: p.read_bytes() for p in sorted(self.root.glob("opens/*.ndjson"))}

    def part(self, campaign: str) -> bytes:
        """The unfinished file of a campaign."""
        return (self.root / f"opens/{campaign}.ndjson.part").read_bytes()

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A report's lines."""
        return [json.loads(line) for line in (self.root / name).read_bytes().splitlines()]

    def kinds(self) -> dict[str, str]:
        """Why each failed campaign failed."""
        return {line["campaign_id"]: line["kind"] for line in self.lines("errors.ndjson")}


@pytest.fixture
def out(tmp_path: Path) -> Out:
    return Out(tmp_path)


def whole(*campaigns: str, world: World = WORLD) -> dict[str, bytes]:
    """The files of campaigns that are complete."""
    return {campaign: world.file(campaign) for campaign in sorted(campaigns)}


def assert_charged_is_seen(report: HarvestReport, server: FaultServer) -> None:
    """No request was sent behind the ledger's back, and none was charged that was not sent."""
    assert report.quota.used_today == len(server.heads)


# -- one answer at a time --------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
async def test_faulty_answer_fails_its_campaign_and_the_next_run_completes_it(
    name: str, tmp_path: Path, out: Out
) -> None:
    """A faulty second page fails the campaign with its kind, keeps page one, and costs one GET."""
    kind, fault = FAULTS[name]
    sick = True

    def script(question: Question) -> Answer:
        if sick and question.page == 2:
            return fault(WORLD.body("1", 2))
        return WORLD.honest(question)

    async with serving(script) as server:
        config = server.config(tmp_path)
        report = await harvest(["1"], config)
        assert (report.exit_code, report.rows, report.requests.sent) == (3, 4, 2)
        assert out.kinds() == {"1": kind}
        assert out.finished() == {}
        assert out.part("1") == WORLD.file("1", pages=1)
        assert_charged_is_seen(report, server)
        sick = False
        report = await harvest(["1"], config)
        assert report.exit_code == 0
        assert out.finished() == whole("1")
        assert_charged_is_seen(report, server)


@pytest.mark.parametrize("name", FINE)
async def test_unusual_but_right_answer_gives_every_row(
    name: str, tmp_path: Path, out: Out
) -> None:
    """An answer that is framed or encoded in an unusual but legal way is read whole."""

    def script(question: Question) -> Answer:
        return FINE[name](WORLD.body(question.campaign, question.page))

    async with serving(script) as server:
        report = await harvest(["1"], server.config(tmp_path))
        assert report.exit_code == 0
        assert out.finished() == whole("1")
        assert_charged_is_seen(report, server)
        assert len(server.heads) == 3


async def test_every_fault_heals_within_one_run_and_every_request_is_charged(
    tmp_path: Path, out: Out
) -> None:
    """Each fault once in a campaign's life is retried away, and no GET goes out uncounted."""
    faults = {str(n): fault for n, (_, fault) in enumerate(FAULTS.values(), start=100)}

    def script(question: Question) -> Answer:
        if question.page == 2 and question.times == 0:
            return faults[question.campaign](WORLD.body(question.campaign, 2))
        return WORLD.honest(question)

    async with serving(script) as server:
        report = await harvest(list(faults), server.config(tmp_path, retries=2, concurrency=64))
        assert report.exit_code == 0
        assert out.finished() == whole(*faults)
        assert_charged_is_seen(report, server)
        assert len(server.heads) == 4 * len(faults) == report.requests.sent
        assert len(out.lines("retries.ndjson")) == len(faults) == report.requests.retried


@pytest.mark.parametrize(
    ("status", "kind"), [("404 Not Found", "not_found"), ("406 Not Acceptable", "rejected")]
)
@pytest.mark.parametrize(
    "damage",
    [
        lambda status: Answer(framed(gz(b"[{}]")[:-9], GZIP, status=status)),
        lambda status: Answer(framed(b"not gzip", GZIP, status=status)),
        lambda status: Answer(framed(b"?", "Content-Encoding: br", status=status)),
        lambda status: Answer(framed(b"[{", status=status, length=99), CLOSE),
        lambda status: Answer(framed(gz(b" " * 10_000_000), GZIP, status=status)),
        lambda status: Answer(framed(b"\xff\xfe[[[[", status=status)),
    ],
    ids=["gzip_cut", "not_gzip", "brotli", "cut", "bomb", "garbage"],
)
async def test_status_speaks_even_if_its_body_is_damaged(
    status: str, kind: str, damage: Callable[[str], Answer], tmp_path: Path, out: Out
) -> None:
    """A refusal is classified by its status line, whatever became of its body."""
    async with serving(lambda question: damage(status)) as server:
        report = await harvest(["1"], server.config(tmp_path))
        assert report.exit_code == 3
        (line,) = out.lines("errors.ndjson")
        assert (line["kind"], line["status"]) == (kind, int(status[:3]))


async def test_answer_that_was_not_asked_for_is_never_the_next_campaigns_page(
    tmp_path: Path, out: Out
) -> None:
    """Bytes that arrive on an idle connection are not taken for the answer to the next request."""
    world, due, done = World(pages=1), asyncio.Event(), asyncio.Event()

    def script(question: Question) -> Answer:
        late = Late(EMPTY, due, done) if question.campaign == "1" else None
        return Answer(gzipped(world.body(question.campaign, 1)), late=late)

    async def ids() -> AsyncIterator[str]:
        yield "1"
        await idle.wait()
        due.set()
        await done.wait()
        for _ in range(10):  # turns of the loop, for the bytes to come in
            await asyncio.sleep(0)
        yield "2"

    idle = asyncio.Event()

    def observe(event: object) -> None:
        if isinstance(event, CampaignCompleted | CampaignFailed):
            idle.set()

    async with serving(script) as server:
        report = await harvest(ids(), server.config(tmp_path), observe=observe)
        assert report.exit_code == 0
        assert out.finished() == whole("1", "2", world=world)
        assert_charged_is_seen(report, server)


# -- cut, damaged and oversized bodies -------------------------------------------------------


def test_every_prefix_of_a_compressed_page_is_an_error() -> None:
    """A gzip stream that lacks even its last byte is never read as a page."""
    stream = gz(WORLD.body("1", 1))
    assert inflate(stream, cap=1 << 20) == WORLD.body("1", 1)
    for end in range(len(stream)):
        with pytest.raises(HarvestError):
            inflate(stream[:end], cap=1 << 20)


def test_every_prefix_of_a_second_member_is_an_error() -> None:
    """A stream of two members is as strict about its second as about its first."""
    first, second = gz(b'{"results":'), gz(b"[]}")
    assert inflate(first + second, cap=1 << 20) == b'{"results":[]}'
    for end in range(1, len(second)):
        with pytest.raises(HarvestError):
            inflate(first + second[:end], cap=1 << 20)


def test_thousands_of_gzip_members_are_refused() -> None:
    """Twenty bytes a member would keep the reader busy for an hour within the size cap."""
    with pytest.raises(HarvestError):
        inflate(gz(b"") * 20_000, cap=1 << 26)


async def test_prefixes_of_a_compressed_page_fail_over_the_wire(tmp_path: Path, out: Out) -> None:
    """A page cut anywhere inside a correctly framed answer never becomes a file."""
    world = World(pages=1)
    stream = gz(world.body("1", 1))
    ends = {str(end + 1): end for end in {*range(0, len(stream), 5), len(stream) - 1}}

    def script(question: Question) -> Answer:
        return Answer(framed(gz(world.body(question.campaign, 1))[: ends[question.campaign]], GZIP))

    async with serving(script) as server:
        report = await harvest(list(ends), server.config(tmp_path))
        assert report.exit_code == 3
        assert set(out.kinds().values()) == {"cut"}
        assert report.campaigns.failed == len(ends)
        assert out.finished() == {}
        assert_charged_is_seen(report, server)


async def test_page_over_the_cap_fails_in_whatever_way_it_comes(tmp_path: Path, out: Out) -> None:
    """A body over `max_page_bytes` is refused: announced, unannounced, in chunks, compressed."""
    large = b'{"results":[' + b" " * 300_000 + b"]}"
    ways = {
        "1": Answer(framed(large)),
        "2": Answer(unframed(large), CLOSE),
        "3": Answer(chunked(large, size=60_000)),
        "4": Answer(framed(gz(large), GZIP)),
        "5": Answer(framed(gz(large[:150_000]) + gz(large[150_000:]), GZIP)),
        "6": Answer(framed(large, length=1 << 62), STALL),
    }

    def script(question: Question) -> Answer:
        return ways.get(question.campaign) or WORLD.honest(question)

    async with serving(script) as server:
        report = await harvest(
            [*ways, "7", "8"], server.config(tmp_path, max_page_bytes=200_000, concurrency=2)
        )
        assert report.exit_code == 3
        assert out.kinds() == dict.fromkeys(ways, "too_large")
        assert out.finished() == whole("7", "8")
        assert_charged_is_seen(report, server)


MEGABYTE = 1 << 20


def gibibyte() -> bytes:
    """One GiB of blanks as a valid gzip stream of about 1 MiB, made without having one."""
    blanks = b" " * MEGABYTE
    deflate = zlib.compressobj(9, wbits=-15)
    once = deflate.compress(blanks) + deflate.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(1024):
        crc = zlib.crc32(blanks, crc)
    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    trailer = crc.to_bytes(4, "little") + (1024 * MEGABYTE).to_bytes(4, "little")
    return header + once * 1024 + deflate.flush() + trailer


async def test_gibibyte_bomb_costs_one_campaign_and_little_memory(tmp_path: Path, out: Out) -> None:
    """Bombs of 1 GiB, as a page and as an error, stay below 200 MB; the others complete."""
    bomb = gibibyte()
    bombs = {
        "1": Answer(framed(bomb, GZIP)),
        "2": Answer(chunked(bomb, GZIP, size=65_536)),
        "3": Answer(framed(bomb, GZIP, status="500 Oops")),
    }

    def script(question: Question) -> Answer:
        return bombs.get(question.campaign) or WORLD.honest(question)

    good = [str(n) for n in range(10, 20)]
    async with serving(script) as server:
        found = await measured([*good[:5], *bombs, *good[5:]], tmp_path, server)
        print(f"peak memory with 1 GiB bombs: {found['peak'] / 1e6:.0f} MB")
        assert found["exit_code"] == 3
        assert found["peak"] < 200e6
        assert out.kinds() == {"1": "too_large", "2": "too_large", "3": "server_error"}
        assert out.finished() == whole(*good)


async def test_slow_loris_ends_in_time_and_others_go_on(tmp_path: Path, out: Out) -> None:
    """A server that drips headers, a body or nothing at all is timed out; fifty others complete."""
    body = WORLD.body("1", 1)
    slow = {
        "1": Answer(framed(body), every=0.05),
        "2": Answer(b"HTTP/1.1 200 OK\r\nX-Drip: " + b"x" * 4000, every=0.02),
        "3": Answer(b"X-Drip: 1\r\n", every=0.02),
        "4": Answer(b"HTTP/1.1 100 Continue\r\n\r\n", every=0.01),
        "5": Answer(framed(body)[:-20], STALL),
        "6": Answer(b"", STALL),
        "7": Answer(framed(b"", "Transfer-Encoding: chunked")[:-20], STALL),
    }
    good = [str(n) for n in range(10, 60)]

    def script(question: Question) -> Answer:
        return slow.get(question.campaign) or WORLD.honest(question)

    async with serving(script) as server:
        report = await harvest(
            [*good[:20], *slow, *good[20:]], server.config(tmp_path, timeout=1.5)
        )
        assert report.exit_code == 3
        kinds = out.kinds()
        # Garbage where a status line belongs may be refused before its time is up.
        assert kinds.pop("3") in {"timeout", "protocol"}
        assert kinds == {name: "timeout" for name in slow if name != "3"}
        assert out.finished() == whole(*good)
        assert_charged_is_seen(report, server)
        assert all("1.5 s" in line["message"] for line in out.lines("errors.ndjson")[1:3])


# -- where a server would like to lead us ----------------------------------------------------


def silent(question: Question) -> Answer:
    """The evil host: whatever it is asked, it was asked too much."""
    return Answer(EMPTY)


REDIRECTS = ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
LOCATIONS = {
    "other_host": "http://localhost:{evil}{path}?next=x",
    "other_port": "http://127.0.0.1:{evil}{path}?next=x",
    "no_scheme": "//127.0.0.1:{evil}{path}?next=x",
    "same_origin": "http://127.0.0.1:{own}/elsewhere",
    "same_host_path": "/elsewhere",
    "itself": "{path}",
    "echo": "http://127.0.0.1:{evil}{target}",
}


async def test_redirect_is_never_followed(tmp_path: Path, out: Out) -> None:
    """No redirect of any kind makes a second request, to the own origin or to another."""
    cases = [(status, location) for status in REDIRECTS for location in LOCATIONS.values()]
    campaigns = {str(n): case for n, case in enumerate(cases, start=100)}

    def script(question: Question) -> Answer:
        if question.campaign not in campaigns:
            return WORLD.honest(question)
        status, location = campaigns[question.campaign]
        where = location.format(
            evil=evil.port, own=server.port, path=question.path, target=question.target
        )
        return Answer(framed(b"", f"Location: {where}", status=status))

    async with serving(silent) as evil, serving(script) as server:
        report = await harvest([*campaigns, "1", "2"], server.config(tmp_path, retries=3))
        assert report.exit_code == 3
        assert out.kinds() == dict.fromkeys(campaigns, "redirected")
        assert {line["status"] for line in out.lines("errors.ndjson")} == {301, 302, 303, 307, 308}
        assert out.finished() == whole("1", "2")
        assert (evil.connections, evil.received) == (0, b"")
        assert all(server.seen(campaign) == 1 for campaign in campaigns)
        assert_charged_is_seen(report, server)


# Each link trick and the kind it fails with; {own} and {evil} are ports, {path} the own report.
LINKS = {
    "absolute": ("foreign_link", "http://127.0.0.1:{evil}{path}?next=x"),
    "another_name": ("foreign_link", "http://localhost:{own}{path}?next=x"),
    "no_scheme": ("foreign_link", "//127.0.0.1:{evil}{path}?next=x"),
    "three_slashes": ("foreign_link", "///127.0.0.1:{evil}{path}?next=x"),
    "userinfo": ("foreign_link", "http://127.0.0.1:{own}@127.0.0.1:{evil}{path}?next=x"),
    "userinfo_of_own": ("foreign_link", "http://user:word@127.0.0.1:{own}{path}?next=x"),
    "empty_userinfo": ("foreign_link", "http://@127.0.0.1:{own}{path}?next=x"),
    "userinfo_no_scheme": ("foreign_link", "//127.0.0.1:{own}@127.0.0.1:{evil}{path}?next=x"),
    "other_scheme": ("foreign_link", "https://127.0.0.1:{own}{path}?next=x"),
    "evil_scheme": ("foreign_link", "https://127.0.0.1:{evil}{path}?next=x"),
    "ftp": ("foreign_link", "ftp://127.0.0.1:{evil}{path}?next=x"),
    "javascript": ("foreign_link", "javascript:alert(1)?next=x"),
    "scheme_without_host": ("foreign_link", "http:{path}?next=x"),
    "encoded_slash_host": ("foreign_link", "http://127.0.0.1:{own}%2f@127.0.0.1:{evil}{path}?n=x"),
    "encoded_slash_in_host": ("foreign_link", "http://127.0.0.1%2f{path}?next=x"),
    "number_for_host": ("foreign_link", "http://2130706433:{evil}{path}?next=x"),
    "short_host": ("foreign_link", "http://127.1:{own}{path}?next=x"),
    "dot_after_host": ("foreign_link", "http://127.0.0.1.:{own}{path}?next=x"),
    "full_width_host": ("foreign_link", "http://①27.0.0.1:{own}{path}?next=x"),
    "other_path": ("foreign_link", "/v2/account/info?next=x"),
    "other_campaign": ("foreign_link", "/v2/emailmarketing/campaigns/2/tracking/opens?next=x"),
    "other_report": ("foreign_link", "/v2/emailmarketing/campaigns/{id}/tracking/clicks?next=x"),
    "below_path": ("foreign_link", "{path}/more?next=x"),
    "slash_after_path": ("foreign_link", "{path}/?next=x"),
    "path_parameter": ("foreign_link", "{path};a=b?next=x"),
    "dots": ("foreign_link", "{path}/../../../../account?next=x"),
    "encoded_dots": ("foreign_link", "{path}/%2e%2e/clicks?next=x"),
    "encoded_slash_in_path": ("foreign_link", "/v2%2Femailmarketing?next=x"),
    "double_slash_in_path": ("foreign_link", "/v2//emailmarketing?next=x"),
    "relative": ("foreign_link", "opens?next=x"),
    "backslashes": ("bad_link", "http:\\\\127.0.0.1:{evil}{path}?next=x"),
    "backslash_for_slash": ("bad_link", "/\\127.0.0.1:{evil}{path}?next=x"),
    "backslash_in_host": ("bad_link", "http://127.0.0.1:{own}\\@127.0.0.1:{evil}{path}?next=x"),
    "backslash_in_cursor": ("bad_link", "{path}?next=a\\b"),
    "fragment": ("bad_link", "{path}?next=x#y"),
    "fragment_for_host": ("bad_link", "http://127.0.0.1:{evil}#@127.0.0.1:{own}{path}?next=x"),
    "header_injection": ("bad_link", "{path}?next=x HTTP/1.1\r\nHost: 127.0.0.1:{evil}\r\n\r\n"),
    "line_feed": ("bad_link", "{path}?next=x\nX-Evil: 1"),
    "tab_in_scheme": ("bad_link", "ht\ttp://127.0.0.1:{evil}{path}?next=x"),
    "nul": ("bad_link", "{path}?next=x\0y"),
    "delete": ("bad_link", "{path}?next=x\x7fy"),
    "blank": ("bad_link", "{path}?next=a b"),
    "blank_in_front": ("bad_link", " http://127.0.0.1:{evil}{path}?next=x"),
    "port_no_number": ("bad_link", "http://127.0.0.1:port{path}?next=x"),
    "port_too_large": ("bad_link", "http://127.0.0.1:99999{path}?next=x"),
    "broken_brackets": ("bad_link", "http://[127.0.0.1{path}?next=x"),
    "no_query": ("bad_link", "{path}"),
    "empty_query": ("bad_link", "{path}?"),
    "nothing_but_a_key": ("bad_link", "{path}?api_key=x"),
    "far_too_long": ("bad_link", "{path}?next=" + "x" * 10_000),
}


async def test_next_link_never_leads_away(tmp_path: Path, out: Out) -> None:
    """Each link that leads anywhere but to the own report fails its campaign; no byte leaves."""
    tricks = {str(n): trick for n, trick in enumerate(LINKS.values(), start=100)}

    def script(question: Question) -> Answer:
        if question.campaign not in tricks:
            return WORLD.honest(question)
        _, link = tricks[question.campaign]
        link = link.format(
            evil=evil.port, own=server.port, path=question.path, id=question.campaign
        )
        return Answer(gzipped(page(WORLD.records(question.campaign, 1), link)))

    async with serving(silent) as evil, serving(script) as server:
        report = await harvest([*tricks, "1", "2"], server.config(tmp_path, retries=3))
        assert report.exit_code == 3
        found = {name: out.kinds().get(id_) for name, id_ in zip(LINKS, tricks, strict=True)}
        assert found == {name: kind for name, (kind, _) in LINKS.items()}
        assert out.finished() == whole("1", "2")
        assert (evil.connections, evil.received) == (0, b"")
        assert all(server.seen(campaign) == 1 for campaign in tricks)
        assert not any((out.root / f"opens/{campaign}.ndjson.part").exists() for campaign in tricks)
        assert_charged_is_seen(report, server)


@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.1:{own}{path}?next=1-2",
        "HTTP://127.0.0.1:{own}{path}?next=1-2",
        "?next=1-2",
        "{path}?next=1-2&api_key=another&access_token=another",
        "{path}?api_key=another&next=1-2",
    ],
)
async def test_next_link_of_the_own_report_is_followed_with_the_own_key(
    link: str, tmp_path: Path, out: Out
) -> None:
    """A link to the own report is followed in each of its spellings, any credential replaced."""

    def script(question: Question) -> Answer:
        if question.page == 1:
            where = link.format(own=server.port, path=question.path)
            return Answer(gzipped(page(WORLD.records("1", 1), where)))
        return WORLD.honest(question)

    async with serving(script) as server:
        report = await harvest(["1"], server.config(tmp_path))
        assert report.exit_code == 0
        assert out.finished() == whole("1")
        assert Question(server.heads[1]).query == "next=1-2&api_key=the-api-key"


async def test_cookies_are_neither_kept_nor_sent(tmp_path: Path, out: Out) -> None:
    """What a server sets as a cookie does not come back to it."""

    def script(question: Question) -> Answer:
        body = gz(WORLD.body(question.campaign, question.page))
        return Answer(framed(body, GZIP, "Set-Cookie: session=abc; Path=/"))

    async with serving(script) as server:
        report = await harvest(["1", "2"], server.config(tmp_path))
        assert report.exit_code == 0
        assert not [head for head in server.heads if re.search(rb"(?i)\r\ncookie:", head)]


async def test_environment_proxies_and_netrc_are_not_used(
    tmp_path: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No proxy variable and no netrc of the environment touches a loopback origin's requests."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    async with serving(silent) as evil, serving(WORLD.honest) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY"):
            monkeypatch.setenv(name, evil.base_url)
            monkeypatch.setenv(name.lower(), evil.base_url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        report = await harvest(["1"], server.config(tmp_path))
        assert report.exit_code == 0
        assert out.finished() == whole("1")
        assert (evil.connections, evil.received) == (0, b"")
        for head in server.heads:
            assert re.findall(rb"(?im)^authorization: (.*)\r$", head) == [
                b"Bearer the-access-token"
            ]
            assert head.startswith(b"GET /v2/")


# -- every byte of a row ---------------------------------------------------------------------

LARGE = "x y" * 7_000_000
ROWS = {
    "thirty_digits": '{"id":123456789012345678901234567890,"n":-9223372036854775809}',
    "past_64_bits": '{"id":18446744073709551616}',
    "trailing_zero": '{"price":1.10,"tiny":1e-7,"huge":1E+400,"minus_zero":-0.0}',
    "duplicate_names": '{"a":1,"a":2,"a":{"b":1,"b":2}}',
    "lone_surrogate": '{"a":"\\ud800","b":"\\udfff\\ud800","\\ud83d":1.10}',
    "surrogate_pair": '{"a":"\\ud83d\\ude00"}',
    "line_separators": '{"a":"\u2028\u2029\u0085\x7f"}',
    "nul_escape": '{"a":"\\u0000","b":"\\u0000\\u001f"}',
    "escapes_kept": '{"a":"\\/ \\u00e9 \\b\\f\\n\\r\\t \\\\ \\" ","b":"\u00e9"}',
    "blanks_in_strings": '{"a  b":"c\\td   e : , [ ] { }"}',
    "empty_object": "{}",
    "nested": '{"a":[[],{},[{"b":[null,true,false]}]]}',
    "unknown_fields": '{"zebra":1,"campaign_id":"{id}","aardvark":[2]}',
    "integer_id": '{"campaign_id":{id}}',
    "twenty_megabytes": '{"text":"LARGE"}',
}


@pytest.mark.parametrize("pretty", [False, True], ids=["compact", "pretty"])
async def test_rows_are_exact_in_the_output(pretty: bool, tmp_path: Path, out: Out) -> None:
    """Every row stands in its file with the very characters that the API sent."""
    rows = {str(n): row.replace("{id}", str(n)) for n, row in enumerate(ROWS.values(), start=10)}

    def script(question: Question) -> Answer:
        row = spread(rows[question.campaign]) if pretty else rows[question.campaign]
        row = row.replace("LARGE", LARGE)
        text = '{"meta": {"pagination": {}},\n "results": [' + ", \r\n\t".join([row, row]) + "]}"
        return Answer(gzipped(text.encode()))

    async with serving(script) as server:
        report = await harvest(list(rows), server.config(tmp_path, concurrency=2))
        assert out.kinds() == {}
        assert report.exit_code == 0
        found = out.finished()
        assert sorted(found) == sorted(rows)
        # Not compared as one value: a difference of 20 MB would take the day to print.
        for campaign, row in rows.items():
            row = row.replace("LARGE", LARGE)
            exact = found[campaign] == f"{row}\n{row}\n".encode()
            assert exact, row[:80]


def spread(row: str) -> str:
    """A row with blanks and line ends between all its tokens."""
    tokens: Iterator[str] = iter(re.findall(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^{}\[\],:"\s]+', row))
    return "\r\n\t  ".join(tokens)


# -- twenty faults at once -------------------------------------------------------------------


def _row_of(text: str) -> Answer:
    return Answer(framed(f'{{"results":[{text}]}}'.encode()))


def _leading(where: str) -> Callable[[Question], Answer]:
    def answer(question: Question) -> Answer:
        link = where.format(path=question.path, id=question.campaign)
        return Answer(gzipped(page(WORLD.records(question.campaign, question.page), link)))

    return answer


# On which page, what is answered for ever, and the kind.
SICK: dict[str, tuple[int, str, Callable[[Question], Answer]]] = {
    "broken": (2, "server_error", lambda q: Answer(framed(b"", status="500 Broken"))),
    "reset": (2, "reset", lambda q: Answer(b"", RESET)),
    "cut": (2, "cut", lambda q: Answer(framed(b"{", length=900), CLOSE)),
    "gzip_cut": (3, "cut", lambda q: Answer(framed(gz(WORLD.body(q.campaign, 3))[:-9], GZIP))),
    "no_http": (1, "protocol", lambda q: Answer(b"NOTHING LIKE HTTP\r\n\r\n", CLOSE)),
    "silence": (3, "timeout", lambda q: Answer(b"", STALL)),
    "html": (1, "unreadable", lambda q: Answer(framed(b"<html>maintenance</html>"))),
    "empty": (3, "unreadable", lambda q: Answer(framed(b""))),
    "null": (1, "unreadable", lambda q: Answer(framed(b"null"))),
    "no_results": (2, "unreadable", lambda q: Answer(framed(b'{"meta":{}}'))),
    "no_list": (2, "unreadable", lambda q: Answer(framed(b'{"results":{"0":{}}}'))),
    "no_object": (1, "unreadable", lambda q: _row_of('{"a":1},"b"')),
    "other_campaign": (2, "unreadable", lambda q: _row_of('{"campaign_id":"999999"}')),
    "self_loop": (2, "looping_cursor", _leading("{path}?next={id}-2")),
    "cycle": (3, "looping_cursor", _leading("{path}?next={id}-2")),
    "foreign_link": (1, "foreign_link", _leading("https://example.com{path}?next={id}-2")),
    "bad_link": (2, "bad_link", _leading("{path}?next={id}-3#top")),
    "redirect": (
        1,
        "redirected",
        lambda q: Answer(framed(b"", "Location: https://example.com/", status="302 Found")),
    ),
    "refused": (
        2,
        "rejected",
        lambda q: Answer(framed(refusal("query.invalid", "No."), status="406 Not Acceptable")),
    ),
    "cursor_gone": (
        2,
        "cursor_dropped",
        lambda q: Answer(framed(refusal("not.found", "Gone."), status="404 Not Found")),
    ),
}


async def test_twenty_faults_in_two_hundred_campaigns_cost_twenty_campaigns(
    tmp_path: Path, out: Out
) -> None:
    """180 complete, 20 fail each for its reason; healed, the same call ends as if undisturbed."""
    assert len(SICK) == 20
    ids = [str(n) for n in range(1000, 1200)]
    sick = dict(zip(ids[3::10], SICK.values(), strict=True))
    healed = False

    def script(question: Question) -> Answer:
        if not healed and question.campaign in sick:
            number, _, fault = sick[question.campaign]
            if question.page == number:
                return fault(question)
        return WORLD.honest(question)

    async with serving(script) as server:
        config = server.config(tmp_path, retries=1, timeout=2.0)
        report = await harvest(ids, config)
        assert report.exit_code == 3
        assert (report.campaigns.complete, report.campaigns.failed) == (180, 20)
        assert out.kinds() == {campaign: kind for campaign, (_, kind, _) in sick.items()}
        assert len(out.lines("errors.ndjson")) == 20
        assert out.finished() == whole(*(set(ids) - set(sick)))
        assert_charged_is_seen(report, server)
        assert len(out.lines("retries.ndjson")) == report.requests.retried

        healed = True
        report = await harvest(ids, config)
        assert report.exit_code == 0
        assert report.campaigns.complete == 200
        assert_charged_is_seen(report, server)

        undisturbed = Out(tmp_path / "undisturbed")
        await harvest(ids, server.config(tmp_path / "undisturbed"))
        assert out.finished() == undisturbed.finished() == whole(*ids)
        assert digests(out) == digests(undisturbed)


def digests(out: Out) -> set[tuple[Any, ...]]:
    """What the manifest says of each file, but for the times."""
    return {
        (line["file"], line["rows"], line["pages"], line["bytes"], line["sha256"])
        for line in out.lines("manifest.ndjson")
    }


# -- configuration of the suite --------------------------------------------------------------


def test_config_of_the_suite_shows_no_secret() -> None:
    """The settings that this suite runs with do not show their secrets when printed."""
    config = FaultServer(silent, port=1).config(Path("x"))
    assert isinstance(config, HarvestConfig)
    assert "the-a" not in repr(config)
