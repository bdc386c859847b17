"""When a harvest can end, with the pace and the day's quota in hand. Pure arithmetic."""

import math
from datetime import datetime, timedelta

from msgspec import Struct

from harvester.runtime import next_reset

_DAY = 86_400
_FOREVER = timedelta(days=36_500)


class Allowance(Struct, frozen=True):
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
    today, a_day = _capacity(now, allowance)
    start, rest = now, float(requests)
    if rest > today:
        full_days, rest = divmod(rest - today, a_day)
        if rest == 0:  # the last day is used to its end
            full_days, rest = full_days - 1, a_day
        start = next_reset(now) + timedelta(days=min(full_days, _FOREVER.days))
    seconds = rest / allowance.rate if allowance.rate else 0.0  # of one day at most
    return min(start + timedelta(seconds=seconds), now + _FOREVER)


def days_needed(now: datetime, requests: int, allowance: Allowance) -> int:
    """How many UTC days have requests in them, today counted if it has any."""
    if not requests:
        return 0
    today, a_day = _capacity(now, allowance)
    if requests <= today:
        return 1
    return (1 if today else 0) + math.ceil((requests - today) / a_day)


def _capacity(now: datetime, allowance: Allowance) -> tuple[float, float]:
    """How many requests can be started today, and on a whole day: by the quota and by the pace."""
    left = allowance.left_today
    today = math.inf if left is None else left
    a_day = allowance.limit or math.inf
    if not allowance.rate:
        return today, a_day
    seconds = (next_reset(now) - now).total_seconds()
    return min(today, seconds * allowance.rate), min(a_day, _DAY * allowance.rate)
