"""A fake of the API that is faster than any client: raw asyncio protocol, one process of its own.

    python -m benchmarks.server --workload '{"campaigns": 10, "pages": 10, "longest": 1}'

prints its port and serves one report, of v2 or v3 (404 for other campaigns), until its standard
input closes. `/stats` gives what it saw and the CPU it took, so that a benchmark can show that the
server was not what it measured; `/reset` starts a count. With `latency` an answer waits that long
(s), with `judge` it refuses what comes too fast, as v2 does.
"""

import argparse
import asyncio
import json
import selectors
import subprocess
import sys
import time
import urllib.request
import zlib
from types import TracebackType
from typing import Any, Self

from benchmarks.measure import ROOT
from benchmarks.workload import Workload, workload_of
from harvester.sandbox.limits import Judge, judge_of

_REFUSAL = json.dumps(
    [
        {
            "error_key": "mashery.not.authorized.over.qps",
            "error_message": "The Mashery account associated with this request is over its "
            "queries-per-second quota",
        }
    ]
).encode()
_HEAD = (
    b"HTTP/1.1 %d %s\r\nContent-Type: application/json;charset=UTF-8\r\n"
    b"Server: benchmark\r\n%sContent-Length: %d\r\n\r\n"
)
_LIFETIME = 900.0  # s: whatever happens to the benchmark, the server ends


class World:
    """What all connections share: the account, the judge, the counts."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.workload = workload_of(given)
        self.latency: float = given.latency
        self._make_judge = lambda: judge_of(given.judge, given.judge_rate, given.judge_burst)
        self._packed: dict[tuple[int, int], bytes] | None = None
        if given.gzip:
            self._packed = {
                (index, page): _gzip(self.workload.body(index, page))
                for index, size in enumerate(self.workload.sizes)
                for page in range(1, size + 1)
            }
        self.workload.body(0, 1)  # renders what every page is made of
        self.reset()

    def reset(self) -> None:
        self.judge: Judge = self._make_judge()
        self.requests = self.refused = self.bytes = 0
        self.first = self.last = 0.0
        self.cpu = time.process_time()

    def stats(self) -> bytes:
        return json.dumps(
            {
                "cpu": time.process_time() - self.cpu,
                "requests": self.requests,
                "refused": self.refused,
                "bytes": self.bytes,
                "first": self.first,
                "last": self.last,
            }
        ).encode()

    def answer(self, target: bytes, gzip: bool) -> bytes:
        """The whole answer to a request of the report."""
        now = time.monotonic()
        self.first = self.first or now
        self.last = now
        self.requests += 1
        if not self.judge.admit(now):
            self.refused += 1
            return _HEAD % (403, b"Forbidden", b"", len(_REFUSAL)) + _REFUSAL
        path, _, query = target.partition(b"?")
        parts = path.split(b"/")
        try:
            index = self.workload.index(parts[3 if parts[2] == b"emails" else 4].decode())
        except (ValueError, IndexError):
            return _HEAD % (404, b"Not Found", b"", 2) + b"[]"
        if parts[2] == b"emails":
            detail = self.workload.detail(index)
            return _HEAD % (200, b"OK", b"", len(detail)) + detail
        page = 1
        if query.startswith(b"next="):
            page = int(query[5:].partition(b"&")[0])
        encoding = b""
        if gzip and self._packed is not None:
            body, encoding = self._packed[index, page], b"Content-Encoding: gzip\r\n"
        else:
            body = self.workload.body(index, page)
        self.bytes += len(body)
        return _HEAD % (200, b"OK", encoding, len(body)) + body


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    transport: asyncio.Transport

    def __init__(self, world: World) -> None:
        self._world = world
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport
        transport.set_write_buffer_limits(1 << 20)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            self._handle(head)

    def _handle(self, head: bytes) -> None:
        target = head.split(b" ", 2)[1]
        if target.startswith((b"/v2/", b"/v3/")):
            world = self._world
            answer = world.answer(target, b"gzip" in head)
            if world.latency:
                asyncio.get_running_loop().call_later(world.latency, self._write, answer)
            else:
                self.transport.write(answer)
            return
        if target == b"/reset":
            self._world.reset()
        stats = self._world.stats()
        self._write(_HEAD % (200, b"OK", b"", len(stats)) + stats)

    def _write(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


async def _serve(world: World) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    server = await loop.create_server(lambda: Connection(world), "127.0.0.1", 0, backlog=1024)
    loop.add_reader(sys.stdin, ended.set)
    loop.call_later(_LIFETIME, ended.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--gzip", action="store_true")
    parser.add_argument("--judge", default="sliding", choices=["sliding", "bucket", "window"])
    parser.add_argument("--judge-rate", type=float, default=0.0)
    parser.add_argument("--judge-burst", type=int, default=0)
    # `select` waits to the microsecond; `epoll` rounds each wait up to a millisecond, and a
    # latency of 50 ms would be one of 51.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(_serve(World(parser.parse_args())))


class Server:
    """The server as the benchmarks use it: `with Server(workload) as server`."""

    def __init__(self, workload: Workload, *arguments: str) -> None:
        self._arguments = [*workload.arguments(), *arguments]
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._process.stdout is not None  # noqa: S101
        port = self._process.stdout.readline().decode().strip()
        if not port:
            raise RuntimeError("the benchmark's server did not start")
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def reset(self) -> None:
        """Start a count."""
        self._ask("/reset")

    def stats(self) -> dict[str, Any]:
        """What happened since: cpu (s), requests, refused, bytes, first and last (monotonic s)."""
        return self._ask("/stats")

    def _ask(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:  # noqa: S310
            found: dict[str, Any] = json.loads(answer.read(int(answer.headers["Content-Length"])))
        return found


if __name__ == "__main__":
    _main()
