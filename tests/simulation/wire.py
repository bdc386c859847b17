"""The simulated API where aiohttp would be: the session that the program opens.

Everything above is the program's own: the URL, the headers, the reading of a body, the meaning of
an error. Everything below is the sandbox's `Service`, which takes a request value and gives a
reply value.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict
from yarl import URL

from harvester.request.http import Dropped
from harvester.sandbox import Hit, Request, Service
from harvester.sandbox.delivery import Delivery

from .machine import Machine

API, SIGN_IN = "https://api.simulated", "https://sign-in.simulated"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request as the server had it, and what was known at that moment.

    `mono`: the client's monotonic clock (s), of its `boot`-th boot. `day`: of the client's wall
    clock. `run`: the how many-th act of the life. `retry_after`: seconds the answer asked for.
    """

    hit: Hit
    mono: float
    boot: int
    day: str
    run: int
    retry_after: float
    bearer: str


@dataclass
class Wire:
    """What stands between the machine and the service, and what went over it.

    `down_until`: nothing can be reached before that true time (Unix s). `run` is the number of the
    present act.
    """

    machine: Machine
    service: Service
    trace: Callable[[str], None]
    down_until: float = 0.0
    run: int = 0
    lost_token: bool = False
    """The last renewal was carried out, and its answer never came."""
    token_came: int = 0
    """How many changes of the disk the run had made when the last tokens came."""
    seen: list[Seen] = field(default_factory=list)

    def died(self) -> None:
        """The run is dead. Tokens that came before the last change could not be saved yet; safe
        from a power cut they are after three: the content, its length, its sync."""
        disk = self.machine.disk
        self.lost_token |= disk.points - self.token_came <= (3 if disk.death.power else 1)

    def open_session(self, *, connections: int, timeout: float) -> "Session":
        """In the place of `harvester.request.http.open_session`."""
        return Session(self, timeout)

    async def exchange(
        self, method: str, url: URL, headers: dict[str, str], body: bytes
    ) -> "Response":
        """One request and its answer."""
        origin = API if str(url).startswith(f"{API}/") else SIGN_IN
        if not str(url).startswith(f"{origin}/"):
            raise AssertionError(f"a request to a host of another owner: {url.host}")
        if self.machine.disk.dead or self.machine.true_time() < self.down_until:
            raise no_connection(url)
        reply = self.service.handle(
            Request(
                method=method,
                target=str(url).removeprefix(origin),
                headers={"accept-encoding": "gzip", **headers},
                body=body,
                now=self.machine.true_time(),
                wall=self.machine.true_time(),
            )
        )
        hit, sent = reply.hit, reply.delivery
        self.seen.append(
            Seen(
                hit=hit,
                mono=self.machine.monotonic(),
                boot=self.machine.boots,
                day=self.machine.wall().date().isoformat(),
                run=self.run,
                retry_after=float(sent.headers.get("Retry-After", 0)),
                bearer=headers.get("authorization", ""),
            )
        )
        what = f"{hit.report}/{hit.activity_id or hit.campaign_id}"
        self.trace(f"{what} page {hit.page}: {hit.status} {hit.fault or ''}".rstrip())
        renewal = hit.report == "token" and hit.status == 200 and hit.fault != "html"
        self.lost_token |= renewal
        await asyncio.sleep(sent.wait + sent.pieces * sent.pause)
        if self.machine.disk.dead:
            raise no_connection(url)
        if sent.end == "silent":
            await asyncio.Event().wait()
        if sent.end == "reset":
            raise Dropped("ServerDisconnectedError")
        if renewal and len(sent.body) == sent.length:
            self.lost_token, self.token_came = False, self.machine.disk.points
        return Response(sent)


@dataclass
class Session:
    """As much of `aiohttp.ClientSession` as the program uses."""

    wire: Wire
    seconds: float

    @property
    def timeout(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=self.seconds)

    def get(self, url: URL, *, headers: dict[str, str], **_: Any) -> "Exchange":
        return Exchange(self, "GET", url, {name.lower(): headers[name] for name in headers})

    def post(self, url: URL, *, data: dict[str, str], **_: Any) -> "Exchange":
        form = {"content-type": "application/x-www-form-urlencoded"}
        return Exchange(self, "POST", url, form, urlencode(data).encode())

    async def close(self) -> None:
        """Nothing is open."""

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@dataclass
class Exchange:
    """A request under way, as the `async with` of aiohttp."""

    session: Session
    method: str
    url: URL
    headers: dict[str, str]
    body: bytes = b""

    async def __aenter__(self) -> "Response":
        async with asyncio.timeout(self.session.seconds):
            return await self.session.wire.exchange(self.method, self.url, self.headers, self.body)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        pass


class Response:
    """As much of `aiohttp.ClientResponse` as the program uses; `content` is the response too."""

    def __init__(self, sent: Delivery) -> None:
        self.status = sent.status
        self.headers = CIMultiDict(sent.headers)
        self.content_length: int | None = sent.length
        self.content = self
        self._body, self._cut = sent.body, len(sent.body) < sent.length

    async def read(self) -> bytes:
        if self._cut:
            raise aiohttp.ClientPayloadError("the connection ended")
        return self._body

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield await self.read()

    def close(self) -> None:
        """Nothing is open."""


def no_connection(url: URL) -> aiohttp.ClientConnectorError:
    """What aiohttp raises where no server listens."""
    key = ConnectionKey(url.host or "", url.port, True, True, None, None, None, None)
    return aiohttp.ClientConnectorError(key, ConnectionRefusedError(111, "Connection refused"))
