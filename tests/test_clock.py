"""The arithmetic of the two clocks."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from fakes import NOON
from hypothesis import given
from hypothesis import strategies as st

from harvester.runtime import Clock, later, next_reset, stamp


@pytest.mark.parametrize(
    ("now", "reset"),
    [
        ("2026-03-01T12:00:00+00:00", "2026-03-02T00:00:00+00:00"),
        ("2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00+00:00"),
        ("2026-03-01T23:59:59.999999+00:00", "2026-03-02T00:00:00+00:00"),
        ("2026-12-31T23:30:00+00:00", "2027-01-01T00:00:00+00:00"),
        ("2028-02-28T12:00:00+00:00", "2028-02-29T00:00:00+00:00"),
        ("2026-03-01T23:00:00-05:00", "2026-03-03T00:00:00+00:00"),
    ],
)
def test_the_day_ends_at_midnight_utc(now: str, reset: str) -> None:
    """The reset is the next 00:00 UTC, wherever the clock's own zone is."""
    assert next_reset(datetime.fromisoformat(now)) == datetime.fromisoformat(reset)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_the_reset_is_always_ahead(now: datetime) -> None:
    """It is in the future, and at most a day off."""
    assert timedelta() < next_reset(now) - now <= timedelta(days=1)


@pytest.mark.parametrize(("seconds", "days"), [(86_400.0, 1), (1e300, 366), (float("inf"), 366)])
def test_an_absurd_wait_ends_within_a_year(seconds: float, days: int) -> None:
    """Any number of seconds gives a moment that a calendar has."""
    assert later(NOON, seconds) == NOON + timedelta(days=days)


def test_stamps_are_utc_with_z() -> None:
    """Reports write milliseconds and Z, whatever zone the moment came in."""
    moment = datetime(2026, 3, 1, 1, 2, 3, 456_789, timezone(timedelta(hours=2)))
    assert stamp(moment) == "2026-02-28T23:02:03.456Z"


def test_the_system_clock_is_aware_and_monotonic() -> None:
    """`now` is in UTC, `monotonic` is the clock that event loops use."""
    clock = Clock()
    before = time.monotonic()
    assert clock.now().utcoffset() == timedelta()
    assert before <= clock.monotonic() <= time.monotonic()
