"""The two clocks, in one place so that a test can move them.

Waits are measured on the monotonic clock; days belong to the wall clock. They are never mixed:
after a suspend or a clock jump the wall has moved and the other has not.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True)
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
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
