"""When a harvest can end, with the pace and the day's quota in hand. Pure arithmetic."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from harvester.clock import next_reset

_FOREVER = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be sent: `rate` starts a second (0: any), `limit` requests a UTC day (0: any)."""

    rate: float
    limit: int
    used_today: int

    @property
    def left_today(self) -> int | None:
        """Requests left until the reset; None without a limit."""
        return max(0, self.limit - self.used_today) if self.limit else None


def finish_time(now: datetime, requests: int, allowance: Allowance) -> datetime:
    """The earliest time at which `requests` more requests can have been started."""
    left = allowance.left_today
    if left is None or requests <= left:
        return _at_pace(now, requests, allowance.rate)
    full_days, rest = divmod(requests - left, allowance.limit)
    if rest == 0:  # the last day's quota is used to its end
        full_days, rest = full_days - 1, allowance.limit
    if full_days > _FOREVER.days:
        return now + _FOREVER
    return _at_pace(next_reset(now) + timedelta(days=full_days), rest, allowance.rate)


def days_needed(requests: int, allowance: Allowance) -> int:
    """How many UTC days have requests in them, today counted if it has any."""
    left = allowance.left_today
    if left is None or requests <= left:
        return 1 if requests else 0
    return (1 if left else 0) + -(-(requests - left) // allowance.limit)


def _at_pace(start: datetime, requests: int, rate: float) -> datetime:
    return start + min(timedelta(seconds=requests / rate), _FOREVER) if rate else start
