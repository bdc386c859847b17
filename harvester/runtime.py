"""What a run needs of the machine: the two clocks, the order to stop, and open files.

Waits are measured on the monotonic clock; days belong to the wall clock. They are never mixed:
after a suspend or a clock jump the wall has moved and the other has not.
"""

import asyncio
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import anyio
import msgspec

from harvester.errors import ConfigError, StopRun

_text = msgspec.json.Encoder().encode


class Clock:
    """System time. `monotonic` is also the event loop's own clock."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never jump; the same for every process of this boot."""
        return time.monotonic()


def next_reset(now: datetime) -> datetime:
    """The next 00:00 UTC: when the API gives out a new day's quota."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day + timedelta(days=1)


def later(now: datetime, seconds: float) -> datetime:
    """`now` plus any number of seconds, an absurd one brought down to a year."""
    return now + timedelta(seconds=min(seconds, 366 * 86_400))


def stamp(moment: datetime) -> str:
    """A moment as the reports write it: ISO-8601, UTC, milliseconds, `Z`."""
    text = _text(moment.astimezone(UTC)).decode()  # in quotes, a fraction of zero left out
    return f"{text[1:24]}Z" if moment.microsecond else f"{text[1:20]}.000Z"


@contextmanager
def repeated(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Call `call` every so many seconds meanwhile, on the running loop."""
    loop = asyncio.get_running_loop()

    timer: asyncio.TimerHandle

    def again() -> None:
        nonlocal timer
        timer = loop.call_later(seconds, again)
        call()

    timer = loop.call_later(seconds, again)
    try:
        yield
    finally:
        timer.cancel()


class StopSignal:
    """Set once; from then on nothing is sent, and every sleep ends.

    Requests in flight go on: they are charged already, and their pages are still saved. `grace` is
    how long (s) they get before they are cancelled; None leaves them their timeout.
    """

    def __init__(self) -> None:
        self._event = anyio.Event()
        self.on_order: Callable[[StopRun], None] = lambda order: None
        self.order: StopRun | None = None
        self.grace: float | None = None

    def request(self, order: StopRun, *, grace: float | None = None) -> None:
        """Give the order; the first one stands."""
        if self.order is None:
            self.order = order
            self.grace = grace
            self._event.set()
            self.on_order(order)

    @property
    def requested(self) -> bool:
        """Whether the order has been given."""
        return self.order is not None

    def check(self) -> None:
        """Raise the order if it has been given."""
        if self.order is not None:
            raise StopRun(
                self.order.reason, str(self.order), resume_at=self.order.resume_at
            ) from None

    async def wait(self) -> None:
        """Return when the order is given."""
        await self._event.wait()

    async def sleep(self, seconds: float) -> None:
        """Sleep; raise `StopRun` as soon as the order is given."""
        self.check()
        with anyio.move_on_after(seconds):
            await self._event.wait()
        self.check()


def raise_open_files(count: int) -> None:
    """Let this process have `count` files open, or as many as it may allow itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not _enough(soft, count):
        soft = count if _enough(hard, count) else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def require_open_files(count: int) -> None:
    """Raise `ConfigError` if this process may not have `count` files open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not _enough(soft, count):
        raise ConfigError(
            f"concurrency: so many campaigns at once need {count} open files, and this process "
            f"may have {soft}: allow it more (ulimit -n {count}), or give a lower `concurrency`"
        )


def _enough(limit: int, count: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= count
