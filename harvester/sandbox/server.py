"""The sandbox on a loopback port: the thin shell of awaits round `Api`, `Gate` and `Faults`.

A request goes the vendor's way: the gateway looks at the key, then at the pace and the day, and
only then does the service behind it see the request (and may fail), check the token, the Accept
header and the question.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Self

from aiohttp import web

from .answers import (
    INACTIVE,
    NOT_ACCEPTABLE,
    NOT_ALLOWED,
    OVER_DAY,
    OVER_RATE,
    UNAUTHENTICATED,
    Answer,
    with_retry_after,
)
from .api import Api
from .chance import fraction
from .faults import Faults
from .limits import Verdict
from .log import Hit, RequestLog
from .question import Question, read
from .settings import SandboxSettings
from .spoil import spoiled
from .wire import send

_HOST: Final = "127.0.0.1"
_NO_STATUS: Final = ("reset", "timeout")


class Sandbox:
    """A simulated API while its `async with` block lasts; `base_url` is where it listens.

    `world` is what a perfect client would find; `log` is what clients did.
    """

    def __init__(self, settings: SandboxSettings | None = None, *, port: int = 0) -> None:
        """`port` 0 takes any free one."""
        self.settings: Final = settings or SandboxSettings()
        self.world: Final = self.settings.world()
        self._port = port
        self._api = Api(self.settings, self.world)
        self._gate = self.settings.gate()
        self._faults = Faults(self.settings.fault_plan())
        self._bearer = f"Bearer {self.settings.access_token}"
        self._arrivals = 0
        self._log = RequestLog(keep=self.settings.keep_log)
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        """Open the port."""
        self._log = RequestLog(keep=self.settings.keep_log, path=self.settings.request_log)
        server = web.Server(
            self._serve,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=self.settings.keepalive,
        )
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
        self._log.close()

    @property
    def base_url(self) -> str:
        """The origin, as in `http://127.0.0.1:8080`."""
        return f"http://{_HOST}:{self._port}"

    @property
    def log(self) -> list[Hit]:
        """Every request in the order of arrival (empty without `keep_log`)."""
        return self._log.hits

    @property
    def requests(self) -> int:
        """How many requests arrived, log or no log."""
        return self._log.statuses.total()

    @property
    def statuses(self) -> Counter[int]:
        """How many requests got which status; 0 is no answer at all."""
        return self._log.statuses

    def add_events(self, report: str, campaign_id: str, count: int = 1) -> None:
        """So many events happen now."""
        self.world.add_events(report, campaign_id, count)

    def warm(self, report: str = "opens") -> None:
        """Render a report's pages ahead of a benchmark, as many as `cache_pages` holds."""
        self._api.warm(report)

    def cpu_seconds(self) -> float:
        """Processor time of this whole process so far."""
        return time.process_time()

    # -- one request --------------------------------------------------------------------------

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        settings = self.settings
        self._arrivals += 1
        if settings.jitter:
            await asyncio.sleep(settings.jitter * fraction(settings.seed, 10, self._arrivals))
        now, wall = settings.clock(), settings.wall()
        question = read(request.raw_path, self.world)
        answer, fault, throttled = self._decide(request, question, now, wall)
        self._log.add(
            Hit(
                at=now,
                wall=wall,
                method=request.method,
                path=question.path,
                query=question.query,
                report=question.report,
                campaign_id=question.campaign_id,
                page=question.page,
                cursor=question.cursor,
                status=0 if fault in _NO_STATUS else answer.status,
                fault=fault,
                throttled=throttled,
                api_key="api_key" in question.params,
                authorized=request.headers.get("Authorization") == self._bearer,
            )
        )
        if settings.latency:
            await asyncio.sleep(settings.latency)
        return await send(request, answer, fault, settings)

    def _decide(
        self, request: web.BaseRequest, question: Question, now: float, wall: float
    ) -> tuple[Answer, str | None, bool]:
        """(answer, fault that hits it, whether the gate refused it)."""
        settings = self.settings
        if question.params.get("api_key") != settings.api_key:
            return INACTIVE, None, False
        match self._gate.admit(now, wall):
            case Verdict.OVER_RATE:
                return with_retry_after(OVER_RATE, settings.retry_after), None, True
            case Verdict.OVER_DAY:
                return with_retry_after(OVER_DAY, settings.retry_after), None, True
        fault = self._faults.next((question.report, question.campaign_id, question.page))
        answer = self._answer(request, question)
        if fault is not None:
            answer = spoiled(answer, fault, question.target, settings)
        self._api.answered(question, answer)
        return answer, fault, False

    def _answer(self, request: web.BaseRequest, question: Question) -> Answer:
        """What the service behind the gateway says."""
        if request.headers.get("Authorization") != self._bearer:
            return UNAUTHENTICATED
        if request.method != "GET":
            return NOT_ALLOWED
        accept = request.headers.get("Accept", "*/*")
        if not any(kind in accept for kind in ("application/json", "application/*", "*/*")):
            return NOT_ACCEPTABLE
        return self._api.answer(question)


async def serve(
    settings: SandboxSettings, *, port: int = 0, ready: Callable[[Sandbox], None]
) -> None:
    """Serve until cancelled; `ready` is called once, when the port is open."""
    async with Sandbox(settings, port=port) as sandbox:
        ready(sandbox)
        await asyncio.Event().wait()
