"""A server below HTTP: it sends exactly the bytes of its script, and keeps every byte it gets.

`FaultServer` asks a script what to answer; an `Answer` is bytes and what becomes of the connection
after them. `World` holds the honest pages, and the files that they must become. A `FaultServer`
whose `connections` and `received` are expected to stay empty plays the evil host.
"""

import asyncio
import gzip
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harvester import HarvestConfig

REPORT = "/v2/emailmarketing/campaigns/{}/tracking/opens"
KEEP, CLOSE, RESET, STALL = "keep", "close", "reset", "stall"
_LONGEST_HEAD = 1 << 20


@dataclass(frozen=True)
class Question:
    """One request as it came: its head to the byte, and how often its page was asked before."""

    head: bytes
    times: int = 0

    @property
    def line(self) -> bytes:
        """The request line, without its end."""
        return self.head.partition(b"\r\n")[0]

    @property
    def target(self) -> str:
        """What stands between the method and the version."""
        return self.line.split(b" ")[1].decode("latin-1")

    @property
    def path(self) -> str:
        """The target up to the question mark."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The target past the question mark, as it came."""
        return self.target.partition("?")[2]

    @property
    def campaign(self) -> str:
        """The id in the path."""
        return self.path.split("/")[4]

    @property
    def page(self) -> int:
        """The page that the query asks of a `World`, from 1."""
        first = next(part for part in self.query.split("&"))
        name, _, value = first.partition("=")
        return int(value.rpartition("-")[2]) if name == "next" else 1


@dataclass(frozen=True)
class Answer:
    """Bytes to send, and what comes after them.

    `every` drips them, one at a time, so many seconds apart, again and again from the front.
    `KEEP` waits for the next request, `CLOSE` and `RESET` end the connection, `STALL` says
    nothing more until the client leaves.
    """

    wire: bytes = b""
    then: str = KEEP
    every: float | None = None
    late: "Late | None" = None


@dataclass(frozen=True)
class Late:
    """Bytes that were not asked for, sent on the idle connection when `due`; then `done` is set."""

    wire: bytes
    due: asyncio.Event
    done: asyncio.Event


Script = Callable[[Question], Answer]


@dataclass
class FaultServer:
    """A listening server; every byte it got is in `received`, every request head in `heads`."""

    script: Script
    port: int = 0
    connections: int = 0
    received: bytearray = field(default_factory=bytearray)
    heads: list[bytes] = field(default_factory=list)
    complaints: list[Exception] = field(default_factory=list)
    _asked: Counter[str] = field(default_factory=Counter)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        """The origin."""
        return f"http://127.0.0.1:{self.port}"

    def seen(self, campaign: str) -> int:
        """How many requests came for one campaign."""
        return sum(Question(head).campaign == campaign for head in self.heads)

    def config(self, root: Path, **options: Any) -> HarvestConfig:
        """A harvest from this server into `root`: no pace, no second try unless asked for."""
        plain: dict[str, Any] = {
            "output": root / "out",
            "state_dir": root / "state",
            "base_url": self.base_url,
            "rate": 0,
            "retries": 0,
            "timeout": 30,
            "api_key": "the-api-key",
            "access_token": "the-access-token",
        }
        return HarvestConfig(**plain | options)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side is through with it."""
        self.connections += 1
        self._writers.add(writer)
        try:
            while (head := await self._head(reader)) and await self._answer(head, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left
        except Exception as wrong:
            self.complaints.append(wrong)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as cut:
            self.received += cut.partial
            return b""
        self.received += head
        self.heads.append(head)
        return head

    async def _answer(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Send what the script says; True if the connection stays open."""
        asked = Question(head).target
        answer = self.script(Question(head, self._asked[asked]))
        self._asked[asked] += 1
        if answer.every is not None:
            return await self._drip(answer.wire, answer.every, reader, writer)
        writer.write(answer.wire)
        await writer.drain()
        match answer.then:
            case "reset":
                connection: Any = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            case "close":
                if writer.can_write_eof():
                    writer.write_eof()
                self.received += await reader.read()
            case "stall":
                self.received += await reader.read()
        if answer.late is not None:
            await answer.late.due.wait()
            writer.write(answer.late.wire)
            await writer.drain()
            answer.late.done.set()
        return answer.then == KEEP

    async def _drip(
        self, wire: bytes, every: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        gone = asyncio.ensure_future(reader.read())
        try:
            for byte in itertools.cycle(wire):
                writer.write(bytes([byte]))
                await writer.drain()
                done, _ = await asyncio.wait({gone}, timeout=every)
                if done:
                    break
        finally:
            if gone.done():
                gone.exception()
            gone.cancel()
        return False

    def drop_all(self) -> None:
        """End every connection."""
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[FaultServer]:
    """A fault server on a loopback port of its own; an error in its script is the test's error."""
    faults = FaultServer(script)
    server = await asyncio.start_server(faults.handle, "127.0.0.1", 0, limit=_LONGEST_HEAD)
    faults.port = server.sockets[0].getsockname()[1]
    try:
        yield faults
    finally:
        server.close()
        faults.drop_all()
        await server.wait_closed()
        # Give the handlers their end of file before the loop goes.
        for _ in range(5):
            await asyncio.sleep(0)
    if faults.complaints:
        raise faults.complaints[0]


_HARVEST_AND_MEASURE = """
import asyncio, json, pathlib, re, resource, sys
from harvester import HarvestConfig, harvest

ids, options = json.loads(sys.argv[1])
report = asyncio.run(harvest(ids, HarvestConfig(**options)))
status = pathlib.Path("/proc/self/status")
if status.exists():  # the usage that Linux accounts for also has the peak of who started us
    peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"exit_code": report.exit_code, "peak": peak}))
"""


async def measured(ids: Iterable[str], root: Path, server: FaultServer) -> dict[str, int]:
    """Harvest in a process of its own: its exit code and the peak of its memory (bytes)."""
    options = {
        "output": str(root / "out"),
        "state_dir": str(root / "state"),
        "base_url": server.base_url,
        "rate": 0,
        "retries": 0,
        "api_key": "the-api-key",
        "access_token": "the-access-token",
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HARVEST_AND_MEASURE, json.dumps([[*ids], options]),
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    stdout, _ = await child.communicate()
    found: dict[str, int] = json.loads(stdout)
    return found


def framed(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """An answer with a Content-Length, by default the right one."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def unframed(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer without any length: its end is the end of the connection."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(body: bytes, *headers: str, end: bytes = b"0\r\n\r\n", size: int = 100) -> bytes:
    """An answer in chunks; `end` is what stands where the last, empty chunk belongs."""
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return unframed(chunks + end, "Transfer-Encoding: chunked", *headers)


def gzipped(body: bytes) -> bytes:
    """An honest compressed answer."""
    return framed(gzip.compress(body, mtime=0), "Content-Encoding: gzip")


def refusal(key: str, text: str) -> bytes:
    """An error body in the form of the API."""
    return json.dumps([{"error_key": key, "error_message": text}]).encode()


def page(rows: Iterable[dict[str, Any]], next_link: str | None = None) -> bytes:
    """An honest page around rows."""
    pagination = {"next_link": next_link} if next_link else {}
    return json.dumps({"meta": {"pagination": pagination}, "results": list(rows)}).encode()


@dataclass(frozen=True)
class World:
    """Honest campaigns: each of `pages` pages of `rows` rows, compressed on the wire."""

    pages: int = 3
    rows: int = 4

    def link(self, campaign: str, number: int) -> str:
        """The link to a page, counted from 1."""
        return f"{REPORT.format(campaign)}?next={campaign}-{number}"

    def records(self, campaign: str, number: int) -> list[dict[str, Any]]:
        """The rows of one page."""
        return [
            {
                "activity_type": "EMAIL_OPEN",
                "campaign_id": campaign,
                "contact_id": str(1000 * number + row),
                "email_address": f"person{row}.of.page{number}@example.com",
                "open_date": f"2026-03-{number:02d}T08:15:{row:02d}.000Z",
            }
            for row in range(self.rows)
        ]

    def body(self, campaign: str, number: int) -> bytes:
        """One page as the API sends it, before compression."""
        more = self.link(campaign, number + 1) if number < self.pages else None
        return page(self.records(campaign, number), more)

    def honest(self, question: Question) -> Answer:
        """The right answer."""
        return Answer(gzipped(self.body(question.campaign, question.page)))

    def file(self, campaign: str, *, pages: int | None = None) -> bytes:
        """What the finished file must hold, or the part file after so many pages."""
        lines = (
            json.dumps(row, separators=(",", ":")) + "\n"
            for number in range(1, (self.pages if pages is None else pages) + 1)
            for row in self.records(campaign, number)
        )
        return "".join(lines).encode()
