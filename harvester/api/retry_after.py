"""Retry-After in both its forms (RFC 9110, 10.2.3), and every absurd one survived."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"[0-9]+", re.ASCII)
_LONGEST = 1e10  # some centuries (s): nobody means more


def seconds_to_wait(values: Sequence[str], *, date: str | None, now: datetime) -> float | None:
    """The longest wait (s) that any of the header's values asks for; None if none is usable.

    An HTTP date is compared with the answer's own `Date` header where there is one, so that a
    client whose clock is off still waits as long as the server meant; a past date is 0.
    """
    waits = [wait for value in values if (wait := _one(value.strip(), date, now)) is not None]
    return max(waits, default=None)


def _one(value: str, date: str | None, now: datetime) -> float | None:
    if _SECONDS.fullmatch(value):
        return min(float(value), _LONGEST)
    until = _http_date(value)
    if until is None:
        return None
    start = (_http_date(date) if date else None) or now
    return max(0.0, (until - start).total_seconds())


def _http_date(text: str) -> datetime | None:
    # A date always names a month or a day; this keeps "1e400", "nan" and their kin out.
    if not re.search(r"[A-Za-z]{3}", text):
        return None
    try:
        moment = parsedate_to_datetime(text)
        # asctime and "-0000" come back naive; HTTP knows no zone but GMT.
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
