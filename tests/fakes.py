"""Named stand-ins for what is outside: time, the API behind a fetcher, and a world of pages.

virtually(main)        runs a coroutine function on a loop whose clock jumps to the next timer
FakeClock, LoopClock   a clock moved by hand; a clock that is the running loop's
FakeFetcher            answers from a script, counts requests and how many were under way at once
CannedPages            answers like an API that has these campaigns
refusing(errno)        a system call that the disk refuses
NoRoom                 a database whose temporary files have no room
"""

import asyncio
import os
import selectors
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import anyio
import pytest

from harvester.events import Event
from harvester.model import Page, Request, Target
from harvester.request.credentials import Credentials, FixedToken

T = TypeVar("T")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TARGET = Target("opens", "7")
CANARY_KEY, CANARY_TOKEN = "canary-key-1234", "canary-token-5678"
CAMPAIGN_V3 = "1d3a7b5e-0c1f-4a52-9a6b-0123456789ab"
PATH = "/v2/emailmarketing/campaigns/7/tracking/opens"


# -- time --------------------------------------------------------------------------------------


class FakeClock:
    """A clock that stands until it is moved: `advance` moves both its hands, `wall` only one."""

    def __init__(self, now: datetime = NOON, monotonic: float = 1_000.0) -> None:
        self.wall = now
        self.mono = monotonic
        self.slept: list[float] = []

    def now(self) -> datetime:
        """The wall clock."""
        return self.wall

    def monotonic(self) -> float:
        """The other clock."""
        return self.mono

    def advance(self, seconds: float) -> None:
        """So many seconds pass."""
        self.mono += seconds
        self.wall += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        """A sleep that takes no time and moves the clock; put it where a real one is awaited."""
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)


class LoopClock:
    """A clock that is the running loop's, virtual or not; the wall starts at `start`."""

    def __init__(self, start: datetime = NOON) -> None:
        self.start = start

    def now(self) -> datetime:
        """The wall clock."""
        return self.start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """The loop's time; 0 outside of any loop."""
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return 0.0


class Stuck(RuntimeError):
    """No task can wake another one, or a task spins without time passing."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits for a timer: moves the loop's time to it instead."""

    SPINS = 200_000

    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualLoop | None = None
        self.spins = 0

    def select(self, timeout: float | None = None) -> Any:
        """Poll; with nothing to do, jump."""
        found = super().select(0)
        self.spins += 1
        if self.spins > self.SPINS:
            raise Stuck("the loop spins and time does not pass")
        if found or (timeout is not None and timeout <= 0):
            return found
        if timeout is None:  # only a thread can still have something to say
            found = super().select(5)
            if not found:
                raise Stuck("every task waits for another one")
            return found
        assert self.loop is not None
        self.loop.jump()
        self.spins = 0
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on which an hour of sleeping takes no time."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        self._virtual = 0.0
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual

    def jump(self) -> None:
        """To the very moment of the next timer, so that no rounding is left over."""
        scheduled: Any = getattr(self, "_scheduled")  # noqa: B009 - asyncio has no public name
        self._virtual = max(self._virtual, scheduled[0].when())

    def block(self, seconds: float) -> None:
        """Time passes and no task runs, as when a callback computes or the machine sleeps."""
        self._virtual += seconds


def block(seconds: float) -> None:
    """Block the running virtual loop for so long."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.block(seconds)


def virtually(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main()` to its end on a virtual clock that starts at 0."""

    async def run() -> T:
        return await main()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


# -- the API behind a fetcher ------------------------------------------------------------------


def page(rows: int = 1, following: str | None = None, *, campaign_id: str = "7") -> Page:
    """A page of so many rows; `following` is a cursor."""
    ndjson = b"".join(
        b'{"campaign_id":"%s","n":%d}\n' % (campaign_id.encode(), n) for n in range(rows)
    )
    link = None if following is None else f"{PATH}?next={following}"
    return Page(ndjson, rows, link)


def make_request(target: Target = TARGET, *, link: str = PATH, number: int = 1) -> Request[Any]:
    """A request that takes the body as it is."""
    return Request(target, link, lambda body: body, number)


class FakeFetcher:
    """Answers from a script: a value is given back, an exception raised, a callable asked.

    `calls` holds every call; `peak` says how many were under way at once at most.
    """

    def __init__(self, script: Iterable[Any] = (), *, delay: float | None = None) -> None:
        self._script: Iterator[Any] = iter(script)
        self._delay = delay
        self.calls: list[Request[Any]] = []
        self.at: list[float] = []
        self.under_way = 0
        self.peak = 0

    async def send(self, request: Request[Any]) -> Any:
        """The same, for a layer above that reads."""
        return await self.fetch(request)

    async def fetch(self, request: Request[T]) -> T:
        """The next answer of the script."""
        self.calls.append(request)
        self.at.append(asyncio.get_running_loop().time())
        answer = next(self._script, AssertionError("one call more than the script has answers"))
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            if self._delay is not None:
                await anyio.sleep(self._delay)
            if callable(answer):
                answer = answer(request)
            if isinstance(answer, BaseException):
                raise answer
            return answer
        finally:
            self.under_way -= 1

    @property
    def links(self) -> list[str]:
        """What was asked, in order."""
        return [call.link for call in self.calls]


class CannedPages:
    """An API of canned walks: campaign id to its pages, each a `Page` or an error to raise.

    A page is found by the number of the request, so that a restarted walk starts over. An error is
    raised once, then what follows it in its list takes its place.
    """

    def __init__(self, walks: Mapping[str, Sequence[Any]]) -> None:
        self.walks = {name: [[*_as_list(step)] for step in steps] for name, steps in walks.items()}
        self.calls: list[Request[Any]] = []

    async def fetch(self, request: Request[T]) -> T:
        """The page that the request is for."""
        self.calls.append(request)
        await asyncio.sleep(0)
        steps = self.walks[request.target.campaign_id][request.page - 1]
        answer: Any = steps.pop(0) if len(steps) > 1 else steps[0]
        if callable(answer):
            answer = answer()
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _as_list(step: Any) -> Sequence[Any]:
    return step if isinstance(step, list) else [step]


def credentials_of(token: str = CANARY_TOKEN, key: str = CANARY_KEY) -> Credentials:
    """Credentials that hold this key and this token already."""
    found = Credentials(key, FixedToken(token))
    found.token = token
    found.redactor.add(token)
    return found


class Seen:
    """An observer that keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[T]) -> list[T]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


# -- the disk ----------------------------------------------------------------------------------


class NoRoom(sqlite3.Connection):
    """Refuses each statement with `at` in it, as where there is no room for temporary files."""

    at = ""

    @classmethod
    def placed(cls, patch: pytest.MonkeyPatch, at: str) -> None:
        """Every database from now on."""
        patch.setattr(cls, "at", at)
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=cls))

    def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
        """As SQLite itself says it."""
        self._refuse(query)
        return super().execute(query, *values)

    def executemany(self, query: str, values: Any) -> sqlite3.Cursor:
        """The same."""
        self._refuse(query)
        return super().executemany(query, values)

    def _refuse(self, query: str) -> None:
        if self.at in query:
            raise sqlite3.OperationalError("database or disk is full")


def refusing(code: int) -> Callable[..., Any]:
    """A system call that fails with this error number."""

    def refuse(*_: object, **__: object) -> Any:
        raise OSError(code, os.strerror(code))

    return refuse
