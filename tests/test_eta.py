"""When a harvest can end: pure arithmetic on pace and quota."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.reporting.eta import Allowance, days_needed, finish_time

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("requests", "allowance", "expected"),
    [
        (0, Allowance(4.0, 0, 0), NOON),
        (100, Allowance(4.0, 0, 0), NOON + timedelta(seconds=25)),
        (100, Allowance(0.0, 0, 0), NOON),
        (100, Allowance(4.0, 1_000, 900), NOON + timedelta(seconds=25)),
        (101, Allowance(4.0, 1_000, 900), MIDNIGHT + timedelta(seconds=0.25)),
        (1_100, Allowance(4.0, 1_000, 900), MIDNIGHT + timedelta(seconds=250)),
        (1_101, Allowance(4.0, 1_000, 900), MIDNIGHT + timedelta(days=1, seconds=0.25)),
        (1_000, Allowance(4.0, 1_000, 2_000), MIDNIGHT + timedelta(seconds=250)),
        (20_000, Allowance(0.0, 10_000, 10_000), MIDNIGHT + timedelta(days=1)),
    ],
)
def test_the_earliest_end(requests: int, allowance: Allowance, expected: datetime) -> None:
    """What is left of today first, then whole days, then the rest of a day at the pace."""
    assert finish_time(NOON, requests, allowance) == expected


@pytest.mark.parametrize(
    ("requests", "allowance", "days"),
    [
        (0, Allowance(4.0, 10, 0), 0),
        (0, Allowance(4.0, 0, 0), 0),
        (1_000_000, Allowance(4.0, 0, 0), 4),
        (10, Allowance(4.0, 10, 0), 1),
        (11, Allowance(4.0, 10, 0), 2),
        (10, Allowance(4.0, 10, 1), 2),
        (10, Allowance(4.0, 10, 10), 1),
        (21, Allowance(4.0, 10, 12), 3),
    ],
)
def test_the_days_it_takes(requests: int, allowance: Allowance, days: int) -> None:
    """Today counts if it has any requests left."""
    assert days_needed(NOON, requests, allowance) == days


def test_an_end_beyond_all_calendars_is_no_error() -> None:
    """A billion years are shown as a hundred."""
    for allowance in (Allowance(1e-9, 0, 0), Allowance(3.3, 1, 0), Allowance(1e-9, 10, 0)):
        assert finish_time(NOON, 10**12, allowance) <= NOON + timedelta(days=80_000)


@given(
    st.integers(0, 10**6),
    st.floats(0.01, 1_000),
    st.integers(0, 10**5),
    st.integers(0, 10**5),
)
def test_more_requests_never_end_earlier(requests: int, rate: float, limit: int, used: int) -> None:
    """The end moves with the work, and days follow the quota."""
    allowance = Allowance(rate, limit, used)
    assert finish_time(NOON, requests, allowance) <= finish_time(NOON, requests + 1, allowance)
    days = days_needed(NOON, requests, allowance)
    if limit:
        left = max(0, limit - used)
        assert left + days * limit >= requests
    assert days <= days_needed(NOON, requests + 1, allowance)
