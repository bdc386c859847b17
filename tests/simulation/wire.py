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
from harvester.sandbox import FaultPlan, Hit, Request, Service
from harvester.sandbox.delivery import Delivery
from harvester.sandbox.faults import Faults

from .machine import Machine
from .process import Process, running

API, SIGN_IN = "https://api.simulated", "https://sign-in.simulated"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request as the server had it, and what was known at that moment.

    `mono`: the client's monotonic clock (s), of its `boot`-th boot. `day`: of the client's wall
    clock. `retry_after`: seconds the answer asked for. `spent`: it said that the day is.
    """

    hit: Hit
    mono: float
    boot: int
    day: str
    retry_after: float
    spent: bool
    bearer: str

    @property
    def signs_in(self) -> bool:
        """Whether it went to the sign-in, which has limits of its own."""
        return self.hit.report in ("token", "authorize")


@dataclass
class Wire:
    """What stands between the machine and the service, and what went over it.

    `down_until`: nothing can be reached before that true time (Unix s). `storm_until`: before
    that time the answers are those of `storm`.
    """

    machine: Machine
    service: Service
    trace: Callable[[str], None]
    down_until: float = 0.0
    storm_until: float = 0.0
    storm: Faults = field(default_factory=lambda: Faults(FaultPlan()))
    lost_token: bool = False
    """The last renewal was carried out, and its answer never came or was not saved."""
    seen: list[Seen] = field(default_factory=list)
    _came: tuple[Process | None, int] = None, 0
    """Whose the last tokens are, and how many changes of the disk it had made when they came."""

    def __post_init__(self) -> None:
        self._usual = self.service._faults

    def died(self) -> None:
        """A run died. Tokens that came before its last change could not be saved yet; they are safe
        from a power cut after three: the content, its length, its sync."""
        process, points = self._came
        if process is not None and process.dead:
            self.lost_token |= process.points - points <= (3 if process.death.power else 1)

    def calm(self) -> None:
        """From now on nothing goes wrong on the way."""
        self.down_until = self.storm_until = 0.0
        self._usual = Faults(FaultPlan())

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
        now, process = self.machine.true_time(), running()
        if process.dead or now < self.down_until:
            raise no_connection(url)
        self.service._faults = self.storm if now < self.storm_until else self._usual
        reply = self.service.handle(
            Request(
                method=method,
                target=str(url).removeprefix(origin),
                headers={"accept-encoding": "gzip", **headers},
                body=body,
                now=now,
                wall=now,
            )
        )
        hit, sent = reply.hit, reply.delivery
        said = reply.answer.body if reply.answer.status in (403, 429) else b""
        self.seen.append(
            Seen(
                hit=hit,
                mono=self.machine.monotonic(),
                boot=self.machine.boots,
                day=self.machine.wall().date().isoformat(),
                retry_after=float(sent.headers.get("Retry-After", 0)),
                spent=b".ratelimit" in said or b"quota_exceeded" in said,
                bearer=headers.get("authorization", ""),
            )
        )
        what = f"{hit.report}/{hit.activity_id or hit.campaign_id}"
        self.trace(f"{what} page {hit.page}: {hit.status} {hit.fault or ''}".rstrip())
        renewal = hit.grant_type == "refresh_token" and b'"access_token":"' in reply.answer.body
        self.lost_token |= renewal
        await asyncio.sleep(sent.wait + sent.pieces * sent.pause)
        if process.dead:
            raise no_connection(url)
        if sent.end == "silent":
            await asyncio.Event().wait()
        if sent.end == "reset":
            raise Dropped("ServerDisconnectedError")
        if renewal and len(sent.body) == sent.length and hit.fault != "cut_gzip":
            self.lost_token, self._came = False, (process, process.points)
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
