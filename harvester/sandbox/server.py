"""The sandbox on a loopback port: a thin shell of awaits round `Service`."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, Self

from aiohttp import web

from .chance import fraction
from .log import Hit, RequestLog
from .requests import Request
from .service import Service
from .settings import SandboxSettings
from .sign_in import SignIn
from .wire import send
from .world import World

_HOST: Final = "127.0.0.1"


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

    def add_events(self, report: str, campaign_id: str, count: int = 1) -> None:
        """So many events happen now."""
        self.world.add_events(report, campaign_id, count)

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
        return await send(request, reply.delivery)


async def serve(
    settings: SandboxSettings, *, port: int = 0, ready: Callable[[Sandbox], None]
) -> None:
    """Serve until cancelled; `ready` is called once, when the port is open."""
    async with Sandbox(settings, port=port) as sandbox:
        ready(sandbox)
        await asyncio.Event().wait()
