"""The sandbox on a loopback port: a thin shell of awaits round `Service`."""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Final, Self

from aiohttp import web

from .chance import fraction
from .delivery import Delivery
from .log import Hit, RequestLog
from .requests import Request
from .service import Service
from .settings import SandboxSettings
from .sign_in import SignIn
from .world import World

_HOST: Final = "127.0.0.1"
_RST: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s: close() sends a RST


class Sandbox:
    """A simulated API while its `async with` block lasts; `base_url` is where it listens.

    `world` is what a perfect client would find; `log` is what clients did; `sign_in` is the person
    who agrees to a sign-in.
    """

    def __init__(self, settings: SandboxSettings | None = None, *, port: int = 0) -> None:
        """`port` 0 takes any free one."""
        self.service: Final = Service(settings)
        self.settings: Final = self.service.settings
        self.world: Final[World] = self.service.world
        self.sign_in: Final[SignIn] = self.service.sign_in
        self._port = port
        self._arrivals = 0
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        """Open the port."""
        settings = self.settings
        self.service.log = RequestLog(keep=settings.keep_log, path=settings.request_log)
        server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, self._port, backlog=1024)
        try:
            await site.start()
        except BaseException:
            await self.__aexit__()
            raise
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the port and whatever is still being answered."""
        if self._runner is not None:
            await self._runner.cleanup()
        self.service.log.close()

    @property
    def base_url(self) -> str:
        """The origin of both versions and of the sign-in, as in `http://127.0.0.1:8080`."""
        return f"http://{_HOST}:{self._port}"

    @property
    def log(self) -> list[Hit]:
        """Every request in the order of arrival (empty without `keep_log`)."""
        return self.service.log.hits

    @property
    def requests(self) -> int:
        """How many requests arrived, log or no log."""
        return self.service.log.statuses.total()

    @property
    def statuses(self) -> Counter[int]:
        """How many requests got which status; 0 is no answer at all."""
        return self.service.log.statuses

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        settings = self.settings
        self._arrivals += 1
        if settings.jitter:
            await asyncio.sleep(settings.jitter * fraction(settings.seed, 10, self._arrivals))
        body = await request.read() if request.can_read_body else b""
        reply = self.service.handle(
            Request(
                method=request.method,
                target=request.raw_path,
                headers={name.lower(): value for name, value in request.headers.items()},
                body=body,
                now=settings.clock(),
                wall=settings.wall(),
            )
        )
        return await _send(request, reply.delivery)


async def _send(request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
    """Send an answer, or what is left of it."""
    if delivery.wait:
        await asyncio.sleep(delivery.wait)
    if delivery.end == "silent":
        await asyncio.Event().wait()
    if delivery.end == "closed" or delivery.pieces > 1:
        return await _in_pieces(request, delivery)
    if delivery.end == "reset":
        _reset(request)
    return web.Response(status=delivery.status, headers=delivery.headers, body=delivery.body)


def _reset(request: web.BaseRequest) -> None:
    """End the connection with a RST, as a dying load balancer does."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        request.transport.abort()


async def _in_pieces(request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
    """Send the body piece by piece, and hang up afterwards if that is asked for."""
    response = web.StreamResponse(status=delivery.status, headers=delivery.headers)
    response.content_length = delivery.length
    await response.prepare(request)
    size = max(1, -(-len(delivery.body) // delivery.pieces))
    for start in range(0, len(delivery.body), size):
        await response.write(delivery.body[start : start + size])
        if delivery.pause:
            await asyncio.sleep(delivery.pause)
    if delivery.end == "closed" and request.transport is not None:
        request.transport.close()
    return response


async def serve(
    settings: SandboxSettings, *, port: int = 0, ready: Callable[[Sandbox], None]
) -> None:
    """Serve until cancelled; `ready` is called once, when the port is open."""
    async with Sandbox(settings, port=port) as sandbox:
        ready(sandbox)
        await asyncio.Event().wait()
